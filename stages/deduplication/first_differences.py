"""The first different token of many pairs of rows at once: the vectorised part of the second look.

Where two words stand there that both occur in other rows, within a sentence that cannot be another one's, the pair is
settled, at a few microseconds: on question lists made of templates that is nearly all of them.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.shingles import (
    LOW_BYTES,
    MULTIPLIER,
    Numbers,
    Positions,
    Ragged,
    batches_of,
    hash_located,
    locate_tokens,
    map_in_threads,
    offsets_of,
    ranges,
    tokenise,
)
from stages.deduplication.words import (
    CLASSES,
    CLOSINGS,
    CONTRACTED,
    COURTESIES,
    ENDINGS,
    HARMLESS,
    POLARITY,
    SAME_MEANING,
)

WHY = ("number", "sign", "polarity", "word", "tools", "roles", "label")
NUMBER, SIGN, TURN, WORD, TOOLS, ROLES, LABEL = range(len(WHY))
WINDOW = 16  # tokens that find_first_differences reads at a time
KNOWN_BITS = 24  # 16 MB for any corpus; of a million words 6 % look known without being so: such slips stay apart
INVERSE = np.uint64(pow(int(MULTIPLIER), -1, 2**64))
SPACE_TABLE = np.isin(np.arange(256), np.frombuffer(b" \t\n\r\f\v", np.uint8))


class Known:
    """Which words occur in more than one row."""

    def __init__(self, read: Callable[[int, int], pl.Series], sizes: npt.NDArray[np.integer]) -> None:
        """read: texts by first row and number of rows; sizes: bytes of each."""
        self.rows = np.zeros(2**KNOWN_BITS, np.uint8)

        def count(start: int, size: int) -> tuple[Positions, Positions]:
            tokens = tokenise(read(start, size))
            places = (tokens.values & np.uint64(2**KNOWN_BITS - 1)).astype(np.int64)
            different = np.unique((tokens.texts() << KNOWN_BITS) | places) & (2**KNOWN_BITS - 1)
            return np.unique(different, return_counts=True)

        for words, counts in map_in_threads(count, batches_of(sizes), "dedup: vocabulary"):
            self.rows[words] = np.minimum(self.rows[words] + counts, 2)

    def find(self, hashes: Numbers) -> npt.NDArray[np.bool_]:
        """Whether the words of these hashes occur in more than one row."""
        return self.rows[(hashes & np.uint64(2**KNOWN_BITS - 1)).astype(np.int64)] > 1

    def __contains__(self, word: str) -> bool:
        return bool(self.find(tokenise(pl.Series([word])).values)[0])


def hashes_of(words: Iterable[str]) -> Numbers:
    """The hashes of words, ascending."""
    return np.unique(tokenise(pl.Series([" ".join(words)])).values)


# what may be there or not, stand for another one, or belong to a way of saying the same
UNCERTAIN = hashes_of(
    [*HARMLESS.union(*CLASSES), *COURTESIES, *CONTRACTED, *ENDINGS, "t", "cannot", SAME_MEANING, CLOSINGS]
)
TURNING = hashes_of(POLARITY)


def among(values: Numbers, ascending: Numbers) -> npt.NDArray[np.bool_]:
    """Which values are in a short ascending list."""
    return ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values


class Reading(NamedTuple):
    """Rows as the second look reads them, one entry a token."""

    tokens: Ragged
    begins: npt.NDArray[np.bool_]
    """Whether it is the first of a sentence or line."""
    sentence: Positions
    """Where its sentence begins."""
    openings: Ragged
    """Where the sentences of each row begin."""
    sums: Numbers
    """Running polynomial of the hashes, from which hash_range tells that of any run."""
    means: npt.NDArray[np.bool_]
    """Whether it has a meaning of its own."""
    known: npt.NDArray[np.bool_]
    """Whether it occurs in other rows, or holds a digit."""
    kind: npt.NDArray[np.int8]
    """NUMBER, TURN or WORD."""
    stem: Numbers
    """Its first three bytes."""


def read_rows(texts: pl.Series, known: Known) -> Reading:
    """A batch of texts, each a row's parts one below the other."""
    located = locate_tokens(texts)
    tokens = hash_located(located)
    raw, size = located.raw, len(tokens.values)
    marks = (raw[:-1] == ord(".")) | (raw[:-1] == ord("!")) | (raw[:-1] == ord("?"))
    ends = np.append(marks & SPACE_TABLE[raw[1:]], True) | (raw == ord("\n"))
    begins = np.diff(np.cumsum(ends)[located.starts], prepend=-1) > 0
    opening = np.flatnonzero(begins)
    digits = np.cumsum((raw >= ord("0")) & (raw <= ord("9")))
    number = (digits[located.ends] - digits[located.starts] > 0) | (raw[located.starts] <= ord("9"))
    words = np.ndarray((len(raw) - 7,), "<u8", located.buffer.data, strides=(1,))
    return Reading(
        tokens,
        begins,
        np.maximum.accumulate(np.where(begins, np.arange(size), 0)),
        Ragged(opening.astype(np.uint64), np.searchsorted(opening, tokens.offsets)),
        np.append(np.uint64(0), np.cumsum(tokens.values * powers(MULTIPLIER, size))),
        number | ~among(tokens.values, UNCERTAIN),
        number | known.find(tokens.values),
        np.where(number, NUMBER, np.where(among(tokens.values, TURNING), TURN, WORD)).astype(np.int8),
        words[located.starts] & LOW_BYTES[np.minimum(located.ends - located.starts, 3)],
    )


