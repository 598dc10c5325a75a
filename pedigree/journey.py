"""The way of rows through the graph, read back out of tables and ledgers: from a line of a raw file to optimiser steps.

A journey is a table of events, one for each stage that a row reached: read, kept, changed, dropped (with the reason of
the ledger and the row or item that it speaks of; of a duplicate also the models that carry the row in its place), train
or heldout, left out, trained (how often, first and last step); unknown where the tables of a stage are not here, or are
of another run.
Every function works on whole columns, so that a million rows are followed as easily as one.
"""

from collections.abc import Iterable

import polars as pl

from pedigree.snapshot import Snapshot
from stages.common.errors import InputError

ORIGIN = ["row_id", "source", "file", "record", "branch", "licence", "subject", "kind"]
EVENTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "row_id": pl.String,
    "stage": pl.String,
    "event": pl.String,  # read, kept, changed, dropped, unknown, train, heldout, left_out, trained, calibrated
    "reason": pl.String,
    "other_id": pl.String,
    "detail": pl.String,
    "times": pl.Int64,
    "first_step": pl.Int64,
    "last_step": pl.Int64,
    "other_models": pl.List(pl.String),  # where dedup dropped the row: the models that carry the row other_id
}
EVENT_SCHEMA = pl.Schema(EVENTS)
JUDGED = ("dedup", "scrub", "decontaminate")  # stages whose ledger has a line for each row that they drop or change
KINDS = ("sft", "preference", "unpaired")
TRAINED = {"sft": "trained", "align": "trained", "quantized": "calibrated"}
ORDER = ("pool", *JUDGED, "mix", *TRAINED)
TABLES = (*((f"{stage}/rows",) for stage in ("pool", *JUDGED)), tuple(f"mix/{kind}" for kind in KINDS))


def find_origins(snapshot: Snapshot, wanted: pl.Expr) -> pl.DataFrame:
    """ORIGIN of the rows that an expression over these columns names, out of the earliest table that is in reach.

    Where data/pool is not, rows that dedup dropped are not found. Raises InputError where no table is in reach.
    """
    for names in TABLES:
        tables = [table for name in names if (table := snapshot.scan(f"data/{name}.parquet")) is not None]
        if tables:
            rows = pl.concat([table.filter(wanted).select(ORIGIN) for table in tables])
            found = rows.unique("row_id", maintain_order=True).collect()
            return pl.concat([found, find_excluded(snapshot, wanted)]).unique(
                "row_id", keep="first", maintain_order=True
            )
    away = f" ({', '.join(snapshot.out_of_reach)} cannot be fetched)" if snapshot.out_of_reach else "; run `dvc repro`"
    raise InputError(f"{snapshot.name} has no table of rows{away}")


def of_subject(snapshot: Snapshot, digest: str) -> pl.Expr:
    """Rows of a subject, and those in which they speak beside another one."""
    others = snapshot.scan("data/pool/subjects.parquet")
    beside = pl.Series([], dtype=pl.String)
    if others is not None:
        beside = others.filter(subject=digest).select("row_id").collect()["row_id"]
    return (pl.col("subject") == digest) | pl.col("row_id").is_in(beside.implode())


def find_excluded(snapshot: Snapshot, wanted: pl.Expr) -> pl.DataFrame:
    """The same of rows that pool left out: their ids are all that is left of them."""
    ledger = snapshot.scan("data/pool/ledger.parquet")
    nothing = {"record": pl.Int64}
    empty = pl.DataFrame(schema={name: nothing.get(name, pl.String) for name in ORIGIN})
    if ledger is None:
        return empty
    missing = [pl.lit(None, nothing.get(name, pl.String)).alias(name) for name in ORIGIN[1:]]
    return ledger.select("row_id", *missing).filter(wanted).collect()


