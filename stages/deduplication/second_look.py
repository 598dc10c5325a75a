"""The second look at two similar rows: does what differs between them matter?

Two rows say the same where they differ by spelling slips, punctuation, case, spaces, words that carry no meaning
(words.py), by whole sentences or lines that one has and the other lacks, or by a single word that a long line lacks.
They are kept apart where one has a word, a number or a negation that the other has not within a sentence: another
disease in the same template, another dose.

1. `find_first_differences` reads all pairs at once up to their first different token, and settles nearly all of those
   that come of templates (first_differences.py).
2. `say_same` aligns the others: sentences with sentences first, then within what is left words with words (RapidFuzz).

A slip is one letter left out, doubled, put in or changed, or two exchanged, behind the first letter, in a word that
no other row has (inject and infect are both known words). So a second run over what was kept may find one more slip,
where the only other row with that word has gone; in all else it finds nothing.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from rapidfuzz.distance import OSA, Indel, Opcodes

from stages.common.shingles import Positions, space_tokens
from stages.deduplication.first_differences import NUMBER, TURN, WORD, Known, find_first_differences, read_rows
from stages.deduplication.words import (
    CONTRACTED,
    CORE_COURTESIES,
    COURTESIES,
    GREETINGS,
    HARMLESS,
    POLARITY,
    TOKEN,
    same_meanings,
)

SENTENCE_WORDS = 3  # of a sentence that may be missing: "Yes." and "No." are answers, not additions
LINE_WORDS = 100  # of a line that may lack one word and say the same: no question, no title is as long
SLIP_LETTERS = 4  # of a word that may hold a slip; fewer where the other word is a harmless one
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
SAME_MEANINGS = same_meanings()
EXPANDED = frozenset(["t", "cannot", *SAME_MEANINGS])


class Said(NamedTuple):
    """A row as sentences and lines of words, and for each the words of the line that it stands in."""

    sentences: list[tuple[str, ...]]
    room: list[int]


def split_sentences(text: str) -> Said:
    """What a text out of space_tokens says."""
    sentences: list[tuple[str, ...]] = []
    room: list[int] = []
    for line in text.lower().split("\n"):
        parts = [expand(words) for part in SENTENCE_END.split(line) if (words := TOKEN.findall(part))]
        sentences += parts
        room += [sum(map(len, parts))] * len(parts)
    return Said(sentences, room)


def expand(words: list[str]) -> tuple[str, ...]:
    """Words with contractions written out, and one way of saying it for SAME_MEANING's others.

    >>> expand("we can t call so you ll have to ring till noon".split())
    ('we', 'can', 'not', 'call', 'so', 'you', 'll', 'must', 'call', 'until', 'noon')
    """
    if EXPANDED.isdisjoint(words):
        return tuple(words)
    full: list[str] = []
    for word in words:
        if word == "t" and full and full[-1] in CONTRACTED:
            full[-1:] = [CONTRACTED[full[-1]], "not"]
        else:
            full += ["can", "not"] if word == "cannot" else [word]
    said: list[str] = []
    while full:
        ways = [(len(way), word) for way, word in SAME_MEANINGS.get(full[0], ()) if tuple(full[: len(way)]) == way]
        length, word = max(ways, default=(1, full[0]))
        said.append(full[0] if full[length : length + 1] == ["not"] else word)
        del full[: 1 if said[-1] == full[0] else length]
    return tuple(said)


def gaps(opcodes: Opcodes) -> Iterator[tuple[int, int, int, int]]:
    """What an alignment left between the equal parts, as (start, end) in both sequences."""
    start = (0, 0)
    for code in opcodes:
        if code.tag == "equal":
            if (code.src_start, code.dest_start) != start:
                yield start[0], code.src_start, start[1], code.dest_start
            start = (code.src_end, code.dest_end)
    end = (opcodes.src_len, opcodes.dest_len)
    if end != start:
        yield start[0], end[0], start[1], end[1]


def say_same(one: Said, other: Said, is_known: Callable[[str], bool]) -> int | None:
    """The kind of the first difference that matters between two rows; None where they say the same.

    >>> day, not_known = split_sentences("Take one tablet a day."), lambda word: False
    >>> say_same(day, split_sentences("Take one tabelt each day. See you soon."), not_known)
    1
    >>> say_same(day, split_sentences("Take one tabelt a day. See you soon."), not_known) is None
    True
    """
    lacking = 0
    for start, end, other_start, other_end in gaps(Indel.opcodes(one.sentences, other.sentences)):
        mine, theirs = one.sentences[start:end], other.sentences[other_start:other_end]
        if not mine or not theirs:
            matters = [word for sentence in mine + theirs if not may_lack(sentence) for word in sentence]
            if matters:
                return kind_of(matters)
            continue
        words, others = [word for item in mine for word in item], [word for item in theirs for word in item]
        bounds, other_bounds = bounds_of(mine), bounds_of(theirs)
        room = min(one.room[start:end] + other.room[other_start:other_end])
        for first, last, other_first, other_last in gaps(Indel.opcodes(words, others)):
            out, put = words[first:last], others[other_first:other_last]
            if means_nothing(out, put, is_known):
                continue
            if not put and (is_courtesy(out) or is_whole(words, first, last, bounds)):
                continue
            if not out and (is_courtesy(put) or is_whole(others, other_first, other_last, other_bounds)):
                continue
            lacking += 1
            kind = kind_of(out + put)
            if kind != WORD or len(out + put) > 1 or room < LINE_WORDS or lacking > 1:
                return kind
    return None


def bounds_of(sentences: list[tuple[str, ...]]) -> set[int]:
    """Where sentences begin and end among their words."""
    return {0, *np.cumsum([len(sentence) for sentence in sentences]).tolist()}


def is_whole(words: list[str], start: int, end: int, bounds: set[int]) -> bool:
    """Whether words[start:end] are whole sentences that may be missing. What was added between like words can be told
    in several ways: "is low. The dose" as well as "The dose is low."."""
    while start not in bounds or end not in bounds:
        if start == 0 or words[start - 1] != words[end - 1]:
            return False
        start, end = start - 1, end - 1
    return may_lack(words[start:end])


def may_lack(sentence: Sequence[str]) -> bool:
    """Whether a row without this sentence says the same: one of several words, or a courtesy.

    >>> [may_lack(text.split()) for text in ("hello wren", "many thanks", "yes", "never take it", "not aspirin")]
    [True, True, False, True, False]
    """
    return len(sentence) >= SENTENCE_WORDS or HARMLESS.issuperset(sentence) or is_courtesy(sentence)


def is_courtesy(words: Sequence[str]) -> bool:
    """Whether words greet or thank, and say nothing else."""
    if COURTESIES.issuperset(words):
        return not CORE_COURTESIES.isdisjoint(words)
    return words[0] in GREETINGS and len(words) < SENTENCE_WORDS and kind_of(words) == WORD


def means_nothing(out: list[str], put: list[str], is_known: Callable[[str], bool]) -> bool:
    """Whether it is all the same to have the words `out` or the words `put` in a place."""
    if "".join(out) == "".join(put):
        return True  # web site, website
    if len(out) != len(put):
        out = [word for word in out if word not in HARMLESS]
        put = [word for word in put if word not in HARMLESS]
    return len(out) == len(put) and all(
        x == y or (x in HARMLESS and y in HARMLESS) or is_slip(x, y, is_known) for x, y in zip(out, put, strict=True)
    )


def is_slip(x: str, y: str, is_known: Callable[[str], bool]) -> bool:
    """Whether one of two words is the other with a slip of the pen, or its plural.

    >>> is_slip("patient", "paitent", {"patient"}.__contains__), is_slip("patient", "patients", lambda word: True)
    (True, True)
    >>> is_slip("inject", "infect", lambda word: True), is_slip("typical", "atypical", lambda word: False)
    (False, False)
    """
    if not (x.isalpha() and y.isalpha()):
        return False
    short, long = sorted((x, y), key=len)
    if len(short) >= SLIP_LETTERS - 1 and long in (short + "s", short + "es") and kind_of([x, y]) == WORD:
        return True
    least = SLIP_LETTERS - 1 if x in HARMLESS or y in HARMLESS else SLIP_LETTERS
    if len(long) < least or x[0] != y[0] or OSA.distance(x, y, score_cutoff=1) > 1:
        return False
    return not (is_known(x) and is_known(y))


def kind_of(words: Sequence[str]) -> int:
    """NUMBER, TURN or WORD, the first of them that is there."""
    if any(character.isdigit() for word in words for character in word):
        return NUMBER
    return TURN if POLARITY.intersection(words) else WORD


def look_again(
    texts: pl.Series, others: pl.Series, left: Positions, right: Positions, known: Known
) -> npt.NDArray[np.int8]:
    """For pairs of rows, texts[left[i]] and others[right[i]], the kind of difference that matters; -1: they say the
    same."""
    reading = read_rows(texts, known)
    verdicts = find_first_differences(reading, reading if others is texts else read_rows(others, known), left, right)
    rest = np.flatnonzero(verdicts < 0)
    cache: dict[tuple[int, int], Said] = {}
    spaced = space_tokens(texts), space_tokens(others)
    for pair in rest.tolist():
        sides = [(0, int(left[pair])), (1, int(right[pair]))]
        for side in sides:
            if side not in cache:
                cache[side] = split_sentences(spaced[side[0]][side[1]])
        verdict = say_same(cache[sides[0]], cache[sides[1]], known.__contains__)
        verdicts[pair] = -1 if verdict is None else verdict
    return verdicts
