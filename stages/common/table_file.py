"""Write a table of any size to one Parquet file, part by part."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

GROUP_ROWS = 32_768
GROUP_PARTS = 16  # of 4 MiB each, so that long texts make a group smaller in rows, not larger in memory


@contextmanager
def open_table(path: Path | str, schema: pl.Schema) -> Iterator[Callable[[pl.DataFrame], None]]:
    """A function that appends rows; the file appears under its name when all of them are in it.

    A row group takes whole parts until one of the limits above is reached: the same parts give the same bytes. zstd, as
    `write_table` does; nothing of time or machine.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    parts: list[pl.DataFrame] = []
    oldest = pl.CompatLevel.oldest()  # Arrow's Parquet writer cannot slice string views
    arrow_schema = pl.DataFrame(schema=schema).to_arrow(compat_level=oldest).schema

    def write_group() -> None:
        table = pl.concat(parts).to_arrow(compat_level=oldest)
        parts.clear()
        writer.write_table(table, row_group_size=table.num_rows)

    def append(part: pl.DataFrame) -> None:
        if not part.is_empty():
            parts.append(part)
        if len(parts) >= GROUP_PARTS or sum(each.height for each in parts) >= GROUP_ROWS:
            write_group()

    try:
        with pq.ParquetWriter(temporary, arrow_schema, compression="zstd", compression_level=3) as writer:
            yield append
            if parts:
                write_group()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
