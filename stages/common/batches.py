"""Cut the files of a source into batches of undecoded records.

That is quick and keeps the order: a file is unpacked and cut where a record ends, and never held whole. To decode a
batch and make rows of it (`stages/common/records.py`) is the work, which can be done for many batches side by side.

A file that cannot be read raises InputError: it is missing, cut off, not UTF-8, not of its type, or lacks a column that
every record needs.
"""

import codecs
import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import InputError
from stages.common.json_array import NO_ARRAY, ArrayError, split_array
from stages.common.params import Source
from stages.common.sources import check_header, check_source, is_hub, key_of, type_of, used_columns
from stages.common.stores import at_rest, check_digest, digest_content, local_copy

BATCH_BYTES = 4 * 2**20  # undecoded; some thousand records
BATCH_ROWS = 10_000  # of Parquet and the hub, where rows are short
RECORD_BYTES = 256 * 2**20  # of one record at most: what is longer has lost its line ends or its quotes
MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark
BATCH_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "file": pl.String,
    "form": pl.String,  # lines: JSON; fields: a JSON list of texts a line; table: Arrow's stream format
    "number": pl.Int64,  # of the first record
    "offset": pl.Int64,  # of the first byte in the file, for messages
    "header": pl.List(pl.String),  # of fields
    "records": pl.Binary,
}


def make_batch(
    file: str, form: str, number: int, records: bytes, offset: int = 0, header: list[str] | None = None
) -> pl.DataFrame:
    return pl.DataFrame([[file, form, number, offset, header, records]], BATCH_SCHEMA, orient="row")


def read_source(source: Source) -> Iterator[pl.DataFrame]:
    """The batches of all files of a source. Raises InputError, in the end where its digest is not the pinned one.

    Also where a file is written to or replaced while it is read: the rows would be of no version of it.
    """
    key = key_of(source)
    contents: dict[str, str] = {}
    for path in check_source(source):
        with local_copy(path, f"{key}.path") as local, nullcontext() if is_hub(source) else at_rest(path, local):
            if source.digest:
                contents[path] = digest_content(local)
            if source.digest != "unknown":
                yield from read_batches(source, path, local)
    if source.digest:
        check_digest(source.digest, contents, key)


def read_batches(source: Source, path: str, local: str) -> Iterator[pl.DataFrame]:
    """The batches of a file (`local` is its copy on this disk) or hub data set, in order. Raises InputError."""
    ending, compression = ("hub", None) if is_hub(source) else type_of(path)
    empty = True
    try:
        match ending:
            case "hub":
                batches = read_hub(source)
            case ".json":
                batches = read_array(path, local, compression)
            case ".jsonl":
                batches = read_lines(path, local, compression)
            case ".csv" | ".tsv":
                batches = read_delimited(source, path, local, compression, "," if ending == ".csv" else "\t")
            case _:
                batches = read_parquet(source, path, local)
        for batch in batches:
            empty = False
            yield batch
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:  # each of them out of Arrow, for any damage
        cause = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({cause}); copy or export the file again") from None
    if empty:
        raise InputError(f"{path}: holds no record; fill it, or take it out of sources in params.yaml")


@contextmanager
def open_bytes(local: str, compression: str | None) -> Iterator[tuple[io.BufferedReader, int]]:
    """The content after the byte order mark, and the mark's length.

    Through Arrow, which tells a cut stream from its end; Python's zstandard takes the one for the other.
    """
    with io.BufferedReader(pa.input_stream(local, compression=compression), BATCH_BYTES) as file:
        marked = file.peek(len(MARK)).startswith(MARK)
        yield file, len(file.read(len(MARK))) if marked else 0


def read_lines(path: str, local: str, compression: str | None) -> Iterator[pl.DataFrame]:
    number = 0
    with open_bytes(local, compression) as (file, offset):
        while block := file.read(BATCH_BYTES):
            rest = file.readline(RECORD_BYTES)
            if len(rest) == RECORD_BYTES:
                raise too_long(path, "line", number + block.count(b"\n") + 1)
            block += rest
            if not number and block.lstrip().startswith(b"["):
                raise InputError(f"{path}: holds a JSON array, not one object a line; name it .json")
            if not block.isspace():
                yield make_batch(path, "lines", number, block, offset)
            number += block.count(b"\n")
            offset += len(block)


def too_long(path: str, unit: str, number: int) -> InputError:
    return InputError(f"{path}, {unit} {number}: longer than {RECORD_BYTES // 2**20} MiB; no record is, so split it up")


def decode(content: bytes, path: str, offset: int) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {offset + error.start}; save the file as UTF-8") from None


