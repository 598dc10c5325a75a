"""The exclusion list: rows, subjects and sources that must not be used, as `pedigree forget` writes them.

A line of data/raw/exclusions.jsonl is {request, kind, value, key, since}. `value` is a row_id or the digest of a
subject, both keyed (stages/pool.py), so that the list gives nobody away, or the name of a source. `key` is the
fingerprint of the key: under another one nothing would match. `since` is the commit whose results still hold the rows.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.common.errors import InputError

FILE = Path("data/raw/exclusions.jsonl")
COLUMNS = {"row": "row_id", "subject": "subject", "source": "source"}


class Exclusion(BaseModel):
    """A line of the list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: str
    kind: Literal["row", "subject", "source"]
    value: str
    key: str
    since: str | None


def read_exclusions(key: str, path: Path = FILE) -> list[Exclusion]:
    """The list. Raises InputError where a line is none of it, or was made under another key than `key`."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = Exclusion(**json.loads(line))
        except (ValueError, TypeError, ValidationError):
            expected = "expected an object of request, kind (row, subject or source), value, key, since"
            raise InputError(f"{path}, line {number}: {expected}; `pedigree forget` writes such lines") from None
        if entry.kind != "source" and entry.key != key:
            raise InputError(
                f"{path}, line {number}: was written under the key {entry.key}, params.yaml has {key}; "
                "ids under another key match nothing: set the old key, or make the request anew and delete the line"
            )
        found.append(entry)
    return found


def mark_excluded(rows: pl.DataFrame, exclusions: Iterable[Exclusion]) -> pl.Series:
    """Of each row the request that excludes it, null where there is none; the first line that matches."""
    requests = pl.Series("request", [None], pl.String).new_from_index(0, rows.height)
    entries = list(exclusions)
    for kind, column in COLUMNS.items():
        named = {entry.value: entry.request for entry in reversed(entries) if entry.kind == kind}
        if named:
            requests_of = pl.Series(list(named.values()), dtype=pl.String)
            found = rows[column].replace_strict(list(named), requests_of, default=None)
            requests = rows.select(pl.coalesce(requests, found))[:, 0]
    return requests.alias("request")
