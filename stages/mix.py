"""Sample the mixture.    data/decontaminate + tokenizer of models/base → data/mix/{sft,preference,unpaired}.parquet

Within each kind, every source gets its share of the budget, counted in tokens of the base model's tokenizer. A row is
taken at most `repeat_cap` times. Held-out rows are chosen first, by the digest of their subject or, where there is
none, of their prompt: all rows of one person, and all rows without a person that ask the same thing, of whatever kind,
stand on one side, and a row stays on its side when other rows come or go. The order of training is fixed here, too
(`position`).
"""

from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from stages.common.stage import run, say  # isort: skip
from stages.common.errors import InputError
from stages.common.files import digest_text, read_json, write_csv, write_json, write_table
from stages.common.ledger import LEDGER_SCHEMA
from stages.common.params import Params, PositiveInt, Seed, Source, load, load_sources
from stages.common.rows import normalise, read_rows

HeldoutShare = Annotated[float, Field(ge=0, lt=1)]
KINDS = ("sft", "preference", "unpaired")


class Budget(Params):
    """Tokens per kind; null: as many as the scarcest source allows within its share."""

    sft: PositiveInt | None
    preference: PositiveInt | None
    unpaired: PositiveInt | None


class Heldout(Params):
    """Share of the rows of each kind that is never trained on."""

    sft: HeldoutShare
    preference: HeldoutShare
    unpaired: HeldoutShare


class Mix(Params):
    """Sampling of the mixture."""

    budget_tokens: Budget
    """Tokens of the base model's tokenizer that the training rows of a kind may have in all."""
    repeat_cap: PositiveInt
    """Times that one row may stand in the mixture."""
    heldout_share: Heldout
    """Share in [0, 1) of the rows that is held out, by prompt or subject."""
    max_length_tokens: PositiveInt
    """Longer rows are left out and counted; nothing is cut off silently."""
    seed: Seed
    """Of the split, the sample and the order."""


