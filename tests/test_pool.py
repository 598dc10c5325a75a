"""pool: native formats and file types into the one row schema, refusals, row ids, subjects, metrics."""

import bz2
import csv
import gzip
import hashlib
import hmac
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from stages import pool
from stages.common.conversation import RecordError
from stages.common.engine import Engine
from stages.common.errors import InputError
from stages.common.exclusions import FILE, digest_contents, digest_places, read_exclusions, read_matches
from stages.common.formats import Content, gather_trees, parse
from stages.common.ledger import LEDGER_SCHEMA
from stages.common.params import Source
from stages.common.records import digest_subject, make_row_id
from stages.common.rows import ROW_SCHEMA, message

SYSTEM, HI, HELLO = message("system", "Be kind."), message("user", "Hi"), message("assistant", "Hello")
MORE, SURE = message("user", "More?"), message("assistant", "Sure")
CALL = message("assistant", None, tool_calls='[{"name": "find", "arguments": {"day": "Monday"}}]')
ANSWER = message("tool", '{"free": true}')
QA = [{"question": "Open?", "answer": "Yes, until 6."}, {"question": 'A "b",\nc?', "answer": "Ünï"}]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_source(path: str, form: str = "qa", **rest: Any) -> Source:
    fields: dict[str, Any] = {
        "name": "desk",
        "path": path,
        "format": form,
        "licence": "CC0-1.0",
        "consent": "public",
        "share": 1.0,
    }
    return Source(**(fields | rest))


def write_lines(path: str, records: list[Any]) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


ENGINE = Engine(name="local", workers=1, address=None)


def pool_all(source: Source, engine: Engine = ENGINE) -> SimpleNamespace:
    """All of a source at once."""
    tally = pool.Tally()
    parts = list(pool.pool_source(source, b"pedigree", engine, tally))
    rows, refused, others = (pl.concat(tables) for tables in zip(*parts, strict=True))
    return SimpleNamespace(
        rows=rows, refused=refused, others=others, records_in=tally.records_in, records_read=tally.records_read
    )


def read(path: str, form: str = "qa", **rest: Any) -> SimpleNamespace:
    return pool_all(make_source(path, form, **rest))


def parse_one(record: Any, form: str, **columns: str) -> Any:
    (content,) = parse(record, form, columns)
    return content


# The formats

TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
PARTS = [{"type": "text", "text": "H"}, {"type": "text", "value": "i"}]
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"day": "Monday"}'}}
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
SFT = [
    ("alpaca", {"instruction": "Hi", "output": "Hello"}, [HI, HELLO]),
    ("alpaca", {"instruction": "Hi", "input": "you", "output": "Hello"}, [message("user", "Hi\nyou"), HELLO]),
    (
        "alpaca",
        {"instruction": "More?", "output": "Sure", "system": "Be kind.", "history": [["Hi", "Hello"]]},
        [SYSTEM, HI, HELLO, MORE, SURE],
    ),
    ("sharegpt", {"conversations": TURNS, "system": "Be kind."}, [SYSTEM, HI, HELLO]),
    ("sharegpt", {"conversations": [{"from": "system", "value": ""}, *TURNS]}, [HI, HELLO]),
    ("sharegpt", {"conversations": [*TURNS, {"from": "human", "value": "Bye"}]}, [HI, HELLO]),
    ("sharegpt", {"conversations": json.dumps(TURNS)}, [HI, HELLO]),
    (
        "sharegpt",
        {
            "conversations": [
                TURNS[0],
                {"from": "function_call", "value": '{"name": "find", "arguments": {"day": "Monday"}}'},
                {"from": "observation", "value": '{"free": true}'},
                TURNS[1],
            ]
        },
        [HI, CALL, ANSWER, HELLO],
    ),
    ("chat", {"messages": [{"role": "human", "content": PARTS}, ASSISTANT]}, [HI, HELLO]),
    (
        "chat",
        {
            "messages": [
                USER,
                {"role": "assistant", "content": "", "tool_calls": [OPENAI_CALL]},
                {"role": "tool", "content": '{"free": true}', "tool_call_id": "c1"},
                ASSISTANT,
            ]
        },
        [HI, CALL, ANSWER | {"tool_call_id": "c1"}, HELLO],
    ),
    (
        "chat",
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"name": "find", "arguments": {"day": "Monday"}}]}]},
        [HI, CALL],
    ),
    ("qa", {"question": "Hi", "answer": "Hello", "id": 7}, [HI, HELLO]),
]


@pytest.mark.parametrize(("form", "record", "messages"), SFT)
def test_sft_formats(form: str, record: dict[str, Any], messages: list[Any]) -> None:
    assert parse_one(record, form).messages == messages


def test_columns_are_mapped_and_the_own_name_no_longer_counts() -> None:
    assert parse_one({"q": "Hi", "a": "Hello", "answer": "no"}, "qa", question="q", answer="a").messages == [HI, HELLO]
    with pytest.raises(RecordError, match=r"^'a' is missing; expected question, answer \(format qa\)$"):
        parse({"q": "Hi", "answer": "Hello"}, "qa", {"question": "q", "answer": "a"})


