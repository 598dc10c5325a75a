"""Cut a JSON array of any length into the texts of its elements."""

import json
import re
from collections.abc import Iterator

SPACE = re.compile(r"[ \t\n\r]*")
NO_ARRAY = "no array"
DECODE = json.JSONDecoder().raw_decode
TOKEN_CHARACTERS = 16  # no number's sign, escape or literal of JSON needs as many to be whole


class ArrayError(ValueError):
    """Not one JSON array: `reason` at `line` and `column`, both from 1."""

    def __init__(self, reason: str, line: int, column: int):
        super().__init__(reason)
        self.reason, self.line, self.column = reason, line, column


class _Text:
    """What is read and not yet consumed, and where it stands in the file."""

    def __init__(self, pieces: Iterator[str]):
        self.pieces, self.text, self.at = pieces, "", 0
        self.line, self.column = 1, 1

    def read_more(self) -> bool:
        """Twice what is left, at least one piece; whether there was any: a long element is scanned again few times."""
        left = self.text[self.at :]
        added, length = [], 0
        while length <= len(left) and (piece := next(self.pieces, "")):
            added.append(piece)
            length += len(piece)
        if added:
            self.line, self.column = self._place(self.text[: self.at])
            self.text, self.at = left + "".join(added), 0
        return bool(added)

    def _place(self, before: str) -> tuple[int, int]:
        lines = before.count("\n")
        column = len(before) - before.rfind("\n") if lines else self.column + len(before)
        return self.line + lines, column

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches the empty text
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.read_more():
                return ""

    def error(self, reason: str, position: int | None = None) -> ArrayError:
        line, column = self._place(self.text[: self.at if position is None else position])
        return ArrayError(reason, line, column)


def split_array(pieces: Iterator[str], limit: int) -> Iterator[str]:
    """The texts of the elements of the array whose text comes in `pieces`; none where there is only space.

    An element of more than `limit` characters is an error: memory holds one element, and a bracket may be lost.

    Raises ArrayError, with the reasons of Python's own decoder, and ValueError or RecursionError as that does.
    """
    text = _Text(pieces)
    if not text.peek():
        return
    if text.peek() != "[":
        raise text.error(NO_ARRAY)
    text.at += 1
    if text.peek() == "]":
        text.at += 1
    else:
        while True:
            yield _take_element(text, limit)
            sign = text.peek()
            if sign not in (",", "]"):
                raise text.error("Expecting ',' delimiter")
            text.at += 1
            if sign == "]":
                break
    if text.peek():
        raise text.error("Extra data")


def _take_element(text: _Text, limit: int) -> str:
    """The next element's text. An element counts when something follows it, for 12 may be the start of 123."""
    text.peek()
    while True:
        mistake, end = None, -1
        try:
            _, end = DECODE(text.text, text.at)
        except json.JSONDecodeError as error:
            mistake, end = error, error.pos
        cut_off = mistake is not None and mistake.msg.startswith("Unterminated string")
        if cut_off or len(text.text) - end < TOKEN_CHARACTERS:  # what follows may change it
            if len(text.text) - text.at > limit:
                raise text.error(f"an element of more than {limit:,} characters")
            if text.read_more():
                continue
        if mistake:
            raise text.error(mistake.msg, mistake.pos)
        element, text.at = text.text[text.at : end], end
        return element
