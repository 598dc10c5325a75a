"""Journeys in words, for a terminal of 80 columns: one row's, and what became of many."""

from typing import Any

import polars as pl

from pedigree.journey import ORDER, TRAINED
from pedigree.layout import table

NAMED = 2  # duplicates named in a line
WORDS = {  # reasons of the ledgers that do not speak for themselves
    "pii": "personal data replaced",
    "echo": "the reply repeats what was asked",
    "empty": "nothing is left to learn",
    "over_budget": "beyond the budget of its source",
    "over_cap": "beyond the cap of its source",
}


def show_journey(
    origin: dict[str, Any], events: pl.DataFrame, models: list[str], others: list[tuple[str, float]]
) -> str:
    """One row's journey as lines of at most 80 characters, but for long names."""
    lines = []
    if origin["file"] is not None:
        path = f", path {origin['branch']} of its tree" if origin["branch"] else ""
        lines.append(["raw file", f"{origin['file']}, record {origin['record']} (counted from 0){path}"])
        subject = f", subject {origin['subject']}" if origin["subject"] else ""
        lines.append(["source", f"{origin['source']}, {origin['licence']}, {origin['kind']}{subject}"])
    for event in events.iter_rows(named=True):
        if event["event"] != "read":
            lines.append([event["stage"], tell(event)])
        if event["stage"] == "dedup" and event["event"] == "kept" and others:
            named = ", ".join(f"{name} ({share:.2f})" for name, share in others[:NAMED])
            lines.append(["", f"stands for {len(others)} more: {named}" + (", ..." if len(others) > NAMED else "")])
        if event["other_models"]:
            lines.append(["", f"that row trained {', '.join(event['other_models'])}"])
    lines.append(["carried by", ", ".join(models) or "no model"])
    return f"row {origin['row_id']}\n" + table(lines, indent="  ")


def tell(event: dict[str, Any]) -> str:
    """An event in words."""
    what, times, detail = event["event"], event["times"], (event["detail"] or "").replace("=", " ")
    if what == "unknown":
        return f"not known: {event['reason']}"
    if what in ("changed", "dropped", "left_out"):
        reason = name_reason(event["reason"])
        about = f" of {event['other_id']}" if event["other_id"] else ""
        return f"{what.replace('_', ' ')}: {reason}{about}" + (f" ({detail})" if detail else "")
    if what in ("train", "heldout"):
        return f"in the {'held-out' if what == 'heldout' else 'training'} set {count_times(times)}, {detail}"
    if what in ("trained", "calibrated"):
        steps = f"step {event['first_step']}" + (f" to {event['last_step']}" if times > 1 else "")
        return f"{what} {count_times(times)}, {steps}"
    return str(what)


def count_times(times: int) -> str:
    return "once" if times == 1 else f"{times} times"


def sum_up(origins: pl.DataFrame, events: pl.DataFrame, carried: pl.DataFrame) -> str:
    """What became of many rows, by source: how many each stage let go, how many trained, and the models."""
    told = events.filter(pl.col("event").is_in(["dropped", "left_out", "heldout", *TRAINED.values()]))
    names = told.select("stage", "event", "reason").unique(maintain_order=True).sort("stage", "event", "reason")
    order = sorted(names.rows(), key=lambda name: ORDER.index(name[0]))
    counts = told.join(origins.select("row_id", "source"), on="row_id", how="left")
    counts = counts.group_by("source", "stage", "event", "reason").agg(pl.col("row_id").n_unique())
    cells = {tuple(key): count for *key, count in counts.iter_rows()}
    lines = []
    for source, rows in origins.group_by("source", maintain_order=True).len().iter_rows():
        lines.append([source or "no longer known", "rows", f"{rows:,}"])
        fates = ((name, cells.get((source, *name), 0)) for name in order)
        lines += [["", name_fate(*name), f"{count:,}"] for name, count in fates if count]
    said = f"{table(lines, right=(2,))}\n{carried.height:,} of {origins.height:,} rows are in a model"
    twins = events.filter(pl.col("other_models").list.len() > 0)
    models = twins["other_models"].explode().unique(maintain_order=True)
    return said + (
        f"; {twins.height:,} are duplicates of rows that trained {', '.join(models)}" if twins.height else ""
    )


def name_fate(stage: str, event: str, reason: str | None) -> str:
    """What became of rows at a stage, in words."""
    why = f": {name_reason(reason)}" if reason else ""
    return f"{stage}: {event.replace('_', ' ').replace('heldout', 'held out')}{why}"


def name_reason(reason: str) -> str:
    return WORDS.get(reason, reason.replace("_", " "))
