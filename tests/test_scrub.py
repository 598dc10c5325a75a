"""Personal data: what is found, what stays, and that a failure never passes a row."""

import json
import logging
import random
import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from stages import scrub
from stages.common.errors import InputError
from stages.common.item_contracts import ITEM_SCHEMA
from stages.common.probes import make_probe, make_table
from stages.common.rows import ROW_SCHEMA, message
from stages.pii import Finding
from stages.pii.analyser import Analyser
from stages.pii.names import LISTS, find_names, fold
from stages.pii.operators import Operators
from stages.pii.params import Scrub
from stages.pii.scrubber import Scrubber
from stages.pii.spans import Allowed, merge_findings
from stages.pii.worker import scrub_batch, scrub_items
from stages.scrub import add_up, check_items, split_scrubbed

ENTITIES = {
    "PERSON": "replace",
    "EMAIL_ADDRESS": "replace",
    "PHONE_NUMBER": "replace",
    "CREDIT_CARD": "replace",
    "IBAN_CODE": "replace",
    "US_SSN": "replace",
    "US_BANK_NUMBER": "keep",
    "MEDICAL_RECORD": "replace",
    "IP_ADDRESS": "replace",
    "URL": "keep",
    "DATE_OF_BIRTH": "replace",
    "CRYPTO": "replace",
    "STREET_ADDRESS": "replace",
}
ALLOW = ["(303) 555-0142", "Maren Okafor", "Joan Whitaker", "Wren"]


def params(**changes: Any) -> Scrub:
    given: dict[str, Any] = {
        "language": "en",
        "entities": ENTITIES,
        "locales": [],
        "threshold": 0.5,
        "names": "lists",
        "key_fingerprint": "public",
        "allow": ALLOW,
        "deny": [],
        "deny_file": None,
        "deny_fingerprint": None,
    }
    return Scrub(**given | changes)


@pytest.fixture(scope="module")
def analyser() -> Analyser:
    return Analyser("en", list(ENTITIES), 0.5, "lists")


@pytest.fixture
def scrubber(analyser: Analyser) -> Scrubber:
    return Scrubber(params(), analyser)


def scrub_rows(rows: pl.DataFrame, scrubber: Scrubber) -> tuple[pl.DataFrame, pl.DataFrame, Counter[str]]:
    """Rows that go on, the ledger, what was replaced."""
    scrubbed = scrub_batch(rows, scrubber)
    kept, ledger, _ = split_scrubbed(scrubbed)
    return kept, ledger, add_up(scrubbed["replaced"])


PLACE = {"source": "s", "file": "s.json", "record": 0, "kind": "sft", "licence": "CC0-1.0"}


def row(row_id: str, *messages: dict[str, Any], **rest: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(ROW_SCHEMA)
    return empty | {"row_id": row_id, "messages": list(messages)} | PLACE | rest


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), ROW_SCHEMA)


