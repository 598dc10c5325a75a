"""Near duplicates: speed and memory of stages/dedup.py beside the tools of the field. Quality: bench/dedup_quality.py.

    python bench/dedup.py [--data ../shared/data] [--sizes 10000,100000,1000000] [--sets medquad] [--rounds 3]
        [--python text-dedup=PYTHON ...]

Each measurement runs in a process of its own, from texts in memory to the kept rows; peak memory is what comes on top
of the texts, worker processes included. Ours: 5-word shingles, threshold 0.7, 18 bands of 4 rows, each candidate
compared exactly, in threads on all cores; `careful` is the mode with the second look. What the others do is said in
bench/dedup_tools.py. Beyond 100,000 rows only ours runs, pure Jaccard; below the table stands how it grows.

A tool joins in where its interpreter (this one, or the one that --python names) can import it; else that is said.
Tried with datasketch==2.0.0, rensa==0.5.0, daft==0.7.26 (with scipy), datatrove[io,processing]==0.10.1 (with orjson and
spacy) and text-dedup==0.4.0. The last three go into environments of their own. text-dedup asks for urllib3<=2.0 and for
PySpark; for MinHash `pip install --no-deps text-dedup==0.4.0` is enough, with datasets==5.2.0, click==8.5.1,
click-option-group==0.5.10, ftfy==6.3.1, rich==13.9.4, psutil, regex, scipy, xxhash and bitarray.

Sets: medquad (question and answer), counterfactual-imdb (pairs with minimal edits that turn the meaning), articles
(minhash-plagiarism-articles, labelled pairs), and generated text: a tenth copies with words exchanged, a tenth rows of
templates, 100 rows each, with words exchanged. What is not there is skipped and named. Writes to a temporary folder.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from dedup_tools import TOOLS, Clock

from stages.common.shingles import batches_of, map_in_threads
from stages.deduplication.buckets import Near, assign_buckets, choose_kept
from stages.deduplication.comparison import Comparison, Rows
from stages.deduplication.params import Dedup, candidate_probability, even_similarity
from stages.deduplication.signatures import describe_texts

PURE = Dedup(mode="jaccard", threshold=0.7, ngram=5, bands=18, rows=4, swapped_labels="keep_first", seed=1)
CAREFUL = PURE.model_copy(update={"mode": "careful"})
DEFAULT = CAREFUL.model_copy(update={"threshold": 0.8, "ngram": 3, "bands": 24, "rows": 5})
OURS = {"ours, jaccard": PURE, "ours, careful": CAREFUL}
LARGEST_FOR_ALL = 100_000
TOOLS_FILE = str(Path(__file__).with_name("dedup_tools.py"))


class Run(NamedTuple):
    """The best of some rounds; bytes are the most of them. `found` is the row that each row repeats, or itself."""

    seconds: float
    cpu: float
    bytes: int
    found: np.ndarray


def keep(texts: pl.Series, params: Dedup) -> tuple[Near, pl.DataFrame]:
    """The choice among texts in the order in which they come, and what is kept of each."""
    table = pl.DataFrame({"messages": texts, "chosen": pl.repeat("", len(texts), eager=True)})
    table = table.with_columns(rejected="chosen")
    batches = batches_of(texts.str.len_bytes().to_numpy())
    parts = map_in_threads(lambda start, count: describe_texts(table.slice(start, count), params), batches)
    lines = pl.concat(parts)
    del parts
    nothing = np.zeros(len(texts), np.int8)
    rows = Rows(
        lambda at: table[at], lambda at: pl.DataFrame(), lines["bytes"].to_numpy(), lines["grams"].to_numpy(),
        nothing > 0, nothing, nothing.astype(np.int64),
    )  # fmt: skip
    buckets = assign_buckets(lines["keys"].to_numpy(), np.zeros(len(texts), np.uint64))
    return choose_kept(buckets, Comparison(rows, params)), lines


def generate(size: int) -> pl.Series:
    """Texts of 120 words out of 50,000 in Zipf's proportions; a tenth copies, a tenth out of templates."""
    generator = np.random.default_rng(1)
    letters = np.array(list("etaoinshrdlucmfw"))
    vocabulary = pl.Series(
        ["".join(letters[generator.integers(0, 16, n)]) for n in generator.integers(2, 10, 50_000)], dtype=pl.String
    )
    weights = 1 / (np.arange(50_000) + 10)
    chances = np.cumsum(weights / weights.sum())
    parts = []
    templates = np.minimum(np.searchsorted(chances, generator.random((max(10, size // 1000), 120))), 49_999)
    for start in range(0, size, 50_000):
        count = min(50_000, size - start)
        words = np.minimum(np.searchsorted(chances, generator.random((count, 120))), 49_999)
        kinds = generator.integers(0, 10, count)
        copies, framed = np.flatnonzero(kinds == 0), np.flatnonzero(kinds == 1)
        words[copies] = words[generator.integers(0, count, len(copies))]
        words[framed] = templates[generator.integers(0, len(templates), len(framed))]
        changed = generator.random((count, 120)) < np.where(kinds < 2, 0.02, 0)[:, None]
        words[changed] = generator.integers(0, 50_000, changed.sum())
        parts.append(vocabulary.gather(words.reshape(-1)).reshape((count, 120)).arr.join(" "))
    return pl.concat(parts, rechunk=True)


def read_set(name: str, data: Path) -> pl.DataFrame:
    """Texts of a set, with what the set says of them: text, about (who is like whom)."""
    if name.isdigit():
        return pl.DataFrame(
            {"text": generate(int(name)), "about": pl.Series([""], dtype=pl.String).new_from_index(0, int(name))}
        )
    if name == "medquad":
        lines = [json.loads(line) for line in (data / "medquad/medquad.jsonl").open()]
        rows = [(f"{line['question']} {line['answer']}", line["focus"]) for line in lines]
    elif name == "imdb":
        rows = []
        for part in ("train", "test"):
            file = (data / f"counterfactual-imdb/{part}_paired.tsv").open(newline="")
            rows += [(line["Text"], part + line["batch_id"]) for line in csv.DictReader(file, delimiter="\t")]
    else:
        folder = data / "minhash-plagiarism-articles"
        pairs = dict(line.split() for line in (folder / "articles_1000.truth").open())
        lines = [line.strip().partition(" ") for line in (folder / "articles_1000.train").open() if line.strip()]
        rows = [(text, pairs.get(name, name)) for name, _, text in lines]
    return pl.DataFrame(rows, {"text": pl.String, "about": pl.String}, orient="row")


def measure(ours: str, name: str, data: Path) -> None:
    """One measurement of ours, as JSON on stdout: what the process started by `measured` does."""
    texts = read_set(name, data)["text"]
    keep(texts[:500], OURS[ours])  # imports and first calls do not count
    with Clock() as clock:
        found = keep(texts, OURS[ours])[0].survivor
    print(clock.result(found.tolist()))


def measured(command: list[str], rounds: int) -> Run:
    runs = []
    for _ in range(rounds):
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
        if done.returncode:
            sys.exit(done.stderr)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    seconds, cpu = (min(run[what] for run in runs) for what in ("seconds", "cpu"))
    return Run(seconds, cpu, max(run["bytes"] for run in runs), np.array(runs[0]["found"]))


def find_tools(pythons: dict[str, str]) -> dict[str, str]:
    """Tool → the interpreter that can import it; says which version it is, or that it is not there."""
    found = {}
    for tool in TOOLS:
        python = pythons.get(tool, sys.executable)
        done = subprocess.run([python, TOOLS_FILE, "--version", tool], capture_output=True, text=True)
        if done.returncode == 0:
            found[tool] = python
        reason = (done.stderr.strip().splitlines() or [""])[-1]
        print(f"{tool} {done.stdout.strip()}" if done.returncode == 0 else f"{tool}: not measured, {reason}")
    return found


def show_speed(names: list[str], tools: dict[str, str], data: Path, rounds: int) -> None:
    heads = ("docs/s", 8), ("CPU s", 7), ("peak MB", 8), ("KB/row", 7), ("dropped", 8)
    print(f"{'set':>10} {'rows':>8}  {'tool':14}", *(f"{head:>{width}}" for head, width in heads), " of these")
    grown: dict[int, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            table, file = read_set(name, data), Path(folder, "texts.jsonl")
            table.select("text").write_ndjson(file)
            own = [sys.executable, __file__, "--data", str(data), "--measure"]
            commands = {tool: [*own, tool, name] for tool in OURS}
            commands |= {tool: [python, TOOLS_FILE, tool, str(file)] for tool, python in tools.items()}
            for tool, command in commands.items():
                if len(table) > LARGEST_FOR_ALL and tool != "ours, jaccard":
                    continue
                run = measured(command, rounds if len(table) < LARGEST_FOR_ALL else 1)
                if name.isdigit() and tool == "ours, jaccard":
                    grown[len(table)] = run
                dropped = np.flatnonzero(run.found != np.arange(len(table)))
                print(
                    f"{name:>10} {len(table):8}  {tool:14} {len(table) / run.seconds:8,.0f} {run.cpu:7.2f} "
                    f"{run.bytes / 1e6:8,.0f} {run.bytes / len(table) / 1e3:7.2f} {len(dropped):8,}  "
                    f"{merged_apart(name, table, dropped, run.found)}",
                    flush=True,
                )
    for small, large in itertools.pairwise(sorted(grown)):
        few, many = grown[small], grown[large]
        print(
            f"ours from {small:,} to {large:,} rows: {large / small:.1f} times the rows, "
            f"{many.seconds / few.seconds:.1f} times the time, {many.cpu / few.cpu:.1f} times the CPU, "
            f"{many.bytes / few.bytes:.1f} times the memory"
        )


def merged_apart(name: str, table: pl.DataFrame, dropped: np.ndarray, found: np.ndarray) -> str:
    """How many of the merged pairs the set says to keep apart."""
    about = table["about"]
    same = (about[dropped] == about[found[dropped]]).to_numpy()
    if name == "medquad":
        return f"{(~same).sum()} of {len(dropped)} differ in focus"
    if name == "imdb":
        return f"{same.sum()} of {about.n_unique()} pairs of opposite meaning ({same.sum() / about.n_unique():.1%})"
    if name == "articles":
        return f"{same.sum()} of {len(about) - about.n_unique()} labelled pairs, {(~same).sum()} others"
    return ""


def main(data: Path, sizes: list[str], rounds: int, sets: list[str], pythons: dict[str, str]) -> None:
    folders = {"medquad": "medquad", "imdb": "counterfactual-imdb", "articles": "minhash-plagiarism-articles"}
    names = [name for name in sets if (data / folders[name]).exists()]
    for name in sorted(set(sets) - set(names)):
        print(f"{name}: not in {data}, skipped")
    tools = find_tools(pythons)
    print(
        f"S-curve of {PURE.bands} bands of {PURE.rows} rows: {float(candidate_probability(0.7, PURE)):.4f} at 0.7, "
        f"{float(candidate_probability(0.8, PURE)):.4f} at 0.8, one half at {even_similarity(PURE):.2f}"
    )
    show_speed([*names, *sizes], tools, data, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real sets")
    parser.add_argument("--sizes", default="10000,100000,1000000", help="rows of generated text")
    parser.add_argument("--sets", default="medquad,imdb,articles", help="of the real sets")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many is shown")
    parser.add_argument(
        "--python", action="append", default=[], metavar="TOOL=PYTHON", help="its interpreter; repeatable"
    )
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure(chosen.measure[0], chosen.measure[1], chosen.data)
    else:
        sizes, sets = (list(filter(None, given.split(","))) for given in (chosen.sizes, chosen.sets))
        pythons = {tool: python for tool, _, python in (pair.partition("=") for pair in chosen.python)}
        if unknown := pythons.keys() - TOOLS.keys():
            parser.error(f"--python {', '.join(sorted(unknown))}: no such tool; there are {', '.join(TOOLS)}")
        main(chosen.data, sizes, chosen.rounds, sets, pythons)
