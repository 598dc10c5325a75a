"""The worst cases: for each dirty item the row that holds most of it, with the words of the item that it holds.

Only words of items are shown, which are the public text of an evaluation; a row is named by its row_id.
"""

from typing import Any

import polars as pl

from stages.common.rows import text_of_row
from stages.common.shingles import normalise_texts, split_tokens

CASES = 200
SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "subtask": pl.String,
    "split": pl.String,
    "item": pl.Int64,
    "row_id": pl.String,
    "source": pl.String,
    "share": pl.Float64,  # of the n-grams of one of the item's texts
    "run": pl.Boolean,  # a whole run of `run` words in common
    "words": pl.Int64,  # of the longest match
    "matched": pl.List(pl.String),  # runs of the item's words that stand in the row, in the item's order
}


def match_runs(item: list[str], row: list[str], length: int) -> list[list[str]]:
    """The parts of `item` of `length` tokens and more that stand in `row`, each as long as it goes.

    >>> match_runs("a b c d e f".split(), "x b c d y d e f".split(), 2)
    [['b', 'c', 'd'], ['d', 'e', 'f']]
    """
    places: dict[tuple[str, ...], set[int]] = {}
    for start in range(len(row) - length + 1):
        places.setdefault(tuple(row[start : start + length]), set()).add(start)
    parts: list[list[int]] = []
    reached: set[int] = set()  # where in the row the part so far stands
    for start in range(len(item) - length + 1):
        held = places.get(tuple(item[start : start + length]), set())
        going_on = {place for place in held if place - 1 in reached}
        if going_on:
            parts[-1][1] = start
        elif held:
            parts.append([start, start])
        reached = going_on or held
    return [item[first : last + length] for first, last in parts]


def report_worst(rows: pl.DataFrame, items: pl.DataFrame, texts: pl.DataFrame, overlaps: pl.DataFrame) -> pl.DataFrame:
    """SCHEMA, the largest share first, CASES lines at most."""
    worst = (
        overlaps.sort(-pl.col("share"), ~pl.col("run"), "item", "row_id").unique(
            "item", keep="first", maintain_order=True
        )
    ).head(CASES)
    chosen = worst.select("row_id").unique().join(rows, on="row_id")
    tokens = split_tokens(normalise_texts(chosen.select(text=text_of_row())["text"])).to_list()
    row_tokens = dict(zip(chosen["row_id"], tokens, strict=True))
    source = dict(chosen.select("row_id", "source").iter_rows())
    lines = []
    for case in worst.iter_rows(named=True):
        text = texts.row(case["text"], named=True)
        words = split_tokens(texts["text"][case["text"] : case["text"] + 1]).to_list()[0]
        length = min(text["ngram"], len(words), text["run"] if case["run"] else len(words))
        runs = match_runs(words, row_tokens[case["row_id"]], length)
        item = items.row(case["item"], named=True)
        lines.append(
            {key: item[key] for key in ("task", "subtask", "split", "item")}
            | {key: case[key] for key in ("row_id", "share", "run")}
            | {"source": source[case["row_id"]], "words": max(map(len, runs), default=0)}
            | {"matched": [" ".join(run) for run in runs]}
        )
    return pl.DataFrame(lines, SCHEMA)
