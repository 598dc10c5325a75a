"""What several test files need: a finished run, a toy model with a tokenizer of bytes, and rows."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from tiny import DVC, call, copy_project

from stages.common.rows import ROW_SCHEMA, message


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone in which the whole graph has run, committed; a test that changes it must change it back."""
    folder = tmp_path_factory.mktemp("tiny")
    copy_project(folder)
    call(folder, *DVC, "repro")
    call(folder, "git", "add", "-A")
    call(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "results")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like models/base: the random Llama of the recipe `tiny`."""
    from stages.base import Base, random_model, set_special_tokens, write_model

    params = Base(
        model="random:llama", digest=None, licence="none", attribution=None, chat_template="chatml", dtype="float32"
    )
    model, tokenizer = random_model("llama")
    set_special_tokens(tokenizer, params.chat_template)
    folder = tmp_path_factory.mktemp("models") / "base"
    write_model(model, tokenizer, params, folder)
    return folder


def make_row(number: int, prompt: str, reply: str, rejected: str | None = None, **rest: object) -> dict:
    """A row of the schema: sft, or preference where a rejected reply is given."""
    pair = rejected is not None
    row = {
        "row_id": f"{number:016x}", "source": "source_a", "file": "a.json", "record": number, "branch": None,
        "licence": "CC-BY-4.0", "subject": None, "kind": "preference" if pair else "sft",
        "messages": [message("user", prompt)] + ([] if pair else [message("assistant", reply)]),
        "tools": None,
        "chosen": [message("assistant", reply)] if pair else None,
        "rejected": [message("assistant", rejected)] if pair else None,
        "label": None,
    }  # fmt: skip
    return row | rest


def make_rows(rows: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=ROW_SCHEMA)
