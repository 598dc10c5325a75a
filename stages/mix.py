"""Sample the mixture.    data/decontaminate, data/clusters, tokenizer of models/base → data/mix/{KIND,ledger}.parquet

A source or base model that the policy forbids stops it before anything is sampled (stages/common/policy.py). Of each
kind (sft, preference, unpaired), every source gets its share of the budget, in tokens of the base model's tokenizer or
in rows (stages/mixing/sample.py). Held-out rows are chosen before that, in whole groups: what one person wrote, what
asks the same, what dedup found alike, of whatever kind, stands on one side (stages/mixing/split.py). The order of
training is fixed here, too (`position`). All of it follows hashes of names and one seed: a row that comes or goes moves
only rows at the edge of what its source gives.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from stages.common.stage import run, say  # isort: skip
from stages.common.contracts import write_tables
from stages.common.errors import InputError
from stages.common.files import read_json, write_csv, write_json, write_table
from stages.common.item_contracts import MARKED_ITEMS
from stages.common.ledger import LEDGER_SCHEMA
from stages.common.mixture_contracts import MIXTURE, ask_items
from stages.common.params import Base, Params, PositiveInt, Seed, Source, load, load_sources
from stages.common.policy import Policy, Settled, list_works, settle
from stages.common.row_contracts import DECONTAMINATE, MIX_LEDGER
from stages.mixing.sample import Order, cap_rows, divide_shares, order_mixture, sample_source, widest_budget
from stages.mixing.split import add_split, group_rows, read_links
from stages.mixing.supply import check_supply, find_limiting, list_warnings
from stages.mixing.tokens import count_tokens

HeldoutShare = Annotated[float, Field(ge=0, lt=1)]
LEFT_OUT = ("too_long", "over_cap", "over_budget")


class Budget(Params):
    """Training rows or tokens of each kind; null: as many as the scarcest source allows within its share."""

    sft: PositiveInt | None
    preference: PositiveInt | None
    unpaired: PositiveInt | None
    total: PositiveInt | None
    """Of all kinds together: where they have more, all of them shrink by one factor; null: no limit."""


class Heldout(Params):
    """Share of the rows of each source of a kind that is never trained on."""

    sft: HeldoutShare
    preference: HeldoutShare
    unpaired: HeldoutShare


class Mix(Params):
    """Sampling of the mixture."""

    unit: Literal["tokens", "rows"]
    """What shares and budgets count: tokens of the base model's tokenizer, or rows."""
    budget: Budget
    """What the training rows of a kind may have in all."""
    temperature: Annotated[float, Field(ge=1)]
    """Sources without a share divide the rest by size^(1 / temperature): 1 is by size, a large one makes them equal."""
    repeat_cap: PositiveInt
    """Times that one row may stand in the mixture, where its source does not say."""
    heldout_share: Heldout
    """Share in [0, 1) of each source's rows that is held out, in whole groups of one subject, prompt or cluster."""
    max_length_tokens: PositiveInt
    """Longer rows are left out and counted; nothing is cut off silently."""
    order: Order
    """Of training: shuffle; length, the shortest first; source, as in `sources`; curriculum: source, then length."""
    seed: Seed
    """Of the split, the sample and the order."""


def check_window(params: Mix, window: int | None) -> None:
    """Raises InputError where rows may be longer than the tokens that the model can read."""
    if window and params.max_length_tokens > window:
        raise InputError(
            f"params.yaml, mix.max_length_tokens: {params.max_length_tokens} is more than the base model's window of "
            f"{window} tokens; set it to {window} or less"
        )


def settle_licences(policy: Policy, base: Base, sources: list[Source]) -> Settled:
    """What the model inherits. Raises InputError that names everything that the policy forbids."""
    settled = settle(policy, list_works(base, sources))
    if settled.conflicts:
        raise InputError("\n".join(settled.conflicts))
    return settled


def measure_licences(mixture: pl.DataFrame, settled: Settled) -> dict[str, Any]:
    """Rows, tokens and share of all training tokens of each licence that is used; what the model inherits."""
    names = {
        key.removeprefix("sources."): " AND ".join(each.name for each in found) for key, found in settled.chosen.items()
    }
    train = mixture.filter(split="train").with_columns(licence=pl.col("source").replace_strict(names))
    by_licence = train.group_by("licence").agg(rows=pl.len(), tokens=pl.col("tokens").sum()).sort("licence")
    share = pl.col("tokens") / pl.col("tokens").sum()
    return {
        "licences": {
            licence: {"rows": rows, "tokens": tokens, "share_tokens": part}
            for licence, rows, tokens, part in by_licence.with_columns(part=share).iter_rows()
        },
        "model_licence": settled.model_licence,
        "duties": settled.duties,
    }


