"""The contracts of the mixture, of its rows as tokens, and of what training consumed: mix → sft, align, quantize."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stages.common.contracts import Contract, Find, Invariant, where
from stages.common.files import read_json
from stages.common.row_contracts import DECONTAMINATE, KINDS, ROW_INVARIANTS
from stages.common.rows import ROW_SCHEMA
from stages.common.shingles import normalise_texts, split_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token that the loss does not see
PROMPT_WORDS = 3  # "Hello" and "Thank you" ask nothing, so that rows need not ask the same
MIXTURE_SCHEMA = ROW_SCHEMA | {
    "tokens": pl.Int64,  # through the chat template; of a pair both sequences
    "longest_tokens": pl.Int64,  # of the longer sequence
    "split": pl.String,  # train | heldout
    "repeat": pl.Int64,  # 0-based; how often the row stood in the mixture before
    "position": pl.Int64,  # 0-based, in the order of training; of the held-out rows an order of their own
}


def read_users(rows: pl.DataFrame) -> pl.DataFrame:
    """first: the user's first message of each row, and all: all of the user's messages, one to a line."""
    of_user = pl.element().filter(pl.element().struct.field("role") == "user").struct.field("content").drop_nulls()
    said = rows.select(pl.col("messages").list.eval(of_user).alias("said"))
    return said.select(first=pl.col("said").list.first().fill_null(""), all=pl.col("said").list.join("\n"))


def read_words(texts: pl.Series) -> pl.Series:
    return split_tokens(normalise_texts(texts))


def read_prompts(rows: pl.DataFrame) -> pl.Series:
    """What each row asks, as words: the user's first message, or where it has fewer than PROMPT_WORDS all of them.

    Null where these are fewer, too. Signs do not count: with and without a question mark the same is asked.
    """
    texts = read_users(rows)
    first = read_words(texts["first"])
    asked, short = first.list.join(" ").alias("asked"), first.list.len() < PROMPT_WORDS
    more = read_words(texts["all"].filter(short))
    enough = pl.select(pl.when(more.list.len() >= PROMPT_WORDS).then(more.list.join(" "))).to_series()
    return asked.scatter(short.arg_true(), enough) if short.any() else asked


def find_shared_prompts(table: pl.LazyFrame) -> pl.LazyFrame:
    """Rows whose prompt a row of the other split has."""
    rows = table.select("row_id", "split", "messages").collect()
    asked = rows.select("row_id", "split", prompt=read_prompts(rows))
    return asked.lazy().filter(pl.col("prompt").is_not_null(), on_both_sides("prompt"))


def on_both_sides(name: str) -> pl.Expr:
    """Whether what `name` says stands in training and among the held-out rows."""
    heldout = pl.col("split") == "heldout"
    return heldout.any().over(name) & ~heldout.all().over(name)


def find_torn(table: pl.LazyFrame, links: pl.LazyFrame) -> pl.LazyFrame:
    """Rows that dedup linked with a row of the other split."""
    sides = table.select("row_id", "split").unique("row_id")
    pairs = links.join(sides, on="row_id").join(sides, left_on="other_id", right_on="row_id", suffix="_of_other")
    return pairs.filter(pl.col("split") != pl.col("split_of_other"))


def ask_items(table: pl.DataFrame, items: pl.DataFrame, action: str) -> pl.DataFrame:
    """The rows whose first message asks just what an evaluation item asks that decontaminate was to `action`."""
    asked = items.filter(action=action).select(prompt=pl.col("asked").explode()).drop_nulls().unique()
    if asked.is_empty():
        return table.select("row_id", "split").clear()
    prompts = table.select("row_id", "split", prompt=read_words(read_users(table)["first"]).list.join(" "))
    return prompts.join(asked, on="prompt", how="semi", maintain_order="left").select("row_id", "split")


def find_asked_items(table: pl.LazyFrame, items: pl.LazyFrame) -> pl.LazyFrame:
    return ask_items(table.select("row_id", "split", "messages").collect(), items.collect(), "drop").lazy()


def find_over_cap(table: pl.LazyFrame, caps: pl.LazyFrame) -> pl.LazyFrame:
    """Rows that stand in the mixture more often than their source's cap allows; caps: source, repeats."""
    joined = table.select("row_id", "source", "repeat").join(caps.select("source", "repeats"), on="source", how="left")
    return joined.filter((pl.col("repeat") >= pl.col("repeats")).fill_null(True))


