"""A second look, by other means, at what scrub leaves: does anything still look like personal data?

No recogniser, no list of names, no checksum: rows of digits, the sign @, long words of mixed letters and digits,
capitals after a title or an introduction. It takes more than it should, on purpose: a count that jumps between two data
versions is what it is for, with examples for a person to look at (`pedigree review`). What scrub put in, what it was
told to keep and what is public is not counted.
"""

import math
import re
from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import NamedTuple

Span = tuple[int, int]
LEAST_BITS = 3.0  # of entropy a character: words have 2.5 to 3, keys in base64 4 to 5, in hex 3 to 4
KINDS = {
    "at_sign": re.compile(r"(?<![^\s@<>()])[^\s@<>()]{1,256}@[^\s@<>()]{1,256}"),
    "digits": re.compile(r"(?<![\w.])\+?\(?\d(?:[ ().\-/]{0,2}\d){6,}(?!\w)"),
    "long_code": re.compile(r"(?<![\w/.=&?%-])[A-Za-z0-9_/+=-]{20,}"),
    "titled_name": re.compile(r"\b(?:Mr|Mrs|Ms|Mx|Dr|Prof|Miss|Sir|Madam)\b\.? [A-Z][\w'’-]+(?: [A-Z][\w'’-]+)?"),
    "introduced_name": re.compile(
        r"\b(?:[Mm]y name is|[Ii]['’]?m|I am|[Tt]his is|[Dd]ear|[Rr]egards,|[Ss]incerely,)"
        r"\s+[A-Z][a-z'’-]+ [A-Z][a-z'’-]+"
    ),
    "labelled": re.compile(
        r"(?i)\b(?:ssn|mrn|dob|iban|passport|password|passwd|account (?:no|number))\b\W{1,3}(?=\w*\d)\w{4,}"
    ),
}


class Residual(NamedTuple):
    """Characters `start` to `end` of a scrubbed text look like personal data, by the rule `kind`."""

    start: int
    end: int
    kind: str


def entropy(text: str) -> float:
    """Bits a character (Shannon 1948)."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())


def is_code(word: str) -> bool:
    """Whether a long word mixes letters and digits, and looks drawn at random."""
    mixed = re.search(r"\d", word) and re.search("[A-Za-z]", word)
    return bool(mixed) and entropy(word) >= LEAST_BITS


def find_residuals(text: str, known: list[Span]) -> list[Residual]:
    """What looks like personal data outside the spans `known`."""
    spans = sorted(known)
    starts, ends = [start for start, _ in spans], list(accumulate((end for _, end in spans), max))
    found = []
    for kind, expression in KINDS.items():
        if kind == "at_sign" and "@" not in text:
            continue
        for match in expression.finditer(text):
            start, end = match.span()
            if kind == "long_code" and not is_code(match[0]):
                continue
            before = bisect_left(starts, end)  # spans that begin before the end of the match
            if not before or ends[before - 1] <= start:
                found.append(Residual(start, end, kind))
    return sorted(found)


def mask_shape(text: str) -> str:
    """The form of a text without its content: Helen 42 → Xxxxx 00."""
    return "".join(
        "0" if character.isdigit() else "X" if character.isupper() else "x" if character.isalpha() else character
        for character in text
    )
