"""Tokens and word n-grams of whole columns of text, as numbers: what dedup and decontaminate compare.

A token is a word, or one character in scripts that put no spaces between words (there a \\w+ word would be a sentence,
and rules that count words would see nothing). Punctuation and symbols are left out. Texts are read as the bytes of a
batch: ASCII bytes are lower-cased by a table, other texts pass through Unicode first, so that afterwards a token is a
run of letters, digits, underscores and bytes >= 0x80. A run is hashed eight bytes at a time, an n-gram is a polynomial
of its tokens' hashes, of which the upper 48 bits are kept: two n-grams of one pair of texts of 1,000 words share a
number with a probability of 4e-9. Nothing depends on the machine, nor on a library's own hash that changes with
versions. Batches are independent of each other and run in threads (NumPy and Polars let go of the interpreter).
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
from tqdm import tqdm

from stages.common.rows import SET_APART, normalise

UNSPACED = (
    r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}&&\w]"
)
TOKEN = rf"{UNSPACED}\p{{M}}*|[\w--{UNSPACED}]+"
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a token is lost
FINALISER = np.uint64(0xD6E8FEB86659FD93)
BATCH_BYTES = 2**19  # of text: what a batch's arrays take fits the cache of a core; twice the speed of 4 MB
GRAM_BITS = 48  # of an n-gram's number: with 16 bits for the text, both are sorted as one
LOW_BYTES = np.array([2 ** (8 * count) - 1 for count in range(9)], np.uint64)
Numbers = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Result = TypeVar("Result")


class Ragged(NamedTuple):
    """A list of numbers for each text: text i has values[offsets[i]:offsets[i + 1]]."""

    values: Numbers
    offsets: Positions

    def counts(self) -> Positions:
        """Values of each text."""
        return np.diff(self.offsets)

    def texts(self) -> Positions:
        """The text that each value belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts())


class Located(NamedTuple):
    """The tokens of a batch of texts within its bytes: token t is buffer[starts[t]:ends[t]]."""

    raw: npt.NDArray[np.uint8]
    """The texts, each with a line end behind it; those in other scripts folded, their tokens set apart."""
    buffer: npt.NDArray[np.uint8]
    """The bytes in lower case, 0 where they belong to no token."""
    starts: Positions
    ends: Positions
    offsets: Positions
    """Where the tokens of each text start."""
    bounds: Positions
    """Where the bytes of each text start."""


def word_table() -> bytes:
    """For each byte its lower case, or 0 where it is no part of a token."""
    parts = [byte if byte >= 128 or chr(byte).isalnum() or byte == ord("_") else 0 for byte in range(256)]
    return bytes(ord(chr(byte).lower()) if byte < 128 else byte for byte in parts)


WORD_TABLE = word_table()


def offsets_of(counts: npt.NDArray[np.integer]) -> Positions:
    """Where each of the runs of `counts` values starts, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def ranges(starts: Positions, counts: Positions) -> Positions:
    """The positions start, start + 1, ... of each run, one run after the other."""
    offsets = offsets_of(counts)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)


def begin_runs(values: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Whether a value differs from the one before it."""
    first = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first


def is_other(texts: pl.Series) -> pl.Series:
    """Whether a text holds more than ASCII."""
    return texts.str.len_bytes() != texts.str.len_chars()


def normalise_texts(texts: pl.Series) -> pl.Series:
    """`normalise` for a column of texts without nulls: ASCII in whole columns, others in Python (NFKC)."""
    plain = texts.str.to_lowercase().str.replace_all(r"[\s\x1c-\x1f]+", " ").str.strip_chars(" ")
    return replace_others(texts, plain, [normalise(text) for text in texts.filter(is_other(texts))])


def replace_others(texts: pl.Series, plain: pl.Series, others: list[str]) -> pl.Series:
    """`plain`, with `others` in the places of the texts that hold more than ASCII."""
    return plain.clone().scatter(is_other(texts).arg_true(), others) if others else plain  # scatter works in place


