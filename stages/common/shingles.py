"""Word n-grams of whole columns of text, as 64-bit numbers: what dedup and decontaminate compare.

A token is a word, or one character in scripts that put no spaces between words (there a \\w+ word would be a sentence,
and rules that count words would see nothing). Punctuation and symbols are left out. A token is hashed with xxHash64,
an n-gram is a polynomial of its tokens' hashes modulo 2^64: that any two of a million different n-grams share a number
has a probability below 1e-7. Nothing depends on the machine, nor on a library's own hash that changes with versions.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash
from tqdm import tqdm

from stages.common.rows import normalise

UNSPACED = (
    r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}&&\w]"
)
TOKEN = rf"{UNSPACED}\p{{M}}*|[\w--{UNSPACED}]+"
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a token is lost
BATCH = 20_000  # texts split at a time: about 5 M words, 0.3 GB of strings


class Ragged(NamedTuple):
    """A list of numbers for each text: text i has values[offsets[i]:offsets[i + 1]]."""

    values: npt.NDArray[np.uint64]
    offsets: npt.NDArray[np.int64]

    def counts(self) -> npt.NDArray[np.int64]:
        """Values of each text."""
        return np.diff(self.offsets)

    def texts(self) -> npt.NDArray[np.int64]:
        """The text that each value belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts())


def offsets_of(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Where each of the runs of `counts` values starts, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def normalise_texts(texts: pl.Series) -> pl.Series:
    """`normalise` for a column of texts without nulls (Python's NFKC took half of the time of Polars')."""
    return pl.Series(texts.name, [normalise(text) for text in texts], pl.String)


def split_tokens(normalised: pl.Series) -> pl.Series:
    """The tokens of normalised texts, list[str].

    >>> split_tokens(pl.Series(["don't take 5 mg!", "头痛 2 天"])).to_list()
    [['don', 't', 'take', '5', 'mg'], ['头', '痛', '2', '天']]
    """
    return normalised.str.extract_all(TOKEN)


def hash_tokens(tokens: pl.Series) -> Ragged:
    """xxHash64 of the tokens of each text. A token that repeats is hashed once: the cost is that of the vocabulary."""
    flat = tokens.explode(empty_as_null=False).alias("token").to_frame()
    words = flat["token"].unique()
    hashes = pl.Series("hash", [xxhash.xxh64_intdigest(word.encode()) for word in words], pl.UInt64)
    hashed = flat.join(pl.DataFrame([words, hashes]), on="token", how="left", maintain_order="left")["hash"]
    return Ragged(hashed.to_numpy(), offsets_of(tokens.list.len().to_numpy()))


def read_tokens(normalised: pl.Series, title: str) -> Ragged:
    """Token hashes of normalised texts, in batches of bounded memory, with a progress bar named `title`."""
    starts = tqdm(range(0, len(normalised), BATCH), desc=title, unit="batch")
    parts = [hash_tokens(split_tokens(normalised.slice(start, BATCH))) for start in starts]
    values = [part.values for part in parts] or [np.zeros(0, np.uint64)]
    counts = [part.counts() for part in parts] or [np.zeros(0, np.int64)]
    return Ragged(np.concatenate(values), offsets_of(np.concatenate(counts)))


def hash_ngrams(tokens: Ragged, ngram: int, chosen: npt.NDArray[np.bool_] | None = None) -> Ragged:
    """Every run of `ngram` tokens within a text, in reading order; none in a shorter text or one not `chosen`."""
    counts = np.maximum(tokens.counts() - (ngram - 1), 0)
    if chosen is not None:
        counts = np.where(chosen, counts, 0)
    offsets = offsets_of(counts)
    starts = np.arange(offsets[-1]) + np.repeat(tokens.offsets[:-1] - offsets[:-1], counts)
    values = np.full(len(starts), ngram, np.uint64)  # the length is part of the number
    for step in range(ngram):
        values = values * MULTIPLIER + tokens.values[starts + step]
    return Ragged(values, offsets)


def ngram_sets(tokens: Ragged, ngram: int) -> Ragged:
    """The set of n-grams of each text, ascending. A shorter text is one n-gram of all its tokens; an empty one none."""
    counts = tokens.counts()
    short = np.unique(counts[(counts > 0) & (counts < ngram)]).tolist()
    runs = [hash_ngrams(tokens, length, counts == length) for length in short] + [hash_ngrams(tokens, ngram)]
    return distinct(
        np.concatenate([run.texts() for run in runs]), np.concatenate([run.values for run in runs]), len(counts)
    )


def distinct(texts: npt.NDArray[np.int64], values: npt.NDArray[np.uint64], n_texts: int) -> Ragged:
    """The different values of each text, ascending, from pairs (text, value) in any order."""
    order = np.lexsort((values, texts))
    texts, values = texts[order], values[order]
    first = np.ones(len(values), np.bool_)
    first[1:] = (texts[1:] != texts[:-1]) | (values[1:] != values[:-1])
    return Ragged(values[first], offsets_of(np.bincount(texts[first], minlength=n_texts)))


def take_texts(ragged: Ragged, texts: npt.NDArray[np.int64]) -> Ragged:
    """The values of the texts at these positions, in that order."""
    counts = ragged.counts()[texts]
    offsets = offsets_of(counts)
    return Ragged(
        ragged.values[np.arange(offsets[-1]) + np.repeat(ragged.offsets[texts] - offsets[:-1], counts)], offsets
    )
