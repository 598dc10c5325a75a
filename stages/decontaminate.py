"""Drop or mark rows that overlap an evaluation item.

data/scrub/{rows,items,probes}.parquet → data/decontaminate/{rows,ledger,items,probes}.parquet,
metrics/decontaminate.json

A row overlaps an item when it holds at least `threshold` of the different word n-grams of one of the item's texts (the
n-gram overlap of GPT-3, Brown et al. 2020, appendix C, as a share):

- the prompt as lm-eval asks it, without the frame that all prompts of its subtask share ("Question:", "Answer:",
  worked examples): what a copied benchmark file holds;
- the question: the prompt up to its list of options (a line that begins with "A."), if it has one;
- the question and the right answer, joined; an answer that is a letter is read off the list of options.

The largest of the shares counts. So a row that asks the item's question word by word overlaps it without knowing the
answer: a model may learn the benchmark's question from one row and its answer from another. A prompt or a question of
fewer than PROMPT_WORDS words does not count by itself: "What is diabetes?" is innocent. With an answer it counts from
ANSWERED_WORDS words on. A text of fewer words than an n-gram is one n-gram of all of them: the row must hold that run.
In scripts without spaces the n-grams are of characters, and two characters count as a word for these two limits.

A reworded item is not found. items.parquet says which items are dirty, so that eval can score clean and dirty apart.
"""

import re
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field
from tqdm import tqdm

from stages.common.stage import run, say  # isort: skip
from stages.common.errors import InputError
from stages.common.files import write_json, write_table
from stages.common.ledger import check_balance, ledger_lines
from stages.common.params import Params, PositiveInt, load, load_tasks
from stages.common.probes import read_probes, rows_of, score
from stages.common.rows import read_rows, text_of_row
from stages.common.shingles import (
    UNSPACED,
    Ragged,
    hash_ngrams,
    hash_tokens,
    ngram_sets,
    normalise_texts,
    read_tokens,
    split_tokens,
    take_texts,
)
from stages.probes.similarity import judge_leaks

ITEMS_FILE = "data/scrub/items.parquet"
ITEM_COLUMNS = ["task", "subtask", "item", "question", "answer"]
PROMPT_WORDS = 5
ANSWERED_WORDS = 4
BATCH = 20_000  # rows compared at a time
EMPTY = pl.DataFrame(schema={"row": pl.Int64, "item": pl.Int64, "share": pl.Float64})
OPTION = r"^[ \t]*\(?{letter}[.):][ \t]+(\S.*)$"


class Decontaminate(Params):
    """Which rows hold an evaluation item."""

    ngram: PositiveInt
    """Words per n-gram (characters in scripts without spaces); an item shorter than this is compared whole."""
    threshold: Annotated[float, Field(gt=0, le=1)]
    """Share in (0, 1] of an item's n-grams that a row must hold to count as an overlap."""
    action: Literal["drop", "mark"]
    """What becomes of the row: `drop` takes it out, `mark` leaves it in and says so in the ledger."""