# What is found


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Write to tom.baker@example.com today.", "Write to <EMAIL_ADDRESS> today."),
        ("Call me at 720-555-0188 please.", "Call me at <PHONE_NUMBER> please."),
        ("We are on (720) 555-0188.", "We are on <PHONE_NUMBER>."),
        ("My phone: 0490 75 40 81", "My phone: <PHONE_NUMBER>"),
        ("From abroad +44 20 7946 0958 works.", "From abroad <PHONE_NUMBER> works."),
        ("Pay with 4111 1111 1111 1111 now.", "Pay with <CREDIT_CARD> now."),
        ("The card 501864667909 is lost.", "The card <CREDIT_CARD> is lost."),
        ("IBAN GB33BUKB20201555555555.", "IBAN <IBAN_CODE>."),
        ("iban gb33bukb20201555555555.", "iban <IBAN_CODE>."),
        ("SSN 536-22-8726 on file.", "SSN <US_SSN> on file."),
        ("From 203.0.113.7 or 2001:db8:0:0:0:0:0:1.", "From <IP_ADDRESS> or <IP_ADDRESS>."),
        ("MRN 00482913 is mine.", "MRN <MEDICAL_RECORD> is mine."),
        ("patient ID: JS-20417.", "patient ID: <MEDICAL_RECORD>."),
        ("My medical record number is 48-2913.", "My medical record number is <MEDICAL_RECORD>."),
        ("My medical record number is 482.", "My medical record number is 482."),  # too short to be one
        ("I was born on 03/14/1972.", "I was born on <DATE_OF_BIRTH>."),
        ("DOB 1972-03-14, D.O.B.: March 14, 1972", "DOB <DATE_OF_BIRTH>, D.O.B.: <DATE_OF_BIRTH>"),
        ("My date of birth is 14 March 1972.", "My date of birth is <DATE_OF_BIRTH>."),
        ("Extension 555-0133, ranges of 555-1033 items.", "Extension <PHONE_NUMBER>, ranges of 555-1033 items."),
        ("I live at 693 Saddler Street, Apt 4b.", "I live at <STREET_ADDRESS>."),
        ("Take 2 Long Walks Every Day on 4 Main Roads.", "Take 2 Long Walks Every Day on 4 Main Roads."),
        ("Pay to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa.", "Pay to <CRYPTO>."),
    ],
)
def test_patterns(scrubber: Scrubber, text: str, clean: str) -> None:
    assert scrubber.scrub(text).text == clean


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("My name is Helen Marsh and I am new.", ["Helen Marsh"]),
        ("my name is helen, hi", ["helen"]),
        ("I am Tom Baker.", ["Tom Baker"]),
        ("I'm Ana, calling for my son Will.", ["Ana", "Will"]),
        ("Mr. Brown and Mrs Szöllősy saw Dr. T. Lindqvist.", ["Brown", "Szöllősy", "T. Lindqvist"]),
        ("Dear Maria,\nthe form is here.\nKind regards,\nTom", ["Maria", "Tom"]),
        (
            "We met Will Smith, Grace Okafor and J. R. van der Berg.",
            ["Will Smith", "Grace Okafor", "J. R. van der Berg"],
        ),
        ("Ask Helen Novak. Novak knows.", ["Helen Novak", "Novak"]),
        ("Patient: Krisztián Zzyx", ["Krisztián Zzyx"]),
        ("hi its olga tran, is she in", ["olga tran"]),
        ("Thank you,\nTevita Zzyx", ["Tevita Zzyx"]),
        ("Nadia from the bakery here. Last name Zzyx.", ["Nadia", "Zzyx"]),
        ("Maria's appointment is on Monday.", ["Maria"]),
        ("My wife Anna Miller's disease got worse.", ["Anna Miller"]),
    ],
)
def test_names_are_found(text: str, names: list[str]) -> None:
    assert [text[found.start : found.end] for found in find_names(text)] == names


@pytest.mark.parametrize(
    "text",
    [
        "May I ask whether Will can mark the grace period? Rose bushes bloom in June.",
        "Parkinson disease, Crohn's disease, Alexander disease, Lou Gehrig's disease, Norman Roberts syndrome.",
        "Virginia Beach, San Diego, St. Louis, New York, Johnson County, Houston and Austin.",
        "Johns Hopkins University, Mayo Clinic and the Robert Wood Johnson Foundation.",
        "I am Christian. This is Hope. I am German. Thanks, Doctor. Hello there, Nurse.",
        "Name: Metformin. The drug's name is Lisinopril. Vitamin D. Deficiency. IgE and TIMM.",
        "Mark the page. Grace wins. Bill it later. Frank advice. Summer Time. Black Friday.",
        "Hey Siri, hi Alexa. Hello World. Hi Everyone,",
        "The Rosetta Stone. Dr. Who-knows-what. She has MS. I have not. MS Patients. Mrs. G. came.",
        "- Genetic Counseling\n- Palliative Care\n- Chills",
    ],
)
def test_ordinary_english_has_no_names(text: str) -> None:
    assert find_names(text) == []


