"""What became of the rows at each stage, counted in the tables and ledgers that the stage wrote.

Names and reasons only, and numbers: never a value out of a row. A stage whose tables are not here has no counts.
"""

from typing import Any

import polars as pl

from pedigree.columns import TRAINED_ON
from pedigree.journey import JUDGED, KINDS
from pedigree.snapshot import Snapshot

MODEL_OF = {"sft": "sft", "align": "align", "quantize": "quantized"}


def count_rows(snapshot: Snapshot, stage: str) -> dict[str, Any]:
    """The counts of one stage; empty where it keeps no ledger, or its tables are out of reach."""
    if stage == "pool":
        return count_pooled(snapshot)
    if stage in JUDGED:
        return count_judged(snapshot, stage)
    if stage == "mix":
        return count_mixed(snapshot)
    return count_trained(snapshot, MODEL_OF[stage]) if stage in MODEL_OF else {}


def by_reason(table: pl.LazyFrame) -> dict[str, int]:
    return dict(table.group_by("reason").len().sort("reason").collect().iter_rows())


def height(table: pl.LazyFrame) -> int:
    return int(table.select(pl.len()).collect().item())


def count_pooled(snapshot: Snapshot) -> dict[str, Any]:
    rows, refused, ledger = (snapshot.scan(f"data/pool/{name}.parquet") for name in ("rows", "refused", "ledger"))
    if rows is None or refused is None or ledger is None:
        return {}
    excluded = height(ledger.filter(action="drop"))
    of_source = rows.group_by("source").len().sort("source").collect()
    return {
        "rowsIn": height(rows) + excluded,
        "rowsOut": height(rows),
        "dropped": by_reason(ledger.filter(action="drop")),
        "recordsRefused": by_reason(refused),
        "rowsOutBySource": dict(of_source.iter_rows()),
    }


def count_judged(snapshot: Snapshot, stage: str) -> dict[str, Any]:
    """Of a stage that keeps, changes or drops each row; a row is in at most one of its ledger's lines."""
    rows, ledger = (snapshot.scan(f"data/{stage}/{name}.parquet") for name in ("rows", "ledger"))
    if rows is None or ledger is None:
        return {}
    dropped = ledger.filter(action="drop")
    of_source = rows.group_by("source").len().sort("source").collect()
    return {
        "rowsIn": height(rows) + height(dropped),
        "rowsOut": height(rows),
        "dropped": by_reason(dropped),
        "changed": by_reason(ledger.filter(action="change")),
        "rowsOutBySource": dict(of_source.iter_rows()),
    }


def count_mixed(snapshot: Snapshot) -> dict[str, Any]:
    ledger = snapshot.scan("data/mix/ledger.parquet")
    kinds = {kind: table for kind in KINDS if (table := snapshot.scan(f"data/mix/{kind}.parquet")) is not None}
    if ledger is None or not kinds:
        return {}
    told = {}
    for kind, table in kinds.items():
        told[kind] = {
            "train": height(table.filter(split="train")),
            "heldOut": height(table.filter(split="heldout")),
            "repeats": height(table.filter(pl.col("repeat") > 0)),
        }
    out = pl.concat([table.select("row_id", "source") for table in kinds.values()]).unique("row_id").collect()
    return {
        "rowsIn": out.height + height(ledger),
        "rowsOut": out.height,
        "dropped": by_reason(ledger),
        "rowsOutBySource": dict(out.group_by("source").len().sort("source").iter_rows()),
        "mixture": told,
    }


def count_trained(snapshot: Snapshot, model: str) -> dict[str, Any]:
    """Rows that a model was trained on, or calibrated with, and how often: `uses` counts a row once for each epoch."""
    consumed = snapshot.scan(f"models/{model}/consumed.parquet")
    if consumed is None:
        return {}
    seen = consumed.select(rows=pl.col("row_id").n_unique(), uses=pl.len(), steps=pl.col("step").n_unique()).collect()
    table = snapshot.scan(f"data/mix/{TRAINED_ON[model]}.parquet")
    told = {"consumedRows": seen["rows"][0], "consumedUses": seen["uses"][0], "steps": seen["steps"][0]}
    return told if table is None else {"rowsIn": table.select(pl.col("row_id").n_unique()).collect().item(), **told}
