"""Signatures beside datasketch, the choice of rows beside one made pair by pair, and what must not depend on chance."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.rows import ROW_SCHEMA, message, normalise
from stages.common.shingles import Ragged, hash_tokens, ngram_sets, offsets_of, split_tokens
from stages.dedup import mark_duplicates
from stages.deduplication import buckets, comparison
from stages.deduplication.buckets import BELOW, SAME, Verdicts, assign_buckets, choose_kept
from stages.deduplication.first_differences import WORD, Known, find_first_differences, read_rows
from stages.deduplication.params import Dedup
from stages.deduplication.second_look import say_same
from stages.deduplication.sentences import respell, split_sentences
from stages.deduplication.signatures import sign_sets
from stages.deduplication.verification import jaccard, may_reach

PARAMS = Dedup(mode="jaccard", threshold=0.5, ngram=2, bands=40, rows=1, swapped_labels="keep_first", seed=3)
CAREFUL = PARAMS.model_copy(update={"mode": "careful"})
# Sentences of few words: many texts repeat each other in part
SENTENCES = ["take one tablet", "take two tablets daily", "never take it", "ask the desk", "Ask the desk soon!"]
PHRASES = [
    "I hope this helps.",
    "I had it.",
    "it's 5 mg",
    "it is 5mg",
    "he'll",
    "he will",
    "web site",
    "website.",
    "a/b",
]
TEXTS = st.lists(st.lists(st.sampled_from(SENTENCES), max_size=5).map(". ".join), min_size=1, max_size=12)


def rows_of(texts: list[str]) -> pl.DataFrame:
    empty = dict.fromkeys(ROW_SCHEMA) | {"source": "one", "file": "f", "record": 0, "licence": "CC0-1.0", "kind": "sft"}
    rows = [empty | {"row_id": f"r{n:05}", "messages": [message("user", text)]} for n, text in enumerate(texts)]
    return pl.DataFrame(rows, ROW_SCHEMA)


def fates(rows: pl.DataFrame, params: Dedup) -> list[tuple[str, str, str | None]]:
    """row_id, other_id, reason of each row."""
    marks = mark_duplicates(rows, ["one"], params)[0]
    return sorted(marks.select("row_id", "other_id", "reason").rows(), key=str)


def grams_of(text: str) -> set[tuple[str, ...]]:
    words = split_tokens(pl.Series([normalise(text)])).to_list()[0]
    return {tuple(words[start : start + PARAMS.ngram]) for start in range(max(1, len(words) - 1))} if words else set()


@settings(deadline=None, max_examples=30)
@given(TEXTS)
def test_signatures_are_those_of_datasketch(texts: list[str]) -> None:
    sets = ngram_sets(hash_tokens(split_tokens(pl.Series(texts))), 2)
    signatures = sign_sets(sets, PARAMS)
    for number, (start, end) in enumerate(zip(sets.offsets, sets.offsets[1:], strict=False)):
        theirs = MinHash(num_perm=40, seed=3, scheme="affine32", hashfunc=lambda gram: int(gram) % 2**32)
        theirs.update_batch(sets.values[start:end].tolist())
        assert signatures[:, number].tolist() == theirs.hashvalues.tolist()


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_the_choice_is_that_of_comparing_all_pairs_in_order(texts: list[str]) -> None:
    # 40 bands of one row miss a pair of similarity 0.5 once in 10^12
    rows = rows_of(texts)
    order = sorted(range(len(texts)), key=lambda n: (-len("".join(normalise(texts[n]).split())), n))
    expected: dict[int, int] = {}
    kept: list[int] = []
    for row in order:
        equal = [other for other in order[: order.index(row)] if normalise(texts[other]) == normalise(texts[row])]
        if equal:
            expected[row] = expected[equal[0]]
            continue
        own = grams_of(texts[row])
        shares = {other: len(own & grams_of(texts[other])) / len(own | grams_of(texts[other])) for other in kept if own}
        best = max(shares, key=lambda other: (shares[other], -kept.index(other)), default=None)
        if best is not None and shares[best] >= 0.5:
            expected[row] = best
        else:
            expected[row] = row
            kept.append(row)
    found = {row: other for row, other, _ in fates(rows, PARAMS)}
    assert found == {f"r{row:05}": f"r{other:05}" for row, other in expected.items()}


@settings(deadline=None, max_examples=40)
@given(TEXTS, st.randoms(use_true_random=False), st.sampled_from([PARAMS, CAREFUL]))
def test_the_order_of_rows_is_irrelevant_and_a_second_run_finds_nothing(texts, random, params) -> None:  # type: ignore[no-untyped-def]
    rows = rows_of(texts)
    first = fates(rows, params)
    assert fates(rows.sample(fraction=1, shuffle=True, seed=random.randrange(2**32)), params) == first
    kept = rows.filter(pl.col("row_id").is_in([row for row, _, reason in first if reason is None]))
    assert all(reason is None for _, _, reason in fates(kept, params))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 2**48 - 1) | st.integers(0, 30), max_size=60), min_size=2, max_size=8),
    st.floats(0.1, 1),
)
def test_the_bound_is_never_below_the_similarity(values: list[list[int]], threshold: float) -> None:
    ascending = [sorted(set(numbers)) for numbers in values]
    flat = np.array([number for numbers in ascending for number in numbers], np.uint64)
    sets = Ragged(flat, offsets_of(np.array([len(numbers) for numbers in ascending])))
    left, right = np.triu_indices(len(values))
    similarity = jaccard(sets, sets, left, right)
    for one, other, found in zip(left, right, similarity, strict=True):
        a, b = set(ascending[one]), set(ascending[other])
        assert found == pytest.approx(len(a & b) / len(a | b) if a | b else 1.0)
    assert not (~may_reach(sets, left, right, threshold) & (similarity >= threshold)).any()


def test_a_bucket_of_one_text_makes_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    # 20,000 rows in one bucket of each of 3 bands, all like the first: 200 million pairs, were all looked at
    compared = 0

    def all_same(later: np.ndarray, earlier: np.ndarray) -> Verdicts:
        nonlocal compared
        compared += len(later)
        return Verdicts(np.ones(len(later)), np.full(len(later), SAME, np.int8))

    keys = np.zeros((20_000, 3), np.uint64)
    near = choose_kept(assign_buckets(keys, np.zeros(20_000, np.uint64)), all_same)
    assert (near.survivor == 0).all()
    assert compared <= 20_000 + buckets.BLOCK**2 / 2


def test_a_bucket_of_unlike_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET_LIMIT", 50)
    monkeypatch.setattr(buckets, "PAIR_LIMIT", 2_000)
    largest = 0

    def none_same(later: np.ndarray, earlier: np.ndarray) -> Verdicts:
        nonlocal largest
        largest = max(largest, len(later))
        return Verdicts(np.zeros(len(later)), np.full(len(later), BELOW, np.int8))

    near = choose_kept(assign_buckets(np.zeros((3_000, 2), np.uint64), np.zeros(3_000, np.uint64)), none_same)
    assert (near.survivor == np.arange(3_000)).all()
    assert near.full_buckets == 2
    assert largest <= 2_000
    assert near.candidates <= 3_000 * (50 + 64)


def test_groups_never_meet() -> None:
    found = assign_buckets(np.zeros((4, 1), np.uint64), np.array([1, 2, 1, 3], np.uint64))
    assert found.tolist() == [[0], [-1], [0], [-1]]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.sampled_from(SENTENCES + PHRASES), max_size=5).map(" ".join), min_size=1, max_size=12),
    st.sampled_from(["", ". And so on the list goes here for a while, with many words."]),
)
def test_what_is_settled_at_first_sight_is_so_at_the_second_look(texts: list[str], end: str) -> None:
    rows = pl.Series([text + end for text in texts])
    known = Known(lambda start, count: rows.slice(start, count), rows.str.len_bytes().to_numpy())
    reading = read_rows(rows, known)
    left, right = np.triu_indices(len(texts), 1)
    settled = find_first_differences(reading, reading, left, right)
    for one, other, kind in zip(left.tolist(), right.tolist(), settled, strict=True):
        if kind >= 0:
            said = (split_sentences(text) for text in respell(rows[[one, other]]))
            assert say_same(*said, known.__contains__) is not None


@pytest.mark.parametrize("count", [36, 136])
def test_a_difference_in_the_last_words_is_settled_at_first_sight(count: int) -> None:
    words = " ".join(f"w{number}x" for number in range(count))
    rows = pl.Series([f"{words} {name}" for name in ("asthma", "gout", "asthma", "gout")])
    reading = read_rows(rows, Known(lambda start, size: rows.slice(start, size), rows.str.len_bytes().to_numpy()))
    found = find_first_differences(reading, reading, np.array([0, 0, 1]), np.array([1, 2, 2]))
    assert found.tolist() == [WORD, -1, WORD]


def test_the_sets_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "CACHE_VALUES", 3_000)
    texts = [" ".join(f"v{number}w{row // 2}" for number in range(500)) for row in range(40)]  # 499 2-grams each
    table = pl.DataFrame({"messages": texts, "chosen": [""] * 40, "rejected": [""] * 40})
    nothing = np.zeros(40, np.int64)
    rows = comparison.Rows(
        lambda at: table[at], lambda at: pl.DataFrame(), nothing, np.full(40, 499, np.int32), nothing > 0,
        nothing.astype(np.int8), nothing,
    )  # fmt: skip
    compare = comparison.Comparison(rows, PARAMS)
    later, earlier = np.triu_indices(40, 1)[::-1]
    found = compare(later, earlier)
    assert (found.similarity == (later // 2 == earlier // 2)).all()
    assert len(compare.sets.values) <= 2**16
    assert compare.sets.filled <= 3_000


def test_two_hash_seeds_give_the_same_bytes(tmp_path: Path) -> None:
    code = """
import polars as pl, sys
sys.path.insert(0, "tests")
from test_deduplication import CAREFUL, rows_of
from stages.dedup import mark_duplicates
words = [f"w{n % 7}x{n % 11}" for n in range(400)]
texts = [" ".join(words[n : n + 30]) + f" {n % 3}" for n in range(200)]
for number, table in enumerate(mark_duplicates(rows_of(texts), ["one"], CAREFUL)[:2]):
    table.write_parquet(f"{sys.argv[1]}/{number}.parquet")
"""
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": "."}
        subprocess.run([sys.executable, "-c", code, tmp_path / seed], check=True, env=environment, capture_output=True)
    for name in ("0.parquet", "1.parquet"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
