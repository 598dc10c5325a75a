"""Malformed sources: no traceback, every record accounted for, and nothing of a record in any message.

Some 5,000 files of every format, type and compression, each broken in one way that the seed chooses, are pooled for
real. A file is then refused as a whole (InputError), or each of its records is read or refused with a reason.
"""

import bz2
import csv
import datetime
import gzip
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages import pool
from stages.common.conversation import RecordError
from stages.common.engine import Engine
from stages.common.errors import InputError
from stages.common.formats import FIELDS, parse
from stages.common.json_array import ArrayError, split_array
from stages.common.params import Source
from stages.common.records import make_row_id

VARIANTS = 12  # of each format, file type and kind of damage
MARK = "Zyx"  # in every text of a record; in no message
ENGINE = Engine(name="local", workers=1, address=None)


def say(text: str) -> str:
    return f"{MARK} {text}"


def turns(
    *texts: str, names: tuple[str, str] = ("user", "assistant"), keys: tuple[str, str] = ("role", "content")
) -> Any:
    return [{keys[0]: names[place % 2], keys[1]: say(text)} for place, text in enumerate(texts)]


def transcript(*texts: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[place % 2]}: {say(text)}" for place, text in enumerate(texts))


TOOL = {"name": say("book"), "parameters": {"day": {"type": "string"}}}
CALL = {"id": say("c1"), "function": {"name": say("book"), "arguments": json.dumps({"day": say("Monday")})}}
TREE = {
    "message_tree_id": say("t"),
    "prompt": {
        "role": "prompter",
        "text": say("Hi"),
        "replies": [
            {"role": "assistant", "text": say("Hello"), "rank": 0, "replies": []},
            {"role": "assistant", "text": say("Hey"), "rank": 1, "replies": []},
        ],
    },
}
RECORDS: dict[str, list[dict[str, Any]]] = {
    "alpaca": [
        {"instruction": say("Add."), "input": say("1 and 2"), "output": say("3")},
        {"instruction": say("And?"), "output": say("So."), "history": [[say("a"), say("b")]], "system": say("s")},
    ],
    "sharegpt": [
        {"conversations": turns("Hi", "Hello", names=("human", "gpt"), keys=("from", "value")), "tools": [TOOL]},
        {"conversations": turns("Hi", "Hello", "Bye", names=("human", "gpt"), keys=("from", "value"))},
    ],
    "chat": [
        {"messages": turns("Hi", "Hello", "More?", "Sure")},
        {
            "messages": [
                *turns("Hi"),
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "content": say("free"), "tool_call_id": say("c1")},
                {"role": "assistant", "content": [{"type": "text", "text": say("Booked")}]},
            ],
            "tools": [TOOL],
        },
    ],
    "oasst": [
        TREE,
        {"message_id": say("a"), "parent_id": None, "role": "prompter", "text": say("Hi")},
        {"message_id": say("b"), "parent_id": say("a"), "role": "assistant", "text": say("Hello"), "rank": 0},
    ],
    "qa": [{"question": say("Open?"), "answer": say("Yes")}, {"question": say("Shut?"), "answer": say("No")}],
    "hh": [
        {"chosen": transcript("Hi", "Hello"), "rejected": transcript("Hi", "Go")},
        {"chosen": transcript("Hi", "Yes", "So?", "Ah"), "rejected": transcript("Hi", "Yes", "So?", "Oh")},
    ],
    "pairs": [
        {"prompt": say("Hi"), "chosen": say("Hello"), "rejected": say("Go")},
        {"chosen": turns("Hi", "Hello"), "rejected": turns("Hi", "Go")},
    ],
    "kto": [
        {"prompt": say("Hi"), "completion": say("Hello"), "label": True},
        {"prompt": say("Hi"), "completion": say("Go"), "label": False},
    ],
}


def nest(depth: int) -> Any:
    value: Any = say("deep")
    for level in range(depth):
        value = [value] if level % 2 else {"text": value}
    return value


