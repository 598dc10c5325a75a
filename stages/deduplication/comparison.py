"""Verdicts on pairs of rows: sizes, a bound, the exact similarity, what differs.

A pair passes four gates, each cheaper than the next: the sizes of the sets (a similarity of s needs a ratio of s), a
bound (verification.may_reach), the exact Jaccard similarity, and in the mode `careful` the second look. Preference
pairs are looked at reply by reply, straight or exchanged, whichever is closer. Whatever the mode, rows with other tools
or other speakers are kept apart.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.rows import CONVERSATIONS
from stages.common.shingles import Positions, Ragged, batches_of, chain, map_in_threads, offsets_of, ranges, tokenise
from stages.deduplication.buckets import APART, BELOW, CONTRADICTS, SAME, Verdicts
from stages.deduplication.first_differences import LABEL, ROLES, TOOLS, Known
from stages.deduplication.params import Dedup
from stages.deduplication.second_look import look_again
from stages.deduplication.signatures import gram_sets
from stages.deduplication.verification import jaccard, may_reach

CACHE_VALUES = 2**25  # n-grams


class Rows(NamedTuple):
    """Ranked rows as they are compared."""

    read: Callable[[Positions], pl.DataFrame]
    """The row_texts of the rows at these positions."""
    read_frames: Callable[[Positions], pl.DataFrame]
    """Their row_frames."""
    bytes: npt.NDArray[np.integer]
    """Of each row's text."""
    grams: npt.NDArray[np.int32]
    """Different n-grams of each row."""
    preference: npt.NDArray[np.bool_]
    """Whether a row has two replies."""
    label: npt.NDArray[np.int8]
    """Of an unpaired row; 0 for others."""
    frame: Positions
    """The same number for the same row_frames."""


def read_sets(texts: pl.DataFrame, ngram: int) -> Ragged:
    """The n-gram sets of rows, read again, in threads."""

    def read(start: int, count: int) -> Ragged:
        batch = texts.slice(start, count)
        return gram_sets([tokenise(column) for column in batch if column.str.len_bytes().max()], ngram, count)

    return chain(map_in_threads(read, batches_of(sizes_of(texts))))


def sizes_of(texts: pl.DataFrame) -> npt.NDArray[np.integer]:
    """Bytes of each row."""
    return texts.select(pl.sum_horizontal(pl.all().str.len_bytes())).to_series().to_numpy()


def join_parts(texts: pl.DataFrame, order: tuple[str, ...] = CONVERSATIONS) -> pl.Series:
    """Each row as one text, its parts one below the other."""
    return texts.select(pl.concat_str(order, separator="\n")).to_series()


class SetCache:
    """The n-gram sets of rows that were compared, so that a kept row is not read again for each block of rows.

    Before it would hold more than CACHE_VALUES it is emptied and starts anew: no more than 256 MB, and no less right.
    """

    def __init__(self, rows: Rows, ngram: int) -> None:
        self.rows, self.ngram = rows, ngram
        self.starts = np.full(len(rows.grams), -1, np.int64)
        self.values = np.zeros(2**16, np.uint64)
        self.filled = 0

    def read(self, rows: Positions) -> Ragged:
        """The sets of different rows, together no more than CACHE_VALUES, or of two rows."""
        new = np.flatnonzero(self.starts[rows] < 0)
        if self.filled + self.rows.grams[rows[new]].sum(dtype=np.int64) > CACHE_VALUES:
            self.starts[:], self.filled = -1, 0
            new = np.arange(len(rows))
        sets = read_sets(self.rows.read(rows[new]), self.ngram)
        end = self.filled + len(sets.values)
        if end > len(self.values):
            size = max(end, min(2 * len(self.values), CACHE_VALUES))
            self.values = np.concatenate([self.values[: self.filled], np.zeros(size - self.filled, np.uint64)])
        self.values[self.filled : end] = sets.values
        self.starts[rows[new]] = self.filled + sets.offsets[:-1]
        self.filled = end
        counts = self.rows.grams[rows].astype(np.int64)
        return Ragged(self.values[ranges(self.starts[rows], counts)], offsets_of(counts))


