"""Texts as they read without the escapes of JSON, web addresses and HTML: tom\\u0040mail.org, tom%40mail.org."""

import html
from bisect import bisect_right
from typing import NamedTuple

import regex

from stages.pii import Finding

BESIDE = 100  # characters before and after an escape that belong to its surroundings
ESCAPES = regex.compile(
    r"(?P<letters>(?:\\{1,8}u[0-9A-Fa-f]{4})+)|(?P<spaces>\\{1,8}[nrt])|(?P<bytes>(?:%[0-9A-Fa-f]{2})+)"
    r"|(?P<sign>&(?:\#\d{1,7}|\#x[0-9A-Fa-f]{1,6}|(?!(?:amp|lt|gt|quot);)[A-Za-z]{2,24});)"  # those four hide nothing
)


class Escape(NamedTuple):
    """Characters `start` to `end` of a text, which are `first` to `last` of what it reads."""

    start: int
    end: int
    first: int
    last: int


class Reading(NamedTuple):
    """What a part of a text reads, and its escapes in order; the first is the empty one at its beginning."""

    text: str
    escapes: list[Escape]

    def locate(self, found: Finding) -> Finding:
        """A finding in what the text reads as one in the text: an escape goes whole."""
        before = self.escapes[bisect_right(self.escapes, found.start, key=lambda escape: escape.first) - 1]
        start = before.start if found.start < before.last else before.end + found.start - before.last
        before = self.escapes[bisect_right(self.escapes, found.end - 1, key=lambda escape: escape.first) - 1]
        end = before.end if found.end <= before.last else before.end + found.end - before.last
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


def read_part(text: str, matches: list[regex.Match[str]]) -> Reading:
    """What the text reads from BESIDE before the first to BESIDE behind the last of its escapes, in whole words where
    they are no longer than that."""
    start, end = max(0, matches[0].start() - BESIDE), min(len(text), matches[-1].end() + BESIDE)
    least, most = max(0, start - BESIDE), min(len(text), end + BESIDE)
    while start > least and not text[start - 1].isspace():
        start -= 1
    while end < most and not text[end].isspace():
        end += 1
    parts: list[str] = []
    escapes = [Escape(start, start, 0, 0)]
    for match in matches:
        parts += [text[escapes[-1].end : match.start()], read_escape(match)]
        first = escapes[-1].last + len(parts[-2])
        escapes.append(Escape(match.start(), match.end(), first, first + len(parts[-1])))
    return Reading("".join([*parts, text[escapes[-1].end : end]]), escapes)


def read_escapes(text: str) -> list[Reading]:
    """What the parts of the text read that have escapes."""
    if not any(sign in text for sign in "\\%&"):
        return []
    groups: list[list[regex.Match[str]]] = []
    for match in ESCAPES.finditer(text):
        if read_escape(match) in ("", match[0]):
            continue
        if groups and match.start() - groups[-1][-1].end() <= 2 * BESIDE:
            groups[-1].append(match)
        else:
            groups.append([match])
    return [read_part(text, group) for group in groups]