def test_name_lists_are_folded_small_and_licensed() -> None:
    assert fold("Szöllősy") == "szollosy"
    assert fold("O’Brien-Łukasz") == "o'brien-lukasz"
    for name in ("first", "family", "words", "places"):
        entries = LISTS.joinpath(f"{name}.txt").read_text(encoding="utf-8").split()
        assert entries == sorted(set(entries))
        assert all(fold(entry) == entry for entry in entries)
    assert sum(file.stat().st_size for file in LISTS.iterdir() if file.is_file()) < 300_000
    assert LISTS.joinpath("NOTICE").read_text().count("Permission is hereby granted") == 2


# Texts with parts of personal data


WORDS = """
    call phone card born DOB MRN patient ID number text at is the my Mr. Dr. Helen Novak bank account SSN iban email
    write see x ext. and 12:30 2.5 e.g. i.e. U.S. page 3-4 1/2/03 1999 3,500 $20 50%
"""
VALUES = """
    tom@example.com a.b-c@mail.co.uk x@y 720-555-0188 (720) 555-0188 +1 720 555 0188 +44 20 7946 0958 0490 75 40 81
    4111111111111111 4111-1111-1111-1111 501864667909 GB33BUKB20201555555555 de89370400440532013000 536-22-8726
    536228726 203.0.113.7 ::1 2001:db8::1 2001:db8:0:0:0:0:0:1 ::ffff:10.0.0.1 http://a.example.org/x?y=1 example.com
    www.a.de A.IO 00482913 JS-20417 03/14/1972 1972-03-14 14.03.72 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa 12345678
    123456789012 ７２０５５５０１８８ 720ー555ー0188 exa·mple.ſex March 14, 1972
"""
PHRASES = [
    "12 Old Mill Rd",
    "693 Saddler Street, Apt 4b",
    "March 14, 1972",
    "+46 (0)8 928 571 38",
    "(720) 555 0188 x12",
]


def sentences() -> Iterator[str]:
    """Seeded texts in which parts of personal data stand whole, cut, glued together and beside context words."""
    generator = random.Random(7)
    words, pieces = WORDS.split(), [*VALUES.split(), *PHRASES * 2]
    for _ in range(500):
        parts = []
        for _ in range(generator.randint(1, 9)):
            piece = generator.choice(words if generator.random() < 0.5 else pieces)
            if generator.random() < 0.15:
                piece = piece[generator.randrange(len(piece)) :]
            if generator.random() < 0.1:
                piece = "".join(generator.choice("0123456789 -./:@xX+()aZé") for _ in range(generator.randint(3, 24)))
            parts.append(generator.choice([" ", " ", " ", "", "\n", "-", ", ", ": "]) + piece)
        yield "".join(parts)


# What becomes of it


def test_overlapping_findings_become_one_and_nothing_is_left_over() -> None:
    text = "0123456789abcdef"
    findings = [Finding(0, 4, "A", 0.9), Finding(2, 9, "B", 0.6), Finding(8, 10, "C", 1.0), Finding(10, 12, "C", 0.5)]
    assert merge_findings(findings, text) == [Finding(0, 10, "B", 0.6), Finding(10, 12, "C", 0.5)]
    same_length = [Finding(0, 4, "A", 0.6), Finding(0, 4, "B", 0.9)]
    assert merge_findings(same_length, text) == [Finding(0, 4, "B", 0.9)]
    places = [(0, 3), (5, 6), (7, 8)]
    of_person = [Finding(*place, "PERSON", 0.6) for place in places]
    assert [found[:2] for found in merge_findings(of_person, "abc  d,e")] == [(0, 6), (7, 8)]
    numbers = [Finding(*place, "PHONE_NUMBER", 0.6) for place in places]  # two numbers side by side are two
    assert [found[:2] for found in merge_findings(numbers, "abc  d,e")] == places


