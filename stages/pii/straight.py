"""A text in plain signs: hyphens of typography, no-break spaces, wide forms and characters of no width hide nothing."""

from stages.pii.ner.text import read_plain

WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # ！ to ～, as in Unicode's block of wide forms
PLAIN = (
    dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
    | dict.fromkeys(map(ord, "\xa0\u2007\u202f"), " ")
    | WIDE
)


def straighten(text: str) -> tuple[str, list[int] | None] | None:
    """`text` in plain signs, and for each of its characters the place in `text` (None where places are equal); None
    where it is plain already."""
    if text.isascii():
        return None
    plain, places = read_plain(text)
    plain = plain.translate(PLAIN)
    return None if plain == text else (plain, places)
