"""How likely the models before and after a deletion find the text of its rows: the evidence beside the proof.

Mean negative log-likelihood of a supervised token, in nats: of SFT rows under models/sft; of preference rows, the
better and the worse reply apart, under models/align. A model that never saw a text may still find it likely, so the
figures stand beside those of rows that were held out before and trained no model since.
"""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pedigree.snapshot import Snapshot
from stages.common.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_ROWS = 8
SCORED_ROWS = 64  # of a request, and as many held-out rows
KIND_OF = {"sft": "sft", "align": "preference"}
PARENTS = {"sft": ("base", "sft"), "align": ("base", "sft", "align")}


@contextmanager
def lay_out(snapshot: Snapshot, models: tuple[str, ...]) -> Iterator[Path]:
    """A folder with models/<name> of a version, links to DVC's cache. Raises InputError where one is not to be had."""
    Path(".pedigree").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="models-", dir=".pedigree") as place:
        for model in models:
            names = snapshot.list_files(f"models/{model}")
            paths = {name: snapshot.find(name) for name in names}
            if not names or None in paths.values():
                raise InputError(f"models/{model} of {snapshot.name} is in neither the cache nor a remote")
            for name, path in paths.items():
                link = Path(place, name)
                link.parent.mkdir(parents=True, exist_ok=True)
                os.symlink(path.resolve(), link)  # type: ignore[union-attr]
        yield Path(place)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The folder as the current one: an adapter names its parent relative to it."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def encode_group(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase") -> dict[str, pl.DataFrame]:
    """What is scored of rows, as `encode_rows` gives it: an SFT row's text, a pair's better and worse reply."""
    from stages.common.chat import encode_reply
    from stages.common.supervised import IGNORED, encode_rows

    if rows["kind"][0] == "sft":
        return {"text": encode_rows(rows, tokenizer)}
    found = {}
    for side in ("chosen", "rejected"):
        lines = []
        for row in rows.iter_rows(named=True):
            prompt, reply = encode_reply(tokenizer, row["messages"], row[side], row["tools"], row["row_id"])
            labels = [IGNORED] * len(prompt) + reply
            lines.append({"row_id": row["row_id"], "input_ids": prompt + reply, "labels": labels})
        found[side] = pl.DataFrame(lines).with_columns(length=pl.col("input_ids").list.len())
    return found


def score_rows(snapshot: Snapshot, name: str, groups: dict[str, pl.DataFrame]) -> dict[str, dict[str, float]]:
    """Group → what is scored of it → nats a token, under a model of a version. Raises InputError."""
    from types import SimpleNamespace

    from stages.common.models import load_model, load_tokenizer
    from stages.common.supervised import heldout_loss

    bars = io.StringIO()  # one for each file that is loaded and each few rows that are scored
    with lay_out(snapshot, PARENTS[name]) as folder, inside(folder), redirect_stderr(bars):
        tokenizer, model = load_tokenizer(Path("models", name)), load_model(Path("models", name))
        few = SimpleNamespace(micro_batch_size=BATCH_ROWS)
        return {
            group: {part: heldout_loss(model, table, tokenizer, few) for part, table in encoded.items()}
            for group, rows in groups.items()
            for encoded in [encode_group(rows, tokenizer)]
        }


def measure_likelihood(before: Snapshot, ids: pl.Series) -> dict[str, dict[str, Any]]:
    """Model → rows (of the request that trained it), and the scores before and after of `scored` of them.

    Where there is nothing to score, or a model is out of reach, `why` says so in the place of the scores.
    """
    return {name: _measure(before, ids, name) for name in KIND_OF}


def _measure(before: Snapshot, ids: pl.Series, name: str) -> dict[str, Any]:
    scan = before.scan(f"data/mix/{KIND_OF[name]}.parquet")
    rows = None if scan is None else scan.collect()
    if rows is None:
        return {"rows": 0, "why": f"the version before had no {KIND_OF[name]} mixture in reach"}
    forgotten = rows.filter(pl.col("row_id").is_in(ids.implode()), split="train").unique("row_id", maintain_order=True)
    consumed = Path(f"models/{name}/consumed.parquet")
    trained = pl.read_parquet(consumed, columns=["row_id"])["row_id"] if consumed.is_file() else ids.clear()
    heldout = rows.filter(~pl.col("row_id").is_in(pl.concat([ids, trained]).implode()), split="heldout")
    found: dict[str, Any] = {"rows": forgotten.height}
    if not forgotten.height or not heldout.height:
        return found | {
            "why": "no row of it trained this model" if heldout.height else "no held-out row to compare with"
        }
    groups = {"forgotten": forgotten.head(SCORED_ROWS), "heldout": heldout.head(SCORED_ROWS)}
    try:
        scores = {when: score_rows(of, name, groups) for when, of in (("before", before), ("after", Snapshot(None)))}
    except InputError as error:
        return found | {"why": str(error)}
    return found | {"scored": groups["forgotten"].height, "compared_with": groups["heldout"].height} | scores