def prepare_rows(rows: pl.DataFrame, sources: list[Source], params: Mix) -> pl.DataFrame:
    """Add fits, trainable, amount (in `unit`), draw and capped to rows with tokens, longest_tokens and split."""
    prepared = rows.with_columns(
        fits=pl.col("longest_tokens") <= params.max_length_tokens,
        amount=pl.col("tokens") if params.unit == "tokens" else pl.lit(1, pl.Int64),
    )
    prepared = prepared.with_columns(trainable=pl.col("fits") & (pl.col("split") == "train"))
    return cap_rows(prepared, sources, params.seed)


def plan_sources(rows: pl.DataFrame, sources: list[Source], params: Mix) -> pl.DataFrame:
    """kind, source, planned (share), target, available (amounts), repeats, of every source; rows are prepared ones.

    Raises InputError where a kind or a source that is to give something has no row to train on.
    """
    to_take = rows.filter("trainable", ~pl.col("capped"))
    available = dict(to_take.group_by("source").agg(pl.col("amount").sum()).iter_rows())
    check_supply(rows, sources, available)
    repeats = {source.name: source.repeat_cap or params.repeat_cap for source in sources}
    shares: dict[str, dict[str, float]] = {}
    budgets: dict[str, float] = {}
    for kind in dict.fromkeys(source.kind for source in sources):
        of_kind = [source for source in sources if source.kind == kind]
        shares[kind] = divide_shares(of_kind, available, params.temperature)
        budgets[kind] = getattr(params.budget, kind) or widest_budget(shares[kind], available, repeats)
    whole = sum(budgets.values())
    shrink = min(1.0, (params.budget.total or whole) / whole)
    return pl.DataFrame(
        [
            {
                "kind": source.kind,
                "source": source.name,
                "planned": shares[source.kind][source.name],
                "target": shares[source.kind][source.name] * budgets[source.kind] * shrink,
                "available": available.get(source.name, 0),
                "repeats": repeats[source.name],
            }
            for source in sources
        ]
    )


def sample_mixture(rows: pl.DataFrame, plan: pl.DataFrame, sources: list[Source], params: Mix) -> pl.DataFrame:
    """The mixture of all kinds, out of prepared rows: the rows that are taken, with `repeat` and `position`.

    Of held-out rows a source gives its share of the held-out budget, which is to the budget as the shares of rows are.
    Raises InputError where the budget of a kind buys no row to train on.
    """
    parts = []
    for kind, source, target, repeats in plan.select("kind", "source", "target", "repeats").iter_rows():
        share = getattr(params.heldout_share, kind)
        own = rows.filter(pl.col("source") == source)
        parts.append(sample_source(own.filter("trainable", ~pl.col("capped")), target, repeats))
        heldout = own.filter(pl.col("fits") & (pl.col("split") == "heldout"))
        parts.append(sample_source(heldout, target * share / (1 - share), 1))
    taken = pl.concat(parts)
    for kind, budget in plan.group_by("kind", maintain_order=True).agg(pl.col("target").sum()).iter_rows():
        if taken.filter(kind=kind, split="train").is_empty():
            raise InputError(
                f"params.yaml, mix.budget: {budget:.0f} {params.unit} for the kind {kind} are less than half of the "
                f"first row of each source; raise mix.budget.{kind} or mix.budget.total"
            )
    kinds = taken.partition_by("kind", maintain_order=True)
    return pl.concat([order_mixture(kind, params.order, sources, params.seed) for kind in kinds])


def describe_mixture(mixture: pl.DataFrame, plan: pl.DataFrame) -> pl.DataFrame:
    """The plan with what came of it: realised (share of the kind), tokens, rows, epochs, unmet (amount).

    `epochs` is how often a source's tokens or rows stand in the mixture; what is unmet, the source did not have.
    """
    of_source = mixture.filter(split="train").group_by("source")
    taken = of_source.agg(pl.col("tokens").sum(), rows=pl.len().cast(pl.Int64), amount=pl.col("amount").sum())
    table = plan.join(taken, on="source", how="left", maintain_order="left").with_columns(
        pl.col("tokens", "rows", "amount").fill_null(0)
    )
    exhausted = pl.col("amount") >= pl.col("available") * pl.col("repeats")
    return table.with_columns(
        realised=(pl.col("amount") / pl.col("amount").sum().over("kind")).fill_nan(0.0),
        epochs=(pl.col("amount") / pl.col("available")).fill_nan(0.0),
        unmet=pl.when(exhausted).then((pl.col("target") - pl.col("amount")).clip(0)).otherwise(0.0),
    )


