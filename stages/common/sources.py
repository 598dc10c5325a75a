"""Read the records of a source: JSON, JSONL, CSV, TSV and Parquet files, each also compressed, or a hub data set.

A record that cannot be read stands as a `RecordError` in its place. A file that cannot be read raises InputError: it is
missing, cut off, not UTF-8, not of its type, or lacks a column that every record needs.
"""

import csv
import glob
import io
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.conversation import RecordError
from stages.common.errors import InputError
from stages.common.formats import FIELDS
from stages.common.params import Source

TYPES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
BATCH_RECORDS = 1000  # of a Parquet file at a time


class Entry(NamedTuple):
    """A record of a file: `number` counts from 0; in JSONL it is the line's, in the others the record's."""

    number: int
    value: Any


def is_hub(source: Source) -> bool:
    return source.path.startswith("hub:")


def type_of(path: str) -> tuple[str, str | None]:
    """File type and compression of a path by its endings. Raises InputError."""
    name = Path(path).name.lower()
    compression = COMPRESSIONS.get(Path(name).suffix)
    ending = Path(Path(name).stem).suffix if compression else Path(name).suffix
    if ending not in TYPES:
        raise InputError(f"{path}: the type is unknown; name it {', '.join(TYPES)}, or one of these + .gz, .bz2, .zst")
    if compression and ending == ".parquet":
        raise InputError(f"{path}: Parquet is compressed inside; unpack the file")
    return ending, compression


def check_source(source: Source) -> list[str]:
    """The files of a source, sorted (of a hub data set: its path). Raises InputError; no record is read."""
    required, optional = FIELDS[source.format]
    known = [] if source.format == "oasst" else [field for name in required + optional for field in name.split("|")]
    for field in source.columns:
        if field not in known:
            names = ", ".join(known) or "none, since they are nested"
            raise InputError(
                f"params.yaml, sources.{source.name}.columns: '{field}' is not a field of format {source.format} "
                f"that can be mapped ({names})"
            )
    key = f"params.yaml, sources.{source.name}"
    if is_hub(source):
        if not re.fullmatch(r"[0-9a-f]{40}", source.revision or ""):
            raise InputError(f"{key}.revision: must be the data set's commit, 40 hex digits, got {source.revision!r}")
        if not source.split:
            raise InputError(f"{key}.split: missing; name the split to read, such as train")
        return [source.path]
    if Path(source.path).is_absolute():
        raise InputError(f"{key}.path: must be relative to the repository's root, so that it is the same everywhere")
    found = [source.path] if Path(source.path).exists() else sorted(glob.glob(source.path, recursive=True))
    files = [Path(path).as_posix() for path in found if Path(path).is_file()]
    if not files:
        raise InputError(f"{key}.path: no file {source.path}; put it there, or mend the path")
    for path in files:
        type_of(path)
    return files


def check_header(names: list[str], source: Source, path: str) -> None:
    """Raises InputError where a table lacks a column that every record needs."""
    needed = [[source.columns.get(field, field) for field in name.split("|")] for name in FIELDS[source.format][0]]
    needed += [[column] for column in (*source.columns.values(), source.subject) if column]
    missing = [" or ".join(columns) for columns in needed if not set(columns) & set(names)]
    if missing:
        # Without a header line the first record stands here, and what it holds must not be shown: only names that a
        # format or params.yaml knows are.
        fields = (name for required, optional in FIELDS.values() for name in (*required, *optional))
        known = {part for field in fields for part in field.split("|")}
        known |= {*source.columns.values(), source.subject or ""}
        shown = [name for name in names if name in known]
        others = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
        raise InputError(
            f"{path}: no column {', '.join(dict.fromkeys(missing))}; it has {', '.join(shown) or 'none'}{others}. "
            f"The first line names the columns; params.yaml, sources.{source.name}.columns maps a field to a column"
        )


