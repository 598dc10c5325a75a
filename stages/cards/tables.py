"""The tables that the card counts in: of each only names of rows, sources and reasons, never a text.

data/pool and data/dedup hold raw data and may be on another machine: their counts come from metrics/pool.json and
metrics/dedup.json, and stages/cards/agreement.py holds these against the tables where they are here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from stages.common.errors import InputError

ROW, LINE = ["row_id", "source"], ["row_id", "action", "reason"]
MIXED = [*ROW, "split", "repeat", "tokens"]
READER = {"sft": "sft", "preference": "align"}
"""Kind of rows → the model that is trained on them."""


@dataclass(frozen=True)
class Tables:
    """What the data stages and the trainings left behind, row by row."""

    rows: dict[str, pl.DataFrame]
    """scrub, decontaminate → ROW of the rows that went on."""
    ledgers: dict[str, pl.DataFrame]
    """scrub, decontaminate, mix → LINE of the rows that did not, or that were changed."""
    mixture: pl.DataFrame
    """MIXED and kind of every row of the mixture."""
    consumed: dict[str, pl.DataFrame]
    """sft, align, quantized → row_id and step of what training, or calibration, read."""
    items: pl.DataFrame
    """task, dirty of every evaluation item."""


def read_table(path: Path, columns: list[str], stage: str) -> pl.DataFrame:
    """Columns of a table. Raises InputError that names the stage to run."""
    try:
        return pl.read_parquet(path, columns=columns)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro {stage}`") from None
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); run `dvc repro --force {stage}`") from None


def read_tables(kinds: Iterable[str]) -> Tables:
    """The tables of a finished run. Raises InputError."""
    data, models = Path("data"), Path("models")
    return Tables(
        rows={stage: read_table(data / stage / "rows.parquet", ROW, stage) for stage in ("scrub", "decontaminate")},
        ledgers={
            stage: read_table(data / stage / "ledger.parquet", LINE, stage)
            for stage in ("scrub", "decontaminate", "mix")
        },
        mixture=pl.concat(
            read_table(data / "mix" / f"{kind}.parquet", MIXED, "mix").with_columns(kind=pl.lit(kind)) for kind in kinds
        ),
        consumed={
            model: read_table(models / model / "consumed.parquet", ["row_id", "step"], stage)
            for model, stage in {"sft": "sft", "align": "align", "quantized": "quantize"}.items()
        },
        items=read_table(data / "decontaminate" / "items.parquet", ["task", "dirty"], "decontaminate"),
    )
