"""How likely a model of a version finds rows: for the evidence beside a deletion."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from pedigree.snapshot import Snapshot
from stages.common.errors import InputError

MODEL_FILES = (
    "adapter_config.json", "adapter_model.safetensors", "parent.json", "config.json", "model.safetensors",
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip
BATCH_ROWS = 8


@contextmanager
def lay_out(snapshot: Snapshot, models: tuple[str, ...]) -> Iterator[Path]:
    """A folder with models/<name> of a version, links to DVC's cache. Raises InputError where one is not to be had."""
    with tempfile.TemporaryDirectory(prefix="models-", dir=".pedigree") as place:
        for model in models:
            folder = Path(place) / "models" / model
            folder.mkdir(parents=True)
            for name in MODEL_FILES:
                path = snapshot.find(f"models/{model}/{name}")
                if path is not None:
                    os.symlink(path.resolve(), folder / name)
            if not any(folder.glob("*config.json")):
                shutil.rmtree(folder)
                raise InputError(f"models/{model} of {snapshot.name} is in neither the cache nor a remote")
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