def join_lines(path: str, form: str, lines: Iterable[bytes], header: list[str] | None = None) -> Iterator[pl.DataFrame]:
    """Batches of records, one a line."""
    number = size = 0
    block: list[bytes] = []
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= BATCH_BYTES:
            yield make_batch(path, form, number, b"\n".join(block), header=header)
            number += len(block)
            block, size = [], 0
    if block:
        yield make_batch(path, form, number, b"\n".join(block), header=header)


def read_pieces(path: str, file: io.BufferedReader, offset: int) -> Iterator[str]:
    """The text of a file, piece by piece."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    while True:
        piece = file.read(BATCH_BYTES // 4)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            place = offset - pending + error.start
            raise InputError(f"{path}: not UTF-8 at byte {place}; save the file as UTF-8") from None
        if not piece:
            return
        offset += len(piece)
        if text:
            yield text


def read_array(path: str, local: str, compression: str | None) -> Iterator[pl.DataFrame]:
    with open_bytes(local, compression) as (file, offset):
        elements = split_array(read_pieces(path, file, offset), RECORD_BYTES)
        try:
            # in valid JSON a line end stands between two tokens, never in a text
            yield from join_lines(path, "lines", (element.replace("\n", " ").encode() for element in elements))
        except ArrayError as error:
            if error.reason == NO_ARRAY:
                raise InputError(f"{path}: expected a JSON array of records; one record a line is .jsonl") from None
            place = f"line {error.line}, column {error.column}"
            raise InputError(f"{path}, {place}: not valid JSON ({error.reason})") from None
        except InputError:
            raise
        except (ValueError, RecursionError):  # a number of more than 4,300 digits; brackets in brackets without end
            raise InputError(f"{path}: not valid JSON") from None


def read_delimited(
    source: Source, path: str, local: str, compression: str | None, delimiter: str
) -> Iterator[pl.DataFrame]:
    """Every value is text. Python's reader rather than Polars', because it tells one broken record from the others."""
    csv.field_size_limit(RECORD_BYTES)  # the default, 128 KiB, is less than a long document
    with open_bytes(local, compression) as (file, offset):
        reader = csv.reader(text_lines(path, file, offset), delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            if not header:
                return
            check_header(header, source, path)
            yield from join_lines(path, "fields", (orjson.dumps(fields) for fields in reader if fields), header)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}; check its quotes") from None


def text_lines(path: str, file: io.BufferedReader, offset: int) -> Iterator[str]:
    number = 0
    while line := file.readline(RECORD_BYTES):
        number += 1
        if len(line) == RECORD_BYTES:
            raise too_long(path, "line", number)
        yield decode(line, path, offset)
        offset += len(line)


def pack_table(path: str, number: int, table: pa.Table | pa.RecordBatch) -> pl.DataFrame:
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write(table)
    return make_batch(path, "table", number, stream.getvalue().to_pybytes())


def read_parquet(source: Source, path: str, local: str) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(local) as file:
        names = file.schema_arrow.names
        check_header(names, source, path)
        groups = [file.metadata.row_group(place) for place in range(file.num_row_groups)]
        row_bytes = sum(group.total_byte_size for group in groups) / max(1, file.metadata.num_rows)
        batch_rows = max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(1, row_bytes))))
        number = 0
        for table in file.iter_batches(batch_rows, columns=used_columns(source, names)):
            yield pack_table(path, number, table)
            number += table.num_rows


def read_hub(source: Source) -> Iterator[pl.DataFrame]:
    """A data set of the hub at its commit, streamed; nothing of it is executed."""
    name = source.path.removeprefix("hub:")
    # stages.common.stage sets this for everything that is to stay offline; HF_HUB_OFFLINE still keeps this offline
    os.environ.pop("HF_DATASETS_OFFLINE", None)
    import datasets
    import httpx

    for library in ("huggingface_hub", "datasets"):  # one clear error at the end, not one line for each of five tries
        logging.getLogger(library).setLevel(logging.CRITICAL)
    number = 0
    try:
        stream: Any = datasets.load_dataset(
            name, name=source.config, split=source.split, revision=source.revision, streaming=True
        )
        for table in stream.with_format("arrow").iter(BATCH_ROWS):
            if not number:
                check_header(table.column_names, source, source.path)
            yield pack_table(source.path, number, table.select(used_columns(source, table.column_names)))
            number += table.num_rows
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, httpx.HTTPError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"params.yaml, sources.{source.name}: {source.path} at {source.revision} cannot be loaded ({reason}); "
            "check the network, the name, the split and the configuration, or download it and give a file"
        ) from None
