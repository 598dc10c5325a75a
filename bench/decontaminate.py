"""Decontamination beside a plain loop over sets of n-grams, and the filters: documents per second, leaks found.

    python bench/decontaminate.py [--rows 10000,100000,1000000] [--stock-rows 100000] [--data ../shared/data]

1. Real text: medquad (16,407 questions and answers) against all 14,079 test items of MMLU, if both are in `--data`.
2. Generated text: `--rows` rows of 60 words and 5,000 items; one row in 200 holds an item, one in 200 half of one.

Stock is what such scripts do: a dictionary from n-gram to items, then for each row its set of n-grams as tuples of
words, looked up one by one, with the same two rules. Both read the same normalised words on one core and must find the
same pairs; beyond `--stock-rows` only ours runs. `load` is what is paid once for the items, `rows` what grows with the
rows; the peak of memory is what comes on top of rows and items. Nothing is written.
"""

import argparse
import csv
import json
import random
import re
import time
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

from stages.common.stage import say  # isort: skip
import polars as pl
from dedup_tools import Clock

from stages.common.rows import ROW_SCHEMA, message, text_of_row
from stages.common.shingles import normalise_texts, split_tokens
from stages.contamination.items import comparable, item_texts
from stages.contamination.overlaps import BATCH, FOUND, make_comparer, seek
from stages.quality.filters import Filters, make_filter

NGRAM, THRESHOLD, RUN, COMMON = 8, 0.6, 13, 10
Pairs = set[tuple[str, int]]


def make_rows(pairs: list[tuple[str, str]]) -> pl.DataFrame:
    rows = (
        dict.fromkeys(ROW_SCHEMA)
        | {"row_id": f"{number:08}", "source": "bench", "kind": "sft"}
        | {"messages": [message("user", question), message("assistant", answer)]}
        for number, (question, answer) in enumerate(pairs)
    )
    return pl.concat(pl.DataFrame(part, ROW_SCHEMA) for part in iter(lambda: list(islice(rows, BATCH)), []))