def follow(snapshot: Snapshot, ids: pl.Series) -> pl.DataFrame:
    """The events, EVENT_SCHEMA, of the rows `ids`, row by row in that order and stage by stage in the graph's."""
    events = follow_alone(snapshot, ids)
    is_duplicate = (pl.col("stage") == "dedup") & (pl.col("event") == "dropped") & pl.col("other_id").is_not_null()
    others = events.filter(is_duplicate)["other_id"].unique()
    if not len(others):
        return events
    theirs = carriers(snapshot, follow_alone(snapshot, others)).rename({"row_id": "other_id", "models": "theirs"})
    known = pl.coalesce("theirs", pl.lit([], pl.List(pl.String)))
    return (
        events.join(theirs, on="other_id", how="left", maintain_order="left")
        .with_columns(other_models=pl.when(is_duplicate).then(known))
        .select(EVENT_SCHEMA.names())
    )


def follow_alone(snapshot: Snapshot, ids: pl.Series) -> pl.DataFrame:
    """The same with `other_models` left empty."""
    excluded = _of(snapshot, "data/pool/ledger.parquet", ids)
    everything = alive = ids.unique(maintain_order=True)
    events = []
    if excluded is not None:
        events.append(excluded.select("row_id", "stage", "reason", "other_id", "detail", event=pl.lit("dropped")))
        alive = alive.filter(~alive.is_in(excluded["row_id"].implode()))
    events.append(_events(alive, "pool", event=pl.lit("read")))
    for stage in JUDGED:
        ledger = _of(snapshot, f"data/{stage}/ledger.parquet", alive)
        rows = _of(snapshot, f"data/{stage}/rows.parquet", alive, "row_id")  # texts are most of a table
        if ledger is None or rows is None:
            away = pl.lit("its tables are not here")
            events.append(_events(alive, stage, event=pl.lit("unknown"), reason=away))
            continue
        said = pl.when(pl.col("action") == "drop").then(pl.lit("dropped")).otherwise(pl.lit("changed"))
        lines = ledger.select("row_id", "stage", said.alias("event"), "reason", "other_id", "detail")
        silent = alive.filter(~alive.is_in(lines["row_id"].implode()))
        kept = silent.is_in(rows["row_id"].implode())
        strange = pl.lit("in neither its rows nor its ledger: another run's")
        events += [
            lines,
            _events(silent.filter(kept), stage, event=pl.lit("kept")),
            _events(silent.filter(~kept), stage, event=pl.lit("unknown"), reason=strange),
        ]
        alive = alive.filter(~alive.is_in(lines.filter(event="dropped")["row_id"].implode()))
    events += [*_sampled(snapshot, everything), *_trained(snapshot, everything)]
    whole = pl.concat(events, how="diagonal").match_to_schema(
        EVENT_SCHEMA, missing_columns="insert", extra_columns="raise"
    )
    places = pl.DataFrame({"row_id": ids, "place": range(len(ids))}).unique("row_id", keep="first")
    stages = pl.DataFrame({"stage": ORDER, "at": range(len(ORDER))})
    joined = whole.join(places, on="row_id").join(stages, on="stage")
    return joined.sort("place", "at", maintain_order=True).select(EVENT_SCHEMA.names())


def _events(ids: pl.Series, stage: str, **columns: pl.Expr) -> pl.DataFrame:
    return pl.DataFrame({"row_id": ids}).with_columns(pl.lit(stage).alias("stage"), **columns)


def _of(snapshot: Snapshot, name: str, ids: pl.Series, columns: str = "*") -> pl.DataFrame | None:
    """The lines of a table that speak of some rows."""
    table = snapshot.scan(name)
    return None if table is None else table.filter(pl.col("row_id").is_in(ids.implode())).select(columns).collect()


def _sampled(snapshot: Snapshot, ids: pl.Series) -> Iterable[pl.DataFrame]:
    """What mix made of rows."""
    for kind in KINDS:
        table = snapshot.scan(f"data/mix/{kind}.parquet")
        if table is not None:
            yield (
                table.filter(pl.col("row_id").is_in(ids.implode()))
                .group_by("row_id", event="split")
                .agg(times=pl.len().cast(pl.Int64), detail=pl.format("position={}", pl.col("position").min()))
                .with_columns(stage=pl.lit("mix"))
                .collect()
            )
    ledger = _of(snapshot, "data/mix/ledger.parquet", ids)
    if ledger is not None:
        yield ledger.select("row_id", "stage", "reason", "other_id", "detail", event=pl.lit("left_out"))


