"""Split off the held-out rows: whole groups, by hash, so that each source gives its share.

A group is what must not be separated: the rows of one subject, rows that ask the same (`read_prompts`), rows that dedup
linked (members of a cluster, and one conversation with both labels), and whatever these chain together. Rows that dedup
kept apart, since something in them differs, may stand on both sides: of one template they would all be one group.
A group is known by one of its names, its subject if it has one, and its place in the order of holding out is a hash of
that name. Then, source by source:

- the groups are gone through in that order, and each that brings the source closer to its share is held out; so a
  source misses its share by half a group at most, or exceeds it by what groups that it shares with others bring along;
- a group of more than twice the rows that one of its sources is to hold out stays in training: there it alone would
  exceed the share;
- a row that comes or goes as a group of its own moves one group at the edge of its source, in whose place smaller ones
  of fewer rows together may come or go; one that joins groups may move these, too, and rows at the edge in their place;
  other sources move only where they share a group with what moved.
"""

import numpy as np
import polars as pl
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from stages.common.mixture_contracts import read_prompts
from stages.common.row_contracts import ALIKE, CLUSTERS
from stages.mixing.chance import draw_fractions


def read_links() -> pl.DataFrame:
    """Pairs of rows that dedup found to say the same: row_id, other_id. Either may have been dropped since."""
    clusters = CLUSTERS.read().select("row_id", other_id="cluster")
    return pl.concat([clusters, ALIKE.read().filter(why="label").select("row_id", "other_id")])


def group_rows(rows: pl.DataFrame, links: pl.DataFrame, seed: int) -> pl.DataFrame:
    """row_id, group: the name of the group that a row belongs to."""
    prompts = read_prompts(rows)
    names = pl.concat(
        [
            rows.select("row_id", name="subject", rank=pl.lit(0)),
            rows.select("row_id", name=prompts, rank=pl.lit(1)),
            rows.filter(pl.col("subject").is_null() & prompts.is_null()).select(
                "row_id", name="row_id", rank=pl.lit(2)
            ),
        ]
    ).filter(pl.col("name").is_not_null())
    edges = pl.concat(
        [
            names.select(
                pl.format("row {}", "row_id").alias("left"), pl.format("{} {}", "rank", "name").alias("right")
            ),
            links.select(pl.format("row {}", "row_id").alias("left"), pl.format("row {}", "other_id").alias("right")),
        ]
    )
    nodes = pl.concat([edges["left"], edges["right"]]).unique().sort()
    number = pl.DataFrame([nodes.alias("node"), pl.int_range(len(nodes), eager=True).alias("number")])
    left, right = (
        edges.join(number, left_on=side, right_on="node", maintain_order="left")["number"].to_numpy()
        for side in ("left", "right")
    )
    weights = np.ones(len(left), np.bool_)
    _, component = connected_components(coo_matrix((weights, (left, right)), (len(nodes), len(nodes))), directed=False)
    of_row = number.with_columns(component=component).select("component", node="node")
    named = names.with_columns(node=pl.format("row {}", "row_id")).join(of_row, on="node", maintain_order="left")
    candidates = named.select("component", "rank", "name").unique()
    candidates = candidates.with_columns(draw_fractions(candidates["name"], seed, "group").alias("draw"))
    chosen = candidates.sort("component", "rank", "draw", "name").unique("component", keep="first")
    groups = named.join(chosen.select("component", group="name"), on="component").select("row_id", "group").unique()
    return rows.select("row_id").join(groups, on="row_id", maintain_order="left")


def choose_heldout(counts: pl.DataFrame, shares: dict[str, float]) -> set[str]:
    """The groups to hold out, from group, fraction, source and rows; `shares` says how much of each source."""
    share = pl.DataFrame(
        {"source": list(shares), "share": list(shares.values())}, {"source": pl.String, "share": pl.Float64}
    )
    table = counts.join(share, on="source").with_columns(target=pl.col("rows").sum().over("source") * pl.col("share"))
    too_large = (pl.col("target") > 0) & (pl.col("rows") > pl.max_horizontal(1, 2 * pl.col("target")))
    large = table.filter(too_large)["group"].unique()
    heldout: set[str] = set()
    for source in sorted(set(counts["source"]), key=lambda source: (-shares[source], source)):
        own = table.filter(pl.col("source") == source)
        taken = pl.col("group").is_in(list(heldout))
        missing = own["target"][0] - own.filter(taken)["rows"].sum()
        free = own.filter(~taken & ~pl.col("group").is_in(large.implode())).sort("fraction", "group")
        for group, size in free.select("group", "rows").iter_rows():
            if size <= 2 * missing:  # without this group the source would miss its share by more
                heldout.add(group)
                missing -= size
    return heldout


def add_split(rows: pl.DataFrame, groups: pl.DataFrame, shares: dict[str, float], seed: int) -> pl.DataFrame:
    """Add `split` (train | heldout) to rows; `shares` is the held-out share of each kind."""
    table = rows.select("row_id", "source", "kind").join(groups, on="row_id", maintain_order="left")
    share_of_source = {source: shares[kind] for source, kind in table.select("source", "kind").unique().iter_rows()}
    counts = table.group_by("group", "source").agg(rows=pl.len().cast(pl.Int64))
    counts = counts.with_columns(draw_fractions(counts["group"], seed, "split"))
    heldout = choose_heldout(counts, share_of_source)
    is_held = table["group"].is_in(sorted(heldout))
    return rows.with_columns(split=pl.when(is_held).then(pl.lit("heldout")).otherwise(pl.lit("train")))