def read_real(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """medquad as rows, MMLU as items."""
    lines = (folder / "medquad/medquad.jsonl").read_text(encoding="utf-8").splitlines()
    rows = make_rows([(record["question"], record["answer"]) for record in map(json.loads, lines)])
    items = []
    for path in sorted((folder / "mmlu/test").glob("*.csv")):
        subject = path.name.removesuffix("_test.csv")
        with path.open(encoding="utf-8", newline="") as file:
            for number, (question, *options, answer) in enumerate(csv.reader(file)):
                listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
                place = {"task": "mmlu", "subtask": subject, "split": "test", "item": number}
                items.append(place | {"question": f"{question}\n{listed}\nAnswer:", "answer": answer})
    return rows, pl.DataFrame(items)


def generate(n_rows: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows and items of words drawn by Zipf's law from 50,000; some rows hold an item or the half of one."""
    chance = random.Random(1)
    words = [f"w{number}" for number in range(50_000)]
    weights = [0.0]
    for rank in range(1, len(words) + 1):
        weights.append(weights[-1] + 1 / rank)
    drawn = iter(chance.choices(words, cum_weights=weights[1:], k=60 * n_rows + 30 * 5000))
    items = [" ".join(next(drawn) for _ in range(30)) for _ in range(5000)]
    pairs = []
    for number in range(n_rows):
        text = [next(drawn) for _ in range(60)]
        if number % 100 == 0:
            leak = chance.choice(items).split()
            text[20:20] = leak if number % 200 else leak[:15]
        pairs.append((" ".join(text[:15]), " ".join(text[15:])))
    place = {"task": "generated", "subtask": "generated", "split": "test"}
    questions = [place | {"item": number, "question": text, "answer": "yes"} for number, text in enumerate(items)]
    return make_rows(pairs), pl.DataFrame(questions)


def run_ours(rows: pl.DataFrame, texts: pl.DataFrame) -> tuple[float, float, Pairs]:
    """Seconds for the items, seconds for the rows, pairs of row and item."""
    start = time.perf_counter()
    sought = seek(texts, COMMON)
    compare = make_comparer(sought)
    loaded = time.perf_counter()
    parts = [compare(rows.slice(first, BATCH)) for first in range(0, rows.height, BATCH)]
    found = pl.concat([pl.DataFrame(schema=FOUND), *parts])
    found = found.with_columns(texts["item"].gather(found["text"]))
    return loaded - start, time.perf_counter() - loaded, set(found.select("row_id", "item").iter_rows())


def run_stock(rows: pl.DataFrame, texts: pl.DataFrame) -> tuple[float, float, Pairs]:
    """The same by dictionaries and sets of tuples."""
    start = time.perf_counter()
    item_of = texts["item"].to_list()
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    long_runs: dict[tuple[str, ...], set[int]] = defaultdict(set)
    totals, lengths = [], set()
    for number, words in enumerate(split_tokens(texts["text"]).to_list()):
        length = min(NGRAM, len(words))
        grams = {tuple(words[place : place + length]) for place in range(len(words) - length + 1)}
        lengths.add(length)
        totals.append(len(grams))
        for gram in grams:
            index[gram].append(number)
        for place in range(len(words) - RUN + 1):
            long_runs[tuple(words[place : place + RUN])].add(item_of[number])
    loaded = time.perf_counter()
    pairs: Pairs = set()
    for row_id, text in zip(rows["row_id"], rows.select(text=text_of_row())["text"], strict=True):
        words = re.findall(r"\w+", normalise_texts(pl.Series([text]))[0])
        held: Counter[int] = Counter()
        for length in lengths:
            for gram in {tuple(words[place : place + length]) for place in range(len(words) - length + 1)}:
                held.update(index.get(gram, ()))
        pairs |= {(row_id, item_of[number]) for number, count in held.items() if count / totals[number] >= THRESHOLD}
        for run in {tuple(words[place : place + RUN]) for place in range(len(words) - RUN + 1)}:
            if 0 < len(long_runs.get(run, ())) <= COMMON:
                pairs |= {(row_id, item) for item in long_runs[run]}
    return loaded - start, time.perf_counter() - loaded, pairs


def compare_both(title: str, rows: pl.DataFrame, items: pl.DataFrame, with_stock: bool) -> None:
    texts = comparable(item_texts(items)).with_columns(
        ngram=pl.lit(NGRAM, pl.Int64), threshold=pl.lit(THRESHOLD), run=pl.lit(RUN, pl.Int64)
    )
    say(title, f"{rows.height} rows, {items.height} items")
    with Clock() as clock:
        loading, seconds, found = run_ours(rows, texts)
    say(title, f"ours   load {loading:6.2f} s, rows {seconds:7.2f} s, {rows.height / seconds:8,.0f} docs/s, "
        f"{len(found)} pairs, peak {clock.bytes / 1e6:,.0f} MB on top")  # fmt: skip
    if with_stock:
        stock_loading, stock_seconds, expected = run_stock(rows, texts)
        rate, ratio = rows.height / stock_seconds, stock_seconds / seconds
        say(title, f"stock  load {stock_loading:6.2f} s, rows {stock_seconds:7.2f} s, {rate:8,.0f} docs/s; "
            f"ours is {ratio:.1f} times as fast")  # fmt: skip
        only = len(found - expected), len(expected - found)
        say(title, "the same pairs" if found == expected else f"{only[0]} pairs only ours, {only[1]} only stock")


def time_filters(title: str, rows: pl.DataFrame) -> None:
    off = {"echoes": False, "min_reply_words": None, "max_reply_words": None, "languages": None,
           "language_probability": 0.8, "max_repeated_lines": None, "max_repeated_words": None, "truncated": False,
           "refusals": False}  # fmt: skip
    rules = {"echoes": True, "min_reply_words": 2, "languages": ["en"], "max_repeated_lines": 0.3,
             "max_repeated_words": 0.15, "truncated": True, "refusals": True}  # fmt: skip
    for name, value in rules.items():
        judge = make_filter(Filters(**off | {name: value}))  # type: ignore[arg-type]
        start = time.perf_counter()
        gone = sum(judge(rows.slice(first, BATCH)).height for first in range(0, rows.height, BATCH))
        say(title, f"{name:18} {rows.height / (time.perf_counter() - start):9,.0f} docs/s, {gone} rows go")


def main(sizes: list[int], stock_rows: int, data: Path) -> None:
    if (data / "medquad").is_dir() and (data / "mmlu").is_dir():
        rows, items = read_real(data)
        compare_both("medquad", rows, items, with_stock=True)
        time_filters("medquad", rows)
    else:
        say("medquad", f"left out: there are no medquad and mmlu in {data}")
    for size in sizes:
        compare_both("generated", *generate(size), with_stock=size <= stock_rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", default="10000,100000,1000000", help="sizes of the generated text")
    parser.add_argument("--stock-rows", type=int, default=100_000, help="no stock beyond this size")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    main([int(size) for size in arguments.rows.split(",")], arguments.stock_rows, arguments.data)
