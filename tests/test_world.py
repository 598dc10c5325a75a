"""The embedded data is what its builder makes of the authored texts, and what stands in planted.json is planted."""

import csv
import gzip
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.common.params import Source, read_yaml
from stages.common.rows import normalise

ROOT = Path(__file__).parents[1]
WORLD = ROOT / "data/world"


@pytest.fixture(scope="module")
def builder() -> Any:
    spec = importlib.util.spec_from_file_location("world_builder", WORLD / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(builder: Any) -> tuple[dict[str, bytes], list[str]]:
    return builder.build(WORLD)


@pytest.fixture(scope="module")
def planted() -> dict[str, list[dict[str, Any]]]:
    return json.loads((WORLD / "planted.json").read_text())


@pytest.fixture(scope="module")
def sources(builder: Any) -> dict[str, list[Any]]:
    """The records of each source as the file holds them; a line that is no JSON stays text."""
    return {name: list(read_records(ROOT / path)) for name, path in builder.FILES.items()}


@pytest.fixture(scope="module")
def items() -> dict[str, list[dict[str, Any]]]:
    return {task: list(read_records(ROOT / f"data/raw/eval/{task}.jsonl")) for task in ("clinic", "general")}


def read_records(path: Path) -> Iterator[Any]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    if path.suffix in (".csv", ".tsv"):
        yield from csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".json":
        yield from json.loads(text)
    else:
        for line in text.splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                yield line


def record_at(sources: dict[str, list[Any]], place: dict[str, Any]) -> Any:
    return sources[place["source"]][place["record"]]


def question_and_answer(record: dict[str, Any]) -> list[str]:
    """The texts that a model reads, in order."""
    if "conversations" in record:
        return [turn["value"] for turn in record["conversations"]]
    if "messages" in record:
        calls = [call["function"] for item in record["messages"] for call in item.get("tool_calls", [])]
        return [item["content"] or "" for item in record["messages"]] + [
            text for call in calls for text in (call["name"], call["arguments"])
        ]
    forms = (("instruction", "input", "output"), ("message", "reply"), ("front", "back"))
    return next([record[name] for name in names] for names in forms if names[0] in record)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def runs(text: str, size: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def jaccard(first: dict[str, Any], second: dict[str, Any]) -> float:
    one, other = (runs("\n".join(question_and_answer(record)), 3) for record in (first, second))
    return len(one & other) / len(one | other)


def test_files_are_what_the_texts_give(built: tuple[dict[str, bytes], list[str]]) -> None:
    files, _ = built
    for path, content in files.items():
        committed = (ROOT / path).read_bytes()
        assert (gzip.decompress(committed) if path.endswith(".gz") else committed) == content, path


def test_gzip_carries_no_time_and_no_name() -> None:
    header = (ROOT / "data/raw/sources/community.jsonl.gz").read_bytes()[:10]
    assert header[3] == 0  # flags: no file name (RFC 1952)
    assert header[4:8] == bytes(4)  # modification time


def test_nothing_is_alike_or_leaks_by_accident(built: tuple[dict[str, bytes], list[str]]) -> None:
    assert built[1] == []


def test_sources_are_those_of_the_default_recipe(builder: Any, sources: dict[str, list[Any]]) -> None:
    declared = {source["name"]: source for source in read_yaml(ROOT / "recipes/default.yaml")["sources"]}
    assert {name: source["path"] for name, source in declared.items()} == builder.FILES
    patients = declared["patient_questions"]
    assert {*patients["columns"].values(), patients["subject"]} <= set(sources["patient_questions"][0])


def test_enough_rows(sources: dict[str, list[Any]], planted: dict[str, Any], items: dict[str, list[Any]]) -> None:
    extra = Counter(item["at"]["source"] for what, entries in planted.items() if what != "personal" for item in entries)
    good = {name: len(records) - extra[name] for name, records in sources.items()}
    assert good["clinic_faq"] + good["patient_questions"] == 1005  # every question of every fact once
    assert {name: good[name] for name in ("dialogues", "desk_tools", "community", "general_skills")} == {
        "dialogues": 110, "desk_tools": 90, "community": 24, "general_skills": 420,
    }  # fmt: skip
    assert Counter(card["topic"] for card in sources["desk_cards"]) == {item["id"][:3]: 10 for item in items["clinic"]}
    assert good["clinic_preferences"] == good["reviewed_replies"] == 340
    assert {task: len(entries) for task, entries in items.items()} == {"clinic": 324, "general": 330}


def test_a_card_that_asks_what_an_item_asks_is_refused(builder: Any) -> None:
    from checks import told_answers
    from entries import Entry

    item = {
        "id": "r08-1",
        "question": "For how many days is a talk kept?",
        "choices": ["For two.", "For 30."],
        "label": 1,
    }
    cards = {
        "same": ("How many days is a talk kept?", "It is for 30."),
        "other fact": ("How many days is a talk kept?", "It is for 30."),
        "other question": ("What happens to a conversation after a month?", "For 30."),
        "other answer": ("How many days is a talk kept?", "A whole month long."),
    }
    records = [
        Entry(key, {"topic": "g01" if key == "other fact" else "r08", "front": front, "back": back})
        for key, (front, back) in cards.items()
    ]
    assert told_answers({"desk_cards": records}, {"clinic": [item]}) == ["desk card same asks what item r08-1 asks"]


def test_answers_go_round() -> None:
    from compose import pair_answers  # beside build.py, which put its folder on the path

    questions = ["when", "when do you open", "at what time do you open on a Monday"]
    answers = ["At seven.", "We open at seven in the morning."]
    # shortest and longest question together: 1 + 8 words, more than the 4 of the middle one, so the longer answer
    assert pair_answers(questions, answers) == [answers[1], answers[0], answers[1]]


def test_repeats_are_equal_once_normalised(sources: dict[str, list[Any]], planted: dict[str, Any]) -> None:
    kinds: Counter[str] = Counter()
    for item in planted["repeats"]:
        copy, origin = (question_and_answer(record_at(sources, item[place])) for place in ("at", "of"))
        copy, origin = [[text for text in texts if text] for texts in (copy, origin)]  # Alpaca's input is empty
        same = [normalise(text) for text in copy] == [normalise(text) for text in origin]
        assert same == (item["kind"] != "punctuation"), item
        assert (copy == origin) == (item["kind"] == "verbatim"), item
        assert runs("\n".join(copy), 1) == runs("\n".join(origin), 1), item
        kinds[item["kind"]] += 1
    # the four kinds in turn over 34 questions with answers; 3 dialogues and 3 desk chats are verbatim
    assert kinds == {"verbatim": 9 + 6, "case": 9, "spacing": 8, "punctuation": 8}


def test_near_duplicates_are_near_and_reworded_rows_are_not(
    sources: dict[str, list[Any]], planted: dict[str, Any]
) -> None:
    for item in planted["near"] + planted["reworded"]:
        assert jaccard(*(record_at(sources, item[place]) for place in ("at", "of"))) == pytest.approx(
            item["jaccard"], abs=1e-4
        )
    assert all(0.8 <= item["jaccard"] < 1 for item in planted["near"])
    assert all(0.3 <= item["jaccard"] < 0.8 for item in planted["reworded"])
    across = sum(item["at"]["source"] != item["of"]["source"] for item in planted["near"] + planted["repeats"])
    assert across == 12 + 8


def test_copied_pairs(sources: dict[str, list[Any]], planted: dict[str, Any]) -> None:
    def replies(record: dict[str, Any]) -> list[str]:
        return [record[side].split("\n\nAssistant: ")[-1] for side in ("chosen", "rejected")]

    for item in planted["pair_repeats"]:
        assert replies(record_at(sources, item["at"])) == replies(record_at(sources, item["of"]))
    for item in planted["pair_swaps"]:
        assert replies(record_at(sources, item["at"])) == replies(record_at(sources, item["of"]))[::-1]


def test_leaks(sources: dict[str, list[Any]], planted: dict[str, Any], items: dict[str, list[Any]]) -> None:
    by_id = {(task, item["id"]): item for task, entries in items.items() for item in entries}
    shares = []
    for leak in planted["leaks"]:
        record, item = record_at(sources, leak["at"]), by_id[leak["task"], leak["item"]]
        assert record["output"] == item["choices"][item["label"]]
        assert (record["instruction"] == item["question"]) == leak["verbatim"]
        if not leak["verbatim"]:
            held = runs(item["question"], 8) & runs(record["instruction"], 8)
            shares.append(len(held) / len(runs(item["question"], 8)))
            assert shares[-1] == pytest.approx(leak["share"], abs=1e-4)
    assert Counter(leak["task"] for leak in planted["leaks"]) == {"clinic": 12, "general": 13}
    assert sum(leak["verbatim"] for leak in planted["leaks"]) == 20
    assert sum(share >= 0.6 for share in shares) == 4  # the fifth is a paraphrase that no n-gram finds


def test_no_other_row_holds_eight_words_of_a_question(
    sources: dict[str, list[Any]], planted: dict[str, Any], items: dict[str, list[Any]]
) -> None:
    leaked = {(item["at"]["source"], item["at"]["record"]) for item in planted["leaks"]}
    questions = set().union(*(runs(item["question"], 8) for entries in items.values() for item in entries))
    for source, records in sources.items():
        for number, record in enumerate(records):
            if (source, number) not in leaked:
                assert not runs("\n".join(strings(record)), 8) & questions, (source, number)


def test_right_choices_are_spread(items: dict[str, list[Any]]) -> None:
    for entries in items.values():
        labels = Counter(item["label"] for item in entries)
        assert max(labels.values()) - min(labels.values()) <= 1
        assert len({normalise(item["question"]) for item in entries}) == len(entries)
        assert all(len(set(item["choices"])) == 4 for item in entries)


def test_pool_refuses_the_broken_records_and_no_other(planted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.common.engine import Engine
    from stages.pool import Tally, pool_source

    monkeypatch.chdir(ROOT)
    engine = Engine(name="local", workers=1, address=None)
    refused = []
    for source in read_yaml(ROOT / "recipes/default.yaml")["sources"]:
        for _, table, _ in pool_source(Source(**source), b"pedigree", engine, Tally()):
            refused += [(source["name"], record) for record in table["record"]]
    assert sorted(refused) == sorted((item["at"]["source"], item["at"]["record"]) for item in planted["broken"])


def test_patients(sources: dict[str, list[Any]]) -> None:
    rows = sources["patient_questions"]
    messages = Counter(row["patient_id"] for row in rows)
    assert len(messages) == 160
    assert min(messages.values()) == 1
    assert max(messages.values()) <= 8
    assert all(re.fullmatch(r"JS-\d{5}", patient) for patient in messages)
    assert [row["id"] for row in rows] == [f"m{number:04d}" for number in range(1, len(rows) + 1)]
    assert [row["date"] for row in rows] == sorted(row["date"] for row in rows)


def test_personal_data_is_invented_and_stands_where_it_is_listed(
    sources: dict[str, list[Any]], planted: dict[str, Any]
) -> None:
    assert len(planted["personal"]) == pytest.approx(0.12 * len(sources["patient_questions"]), abs=1)
    kinds: Counter[str] = Counter()
    for item in planted["personal"]:
        row = record_at(sources, item["at"])
        for entity in item["entities"]:
            assert entity["text"] in row[entity["column"]]
            kinds[entity["type"]] += 1
            if entity["type"] == "PHONE_NUMBER":
                assert re.search(r"555[-.]01\d\d$", entity["text"])
            if entity["type"] == "EMAIL_ADDRESS":
                assert re.search(r"@example\.(com|org|net)$", entity["text"])
    assert set(kinds) == {
        "PERSON", "PHONE_NUMBER", "EMAIL_ADDRESS", "STREET_ADDRESS", "DATE_OF_BIRTH", "MEDICAL_RECORD", "CREDIT_CARD",
        "US_SSN",
    }  # fmt: skip


def test_readme_tells_the_counts(sources: dict[str, list[Any]], planted: dict[str, Any]) -> None:
    text = (WORLD / "README.md").read_text()
    told = {name: int(number) for name, number in re.findall(r"^\| `(\w+)`.*\| (\d+) \|$", text, re.MULTILINE)}
    assert told == {name: len(records) for name, records in sources.items()} | {
        what: len(entries) for what, entries in planted.items()
    }
