"""The exact Jaccard similarity of many pairs of rows, from texts that are read again.

Memory holds the LSH keys of all rows, but the n-gram sets of few (comparison.SetCache): reading a text of 200 words
again costs 10 microseconds. SciPy counts a pair's common n-grams in 3 microseconds, merging two ascending lists. Most
candidates stay far below the threshold, so they are first held against a bound that takes 0.15: each set as a mask of
bits, a number's place being its lowest digits. Common numbers have common places, so they are at most as many as those,
plus as many as lost their place to another one in both sets.
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse

from stages.common.shingles import GRAM_BITS, Numbers, Positions, Ragged, map_in_threads

SPARSITY = 12  # bits of a mask for each number of a mean set (rounded up to a power of 2)
MASK_BYTES = 2**27  # of all masks: where texts are very long the bound is looser, never wrong
MASKS = 2**12  # pairs whose masks are compared at a time: 2 MB of them, at 200 words a text
PAIRS = 2**12  # compared at a time: their n-grams are copied


def as_matrix(sets: Ragged) -> scipy.sparse.csr_array:
    """Ascending sets as rows of a matrix that has a column for every number there is."""
    matrix = scipy.sparse.csr_array((len(sets.offsets) - 1, 2**GRAM_BITS), dtype=np.int8)
    matrix.indices, matrix.indptr = sets.values.astype(np.int64), sets.offsets
    matrix.data = np.ones(len(sets.values), np.int8)
    matrix.has_canonical_format = True
    return matrix


def count_common(one: Ragged, other: Ragged, left: Positions, right: Positions) -> Positions:
    """How many values the set left[i] of `one` and the set right[i] of `other` share."""
    first, second = as_matrix(one), as_matrix(other)

    def count(start: int, size: int) -> Positions:
        pairs = slice(start, start + size)
        return np.diff(first[left[pairs]].multiply(second[right[pairs]]).indptr).astype(np.int64)

    batches = [(start, PAIRS) for start in range(0, len(left), PAIRS)]
    return np.concatenate([np.zeros(0, np.int64), *map_in_threads(count, batches)])


def make_masks(sets: Ragged) -> Numbers:
    """Each set as bits (texts, 64-bit words)."""
    size, mean = len(sets.offsets) - 1, max(1, len(sets.values) // (len(sets.offsets) - 1))
    bits = min(SPARSITY * mean, 8 * MASK_BYTES // size)
    width = max(64, 2 ** (bits - 1).bit_length())
    places = (sets.values & np.uint64(width - 1)).astype(np.int64)
    masks = np.zeros((size, width // 8), np.uint8)
    step = max(1, 2**20 // width)
    for start in range(0, size, step):
        end = min(start + step, size)
        held = np.zeros((end - start) * width, np.bool_)
        within = slice(sets.offsets[start], sets.offsets[end])
        held[places[within] + width * np.repeat(np.arange(end - start), sets.counts()[start:end])] = True
        masks[start:end] = np.packbits(held.reshape(-1, width), axis=1)
    return masks.view(np.uint64)


def may_reach(sets: Ragged, left: Positions, right: Positions, threshold: float) -> npt.NDArray[np.bool_]:
    """Whether the similarity of sets left[i] and right[i] can reach the threshold: False is proof that it does not."""
    masks, sizes = make_masks(sets), sets.counts()
    lost = sizes - np.bitwise_count(masks).sum(axis=1, dtype=np.int64)

    def bound(start: int, size: int) -> npt.NDArray[np.bool_]:
        one, other = left[start : start + size], right[start : start + size]
        both = np.take(masks, one, axis=0)
        both &= np.take(masks, other, axis=0)
        common = np.bitwise_count(both).sum(axis=1, dtype=np.uint32).astype(np.int64)
        common += np.minimum(lost[one], lost[other])
        return common >= threshold * (sizes[one] + sizes[other] - common)

    batches = [(start, MASKS) for start in range(0, len(left), MASKS)]
    return np.concatenate([np.zeros(0, np.bool_), *map_in_threads(bound, batches)])


def jaccard(one: Ragged, other: Ragged, left: Positions, right: Positions) -> npt.NDArray[np.float64]:
    """The Jaccard similarity of pairs of sets; of two empty ones 1, so that a missing reply equals a missing reply."""
    common = count_common(one, other, left, right)
    union = one.counts()[left] + other.counts()[right] - common
    return np.where(union > 0, common / np.maximum(union, 1), 1.0)