def test_mask_has_a_star_for_each_character() -> None:
    findings = [Finding(3, 6, "A", 1.0), Finding(6, 8, "B", 1.0)]
    operators = Operators({"A": "mask", "B": "replace"}, None)
    assert operators.replace(findings, "to Tom42!") == ("to ***<B>!", [(3, 6), (6, 9)])


def test_keep_counts_and_never_shields_what_is_replaced(analyser: Analyser) -> None:
    scrubber = Scrubber(params(), analyser)
    link = scrubber.scrub("See https://example.org/help for more.")
    assert (link.text, [item.entity for item in link.kept]) == ("See https://example.org/help for more.", ["URL"])
    mail = scrubber.scrub("See https://example.org/?to=tom@example.com now.")
    assert "tom@" not in mail.text
    assert [item.entity for item in mail.replaced] == ["EMAIL_ADDRESS"]
    masked = Scrubber(params(entities=ENTITIES | {"EMAIL_ADDRESS": "mask"}), analyser)
    assert masked.scrub("To a@example.com!").text == "To *************!"


def test_what_stands_in_is_not_found_again(scrubber: Scrubber) -> None:
    for text in sentences():
        once = scrubber.scrub(text).text
        stand_ins = [match.span() for match in re.finditer("<[A-Z_]+>", once)]
        for found in scrubber.finder.find(once):
            assert not any(start < found.end and found.start < end for start, end in stand_ins), once


# The allow list


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Call (303) 555-0142 or (303) 555-0188.", "Call (303) 555-0142 or <PHONE_NUMBER>."),
        ("303-555-0142, 555-0142 and +1 303 555 0142", "303-555-0142, 555-0142 and +1 303 555 0142"),
        ("My cell is 720-555-0142.", "My cell is <PHONE_NUMBER>."),
        (
            "Does Maren Okafor work? The Physician Joan Whitaker?",
            "Does Maren Okafor work? The Physician Joan Whitaker?",
        ),
        ("Ask Maren Okafor or Helen Novak.", "Ask Maren Okafor or <PERSON>."),
        (
            "Dr. Okafor and nurse Whitaker are in, Dr. Novak is not.",
            "Dr. Okafor and nurse Whitaker are in, Dr. <PERSON> is not.",
        ),
        ("DR. MAREN OKAFOR, Nurse practitioner Joan Whitaker", "DR. MAREN OKAFOR, Nurse practitioner Joan Whitaker"),
        ("Joan Whitaker runs it. Whitaker knows.", "Joan Whitaker runs it. Whitaker knows."),
        ("My name is Whitaker.", "My name is <PERSON>."),
        ("I am Helen Okafor.", "I am <PERSON>."),
        ("I am Joan Whitaker-Novak.", "I am <PERSON>."),
        ("Hello Wren, my name is Wren Novak.", "Hello Wren, my name is <PERSON>."),
    ],
)
def test_public_facts_stay(scrubber: Scrubber, text: str, clean: str) -> None:
    assert scrubber.scrub(text).text == clean


def test_allow_list_may_be_empty() -> None:
    assert Allowed([]).drop([Finding(0, 3, "A", 1.0)], "Tom") == [Finding(0, 3, "A", 1.0)]


# Rows


