"""A text in plain signs: hyphens of typography, no-break spaces, wide forms, characters of no width and underscores
beside a value hide nothing."""

import regex

from stages.pii.ner.text import read_plain

WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # ！ to ～, as in Unicode's block of wide forms
PLAIN = (
    dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
    | dict.fromkeys(map(ord, "\xa0\u2007\u202f"), " ")
    | WIDE
)
AROUND = regex.compile(r"(?<=[A-Za-z])_+(?=\d+-\d+-\d)|(?<=@[\w.-]{1,99}\.[A-Za-z]{2,24})_+(?!\w)")
"""An underscore between a name and a number in groups, or behind an address: SSN_219-09-9998, _a@b.org_."""


def straighten(text: str) -> tuple[str, list[int] | None] | None:
    """`text` in plain signs, and for each of its characters the place in `text` (None where places are equal); None
    where it is plain already."""
    plain, places = text, None
    if not text.isascii():
        plain, places = read_plain(text)
        plain = plain.translate(PLAIN)
    if "_" in plain:
        plain = AROUND.sub(lambda signs: " " * len(signs[0]), plain)
    return None if plain == text else (plain, places)