def fraction_of(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: the same on every machine and whatever rows stand beside."""
    return int(digest_text("\x1f".join(map(str, parts)), 13), 16) / 16**13


def count_tokens(rows: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Add `tokens` (prompt and reply through the chat template; for pairs both sequences) and `longest_tokens`."""
    from tqdm import tqdm

    from stages.common.chat import encode, encode_reply
    from stages.common.models import load_tokenizer

    tokenizer = load_tokenizer(folder)

    def lengths(row: dict[str, Any]) -> list[int]:
        if row["kind"] == "sft":
            return [len(encode(tokenizer, row["messages"], row["tools"], row["row_id"]).input_ids)]
        replies = [reply for reply in (row["chosen"], row["rejected"]) if reply]
        pairs = [encode_reply(tokenizer, row["messages"], reply, row["tools"], row["row_id"]) for reply in replies]
        return [len(prompt) + len(reply) for prompt, reply in pairs]

    progress = tqdm(rows.iter_rows(named=True), total=rows.height, desc="mix: counting tokens", unit=" rows")
    counted = pl.Series("lengths", [lengths(row) for row in progress], pl.List(pl.Int64))
    return rows.with_columns(counted.list.sum().alias("tokens"), counted.list.max().alias("longest_tokens"))


def check_window(params: Mix, window: int | None) -> None:
    """Raises InputError where rows may be longer than the tokens that the model can read."""
    if window and params.max_length_tokens > window:
        raise InputError(
            f"params.yaml, mix.max_length_tokens: {params.max_length_tokens} is more than the base model's window of "
            f"{window} tokens; set it to {window} or less"
        )


def add_split(rows: pl.DataFrame, params: Mix) -> pl.DataFrame:
    """Add `split` (train | heldout), by subject where there is one, else by the first user message.

    A group with rows of several kinds takes the largest of their held-out shares, so that no prompt is held out of one
    kind and trained on in another.
    """
    shares = params.heldout_share.model_dump()

    def group_of(row: dict[str, Any]) -> str:
        asked = next((item["content"] or "" for item in row["messages"] if item["role"] == "user"), "")
        return row["subject"] or normalise(asked)

    groups = pl.Series("group", [group_of(row) for row in rows.iter_rows(named=True)], pl.String)
    fractions = {group: fraction_of(params.seed, "split", group) for group in groups.unique()}
    return (
        rows.with_columns(groups, pl.col("kind").replace_strict(shares, return_dtype=pl.Float64).alias("share"))
        .with_columns(
            pl.when(
                pl.col("group").replace_strict(fractions, return_dtype=pl.Float64) < pl.col("share").max().over("group")
            )
            .then(pl.lit("heldout"))
            .otherwise(pl.lit("train"))
            .alias("split")
        )
        .drop("group", "share")
    )


def sample_source(rows: pl.DataFrame, target_tokens: float, repeat_cap: int, seed: int) -> pl.DataFrame:
    """Rows of one source in seeded order until their tokens come closest to the target; adds `repeat` (0-based)."""
    order = pl.Series("order", [fraction_of(seed, "sample", row_id) for row_id in rows["row_id"]], pl.Float64)
    passes = [
        rows.with_columns(order, pl.lit(repeat, pl.Int64).alias("repeat")).sort("order", "row_id")
        for repeat in range(repeat_cap)
    ]
    stacked = pl.concat(passes)
    return stacked.filter(pl.col("tokens").cum_sum() - pl.col("tokens") / 2 <= target_tokens).drop("order")


def budget_of(rows: pl.DataFrame, shares: dict[str, float], params: Mix, kind: str) -> float:
    """The budget of a kind in tokens: as set, or what the scarcest source allows within its share."""
    set_budget = getattr(params.budget_tokens, kind)
    if set_budget is not None:
        return float(set_budget)
    available = dict(rows.group_by("source").agg(pl.col("tokens").sum()).iter_rows())
    for name, share in shares.items():
        if share > 0 and not available.get(name):
            raise InputError(
                f"params.yaml, sources: {name} has a share of {share:g} but no {kind} row left; set it to 0"
            )
    return min(available[name] * params.repeat_cap / share for name, share in shares.items() if share > 0)


def sample_mixture(rows: pl.DataFrame, sources: list[Source], params: Mix, kind: str) -> pl.DataFrame:
    """The mixture of one kind: its rows with `split`, `repeat` and `position` (order within the split)."""
    shares = {source.name: source.share for source in sources if source.kind == kind}
    train = rows.filter(pl.col("split") == "train")
    heldout = rows.filter(pl.col("split") == "heldout")
    budget = budget_of(train, shares, params, kind)
    heldout_share = getattr(params.heldout_share, kind)
    heldout_budget = budget * heldout_share / (1 - heldout_share)
    parts = []
    for name, share in shares.items():
        if share > 0:
            of_source = pl.col("source") == name
            parts.append(sample_source(train.filter(of_source), share * budget, params.repeat_cap, params.seed))
            parts.append(sample_source(heldout.filter(of_source), share * heldout_budget, 1, params.seed))
    mixture = pl.concat(parts)
    keys = [fraction_of(params.seed, "order", *key) for key in mixture.select("row_id", "repeat").iter_rows()]
    return (
        mixture.with_columns(pl.Series("key", keys, pl.Float64))
        .sort("split", "key", "row_id", descending=[True, False, False])
        .with_columns(pl.int_range(pl.len()).over("split").alias("position"))
        .drop("key")
    )


def describe_mixture(mixture: pl.DataFrame, sources: list[Source], kind: str) -> pl.DataFrame:
    """Planned and realised share of each source of a kind in the training tokens."""
    train = mixture.filter(pl.col("split") == "train")
    tokens = dict(train.group_by("source").agg(pl.col("tokens").sum()).iter_rows())
    total = max(sum(tokens.values()), 1)
    return pl.DataFrame(
        [
            {
                "kind": kind,
                "source": source.name,
                "planned": source.share,
                "realised": tokens.get(source.name, 0) / total,
                "tokens": tokens.get(source.name, 0),
                "rows": train.filter(pl.col("source") == source.name).height,
            }
            for source in sources
            if source.kind == kind
        ]
    )


def left_out(rows: pl.DataFrame, taken: pl.DataFrame, params: Mix) -> pl.DataFrame:
    """A ledger line for each row that is not in the mixture, with the reason."""
    return (
        rows.join(taken.select("row_id").unique(), on="row_id", how="anti")
        .sort("row_id")
        .select(
            "row_id",
            pl.lit("mix").alias("stage"),
            pl.lit("drop").alias("action"),
            pl.when(pl.col("longest_tokens") > params.max_length_tokens)
            .then(pl.lit("too_long"))
            .otherwise(pl.lit("over_budget"))
            .alias("reason"),
            pl.lit(None, pl.String).alias("other_id"),
            pl.format("tokens={}", "longest_tokens").alias("detail"),
        )
        .cast(LEDGER_SCHEMA)  # type: ignore[arg-type]
    )


def main() -> None:
    params, sources = load(Mix, "mix"), load_sources()
    check_window(params, read_json("models/base/config.json").get("max_position_embeddings"))
    rows = read_rows("data/decontaminate")
    rows = add_split(count_tokens(rows, Path("models/base")), params)
    fitting = rows.filter(pl.col("longest_tokens") <= params.max_length_tokens)
    kinds = [kind for kind in KINDS if any(source.kind == kind for source in sources)]
    mixtures = {kind: sample_mixture(fitting.filter(kind=kind), sources, params, kind) for kind in kinds}
    everything = pl.concat(list(mixtures.values()))
    ledger = left_out(rows, everything, params)
    shares = pl.concat([describe_mixture(mixture, sources, kind) for kind, mixture in mixtures.items()])
    for kind, mixture in mixtures.items():
        write_table(f"data/mix/{kind}.parquet", mixture)
    write_table("data/mix/ledger.parquet", ledger)
    write_csv("metrics/plots/mix.csv", shares)
    reasons = dict(ledger.group_by("reason").len().sort("reason").iter_rows())
    by_kind = {
        kind: {
            "train_rows": mixture.filter(split="train").height,
            "heldout_rows": mixture.filter(split="heldout").height,
            "train_tokens": int(mixture.filter(split="train")["tokens"].sum()),
        }
        for kind, mixture in mixtures.items()
    }
    write_json(
        "metrics/mix.json",
        {
            "rows_in": rows.height,
            "rows_out": everything["row_id"].n_unique(),
            "repeats": everything.filter(pl.col("repeat") > 0).height,
            "left_out": {"too_long": reasons.get("too_long", 0), "over_budget": reasons.get("over_budget", 0)},
            **by_kind,
            "share_tokens": dict(shares.select("source", "realised").iter_rows()),
        },
    )
    for name, planned, realised in shares.select("source", "planned", "realised").iter_rows():
        if abs(planned - realised) > 0.01:
            say(
                "mix",
                f"WARNING: {name} was to give {planned:.1%} of the tokens and gives {realised:.1%}: a source ran out",
            )
    for kind, counts in by_kind.items():
        say("mix", f"{kind}: {counts['train_rows']} training rows, {counts['train_tokens']} tokens, "
            f"{counts['heldout_rows']} held out")  # fmt: skip


if __name__ == "__main__":
    run("mix", main, outputs=["data/mix"])
