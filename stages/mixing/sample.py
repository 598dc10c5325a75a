"""Sample the mixture of one kind: shares, budget, caps, repeats, order. All amounts are tokens or rows, as `unit` says.

Within a source, rows come in the order of a hash of their row_id, so that a row keeps its place whatever rows stand
beside it: with a set budget and set shares, a row that comes to one source moves only rows at the edge of what that
source gives.
"""

from typing import Literal

import polars as pl

from stages.common.params import Source
from stages.mixing.chance import draw_fractions, fraction_of

Order = Literal["shuffle", "length", "source", "curriculum"]


def cap_rows(rows: pl.DataFrame, sources: list[Source], seed: int) -> pl.DataFrame:
    """Add `draw`, the place of a row in the sample, and `capped`: it is for training (`trainable`), but its source
    gives max_rows or max_tokens before its turn."""
    drawn = rows.with_columns(draw_fractions(rows["row_id"], seed, "sample").alias("draw")).sort("draw", "row_id")
    caps = pl.DataFrame(
        [(source.name, source.max_rows, source.max_tokens) for source in sources],
        {"source": pl.String, "max_rows": pl.Int64, "max_tokens": pl.Int64},
        orient="row",
    )
    before = pl.int_range(pl.len()).over("source", "trainable")
    tokens = pl.col("tokens").cum_sum().over("source", "trainable")
    beyond = (before >= pl.col("max_rows")).fill_null(False) | (tokens > pl.col("max_tokens")).fill_null(False)
    capped = drawn.join(caps, on="source", how="left", maintain_order="left")
    return capped.with_columns(capped=pl.col("trainable") & beyond).drop("max_rows", "max_tokens")


def divide_shares(sources: list[Source], available: dict[str, int], temperature: float) -> dict[str, float]:
    """The share of each source of a kind; they sum to 1.

    Sources without a share of their own divide what the others leave, in proportion to size^(1 / temperature): 1 is by
    size, a large temperature makes them equal (multilingual sampling, Arivazhagan et al. 2019). One of them has a row.
    """
    given = {source.name: source.share for source in sources if source.share is not None}
    weights = {
        source.name: float(available.get(source.name, 0)) ** (1 / temperature)  # 0 where it has no row
        for source in sources
        if source.share is None
    }
    rest, total = 1 - sum(given.values()), sum(weights.values())
    return {
        source.name: given[source.name] if source.name in given else rest * weights[source.name] / total
        for source in sources
    }


def widest_budget(shares: dict[str, float], available: dict[str, int], repeats: dict[str, int]) -> float:
    """What the scarcest source allows within its share, each of its rows taken as often as it may be."""
    return min(available[name] * repeats[name] / share for name, share in shares.items() if share > 0)


def sample_source(rows: pl.DataFrame, target: float, repeats: int) -> pl.DataFrame:
    """Rows of one source in the order of `draw`, pass by pass, until their amounts come closest to the target.

    Adds `repeat` (0-based): no row stands there again before every row was taken.
    """
    drawn = rows.sort("draw", "row_id")
    passes = min(
        repeats, int(target // max(1, int(drawn["amount"].sum()))) + 1
    )  # that begin before the target is reached
    stacked = pl.concat([drawn.with_columns(repeat=pl.lit(repeat, pl.Int64)) for repeat in range(passes)])
    return stacked.filter(pl.col("amount").cum_sum() - pl.col("amount") / 2 <= target)


def order_mixture(mixture: pl.DataFrame, order: Order, sources: list[Source], seed: int) -> pl.DataFrame:
    """Add `position` within each split: by hash, by length, by source, or by source and in it by length.

    But for `shuffle`, rows come pass by pass, so that the first pass over the data is in the order that was asked for.
    """
    names = [source.name for source in sources]
    keys = [fraction_of(seed, "order", *key) for key in mixture.select("row_id", "repeat").iter_rows()]
    place = pl.col("source").replace_strict(names, range(len(names)), return_dtype=pl.Int64)
    first: list[pl.Expr] = {
        "shuffle": [],
        "length": [pl.col("repeat"), pl.col("tokens")],
        "source": [pl.col("repeat"), place],
        "curriculum": [pl.col("repeat"), place, pl.col("tokens")],
    }[order]
    sorting = [pl.col("split") == "heldout", *first, pl.col("key"), pl.col("row_id")]
    return (
        mixture.with_columns(pl.Series("key", keys, pl.Float64))
        .sort(sorting)
        .with_columns(position=pl.int_range(pl.len()).over("split"))
        .drop("key")
    )
