"""The second look at two similar rows: does what differs between them matter?

Two rows say the same where they differ by spelling slips, punctuation, case, spaces, words that carry no meaning
(words.py), by whole sentences or lines that one has and the other lacks, or by a single word that a long sentence
lacks. They are kept apart where one has a word, a number, a sign or a negation that the other has not within a
sentence: another disease in the same template, another dose; and where each has sentences that the other lacks, or
has elsewhere.

1. `find_first_differences` reads all pairs at once up to their first different token, and settles nearly all of those
   that come of templates (first_differences.py).
2. `say_same` aligns the others: sentences with sentences first, then within what is left words with words (RapidFuzz).

A slip is one letter left out, doubled, put in or changed, or two exchanged, behind the first letter, in a word that
no other row has (inject and infect are both known words) and that words.py does not list (eight and eighty). So a
second run over what was kept may find one more slip, where the only other row with that word has gone; in all else it
finds nothing.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from rapidfuzz.distance import OSA, Indel, Opcodes

from stages.common.shingles import Positions
from stages.deduplication.first_differences import NUMBER, SIGN, TURN, WORD, Known, find_first_differences, read_rows
from stages.deduplication.sentences import LETTER_A, Said, respell, split_sentences
from stages.deduplication.words import (
    CLASSES,
    CLOSINGS,
    CORE_COURTESIES,
    COURTESIES,
    GREETINGS,
    HARMLESS,
    NUMBERS,
    POLARITY,
    SMALL,
    leave_out_harmless,
)

SENTENCE_WORDS = 3  # of a sentence that may be missing: "Yes." and "No." are answers, not additions
LINE_WORDS = 100  # of a line in which one word may be lacking: no title is as long
LONG_WORDS = 16  # of the sentence with that word: no question out of a template is as long
SLIP_LETTERS = 4  # of a word that may hold a slip; fewer where the other word is a small one
TURNING_LETTERS = 6  # the same of POLARITY and NUMBERS: less and loss
JOINED_LETTERS = 3  # of words that may be written as one: web site, but not "a typical"
LISTED = SMALL | POLARITY | NUMBERS
SAID_CLOSINGS = frozenset(leave_out_harmless(line.split()) for line in CLOSINGS.strip().splitlines())


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
    2
    >>> say_same(day, split_sentences("Take one tabelt a day. See you soon."), not_known) is None
    True
    """
    lacking = 0
    lacked: tuple[list[str], list[str]] = [], []  # words of the sentences that the one, the other has not
    for start, end, other_start, other_end in gaps(Indel.opcodes(one.sentences, other.sentences)):
        mine, theirs = one.sentences[start:end], other.sentences[other_start:other_end]
        said, others_said = leave_out_courtesies(mine), leave_out_courtesies(theirs)
        short = [word for sentence in said + others_said if len(sentence) < SENTENCE_WORDS for word in sentence]
        if short and not (mine and theirs):
            return kind_of(short)
        if not short and not (said and others_said):
            lacked[0].extend(word for sentence in others_said for word in sentence)
            lacked[1].extend(word for sentence in said for word in sentence)
            continue
        words, others = [word for item in mine for word in item], [word for item in theirs for word in item]
        bounds, other_bounds = bounds_of(mine), bounds_of(theirs)
        room = min(one.room[start:end] + other.room[other_start:other_end])
        for first, last, other_first, other_last in gaps(Indel.opcodes(words, others)):
            out, put = words[first:last], others[other_first:other_last]
            if means_nothing(out, put, is_known) or (not put and says_nothing(out)) or (not out and says_nothing(put)):
                continue
            if not put and is_whole(words, first, last, bounds):
                lacked[1].extend(out)
                continue
            if not out and is_whole(others, other_first, other_last, other_bounds):
                lacked[0].extend(put)
                continue
            lacking += 1
            kind = kind_of(out + put)
            sentence = length_around(first, bounds) if out else length_around(other_first, other_bounds)
            if kind != WORD or len(out + put) > 1 or lacking > 1 or room < LINE_WORDS or sentence < LONG_WORDS:
                return kind
    return kind_of(lacked[0] + lacked[1]) if all(lacked) else None