def test_all_texts_of_a_row_are_scrubbed_and_counted(scrubber: Scrubber) -> None:
    calls = [
        {
            "name": "book_visit",
            "arguments": {"name": "Helen Novak", "phone": 7205550188, "days": [1, True], "note": "ok"},
        }
    ]
    nested = [{"name": "find", "arguments": json.dumps({"mail": "tom@example.com"})}]
    rows = table(
        row(
            "a",
            message("system", "You help Helen Novak."),
            message("user", "I am Tom Baker, tom@example.com", name="Tom Baker"),
            message("assistant", None, tool_calls=json.dumps(calls)),
            message("tool", '{"patient": "Helen Novak", "mrn": "00482913"}', tool_call_id="1", name="book_visit"),
            message("assistant", None, tool_calls=json.dumps(nested)),
            tools='[{"name": "book_visit", "description": "for Helen Novak"}]',
            chosen=[message("assistant", "Yes, Mr. Baker.")],
            rejected=[message("assistant", "Mail tom@example.com")],
        ),
        row("b", message("user", "Nothing here."), chosen=[], rejected=None),
    )
    kept, ledger, found = scrub_rows(rows, scrubber)
    first = kept.row(0, named=True)
    contents = [entry["content"] for entry in first["messages"]]
    assert contents[:2] == ["You help <PERSON>.", "I am <PERSON>, <EMAIL_ADDRESS>"]
    assert json.loads(contents[3]) == {"patient": "<PERSON>", "mrn": "<MEDICAL_RECORD>"}
    assert first["messages"][1]["name"] == "<PERSON>"
    assert first["messages"][3]["name"] == "book_visit"
    assert json.loads(first["messages"][2]["tool_calls"]) == [
        {
            "name": "book_visit",
            "arguments": {"name": "<PERSON>", "phone": "<PHONE_NUMBER>", "days": [1, True], "note": "ok"},
        }
    ]
    assert json.loads(json.loads(first["messages"][4]["tool_calls"])[0]["arguments"]) == {"mail": "<EMAIL_ADDRESS>"}
    assert first["tools"] == '[{"name": "book_visit", "description": "for <PERSON>"}]'
    assert first["chosen"][0]["content"] == "Yes, Mr. <PERSON>."
    assert first["rejected"][0]["content"] == "Mail <EMAIL_ADDRESS>"
    assert kept.schema == rows.schema
    assert kept.row(1) == rows.row(1)
    # PERSON: system, user text, user name, call, tool result, chosen. EMAIL_ADDRESS: user, nested call, rejected.
    detail = "EMAIL_ADDRESS=3,MEDICAL_RECORD=1,PERSON=7,PHONE_NUMBER=1"
    assert ledger.rows() == [("a", "scrub", "change", "pii", None, detail)]
    assert dict(found) == {"PERSON": 7, "EMAIL_ADDRESS": 3, "PHONE_NUMBER": 1, "MEDICAL_RECORD": 1}