def odd_values(random_source: random.Random) -> list[Any]:
    return [
        None, True, 0, -1, 10**30, 1.5e308, float("nan"), float("inf"), "", " \t\n", say("\x00"), say("\x1b[31m\x7f"),
        say("\ud83d"), say("\u2028\u0085\ufeff"), say("a" * 50_000), say('"' * 9), [], {}, [[]], [None], [[say("a")]],
        {"role": say("x")}, {"text": None}, [1, say("2")], nest(4), nest(200), json.dumps(nest(3)), "[" * 3000,
        json.dumps([TOOL]), f'{{"a": "{MARK}"', say("\\ud800"), "1" * random_source.choice([20, 5000]),
    ]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all that is in a value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def damage_record(record: Any, random_source: random.Random) -> Any:
    """One value of a record lost, renamed or replaced, or the record itself."""
    record = json.loads(json.dumps(record))
    odd = random_source.choice(odd_values(random_source))
    if random_source.random() < 0.1:
        return odd
    *path, last = random_source.choice(list(places(record)))
    holder = record
    for key in path:
        holder = holder[key]
    match random_source.randrange(4):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, dict):
            holder[say(str(last))] = holder.pop(last)
        case _:
            holder[last] = odd
    return record


Bytes = bytes
Damage = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, random_source: random.Random) -> bytes:
    return content[: random_source.randrange(len(content))]


def insert(content: bytes, random_source: random.Random) -> bytes:
    odd = random_source.choice(
        [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b'"', b"'", b"\\", b"\n", b"\r", b"\r\n", b"{", b"}", b"[", b"]",
         b",", b"\t", b";", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 4000, b"// x\n", b"\xef\xbb\xbf",
         b"\x1a"]
    )  # fmt: skip
    place = random_source.randrange(len(content) + 1)
    return content[:place] + odd + content[place:]


def remove(content: bytes, random_source: random.Random) -> bytes:
    place = random_source.randrange(len(content))
    return content[:place] + content[place + random_source.choice([1, 2, 7]) :]


def overwrite(content: bytes, random_source: random.Random) -> bytes:
    place = random_source.randrange(len(content))
    return content[:place] + bytes([random_source.randrange(256)]) + content[place + 1 :]


def rewrite(content: bytes, random_source: random.Random) -> bytes:
    """What exports do to a whole file."""
    return random_source.choice(
        [b"", b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r"), content + content,
         content.replace(b"\n", b"\r\n"), content.replace(b'"', b"'"), content.replace(b",", b";"), b"\n\n" + content,
         content.decode().encode("utf-16"), content.decode().encode("utf-16-le"), content.replace(b":", b"="),
         content.replace(b"\n", b""), content.replace(b"}", b",}"), b"[" + content + b"]", b'{"a": ' + content + b"}",
         re.sub(rb'("\w+": )', rb"\1null, \1", content), content.replace(b"\t", b","), content + b"\x00" * 100]
    )  # fmt: skip


DAMAGES: list[Damage] = [cut, insert, remove, overwrite, rewrite]


def write_json(records: list[Any]) -> bytes:
    return json.dumps(records, indent=1, ensure_ascii=False).encode(errors="surrogatepass")


def write_lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write_table(records: list[Any], delimiter: str) -> bytes:
    """Nested values as JSON text, as exports have them."""
    records = [record if isinstance(record, dict) else {"lost": record} for record in records]
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(names)
    for record in records:
        values = [record.get(name) for name in names]
        texts = ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
        writer.writerow(texts)
    return text.getvalue().encode(errors="replace")


WRITERS: dict[str, Callable[[list[Any]], bytes]] = {
    ".json": write_json,
    ".jsonl": write_lines,
    ".csv": lambda records: write_table(records, ","),
    ".tsv": lambda records: write_table(records, "\t"),
}
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".zst": lambda content: bytes(pa.Codec("zstd").compress(content, asbytes=True)),
}


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check_pooled(path: str, form: str, content: bytes, records: int | None = None, subject: str | None = None) -> str:
    """Pools the file and checks what came of it; `records` is how many it holds, where that is known."""
    Path(path).write_bytes(content)
    fields = {"name": "desk", "path": path, "format": form, "licence": "MIT", "consent": "x", "share": 1.0}
    source = Source(**fields, subject=subject)  # type: ignore[arg-type]
    tally = pool.Tally()
    told = ""
    try:
        parts = list(pool.pool_source(source, b"key", ENGINE, tally))
    except InputError as error:
        told = str(error)
    if told:
        assert MARK not in told
        assert told.startswith(
            (path, "params.yaml, sources.desk: all ", "params.yaml, sources.desk.subject: no record")
        )
        counted = re.search(r"all (\d+) records are refused", told)
        assert records is None or counted is None or int(counted[1]) == records
        return "file"
    rows, refused, _ = (pl.concat(tables) for tables in zip(*parts, strict=True))
    assert tally.records_in == tally.records_read + refused.height
    assert records is None or tally.records_in == records
    assert not set(rows["record"]) & set(refused["record"])
    assert rows["row_id"].n_unique() == rows.height == tally.rows
    assert refused["reason"].str.len_chars().gt(0).all()
    assert not refused["reason"].str.contains(MARK).any()
    return "refused" if refused.height else "read"


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("form", RECORDS)
def test_damaged_records(form: str, ending: str) -> None:
    """One record in four is odd; the file is well-formed, so the number of its records is known."""
    random_source = random.Random(f"{form} {ending}")
    outcomes: Counter[str] = Counter()
    for _ in range(2 * VARIANTS):
        records = [*RECORDS[form], *RECORDS[form]]
        place = random_source.randrange(len(records))
        records[place] = damage_record(records[place], random_source)
        content = WRITERS[ending](records)
        outcomes[check_pooled(f"a{ending}", form, content, len(records))] += 1
    assert outcomes["refused"] or (form == "oasst" and ending in (".csv", ".tsv"))  # trees have no columns