def leave_out_courtesies(sentences: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Sentences without those that say nothing."""
    return [sentence for sentence in sentences if not says_nothing(sentence)]


def bounds_of(sentences: list[tuple[str, ...]]) -> set[int]:
    """Where sentences begin and end among their words."""
    return {0, *np.cumsum([len(sentence) for sentence in sentences]).tolist()}


def length_around(place: int, bounds: set[int]) -> int:
    """Words of the sentence around one of its words."""
    return min(bound for bound in bounds if bound > place) - max(bound for bound in bounds if bound <= place)


def is_whole(words: list[str], start: int, end: int, bounds: set[int]) -> bool:
    """Whether words[start:end] are whole sentences that may be missing. What was added between like words can be told
    in several ways: "is low. The dose" as well as "The dose is low."."""
    while start not in bounds or end not in bounds:
        if start == 0 or words[start - 1] != words[end - 1]:
            return False
        start, end = start - 1, end - 1
    return end - start >= SENTENCE_WORDS


def says_nothing(words: Sequence[str]) -> bool:
    """Whether words greet, thank or close, or are such as may be there or not.

    >>> [says_nothing(text.split()) for text in ("hello wren", "many thanks", "i hope this helps", "never take it")]
    [True, True, True, False]
    """
    if COURTESIES.issuperset(words) and not CORE_COURTESIES.isdisjoint(words):
        return True
    if words[0] in GREETINGS and len(words) < SENTENCE_WORDS and kind_of(words) == WORD:
        return True
    said = leave_out_harmless(words)
    return not said or said in SAID_CLOSINGS


def means_nothing(out: list[str], put: list[str], is_known: Callable[[str], bool]) -> bool:
    """Whether it is all the same to have the words `out` or the words `put` in a place."""
    if len(out) != len(put):
        if "".join(out) == "".join(put):  # web site, website; neither 1 5 and 15 nor a typical and atypical
            return all(len(word) >= JOINED_LETTERS and word.isalpha() and word not in LISTED for word in out + put)
        out, put = list(leave_out_harmless(out)), list(leave_out_harmless(put))
    return len(out) == len(put) and all(
        x == y
        or {x, y} == {"a", LETTER_A}
        or any(x in words and y in words for words in CLASSES)
        or is_slip(x, y, is_known)
        for x, y in zip(out, put, strict=True)
    )


def is_slip(x: str, y: str, is_known: Callable[[str], bool]) -> bool:
    """Whether one of two words is the other with a slip of the pen, or its plural.

    >>> is_slip("patient", "paitent", {"patient"}.__contains__), is_slip("patient", "patients", lambda word: True)
    (True, True)
    >>> is_slip("inject", "infect", lambda word: True), is_slip("typical", "atypical", lambda word: False)
    (False, False)
    >>> [is_slip(*pair, lambda word: False) for pair in (("eight", "eighty"), ("less", "loss"), ("without", "withuot"))]
    [False, False, True]
    """
    if not (x.isalpha() and y.isalpha()):
        return False
    short, long = sorted((x, y), key=len)
    if len(short) >= SLIP_LETTERS - 1 and long in (short + "s", short + "es") and kind_of([x, y]) == WORD:
        return True
    listed = {x, y} & LISTED
    least = SLIP_LETTERS if not listed else SLIP_LETTERS - 1 if listed <= SMALL else TURNING_LETTERS
    if len(long) < least or x[0] != y[0] or OSA.distance(x, y, score_cutoff=1) > 1:
        return False
    return len(listed) < 2 and not (is_known(x) and is_known(y))


def kind_of(words: Sequence[str]) -> int:
    """NUMBER, SIGN (a letter by itself is one: size S), TURN or WORD, the first of them that is there."""
    if any(character.isdigit() for word in words for character in word):
        return NUMBER
    if any(is_sign(word) for word in words):
        return SIGN
    return TURN if POLARITY.intersection(words) else WORD


def is_sign(word: str) -> bool:
    """Whether a word is a letter by itself, or a sign, or ends in one."""
    if len(word.rstrip("_")) == 1 and word.isascii():
        return word not in HARMLESS
    return word[-1] in "+#" or not (word[0].isalnum() or word[0] in "_'")


def look_again(
    texts: pl.Series, others: pl.Series, left: Positions, right: Positions, known: Known
) -> npt.NDArray[np.int8]:
    """For pairs of rows, texts[left[i]] and others[right[i]], the kind of difference that matters; -1: they say the
    same."""
    reading = read_rows(texts, known)
    verdicts = find_first_differences(reading, reading if others is texts else read_rows(others, known), left, right)
    rest = np.flatnonzero(verdicts < 0)
    mine, theirs = read_said(texts, left[rest]), read_said(others, right[rest])
    for pair in rest.tolist():
        verdict = say_same(mine[int(left[pair])], theirs[int(right[pair])], known.__contains__)
        verdicts[pair] = -1 if verdict is None else verdict
    return verdicts


def read_said(texts: pl.Series, rows: Positions) -> dict[int, Said]:
    """What the texts of these rows say."""
    rows = np.unique(rows)
    return dict(zip(rows.tolist(), map(split_sentences, respell(texts[rows])), strict=True))
