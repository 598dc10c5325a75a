"""What differs between the rows of two versions of the data: added, removed, or changed, and what it was before.

A row is its id, a digest of its content: where both versions have it, it is the same, wherever it stands in its file.
Of the others one is a changed one where it stands in the place of one that went: that has at least half of its word
3-grams, or lies between the same rows of the file. A record's number alone tells no place, as one more record at the
top of a file moves all others.
"""

import numpy as np
import polars as pl
import scipy.sparse

from stages.common.rows import text_of_row
from stages.common.shingles import Ragged, ngram_sets, tokenise

NGRAM, LEAST = 3, 0.5
CHUNK = 200  # rows compared with all others at a time
PLACE = ["source", "file", "record", "branch"]
PAIR_SCHEMA = pl.Schema({"former_id": pl.String, "row_id": pl.String, "similarity": pl.Float64})
NO_PAIRS = pl.DataFrame(schema=PAIR_SCHEMA)
CHANGE_SCHEMA = pl.Schema(
    {
        "source": pl.String,
        "change": pl.String,  # added | removed | changed
        "row_id": pl.String,  # as it is now; of a removed row as it was
        "former_id": pl.String,  # of a changed row: what it was
        "file": pl.String,
        "record": pl.Int64,
        "similarity": pl.Float64,  # of a changed row: Jaccard similarity of the word 3-grams
    }
)


def compare_rows(before: pl.LazyFrame, after: pl.LazyFrame) -> pl.DataFrame:
    """The rows that one of two tables has alone, with CHANGE_SCHEMA, by source in the order of `after`."""
    columns = ["row_id", *PLACE, text_of_row().alias("text")]
    gone = before.join(after.select("row_id"), on="row_id", how="anti").select(columns).collect()
    new = after.join(before.select("row_id"), on="row_id", how="anti").select(columns).collect()
    old, now = (side.select("row_id", "source", "file").collect() for side in (before, after))
    pairs = pair_by_place(old, now, gone, new, NO_PAIRS).filter(pl.col("similarity") >= LEAST)
    for source in gone["source"].unique(maintain_order=True):
        lost, left = (without_pairs(rows, pairs).filter(source=source) for rows in (gone, new))
        pairs = pl.concat([pairs, match_nearest(lost, left)])
    pairs = pl.concat([pairs, pair_by_place(old, now, gone, new, pairs)])
    changed = pairs.join(new, on="row_id").with_columns(change=pl.lit("changed"))
    added = without_pairs(new, pairs).with_columns(change=pl.lit("added"))
    removed = without_pairs(gone, pairs).with_columns(change=pl.lit("removed"))
    whole = pl.concat([changed, added, removed], how="diagonal")
    return whole.match_to_schema(CHANGE_SCHEMA, missing_columns="insert", extra_columns="ignore").sort(
        "source", "change", "file", "record", "row_id"
    )


def without_pairs(rows: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows that stand in no pair, on either side."""
    return rows.filter(~pl.col("row_id").is_in(pl.concat([pairs["row_id"], pairs["former_id"]]).implode()))


def pair_by_place(
    before: pl.DataFrame, after: pl.DataFrame, gone: pl.DataFrame, new: pl.DataFrame, pairs: pl.DataFrame
) -> pl.DataFrame:
    """PAIR_SCHEMA: rows that went and came between the same two rows of a file, in order, where as many came as went.

    before, after: row_id, source and file of all rows in their order; pairs: rows that are known to be the same.
    """
    lost, left = without_pairs(gone, pairs), without_pairs(new, pairs)
    names = dict(pairs.select("former_id", "row_id").iter_rows())
    known = before.with_columns(row_id=pl.col("row_id").replace(names) if names else pl.col("row_id"))
    gaps = [find_gaps(rows, only["row_id"]) for rows, only in ((known, lost), (after, left))]
    place = ["source", "file", "above", "below", "number", "count"]
    same = gaps[1].join(gaps[0].rename({"row_id": "former_id"}), on=place, how="inner", nulls_equal=True)
    same = same.join(new.select("row_id", "text"), on="row_id", how="left", maintain_order="left").join(
        gone.select(former_id="row_id", former="text"), on="former_id", how="left", maintain_order="left"
    )
    similarity = jaccard(sets_of(same["text"]), sets_of(same["former"]))
    return same.select("former_id", "row_id", similarity=pl.Series(similarity, dtype=pl.Float64))


def find_gaps(rows: pl.DataFrame, alone: pl.Series) -> pl.DataFrame:
    """Of the rows `alone`: the nearest other rows of their file above and below, and number and count between these."""
    file, other = ["source", "file"], pl.when(~pl.col("row_id").is_in(alone.implode())).then("row_id")
    return (
        rows.with_columns(above=other.forward_fill().over(file), below=other.backward_fill().over(file))
        .filter(pl.col("row_id").is_in(alone.implode()))
        .with_columns(
            number=pl.int_range(pl.len()).over(*file, "above", "below"), count=pl.len().over(*file, "above", "below")
        )
    )


def sets_of(texts: pl.Series) -> Ragged:
    return ngram_sets(tokenise(texts), NGRAM)


def jaccard(one: Ragged, other: Ragged) -> np.ndarray:
    """Similarity of the i-th set of one with the i-th of the other."""
    first, second = as_matrices(one, other)
    common = np.asarray(first.multiply(second).sum(axis=1)).reshape(-1)
    union = one.counts() + other.counts() - common
    return np.where(union > 0, common / np.maximum(union, 1), 1.0)


def as_matrices(one: Ragged, other: Ragged) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Sets as rows of two matrices with the same columns."""
    numbers, places = np.unique(np.concatenate([one.values, other.values]), return_inverse=True)
    cut, found = len(one.values), []
    for sets, columns in ((one, places[:cut]), (other, places[cut:])):
        shape = (len(sets.offsets) - 1, len(numbers))
        found.append(scipy.sparse.csr_array((np.ones(len(columns), np.int32), columns, sets.offsets), shape=shape))
    return found[0], found[1]


def match_nearest(gone: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """PAIR_SCHEMA: each row at most once, the most similar pairs first."""
    one, other = sets_of(gone["text"]), sets_of(new["text"])
    first, second = as_matrices(one, other)
    turned, candidates = second.T.tocsr(), []
    for start in range(0, gone.height, CHUNK):
        common = (first[start : start + CHUNK] @ turned).tocoo()
        left, right = common.coords[0] + start, common.coords[1]
        similarity = common.data / (one.counts()[left] + other.counts()[right] - common.data)
        near = similarity >= LEAST
        candidates.append(np.stack([-similarity[near], left[near], right[near]]))
    ordered = sorted(zip(*np.concatenate(candidates, axis=1).tolist(), strict=True)) if candidates else []
    used: tuple[set[float], set[float]] = (set(), set())
    pairs = []
    for distance, left_row, right_row in ordered:
        if left_row not in used[0] and right_row not in used[1]:
            used[0].add(left_row)
            used[1].add(right_row)
            pairs.append((gone["row_id"][int(left_row)], new["row_id"][int(right_row)], -distance))
    return pl.DataFrame(pairs, PAIR_SCHEMA, orient="row")
