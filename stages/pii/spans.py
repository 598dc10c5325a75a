"""Findings in a text: which are public, how they overlap, what replaces them."""

from bisect import bisect_right
from collections.abc import Collection
from itertools import accumulate

import regex

from stages.pii import Finding
from stages.pii.spelling import STAFF, read_alike

STREET = regex.compile(r"\b(?:street|st|avenue|road|rd|lane|drive|court|way|place|square|close)\.?$", regex.IGNORECASE)
JOINED = ("PERSON", "LOCATION", "STREET_ADDRESS", "ORGANIZATION")  # of others two neighbours are two values
NUMBER_DIGITS = 7  # of a local telephone number


class Allowed:
    """The public facts of `allow`, as expressions over a text."""

    def __init__(self, allow: list[str]) -> None:
        written = [r"\s+".join(regex.escape(word) for word in entry.split()) for entry in allow]
        whole = [f"(?<!\\w){text}(?!\\w)" for text in written]
        names = [
            entry.split()
            for entry in allow
            if len(entry.split()) > 1 and regex.fullmatch(r"[\p{L}.'’ -]+", entry) and not STREET.search(entry)
        ]
        titled = [rf"\b(?:{STAFF})\.?\s+{regex.escape(name[-1])}(?!\w)" for name in names]
        # A word of each, in lower case: where none stands, the expression, which is slow, need not be tried.
        self.words = {max(entry.split(), key=len).lower() for entry in allow}
        self.words |= {name[-1].lower() for name in names}
        self.facts = regex.compile("|".join([*whole, *titled]) or r"(?!)", regex.IGNORECASE)
        self.numbers = {digits for entry in allow if len(digits := digits_of(entry)) >= NUMBER_DIGITS}
        self.parts = {" ".join(name).lower(): {part.lower() for part in name} for name in names}

    def drop(self, findings: list[Finding], text: str) -> list[Finding]:
        """The findings that are not public: a fact, a part of one, or a part of a full name that stands in the text."""
        if not findings:
            return []
        lowered = text.lower()
        some = any(word in lowered for word in self.words)
        facts = list(self.facts.finditer(text, overlapped=True)) if some else []
        parts = {part for fact in facts for part in self.parts.get(" ".join(fact[0].lower().split()), ())}
        starts = [fact.start() for fact in facts]
        ends = [0, *accumulate((fact.end() for fact in facts), max)]  # the furthest of the facts that begin before
        return [
            found
            for found in findings
            if ends[bisect_right(starts, found.start)] < found.end
            and text[found.start : found.end].lower() not in parts
            and not self.has_number(text[found.start : found.end])
        ]

    def covers(self, text: str, start: int, end: int) -> bool:
        """Whether a public fact stands in a part of a text, or the part is a public number."""
        return self.facts.search(text, start, end) is not None or self.has_number(text[start:end].strip())

    def has_number(self, text: str) -> bool:
        """Whether `text` is a public telephone number, written in another way, without its area or with its country."""
        digits = digits_of(text)
        return len(digits) >= NUMBER_DIGITS and any(
            public.endswith(digits)
            or (len(public) >= 10 and digits.endswith(public) and len(digits) <= len(public) + 3)
            for public in self.numbers
        )


def digits_of(text: str) -> str:
    """The digits of a text that holds nothing else but the signs of a telephone number; else nothing."""
    return regex.sub(r"\D", "", text) if regex.fullmatch(r"[\d\s().+/-]+", text) else ""


def merge_findings(findings: list[Finding], text: str) -> list[Finding]:
    """Findings without overlaps, in order: those that overlap become one over all their characters, so that nothing is
    left of the shorter one; it bears the type of the longest, then surest. Neighbours of one type of
    JOINED with nothing but spaces between become one."""
    merged: list[tuple[Finding, Finding]] = []  # the characters covered; the finding that gives the type
    for found in sorted(findings):
        if merged and found.start < merged[-1][0].end:
            cover, chief = merged[-1]
            chief = max(chief, found, key=lambda item: (item.end - item.start, item.score, item.entity))
            merged[-1] = (chief._replace(start=cover.start, end=max(cover.end, found.end)), chief)
        else:
            merged.append((found, found))
    joined: list[Finding] = []
    for cover, _ in merged:
        same = joined and joined[-1].entity == cover.entity and cover.entity in JOINED
        if same and not text[joined[-1].end : cover.start].strip(" "):
            joined[-1] = joined[-1]._replace(end=cover.end)
        else:
            joined.append(cover)
    return joined


OTHER = "OTHER"


class Denied:
    """What must go wherever it stands, from `text` or `ENTITY: text` entries, in any spelling that looks the same;
    `known` are the entities.

    Before the colon of `NOVAK: 4471` stands no entity: the whole goes, and what is behind the colon, as OTHER.
    """

    def __init__(self, entries: list[str], known: Collection[str]) -> None:
        self.entity_of: dict[str, str] = {}
        for entry in entries:
            label = regex.match(r"([A-Z][A-Z_]+): +(?=\S)", entry)
            entity = label[1] if label and label[1] in known else OTHER
            for text in {entry[label.end() :] if label else entry, entry if entity == OTHER else ""} - {""}:
                self.entity_of[" ".join(read_alike(text)[0].split())] = entity
        texts = sorted(self.entity_of, key=lambda text: (-len(text), text))
        written = [r"\s+".join(regex.escape(word) for word in text.split()) for text in texts]
        self.expression = regex.compile(rf"(?<!\w)(?:{'|'.join(written)})(?!\w)" if texts else "(?!)")

    def find(self, text: str) -> list[Finding]:
        if not self.entity_of:
            return []
        alike, places = read_alike(text)
        return [
            Finding(
                places[found.start()][0] if places else found.start(),
                places[found.end() - 1][1] if places else found.end(),
                self.entity_of[" ".join(found[0].split())],
                1.0,
            )
            for found in self.expression.finditer(alike, overlapped=True)
        ]