def read_entries(source: Source, path: str) -> Iterator[Entry]:
    """All records of a file of the source, in order. Raises InputError."""
    ending, compression = type_of(path) if not is_hub(source) else ("hub", None)
    empty = True
    try:
        match ending:
            case "hub":
                entries = read_hub(source)
            case ".json":
                entries = read_array(path, compression)
            case ".jsonl":
                entries = read_lines(path, compression)
            case ".csv" | ".tsv":
                entries = read_delimited(path, compression, "," if ending == ".csv" else "\t", source)
            case _:
                entries = read_parquet(path, source)
        for entry in entries:
            empty = False
            yield entry
    except (OSError, pa.ArrowException) as error:  # Arrow raises either, whether a file is cut off or of another type
        cause = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({cause}); copy or export the file again") from None
    if empty:
        raise InputError(f"{path}: holds no record; fill it, or take it out of sources in params.yaml")


def open_bytes(path: str, compression: str | None) -> io.BufferedReader:
    """Through Arrow, which tells a cut stream from its end; Python's zstandard takes the one for the other."""
    return io.BufferedReader(pa.input_stream(path, compression=compression))


def text_lines(path: str, compression: str | None) -> Iterator[str]:
    offset = 0
    with open_bytes(path, compression) as file:
        for line in file:
            yield decode(line, path, offset)
            offset += len(line)


def decode(content: bytes, path: str, offset: int = 0) -> str:
    """UTF-8, without the byte order mark at the start of a file."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {offset + error.start}; save the file as UTF-8") from None
    return text.removeprefix("\ufeff") if not offset else text


def read_array(path: str, compression: str | None) -> Iterator[Entry]:
    with open_bytes(path, compression) as file:
        text = decode(file.read(), path)
    try:
        records = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            raise InputError(f"{path}: holds one object a line, not an array; name it .jsonl") from None
        raise InputError(f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError):  # a number of more than 4,300 digits; brackets in brackets without end
        raise InputError(f"{path}: not valid JSON") from None
    if not isinstance(records, list):
        raise InputError(f"{path}: expected a JSON array of records, got one value; one record a line is .jsonl")
    yield from (Entry(number, value) for number, value in enumerate(records))


def read_lines(path: str, compression: str | None) -> Iterator[Entry]:
    first = True
    for number, line in enumerate(text_lines(path, compression)):
        if not line.strip():
            continue
        if first and line.lstrip().startswith("["):
            raise InputError(f"{path}: holds a JSON array, not one object a line; name it .json")
        first = False
        value: Any
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # where in the line differs from one Python to the next
            value = RecordError("not valid JSON")
        yield Entry(number, value)


def read_delimited(path: str, compression: str | None, delimiter: str, source: Source) -> Iterator[Entry]:
    """Every value is text. Python's reader rather than Polars', because it tells one broken record from the others."""
    csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is less than a long document
    reader = csv.reader(text_lines(path, compression), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if not header:
            return
        check_header(header, source, path)
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise InputError(f"{path}: the column {', '.join(twice)} stands twice; give each its own name")
        filled = (fields for fields in reader if fields)
        for number, fields in enumerate(filled):
            matches = len(fields) == len(header)
            value = dict(zip(header, fields, strict=True)) if matches else None
            yield Entry(number, value or RecordError(f"{len(fields)} columns; the header has {len(header)}"))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; check its quotes") from None


def read_parquet(path: str, source: Source) -> Iterator[Entry]:
    with pq.ParquetFile(path) as file:
        check_header(file.schema_arrow.names, source, path)
        values = (value for batch in file.iter_batches(BATCH_RECORDS) for value in batch.to_pylist())
        yield from (Entry(number, value) for number, value in enumerate(values))


def read_hub(source: Source) -> Iterator[Entry]:
    """A data set of the hub at its commit; nothing of it is executed."""
    name = source.path.removeprefix("hub:")
    # stages.common.stage sets this for everything that is to stay offline; HF_HUB_OFFLINE still keeps this offline
    os.environ.pop("HF_DATASETS_OFFLINE", None)
    import datasets
    import httpx

    for library in ("huggingface_hub", "datasets"):  # one clear error at the end, not one line for each of five tries
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        table: Iterable[Any] = datasets.load_dataset(
            name, name=source.config, split=source.split, revision=source.revision, streaming=False
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, httpx.HTTPError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"params.yaml, sources.{source.name}: {source.path} at {source.revision} cannot be loaded ({reason}); "
            "check the network, the name, the split and the configuration, or download it and give a file"
        ) from None
    check_header(list(getattr(table, "column_names", [])), source, source.path)
    yield from (Entry(number, value) for number, value in enumerate(table))
