"""What differs between the rows of two versions of the data: added, removed, or changed, and what it was before.

A row is its id, a digest of its content: where both versions have it, it is the same, wherever it stands in its file.
Of the others one is a changed one where the same record of the same file, or else a row of the same source with at
least half of its word 3-grams, has come in the place of one that went.
"""

import numpy as np
import polars as pl
import scipy.sparse

from stages.common.rows import text_of_row
from stages.common.shingles import Ragged, ngram_sets, tokenise

NGRAM, LEAST = 3, 0.5
CHUNK = 200  # rows compared with all others at a time
PLACE = ["source", "file", "record", "branch"]
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
    same_place = new.join(gone, on=PLACE, how="inner", nulls_equal=True, suffix="_former")
    same_place = same_place.unique("row_id_former", keep="first", maintain_order=True)
    similarity = jaccard(sets_of(same_place["text"]), sets_of(same_place["text_former"]))
    pairs = [same_place.select(former_id="row_id_former", row_id="row_id", similarity=pl.Series(similarity))]
    left = new.filter(~pl.col("row_id").is_in(same_place["row_id"].implode()))
    lost = gone.filter(~pl.col("row_id").is_in(same_place["row_id_former"].implode()))
    for source in lost["source"].unique(maintain_order=True):
        pairs.append(match_nearest(lost.filter(source=source), left.filter(source=source)))
    changed = pl.concat(pairs).join(new, on="row_id").with_columns(change=pl.lit("changed"))
    added = new.filter(~pl.col("row_id").is_in(changed["row_id"].implode())).with_columns(change=pl.lit("added"))
    removed = gone.filter(~pl.col("row_id").is_in(changed["former_id"].implode())).with_columns(
        change=pl.lit("removed")
    )
    whole = pl.concat([changed, added, removed], how="diagonal")
    return whole.match_to_schema(CHANGE_SCHEMA, missing_columns="insert", extra_columns="ignore").sort(
        "source", "change", "file", "record", "row_id"
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
    """former_id, row_id, similarity: each row at most once, the most similar pairs first."""
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
    return pl.DataFrame(pairs, {"former_id": pl.String, "row_id": pl.String, "similarity": pl.Float64}, orient="row")
