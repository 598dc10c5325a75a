"""What dedup keeps of a row instead of its text: digests, size and LSH keys, as a pure function of a batch of rows.

MinHash signatures (Broder 1997) are those of datasketch, scheme affine32, bit for bit, over the lower 32 bits of each
n-gram's number: h is mixed by MurmurHash3's finaliser, each hash function is a x h + b modulo 2^32, the signature its
minimum over the n-grams. Of a signature one 64-bit key for each band is kept.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.rows import CONVERSATIONS, texts_of
from stages.common.shingles import (
    MULTIPLIER,
    Located,
    Numbers,
    Ragged,
    distinct,
    hash_located,
    locate_tokens,
    mix,
    ngram_sets,
    ranges,
    sum_texts,
)
from stages.deduplication.params import Dedup

BATCH_ROWS = 400  # of 200 words: what their arrays take fits the cache of a core

# 1 for each byte that starts a character, white space (of Python's str.split) apart
CHARACTER_TABLE = bytes(byte & 0xC0 != 0x80 and not (byte < 128 and chr(byte).isspace()) for byte in range(256))
FARTHEST = np.uint32(2**32 - 1)  # the signature of a text without n-grams


def row_texts(rows: pl.DataFrame) -> pl.DataFrame:
    """The text of prompt or conversation, chosen and rejected: empty where there is none."""
    return rows.select(texts_of(column) for column in CONVERSATIONS)


def row_frames(rows: pl.DataFrame) -> pl.DataFrame:
    """What stands around the texts: `tools`, the definitions, and `roles`, who speaks, message by message."""
    spoken = [pl.col(column).list.eval(pl.element().struct.field("role")).list.join("\n") for column in CONVERSATIONS]
    prompt, chosen, rejected = (roles.fill_null("") for roles in spoken)
    replies = [pl.min_horizontal(chosen, rejected), pl.max_horizontal(chosen, rejected)]  # they may be exchanged
    return rows.select(pl.col("tools").fill_null(""), roles=pl.concat_str(*replies, prompt + "\n", separator="\n\n"))


def number_frames(rows: pl.DataFrame) -> pl.Series:
    """A number for the row_frames of each row, the same for equal ones."""
    frames = row_frames(rows)
    tools, roles = (frames[column].rank("dense").cast(pl.Int64).fill_null(0) for column in ("tools", "roles"))
    return (tools * (rows.height + 1) + roles).alias("frame")


def read_parts(texts: pl.DataFrame) -> dict[str, Located]:
    """The tokens of each part of the rows that any of them has."""
    return {column.name: locate_tokens(column) for column in texts if column.str.len_bytes().max()}


def gram_sets(parts: list[Ragged], ngram: int, rows: int) -> Ragged:
    """The n-grams of each row: those of its parts, so that none spans two of them, whatever their order."""
    sets = [ngram_sets(tokens, ngram) for tokens in parts]
    if len(sets) == 1:
        return sets[0]
    values = [np.zeros(0, np.uint64), *(part.values for part in sets)]
    texts = [np.zeros(0, np.int64), *(part.texts() for part in sets)]
    return distinct(np.concatenate(texts), np.concatenate(values), rows)


def hash_functions(params: Dedup) -> npt.NDArray[np.uint32]:
    """The factors (odd) and the terms of bands x rows hash functions, drawn as datasketch draws them."""
    generator, width = np.random.RandomState(params.seed), params.bands * params.rows
    factors = generator.randint(0, 2**31, width, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return np.array([factors, generator.randint(0, 2**32, width, dtype=np.uint32)])


def sign_sets(sets: Ragged, params: Dedup) -> npt.NDArray[np.uint32]:
    """MinHash signatures (bands * rows, texts)."""
    hashes = sets.values.astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        hashes ^= hashes >> np.uint32(shift)
        hashes *= np.uint32(factor)
    filled = np.flatnonzero(sets.counts())
    signatures = np.full((params.bands * params.rows, len(sets.offsets) - 1), FARTHEST)
    permuted = np.empty_like(hashes)
    for values, factor, term in zip(signatures, *hash_functions(params), strict=True):
        np.multiply(hashes, factor, out=permuted)
        np.add(permuted, term, out=permuted)
        if len(filled):
            values[filled] = np.minimum.reduceat(permuted, sets.offsets[filled])
    return signatures


def band_keys(signatures: npt.NDArray[np.uint32], params: Dedup) -> Numbers:
    """One number for the values of each band (bands, texts)."""
    keys = np.zeros((params.bands, signatures.shape[1]), np.uint64)
    for row in range(params.rows):
        keys = mix((keys + signatures[row :: params.rows]) * MULTIPLIER)
    return keys


def digest(tokens: Ragged) -> Numbers:
    """A 64-bit number for the tokens of each text in their order."""
    places = ranges(np.zeros(len(tokens.offsets) - 1, np.int64), tokens.counts()).astype(np.uint64)
    return sum_texts(mix(tokens.values + places * MULTIPLIER), tokens.offsets)


def count_characters(located: Located) -> Numbers:
    """Characters of each text without its white space."""
    characters = located.raw[: located.bounds[-1]].tobytes().translate(CHARACTER_TABLE)
    return sum_texts(np.frombuffer(characters, np.uint8), located.bounds)


def describe_texts(texts: pl.DataFrame, params: Dedup) -> pl.DataFrame:
    """A batch of row_texts: one line for each.

    content: 64 bits for the tokens of the parts, the same where the replies are exchanged; length: characters without
    white space; bytes: of its text; grams: different n-grams; keys: uint64 per band.
    """
    parts = read_parts(texts)
    tokens = {name: hash_located(part) for name, part in parts.items()}
    nothing = np.zeros(texts.height, np.uint64)
    prompt, chosen, rejected = (digest(tokens[name]) if name in parts else nothing.copy() for name in CONVERSATIONS)
    sets = gram_sets(list(tokens.values()), params.ngram, texts.height)
    keys = np.ascontiguousarray(band_keys(sign_sets(sets, params), params).T)
    return pl.DataFrame(
        {
            "content": mix(prompt * MULTIPLIER + mix(chosen) + mix(rejected)),
            "length": sum((count_characters(part) for part in parts.values()), nothing),
            "bytes": np.diff(sum(part.bounds for part in parts.values())) if parts else nothing,
            "grams": sets.counts().astype(np.int32),
            "keys": pl.Series(keys, dtype=pl.Array(pl.UInt64, params.bands)),
        }
    )


def describe_rows(rows: pl.DataFrame, params: Dedup) -> pl.DataFrame:
    """describe_texts of a batch of rows in the row schema: rows in, as many lines out, no state between batches."""
    return describe_texts(row_texts(rows), params)


def make_describer(params: Dedup) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """What describes a large batch of rows in a worker process, a cache's worth at a time."""

    def describe(rows: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([describe_rows(part, params) for part in rows.iter_slices(BATCH_ROWS)])

    return describe