@pytest.mark.parametrize("form", RECORDS)
def test_bottomless_values(form: str) -> None:
    """Brackets in brackets, to about where Python's own recursion ends and far beyond, in the place of each field."""
    for record in RECORDS[form]:
        for name in [*record, "message_id", "parent_id"]:
            for depth in (400, 800, 900, 940, 960, 980, 990, 20_000):
                rest = json.dumps({key: value for key, value in record.items() if key != name} | {"who": say("p")})
                line = f'{{"{name}": {"[" * depth}"{MARK}"{"]" * depth}, {rest[1:]}\n'.encode()
                check_pooled("a.jsonl", form, line * 2 + write_lines(RECORDS[form]), 2 + len(RECORDS[form]), name)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("form", RECORDS)
def test_damaged_texts(form: str, ending: str, damage: Damage) -> None:
    random_source = random.Random(f"{form} {ending} {damage.__name__}")
    content = WRITERS[ending]([*RECORDS[form], *RECORDS[form]])
    for _ in range(VARIANTS):
        check_pooled(f"a{ending}", form, damage(content, random_source))


@pytest.mark.parametrize("damage", [cut, insert, remove, overwrite])
@pytest.mark.parametrize("compression", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("ending", WRITERS)
def test_damaged_compression(ending: str, compression: str, damage: Damage) -> None:
    random_source = random.Random(f"{ending} {compression} {damage.__name__}")
    form = random_source.choice(["qa", "hh", "kto"])
    whole = COMPRESSORS[compression](WRITERS[ending](RECORDS[form] * 20))
    records = len(RECORDS[form]) * 20
    for _ in range(VARIANTS):
        content = damage(whole, random_source)
        outcome = check_pooled(f"a{ending}{compression}", form, content)
        if damage is cut:
            assert outcome == "file"  # what is left of a cut stream never passes as the whole
    assert check_pooled(f"a{ending}{compression}", form, whole, records) == "read"
    for other in COMPRESSORS.keys() - {compression}:
        content = COMPRESSORS[other](WRITERS[ending](RECORDS[form]))
        assert check_pooled(f"a{ending}{compression}", form, content) == "file"


def odd_columns() -> list[pa.Array]:
    text = pa.array([say("a"), say("b"), None, say("d")])
    return [
        pa.array([1, 2, None, 4]), pa.array([1.5, float("nan"), None, 2.0]), pa.array([True, None, False, True]),
        pa.nulls(4), pa.array([b"\xff", b"Zyx", None, b""]), pa.array([[say("a")], [], None, [None]]),
        pa.array([{"a": say("b")}] * 4), text.dictionary_encode(), text.cast(pa.large_string()),
        pa.array([2**62] * 4, pa.timestamp("us")), pa.array([2**62] * 4, pa.timestamp("ns")),
        pa.array([0] * 4, pa.date32()),
        pa.array([10**9] * 4, pa.int32()).cast(pa.date32()), pa.array([datetime.timedelta(days=1)] * 4),
        pa.array([[(say("k"), say("v"))]] * 4, pa.map_(pa.string(), pa.string())),
        pa.array([turns("Hi", "Hello")] * 4),
    ]  # fmt: skip


@pytest.mark.parametrize("form", RECORDS)
def test_odd_parquet(form: str) -> None:
    """Columns of every type in the place of each field, rows with bad UTF-8, columns twice."""
    names = [name.split("|")[0] for part in FIELDS[form] for name in part]
    columns = odd_columns()
    for name in names:
        for column in columns:
            table = {each: pa.array([say("a")] * 4) for each in names} | {name: column}
            pq.write_table(pa.table(table), "a.parquet")
            check_pooled("a.parquet", form, Path("a.parquet").read_bytes(), 4)
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], "int32")), pa.py_buffer(b"\xffa")]
    )
    pq.write_table(pa.table(dict.fromkeys(names, broken)), "a.parquet")
    check_pooled("a.parquet", form, Path("a.parquet").read_bytes(), 2)
    twice = pa.Table.from_arrays([pa.array([say("a")])] * (2 * len(names)), names * 2)
    pq.write_table(twice, "a.parquet")
    assert form == "oasst" or check_pooled("a.parquet", form, Path("a.parquet").read_bytes()) == "file"