def test_equal_texts_are_looked_at_once(analyser: Analyser, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(analyser, "find", lambda text: seen.append(text) or [])
    rows = table(*(row(f"r{number}", message("user", "Same."), message("assistant", "Other.")) for number in range(5)))
    scrub_rows(rows, Scrubber(params(), analyser))
    assert seen == ["Same.", "Other."]


# Failing closed


def test_row_is_dropped_where_a_recogniser_raises(analyser: Analyser, monkeypatch: pytest.MonkeyPatch) -> None:
    find = analyser.find

    def fail_on_novak(text: str) -> list[Finding]:
        if "Novak" in text:
            raise KeyError(text)
        return find(text)

    monkeypatch.setattr(analyser, "find", fail_on_novak)
    rows = table(row("good", message("user", "Hello")), row("bad", message("user", "I am Helen Novak")))
    kept, ledger, found = scrub_rows(rows, Scrubber(params(), analyser))
    assert kept["row_id"].to_list() == ["good"]
    assert ledger.rows() == [("bad", "scrub", "drop", "scrub_failed", None, "KeyError")]
    assert found.total() == 0


def test_pattern_that_times_out_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from presidio_analyzer import Pattern, PatternRecognizer, pattern_recognizer

    from stages.pii.search import Search

    analyser = Analyser("en", ["CRYPTO"], 0.5, "none")
    slow = PatternRecognizer("UUID", name="Slow", patterns=[Pattern("slow", r"(a|a?)+$", 0.9)])
    analyser.search = Search([slow])
    monkeypatch.setattr(pattern_recognizer, "REGEX_TIMEOUT_SECONDS", 0.02)
    scrubber = Scrubber(params(entities={"CRYPTO": "replace", "UUID": "replace"}), analyser)
    rows = table(row("slow", message("user", "a" * 5000 + "b")), row("quick", message("user", "b")))
    kept, ledger, _ = scrub_rows(rows, scrubber)
    assert kept["row_id"].to_list() == ["quick"]
    assert ledger["reason"].to_list() == ["scrub_failed"]
    assert ledger["detail"].to_list() == ["TimeoutError"]


def test_broken_tool_calls_drop_the_row(scrubber: Scrubber) -> None:
    kept, ledger, _ = scrub_rows(table(row("a", message("assistant", None, tool_calls='[{"name": '))), scrubber)
    assert kept.height == 0
    assert ledger.select("action", "reason", "detail").row(0) == ("drop", "scrub_failed", "JSONDecodeError")


def test_personal_data_as_a_key_drops_the_row(scrubber: Scrubber) -> None:
    content = '{"tom@example.com": 1, "ann@example.com": 2}'
    _, ledger, _ = scrub_rows(table(row("a", message("tool", content, tool_call_id="1", name="find"))), scrubber)
    assert ledger.select("reason", "detail").row(0) == ("scrub_failed", "personal data as a key")


def test_pairs_that_differed_in_personal_data_alone_are_dropped(scrubber: Scrubber) -> None:
    def pair(row_id: str, chosen: str, rejected: str) -> dict[str, Any]:
        replies = {"chosen": [message("assistant", chosen)], "rejected": [message("assistant", rejected)]}
        return row(row_id, message("user", "Whom do I write to?"), kind="preference", **replies)

    pairs = table(
        pair("a", "Write to tom@example.com.", "Write to ann@example.com. "),
        pair("b", "Write to tom@example.com.", "Ask ann@example.com."),
    )
    kept, ledger, _ = scrub_rows(pairs, scrubber)
    assert kept["row_id"].to_list() == ["b"]
    assert ledger.select("row_id", "action", "reason").rows() == [
        ("a", "drop", "equal_replies"),
        ("b", "change", "pii"),
    ]


def test_no_rows_are_no_trouble(scrubber: Scrubber) -> None:
    kept, ledger, _ = scrub_rows(table(), scrubber)
    assert (kept.height, kept.schema, ledger.height) == (0, table().schema, 0)
    assert scrub_items(pl.DataFrame([], ITEM_SCHEMA), scrubber).height == 0


def test_presidio_shows_no_log_and_needs_no_network(analyser: Analyser, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("reached for a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert [found.entity for found in analyser.find("new.person@example.com") if found.entity != "URL"] == [
        "EMAIL_ADDRESS"
    ]
    assert logging.getLogger("presidio-analyzer").propagate is False


# Parameters and modes


@pytest.mark.parametrize(
    "changes",
    [{"names": "spacy:"}, {"entities": {"PERSON": "pseudonym"}}, {"locales": ["us"]}, {"deny_file": "x"},
     {"names": "list"}, {"entities": {}}, {"entities": {"PERSON": "hide"}}, {"threshold": 1.5},
     {"allow": [" "]}, {"allow": [988]}, {"language": "english"}, {"language": "de"}],
)  # fmt: skip
def test_wrong_parameters_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        params(**changes)


def test_unknown_entity_and_missing_model_are_one_clear_error() -> None:
    with pytest.raises(InputError, match=r"nothing finds EMAIL; did you mean EMAIL_ADDRESS"):
        Analyser("en", ["EMAIL"], 0.5, "none")
    with pytest.raises(InputError, match="the spaCy model en_nowhere is not installed"):
        Analyser("en", ["PERSON"], 0.5, "spacy:en_nowhere")
    with pytest.raises(InputError, match="spaCy knows no language qq"):
        Analyser("qq", ["URL"], 0.5, "none")


def test_recognisers_of_other_countries_come_by_name() -> None:
    analyser = Analyser("en", ["UK_NHS"], 0.5, "none")
    assert [found.entity for found in analyser.find("His NHS number is 943 476 5919.")] == ["UK_NHS"]


def test_not_covered_says_what_stays(analyser: Analyser) -> None:
    assert analyser.not_covered == ["LOCATION", "ORGANIZATION", "NRP"]
    assert Analyser("en", ["PERSON"], 0.5, "none").not_covered == ["PERSON", "LOCATION", "ORGANIZATION", "NRP"]


def test_spacy_model_of_the_user(tmp_path: Path) -> None:
    import spacy

    model = spacy.blank("en")
    ruler = model.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Zzyx"}, {"label": "GPE", "pattern": "Tolliver Bend"}])
    model.to_disk(tmp_path / "model")
    analyser = Analyser("en", ["PERSON", "LOCATION", "PHONE_NUMBER"], 0.5, f"spacy:{tmp_path / 'model'}")
    text = "Zzyx of Tolliver Bend, phone 0490 75 40 81"
    assert [(text[found.start : found.end], found.entity) for found in analyser.find(text)] == [
        ("Zzyx", "PERSON"),
        ("Tolliver Bend", "LOCATION"),
        ("0490 75 40 81", "PHONE_NUMBER"),
    ]
    assert analyser.not_covered == ["ORGANIZATION", "NRP"]


# The stage

PARAMS = """
scrub:
  language: en
  entities: {PERSON: replace, EMAIL_ADDRESS: replace, URL: keep}
  locales: []
  threshold: 0.5
  names: NAMES
  key_fingerprint: public
  allow: [Maren Okafor]
  deny: []
  deny_file:
  deny_fingerprint:
engine: {name: local, workers: 2, address: null}
probes: {duplicates: 0, personal_data: 0, leaks: 0, seed: 1}
tasks:
  - {name: clinic, path: data/raw/eval/clinic.yaml, chat: true, limit: null}
"""
TASK = """
task: clinic
dataset_path: json
dataset_kwargs: {data_files: {test: data/raw/eval/clinic.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc}]
"""


KEYED = '[{"name": "find", "arguments": {"tom@example.com": "x"}}]'  # personal data as a key


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("data/dedup", "data/raw/eval"):
        tmp_path.joinpath(folder).mkdir(parents=True)
    Path("params.yaml").write_text(PARAMS.replace("NAMES", "lists"))
    Path("data/raw/eval/clinic.yaml").write_text(TASK)
    item = {"question": "Who is tom@example.com?", "choices": ["Dr. Novak", "Dr. Maren Okafor"], "label": 0}
    Path("data/raw/eval/clinic.jsonl").write_text(json.dumps(item) + "\n")
    table(
        row("a", message("user", "I am Tom Baker"), message("assistant", "Write to tom@example.com, Mr. Baker.")),
        row("b", message("user", "See https://example.org"), message("assistant", "Maren Okafor wrote it.")),
        row("c", message("user", "Look."), message("assistant", None, tool_calls=KEYED)),
    ).write_parquet("data/dedup/rows.parquet")
    make_table([]).write_parquet("data/dedup/probes.parquet")
    return tmp_path


def test_stage_writes_rows_ledger_items_and_metrics(project: Path) -> None:
    scrub.main()
    rows = pl.read_parquet("data/scrub/rows.parquet")
    assert [[entry["content"] for entry in messages] for messages in rows["messages"].to_list()] == [
        ["I am <PERSON>", "Write to <EMAIL_ADDRESS>, Mr. <PERSON>."],
        ["See https://example.org", "Maren Okafor wrote it."],
    ]
    items = pl.read_parquet("data/scrub/items.parquet")
    assert items.row(0) == (
        "clinic", "clinic", "test", 0, "Who is <EMAIL_ADDRESS>?", ["Dr. <PERSON>", "Dr. Maren Okafor"], "Dr. <PERSON>",
    )  # fmt: skip
    assert json.loads(Path("metrics/scrub.json").read_text()) == {
        "rows_in": 3,
        "rows_out": 2,
        "changed": 1,
        "failed": 1,
        "equal_replies": 0,
        "dropped_by_source": {"s": {"scrub_failed": 1}},
        "entities": {"PERSON": 2, "EMAIL_ADDRESS": 1},
        "kept": {"URL": 1},
        "residual": {},
        "names": "lists",
        "not_covered": ["LOCATION", "ORGANIZATION", "NRP"],
        "probes_failed": 0,
        "probes": {},
    }
    assert Path("metrics/plots/scrub.csv").read_text() == "entity,count\nPERSON,2\nEMAIL_ADDRESS,1\n"
    ledger = pl.read_parquet("data/scrub/ledger.parquet")
    assert ledger["detail"].to_list() == ["EMAIL_ADDRESS=1,PERSON=2", "personal data as a key"]
    for value in (b"Baker", b"tom@"):
        assert not [file for file in project.joinpath("data/scrub").iterdir() if value in file.read_bytes()]
        assert value not in Path("metrics/scrub.json").read_bytes()


def test_a_probe_that_fails_is_told_and_no_hit(project: Path) -> None:
    found = row("d", message("user", "Write to tom@example.com."), message("assistant", "I will."))
    broken = row("e", message("user", "Write to ann@example.com."), message("assistant", None, tool_calls=KEYED))
    values = (["tom@example.com"], ["ann@example.com"])
    probes = [
        make_probe(line, "EMAIL_ADDRESS", "scrub", number, planted=planted)
        for number, (line, planted) in enumerate(zip((found, broken), values, strict=True))
    ]
    make_table(probes).write_parquet("data/dedup/probes.parquet")
    scrub.main()
    metrics = json.loads(Path("metrics/scrub.json").read_text())
    assert metrics["probes_failed"] == 1
    assert metrics["probes"]["EMAIL_ADDRESS"] == {"planted": 1, "caught": 1, "recall": 1, "precision": 1}
    assert pl.read_parquet("data/scrub/probes.parquet")["caught"].to_list() == [True, None]
    assert metrics["failed"] == 1  # of the rows


def test_two_runs_give_the_same_bytes(project: Path) -> None:
    scrub.main()
    first = {file.name: file.read_bytes() for file in sorted(project.joinpath("data/scrub").iterdir())}
    scrub.main()
    assert {file.name: file.read_bytes() for file in sorted(project.joinpath("data/scrub").iterdir())} == first


def test_run_without_names_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text(PARAMS.replace("NAMES", "none"))
    scrub.main()
    assert "WARNING: nothing looks for PERSON: they stay" in capsys.readouterr().out
    metrics = json.loads(Path("metrics/scrub.json").read_text())
    assert metrics["entities"] == {"PERSON": 0, "EMAIL_ADDRESS": 1}
    assert metrics["not_covered"] == ["PERSON", "LOCATION", "ORGANIZATION", "NRP"]


def test_item_that_cannot_be_scrubbed_stops_the_stage(analyser: Analyser, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> list[Finding]:
        raise KeyError(text)

    monkeypatch.setattr(analyser, "find", fail)
    items = pl.DataFrame(
        [{"task": "t", "subtask": "s", "item": 4, "question": "Secret?", "choices": [], "answer": "x"}],
        ITEM_SCHEMA,
    )
    with pytest.raises(InputError, match=r"task t, s, item 4: a recogniser failed \(KeyError\)") as caught:
        check_items(scrub_items(items, Scrubber(params(), analyser)))
    assert "Secret" not in str(caught.value)
