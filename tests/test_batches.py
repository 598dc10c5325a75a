"""Sources of any size: files in batches, rows side by side, one table written part by part."""

import bz2
import json
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from stages import pool
from stages.common import batches, table_file
from stages.common.batches import read_source
from stages.common.engine import Engine
from stages.common.errors import InputError
from stages.common.params import Source
from stages.common.records import digest_subject, read_entries
from stages.common.rows import ROW_SCHEMA
from stages.common.table_file import open_table

QA = [{"question": f"Question\n{number}?", "answer": f'"Ünï", {number}' * (number % 7 + 1)} for number in range(300)]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_source(path: str, form: str = "qa", **rest: Any) -> Source:
    fields = {"name": "desk", "path": path, "format": form, "licence": "MIT", "consent": "public", "share": 1.0}
    return Source(**(fields | rest))


def write_all(records: list[dict[str, Any]]) -> list[str]:
    """The records as each file type, with a byte order mark where there can be one."""
    table = pl.DataFrame(records)
    table.write_parquet("a.parquet")
    contents = {
        "a.json": json.dumps(records, indent=2, ensure_ascii=False).encode(),
        "a.jsonl": "".join(json.dumps(record, ensure_ascii=False) + "\r\n" for record in records).encode(),
        "a.csv": table.write_csv().encode(),
        "a.tsv": table.write_csv(separator="\t").encode(),
    }
    for name, content in contents.items():
        Path(name).write_bytes(b"\xef\xbb\xbf" + content)
        Path(f"{name}.bz2").write_bytes(bz2.compress(content))
    return [*contents, *(f"{name}.bz2" for name in contents), "a.parquet"]


@pytest.mark.parametrize("size", [1, 100, 3000, 2**22])
def test_batches_of_any_size_hold_the_same_records(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", max(4, size))
    for name in write_all(QA):
        entries = list(read_entries(make_source(name)))
        assert [entry.value for _, entry in entries] == QA, name
        assert [entry.number for _, entry in entries] == list(range(300)), name
    if size == 100:  # the records of the largest file are about 60 bytes long
        assert sum(1 for _ in read_source(make_source("a.jsonl"))) > 100


def test_a_file_is_read_as_far_as_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first records come of files whose end is broken, in every type that is read from its start."""
    monkeypatch.setattr(batches, "BATCH_BYTES", 512)  # the cut falls into a character of two bytes, or after one
    for name in write_all(QA)[:4]:
        Path(name).write_bytes(Path(name).read_bytes()[:9000] + b"\xff")
        entries = read_entries(make_source(name))
        assert [entry.value for _, entry in islice(entries, 5)] == QA[:5]
        with pytest.raises(InputError, match=r"not UTF-8 at byte (8999|9000)"):
            list(entries)


def test_a_record_without_an_end_is_refused_before_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 1000)
    monkeypatch.setattr(batches, "RECORD_BYTES", 4000)
    secret = "Ann " * 5000
    contents = {
        "a.jsonl": json.dumps({"question": secret}),
        "a.json": json.dumps([{"question": secret}]),
        "a.csv": f'question,answer\n"{secret}',
        "b.csv": 'question,answer\n"' + "Ann \n" * 5000,
    }
    for name, content in contents.items():
        Path(name).write_text(content)
        with pytest.raises(InputError) as error:
            list(read_source(make_source(name)))
        assert str(error.value).startswith(f"{name}, line ")
        assert "Ann" not in str(error.value)


def test_only_the_columns_that_count_are_decoded() -> None:
    pl.DataFrame(QA).with_columns(picture=pl.lit(b"\x00"), asked_by=pl.lit("p1")).write_parquet("a.parquet")
    _, entry = next(read_entries(make_source("a.parquet", columns={"system": "asked_by"})))
    assert entry.value == QA[0] | {"asked_by": "p1"}


def pool_to(path: str, source: Source, workers: int) -> None:
    engine = Engine(name="local", workers=workers, address=None)
    with open_table(path, pl.Schema(ROW_SCHEMA)) as write:
        for rows, _, _ in pool.pool_source(source, b"key", engine, pool.Tally()):
            write(rows)


def test_one_process_and_two_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats too, which are counted over all batches: the three copies have three ids."""
    monkeypatch.setattr(batches, "BATCH_BYTES", 1000)
    monkeypatch.setattr(pool, "FEW_BATCHES", 2)
    Path("a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in QA * 3))
    for workers in (1, 2):
        pool_to(f"{workers}.parquet", make_source("a.jsonl"), workers)
    assert Path("1.parquet").read_bytes() == Path("2.parquet").read_bytes()
    rows = pl.read_parquet("1.parquet")
    assert rows["record"].to_list() == list(range(900))
    assert rows["row_id"].n_unique() == 900
    Path("b.jsonl").write_text("".join(json.dumps(record) + "\n" for record in reversed(QA * 3)))
    pool_to("b.parquet", make_source("b.jsonl"), 1)
    assert set(pl.read_parquet("b.parquet")["row_id"]) == set(rows["row_id"])


def test_thousands_of_shards_are_read_by_name() -> None:
    Path("shards").mkdir()
    for number in reversed(range(2000)):
        record = {"question": f"{number}?", "answer": "Yes"}
        Path(f"shards/part-{number:05d}.jsonl").write_text(json.dumps(record) + "\n")
    source = make_source("shards/part-*.jsonl")
    assert [entry.value["question"] for _, entry in read_entries(source)] == [f"{number}?" for number in range(2000)]
    Path("shards/part-01234.jsonl").write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(InputError, match=r"^shards/part-01234.jsonl: not UTF-8 at byte 14"):
        list(read_entries(source))


def test_a_table_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "GROUP_ROWS", 5)
    table = pl.DataFrame({"a": range(12), "b": [["x"], None, []] * 4})
    with open_table("new/a.parquet", table.schema) as append:
        for start in range(0, 12, 2):
            append(table[start : start + 2])
            append(table.clear())
        assert not Path("new/a.parquet").exists()
    assert pl.read_parquet("new/a.parquet").equals(table)
    metadata = pq.ParquetFile("new/a.parquet").metadata
    # parts of two rows: a group is written when five are there, so after the third part
    assert [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)] == [6, 6]
    with open_table("new/b.parquet", table.schema):
        pass
    assert pl.read_parquet("new/b.parquet").schema == table.schema
    with pytest.raises(ValueError, match="schema"), open_table("new/a.parquet", table.schema) as append:
        append(table.drop("a"))
    assert sorted(path.name for path in Path("new").iterdir()) == ["a.parquet", "b.parquet"]
    assert pl.read_parquet("new/a.parquet").height == 12


def test_long_texts_make_small_groups() -> None:
    part = pl.DataFrame({"a": ["x"]})
    with open_table("a.parquet", part.schema) as append:
        for _ in range(40):
            append(part)
    metadata = pq.ParquetFile("a.parquet").metadata
    assert [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)] == [16, 16, 8]


def test_a_number_that_is_missing_is_no_subject() -> None:
    """An integer column with gaps comes out of pandas as floats with NaN."""
    assert digest_subject(float("nan"), b"k") is None
    assert digest_subject(17.0, b"k") == digest_subject(17, b"k")
