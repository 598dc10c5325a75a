"""Texts as they read without the escapes of JSON, web addresses and HTML: tom\\u0040mail.org, tom%40mail.org."""

import html
from bisect import bisect_right
from typing import NamedTuple

import regex

from stages.pii import Finding

ESCAPES = regex.compile(
    r"(?P<letters>(?:\\+u[0-9A-Fa-f]{4})+)|(?P<spaces>\\+[nrt])|(?P<bytes>(?:%[0-9A-Fa-f]{2})+)"
    r"|(?P<sign>&(?:\#\d{1,7}|\#x[0-9A-Fa-f]{1,6}|[A-Za-z]{2,24});)"
)


class Escape(NamedTuple):
    """Characters `start` to `end` of a text, which are `first` to `last` of what it reads."""

    start: int
    end: int
    first: int
    last: int


class Reading(NamedTuple):
    """What a text reads, and its escapes in order."""

    text: str
    escapes: list[Escape]

    def locate(self, found: Finding) -> Finding:
        """A finding in what the text reads as one in the text: an escape goes whole."""
        start, end = found.start, found.end
        if (place := bisect_right(self.escapes, start, key=lambda escape: escape.first)) > 0:
            before = self.escapes[place - 1]
            start = before.start if start < before.last else before.end + start - before.last
        if (place := bisect_right(self.escapes, end - 1, key=lambda escape: escape.first)) > 0:
            before = self.escapes[place - 1]
            end = before.end if end <= before.last else before.end + end - before.last
        return found._replace(start=start, end=end)


def read_escape(match: regex.Match[str]) -> str:
    text = match[0]
    match match.lastgroup:
        case "letters":
            codes = bytes.fromhex("".join(regex.findall(r"u(.{4})", text)))
            return codes.decode("utf-16-be", "replace")
        case "spaces":
            return " "
        case "bytes":
            return bytes.fromhex(text.replace("%", "")).decode("utf-8", "replace")
    return html.unescape(text)


def read_escapes(text: str) -> Reading | None:
    """What the text reads; None where that is the text itself."""
    if not any(sign in text for sign in "\\%&"):
        return None
    parts: list[str] = []
    escapes: list[Escape] = []
    position = length = 0
    for match in ESCAPES.finditer(text):
        start, end = match.span()
        new = read_escape(match)
        if new and new != match[0]:
            length += start - position
            parts += [text[position:start], new]
            escapes.append(Escape(start, end, length, length + len(new)))
            position, length = end, length + len(new)
    return Reading("".join([*parts, text[position:]]), escapes) if escapes else None
