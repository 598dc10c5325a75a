"""What a value is called where no sentence says it: by its key in JSON, by the header of its column or row in a table.

A value is then read as if its label stood before it: `dateOfBirth` of a tool call as `date Of Birth: 1990-04-05`, a
cell below `mrn` as `mrn: 00482913`.
"""

import re
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from typing import NamedTuple

import regex

from stages.pii.identifiers import BIRTH, ID, RECORD, SSN
from stages.pii.secrets import KEY, PASSWORD

WORDS_RUN_TOGETHER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_.-]+")
SAYS_LITTLE = ("number", "no", "num", "id", "value", "code", "text")
"""Keys that need the key above them: `number` of {"phone": {"number": "0490 75 40 81"}}."""

SIGNS = "|\t;,"
RULE = re.compile(r"[\s|:+=-]*")  # |---|:--:|
QUOTED = re.compile(r'"[^"]*"')
WIDEST = 48  # characters of a header
PERSONAL = regex.compile(
    rf"(?:[\w’']+ ){{0,3}}?(?:{RECORD}|{ID}|{SSN}|{BIRTH}|{PASSWORD}|{KEY}|(?:tele)?phone|tel|mobile|cell|fax|"
    r"(?:(?:tele)?phone|mobile|cell|fax|card|contact) ?(?:number|no)|(?:credit|debit) card|IBAN|NPI|"
    r"e-?mail(?: address)?|"
    r"(?:patient|full|first|last|family|given|customer|client|employee|member) ?name|surname)\.?",
    regex.IGNORECASE,
)
"""A header that announces personal data."""


class Cell(NamedTuple):
    """Characters `start` to `end` of a text are called `label`."""

    label: str
    start: int
    end: int


def read_label(key: str, above: str = "") -> str:
    """A key in words: patientSSN → patient SSN; with that of the object above it where it says little.

    >>> read_label("dateOfBirth"), read_label("patient_ssn"), read_label("number", "phone")
    ('date Of Birth', 'patient ssn', 'phone number')
    """
    words = WORDS_RUN_TOGETHER.sub(" ", key).strip()
    return f"{above} {words}" if above and words.lower() in SAYS_LITTLE else words


def split_cells(line: str, sign: str) -> list[tuple[int, int]]:
    """Where the cells of a line are, without spaces, quotes and stars around them; what is quoted is one cell."""
    open_text = QUOTED.sub(lambda quoted: "_" * len(quoted[0]), line) if '"' in line else line
    marks = [-1, *(place for place, character in enumerate(open_text) if character == sign), len(line)]
    cells = []
    for before, after in pairwise(marks):
        inside = line[before + 1 : after]
        start = before + 1 + len(inside) - len(inside.lstrip(" \"'*`\r"))
        cells.append((start, max(start, before + 1 + len(inside.rstrip(" \"'*`\r")))))
    if sign == "|":
        cells = cells[line.lstrip().startswith("|") : len(cells) - line.rstrip().endswith("|")]
    return cells


def read_headers(line: str, cells: list[tuple[int, int]]) -> list[str]:
    """Cell by cell what a header of personal data says; "" for other cells."""
    words = [read_label(line[start:end]) if end - start <= WIDEST else "" for start, end in cells]
    return [label if label and PERSONAL.fullmatch(label) else "" for label in words]


def open_table(line: str, following: str) -> tuple[str, list[str]]:
    """The sign between the cells, and the headers, where the line is a line of headers; no headers where it is none."""
    for sign in SIGNS:
        if sign not in line or max(map(len, line.split(sign))) > WIDEST:
            continue
        cells = split_cells(line, sign)
        ruled = bool(following.strip()) and RULE.fullmatch(following) is not None
        as_wide = ruled or len(split_cells(following, sign)) == len(cells)
        if ruled or (as_wide and len(cells) > 1 and not any(map(str.isdecimal, line))):
            headers = read_headers(line, cells)
            if any(headers):
                return sign, headers
    return "", []


def labelled_cells(text: str) -> Iterator[Cell]:
    """The cells below, or in a row behind, a header of personal data. Tables are those of Markdown, and lines with as
    many tabs, semicolons or commas as the line of headers above them."""
    lines, offset = text.split("\n"), 0
    sign, headers = "", list[str]()
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        if not any(map(line.__contains__, SIGNS)):
            sign, headers = "", []
        elif not (headers and RULE.fullmatch(line)):
            cells = split_cells(line, sign) if headers else []
            above = headers if len(cells) == len(headers) else []
            if not above:
                sign, headers = open_table(line, following)
            if not above and not headers:
                cells, above = read_row(line)
            for label, (start, end) in zip(above, cells, strict=False):
                if label and start < end:
                    yield Cell(label, offset + start, offset + end)
        offset += len(line) + 1


def read_row(line: str) -> tuple[list[tuple[int, int]], list[str]]:
    """The cells of a line between bars or tabs, each with the header of personal data that stands before it."""
    sign = "|" if "|" in line else "\t"
    cells = split_cells(line, sign)
    headers = read_headers(line, cells) if len(cells) > 1 else []
    return cells, ["", *("" if own else before for before, own in pairwise(headers))] if any(headers) else []