def test_tools_are_kept_as_json_text() -> None:
    tools = [{"name": "find", "description": "für"}]
    for given in (tools, json.dumps(tools), tools[0]):
        found = parse_one({"conversations": TURNS, "tools": given}, "sharegpt").tools
        assert found == '[{"name": "find", "description": "für"}]'
    assert parse_one({"conversations": TURNS, "tools": "[]"}, "sharegpt").tools is None


def reply(text: str, rank: Any = None, *replies: Any, role: str = "assistant", **rest: Any) -> dict[str, Any]:
    return {"text": text, "role": role, "rank": rank, "replies": list(replies)} | rest


def test_oasst_takes_the_best_paths() -> None:
    first = reply("Worse", 1)
    asked = reply("More?", None, reply("Sure", 0), reply("No", 1), role="prompter")
    unanswered = reply("Bye", None, reply("Removed", 0, deleted=True), role="prompter")
    other = reply("Why?", None, reply("Because", None), role="prompter", deleted=False)
    root = reply("Hi", None, first, reply("Hello", 0, asked, unanswered, other), role="prompter")
    tree = {"message_tree_id": "t", "prompt": root}
    found = parse(tree, "oasst", {})
    # the replies with rank 0 or none: Hi > Hello (1) > More? (1.0) > Sure (1.0.0), and Why? (1.2) > Because (1.2.0)
    because = [HI, HELLO, message("user", "Why?"), message("assistant", "Because")]
    assert [(each.branch, each.messages) for each in found] == [
        ("1.0.0", [HI, HELLO, MORE, SURE]),
        ("1.2.0", because),
    ]
    # a path whose later replies are all refused ends where the last good one is
    short = {"prompt": reply("Hi", None, reply("Hello", 0, unanswered), role="prompter")}
    assert [(each.branch, each.messages) for each in parse(short, "oasst", {})] == [("0", [HI, HELLO])]
    with pytest.raises(RecordError, match="no reply of the assistant is ranked first and kept"):
        parse({"prompt": reply("Hi", None, first, role="prompter")}, "oasst", {})


def test_oasst_flat_messages_are_gathered() -> None:
    flat: list[dict[str, Any]] = [
        {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Hello", "rank": 0.0},
        {"message_id": "a", "parent_id": None, "role": "prompter", "text": "Hi"},
        {"message_id": "x", "parent_id": "lost", "role": "assistant", "text": "?"},
        {"message_id": "y", "parent_id": "x", "role": "prompter", "text": "?"},
        {"message_id": "c", "parent_id": "d", "role": "prompter", "text": "a circle of two"},
        {"message_id": "d", "parent_id": "c", "role": "assistant", "text": "?"},
        {"message_id": "a", "parent_id": None, "role": "prompter", "text": "Again"},
    ]
    write_lines("flat.jsonl", flat)
    pooled = read("flat.jsonl", "oasst")
    assert (pooled.records_in, pooled.records_read) == (7, 2)
    assert pooled.rows.select("record", "branch", "messages").rows() == [(1, "0", [HI, HELLO])]
    lost = "its parents lead to no first message in the file"
    assert pooled.refused.select("record", "reason").rows() == [
        *((number, lost) for number in range(2, 6)),
        (6, "its message_id stands twice in the file"),
    ]
    assert "replies" not in flat[1]
    assert gather_trees([{"prompt": {}}]) == [{"prompt": {}}]


def transcript(*texts: str) -> str:
    return "".join(
        f"\n\n{name}: {text}" for name, text in zip(["Human", "Assistant"] * len(texts), texts, strict=False)
    )


def test_hh_splits_the_shared_prompt() -> None:
    record = {
        "chosen": transcript("Hi", "Hello", "More?", "Sure"),
        "rejected": transcript("Hi", "Hello", "More?", "No"),
    }
    content = parse_one(record, "hh")
    assert content.messages == [HI, HELLO, MORE]
    assert (content.chosen, content.rejected) == ([SURE], [message("assistant", "No")])


NO = message("assistant", "No")
PAIRS = [
    {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    {"instruction": "Hi", "chosen": "Hello", "rejected": "No"},
    {"conversations": TURNS[:1], "chosen": TURNS[1], "rejected": {"from": "gpt", "value": "No"}},
    {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "No"}]},
    {"prompt": "Hi", "chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "No"}]},
    {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "No"}]},
]


@pytest.mark.parametrize("record", PAIRS)
def test_pairs(record: dict[str, Any]) -> None:
    content = parse_one(record, "pairs")
    assert (content.messages, content.chosen, content.rejected) == ([HI], [HELLO], [NO])


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "completion": "Hello", "label": True},
        {"instruction": "Hi", "output": "Hello", "tag": "TRUE"},
        {"messages": [USER, ASSISTANT], "label": 1},
        {"prompt": [USER], "completion": [ASSISTANT], "label": "1"},
    ],
)
def test_kto(record: dict[str, Any]) -> None:
    content = parse_one(record, "kto")
    assert (content.messages, content.chosen, content.rejected, content.label) == ([HI], [HELLO], None, True)
    label = "tag" if "tag" in record else "label"
    assert parse_one(record | {label: False}, "kto").label is False


