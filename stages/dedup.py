"""Drop exact and near duplicates, within and across sources.

data/pool/{rows,probes}.parquet → data/dedup/{rows,ledger,clusters,probes}.parquet, metrics/dedup.json,
metrics/plots/dedup_scurve.csv

Rows are ranked: source (the order of `sources` in params.yaml), then longer text, then row_id. So who survives never
depends on the order of arrival. Rows of one `kind` are compared with each other:

- exact: the same conversation, prompt and replies after normalise(). A pair whose replies are exchanged, or an unpaired
  row with the other label, contradicts the row that it repeats: it goes as `swapped_labels`.
- near: the Jaccard similarity of the sets of word n-grams reaches `threshold`. Candidates come from MinHash signatures
  (Broder 1997; datasketch, scheme affine32) in `bands` x `rows` LSH; each is then compared exactly.

Rows are taken in the order of their rank, and each is compared with the rows kept before it that share a bucket with
it; it goes when the most similar of them reaches the threshold, else it is kept and listed in its buckets. That is the
greedy choice, and it guarantees:

1. every dropped row has that exact similarity to the row named beside it, which is kept and better ranked: no chains;
2. two rows of similarity s >= threshold that share no bucket both stay, with probability (1 - s^rows)^bands, and so
   do two whose common buckets all held BUCKET_LIMIT better ranked rows already (`full_buckets` counts those);
3. memory grows with rows x bands, time with rows x bands x BUCKET_LIMIT at the very worst: a bucket of 10,000 rows of
   one template never becomes 50 million pairs, because a dropped row is never listed.

Only rows that share a bucket with another one enter that loop; everything before it works on whole columns.
"""

from stages.common.stage import run, say  # isort: skip
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash
from pydantic import Field
from tqdm import tqdm

from stages.common.errors import InputError
from stages.common.files import write_csv, write_json, write_table
from stages.common.ledger import check_balance, ledger_lines
from stages.common.params import Params, PositiveInt, Seed, load, load_sources
from stages.common.probes import SOURCE, add_probes, read_probes, score, split_off
from stages.common.rows import CONVERSATIONS, read_rows, texts_of
from stages.common.shingles import MULTIPLIER, Ragged, ngram_sets, normalise_texts, offsets_of, read_tokens, take_texts
from stages.probes.similarity import judge_duplicates

BUCKET_LIMIT = 1000  # kept rows listed in a bucket


class Dedup(Params):
    """Which rows repeat another one."""

    threshold: Annotated[float, Field(gt=0, le=1)]
    """Jaccard similarity in (0, 1] of word n-grams from which two rows are duplicates."""
    ngram: PositiveInt
    """Words per n-gram (characters in scripts without spaces)."""
    bands: PositiveInt
    """LSH bands; a pair of similarity s is a candidate with probability 1 - (1 - s^rows)^bands."""
    rows: PositiveInt
    """Signature values per band; bands x rows hashes are computed for a row."""
    seed: Seed
    """Of the hash functions."""


class Near(NamedTuple):
    """What the near comparison found, by position in the ranked rows."""

    survivor: npt.NDArray[np.int64]
    """The kept row that each row repeats; itself where it is kept."""
    similarity: npt.NDArray[np.float64]
    """Exact Jaccard similarity to it; 1 where it is kept."""
    candidates: int
    """Pairs of a row and a kept row that shared a bucket."""
    verified: int
    """Those whose similarity reached the threshold."""
    full_buckets: int
    """Buckets that were full when a row was to be listed."""


def candidate_probability(similarity: npt.ArrayLike, params: Dedup) -> npt.NDArray[np.float64]:
    """The S-curve of the LSH: 1 - (1 - s^rows)^bands."""
    return 1 - (1 - np.asarray(similarity, np.float64) ** params.rows) ** params.bands


def rank_rows(rows: pl.DataFrame, sources: list[str]) -> pl.DataFrame:
    """Rows with normalised prompt, chosen and rejected, best ranked first. Raises InputError on an unknown source."""
    unknown = rows.filter(~pl.col("source").is_in(sources))["source"].unique().sort().to_list()
    if unknown:
        raise InputError(f"data/pool/rows.parquet: source {unknown[0]} is not in params.yaml; run `dvc repro pool`")
    texts = rows.select(texts_of(column) for column in CONVERSATIONS)
    table = rows.select("row_id", "source", "kind", "label").with_columns(normalise_texts(text) for text in texts)
    length = pl.sum_horizontal(pl.col(column).str.len_chars() for column in CONVERSATIONS)
    priority = pl.col("source").replace_strict(sources, range(len(sources)), return_dtype=pl.Int64)
    return table.sort(priority, -length.cast(pl.Int64), "row_id")


