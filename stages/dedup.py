"""Drop exact and near duplicates, within and across sources.

data/pool/{rows,probes}.parquet → data/dedup/{rows,ledger,probes}.parquet, data/clusters/{clusters,alike}.parquet,
metrics/dedup.json, metrics/plots/dedup_scurve.csv

Rows are ranked: source (the order of `sources` in params.yaml), then longer text, then row_id. So who survives never
depends on the order of arrival. Rows of one `kind` are compared with each other:

- exact: the same conversation, prompt and replies after normalise(), with the same tools and roles;
- near: the Jaccard similarity of the sets of word n-grams reaches `threshold`. Candidates come from MinHash signatures
  (Broder 1997; datasketch's scheme affine32) in `bands` x `rows` LSH; each is then compared exactly. In the mode
  `careful` what differs must not matter either (deduplication/second_look.py): rows that are similar but say other
  things stay, and stand in alike.parquet. In both modes other tools or other speakers keep rows apart; but a
  conversation that goes on where another one ends repeats it.

A pair whose replies are exchanged, or an unpaired row with the other label, contradicts the row that it repeats:
nobody can tell which of them is right. `swapped_labels` says whether all of such a cluster goes or the best ranked
stays.

Rows are taken in the order of their rank, and each is compared with the rows kept before it that share a bucket with
it; it goes when one of them is near, and is named after the most similar. That is the greedy choice, and it guarantees:

1. every row of a cluster has that exact similarity to the cluster's best ranked row: no chains;
2. two rows of similarity s >= threshold that share no bucket both stay, with probability (1 - s^rows)^bands, and so
   do two whose common buckets all held BUCKET_LIMIT better ranked rows already (`full_buckets` counts those);
3. memory grows with rows x bands, time with rows x bands x BUCKET_LIMIT at the very worst: a bucket of 10,000 rows of
   one text never becomes 50 million pairs, because a dropped row is never listed.

Everything works on whole columns, in batches that fit a core's cache and in threads.
"""

from stages.common.stage import run, say  # isort: skip
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xxhash

from stages.common.contracts import write_tables
from stages.common.engine import LOCAL, Engine, map_batches, slices
from stages.common.errors import InputError
from stages.common.files import digest_files, write_csv, write_json
from stages.common.ledger import ledger_lines
from stages.common.params import load, load_sources
from stages.common.probes import PROBES, SOURCE, add_probes, read_probes, score
from stages.common.row_contracts import ALIKE, CLUSTERS, DEDUP, DEDUP_LEDGER, POOL
from stages.common.shingles import Positions, limit_threads, map_in_threads, normalise_texts
from stages.deduplication.buckets import APART, BUCKET_LIMIT, CONTRADICTS, Near, assign_buckets, choose_kept
from stages.deduplication.comparison import Comparison, Rows
from stages.deduplication.first_differences import WHY
from stages.deduplication.params import Dedup, candidate_probability, even_similarity
from stages.deduplication.signatures import (
    BATCH_ROWS,
    describe_rows,
    make_describer,
    number_frames,
    row_frames,
    row_texts,
)
from stages.probes.similarity import judge_duplicates

EXACT = ["kind", "frame", "content"]  # what equal rows have in common, before their texts are compared
PROBED_ROWS = 20_000
RAY_ROWS = 20_000  # of a batch that travels


def describe_all(rows: pl.DataFrame, params: Dedup, engine: Engine) -> pl.DataFrame:
    """describe_rows of all rows, batch by batch: in threads, which NumPy lets run side by side, or on Ray."""
    if engine.name == "ray":
        tables, total = slices(rows, RAY_ROWS)
        described = map_batches(partial(make_describer, params), tables, engine, "dedup: signatures", total)
        return pl.concat(list(described) or [describe_rows(rows, params)])
    batches = [(start, BATCH_ROWS) for start in range(0, rows.height, BATCH_ROWS)]
    parts = map_in_threads(
        lambda start, count: describe_rows(rows.slice(start, count), params), batches, "dedup: signatures"
    )
    return pl.concat(parts) if parts else describe_rows(rows, params)