def read_items(tasks: list[str], path: str = ITEMS_FILE) -> pl.DataFrame:
    """The items that scrub wrote. Raises InputError where a column is missing or a task of params.yaml has no item."""
    try:
        items = pl.read_parquet(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro`") from None
    missing = [column for column in ITEM_COLUMNS if column not in items.columns]
    if missing:
        raise InputError(f"{path}: the columns {', '.join(missing)} are missing; run `dvc repro --force scrub`")
    present = set(items["task"])
    for task in tasks:
        if task not in present:
            raise InputError(f"{path}: no item of the task {task}; run `dvc repro scrub`, or take the task out")
    return items.select(ITEM_COLUMNS)


def shared_start(texts: list[str]) -> str:
    """What all the texts begin with: what the first and the last in alphabetical order do."""
    low, high = min(texts), max(texts)
    length = next((place for place, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), len(low))
    return low[:length]


def strip_frame(prompts: list[str]) -> list[str]:
    """Prompts of one subtask without what all begin and end with: whole lines, or a label up to its colon.

    >>> strip_frame(["Question: Where is it?\\nAnswer:", "Question: When is it?\\nAnswer:"])
    ['Where is it?', 'When is it?']
    """
    if len(set(prompts)) < 2:
        return prompts  # of one prompt alone nobody can tell what is frame
    start = shared_start(prompts)
    start = start[: max(start.rfind("\n"), start.rfind(": "), start.rfind(":\n")) + 1]
    rest = [prompt[len(start) :] for prompt in prompts]
    end = shared_start([prompt[::-1] for prompt in rest])[::-1]
    cue = re.search(r"\n.*$|\s\S+:\s*$", end, re.DOTALL)
    return [prompt[: len(prompt) - (len(end) - cue.start() if cue else 0)].strip() for prompt in rest]


def item_texts(items: pl.DataFrame) -> pl.DataFrame:
    """The texts of each item that are compared: item (position in `items`), part (prompt, question, answered), text."""
    lines: list[tuple[int, str, str]] = []
    for _, group in items.with_row_index("position").group_by("task", "subtask", maintain_order=True):
        prompts = strip_frame(group["question"].to_list())
        for position, prompt, answer in zip(group["position"], prompts, group["answer"], strict=True):
            first = re.search(OPTION.format(letter="A"), prompt, re.MULTILINE)
            question = prompt[: first.start()] if first else prompt
            if first and re.fullmatch(r"\(?[A-Z]\)?[.:]?", answer.strip()):
                letter = re.search("[A-Z]", answer)
                option = letter and re.search(OPTION.format(letter=letter[0]), prompt[first.start() :], re.MULTILINE)
                answer = option[1] if option else answer
            lines += [(position, "prompt", prompt), (position, "question", question)]
            lines += [(position, "answered", f"{question}\n{answer}")] if question.strip() and answer.strip() else []
    table = pl.DataFrame(lines, {"item": pl.Int64, "part": pl.String, "text": pl.String}, orient="row")
    table = table.with_columns(normalise_texts(table["text"]))
    return table.unique(["item", "text"], keep="first", maintain_order=True)


def count_words(tokens: pl.Series) -> pl.Series:
    """Words in each list of tokens; a character of a script without spaces counts one half."""
    characters = tokens.list.eval(pl.element().str.contains(f"^{UNSPACED}")).list.sum()
    return tokens.list.len() - characters / 2


def comparable(texts: pl.DataFrame) -> pl.DataFrame:
    """The texts that are long enough to say something."""
    words = count_words(split_tokens(texts["text"])).alias("words")
    least = pl.when(pl.col("part") == "answered").then(ANSWERED_WORDS).otherwise(PROMPT_WORDS)
    return texts.with_columns(words).filter(pl.col("words") >= least).drop("words")


def find_overlaps(rows: Ragged, texts: Ragged, item: npt.NDArray[np.int64], params: Decontaminate) -> pl.DataFrame:
    """Rows and items that overlap: row, item (positions), share; from the tokens of rows and of the items' texts.

    One hash join of n-grams for each length of n-gram, in batches of rows: memory is bounded by BATCH.
    """
    sets = ngram_sets(texts, params.ngram)
    lengths = np.minimum(texts.counts(), params.ngram)
    sought = pl.DataFrame({"text": sets.texts(), "ngram": sets.values, "length": lengths[sets.texts()]})
    per_text = pl.DataFrame({"text": np.arange(len(lengths)), "item": item, "total": sets.counts()})
    tables = {int(length): table for (length,), table in sought.sort("length").group_by("length", maintain_order=True)}
    found = []
    starts = range(0, len(rows.offsets) - 1, BATCH)
    for start in tqdm(starts, desc="decontaminate: comparing", unit="batch"):
        batch = np.arange(start, min(start + BATCH, len(rows.offsets) - 1))
        tokens = take_texts(rows, batch)
        for length, table in tables.items():
            runs = hash_ngrams(tokens, length)
            hits = pl.DataFrame({"row": runs.texts() + start, "ngram": runs.values}).join(table, on="ngram")
            counts = hits.unique(["row", "text", "ngram"]).group_by("row", "text").len("held")
            shares = counts.join(per_text, on="text").with_columns(share=pl.col("held") / pl.col("total"))
            found.append(shares.filter(pl.col("share") >= params.threshold).select("row", "item", "share"))
    overlaps = pl.concat([EMPTY, *found])
    return overlaps.group_by("row", "item").agg(pl.col("share").max()).sort("row", "item")


def compare(rows: pl.DataFrame, items: pl.DataFrame, params: Decontaminate) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Overlaps (row, item, share), and `items` as task, subtask, item, dirty, rows, blind (no text to compare)."""
    texts = comparable(item_texts(items))
    row_tokens = read_tokens(normalise_texts(rows.select(text=text_of_row())["text"]), "decontaminate: words")
    item_tokens = hash_tokens(split_tokens(texts["text"]))
    overlaps = find_overlaps(row_tokens, item_tokens, texts["item"].to_numpy(), params)
    position = pl.int_range(pl.len(), dtype=pl.Int64)
    counted = items.select("task", "subtask", "item", position=position).join(
        overlaps.group_by(position="item").agg(rows=pl.len().cast(pl.Int64)),
        on="position",
        how="left",
        maintain_order="left",
    )
    marked = counted.with_columns(
        pl.col("rows").fill_null(0),
        dirty=pl.col("rows").fill_null(0) > 0,
        blind=~pl.col("position").is_in(texts["item"].unique().implode()),
    )
    return overlaps, marked.select("task", "subtask", "item", "dirty", "rows", "blind")


def write_lines(rows: pl.DataFrame, items: pl.DataFrame, overlaps: pl.DataFrame, action: str) -> pl.DataFrame:
    """The ledger: for each row that overlaps an item, the one that it overlaps most (of equals the first)."""
    most = overlaps.sort("row", -pl.col("share"), "item").unique("row", keep="first", maintain_order=True)
    other = items[most["item"]].select(pl.format("{}/{}/{}", "task", "subtask", "item").alias("other"))["other"]
    lines = zip(rows["row_id"].gather(most["row"]), other, most["share"], strict=True)
    return ledger_lines(
        "decontaminate",
        [
            {
                "row_id": row_id,
                "action": "drop" if action == "drop" else "change",
                "reason": "contaminated",
                "other_id": other_id,
                "detail": f"share={share:.2f}",
            }
            for row_id, other_id, share in lines
        ],
    ).sort("row_id")


def measure(
    rows_in: int, rows_out: int, items: pl.DataFrame, overlaps: pl.DataFrame, tasks: list[str]
) -> dict[str, int | dict[str, int]]:
    """metrics/decontaminate.json; a row that overlaps items of two tasks counts in both."""
    task_of = items["task"].gather(overlaps["item"])
    pairs = overlaps.select("row").with_columns(task_of).unique()
    return {
        "rows_in": rows_in,
        "rows_out": rows_out,
        "contaminated": {task: pairs.filter(pl.col("task") == task).height for task in tasks},
        "dirty_items": {task: items.filter(pl.col("dirty") & (pl.col("task") == task)).height for task in tasks},
        "items": {task: items.filter(pl.col("task") == task).height for task in tasks},
        "blind_items": {task: items.filter(pl.col("blind") & (pl.col("task") == task)).height for task in tasks},
    }


def main() -> None:
    params = load(Decontaminate, "decontaminate")
    tasks = [task.name for task in load_tasks()]
    rows, items, (probes, _) = read_rows("data/scrub"), read_items(tasks), read_probes("data/scrub", "decontaminate")
    overlaps, marked = compare(rows, items, params)
    ledger = write_lines(rows, marked, overlaps, params.action)
    dropped = ledger.filter(pl.col("action") == "drop")["row_id"]
    kept = rows.filter(~pl.col("row_id").is_in(dropped.implode()))
    check_balance("decontaminate", rows, kept, ledger)
    write_table("data/decontaminate/rows.parquet", kept)
    write_table("data/decontaminate/ledger.parquet", ledger)
    write_table("data/decontaminate/items.parquet", marked.drop("blind"))
    of_probes, _ = compare(rows_of(probes), items, params)
    overlapping = set(probes["row_id"].gather(of_probes["row"]))
    rules = dict.fromkeys(tasks, (params.ngram, params.threshold, None))
    probes = judge_leaks(probes, overlapping, items, rules)
    write_table("data/decontaminate/probes.parquet", probes)
    metrics = measure(rows.height, kept.height, marked, overlaps, tasks)
    write_json("metrics/decontaminate.json", metrics | {"probes": score(probes)})
    dirty = marked["dirty"].sum()
    say("decontaminate", f"{ledger.height} of {rows.height} rows overlap {dirty} of {items.height} evaluation items")


if __name__ == "__main__":
    run("decontaminate", main, outputs=["data/decontaminate"])
