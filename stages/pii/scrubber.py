"""One row scrubbed: every text of its messages, tool calls and tools."""

import json
from bisect import bisect_right
from collections import Counter
from typing import Any, NamedTuple, Protocol

from stages.common.rows import CONVERSATIONS
from stages.pii import Finding
from stages.pii.escapes import read_escapes
from stages.pii.given import Secrets, read_secrets
from stages.pii.labels import labelled_cells, read_label
from stages.pii.operators import Operators
from stages.pii.params import Scrub
from stages.pii.residual import Residual, find_residuals
from stages.pii.spans import Allowed, Denied, merge_findings

REMEMBERED_TEXTS = 20_000


class Finder(Protocol):
    """What finds personal data: the analyser, or the analyser behind its cache."""

    not_covered: list[str]

    def find(self, text: str) -> list[Finding]: ...


class Scrubbed(NamedTuple):
    """A text after the replacement, and which findings of the text before were replaced and kept."""

    text: str
    replaced: list[Finding]
    kept: list[Finding]
    residuals: list[Residual]
    """What the second look (residual.py) still takes for personal data in the new text."""


class Counts(NamedTuple):
    """Findings of a row by entity, and the places of those in plain contents."""

    replaced: Counter[str]
    kept: Counter[str]
    residual: Counter[str]
    places: list[dict[str, Any]]


def no_counts() -> Counts:
    return Counts(Counter(), Counter(), Counter(), [])


class FailedTextError(Exception):
    """A recogniser failed on a text; the message is the name of what it raised."""