def rank_rows(rows: pl.DataFrame, sources: list[str], params: Dedup, engine: Engine) -> pl.DataFrame:
    """The description of each row, best ranked first, with `place`, its position in `rows`.

    Raises InputError on an unknown source.
    """
    unknown = rows.filter(~pl.col("source").is_in(sources))["source"].unique().sort().to_list()
    if unknown:
        raise InputError(f"data/pool/rows.parquet: source {unknown[0]} is not in params.yaml; run `dvc repro pool`")
    table = rows.select("row_id", "source", "kind", "label").with_row_index("place")
    priority = pl.col("source").replace_strict(sources, range(len(sources)), return_dtype=pl.Int64)
    table = table.with_columns(number_frames(rows)).hstack(describe_all(rows, params, engine))
    return table.sort(priority, -pl.col("length").cast(pl.Int64), "row_id")


def mark_exact(ranked: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """Columns `head` (position of the best ranked row of the same content) and `swapped` (it contradicts that row).

    texts: the row_texts of the ranked rows that share with another one what EXACT names.
    """
    chosen, rejected = pl.col("chosen"), pl.col("rejected")
    position = ranked.select(pl.int_range(pl.len()).alias("position"))["position"]
    shared = ranked.select(pl.struct(EXACT).is_duplicated()).to_series()
    table = ranked.filter(shared).select("kind", "frame", "label").with_columns(position.filter(shared))
    table = table.hstack([normalise_texts(column) for column in texts])
    table = table.with_columns(
        low=pl.min_horizontal(chosen, rejected), high=pl.max_horizontal(chosen, rejected), straight=chosen <= rejected
    )
    content = ["kind", "frame", "messages", "low", "high"]
    first = pl.col("label", "straight").first().over(content)
    marks = table.select(
        "position",
        head=pl.col("position").first().over(content),
        swapped=pl.any_horizontal(pl.col("label", "straight").ne_missing(first)),
    )
    every = position.to_frame().join(marks, on="position", how="left", maintain_order="left")
    return every.select(pl.col("head").fill_null(pl.col("position")), pl.col("swapped").fill_null(False))


def mark_near(ranked: pl.DataFrame, rows: pl.DataFrame, params: Dedup) -> Near:
    """Near duplicates among ranked rows of which no two are exactly equal. rows: where their `place` points."""
    places = ranked["place"].to_numpy()
    compared = Rows(
        read=lambda at: row_texts(rows[places[at]]),
        read_frames=lambda at: row_frames(rows[places[at]]),
        bytes=ranked["bytes"].to_numpy(),
        grams=ranked["grams"].to_numpy(),
        preference=(ranked["kind"] == "preference").to_numpy(),
        label=ranked["label"].cast(pl.Int8).fill_null(0).to_numpy(),
        frame=ranked["frame"].to_numpy(),
    )
    kinds = {kind: xxhash.xxh64_intdigest(kind.encode()) for kind in ranked["kind"].unique()}
    groups = ranked["kind"].replace_strict(kinds, return_dtype=pl.UInt64).to_numpy()
    buckets = assign_buckets(ranked["keys"].to_numpy(), groups)
    buckets[compared.grams == 0] = -1  # without words there is nothing to compare
    return choose_kept(buckets, Comparison(compared, params))


def mark_duplicates(
    rows: pl.DataFrame, sources: list[str], params: Dedup, engine: Engine = LOCAL
) -> tuple[pl.DataFrame, pl.DataFrame, Near]:
    """What becomes of each row, best ranked first, and the rows that are alike but stay (columns of ALIKE).

    row_id, source; cluster and cluster_source: the best ranked row that it repeats or contradicts, itself where there
    is none; similarity to it; reason (null: kept); other_id: the row that the reason speaks of. A row equal to a near
    duplicate is in that one's cluster, with that one's similarity.
    """
    ranked = rank_rows(rows, sources, params, engine)
    shared = ranked.filter(pl.struct(EXACT).is_duplicated())
    exact = mark_exact(ranked, row_texts(rows[shared["place"]]))
    heads, positions = exact["head"].to_numpy(), np.arange(ranked.height)
    unique = np.flatnonzero(heads == positions)
    near = mark_near(ranked[unique], rows, params)
    tops, similarity, crossed = positions.copy(), np.ones(ranked.height), np.zeros(ranked.height, np.bool_)
    tops[unique], similarity[unique], crossed[unique] = (
        unique[near.survivor], near.similarity, near.verdict == CONTRADICTS
    )  # fmt: skip
    tops, similarity, crossed = tops[heads], similarity[heads], crossed[heads] ^ exact["swapped"].to_numpy()
    reason = np.where(tops == heads, "exact_duplicate", "near_duplicate").astype(object)
    others = tops.copy()
    reason[tops == positions] = None
    reason[crossed] = "swapped_labels"
    if params.swapped_labels == "drop_both":
        witness = np.full(ranked.height, -1)  # of each cluster the best ranked row that contradicts its first one
        against = np.flatnonzero(crossed)[::-1]
        witness[tops[against]] = against
        refuted = (witness[tops] >= 0) & ~crossed
        others[refuted], reason[refuted] = witness[tops[refuted]], "swapped_labels"
        first = refuted & (tops == positions)
        similarity[first] = similarity[witness[first]]
    names, sources_of = ranked["row_id"], ranked["source"]
    marks = ranked.select("row_id", "source").with_columns(
        names[tops].alias("cluster"),
        sources_of[tops].alias("cluster_source"),
        pl.Series("similarity", similarity),
        pl.Series("reason", reason.tolist(), pl.String),
        names[others].alias("other_id"),
    )
    return marks, list_alike(marks, unique, near), near


def list_alike(marks: pl.DataFrame, unique: Positions, near: Near) -> pl.DataFrame:
    """For each row that stays the most similar one before it that says something else, and what differs."""
    at = np.flatnonzero(near.alike >= 0)
    ids = marks["row_id"]
    table = pl.DataFrame(
        {
            "row_id": ids[unique[at]],
            "other_id": ids[unique[near.alike[at]]],
            "similarity": near.alike_similarity[at],
            "why": [WHY[kind] for kind in (near.alike_verdict[at] - APART).tolist()],
        },
        ALIKE.columns,
    )
    kept = marks.filter(pl.col("reason").is_null())["row_id"].implode()
    return table.filter(pl.col("row_id").is_in(kept) & pl.col("other_id").is_in(kept)).sort("row_id")


def list_clusters(marks: pl.DataFrame) -> pl.DataFrame:
    """Clusters of several rows: cluster (its best ranked row), row_id, similarity to that one, kept."""
    clusters = marks.select("cluster", "row_id", "similarity", kept=pl.col("reason").is_null())
    return clusters.filter(pl.len().over("cluster") > 1).sort("cluster", ~pl.col("kept"), "row_id")


def measure(
    marks: pl.DataFrame, clusters: pl.DataFrame, alike: pl.DataFrame, near: Near, params: Dedup
) -> dict[str, Any]:
    """metrics/dedup.json."""
    dropped = marks.filter(pl.col("reason").is_not_null())
    reasons = dict(dropped.group_by("reason").len().iter_rows())
    why = dict(alike.group_by("why").len().iter_rows())
    by_source = dropped.group_by("source", "reason").len().sort("source", "reason")
    sizes = clusters.group_by("cluster").len()["len"]
    return {
        "rows_in": marks.height,
        "rows_out": marks.height - dropped.height,
        "exact_duplicates": reasons.get("exact_duplicate", 0),
        "near_duplicates": reasons.get("near_duplicate", 0),
        "swapped_labels": reasons.get("swapped_labels", 0),
        "dropped_by_source": {
            source: dict(table.select("reason", "len").iter_rows())
            for (source,), table in by_source.group_by("source", maintain_order=True)
        },
        "clusters": len(sizes),
        "largest_cluster": int(sizes.max() or 0),  # type: ignore[arg-type]
        "alike": {kind: why.get(kind, 0) for kind in WHY},
        "candidates": near.candidates,
        "verified": near.verified,
        "full_buckets": near.full_buckets,
        "cross_source": dropped.filter(pl.col("source") != pl.col("cluster_source")).height,
        "near_recall_at_threshold": float(candidate_probability(params.threshold, params)),
    }


def describe_drop(row_id: str, reason: str, other_id: str, similarity: float) -> dict[str, str | None]:
    """A line of the ledger."""
    detail = f"similarity={similarity:.2f}"
    return {"row_id": row_id, "action": "drop", "reason": reason, "other_id": other_id, "detail": detail}


def try_probes(probes: pl.DataFrame, rows: pl.DataFrame, sources: list[str], params: Dedup) -> pl.DataFrame:
    """The probes with what became of them, beside the rows that they copy and PROBED_ROWS others.

    That is a run of its own: among the rows they would change which words are known, and contradict what they copy.
    """
    copied = pl.col("row_id").is_in(probes["target"].implode())
    beside = pl.concat([rows.filter(copied), rows.filter(~copied).sort("row_id").head(PROBED_ROWS)])
    alone = params.model_copy(update={"swapped_labels": "keep_first"})
    marks, _, _ = mark_duplicates(add_probes(beside, probes), [*sources, SOURCE], alone)
    return judge_duplicates(probes, beside, marks.rename({"cluster": "survivor"}), params.ngram, params.threshold)


def main() -> None:
    params = load(Dedup, "dedup")
    rows, (probes, later) = POOL.read(), read_probes("pool", "dedup")
    sources, engine = [source.name for source in load_sources()], load(Engine, "engine")
    limit_threads(engine.workers)
    marks, alike, near = mark_duplicates(rows, sources, params, engine)
    probes = try_probes(probes, rows, sources, params)
    dropped = marks.filter(pl.col("reason").is_not_null()).sort("row_id")
    kept = rows.filter(~pl.col("row_id").is_in(dropped["row_id"].implode()))
    lines = dropped.select("row_id", "reason", "other_id", "similarity").iter_rows()
    ledger = ledger_lines("dedup", [describe_drop(*line) for line in lines])
    clusters = list_clusters(marks)
    metrics = measure(marks, clusters, alike, near, params) | {"probes": score(probes)}
    similarity = np.linspace(0, 1, 51)
    curve = {"similarity": similarity, "probability": candidate_probability(similarity, params)}
    handed_on = {PROBES["dedup"]: pl.concat([probes, later]), CLUSTERS: clusters, ALIKE: alike}
    write_tables({DEDUP: kept, DEDUP_LEDGER: ledger, **handed_on}, rows_in=rows, rows_out=kept)
    write_json("metrics/dedup.json", metrics | {"digest": digest_files(Path("data/dedup").glob("*.parquet"))})
    write_csv("metrics/plots/dedup_scurve.csv", pl.DataFrame(curve))
    say("dedup", "{rows_in} rows, {exact_duplicates} exact and {near_duplicates} near duplicates".format(**metrics))
    say("dedup", describe_curve(params))
    if near.full_buckets:
        say("dedup", describe_full_buckets(near.full_buckets))


def describe_full_buckets(number: int) -> str:
    """What full buckets cost, and what to do."""
    return (
        f"warning: {number} buckets are full ({BUCKET_LIMIT} kept rows), so a duplicate of a later row may stay. Many "
        "rows share a template; a larger dedup.rows or dedup.ngram tells them apart"
    )


def describe_curve(params: Dedup) -> str:
    """The S-curve in one line."""
    found = float(candidate_probability(params.threshold, params))
    return (
        f"{params.bands} bands of {params.rows} rows compare {found:.2%} of the pairs at the threshold "
        f"{params.threshold}, half of those at {even_similarity(params):.2f}"
    )


if __name__ == "__main__":
    run("dedup", main, outputs=["data/dedup", "data/clusters"])