def mark_exact(ranked: pl.DataFrame) -> pl.DataFrame:
    """Columns `head` (position of the best ranked row of the same content) and `swapped` (it contradicts that row)."""
    chosen, rejected = pl.col("chosen"), pl.col("rejected")
    table = ranked.select(
        "kind",
        "label",
        "messages",
        low=pl.min_horizontal(chosen, rejected),
        high=pl.max_horizontal(chosen, rejected),
        straight=chosen <= rejected,
        position=pl.int_range(pl.len()),
    )
    content = ["kind", "messages", "low", "high"]
    first = pl.col("label", "straight").first().over(content)
    differs = pl.any_horizontal(pl.col("label", "straight").ne_missing(first))
    return table.select(head=pl.col("position").first().over(content), swapped=differs)


def sign_texts(sets: Ragged, params: Dedup) -> npt.NDArray[np.uint32]:
    """MinHash signatures (texts, bands * rows). datasketch hashes the 8 bytes of each n-gram's number."""
    from datasketch import MinHash

    grams = sets.values.astype("<u8").view("S8")  # trailing zero bytes are cut off: still one value each
    texts = (grams[start:end].tolist() for start, end in zip(sets.offsets, sets.offsets[1:], strict=False))
    width = params.bands * params.rows
    signatures = np.empty((len(sets.offsets) - 1, width), np.uint32)
    sketches = MinHash.generator(
        texts, num_perm=width, seed=params.seed, scheme="affine32", hashfunc=xxhash.xxh32_intdigest
    )
    for row, sketch in enumerate(tqdm(sketches, desc="dedup: signatures", unit="row", total=len(signatures))):
        signatures[row] = sketch.hashvalues
    return signatures


def assign_buckets(
    signatures: npt.NDArray[np.uint32], groups: npt.NDArray[np.uint64], params: Dedup
) -> npt.NDArray[np.int64]:
    """The bucket of each text in each band (texts, bands), numbered from 0; -1 where no other text is in it.

    Texts of different groups never meet. A bucket is told by a 64-bit number made of its `rows` signature values.
    """
    buckets = np.full((len(signatures), params.bands), -1, np.int64)
    total = 0
    for band in range(params.bands):
        keys = groups.copy()
        for value in signatures[:, band * params.rows : (band + 1) * params.rows].T:
            keys = (keys + value) * MULTIPLIER
            keys ^= keys >> np.uint64(32)
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        shared = counts > 1
        numbers = np.where(shared, np.cumsum(shared) - 1 + total, -1)
        buckets[:, band] = numbers[inverse]
        total += int(shared.sum())
    return buckets


def choose_kept(buckets: npt.NDArray[np.int64], sets: Ragged, threshold: float) -> Near:
    """The greedy choice over texts in the order of their rank: see the top of this file."""
    survivor, similarity = np.arange(len(buckets)), np.ones(len(buckets))
    entering = np.flatnonzero((buckets >= 0).any(axis=1))
    compared = take_texts(sets, entering)
    # n-grams numbered from 0, so that a row's set is a mask over them and an intersection is one look-up per n-gram
    distinct, numbers = np.unique(compared.values, return_inverse=True)
    grams = np.split(numbers, compared.offsets[1:-1])
    mask = np.zeros(len(distinct), np.bool_)
    sizes = compared.counts()
    listed: list[list[int]] = [[] for _ in range(int(buckets.max(initial=-1)) + 1)]
    full: set[int] = set()
    candidates = verified = 0
    for row in tqdm(range(len(entering)), desc="dedup: comparing", unit="row"):
        own = buckets[entering[row]]
        own_buckets = own[own >= 0].tolist()
        others = np.array(sorted(set().union(*(listed[bucket] for bucket in own_buckets))), np.int64)
        candidates += len(others)
        size = sizes[row]  # a similarity of s needs sizes whose ratio is at least s: most candidates end here
        others = others[np.minimum(sizes[others], size) >= threshold * np.maximum(sizes[others], size)]
        if len(others):
            mask[grams[row]] = True
            found = mask[np.concatenate([grams[other] for other in others])]
            common = np.add.reduceat(found, offsets_of(sizes[others])[:-1], dtype=np.int64)
            mask[grams[row]] = False
            shares = common / (size + sizes[others] - common)
            verified += int((shares >= threshold).sum())
            best = int(shares.argmax())  # of equals the best ranked
            if shares[best] >= threshold:
                survivor[entering[row]], similarity[entering[row]] = entering[others[best]], shares[best]
                continue
        for bucket in own_buckets:
            if len(listed[bucket]) < BUCKET_LIMIT:
                listed[bucket].append(row)
            else:
                full.add(bucket)
    return Near(survivor, similarity, candidates, verified, len(full))


def mark_near(ranked: pl.DataFrame, params: Dedup) -> Near:
    """Near duplicates among ranked rows of which no two are exactly equal."""
    text = ranked.select(pl.concat_str(CONVERSATIONS, separator=" ").alias("text"))["text"]
    sets = ngram_sets(read_tokens(text, "dedup: words"), params.ngram)
    # an unpaired row is not compared with rows of the other label: a small edit may be just what turned it
    group = pl.concat_str("kind", pl.col("label").cast(pl.String).fill_null("")).alias("group")
    names = ranked.select(group)["group"]
    numbers = {name: xxhash.xxh64_intdigest(name.encode()) for name in names.unique()}
    groups = names.replace_strict(numbers, return_dtype=pl.UInt64).to_numpy()
    buckets = assign_buckets(sign_texts(sets, params), groups, params)
    buckets[sets.counts() == 0] = -1  # without words there is nothing to compare
    return choose_kept(buckets, sets, params.threshold)