def longer_than(column: str, limit: str) -> Find:
    """Finds rows whose tokens are more than a limit, if there is one."""

    def find(table: pl.LazyFrame, **given: int | None) -> pl.LazyFrame:
        most = given[limit]
        return table.filter(pl.lit(False) if most is None else pl.col(column) > most)

    return find


def no_permutation(column: str, *of: str) -> pl.Expr:
    """Whether a number is null, out of range, or twice among the rows that have `of` in common: these count from 0."""
    value = pl.col(column)
    twice = pl.struct(column, *of).is_duplicated()
    return value.is_null() | (value < 0) | (value >= pl.len().over(of)) | twice


MIXTURE = Contract(
    "data/mix/*.parquet",
    "mix",
    MIXTURE_SCHEMA,
    ("row_id",),
    (
        *ROW_INVARIANTS,
        Invariant(
            "known splits",
            "the split is neither train nor heldout",
            where(~pl.col("split").is_in(("train", "heldout"))),
        ),
        Invariant(
            "one side a row", "a row stands in training and among the held-out rows", where(on_both_sides("row_id"))
        ),
        Invariant(
            "one side a subject",
            "the rows of one person stand in training and among the held-out rows",
            where(pl.col("subject").is_not_null() & on_both_sides("subject")),
        ),
        Invariant("no held-out prompt", "a held-out row asks what a training row asks", find_shared_prompts),
        Invariant("linked rows together", "rows that dedup found alike stand on both sides", find_torn, ("links",)),
        Invariant(
            "no evaluation prompt",
            "a row asks just what an evaluation item asks, and decontaminate was to drop it",
            find_asked_items,
            ("items",),
        ),
        Invariant(
            "positions",
            "the positions of a split do not count 0, 1, 2, ...",
            where(no_permutation("position", "kind", "split")),
        ),
        Invariant(
            "repeats",
            "the repeats of a row do not count 0, 1, 2, ...",
            where(no_permutation("repeat", "row_id", "split")),
        ),
        Invariant(
            "held out once",
            "a held-out row is repeated",
            where((pl.col("split") == "heldout") & (pl.col("repeat") > 0)),
        ),
        Invariant(
            "repeat caps", "a row stands more often than its source's repeat_cap allows", find_over_cap, ("caps",)
        ),
        Invariant(
            "counted tokens",
            "the tokens of a row were not counted",
            where(~((pl.col("longest_tokens") >= 1) & (pl.col("longest_tokens") <= pl.col("tokens")))),
        ),
        Invariant(
            "length limit",
            "a row is longer than mix.max_length_tokens",
            longer_than("longest_tokens", "max_length_tokens"),
            ("max_length_tokens",),
        ),
        Invariant(
            "window",
            "a row is longer than the base model's window",
            longer_than("longest_tokens", "window"),
            ("window",),
            "set mix.max_length_tokens to the window or less, then `dvc repro mix`",
        ),
        Invariant(
            "rows of decontaminate",
            "a row is not among those of decontaminate",
            lambda table, rows_in: table.join(rows_in.select("row_id"), on="row_id", how="anti"),
            ("rows_in",),
        ),
    ),
    {"rows_in": (DECONTAMINATE.path,), "items": ("data/decontaminate/items.parquet",)},
)


def mixture_of(kind: str) -> Contract:
    """The contract of the table of one kind, as sft, align and quantize read it."""
    own = Invariant("its own kind", "a row is of another kind than the table", where(pl.col("kind") != kind))
    return replace(MIXTURE, path=f"data/mix/{kind}.parquet", invariants=(*MIXTURE.invariants, own))


MIXTURES = tuple(mixture_of(kind) for kind in KINDS)


