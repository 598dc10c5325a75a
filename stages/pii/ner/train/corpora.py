"""Openly licensed text by path, as (text, spans): CoNLL files, labelled JSON, and sentences of MedQuAD without names.

A span is (start, end, type) with type PERSON, LOCATION or ORGANIZATION. CoNLL tokens are joined to running text, so
that training and measuring see text as users write it.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import regex

Span = tuple[int, int, str]
Labelled = tuple[str, list[Span]]

TYPES = {
    "PER": "PERSON",
    "PERSON": "PERSON",
    "LOC": "LOCATION",
    "LOCATION": "LOCATION",
    "GPE": "LOCATION",
    "STREET_ADDRESS": "LOCATION",
    "ORG": "ORGANIZATION",
    "CORPORATION": "ORGANIZATION",
    "GROUP": "ORGANIZATION",
    "ORGANIZATION": "ORGANIZATION",
}
"""Label of a file → type here; other labels are no names."""
NO_SPACE_BEFORE = regex.compile(r"[.,;:!?%)\]}…]+|['’](?:s|S|m|re|ve|ll|d|t)|n['’]t")
ENDINGS = frozenset(("s", "S", "t", "m", "d", "re", "ve", "ll"))
NO_SPACE_AFTER = frozenset("([{$£€#@")
MEDQUAD_PARTS = 5  # documents with a digest that leaves 0 are kept for measuring


def read_conll(path: Path, accounts: bool = False) -> list[Labelled]:
    """The sentences of a file of `token label` lines. Names of accounts (@name) are no names, unless `accounts`."""
    sentences: list[Labelled] = []
    rows: list[tuple[str, str]] = []
    for line in [*path.read_text(encoding="utf-8").split("\n"), ""]:
        parts = line.split()
        if len(parts) >= 2:
            rows.append((parts[0], parts[-1]))
        elif not parts and rows:
            sentences.append(join_tokens(rows, accounts))
            rows = []
    return sentences


def join_tokens(rows: list[tuple[str, str]], accounts: bool = False) -> Labelled:
    text = ""
    spans: list[Span] = []
    previous, last_label, apostrophe = "", "O", False
    for token, given in rows:
        label = "O" if not accounts and (token.startswith("@") or previous == "@") else given
        glued = not text or NO_SPACE_BEFORE.fullmatch(token) or previous in NO_SPACE_AFTER
        if apostrophe and token in ENDINGS:
            text, glued = text[:-2] + text[-1], True  # it ' s → it's
        apostrophe = previous != "" and previous[-1].isalpha() and token in ("'", "’")
        start = len(text) + (0 if glued else 1)
        text += token if glued else f" {token}"
        kind = TYPES.get(label[2:].upper())
        if kind:
            inside = label[0] == "I" and last_label[2:] == label[2:]
            if inside and spans:
                spans[-1] = (spans[-1][0], len(text), kind)
            else:
                spans.append((start, len(text), kind))
        previous, last_label = token, label
    return text, spans


def read_labelled_json(path: Path) -> list[Labelled]:
    """A JSON list of {full_text, spans: [{entity_type, start_position, end_position}]}."""
    return [
        (
            row["full_text"],
            [
                (span["start_position"], span["end_position"], TYPES[span["entity_type"]])
                for span in row["spans"]
                if span["entity_type"] in TYPES
            ],
        )
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]


def read_medquad(path: Path, measuring: bool = False) -> Iterator[tuple[str, str]]:
    """(document, answer) of a JSONL file: the documents for training, or the fifth kept for `measuring`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        document = row["id"].split("_")[0]
        if row["answer"] and (zlib.crc32(document.encode()) % MEDQUAD_PARTS == 0) == measuring:
            yield document, regex.sub(r"[ \t]+", " ", row["answer"])