def mark_duplicates(rows: pl.DataFrame, sources: list[str], params: Dedup) -> tuple[pl.DataFrame, Near]:
    """One line per row, best ranked first: row_id, source, survivor, survivor_source, similarity, reason (null: kept).

    A row equal to a near duplicate names what that one repeats, with that one's similarity.
    """
    ranked = rank_rows(rows, sources)
    exact = mark_exact(ranked)
    heads, swapped = exact["head"].to_numpy(), exact["swapped"].to_numpy()
    positions = np.arange(ranked.height)
    unique = np.flatnonzero(heads == positions)
    near = mark_near(ranked[unique], params)
    survivors, similarity = positions.copy(), np.ones(ranked.height)
    survivors[unique], similarity[unique] = unique[near.survivor], near.similarity
    survivors, similarity = survivors[heads], similarity[heads]
    marks = ranked.select("row_id", "source").with_columns(
        ranked[survivors].select(survivor="row_id", survivor_source="source"),
        similarity=similarity,
        reason=pl.when(pl.Series(survivors == positions))
        .then(None)
        .when(pl.Series(swapped))
        .then(pl.lit("swapped_labels"))
        .when(pl.Series(survivors == heads))
        .then(pl.lit("exact_duplicate"))
        .otherwise(pl.lit("near_duplicate")),
    )
    return marks, near


def list_clusters(marks: pl.DataFrame) -> pl.DataFrame:
    """Survivors that something repeats, with what repeats them: cluster, row_id, similarity, kept."""
    clusters = marks.select(
        cluster="survivor", row_id="row_id", similarity="similarity", kept=pl.col("reason").is_null()
    )
    return clusters.filter(pl.len().over("cluster") > 1).sort("cluster", ~pl.col("kept"), "row_id")


def measure(marks: pl.DataFrame, clusters: pl.DataFrame, near: Near, params: Dedup) -> dict[str, int | float]:
    """metrics/dedup.json."""
    dropped = marks.filter(pl.col("reason").is_not_null())
    reasons = dict(dropped.group_by("reason").len().iter_rows())
    sizes = clusters.group_by("cluster").len()["len"]
    return {
        "rows_in": marks.height,
        "rows_out": marks.height - dropped.height,
        "exact_duplicates": reasons.get("exact_duplicate", 0),
        "near_duplicates": reasons.get("near_duplicate", 0),
        "swapped_labels": reasons.get("swapped_labels", 0),
        "clusters": len(sizes),
        "largest_cluster": int(sizes.max() or 0),  # type: ignore[arg-type]
        "candidates": near.candidates,
        "verified": near.verified,
        "full_buckets": near.full_buckets,
        "cross_source": dropped.filter(pl.col("source") != pl.col("survivor_source")).height,
        "near_recall_at_threshold": float(candidate_probability(params.threshold, params)),
    }


def main() -> None:
    params = load(Dedup, "dedup")
    rows, (probes, later) = read_rows("data/pool"), read_probes("data/pool", "dedup")
    sources = [*(source.name for source in load_sources()), SOURCE]
    everything, near = mark_duplicates(add_probes(rows, probes), sources, params)
    probes = judge_duplicates(probes, rows, everything, params.ngram, params.threshold)
    marks, _ = split_off(everything)
    dropped = marks.filter(pl.col("reason").is_not_null()).sort("row_id")
    kept = rows.filter(~pl.col("row_id").is_in(dropped["row_id"].implode()))
    lines = dropped.select("row_id", "reason", "survivor", "similarity").iter_rows()
    ledger = ledger_lines("dedup", [describe_drop(*line) for line in lines])
    check_balance("dedup", rows, kept, ledger)
    clusters = list_clusters(marks)
    metrics = measure(marks, clusters, near, params) | {"probes": score(probes)}
    similarity = np.linspace(0, 1, 51)
    curve = {"similarity": similarity, "probability": candidate_probability(similarity, params)}
    for name, table in {
        "rows": kept,
        "ledger": ledger,
        "clusters": clusters,
        "probes": pl.concat([probes, later]),
    }.items():
        write_table(f"data/dedup/{name}.parquet", table)
    write_json("metrics/dedup.json", metrics)
    write_csv("metrics/plots/dedup_scurve.csv", pl.DataFrame(curve))
    say("dedup", "{rows_in} rows, {exact_duplicates} exact and {near_duplicates} near duplicates".format(**metrics))


def describe_drop(row_id: str, reason: str, survivor: str, similarity: float) -> dict[str, str | None]:
    """A line of the ledger."""
    detail = f"similarity={similarity:.2f}"
    return {"row_id": row_id, "action": "drop", "reason": reason, "other_id": survivor, "detail": detail}


if __name__ == "__main__":
    run("dedup", main, outputs=["data/dedup"])