def space_tokens(texts: pl.Series, signs: str = "") -> pl.Series:
    """Texts whose tokens are runs of WORD_TABLE: ASCII as it is, others in NFKC and lower case, spaces put in.

    signs: a class of characters beyond ASCII that are tokens too; none, if not given.
    """
    apart = texts.filter(is_other(texts))
    if apart.is_empty():
        return texts
    for pattern, sign in SET_APART:
        apart = apart.str.replace_all(pattern, f"${{1}}{sign}$2")
    folded = [unicodedata.normalize("NFKC", text).lower() for text in apart]
    others = (
        pl.Series(folded, dtype=pl.String)
        .str.replace_all(r"[。｡！？]", ". ")  # a sentence's end, as it is written in ASCII
        .str.replace_all(rf"({UNSPACED}\p{{M}}*{'|' * bool(signs)}{signs})", " $1 ")
        .str.replace_all(rf"[^\w\s[:punct:]{signs}]|[\s--\p{{ascii}}]", " ")
    )
    return replace_others(texts, texts, others.to_list())


def split_tokens(normalised: pl.Series) -> pl.Series:
    """The tokens of normalised texts, list[str].

    >>> split_tokens(pl.Series(["don't take 5 mg!", "头痛 2 天"])).to_list()
    [['don', 't', 'take', '5', 'mg'], ['头', '痛', '2', '天']]
    """
    return normalised.str.extract_all(TOKEN)


def locate_tokens(texts: pl.Series) -> Located:
    """The tokens of a batch of texts (without nulls), normalised or not."""
    spaced = space_tokens(texts)
    bounds = offsets_of(spaced.str.len_bytes().to_numpy().astype(np.int64) + 1)
    # a line end between texts and behind the last one, where hash_runs reads eight bytes at a time
    joined = (spaced.str.join("\n").item() if len(spaced) else "").encode() + b"\n" * 8
    raw = np.frombuffer(joined, np.uint8)
    buffer = np.frombuffer(joined.translate(WORD_TABLE), np.uint8)
    within = np.zeros(len(buffer) + 1, np.bool_)
    np.not_equal(buffer, 0, out=within[1:])
    edges = np.flatnonzero(within[1:] != within[:-1])
    starts, ends = edges[::2], edges[1::2]
    return Located(raw, buffer, starts, ends, np.searchsorted(starts, bounds), bounds)


def mix(values: Numbers) -> Numbers:
    """Each bit of a value over all bits of its number, in place (a finaliser of the kind of MurmurHash3's)."""
    for factor in (FINALISER, MULTIPLIER):
        values ^= values >> np.uint64(32)
        values *= factor
    values ^= values >> np.uint64(32)
    return values


def hash_runs(buffer: npt.NDArray[np.uint8], starts: Positions, ends: Positions) -> Numbers:
    """A 64-bit number for each run of bytes, of which none is empty; 8 more bytes must follow the last one.

    The sum of its mixed words of eight bytes, each with its place, and of its length.
    """
    if not len(starts):
        return np.zeros(0, np.uint64)
    lengths = ends - starts
    words = np.ndarray((len(buffer) - 7,), "<u8", buffer.data, strides=(1,))
    several = np.flatnonzero(lengths > 8)
    sums = mix(words[starts] & LOW_BYTES[np.minimum(lengths, 8)])
    if len(several):
        rest = (lengths[several] - 1) >> 3
        places = ranges(np.ones(len(several), np.int64), rest)
        at = np.repeat(starts[several], rest) + 8 * places
        left = np.minimum(np.repeat(ends[several], rest) - at, 8)
        later = mix((words[at] & LOW_BYTES[left]) + places.astype(np.uint64) * FINALISER)
        sums[several] += np.add.reduceat(later, offsets_of(rest)[:-1])
    return mix(sums + lengths.astype(np.uint64))


def sum_texts(values: npt.NDArray[np.integer], offsets: Positions) -> Numbers:
    """The sum of each text's values, modulo 2^64; 0 where it has none."""
    sums, filled = np.zeros(len(offsets) - 1, np.uint64), np.flatnonzero(np.diff(offsets))
    if len(filled):
        sums[filled] = np.add.reduceat(values, offsets[filled], dtype=np.uint64)
    return sums