def read_limits(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """What the model of a base folder can read: window (tokens; None: no limit), vocabulary (tokens), end_of_turn."""
    config = read_json(folder / "config.json")
    return {
        "window": config.get("max_position_embeddings"),
        "vocabulary": config.get("vocab_size"),
        "end_of_turn": tokenizer.eos_token_id,
    }


def on_lists(wrong: Callable[..., np.ndarray], *columns: str) -> Find:
    """Finds rows by a function of the table that says, of each row, whether it is wrong."""

    def find(table: pl.LazyFrame, **given: Any) -> pl.LazyFrame:
        rows = table.select("row_id", *columns).collect()
        return rows.filter(pl.Series(wrong(rows, **given), dtype=pl.Boolean)).lazy()

    return find


def mislabelled(rows: pl.DataFrame) -> np.ndarray:
    """Whether ids, labels and length of a row disagree, bool (n_rows,)."""
    sizes = rows["input_ids"].list.len()
    wrong = ((sizes != rows["labels"].list.len()) | (sizes != rows["length"])).fill_null(True).to_numpy().copy()
    even = rows.filter(~wrong)
    ids, labels = (even[name].explode(empty_as_null=False).to_numpy() for name in ("input_ids", "labels"))
    owner = np.repeat(np.flatnonzero(~wrong), even["length"])
    wrong[owner[(labels != IGNORED) & (labels != ids)]] = True
    return wrong


def end_open(rows: pl.DataFrame, end_of_turn: int) -> np.ndarray:
    """Whether a run of supervised tokens ends in another one than the end-of-turn token, bool (n_rows,)."""
    sizes = rows["labels"].list.len().to_numpy()
    owner = np.repeat(np.arange(rows.height), sizes)
    labels = rows["labels"].explode(empty_as_null=False).to_numpy()
    supervised = labels != IGNORED
    goes_on = np.zeros(len(labels), np.bool_)
    goes_on[:-1] = supervised[1:] & (owner[1:] == owner[:-1])
    wrong = np.zeros(rows.height, np.bool_)
    wrong[owner[supervised & ~goes_on & (labels != end_of_turn)]] = True
    return wrong


def find_open_replies(table: pl.LazyFrame, end_of_turn: int) -> pl.LazyFrame:
    """Pairs of which a reply ends in another token."""
    return table.filter(
        pl.any_horizontal(pl.col(name).list.last() != end_of_turn for name in ("chosen_ids", "rejected_ids"))
    )


def outside(*columns: str) -> Find:
    """Finds rows with a token that the model has no embedding for."""

    def find(table: pl.LazyFrame, vocabulary: int) -> pl.LazyFrame:
        return table.filter(
            pl.any_horizontal(
                (pl.col(name).list.min() < 0) | (pl.col(name).list.max() >= vocabulary) for name in columns
            ).fill_null(False)
        )

    return find


def find_miscounted(table: pl.LazyFrame, mixture: pl.LazyFrame) -> pl.LazyFrame:
    """Encoded rows that are not as long as mix counted."""
    counted = mixture.select("row_id", "longest_tokens").unique("row_id")
    joined = table.select("row_id", "length").join(counted, on="row_id", how="left")
    return joined.filter((pl.col("length") != pl.col("longest_tokens")).fill_null(True))


_remix = "models/base is another than mix counted with: `dvc repro mix`"
_template = "set base.chat_template to chatml, then `dvc repro`"
_counted = Invariant(
    "as long as counted", "a row has another number of tokens than mix counted", find_miscounted, ("mixture",), _remix
)
_window = Invariant(
    "window",
    "a row is longer than the base model's window",
    longer_than("length", "window"),
    ("window",),
    "set mix.max_length_tokens to the window or less, then `dvc repro mix`",
)
_tokens = pl.List(pl.Int64)


def known_tokens(*columns: str) -> Invariant:
    return Invariant(
        "known tokens", "a token is outside the model's vocabulary", outside(*columns), ("vocabulary",), _remix
    )


ENCODED = Contract(
    "data/mix/sft.parquet as tokens",
    "sft",
    {"row_id": pl.String, "input_ids": _tokens, "labels": _tokens, "length": pl.Int64, "supervised_tokens": pl.Int64},
    ("row_id",),
    (
        Invariant(
            "something to learn",
            "no token of a row is supervised",
            where(pl.col("supervised_tokens") < 1),
            (),
            _template,
        ),
        Invariant(
            "labels are tokens",
            "a supervised label is another token than the one that stands there",
            on_lists(mislabelled, "input_ids", "labels", "length"),
        ),
        Invariant(
            "turns that end",
            "an assistant's turn does not end in a supervised end-of-turn token",
            on_lists(end_open, "labels"),
            ("end_of_turn",),
            _template,
        ),
        known_tokens("input_ids"),
        _window,
        _counted,
    ),
)
PAIRS = Contract(
    "data/mix/preference.parquet as tokens",
    "align",
    {
        "row_id": pl.String,
        "prompt_ids": _tokens,
        "chosen_ids": _tokens,
        "rejected_prompt_ids": _tokens,
        "rejected_ids": _tokens,
        "length": pl.Int64,
    },
    ("row_id",),
    (
        Invariant(
            "something to learn",
            "a prompt or a reply has no token",
            where(
                pl.any_horizontal(pl.col(name).list.len() < 1 for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
            ),
            (),
            _template,
        ),
        Invariant(
            "one prompt",
            "the tokens before both replies differ",
            where(pl.col("prompt_ids") != pl.col("rejected_prompt_ids")),
            (),
            _template,
        ),
        Invariant(
            "pairs that differ",
            "both replies are the same tokens",
            where(pl.col("chosen_ids") == pl.col("rejected_ids")),
        ),
        Invariant(
            "turns that end",
            "a reply does not end in the end-of-turn token",
            find_open_replies,
            ("end_of_turn",),
            _template,
        ),
        known_tokens("prompt_ids", "chosen_ids", "rejected_ids"),
        _window,
        _counted,
    ),
    unit="pair",
)
CALIBRATION = Contract(
    "data/mix/sft.parquet as calibration",
    "quantize",
    {"row_id": pl.String, "input_ids": _tokens},
    ("row_id",),
    (
        Invariant("something to read", "a row has no token", where(pl.col("input_ids").list.len() < 1), (), _template),
        known_tokens("input_ids"),
    ),
)


def find_gaps(table: pl.LazyFrame, steps: int | None) -> pl.LazyFrame:
    """All rows where the steps are not 0 to steps - 1, each of them; nothing where steps is None: an empty batch."""
    if steps is None:
        return table.filter(False)
    seen = table.select("step").unique().collect()["step"].sort()
    return table.filter(not seen.equals(pl.int_range(steps, eager=True).alias("step")))


def find_untaught(table: pl.LazyFrame, mixture: pl.LazyFrame) -> pl.LazyFrame:
    """Consumed rows that are no training rows of the mixture."""
    return table.join(mixture.filter(split="train").select("row_id"), on="row_id", how="anti")


def find_repeated(table: pl.LazyFrame, mixture: pl.LazyFrame, column: str = "step") -> pl.LazyFrame:
    """Rows that a step, or an epoch, saw more often than they stand in the mixture."""
    stands = mixture.filter(split="train").group_by("row_id").agg(stands=pl.len())
    seen = table.group_by("row_id", column).agg(seen=pl.len()).join(stands, on="row_id")
    return seen.filter(pl.col("seen") > pl.col("stands"))


def find_repeated_by_plan(table: pl.LazyFrame, mixture: pl.LazyFrame, steps: int | None) -> pl.LazyFrame:
    """Rows that an epoch saw too often; nothing where steps is None: rows drawn by chance may come again."""
    return find_repeated(table, mixture, "epoch") if steps is not None else table.filter(False)


def consumed_by(model: str, kind: str) -> Contract:
    """consumed.parquet beside a model that rows of a kind trained or calibrated."""
    return Contract(
        f"models/{model}/consumed.parquet",
        {"quantized": "quantize"}.get(model, model),
        {"row_id": pl.String, "epoch": pl.Int64, "step": pl.Int64},
        ("row_id",),
        (
            Invariant(
                "counted steps",
                "epoch or step is missing or negative",
                where(~((pl.col("epoch") >= 0) & (pl.col("step") >= 0))),
            ),
            Invariant(
                "steps without a gap", "the steps do not count 0, 1, 2, ... to the last one", find_gaps, ("steps",)
            ),
            Invariant("training rows", "a row was consumed that is not for training", find_untaught, ("mixture",)),
            Invariant(
                "once an epoch",
                "an epoch saw a row more often than it stands in the mixture",
                find_repeated_by_plan,
                ("mixture", "steps"),
            ),
            Invariant(
                "once a step", "a step saw a row more often than it stands in the mixture", find_repeated, ("mixture",)
            ),
        ),
        {"mixture": (f"data/mix/{kind}.parquet",)},
    )


SFT_CONSUMED, ALIGN_CONSUMED = consumed_by("sft", "sft"), consumed_by("align", "preference")
QUANTIZED_CONSUMED = consumed_by("quantized", "sft")
