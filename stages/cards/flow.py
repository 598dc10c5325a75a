"""What became of the rows of each source: what came in, why rows went, what trained. Each line adds up."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from stages.cards.tables import READER, Tables
from stages.common.params import Source


class Flow(NamedTuple):
    """Counts of one source, or of all: rows = excluded + ... + unused + trained, records among rows apart."""

    source: str
    kind: str
    records: int
    refused: int
    """Of the records; the others became `rows` (a tree of replies becomes several)."""
    rows: int
    excluded: int
    """By a request for deletion."""
    duplicates: int
    failed: int
    """Dropped by scrub, which could not search them."""
    equal: int
    """Pairs dropped by scrub: with personal data replaced, both replies say the same."""
    filtered: int
    contaminated: int
    """Dropped because an evaluation item is like them."""
    left_out: int
    """By mix: too long, or more than the source's share."""
    heldout: int
    unused: int
    """In the mixture's training part, but no model was trained on them."""
    trained: int
    changed: int
    """Of all: rows in which scrub replaced something."""


REASONS = (
    "excluded",
    "duplicates",
    "failed",
    "equal",
    "filtered",
    "contaminated",
    "left_out",
    "heldout",
    "unused",
    "trained",
)
"""The fields into which `rows` is divided."""


def count_sources(ids: pl.DataFrame, rows: pl.DataFrame) -> Counter[str]:
    """Rows of each source among `ids`, whose sources `rows` knows."""
    found = rows.unique("row_id").join(ids.select("row_id").unique(), on="row_id", how="semi")
    return Counter(dict(found.group_by("source").len().iter_rows()))


def add_up(counts: Mapping[str, Any]) -> int:
    """The sum of numbers, nested or not."""
    return sum(add_up(value) if isinstance(value, Mapping) else value for value in counts.values())


def follow_sources(sources: list[Source], metrics: Mapping[str, Any], tables: Tables) -> list[Flow]:
    """A line for each source, in the order of params.yaml."""
    pool, ledgers, rows = metrics["pool"], tables.ledgers, tables.rows
    scrubbed, clean, mixture = rows["scrub"], rows["decontaminate"], tables.mixture
    dropped = metrics["scrub"]["dropped_by_source"]
    unclean = ledgers["decontaminate"].filter(action="drop")
    contaminated = count_sources(unclean.filter(reason="contaminated"), scrubbed)
    filtered = count_sources(unclean.filter(pl.col("reason") != "contaminated"), scrubbed)
    changed = count_sources(ledgers["scrub"].filter(action="change"), scrubbed)
    left_out = count_sources(ledgers["mix"], clean)
    to_train = mixture.filter(split="train")
    seen = pl.concat([tables.consumed[model].select("row_id") for model in READER.values()])
    mixed, heldout = count_sources(to_train, mixture), count_sources(mixture.filter(split="heldout"), mixture)
    trained = count_sources(seen, to_train)
    lines = []
    for source in sources:
        name = source.name
        lines.append(
            Flow(
                source=name,
                kind=source.kind,
                records=pool["records_by_source"].get(name, 0),
                refused=pool["refused_by_source"].get(name, 0),
                rows=pool["rows"].get(name, 0) + pool["excluded_by_source"].get(name, 0),
                excluded=pool["excluded_by_source"].get(name, 0),
                duplicates=add_up(metrics["dedup"]["dropped_by_source"].get(name, {})),
                failed=dropped.get(name, {}).get("scrub_failed", 0),
                equal=dropped.get(name, {}).get("equal_replies", 0),
                filtered=filtered[name],
                contaminated=contaminated[name],
                left_out=left_out[name],
                heldout=heldout[name],
                unused=mixed[name] - trained[name],
                trained=trained[name],
                changed=changed[name],
            )
        )
    return lines


def total(lines: list[Flow]) -> Flow:
    """The sum of all lines."""
    sums = (sum(column) for column in zip(*(line[2:] for line in lines), strict=True))
    return Flow("all", "", *sums)