REFUSED = [
    ("alpaca", {"instruction": "Hi"}, "'output' is missing; expected instruction, input, output (format alpaca)"),
    ("alpaca", {"instruction": "Hi", "output": " "}, "'output' is empty"),
    ("alpaca", {"instruction": "Hi", "output": 7}, "'output' is not text"),
    ("alpaca", ["Hi", "Hello"], "not an object; expected instruction, input, output (format alpaca)"),
    ("sharegpt", {"conversations": []}, "'conversations' is empty"),
    ("sharegpt", {"conversations": "[{"}, "'conversations' is not valid JSON"),
    ("sharegpt", {"conversations": TURNS[1:]}, "assistant starts the conversation; expected system or user"),
    ("sharegpt", {"conversations": TURNS[:1]}, "there is no message of the assistant"),
    ("sharegpt", {"conversations": [*TURNS, TURNS[1]]}, "assistant follows assistant; expected user"),
    ("sharegpt", {"conversations": [*TURNS[:1], {"from": "gpt"}]}, "a message of the assistant is empty"),
    (
        "chat",
        {"messages": [USER, {"role": "tool", "content": "1"}, ASSISTANT]},
        "tool follows user; expected assistant",
    ),
    ("chat", {"messages": [USER, ASSISTANT | {"tool_calls": [{"id": "1"}]}]}, "a tool call has no name"),
    (
        "chat",
        {"messages": [USER, ASSISTANT | {"tool_calls": [OPENAI_CALL]}, USER, ASSISTANT]},
        "user follows tool call; expected tool",
    ),
    (
        "chat",
        {"messages": [{"role": "Ann Lee", "content": "Hi"}, ASSISTANT]},
        "a message has none of the roles system, user, human, prompter, assistant, gpt, function_call, tool, "
        "observation",
    ),
    ("chat", {"messages": [USER | {"content": [{"type": "image"}]}, ASSISTANT]}, "a part of a message is not text"),
    ("hh", {"chosen": transcript("Hi", "A"), "rejected": transcript("Hey", "B")}, "prompts differ"),
    ("hh", {"chosen": transcript("Hi", "A"), "rejected": transcript("Hi", "A")}, "the replies are equal"),
    ("hh", {"chosen": transcript("Hi", "A"), "rejected": transcript("Hi", "")}, "a message of the assistant is empty"),
    ("hh", {"chosen": "Hi", "rejected": transcript("Hi", "A")}, "'chosen' does not start with 'Human:'"),
    (
        "pairs",
        {"chosen": "A", "rejected": "B"},
        "'prompt' is missing; expected prompt, chosen, rejected (format pairs)",
    ),
    ("pairs", {"prompt": "Hey", "chosen": [USER, ASSISTANT], "rejected": "B"}, "prompts differ"),
    ("kto", {"prompt": "Hi", "completion": "A", "label": "good"}, "'label' is neither true nor false"),
    (
        "kto",
        {"prompt": "Hi", "completion": "A"},
        "'label' is missing; expected prompt, completion, label (format kto)",
    ),
]


@pytest.mark.parametrize(("form", "record", "reason"), REFUSED)
def test_refused_with_a_reason(form: str, record: Any, reason: str) -> None:
    with pytest.raises(RecordError) as error:
        parse(record, form, {})
    assert error.value.reason == reason


# The files


