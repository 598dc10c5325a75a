"""Buckets of the LSH, and the greedy choice of the rows that stay, without looking at all pairs of a bucket.

Rows come in the order of their rank and are taken in blocks. Each row of a block is compared with the kept rows that
its buckets list and, where those leave it undecided, with the rows of its own block that share a bucket with it; what
stays is listed in its buckets. That gives the same as one row after the other, but in whole columns: a block is halved
until it makes no more than PAIR_LIMIT pairs, so that memory does not grow with buckets. A row that goes is never
listed: 100,000 rows of one text make about 100,000 pairs, not 5 billion.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from stages.common.shingles import Numbers, Positions, begin_runs, count_threads, mix, offsets_of, ranges

BUCKET_LIMIT = 1000  # kept rows listed in a bucket
PAIR_LIMIT = 2**21  # pairs of a block, counted in each bucket that they share: about 100 MB of arrays
BLOCK = 1024  # rows at most: more would compare rows with each other that the first of them takes out
BELOW, SAME, CONTRADICTS = 0, 1, 2  # verdicts on a pair; from APART on: similar, but kept apart
APART = 3
Buckets = npt.NDArray[np.int32]


class Verdicts(NamedTuple):
    """What comparing pairs of rows gave."""

    similarity: npt.NDArray[np.float64]
    verdict: npt.NDArray[np.int8]

    def falls(self) -> npt.NDArray[np.bool_]:
        """Whether the later row of a pair may not stay beside the earlier one."""
        return (self.verdict == SAME) | (self.verdict == CONTRADICTS)


class Near(NamedTuple):
    """What the near comparison found, by position in the ranked rows."""

    survivor: Positions
    """The kept row that each row repeats or contradicts; itself where it is kept."""
    similarity: npt.NDArray[np.float64]
    """Exact Jaccard similarity to it; 1 where it is kept."""
    verdict: npt.NDArray[np.int8]
    """SAME or CONTRADICTS; BELOW where it is kept."""
    alike: Positions
    """For a kept row the most similar of the kept rows before it that were kept apart; -1 where there is none."""
    alike_similarity: npt.NDArray[np.float64]
    alike_verdict: npt.NDArray[np.int8]
    candidates: int
    """Pairs of rows that shared a bucket and were compared."""
    verified: int
    """Those whose similarity reached the threshold."""
    full_buckets: int
    """Buckets that were full when a row was to be listed."""


def assign_buckets(keys: Numbers, groups: Numbers) -> Buckets:
    """The bucket of each text in each band (texts, bands), numbered from 0; -1 where no other text is in it.

    keys: (texts, bands), of signatures.py. Texts of different groups never meet.
    """
    buckets = np.full(keys.shape, -1, np.int32)

    def number_band(band: int) -> int:
        _, inverse, counts = np.unique(mix(keys[:, band] + groups), return_inverse=True, return_counts=True)
        shared = counts > 1
        buckets[:, band] = np.where(shared, np.cumsum(shared) - 1, -1)[inverse]
        return int(shared.sum())

    with ThreadPoolExecutor(min(2, count_threads())) as pool:  # each sorts a copy of a band
        totals = list(pool.map(number_band, range(keys.shape[1])))
    for band, before in enumerate(offsets_of(np.array(totals, np.int64))[:-1]):
        buckets[:, band][buckets[:, band] >= 0] += np.int32(before)
    return buckets


class Lists:
    """The kept rows that each bucket lists, in the order of their rank."""

    def __init__(self, buckets: Buckets) -> None:
        sizes = np.bincount(buckets[buckets >= 0])
        self.starts = offsets_of(np.minimum(sizes, BUCKET_LIMIT))
        self.filled = np.zeros(len(sizes), np.int64)
        self.rows = np.zeros(self.starts[-1], np.int32)
        self.full = np.zeros(len(sizes), np.bool_)

    def add(self, rows: Positions, buckets: Positions) -> None:
        """List each row in the bucket beside it. Entries come sorted by bucket, then row."""
        places = self.filled[buckets] + place_in_run(buckets)
        fits = places < BUCKET_LIMIT
        self.full[buckets[~fits]] = True
        self.rows[self.starts[buckets[fits]] + places[fits]] = rows[fits]
        np.maximum.at(self.filled, buckets[fits], places[fits] + 1)


def place_in_run(values: Positions) -> Positions:
    """0, 1, ... for equal neighbours."""
    starts = np.flatnonzero(begin_runs(values))
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def different_pairs(later: Positions, earlier: Positions) -> tuple[Positions, Positions]:
    """Each pair once, sorted: rows that share several buckets come several times."""
    keys = (later.astype(np.uint64) << np.uint64(32)) | earlier.astype(np.uint64)
    keys.sort()
    keys = keys[begin_runs(keys)]
    return (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(2**32 - 1)).astype(np.int64)


def decide(size: int, later: Positions, earlier: Positions) -> npt.NDArray[np.bool_]:
    """Which of the rows 0..size stay, by the greedy choice, when `later` may not stay beside `earlier` (< later)."""
    kept, open_ = np.zeros(size, np.bool_), np.ones(size, np.bool_)
    while open_.any():
        waiting = np.zeros(size, np.bool_)
        waiting[later[open_[earlier]]] = True
        now = open_ & ~waiting  # nothing before it is undecided, and nothing kept before it took it out
        kept |= now
        open_ &= waiting
        open_[later[now[earlier]]] = False
    return kept


def choose_kept(buckets: Buckets, compare: Callable[[Positions, Positions], Verdicts]) -> Near:
    """The greedy choice over rows in the order of their rank: see the top of this file and of stages/dedup.py.

    compare: verdicts on pairs (later row, earlier row).
    """
    size = len(buckets)
    near = Near(
        np.arange(size), np.ones(size), np.zeros(size, np.int8),
        np.full(size, -1, np.int64), np.zeros(size), np.zeros(size, np.int8), 0, 0, 0,
    )  # fmt: skip
    entering = np.flatnonzero((buckets >= 0).any(axis=1))
    lists = Lists(buckets)
    candidates = verified = start = 0
    with tqdm(total=len(entering), desc="dedup: comparing", unit="row") as bar:
        while start < len(entering):
            rows, own, entry_buckets = take_block(entering[start : start + BLOCK], buckets, lists)
            pairs = listed_pairs(rows, own, entry_buckets, lists)
            found = compare(*pairs)
            undecided = np.ones(len(rows), np.bool_)
            undecided[np.searchsorted(rows, pairs[0][found.falls()])] = False
            inside = inner_pairs(rows, own, entry_buckets, undecided)
            within = compare(*inside)
            later, first = np.searchsorted(rows, inside[0]), np.searchsorted(rows, inside[1])
            ties = within.falls() & undecided[later]
            kept = decide(len(rows), later[ties], first[ties]) & undecided
            stays = kept[first]
            name_survivors(
                near, rows[kept],
                np.concatenate([pairs[0], inside[0][stays]]), np.concatenate([pairs[1], inside[1][stays]]),
                Verdicts(
                    np.concatenate([found.similarity, within.similarity[stays]]),
                    np.concatenate([found.verdict, within.verdict[stays]]),
                ),
            )  # fmt: skip
            listed = kept[own]
            lists.add(rows[own[listed]], entry_buckets[listed])
            candidates += len(pairs[0]) + len(inside[0])
            verified += int((found.verdict != BELOW).sum() + (within.verdict != BELOW).sum())
            start += len(rows)
            bar.update(len(rows))
    return near._replace(candidates=candidates, verified=verified, full_buckets=int(lists.full.sum()))


def listed_pairs(rows: Positions, own: Positions, buckets: Positions, lists: Lists) -> tuple[Positions, Positions]:
    """Each row of a block with the kept rows that its buckets list."""
    counts = lists.filled[buckets]
    listed = lists.rows[ranges(lists.starts[buckets], counts)].astype(np.int64)
    return different_pairs(rows[np.repeat(own, counts)], listed)


def inner_pairs(
    rows: Positions, own: Positions, buckets: Positions, undecided: npt.NDArray[np.bool_]
) -> tuple[Positions, Positions]:
    """Each row of a block with the undecided ones before it that share a bucket with it."""
    entries = undecided[own]
    before = np.cumsum(entries, dtype=np.int64) - entries
    first = before[np.arange(len(own)) - place_in_run(buckets)]  # of its bucket
    counts = before - first
    return different_pairs(rows[np.repeat(own, counts)], rows[own[entries][ranges(first, counts)]])


def take_block(rows: Positions, buckets: Buckets, lists: Lists) -> tuple[Positions, Positions, Positions]:
    """The first of `rows`, halved until their pairs are few: rows, and their entries (position, bucket) by bucket."""
    while True:
        own, bands = np.nonzero(buckets[rows] >= 0)
        entry_buckets = buckets[rows[own], bands].astype(np.int64)
        order = np.argsort(entry_buckets, kind="stable")
        own, entry_buckets = own[order], entry_buckets[order]
        pairs = int((lists.filled[entry_buckets] + place_in_run(entry_buckets)).sum())
        if pairs <= PAIR_LIMIT or len(rows) == 1:
            return rows, own, entry_buckets
        rows = rows[: len(rows) // 2]


def name_survivors(near: Near, kept: Positions, later: Positions, earlier: Positions, found: Verdicts) -> None:
    """Write down the most similar kept row of each row; of equals the best ranked."""
    stays = np.zeros(len(near.survivor), np.bool_)
    stays[kept] = True
    for falls, names, similarity, verdict in (
        (True, near.survivor, near.similarity, near.verdict),
        (False, near.alike, near.alike_similarity, near.alike_verdict),
    ):
        wanted = (found.verdict >= APART) & stays[later]
        if falls:
            wanted = found.falls()
        at = np.flatnonzero(wanted)
        at = at[np.lexsort((-earlier[at], found.similarity[at], later[at]))]  # the last one of a row is written last
        names[later[at]], similarity[later[at]], verdict[later[at]] = (
            earlier[at],
            found.similarity[at],
            found.verdict[at],
        )
