"""Tokens and n-grams: the tokeniser over bytes beside the plain one, word by word."""

import unicodedata
from threading import Barrier, current_thread

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.common.rows import normalise
from stages.common.shingles import (
    BATCH_BYTES,
    Ragged,
    batches_of,
    chain,
    distinct,
    hash_tokens,
    limit_threads,
    map_in_threads,
    ngram_sets,
    normalise_texts,
    split_tokens,
    tokenise,
)

LETTERS = (
    "abc XYZ_09 .,!?'\n\t\r\x00\x1c\x85\u00a0 éÉßİ ﬁ Å 頭が 痛い。カー ｶﾞ ก่อน ပြီး བོད ᄀ가 हिन्दी العَرَبِيَّة 🙂👍🏽 —“ ½2⁵₃"
)
TEXTS = st.lists(st.text(st.sampled_from(LETTERS) | st.characters(codec="utf-8"), max_size=40), max_size=6)


@settings(deadline=None, max_examples=200)
@given(TEXTS)
@example(["", "naïve Café", "a" * 100, "Don't\x00stop", "", "頭が痛い"])
def test_tokens_over_bytes_are_those_of_the_pattern(texts: list[str]) -> None:
    plain = split_tokens(pl.Series([normalise(text) for text in texts], dtype=pl.String)).to_list()
    found = tokenise(pl.Series(texts, dtype=pl.String))
    assert found.counts().tolist() == [len(tokens) for tokens in plain]
    words = [word for tokens in plain for word in tokens]
    numbers: dict[str, int] = {}
    for word, number in zip(words, found.values.tolist(), strict=True):
        assert numbers.setdefault(word, number) == number
    assert len(set(numbers.values())) == len(numbers)


@settings(deadline=None)
@given(TEXTS)
def test_columns_are_normalised_as_texts_are(texts: list[str]) -> None:
    assert normalise_texts(pl.Series(texts, dtype=pl.String)).to_list() == [normalise(text) for text in texts]


def test_numbers_beside_numbers_stay_apart() -> None:
    texts = pl.Series(["10⁵", "105", "10^5", "1½", "1 1/2", "11/2", "log₂10", "log210"])
    normalised = normalise_texts(texts).to_list()
    assert normalised[:3] == ["10^5", "105", "10^5"]
    assert len(set(normalised[3:])) == 5
    numbers = [tokenise(texts[place : place + 1]).values.tolist() for place in range(len(texts))]
    assert numbers[0] == numbers[2] != numbers[1]
    assert numbers[3] == numbers[4] != numbers[5]
    assert numbers[6] != numbers[7]


def test_reading_tokens_changes_no_text() -> None:
    texts = pl.Series(["≥ 38 °C", "plain", "ＷＩＤＥ"])
    tokenise(texts)
    assert texts.to_list() == ["≥ 38 °C", "plain", "ＷＩＤＥ"]
    assert normalise_texts(texts).to_list() == ["≥ 38 °c", "plain", "wide"]
    assert texts.to_list() == ["≥ 38 °C", "plain", "ＷＩＤＥ"]


def test_a_token_has_one_number_wherever_it_stands() -> None:
    long = "pneumonoultramicroscopicsilicovolcanoconiosis"
    texts = pl.Series([f"{long} {long.upper()}", f"é {long}", f"{long}s {long[:-1]} {long[:8]} {long[:9]}"])
    values = tokenise(texts).values
    assert values[0] == values[1] == values[3]
    assert len(set(values[3:].tolist())) == 5
    assert hash_tokens(pl.Series([[long], ["é"]])).values.tolist() == [values[0], values[2]]


def test_batches_change_nothing() -> None:
    texts = pl.Series([f"row {number} " + "word " * 3000 for number in range(100)])
    batches = list(batches_of(texts.str.len_bytes().to_numpy()))
    assert len(batches) > 2
    assert sum(count for _, count in batches) == 100
    assert all(start * 15_000 < 100 * BATCH_BYTES for start, _ in batches)
    together = tokenise(texts)
    apart = chain(map_in_threads(lambda start, count: tokenise(texts.slice(start, count)), batches))
    assert (together.values == apart.values).all()
    assert (together.offsets == apart.offsets).all()


@pytest.mark.parametrize("number", [1, 3])
def test_threads_are_as_many_as_asked_for(number: int) -> None:
    together = Barrier(number)  # opens when so many threads wait, and no sooner
    limit_threads(number)
    try:
        names = map_in_threads(lambda start, count: (together.wait(10), current_thread().name)[1], [(0, 1)] * 6)
    finally:
        limit_threads(None)
    assert len(set(names)) == number


def test_sets_of_more_texts_than_fit_one_sort() -> None:
    texts, values = np.arange(70_000).repeat(2)[::-1], np.tile(np.array([7, 9], np.uint64), 70_000)
    sets = distinct(texts, values, 70_000)
    assert sets.values.tolist() == [7, 9] * 70_000
    assert sets.offsets.tolist() == list(range(0, 140_001, 2))


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=8), min_size=1, max_size=5), st.integers(1, 4))
def test_sets_are_those_of_plain_ngrams(texts: list[list[str]], ngram: int) -> None:
    sets: Ragged = ngram_sets(hash_tokens(pl.Series(texts, dtype=pl.List(pl.String))), ngram)
    plain = [
        {tuple(words[start : start + ngram]) for start in range(max(1, len(words) - ngram + 1))} if words else set()
        for words in texts
    ]
    assert sets.counts().tolist() == [len(grams) for grams in plain]
    found = [set(sets.values[start:end].tolist()) for start, end in zip(sets.offsets, sets.offsets[1:], strict=False)]
    for one, grams in zip(found, plain, strict=True):
        for other, others in zip(found, plain, strict=True):
            assert len(one & other) == len(grams & others)


def test_nothing_depends_on_the_version_of_a_library() -> None:
    # worked out by the definition in Python integers: one word of eight bytes at most, its length added
    def mix(value: int) -> int:
        for factor in (0xD6E8FEB86659FD93, 0x9E3779B97F4A7C15):
            value = ((value ^ value >> 32) * factor) % 2**64
        return value ^ value >> 32

    word = unicodedata.normalize("NFKC", "Aﬁ").lower().encode()
    expected = mix((mix(int.from_bytes(word, "little")) + len(word)) % 2**64)
    assert tokenise(pl.Series(["Aﬁ"])).values.tolist() == [expected]