@pytest.mark.parametrize("damage", [cut, insert, remove, overwrite])
@pytest.mark.parametrize("form", RECORDS)
def test_damaged_parquet(form: str, damage: Damage) -> None:
    random_source = random.Random(f"{form} {damage.__name__}")
    pq.write_table(pa.Table.from_pylist(RECORDS[form][:1] * 40), "whole.parquet")
    content = Path("whole.parquet").read_bytes()
    for _ in range(VARIANTS):
        check_pooled("a.parquet", form, damage(content, random_source))


TEXTS = st.text(max_size=6).map(say) | st.sampled_from(["user", "assistant", "system", "prompter", "true", "[]", ""])
KEYS = st.sampled_from(
    sorted({key for records in RECORDS.values() for record in records for path in places(record) for key in path
            if isinstance(key, str)})
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(RECORDS)), st.data())
def test_any_record_is_read_or_refused(form: str, data: st.DataObject) -> None:
    names = sorted({name for part in FIELDS[form] for each in part for name in each.split("|")})
    record = data.draw(st.dictionaries(st.sampled_from(names), VALUES, min_size=1))
    reason = "none"
    try:
        assert all(content.messages for content in parse(record, form, {}))
    except RecordError as error:
        reason = error.reason
    assert reason
    assert MARK not in reason


ARRAYS = st.lists(VALUES, max_size=4).map(lambda value: json.dumps(value, indent=len(str(value)) % 3 or None))


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(ARRAYS, st.integers(1, 9), st.integers(0, 400), st.sampled_from(["", "", "{", '"', ",", "]", "\\", "1", "\n "]))
@example("[1234, -1.5e+10, true]", 1, 0, "")
@example('["\\ud83d\\ude00", "\\ud83d"]', 1, 0, "")
@example("[1,]", 2, 0, "")
@example(" \n ", 1, 0, "")
def test_an_array_in_pieces_is_what_python_reads_whole(text: str, size: int, place: int, odd: str) -> None:
    """The same elements, or the same mistake at the same place, however the text is cut into pieces."""
    place = min(place, len(text))
    text = text[:place] + odd + text[place:]
    pieces = (text[start : start + size] for start in range(0, len(text), size))
    elements = split_array(pieces, 10_000)
    expected: Any = []
    mistake = None
    try:
        expected = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        mistake = error
    if mistake or not isinstance(expected, list):
        with pytest.raises(ArrayError) as told:
            list(elements)
        if mistake and text.lstrip().startswith("["):
            assert (told.value.line, told.value.column) == (mistake.lineno, mistake.colno)
    else:
        assert repr([json.loads(element) for element in elements]) == repr(expected)  # NaN is not NaN


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.lists(st.integers(0, 5) | st.just(2**64 - 1), max_size=9), max_size=12))
def test_occurrences_are_counted_over_all_batches(batches: list[list[int]]) -> None:
    seen, expected = pool.Occurrences(), Counter[int]()
    for batch in batches:
        numbers = []
        for digest in batch:
            numbers.append(expected[digest])
            expected[digest] += 1
        assert seen.number(np.array(batch, np.uint64)).tolist() == numbers


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 10**6))
def test_row_ids_are_those_of_the_standard_library(text: str, occurrence: int) -> None:
    """orjson's canonical JSON is json.dumps's, to the byte, for every text."""
    import hmac

    source = Source(name="desk", path="a.csv", format="qa", licence="MIT", consent="x", share=1.0)
    fields = {
        "messages": [{"role": "user", "content": text}],
        "tools": text,
        "chosen": None,
        "rejected": [],
        "label": True,
    }
    canonical = json.dumps(
        fields | {"kind": "sft", "subject": None}, sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )
    expected = hmac.new(b"key", f"desk\n{canonical}\n{occurrence}".encode(), "sha256").hexdigest()[:16]
    assert make_row_id(source, b"key", None, fields, occurrence) == expected