class Scrubber:
    """Replaces personal data in texts; each text is looked at once, however often it occurs."""

    def __init__(self, params: Scrub, finder: Finder, secrets: Secrets | None = None) -> None:
        self.entities, self.finder, secrets = params.entities, finder, secrets or read_secrets(params)
        self.allowed, self.denied = Allowed(params.allow), Denied(secrets.deny, params.entities)
        self.operators = Operators(dict(params.entities), secrets.key)
        self.done: dict[tuple[str, str], Scrubbed | str] = {}  # label, text → result, or what was raised

    def scrub(self, text: str, label: str = "") -> Scrubbed:
        """`label` is read as if it stood before `text`: phone of {"phone": "0490 75 40 81"}. Raises FailedTextError."""
        if (label, text) not in self.done:
            if len(self.done) >= REMEMBERED_TEXTS:
                self.done.clear()
            try:
                self.done[label, text] = self._scrub(text, label)
            except MemoryError:
                raise  # of the machine, not of the text
            except Exception as error:  # whatever a recogniser raises: the row must not pass unread
                self.done[label, text] = type(error).__name__
        result = self.done[label, text]
        if isinstance(result, str):
            raise FailedTextError(result)
        return result

    def _scrub(self, text: str, label: str) -> Scrubbed:
        found, denied = self._find(text, label), self.denied.find(text)
        for cell in labelled_cells(text):
            found += self._find(text[cell.start : cell.end], cell.label, cell.start)
        for reading in read_escapes(text):
            here = self._find(reading.text, label if reading.escapes[0].start == 0 else "")
            found += [reading.locate(item) for item in here]
            denied += [reading.locate(item) for item in self.denied.find(reading.text)]
        found = self.allowed.drop(found, text)
        gone = [item for item in found if self.entities.get(item.entity) != "keep"] + denied
        replaced = merge_findings(gone, text)
        kept = [
            item
            for item in sorted(set(found) - set(gone))
            if not any(other.start < item.end for other in replaced[passed(item, replaced) :][:1])
        ]
        kept = merge_findings(kept, text)
        clean, spans = self.operators.replace(replaced, text)
        residuals = find_residuals(clean, [*spans, *(spans_in(item, replaced, spans) for item in kept)])
        if residuals:
            residuals = [item for item in residuals if not self.allowed.covers(clean, item.start, item.end)]
        return Scrubbed(clean, replaced, kept, residuals)

    def _find(self, text: str, label: str, start: int = 0) -> list[Finding]:
        """What is found in `text` behind its label; `text` begins at `start` of another."""
        before = f"{label}: " if label else ""
        shift = start - len(before)
        return [
            finding._replace(start=max(start, finding.start + shift), end=finding.end + shift)
            for finding in self.finder.find(before + text)
            if finding.end + shift > start
        ]

    def count(self, text: str, counts: Counts, label: str = "", place: str = "") -> str:
        """The scrubbed text; adds its findings to `counts`, with their `place` in the row where one is given."""
        result = self.scrub(text, label)
        counts.replaced.update(item.entity for item in result.replaced)
        counts.kept.update(item.entity for item in result.kept)
        counts.residual.update(item.kind for item in result.residuals)
        if place:
            counts.places.extend(
                {"place": place, "start": item.start, "end": item.end, "entity": item.entity, "score": item.score}
                for item in result.replaced
            )
        return result.text

    def scrub_row(self, row: dict[str, Any]) -> tuple[dict[str, Any], Counts]:
        """The conversations and tools of a row after the replacement. Raises FailedTextError; ValueError on tool calls
        that are no JSON."""
        counts = no_counts()
        clean: dict[str, Any] = {
            column: None
            if row[column] is None
            else [self.scrub_message(message, counts, f"{column}.{index}") for index, message in enumerate(row[column])]
            for column in CONVERSATIONS
        }
        clean["tools"] = self.scrub_tools(row["tools"], counts)
        return clean, counts

    def scrub_value(self, value: Any, counts: Counts, label: str = "") -> Any:
        """A JSON value with its texts and numbers scrubbed; keys stay. Raises
        FailedTextError, also where a key is personal data: two of one type would become one key."""
        match value:
            case dict():
                if any(self.scrub(key).replaced for key in value):
                    raise FailedTextError("personal data as a key")
                called = isinstance(value.get("arguments"), dict)  # its name is a function's, which no label announces
                return {
                    key: self.scrub_value(entry, counts, "" if key == "name" and called else read_label(key, label))
                    for key, entry in value.items()
                }
            case list():
                return [self.scrub_value(entry, counts, label) for entry in value]
            case str() if (inner := parse_json(value)) is not None:  # arguments as JSON inside JSON
                clean = self.scrub_value(inner, counts)
                return value if clean == inner else json.dumps(clean, ensure_ascii=False)
            case str():
                return self.count(value, counts, label)
            case int() | float() if not isinstance(value, bool):
                clean = self.count(str(value), counts, label)
                return value if clean == str(value) else clean
            case _:
                return value

    def scrub_message(self, message: dict[str, Any], counts: Counts, place: str = "") -> dict[str, Any]:
        """A message with content, name and tool calls scrubbed. Raises FailedTextError; ValueError on broken JSON."""
        changed: dict[str, Any] = {}
        for field in ("content", "name", "tool_calls", "tool_call_id"):
            text = message[field]
            if not text:
                continue
            value = (
                json.loads(text, object_pairs_hook=unique_keys)
                if field == "tool_calls"
                else parse_json(text)
                if message["role"] == "tool"
                else None
            )
            if value is None:
                label = "name" if field == "name" and message["role"] != "tool" else ""
                changed[field] = self.count(text, counts, label, place if field == "content" else "")
            elif (clean := self.scrub_value(value, counts)) != value:
                changed[field] = json.dumps(clean, ensure_ascii=False)
        return message | changed

    def scrub_tools(self, tools: str | None, counts: Counts) -> str | None:
        """The definitions of tools with their texts scrubbed; the names of fields stay."""
        if tools is None:
            return None
        value = json.loads(tools, object_pairs_hook=unique_keys)
        clean = self.scrub_definitions(value, counts)
        return tools if clean == value else json.dumps(clean, ensure_ascii=False)

    def scrub_definitions(self, value: Any, counts: Counts) -> Any:
        """Like scrub_value, where keys label nothing: `name` in a schema is no person's."""
        match value:
            case dict():
                if any(self.scrub(key).replaced for key in value):
                    raise FailedTextError("personal data as a key")
                return {key: self.scrub_definitions(entry, counts) for key, entry in value.items()}
            case list():
                return [self.scrub_definitions(entry, counts) for entry in value]
            case _:
                return self.scrub_value(value, counts)


def parse_json(text: str) -> Any:
    """The object or list that `text` is as JSON; None for anything else."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError):
        return None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ. Raises ValueError: of two values of one key nobody would see the first, so such a
    text is read as text."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def spans_in(kept: Finding, replaced: list[Finding], spans: list[tuple[int, int]]) -> tuple[int, int]:
    """Where a finding that stays stands after the replacement of others."""
    before = passed(kept, replaced)
    shift = spans[before - 1][1] - replaced[before - 1].end if before else 0
    return kept.start + shift, kept.end + shift


def passed(item: Finding, replaced: list[Finding]) -> int:
    """How many of `replaced` (in order, apart) end before `item`."""
    return bisect_right(replaced, item.start, key=lambda other: other.end)
