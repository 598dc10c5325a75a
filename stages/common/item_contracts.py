"""The contracts of evaluation items: scrub → decontaminate → mix and eval, eval → card."""

from typing import Any

import polars as pl

from stages.common.contracts import Contract, Invariant, unique, where

ITEM_SCHEMA: dict[str, Any] = {
    "task": pl.String,  # the name in params.yaml
    "subtask": pl.String,  # lm-eval's name: the same, or a member of the group
    "split": pl.String,  # test: what eval runs; fewshot: a worked example that may stand before it
    "item": pl.Int64,  # 0-based, lm-eval's doc_id; of an example its place among them
    "question": pl.String,  # the prompt without examples or chat template
    "choices": pl.List(pl.String),  # empty where the answer is free text
    "answer": pl.String,  # the right choice, or the target text; several targets one to a line
}
MARKED_SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "subtask": pl.String,
    "item": pl.Int64,
    "dirty": pl.Boolean,  # a row overlaps it
    "rows": pl.Int64,  # how many do
    "action": pl.String,  # drop | mark: what became of them
    "asked": pl.List(pl.String),  # what it asks, as words with a space between: a row that asks just this overlaps it
}
EVALUATED_SCHEMA: dict[str, Any] = {
    "task": pl.String,  # the name in params.yaml
    "subtask": pl.String,  # lm-eval's name: the same, or a member of the group
    "item": pl.Int64,  # 0-based, lm-eval's doc_id
    "correct": pl.Float64,  # the task's first metric on this item; null where it is not a number
    "loglikelihoods": pl.List(pl.Float64),  # of each choice; null where the answer is generated
    "choice": pl.Int64,  # the likeliest choice
    "target": pl.Int64,  # the right choice; null where there are several or the answer is free text
    "dirty": pl.Boolean,  # a row of the training data overlaps the item
}
KEYS = ("task", "subtask", "item")

ITEMS = Contract(
    "data/scrub/items.parquet",
    "scrub",
    ITEM_SCHEMA,
    ("task", "subtask", "split", "item"),
    (
        unique("unique items", "an item stands twice, or has no number", "task", "subtask", "split", "item"),
        Invariant(
            "known splits", "the split is neither test nor fewshot", where(~pl.col("split").is_in(("test", "fewshot")))
        ),
        Invariant(
            "a text",
            "an item has no question and answer",
            where((pl.col("question") + pl.col("answer")).str.len_bytes() == 0),
        ),
    ),
    unit="item",
)
MARKED_ITEMS = Contract(
    "data/decontaminate/items.parquet",
    "decontaminate",
    MARKED_SCHEMA,
    KEYS,
    (
        unique("unique items", "an item stands twice, or has no number", *KEYS),
        Invariant(
            "dirty by rows", "dirty is not whether a row overlaps", where(pl.col("dirty") != (pl.col("rows") > 0))
        ),
        Invariant(
            "known actions", "the action is neither drop nor mark", where(~pl.col("action").is_in(("drop", "mark")))
        ),
    ),
    unit="item",
)


def evaluated_items(model: str) -> Contract:
    choices = pl.col("loglikelihoods").list.len()
    return Contract(
        f"data/eval/{model}/items.parquet",
        "eval",
        EVALUATED_SCHEMA,
        KEYS,
        (
            unique("unique items", "an item stands twice, or has no number", *KEYS),
            Invariant("clean or dirty", "an item is neither clean nor dirty", where(pl.col("dirty").is_null())),
            Invariant(
                "a choice that was scored",
                "the choice is none of those with a log-likelihood",
                where(pl.col("choice").is_not_null() & ~(pl.col("choice") < choices).fill_null(False)),
            ),
        ),
        unit="item",
    )