class Comparison:
    """The verdicts on pairs of `rows`, from their texts alone."""

    def __init__(self, rows: Rows, params: Dedup) -> None:
        self.rows, self.params = rows, params
        self.sets = SetCache(rows, params.ngram)
        self.named, self.place = np.zeros(len(rows.grams), np.bool_), np.zeros(len(rows.grams), np.int64)
        self.known = self.count_words() if params.mode == "careful" else None

    def count_words(self) -> Known:
        """The vocabulary of all rows."""
        return Known(lambda start, count: join_parts(self.rows.read(np.arange(start, start + count))), self.rows.bytes)

    def __call__(self, later: Positions, earlier: Positions) -> Verdicts:
        """Verdicts on the pairs (later[i], earlier[i])."""
        similarity, verdict = np.zeros(len(later)), np.full(len(later), BELOW, np.int8)
        sizes = self.rows.grams[later], self.rows.grams[earlier]
        at = np.flatnonzero(np.minimum(*sizes) >= self.params.threshold * np.maximum(*sizes))
        if len(at):
            rows, left, right = self.number(later[at], earlier[at])
            if len(at) > 1 and self.rows.grams[rows].sum(dtype=np.int64) > CACHE_VALUES:  # too much for one reading
                for half in np.array_split(at, 2):
                    similarity[half], verdict[half] = self(later[half], earlier[half])
                return Verdicts(similarity, verdict)
            sets = self.sets.read(rows)
            possible = may_reach(sets, left, right, self.params.threshold)
            at, left, right = at[possible], left[possible], right[possible]
            similarity[at] = jaccard(sets, sets, left, right)
            reached = similarity[at] >= self.params.threshold
            at, left, right = at[reached], left[reached], right[reached]
            verdict[at] = self.judge(rows, left, right)
        return Verdicts(similarity, verdict)

    def number(self, later: Positions, earlier: Positions) -> tuple[Positions, Positions, Positions]:
        """The different rows among pairs, ascending, and the places of the pairs among them: faster than to sort."""
        self.named[later] = self.named[earlier] = True
        rows = np.flatnonzero(self.named)
        self.named[rows] = False
        self.place[rows] = np.arange(len(rows))
        return rows, self.place[later], self.place[earlier]

    def judge(self, rows: Positions, left: Positions, right: Positions) -> npt.NDArray[np.int8]:
        """Verdicts on pairs of rows[left[i]] and rows[right[i]] that reach the threshold."""
        needed, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        rows, (left, right) = rows[needed], np.split(places, 2)
        preference, label = self.rows.preference[rows], self.rows.label[rows]
        exchanged = np.zeros(len(left), np.bool_)
        pairs = np.flatnonzero(preference[left])
        texts = self.rows.read(rows) if self.known or len(pairs) else pl.DataFrame()
        if len(pairs):
            exchanged[pairs] = self.are_exchanged(texts, left[pairs], right[pairs])
        differs = np.full(len(left), -1, np.int8)
        if self.known:
            prompt, chosen, rejected = CONVERSATIONS
            straight = join_parts(texts)
            differs[~exchanged] = look_again(straight, straight, left[~exchanged], right[~exchanged], self.known)
            if exchanged.any():
                crossed = join_parts(texts, (prompt, rejected, chosen))
                differs[exchanged] = look_again(crossed, straight, left[exchanged], right[exchanged], self.known)
        opposite = label[left] != label[right]
        if not self.known:  # a small edit may be just what turned the label
            differs[opposite] = LABEL
        framed = np.flatnonzero(self.rows.frame[rows[left]] != self.rows.frame[rows[right]])
        if len(framed):
            differs[framed] = self.compare_frames(rows[left[framed]], rows[right[framed]], differs[framed])
        return np.where(differs >= 0, APART + differs, np.where(exchanged | opposite, CONTRADICTS, SAME)).astype(
            np.int8
        )

    def compare_frames(self, left: Positions, right: Positions, differs: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """`differs` of pairs of rows, with other tools and other speakers.

        A conversation of more messages and n-grams that begins with the speakers of the other one goes on from it.
        """
        pairs = self.rows.read_frames(left).hstack(self.rows.read_frames(right).rename(lambda name: f"other_{name}"))
        roles, others = pl.col("roles"), pl.col("other_roles")
        more = np.sign(self.rows.grams[left] - self.rows.grams[right])
        goes_on = (pl.lit(pl.Series(more > 0)) & roles.str.starts_with(others)) | (
            pl.lit(pl.Series(more < 0)) & others.str.starts_with(roles)
        )
        found = pairs.select(tools=pl.col("tools") != pl.col("other_tools"), roles=(roles != others) & ~goes_on)
        differs = np.where(found["roles"].to_numpy(), ROLES, differs)
        return np.where(found["tools"].to_numpy(), TOOLS, differs).astype(np.int8)

    def are_exchanged(self, texts: pl.DataFrame, left: Positions, right: Positions) -> npt.NDArray[np.bool_]:
        """Whether the replies of preference pairs are closer to each other crosswise."""
        chosen, rejected = (read_sets(texts.select(part), self.params.ngram) for part in ("chosen", "rejected"))
        straight = jaccard(chosen, chosen, left, right) + jaccard(rejected, rejected, left, right)
        return jaccard(chosen, rejected, left, right) + jaccard(rejected, chosen, left, right) > straight
