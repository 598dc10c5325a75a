"""How likely a model of a version finds rows: for the evidence beside a deletion."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from pedigree.snapshot import Snapshot
from stages.common.errors import InputError

BATCH_ROWS = 8


@contextmanager
def lay_out(snapshot: Snapshot, models: tuple[str, ...]) -> Iterator[Path]:
    """A folder with models/<name> of a version, links to DVC's cache. Raises InputError where one is not to be had."""
    Path(".pedigree").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="models-", dir=".pedigree") as place:
        for model in models:
            names = snapshot.list_files(f"models/{model}")
            if not names:
                raise InputError(f"models/{model} of {snapshot.name} is in neither the cache nor a remote")
            for name in names:
                path, link = snapshot.find(name), Path(place, name)
                if path is not None:
                    link.parent.mkdir(parents=True, exist_ok=True)
                    os.symlink(path.resolve(), link)
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


def score_rows(snapshot: Snapshot, groups: Mapping[str, pl.DataFrame]) -> dict[str, float]:
    """Mean negative log-likelihood of a supervised token under models/sft of a version, by group of rows, in nats."""
    from types import SimpleNamespace

    from stages.common.models import load_model, load_tokenizer
    from stages.common.supervised import encode_rows, heldout_loss

    with lay_out(snapshot, ("base", "sft")) as folder, inside(folder):
        tokenizer, model = load_tokenizer(Path("models/sft")), load_model(Path("models/sft"))
        few = SimpleNamespace(micro_batch_size=BATCH_ROWS)
        return {
            name: heldout_loss(model, encode_rows(rows, tokenizer), tokenizer, few) for name, rows in groups.items()
        }