def table_text(delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["question", "answer"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(QA)
    return text.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def test_every_file_type_gives_the_same_rows() -> None:
    contents = {
        "a.json": json.dumps(QA, indent=1).encode(),
        "a.jsonl": ("\ufeff" + "\r\n".join(json.dumps(record) for record in QA)).encode(),
        "a.csv": table_text(",").encode(),
        "a.tsv": table_text("\t").encode(),
    }
    for name, content in list(contents.items()):
        contents |= {f"{name}.gz": gzip.compress(content), f"{name}.bz2": bz2.compress(content)}
    contents["a.csv.zst"] = b"".join(
        zstd(part) for part in (contents["a.csv"][:20], contents["a.csv"][20:])
    )  # 2 frames
    for name, content in contents.items():
        Path(name).write_bytes(content)
    pl.DataFrame(QA).write_parquet("a.parquet")
    expected = [[message("user", each["question"]), message("assistant", each["answer"])] for each in QA]
    ids = read("a.json").rows["row_id"].to_list()
    for name in [*contents, "a.parquet"]:
        rows = read(name).rows
        assert rows["messages"].to_list() == expected, name
        assert rows.select("row_id", "file", "record").rows() == [(ids[0], name, 0), (ids[1], name, 1)]
        assert dict(rows.schema) == ROW_SCHEMA


def test_a_glob_is_read_in_order() -> None:
    for name in ("b", "a"):
        write_lines(f"data/{name}.jsonl", [{"question": name, "answer": name}])
    assert read("data/*.jsonl").rows["file"].to_list() == ["data/a.jsonl", "data/b.jsonl"]


def test_a_file_that_links_show_twice_is_read_once() -> None:
    for name in ("a", "b"):
        write_lines(f"data/{name}.jsonl", [{"question": name, "answer": name}])
    Path("data/again").symlink_to("..", target_is_directory=True)
    Path("data/c.jsonl").symlink_to("a.jsonl")
    assert read("data/**/*.jsonl").rows["file"].to_list() == ["data/a.jsonl", "data/b.jsonl"]


def test_broken_records_are_refused_and_counted() -> None:
    Path("a.jsonl").write_bytes(
        b'{"question": "Hi", "answer": "Hello"}\n\n{"question": "Hi", \n{"answer": "\\ud83d", "question": "?"}\n'
    )
    pooled = read("a.jsonl")
    assert (pooled.records_in, pooled.records_read, pooled.rows.height) == (3, 1, 1)
    # the record's number is its line's, counted from 0; the blank line 1 is no record
    assert pooled.refused.select("record", "reason").rows() == [
        (2, "not valid JSON"),
        (3, "a text holds half of a surrogate pair, which is no character"),
    ]
    Path("a.csv").write_text("question,answer\nHi,Hello\nHi,Hello,there\n")
    assert read("a.csv").refused.select("record", "reason").rows() == [(1, "3 columns; the header has 2")]


UNREADABLE = [
    ("a.jsonl", b'[{"question": "Hi"}]', "holds a JSON array, not one object a line; name it .json"),
    (
        "a.json",
        b'{"question": "Hi"}\n{"question": "Hi"}\n',
        "expected a JSON array of records; one record a line is .jsonl",
    ),
    ("a.json", b'{"data": []}', "expected a JSON array of records"),
    ("a.json", b'[{"question": "Hi"', "line 1, column 19: not valid JSON"),
    ("a.json", b"", "holds no record"),
    ("a.jsonl", b"\n", "holds no record"),
    ("a.csv", b"question,answer\n", "holds no record"),
    ("a.jsonl", b'{"question": "Hi"}\n{"question": "\xe9"}', "not UTF-8 at byte 33"),
    ("a.csv", b"question,reply\nHi,Hello\n", "no column answer; it has question and 1 more"),
    ("a.csv", b"question,answer,answer\nHi,Hello,Hello\n", "the column answer stands twice"),
    ("a.csv", b'question,answer\nHi,"Hello\nHi,Hello\n', "line 3: unexpected end of data"),
    ("a.parquet", b"PAR1", "cannot be read"),
    ("a.jsonl.gz", gzip.compress(b'{"question": "Hi"}\n' * 9)[:-9], "cannot be read (Truncated compressed stream)"),
    ("a.jsonl.zst", zstd(b'{"question": "Hi"}\n' * 9)[:-2], "cannot be read (Truncated compressed stream)"),
    ("a.txt", b"Hi", "the type is unknown"),
    ("a.parquet.gz", b"", "Parquet is compressed inside"),
]


@pytest.mark.parametrize(("name", "content", "text"), UNREADABLE)
def test_files_that_cannot_be_read(name: str, content: bytes, text: str) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read(name)
    assert str(error.value).startswith(name)
    assert text in str(error.value)


def test_sources_that_cannot_be_read() -> None:
    write_lines("a.jsonl", [{"question": "Hi"}, {"question": "Hi"}, []])
    cases = [
        (make_source("b.jsonl"), "sources.desk.path: no file b.jsonl"),
        (make_source(str(Path("a.jsonl").absolute())), "sources.desk.path: must be relative"),
        (make_source("a.jsonl", columns={"reply": "a"}), "sources.desk.columns: 'reply' is not a field of format qa"),
        (make_source("a.jsonl"), "all 3 records are refused: 2 x 'answer' is missing; expected question, answer"),
        (make_source("a.jsonl", columns={"answer": "question"}, subject="id"), "no record has a value in 'id'"),
        (make_source("hub:org/name", split="train"), "sources.desk.revision: must be the data set's commit"),
        (make_source("hub:org/name", revision="a" * 40), "sources.desk.split: missing"),
    ]
    for source, text in cases:
        with pytest.raises(InputError) as error:
            pool_all(source)
        assert text in str(error.value)


def test_no_value_is_shown_where_the_header_is_missing() -> None:
    Path("a.csv").write_text("Ann Lee,ann@example.org,Gonzalez\n")
    with pytest.raises(InputError) as error:
        read("a.csv")
    assert "it has none and 3 more" in str(error.value)
    assert not any(value in str(error.value) for value in ("Ann", "example.org", "Gonzalez"))


# Row ids, subjects, the whole stage


def test_row_id_is_a_digest_of_source_content_and_occurrence() -> None:
    fields = '"content":"{}","name":null,"role":"{}","tool_call_id":null,"tool_calls":null'
    turns = ",".join("{" + fields.replace("{}", text, 1).replace("{}", role, 1) + "}" for text, role in
                     (("Hi", "user"), ("Hello", "assistant")))  # fmt: skip
    canonical = (
        f'{{"chosen":null,"kind":"sft","label":null,"messages":[{turns}],"rejected":null,"subject":null,"tools":null}}'
    )
    expected = [hmac.new(b"pedigree", f"desk\n{canonical}\n{n}".encode(), "sha256").hexdigest()[:16] for n in (0, 1)]
    same, other = {"question": "Hi", "answer": "Hello"}, QA[0]
    write_lines("a.jsonl", [same, other, same])
    write_lines("b.jsonl", [other, same, same])
    first, second = read("a.jsonl").rows["row_id"].to_list(), read("b.jsonl").rows["row_id"].to_list()
    assert [first[0], first[2]] == expected
    assert second == [first[1], *expected]
    assert read("a.jsonl", name="other").rows["row_id"].to_list()[0] not in first


def test_subjects_are_keyed_digests() -> None:
    write_lines("a.jsonl", [QA[0] | {"id": 17}, QA[0] | {"id": "17"}, QA[0] | {"id": ""}, QA[0], QA[0] | {"id": [1]}])
    pooled = read("a.jsonl", subject="id")
    digest = hmac.new(b"pedigree", b"17", "sha256").hexdigest()[:16]
    assert pooled.rows["subject"].to_list() == [digest, digest, None, None]
    assert pooled.refused["reason"].to_list() == ["the subject is neither text nor a number"]


def test_subject_key() -> None:
    fingerprint = hashlib.sha256(b"a secret").hexdigest()[:12]
    assert pool.read_subject_key("public", {}) == b"pedigree"
    assert pool.read_subject_key(fingerprint, {"PEDIGREE_KEY": "a secret"}) == b"a secret"
    with pytest.raises(InputError, match="PEDIGREE_KEY is not set"):
        pool.read_subject_key(fingerprint, {})
    with pytest.raises(InputError, match=f"asks for {fingerprint}") as error:
        pool.read_subject_key(fingerprint, {"PEDIGREE_KEY": "another"})
    assert "another" not in str(error.value)


NO_PROBES = (
    "engine: {name: local, workers: 2, address: null}\nprobes: {duplicates: 0, personal_data: 0, leaks: 0, seed: 1}\n"
)


def test_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    write_lines("data/raw/sources/a.jsonl", [QA[0] | {"id": "p1"}, QA[1], {"question": "Ann Lee?"}])
    write_lines("data/raw/sources/b.jsonl", [{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}])
    entry = "{{name: {0}, path: data/raw/sources/{0}.jsonl, format: {1}, licence: MIT, consent: public, share: 1.0{2}}}"
    entries = f"  - {entry.format('a', 'qa', ', subject: id')}\n  - {entry.format('b', 'pairs', '')}\n"
    Path("params.yaml").write_text(f"sources:\n{entries}pool:\n  subject_key: public\n{NO_PROBES}")
    pool.main()

    def digest(*files: Path) -> str:
        lines = (f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files)
        return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()

    tables = [Path(f"data/pool/{name}.parquet") for name in ("ledger", "probes", "refused", "rows", "subjects")]
    assert json.loads(Path("metrics/pool.json").read_text()) == {
        "rows_in": 4,
        "rows_out": 3,
        "records_in": 4,
        "records_read": 3,
        "refused": 1,
        "excluded": 0,
        "exclusions": {"entries": 0, "matched": 0, "unmatched": 0, "in_their_place": 0},
        "rows": {"a": 2, "b": 1},
        "records_by_source": {"a": 3, "b": 1},
        "refused_by_source": {"a": 1, "b": 0},
        "excluded_by_source": {"a": 0, "b": 0},
        "no_consent": {},
        "raw": {name: digest(Path(f"data/raw/sources/{name}.jsonl")) for name in "ab"},
        "subjects": 1,
        "subject_missing": 1,
        "subject_key": "public",
        "digest": digest(*tables),
    }
    rows = pl.read_parquet("data/pool/rows.parquet")
    assert dict(rows.schema) == ROW_SCHEMA
    assert rows.select("source", "record", "licence", "kind").rows() == [
        ("a", 0, "MIT", "sft"),
        ("a", 1, "MIT", "sft"),
        ("b", 0, "MIT", "preference"),
    ]
    assert rows.row(2, named=True)["chosen"] == [HELLO]
    reason = "'answer' is missing; expected question, answer (format qa)"
    refused = pl.read_parquet("data/pool/refused.parquet")
    assert refused.rows() == [("a", "data/raw/sources/a.jsonl", 2, reason)]
    ledger = pl.read_parquet("data/pool/ledger.parquet")
    assert dict(ledger.schema) == LEDGER_SCHEMA
    assert ledger.is_empty()
    output = capsys.readouterr()
    assert f"pool: a: 2 rows, 1 refused: 1 x {reason}" in output.out
    assert "Ann Lee" not in output.out + output.err
    before = Path("data/pool/rows.parquet").read_bytes()
    pool.main()
    assert Path("data/pool/rows.parquet").read_bytes() == before


def exclude(**entry: str | None) -> None:
    line = {"request": "r-1", "key": "public", "since": None} | entry
    FILE.parent.mkdir(parents=True, exist_ok=True)
    with FILE.open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_the_exclusion_list_takes_rows_subjects_and_sources_out() -> None:
    people = [QA[0] | {"id": "p1"}, QA[1] | {"id": "p2"}, QA[0] | {"id": "p2"}, QA[1] | {"id": "p3"}]
    write_lines("data/raw/sources/a.jsonl", people)
    write_lines("data/raw/sources/b.jsonl", QA[:2])
    entry = "{{name: {0}, path: data/raw/sources/{0}.jsonl, format: qa, licence: MIT, consent: public, share: 0.5{1}}}"
    entries = f"  - {entry.format('a', ', subject: id')}\n  - {entry.format('b', '')}\n"
    Path("params.yaml").write_text(f"sources:\n{entries}pool:\n  subject_key: public\n{NO_PROBES}")
    pool.main()
    before = pl.read_parquet("data/pool/rows.parquet")
    p2 = hmac.digest(b"pedigree", b"p2", "sha256").hex()[:16]
    assert before.filter(subject=p2).height == 2
    exclude(kind="subject", value=p2)
    exclude(kind="source", value="b")
    exclude(kind="row", value=before["row_id"][3])
    pool.main()
    rows, ledger = (pl.read_parquet(f"data/pool/{name}.parquet") for name in ("rows", "ledger"))
    assert rows.equals(before[:1])
    assert sorted(ledger["row_id"]) == sorted(before["row_id"][1:])
    assert set(ledger.select("action", "reason").rows()) == {("drop", "excluded")}
    ways = dict(ledger.select("row_id", "detail").iter_rows())
    by = ("subject", "subject", "row", "source", "source")
    files = [f"data/raw/sources/{name}.jsonl" for name in "aaabb"]
    said = [f"request=r-1, by={way}, file={file}" for way, file in zip(by, files, strict=True)]
    assert [ways[row] for row in before["row_id"][1:]] == said
    measured = json.loads(Path("metrics/pool.json").read_text())
    assert (measured["records_read"], measured["rows_out"], measured["excluded"]) == (6, 1, 5)
    assert (measured["rows"], measured["subjects"], measured["subject_missing"]) == ({"a": 1, "b": 0}, 1, 0)


def pool_people(sources: dict[str, str], subject: str | None = "id") -> pl.DataFrame:
    """The rows of sources, name → file, of which a column may name whose they are."""
    of = f", subject: {subject}" if subject else ""
    entry = "  - {{name: {0}, path: data/raw/sources/{1}, format: qa, licence: MIT, consent: public, share: {2}{3}}}\n"
    entries = "".join(entry.format(name, file, 1 / len(sources), of) for name, file in sources.items())
    Path("params.yaml").write_text(f"sources:\n{entries}pool:\n  subject_key: public\n{NO_PROBES}")
    pool.main()
    return pl.read_parquet("data/pool/rows.parquet")


def exclude_row(row: pl.DataFrame) -> None:
    digests = {"content": digest_contents(row, b"pedigree")[0], "place": digest_places(row, b"pedigree")[0]}
    exclude(kind="row", value=row["row_id"][0], **digests)


def test_an_excluded_text_does_not_come_back_under_another_id(capsys: pytest.CaptureFixture[str]) -> None:
    """A renamed source, a source that gains a subject, another spelling: a new row_id each, and still excluded."""
    write_lines("data/raw/sources/a.jsonl", [QA[0] | {"id": "p1"}, QA[1] | {"id": "p2"}])
    before = pool_people({"a": "a.jsonl"}, None)
    exclude_row(before[:1])
    assert pool_people({"a": "a.jsonl"}, None)["record"].to_list() == [1]
    assert pool_people({"renamed": "a.jsonl"}, None)["record"].to_list() == [1]
    assert pool_people({"a": "a.jsonl"}, "id")["record"].to_list() == [1]
    spelt = {name: f"  {text.upper()} " for name, text in QA[0].items()}
    write_lines("data/raw/sources/b.jsonl", [QA[1], spelt])
    assert pool_people({"a": "a.jsonl", "b": "b.jsonl"}, None).select("source", "record").rows() == [("a", 1), ("b", 0)]
    ledger = pl.read_parquet("data/pool/ledger.parquet")
    content, matches = digest_contents(before[:1], b"pedigree")[0], read_matches(ledger)
    files = [f"data/raw/sources/{name}.jsonl" for name in "ab"]
    assert ledger["detail"][1] == f"request=r-1, by=content, content={content}, file={files[1]}"
    assert matches["row_id"].to_list() == ledger["row_id"].to_list()
    assert matches.drop("row_id").rows() == [("r-1", "row", content, files[0]), ("r-1", "content", content, files[1])]
    measured = json.loads(Path("metrics/pool.json").read_text())["exclusions"]
    assert measured == {"entries": 1, "matched": 1, "unmatched": 0, "in_their_place": 0}
    assert "WARNING" not in capsys.readouterr().out


def test_lines_that_match_nothing_and_rows_in_their_place_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    write_lines("data/raw/sources/a.jsonl", QA[:2])
    exclude_row(pool_people({"a": "a.jsonl"}, None)[:1])
    exclude(kind="row", value="0123456789abcdef", request="r-2")
    edited = {"question": QA[0]["question"], "answer": "As somebody told us, yes."}
    write_lines("data/raw/sources/a.jsonl", [edited, QA[1]])
    capsys.readouterr()
    assert pool_people({"a": "a.jsonl"}, None).height == 2
    said = capsys.readouterr().out
    assert (
        "WARNING: lines of data/raw/exclusions.jsonl that match no record, by request: r-1 (1 of 1), r-2 (1 of 1)"
        in said
    )
    assert "WARNING: rows with another text stand where excluded ones stood, by request: r-1 (1)" in said
    assert "0123456789abcdef" not in said
    measured = json.loads(Path("metrics/pool.json").read_text())["exclusions"]
    assert measured == {"entries": 2, "matched": 0, "unmatched": 2, "in_their_place": 1}


def subject_of(name: str) -> str:
    return hmac.digest(b"pedigree", name.encode(), "sha256").hex()[:16]


def say_as(who: str, role: str, text: str, replies: list[Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "user_id": who, "replies": replies or []} | rest


def test_the_authors_of_all_messages_of_a_path_are_known() -> None:
    """Of a tree each path has its own; the row's subject is the author of its first message."""
    late = say_as("cleo", "prompter", "And then?", [say_as("dora", "assistant", "Then rest.", rank=0)])
    tree = say_as("ann", "prompter", "Hi", [say_as("bob", "assistant", "Hello", [late, late], rank=0)])
    late["replies"].append(say_as("eve", "assistant", "Not the best.", rank=1))
    write_lines("a.jsonl", [{"message_tree_id": "t", "prompt": tree}])
    pooled = read("a.jsonl", "oasst", subject="user_id")
    assert pooled.rows["subject"].to_list() == [subject_of("ann")] * 2
    first, second = (pooled.others.filter(row_id=name)["subject"].to_list() for name in pooled.rows["row_id"])
    assert first == second == [subject_of("bob"), subject_of("cleo"), subject_of("dora")]
    flat = [{"message_id": 1, "parent_id": None, "user_id": "ann", "role": "prompter", "text": "Hi"},
            {"message_id": 2, "parent_id": 1, "user_id": "bob", "role": "assistant", "text": "Hello"}]  # fmt: skip
    write_lines("b.jsonl", flat)
    pooled = read("b.jsonl", "oasst", subject="user_id")
    assert (pooled.rows["subject"][0], pooled.others["subject"][0]) == (subject_of("ann"), subject_of("bob"))


@pytest.mark.parametrize(
    ("form", "record", "others"),
    [
        ("chat", {"messages": [{"role": "user", "content": "Hi", "who": "ann"},
                               {"role": "assistant", "content": "Hello", "who": "bob"}]}, ["bob"]),
        ("chat", {"who": "ann", "messages": json.dumps([{"role": "user", "content": "Hi", "who": "cleo"},
                                                        {"role": "assistant", "content": "Hello"}])}, ["cleo"]),
        ("sharegpt", {"conversations": [TURNS[0] | {"who": "ann"}, TURNS[1] | {"who": "ann"}]}, []),
        ("pairs", {"who": "ann", "prompt": "Hi", "chosen": [{"role": "assistant", "content": "Hello", "who": "bob"}],
                   "rejected": [{"role": "assistant", "content": "No", "who": "cleo"}]}, ["bob", "cleo"]),
        ("chat", {"who": "ann", "tools": [{"name": "f"}], "messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}]},
            {"role": "tool", "content": "1", "who": "f"}, {"role": "assistant", "content": "Hello"}]}, []),
    ],
)  # fmt: skip
def test_speakers_of_turns_are_subjects_beside_the_records(
    form: str, record: dict[str, Any], others: list[str]
) -> None:
    write_lines("a.jsonl", [record])
    pooled = read("a.jsonl", form, subject="who")
    assert pooled.rows["subject"].to_list() == [subject_of("ann")]
    assert pooled.others.rows() == [(pooled.rows["row_id"][0], subject_of(other)) for other in others]


def test_a_request_of_a_subject_takes_rows_in_which_it_only_replies() -> None:
    tree = say_as("ann", "prompter", "Hi", [say_as("bob", "assistant", "Hello", rank=0)])
    alone = say_as("cleo", "prompter", "Hi there", [say_as("ann", "assistant", "Yes", rank=0)])
    write_lines("data/raw/sources/a.jsonl", [{"prompt": tree}, {"prompt": alone}])
    entry = "name: a, path: data/raw/sources/a.jsonl, format: oasst, licence: MIT, consent: x, share: 1.0"
    Path("params.yaml").write_text(
        f"sources:\n  - {{{entry}, subject: user_id}}\npool:\n  subject_key: public\n{NO_PROBES}"
    )
    pool.main()
    others = pl.read_parquet("data/pool/subjects.parquet")
    assert others["subject"].to_list() == [subject_of("bob"), subject_of("ann")]
    exclude(kind="subject", value=subject_of("bob"))
    pool.main()
    assert pl.read_parquet("data/pool/rows.parquet")["record"].to_list() == [1]
    assert pl.read_parquet("data/pool/ledger.parquet")["detail"].str.starts_with("request=r-1, by=beside, file=").all()
    assert pl.read_parquet("data/pool/subjects.parquet")["subject"].to_list() == [subject_of("ann")]
    assert json.loads(Path("metrics/pool.json").read_text())["exclusions"]["unmatched"] == 0


@pytest.mark.parametrize(
    "line",
    [b"not JSON", b"\xff\xfe", b"[1]", b'{"request": "r-2"}', b'"a"', b"null",
     b'{"request": "r-2", "kind": "row", "value": "abc", "key": "public", "since": null}',
     b'{"request": "r/2", "kind": "source", "value": "a", "key": "public", "since": null}',
     b'{"request": "r-2", "kind": "subject", "value": "Ann Lee", "key": "public", "since": null}'],
)  # fmt: skip
def test_a_broken_line_of_the_exclusion_list_is_named_by_its_number(line: bytes) -> None:
    exclude(kind="row", value="0123456789abcdef")
    with FILE.open("ab") as file:
        file.write(b"\n" + line)  # an empty line before it, and no line end behind it
    with pytest.raises(InputError, match=r"exclusions.jsonl, line 3: expected an object") as error:
        read_exclusions("public")
    assert "Ann Lee" not in str(error.value)


def test_an_exclusion_under_another_key_stops_pool() -> None:
    write_lines("data/raw/sources/a.jsonl", QA[:2])
    entry = "{name: a, path: data/raw/sources/a.jsonl, format: qa, licence: MIT, consent: public, share: 1.0}"
    Path("params.yaml").write_text(f"sources:\n  - {entry}\npool:\n  subject_key: public\n{NO_PROBES}")
    exclude(kind="row", value="0123456789abcdef", key="0123456789ab")
    with pytest.raises(InputError, match=r"exclusions.jsonl, line 1: was written under the key 0123456789ab"):
        pool.main()
    Path("data/raw/exclusions.jsonl").write_text('{"row": "0123456789abcdef"}\n')
    with pytest.raises(InputError, match=r"exclusions.jsonl, line 1: expected an object"):
        pool.main()


def test_a_mistake_in_the_last_source_shows_before_the_first_is_read() -> None:
    folder = "data/raw/sources"
    entry = f"{{{{name: {{0}}, path: {folder}/{{0}}.jsonl, format: qa, licence: MIT, consent: public, share: 0.5}}}}"
    Path("params.yaml").write_text(
        f"sources: [{entry.format('a')}, {entry.format('b')}]\npool: {{subject_key: public}}\n{NO_PROBES}"
    )
    Path(folder).mkdir(parents=True)
    Path(folder, "a.jsonl").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"sources.b.path: no file data/raw/sources/b.jsonl"):
        pool.main()


@pytest.mark.parametrize("path", ["a.jsonl", "data/raw/sources/../a.jsonl", "data/raw/sourc*/a.jsonl"])
def test_a_file_that_dvc_does_not_watch_is_refused(path: str) -> None:
    for written in ("a.jsonl", "data/raw/a.jsonl", "data/raw/sources/a.jsonl"):
        write_lines(written, QA)
    Path("params.yaml").write_text(
        f"sources: [{{name: a, path: '{path}', format: qa, licence: MIT, consent: public, share: 1.0}}]\n"
        f"pool: {{subject_key: public}}\n{NO_PROBES}"
    )
    with pytest.raises(InputError, match=r"sources\.a\.path: .* is not below data/raw/sources: .* move it there"):
        pool.main()


def test_row_ids_cannot_be_guessed_without_the_key() -> None:
    """A row_id stands beside the scrubbed text: trying all dates of birth must not find the one that was taken out."""
    source, content = make_source("a.jsonl"), Content(messages=[{"role": "user", "content": "born 1990-01-02"}])
    ids = {make_row_id(source, key, None, vars(content), 0) for key in (b"one", b"two")}
    assert len(ids) == 2


def test_a_subject_is_the_same_with_spaces_around_it() -> None:
    assert digest_subject(" P-1 ", b"k") == digest_subject("P-1", b"k")