def powers(base: np.uint64, size: int) -> Numbers:
    """base^0, base^1, ... modulo 2^64."""
    factors = np.full(size, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def hash_range(reading: Reading, starts: Positions, length: Positions, inverse: Numbers) -> Numbers:
    """A number for each run of `length` tokens; of two readings the same for the same tokens."""
    ends = np.minimum(starts + length, len(reading.tokens.values))
    return (reading.sums[ends] - reading.sums[starts]) * inverse[starts]


def begins_elsewhere(one: Reading, x: Positions, other: Reading, rows: Positions) -> npt.NDArray[np.bool_]:
    """Whether a sentence of the row rows[i] of `other` begins as that of token x[i] does, up to that token."""
    starts, ends = one.sentence[x], other.openings.offsets[rows + 1]
    counts = ends - other.openings.offsets[rows]
    inverse = powers(INVERSE, max(len(one.tokens.values), len(other.tokens.values)))
    sought = hash_range(one, starts, x - starts + 1, inverse)
    at = other.openings.values[ranges(other.openings.offsets[rows], counts)].astype(np.int64)
    same = hash_range(other, at, np.repeat(x - starts + 1, counts), inverse) == np.repeat(sought, counts)
    return np.add.reduceat(same, offsets_of(counts)[:-1], dtype=np.int64) > 0


def find_first_differences(one: Reading, other: Reading, left: Positions, right: Positions) -> npt.NDArray[np.int8]:
    """For rows left[i] and right[i] the kind of the difference that keeps them apart; -1 where it is not settled.

    Two words with different meanings stand at the same place of a sentence. That sentence cannot be one that was added:
    then the other row's would stand further on, and begin there as it does here.
    """
    verdicts = np.full(len(left), -1, np.int8)
    starts = one.tokens.offsets[left], other.tokens.offsets[right]
    lengths = np.minimum(one.tokens.counts()[left], other.tokens.counts()[right])
    last = len(one.tokens.values) - 1, len(other.tokens.values) - 1
    ends = one.tokens.offsets[left + 1] - 1, other.tokens.offsets[right + 1] - 1
    open_, step = np.flatnonzero(lengths > 0), 0
    while len(open_):
        window = np.arange(step, step + WINDOW)
        differs = (
            one.tokens.values[np.minimum(starts[0][open_, None] + window, last[0])]
            != other.tokens.values[np.minimum(starts[1][open_, None] + window, last[1])]
        ) & (window < lengths[open_, None])
        found = differs.any(axis=1)
        at = differs[found].argmax(axis=1) + step
        x, y = starts[0][open_[found]] + at, starts[1][open_[found]] + at
        # no slip of the pen: the first letters differ, or both words are known and differ early
        unlike = ((one.stem[x] ^ other.stem[y]) & np.uint64(0xFF) > 0) | (one.known[x] & other.known[y])
        settled = one.means[x] & other.means[y] & unlike & (one.stem[x] != other.stem[y])
        settled &= ~(one.begins[x] | other.begins[y]) & (x - one.sentence[x] == y - other.sentence[y])
        # nor is one of them a single word that the other row lacks
        follows = x < ends[0][open_[found]], y < ends[1][open_[found]]
        settled &= ~follows[0] | (one.tokens.values[np.minimum(x + 1, last[0])] != other.tokens.values[y])
        settled &= ~follows[1] | (one.tokens.values[x] != other.tokens.values[np.minimum(y + 1, last[1])])
        pairs, x, y = open_[found][settled], x[settled], y[settled]
        if len(pairs):
            added = begins_elsewhere(one, x, other, right[pairs]) | begins_elsewhere(other, y, one, left[pairs])
            verdicts[pairs[~added]] = np.minimum(one.kind[x], other.kind[y])[~added]
        step += WINDOW
        open_ = open_[~found & (lengths[open_] > step)]
    return verdicts
