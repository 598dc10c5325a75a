"""Decode the records of a batch and make rows of them, without a look at any other batch.

A record that cannot be read stands as a `RecordError` in its place, and is refused with its reason.
"""

import gc
import hmac
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import orjson
import polars as pl
import pyarrow as pa

from stages.common.batches import decode, read_source
from stages.common.conversation import RecordError, read_list
from stages.common.formats import gather_trees, parse
from stages.common.params import Source
from stages.common.rows import ROW_SCHEMA

RESULT_SCHEMA = pl.Schema(ROW_SCHEMA | {"others": pl.List(pl.String), "reason": pl.String})
ARROW_SCHEMA = pl.DataFrame(schema=RESULT_SCHEMA).to_arrow(compat_level=pl.CompatLevel.newest()).schema
LISTS = ("messages", "conversations")  # in a table also as JSON text
TURNS = (*LISTS, "prompt", "completion", "chosen", "rejected")  # fields that may hold turns
TOOLS = ("tool", "observation")  # roles that are nobody: their `name` is a tool's
BLANK = " \t\r\v\f"
NO_CONSENT = "no consent"  # how the reason begins
# Of the standard library: orjson, twice as fast, reads an integer of 65 bits as a float and refuses lone surrogates.
DECODE = json.JSONDecoder().decode


class Entry(NamedTuple):
    """A record of a file: `number` counts from 0; in JSONL it is the line's, in the others the record's."""

    number: int
    value: Any


def decode_batch(batch: pl.DataFrame) -> Iterator[Entry]:
    """The records of a batch. Raises InputError where its bytes are not UTF-8."""
    ((path, form, number, offset, header, records),) = batch.iter_rows()
    if form == "table":
        yield from decode_table(pa.ipc.open_stream(records).read_all(), number)
        return
    for place, line in enumerate(decode(records, path, offset).split("\n"), number):
        if not line.strip(BLANK):
            continue
        value: Any
        try:
            value = DECODE(line)
        except (ValueError, RecursionError):  # where in the line differs from one Python to the next
            value = RecordError("not valid JSON")
        yield Entry(place, name_fields(header, value) if form == "fields" else value)


def name_fields(header: list[str], fields: list[str]) -> dict[str, str] | RecordError:
    if len(fields) != len(header):
        return RecordError(f"{len(fields)} columns; the header has {len(header)}")
    return dict(zip(header, fields, strict=True))


def decode_table(table: pa.Table, number: int) -> Iterator[Entry]:
    """The rows of a table; of one with a value that has no Python form, such as a year 300,000, each row by itself."""
    values: list[Any]
    try:
        values = table.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        values = [decode_row(table.slice(place, 1)) for place in range(table.num_rows)]
    yield from (Entry(place, value) for place, value in enumerate(values, number))


def decode_row(row: pa.Table) -> Any:
    try:
        return row.to_pylist()[0]
    except (ValueError, OverflowError, pa.ArrowException):
        return RecordError("a value cannot be read")


def read_entries(source: Source) -> Iterator[tuple[str, Entry]]:
    """All records of a source, each with its file, decoded in this process; flat messages of OASST in their trees."""
    for path, batches in groupby(read_source(source), key=lambda batch: batch["file"][0]):
        entries = (entry for batch in batches for entry in decode_batch(batch))
        if source.format == "oasst":
            records = list(entries)
            values = gather_trees(require_consent(entry.value, source) for entry in records)
            entries = (Entry(entry.number, value) for entry, value in zip(records, values, strict=True))
        for entry in entries:
            yield path, entry


def require_consent(record: Any, source: Source) -> Any:
    """The record, or a RecordError in its place where its own column does not say that its subject agreed."""
    consent = source.consent_by_record
    if consent is None or not isinstance(record, dict):
        return record
    value = record.get(consent.column)
    if isinstance(value, float) and value.is_integer():  # a column of integers with gaps in it comes as floats
        value = int(value)
    if value is not None and str(value).strip().lower() in {each.strip().lower() for each in consent.values}:
        return record
    return RecordError(f"{NO_CONSENT} ('{consent.column}')")