def hash_located(located: Located) -> Ragged:
    """Token hashes of a batch of texts."""
    return Ragged(hash_runs(located.buffer, located.starts, located.ends), located.offsets)


def tokenise(texts: pl.Series) -> Ragged:
    """Token hashes of a batch of texts: a function of nothing else, in one thread."""
    return hash_located(locate_tokens(texts))


def batches_of(sizes: npt.NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """First row and number of rows of the batches of about BATCH_BYTES each."""
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + BATCH_BYTES)))
        yield start, end - start
        start = end


_threads: int | None = None  # of this process; None: one per core


def limit_threads(number: int | None) -> None:
    """How many threads this process works in; None: one per core. It changes no result."""
    global _threads
    _threads = number


def count_threads() -> int:
    """How many threads this process works in."""
    return _threads or os.cpu_count() or 1


def map_in_threads(
    work: Callable[[int, int], Result], batches: Iterable[tuple[int, int]], title: str | None = None
) -> list[Result]:
    """work(first row, number of rows) of each batch, in the order of the rows, with a progress bar named `title`."""
    batches = list(batches)
    with ThreadPoolExecutor(count_threads()) as pool:
        results = pool.map(work, *zip(*batches, strict=True)) if batches else iter(())
        return list(tqdm(results, desc=title, unit="batch", total=len(batches), disable=title is None))


def chain(parts: list[Ragged]) -> Ragged:
    """The texts of one batch after those of another."""
    values = [np.zeros(0, np.uint64), *(part.values for part in parts)]
    counts = [np.zeros(0, np.int64), *(part.counts() for part in parts)]
    return Ragged(np.concatenate(values), offsets_of(np.concatenate(counts)))


def hash_tokens(tokens: pl.Series) -> Ragged:
    """Token hashes of texts that are lists of tokens already."""
    return tokenise(tokens.list.join(" "))


def hash_ngrams(tokens: Ragged, ngram: int, chosen: npt.NDArray[np.bool_] | None = None) -> Ragged:
    """Every run of `ngram` tokens within a text, in reading order; none in a shorter text or one not `chosen`."""
    counts = np.maximum(tokens.counts() - (ngram - 1), 0)
    if chosen is not None:
        counts = np.where(chosen, counts, 0)
    runs = max(len(tokens.values) - ngram + 1, 0)
    values = np.full(runs, ngram, np.uint64)  # the length is part of the number
    for step in range(ngram):
        values *= MULTIPLIER
        values += tokens.values[step : step + runs]
    values >>= np.uint64(64 - GRAM_BITS)
    return Ragged(values[ranges(tokens.offsets[:-1], counts)], offsets_of(counts))


def ngram_sets(tokens: Ragged, ngram: int) -> Ragged:
    """The set of n-grams of each text, ascending. A shorter text is one n-gram of all its tokens; an empty one none."""
    counts = tokens.counts()
    short = np.unique(counts[(counts > 0) & (counts < ngram)]).tolist()
    runs = [hash_ngrams(tokens, length, counts == length) for length in short] + [hash_ngrams(tokens, ngram)]
    return distinct(
        np.concatenate([run.texts() for run in runs]), np.concatenate([run.values for run in runs]), len(counts)
    )


def distinct(texts: Positions, values: Numbers, n_texts: int) -> Ragged:
    """The different values (of GRAM_BITS bits) of each text, ascending, from pairs (text, value) in any order."""
    part = 2 ** (64 - GRAM_BITS)
    if n_texts > part:
        places = [np.flatnonzero(texts // part == number) for number in range(-(-n_texts // part))]
        sizes = [min(part, n_texts - part * number) for number in range(len(places))]
        return chain([distinct(texts[at] % part, values[at], size) for at, size in zip(places, sizes, strict=True)])
    keys = (texts.astype(np.uint64) << np.uint64(GRAM_BITS)) | values
    keys.sort()
    keys = keys[begin_runs(keys)]
    offsets = np.searchsorted(keys, np.arange(n_texts, dtype=np.uint64) << np.uint64(GRAM_BITS))
    return Ragged(keys & np.uint64(2**GRAM_BITS - 1), np.append(offsets, len(keys)))
