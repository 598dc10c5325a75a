"""The texts of evaluation items that rows are compared with.

Of each item that eval runs, and of each worked example that lm-eval may show before it:

- the prompt as lm-eval asks it, without the frame that all prompts of its subtask share ("Question:", "Answer:",
  worked examples): what a copied benchmark file holds;
- the question: the prompt up to its list of options, if it has one;
- the question and the right answer, joined; an answer that is a letter is read off the list of options.

So a row that asks the item's question word by word overlaps it without knowing the answer: a model may learn the
benchmark's question from one row and its answer from another. A prompt or a question of fewer than PROMPT_WORDS words
does not count by itself: "What is diabetes?" is innocent. With an answer it counts from ANSWERED_WORDS words on. In
scripts without spaces two characters count as a word for these two limits.
"""

import re

import polars as pl

from stages.common.errors import InputError
from stages.common.item_contracts import ITEMS
from stages.common.shingles import UNSPACED, normalise_texts, split_tokens
from stages.probes.leaks import cut_options

ITEM_COLUMNS = ["task", "subtask", "split", "item", "question", "answer"]
PROMPT_WORDS = 5
ANSWERED_WORDS = 4
OPTION = r"^[ \t]*\(?{letter}[.):][ \t]+(\S.*)$"


def read_items(tasks: list[str]) -> pl.DataFrame:
    """The items that scrub wrote. Raises InputError, also where a task of params.yaml has no item."""
    items = ITEMS.read()
    present = set(items["task"])
    for task in tasks:
        if task not in present:
            raise InputError(f"{ITEMS.path}: no item of the task {task}; run `dvc repro scrub`, or take the task out")
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
    for _, group in items.with_row_index("position").group_by("task", "subtask", "split", maintain_order=True):
        prompts = strip_frame(group["question"].to_list())
        for position, prompt, answer in zip(group["position"], prompts, group["answer"], strict=True):
            question, options = cut_options(prompt)
            if letter := re.fullmatch(r"\(?([A-Z])\)?[.:]?", answer.strip()):
                option = re.search(OPTION.format(letter=letter[1]), options, re.MULTILINE)
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


def list_asked(texts: pl.DataFrame) -> pl.DataFrame:
    """item, asked: the prompt and the question of each item, as words with a space between, out of comparable texts."""
    words = split_tokens(texts["text"]).list.join(" ").alias("asked")
    asked = texts.with_columns(words).filter(pl.col("part") != "answered")
    return asked.group_by("item", maintain_order=True).agg("asked")