def left_out(rows: pl.DataFrame, taken: pl.DataFrame) -> pl.DataFrame:
    """A ledger line for each prepared row that is not in the mixture, with the reason."""
    reason = (
        pl.when(~pl.col("fits"))
        .then(pl.lit("too_long"))
        .when("capped")
        .then(pl.lit("over_cap"))
        .otherwise(pl.lit("over_budget"))
    )
    return (
        rows.join(taken.select("row_id").unique(), on="row_id", how="anti")
        .select(
            "row_id",
            pl.lit("mix").alias("stage"),
            pl.lit("drop").alias("action"),
            reason.alias("reason"),
            pl.lit(None, pl.String).alias("other_id"),
            pl.format("tokens={}", "longest_tokens").alias("detail"),
        )
        .cast(LEDGER_SCHEMA)  # type: ignore[arg-type]
        .sort("row_id")
    )


def measure(rows: pl.DataFrame, mixture: pl.DataFrame, ledger: pl.DataFrame, sources: pl.DataFrame) -> dict[str, Any]:
    """metrics/mix.json."""
    by_kind = {}
    for kind in sources["kind"].unique(maintain_order=True):
        train = mixture.filter(kind=kind, split="train")
        heldout_rows = mixture.filter(kind=kind, split="heldout").height
        by_kind[kind] = {
            "train_rows": train.height,
            "heldout_rows": heldout_rows,
            "train_tokens": int(train["tokens"].sum()),
        }
    share = {name: pl.col(name) / pl.col(name).sum().over("kind").clip(1) for name in ("tokens", "rows")}
    split_of_source = rows.group_by("source").agg((pl.col("split") == "heldout").mean()).sort("source")
    unmet = sources.filter(pl.col("unmet") > 0)
    return {
        "rows_in": rows.height,
        "rows_out": mixture["row_id"].n_unique(),
        "repeats": mixture.filter(pl.col("repeat") > 0).height,
        "left_out": {reason: ledger.filter(reason=reason).height for reason in LEFT_OUT},
        **by_kind,
        "share_tokens": dict(sources.select("source", share["tokens"]).iter_rows()),
        "share_rows": dict(sources.select("source", share["rows"]).iter_rows()),
        "epochs": dict(sources.select("source", "epochs").iter_rows()),
        "unmet": dict(unmet.select("source", "unmet").iter_rows()),
        "heldout_share": dict(split_of_source.iter_rows()),
        "largest_group": int(rows["group"].value_counts()["count"].max() or 0),  # type: ignore[arg-type]
    }


def main() -> None:
    params, sources = load(Mix, "mix"), load_sources()
    settled = settle_licences(load(Policy, "policy"), load(Base, "base"), sources)
    window = read_json("models/base/config.json").get("max_position_embeddings")
    check_window(params, window)
    rows, links, items = DECONTAMINATE.read(), read_links(), MARKED_ITEMS.read()
    groups = group_rows(rows, links, params.seed)
    split = add_split(rows, groups, params.heldout_share.model_dump(), params.seed)
    prepared = prepare_rows(count_tokens(split, Path("models/base")), sources, params)
    plan = plan_sources(prepared, sources, params)
    mixture = sample_mixture(prepared, plan, sources, params)
    described, ledger = describe_mixture(mixture, plan), left_out(prepared, mixture)
    ordered = mixture.select(*MIXTURE.columns)
    limits = {"max_length_tokens": params.max_length_tokens, "window": window, "caps": plan}
    given = {"rows_in": rows, "rows_out": ordered, "links": links, "items": items, **limits}
    MIXTURE.check(ordered, **given)  # of all kinds together: what one asks, another may hold out
    write_tables({MIX_LEDGER: ledger}, **given)
    for kind in described["kind"].unique(maintain_order=True):
        write_table(f"data/mix/{kind}.parquet", ordered.filter(kind=kind))
    write_csv("metrics/plots/mix.csv", described.select("kind", "source", "planned", "realised", "tokens", "rows"))
    grouped = prepared.join(groups, on="row_id")
    marked = ask_items(mixture, items, "mark").filter(split="train")["row_id"].n_unique()
    metrics = measure(grouped, mixture, ledger, described) | {"evaluation_prompts": marked}
    metrics |= measure_licences(mixture, settled)
    write_json("metrics/mix.json", metrics)
    lacking = list_warnings(grouped, described, sources, params.heldout_share.model_dump(), params.unit)
    tell([*settled.duties, *lacking], described, metrics)


def tell(warnings: list[str], described: pl.DataFrame, metrics: dict[str, Any]) -> None:
    """The mixture in a few lines on the terminal."""
    for warning in warnings:
        say("mix", f"WARNING: {warning}")
    for (kind,), of_kind in described.group_by("kind", maintain_order=True):
        told = "{train_rows} training rows, {train_tokens} tokens, {heldout_rows} held out".format(**metrics[str(kind)])
        limiting = find_limiting(of_kind)
        say("mix", f"{kind}: {told}{f'; {limiting} gives all it has and keeps the others from that' * bool(limiting)}")


if __name__ == "__main__":
    run("mix", main, outputs=["data/mix"])
