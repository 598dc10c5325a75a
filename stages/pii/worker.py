"""Scrub a batch of rows: what a worker process does."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import polars as pl

from stages.common.item_contracts import ITEM_SCHEMA
from stages.common.rows import CONVERSATIONS
from stages.pii.given import Secrets
from stages.pii.params import Scrub
from stages.pii.scrubber import FailedTextError, Finder, Scrubber

FOUND_SCHEMA: dict[str, Any] = {
    "failed": pl.String,  # what was raised, null where the row is scrubbed
    "replaced": pl.String,  # JSON: entity → count
    "kept": pl.String,
    "residual": pl.String,
    "places": pl.String,  # JSON: place in the row, start, end, entity, score
}


def build_scrubber(params: Scrub, secrets: Secrets | None = None) -> Scrubber:
    """The scrubber of params.yaml, with its cache where there can be one. Raises InputError."""
    from stages.pii.analyser import Analyser
    from stages.pii.cache import Cache, fingerprint_of

    analyser = Analyser(params.language, list(params.entities), params.threshold, params.names, params.locales)
    finder: Finder = analyser
    if fingerprint := fingerprint_of(params):
        with suppress(OSError, sqlite3.Error):  # a folder that cannot be written: the cache only saves time
            finder = Cache(analyser, fingerprint)
    return Scrubber(params, finder, secrets)


def make_worker(values: dict[str, Any], secrets: Secrets | None = None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """What scrubs a batch of rows, or of evaluation items; `values` are the block `scrub`. Called once a process."""
    scrubber = build_scrubber(Scrub.model_validate(values), secrets)

    def work(batch: pl.DataFrame) -> pl.DataFrame:
        done = scrub_batch(batch, scrubber) if "row_id" in batch.columns else scrub_items(batch, scrubber)
        if save := getattr(scrubber.finder, "save", None):
            save()
        return done

    return work


def scrub_batch(rows: pl.DataFrame, scrubber: Scrubber) -> pl.DataFrame:
    """The rows after the replacement, with the columns of FOUND_SCHEMA; a row that `failed` is as it was."""
    columns: dict[str, list[Any]] = {column: [] for column in (*CONVERSATIONS, "tools", *FOUND_SCHEMA)}
    for row in rows.select(*CONVERSATIONS, "tools").iter_rows(named=True):
        try:
            clean, counts = scrubber.scrub_row(row)
            found = [dict(sorted(count.items())) for count in (counts.replaced, counts.kept, counts.residual)]
            line = clean | dict(zip(list(FOUND_SCHEMA)[1:], [*found, counts.places], strict=True)) | {"failed": None}
            json.dumps(clean, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        except (FailedTextError, ValueError, RecursionError) as error:  # ValueError: tool calls that are no JSON
            line = row | dict.fromkeys(FOUND_SCHEMA)
            line["failed"] = str(error) if isinstance(error, FailedTextError) else type(error).__name__
        for column, values in columns.items():
            value = line[column]
            values.append(
                json.dumps(value) if column in FOUND_SCHEMA and column != "failed" and value is not None else value
            )
    changed = [pl.Series(name, columns[name], FOUND_SCHEMA.get(name, rows.schema.get(name))) for name in columns]
    return rows.with_columns(changed)


def scrub_items(items: pl.DataFrame, scrubber: Scrubber) -> pl.DataFrame:
    """The evaluation items after the same replacement, with the column `failed`."""
    clean = []
    for item in items.iter_rows(named=True):
        try:
            question, answer, *choices = (
                scrubber.scrub(text).text for text in (item["question"], item["answer"], *item["choices"])
            )
            clean.append(item | {"question": question, "choices": choices, "answer": answer, "failed": None})
        except FailedTextError as error:
            clean.append(item | {"failed": str(error)})
    return pl.DataFrame(clean, ITEM_SCHEMA | {"failed": pl.String})