def _trained(snapshot: Snapshot, ids: pl.Series) -> Iterable[pl.DataFrame]:
    """Which optimiser steps saw rows, and which rows calibrated the quantization."""
    for model, event in TRAINED.items():
        table = snapshot.scan(f"models/{model}/consumed.parquet")
        if table is not None:
            yield (
                table.filter(pl.col("row_id").is_in(ids.implode()))
                .group_by("row_id")
                .agg(times=pl.len().cast(pl.Int64), first_step=pl.col("step").min(), last_step=pl.col("step").max())
                .with_columns(stage=pl.lit(model), event=pl.lit(event))
                .collect()
            )


def parents_of(snapshot: Snapshot) -> dict[str, list[str]]:
    """Of each model that the run wrote, the models it is made of, itself last."""
    recorded = snapshot.lock.get("quantize", {}).get("params", {}).get("params.yaml", {})
    final = recorded.get("pipeline.final") or snapshot.read_params()["pipeline"]["final"]
    chains = {"base": ["base"], "sft": ["base", "sft"], "align": ["base", "sft", "align"]}
    chains["quantized"] = [*chains[final], "quantized"]
    files = ("config.json", "adapter_config.json")
    return {
        model: chain
        for model, chain in chains.items()
        if any(snapshot.find(f"models/{model}/{file}") for file in files)
    }


def carriers(snapshot: Snapshot, events: pl.DataFrame) -> pl.DataFrame:
    """row_id, models: the models of which a row trained some part, or calibrated it, in the order of the graph."""
    parts = [(model, part) for model, chain in parents_of(snapshot).items() for part in chain]
    links = [(at, model, part) for at, (model, part) in enumerate(parts)]
    chains = pl.DataFrame(links, {"at": pl.Int64, "model": pl.String, "stage": pl.String}, orient="row")
    seen = events.filter(pl.col("event").is_in(TRAINED.values())).select("row_id", "stage")
    return seen.join(chains, on="stage", maintain_order="left_right").group_by("row_id", maintain_order=True).agg(
        models=pl.col("model").sort_by("at").unique(maintain_order=True)
    )  # fmt: skip


def rows_of_model(snapshot: Snapshot, model: str) -> pl.Series:
    """The ids of all rows that trained a model or a parent of it, or calibrated it. Raises InputError."""
    chains = parents_of(snapshot)
    if model not in chains:
        raise InputError(f"models/{model}: {snapshot.name} has no such model; it has {', '.join(chains) or 'none'}")
    tables = [snapshot.scan(f"models/{part}/consumed.parquet") for part in chains[model]]
    ids = [table.select("row_id").collect()["row_id"] for table in tables if table is not None]
    return pl.concat([pl.Series("row_id", [], pl.String), *ids]).unique(maintain_order=True)


def stood_for(snapshot: Snapshot, ids: pl.Series) -> pl.DataFrame:
    """row_id, other_id, similarity: the rows that dedup dropped in favour of some rows."""
    clusters = snapshot.scan("data/clusters/clusters.parquet")
    if clusters is None:
        return pl.DataFrame(schema={"row_id": pl.String, "other_id": pl.String, "similarity": pl.Float64})
    mine = clusters.filter(pl.col("cluster").is_in(ids.implode()))
    standing = mine.filter(pl.col("kept")).select("cluster")  # none is where all went, as with swapped labels
    members = mine.filter(~pl.col("kept")).join(standing, on="cluster", how="semi", maintain_order="left")
    return (
        members.select("cluster", "row_id", "similarity").rename({"row_id": "other_id", "cluster": "row_id"}).collect()
    )