def digest_subject(value: Any, key: bytes) -> str | None:
    """First 16 hex digits of the HMAC-SHA256 of a subject's name or number; null where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise RecordError("the subject is neither text nor a number")
    if isinstance(value, float) and value.is_integer():  # a column of integers with gaps in it comes as floats
        value = int(value)
    if not str(value).strip():
        return None
    return hmac.digest(key, str(value).strip().encode(), "sha256").hex()[:16]


def list_turns(record: dict[str, Any], source: Source, branch: str | None) -> list[dict[str, Any]]:
    """The turns of a record as it came, of a tree the messages on the way to the end of `branch`."""
    turns: list[Any] = []
    if source.format == "oasst":
        turns = [record.get("prompt") or record]
        for place in filter(None, (branch or "").split(".")):
            turns.append(read_list(turns[-1], "replies")[int(place)])
    for field in TURNS if source.format != "oasst" else ():
        column = source.columns.get(field, field)
        value = read_list(record, column) if field in LISTS else record.get(column)
        turns += value if isinstance(value, list) else []
    return [turn for turn in turns if isinstance(turn, dict) and (turn.get("role") or turn.get("from")) not in TOOLS]


def read_subjects(record: dict[str, Any], source: Source, key: bytes, branch: str | None) -> list[str]:
    """Digests of whose data a row is: its record's, or that of the first turn that names someone; the other turns'."""
    if not source.subject:
        return []
    values = [record.get(source.subject), *(turn.get(source.subject) for turn in list_turns(record, source, branch))]
    digests = (digest_subject(value, key) for value in values)
    return list(dict.fromkeys(digest for digest in digests if digest))


def make_row_id(source: Source, key: bytes, subject: str | None, content: dict[str, Any], occurrence: int) -> str:
    """First 16 hex digits of the HMAC-SHA256 over source, subject and content as canonical JSON, and occurrence."""
    fields = {
        "messages": content["messages"],
        "tools": content["tools"],
        "chosen": content["chosen"],
        "rejected": content["rejected"],
        "label": content["label"],
        "kind": source.kind,
        "subject": subject,
    }
    canonical = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    return hmac.digest(key, b"%b\n%b\n%d" % (source.name.encode(), canonical, occurrence), "sha256").hex()[:16]


def build_rows(source: Source, key: bytes, path: str, entry: Entry) -> list[dict[str, Any]]:
    """The rows of one record with the columns of ROW_SCHEMA, each as if it occurred once. Raises RecordError."""
    record = require_consent(entry.value, source)
    if isinstance(record, RecordError):
        raise record
    contents = parse(record, source.format, source.columns)
    rows = []
    try:
        for content in contents:
            fields = vars(content)
            subjects = read_subjects(entry.value, source, key, content.branch)
            subject, others = next(iter(subjects), None), subjects[1:]
            ids = {"row_id": make_row_id(source, key, subject, fields, 0), "subject": subject, "others": others}
            row = ids | {"kind": source.kind}
            place = {"source": source.name, "file": path, "record": entry.number, "licence": source.licence}
            rows.append(row | place | fields)
    except (UnicodeEncodeError, orjson.JSONEncodeError):
        raise RecordError("a text holds half of a surrogate pair, which is no character") from None
    return rows


def build_table(source: Source, key: bytes, entries: Iterable[tuple[str, Entry]]) -> pl.DataFrame:
    """The rows of records with the columns of RESULT_SCHEMA.

    A refused record is a line with a reason and no row_id; a record without a row of its own one without either.
    """

    lines: list[dict[str, Any]] = []
    with no_collection():
        for path, entry in entries:
            place = {"source": source.name, "file": path, "record": entry.number}
            try:
                lines += build_rows(source, key, path, entry) or [place]
            except RecordError as error:
                lines.append(place | {"reason": error.reason})
        # through Arrow, column by column: in a third of the time that Polars takes for a list of dicts
        columns = [pa.array([line.get(field.name) for line in lines], field.type) for field in ARROW_SCHEMA]
    return pl.DataFrame(pa.Table.from_arrays(columns, schema=ARROW_SCHEMA), RESULT_SCHEMA)


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's search for cycles, of which there are none in records, takes a quarter of the time that they take."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def build_batch(source: Source, key: bytes, batch: pl.DataFrame) -> pl.DataFrame:
    path = batch["file"][0]
    return build_table(source, key, ((path, entry) for entry in decode_batch(batch)))


def make_worker(source: Source, key: bytes) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return partial(build_batch, source, key)
