"""Near duplicates: speed, memory and quality of stages/dedup.py beside datasketch and rensa.

    python bench/dedup.py [--data ../shared/data] [--sizes 10000,100000,1000000] [--sets medquad] [--rounds 3]

Each measurement runs in a process of its own: texts lie in memory, the clock stops at the kept rows; peak memory is
what comes on top of the texts. The other tools do what their documentation shows, a signature and a query for each
text: 5-word shingles, 128 hash functions in 16 bands of 8 rows, no candidate is verified. Ours: 5-word shingles,
threshold 0.7, 18 bands of 4 rows, each candidate compared exactly; `careful` is the mode with the second look.

Quality is measured against all pairs, compared exactly by an inverted index. The reference tokens are lower-case words
between white space, which we are given as words of hexadecimal digits; our own tokens leave punctuation out.

Sets: medquad (question and answer), counterfactual-imdb (pairs with minimal edits that turn the meaning), articles
(minhash-plagiarism-articles, labelled pairs), and generated text: a tenth copies with words exchanged, a tenth rows of
templates, 100 rows each, with words exchanged. What is not there is skipped and named. Writes nothing.
"""

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse

from stages.common.rows import normalise
from stages.common.shingles import batches_of, map_in_threads, split_tokens
from stages.deduplication.buckets import Near, assign_buckets, choose_kept
from stages.deduplication.comparison import Comparison, Rows
from stages.deduplication.params import Dedup, candidate_probability, even_similarity
from stages.deduplication.signatures import describe_texts

PURE = Dedup(mode="jaccard", threshold=0.7, ngram=5, bands=18, rows=4, swapped_labels="keep_first", seed=1)
CAREFUL = PURE.model_copy(update={"mode": "careful"})
DEFAULT = CAREFUL.model_copy(update={"threshold": 0.8, "ngram": 3, "bands": 24, "rows": 5})
NGRAM, HASHES, BANDS = 5, 128, 16  # of the other tools
LARGEST_FOR_ALL = 100_000
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


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


def run_ours(params: Dedup) -> Callable[[pl.Series], np.ndarray]:
    return lambda texts: keep(texts, params)[0].survivor


def run_datasketch(texts: pl.Series) -> np.ndarray:
    from datasketch import MinHash, MinHashLSH

    index, found = MinHashLSH(num_perm=HASHES, params=(BANDS, HASHES // BANDS)), np.arange(len(texts))
    for row, text in enumerate(texts):
        sketch = MinHash(num_perm=HASHES, scheme="affine32")
        sketch.update_batch([shingle.encode() for shingle in shingles(text)])
        found[row] = min(index.query(sketch), default=row)
        index.insert(row, sketch)
    return found


def run_rensa(texts: pl.Series) -> np.ndarray:
    from rensa import RMinHash, RMinHashLSH

    index, found = RMinHashLSH(threshold=0.7, num_perm=HASHES, num_bands=BANDS), np.arange(len(texts))
    for row, text in enumerate(texts):
        sketch = RMinHash(num_perm=HASHES, seed=1)
        sketch.update(shingles(text))
        found[row] = min(index.query(sketch), default=row)
        index.insert(row, sketch)
    return found


def shingles(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[start : start + NGRAM]) for start in range(max(1, len(words) - NGRAM + 1))]


TOOLS: dict[str, Callable[[pl.Series], np.ndarray]] = {
    "ours, jaccard": run_ours(PURE),
    "ours, careful": run_ours(CAREFUL),
    "datasketch": run_datasketch,
    "rensa": run_rensa,
}


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


def all_pairs(tokens: list[list[str]], ngram: int, threshold: float) -> Pairs:
    """Every pair (earlier, later, similarity) that reaches the threshold, by an inverted index over the n-grams."""
    numbers: dict[tuple[str, ...], int] = {}
    columns, ends = [], [0]
    for words in tokens:
        grams = (
            {tuple(words[start : start + ngram]) for start in range(max(1, len(words) - ngram + 1))} if words else ()
        )
        columns += [numbers.setdefault(gram, len(numbers)) for gram in grams]
        ends.append(len(columns))
    shape = (len(tokens), len(numbers))
    matrix = scipy.sparse.csr_array((np.ones(len(columns), np.int32), columns, ends), shape=shape)
    sizes, turned, found = np.diff(ends), matrix.T.tocsr(), []
    for start in range(0, len(tokens), 200):
        common = (matrix[start : start + 200] @ turned).tocoo()
        one, other = common.coords[0] + start, common.coords[1]
        similarity = common.data / (sizes[one] + sizes[other] - common.data)
        wanted = (one < other) & (similarity >= threshold)
        found.append((one[wanted], other[wanted], similarity[wanted]))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]


def greedy(pairs: Pairs, size: int) -> np.ndarray:
    """Which rows have an earlier kept neighbour among the pairs."""
    dropped = np.zeros(size, np.bool_)
    order = np.argsort(pairs[1], kind="stable")
    for one, other in zip(pairs[0][order].tolist(), pairs[1][order].tolist(), strict=True):
        dropped[other] |= not dropped[one]
    return dropped


def resident() -> int:
    """Bytes in memory now; the peak counter starts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def measure(tool: str, name: str, data: Path) -> None:
    """One measurement, as JSON on stdout: what the process started by `measured` does."""
    texts = read_set(name, data)["text"]
    TOOLS[tool](texts[:500])  # imports and first calls do not count
    before, start, cpu = resident(), time.perf_counter(), time.process_time()
    found = TOOLS[tool](texts)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "bytes": status("VmHWM") - before, "found": found.tolist()}))


def measured(tool: str, name: str, data: Path, rounds: int) -> tuple[float, float, int, np.ndarray]:
    """Seconds and seconds of all cores (the best of some rounds), bytes over the texts, the row that each repeats."""
    runs = []
    for _ in range(rounds):
        command = [sys.executable, __file__, "--measure", tool, name, "--data", str(data)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
        if done.returncode:
            sys.exit(done.stderr)
        runs.append(json.loads(done.stdout))
    seconds, cpu = (min(run[what] for run in runs) for what in ("seconds", "cpu"))
    return seconds, cpu, max(run["bytes"] for run in runs), np.array(runs[0]["found"])


def show_speed(names: list[str], data: Path, rounds: int) -> None:
    heads = ("docs/s", 8), ("CPU s", 7), ("peak MB", 8), ("KB/row", 7), ("dropped", 8)
    print(f"{'set':>10} {'rows':>8}  {'tool':14}", *(f"{head:>{width}}" for head, width in heads), " of these")
    for name in names:
        table = read_set(name, data)
        for tool in TOOLS:
            if len(table) > LARGEST_FOR_ALL and tool != "ours, jaccard":
                continue
            times = rounds if len(table) < LARGEST_FOR_ALL else 1
            seconds, cpu, peak, found = measured(tool, name, data, times)
            dropped = np.flatnonzero(found != np.arange(len(found)))
            print(
                f"{name:>10} {len(table):8}  {tool:14} {len(table) / seconds:8,.0f} {cpu:7.2f} {peak / 1e6:8,.0f} "
                f"{peak / len(table) / 1e3:7.2f} {len(dropped):8,}  {merged_apart(name, table, dropped, found)}",
                flush=True,
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


def show_quality(data: Path) -> None:
    texts = read_set("medquad", data)["text"]
    reference = [text.lower().split() for text in texts]
    own = split_tokens(pl.Series([normalise(text) for text in texts])).to_list()
    as_words = pl.Series([" ".join("w" + word.encode().hex() for word in words) for words in reference])
    for label, tokens, given in (("reference tokens", reference, as_words), ("our tokens", own, texts)):
        pairs = all_pairs(tokens, PURE.ngram, PURE.threshold)
        expected = greedy(pairs, len(texts))
        near, lines = keep(given, PURE)
        keys = lines["keys"].to_numpy()
        shared = (keys[pairs[0]] == keys[pairs[1]]).any(axis=1)
        dropped = np.flatnonzero(near.survivor != np.arange(len(texts)))
        exact = {(one, other): share for one, other, share in zip(*(part.tolist() for part in pairs), strict=True)}
        false = sum(
            abs(exact.get((int(near.survivor[row]), int(row)), 0) - near.similarity[row]) > 1e-9 for row in dropped
        )
        print(
            f"medquad, {label}: {len(pairs[0]):,} pairs at {PURE.threshold}, {shared.mean():.4f} of them candidates; "
            f"exact greedy drops {expected.sum():,}, ours {len(dropped):,}; {false} merged without that similarity",
            flush=True,
        )


EDITS: dict[str, Callable[[list[str], random.Random], list[str]]] = {}


def edit(function: Callable[[list[str], random.Random], list[str]]) -> Callable[[list[str], random.Random], list[str]]:
    """Name an edit of a text in sentences."""
    EDITS[function.__name__] = function
    return function


@edit
def two_typos(sentences: list[str], chance: random.Random) -> list[str]:
    words = [word for sentence in sentences for word in re.findall(r"[a-z]{6,}", sentence)]
    text = "\n".join(sentences)
    for word in chance.sample(sorted(set(words)), 2):
        place = chance.randrange(2, len(word) - 2)
        wrong = chance.choice([word[:place] + word[place + 1 :], word[:place] + word[place] + word[place:]])
        text = re.sub(rf"\b{word}\b", wrong, text, count=1)
    return text.split("\n")


@edit
def case_and_spaces(sentences: list[str], chance: random.Random) -> list[str]:
    return [sentence.upper().replace(" ", "  ") for sentence in sentences]


@edit
def punctuation(sentences: list[str], chance: random.Random) -> list[str]:
    return [re.sub(r"[,;:()\"]", "", sentence) for sentence in sentences]


@edit
def sentence_dropped(sentences: list[str], chance: random.Random) -> list[str]:
    place = chance.randrange(1, len(sentences))
    return sentences[:place] + sentences[place + 1 :]


@edit
def sentence_added(sentences: list[str], chance: random.Random) -> list[str]:
    place = chance.randrange(1, len(sentences))
    return [*sentences[:place], "People often ask their own doctor about this.", *sentences[place:]]


@edit
def boilerplate_appended(sentences: list[str], chance: random.Random) -> list[str]:
    return [*sentences, "\nThis page was last reviewed by our editors. All rights reserved."]


@edit
def function_words(sentences: list[str], chance: random.Random) -> list[str]:
    first, *rest = sentences
    changed = [sentence.replace(" the ", " this ").replace(" which ", " that ") for sentence in rest[:2]]
    return [first, *changed, *rest[2:]]


def show_planted(data: Path) -> None:
    """Copies of medquad's answers with one kind of edit each, among all of medquad: how many are found."""
    texts = read_set("medquad", data)["text"]
    near, _ = keep(texts, PURE)
    free = np.flatnonzero((near.survivor == np.arange(len(texts))) & (near.alike < 0)).tolist()
    chance = random.Random(1)
    cases = []
    for row in chance.sample(free, len(free)):
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(texts[row].split()))
        if 8 <= len(sentences) <= 20 and len(texts[row]) > 600:
            name = list(EDITS)[len(cases) % len(EDITS)]
            cases.append((row, name, " ".join(EDITS[name](sentences, chance))))
        if len(cases) == 100 * len(EDITS):
            break
    corpus = pl.concat([texts, pl.Series("text", [text for _, _, text in cases])])
    copies = np.arange(len(texts), len(corpus))
    tokens = split_tokens(pl.Series([normalise(text) for text in corpus])).to_list()
    share = {}
    for copy, (row, _, _) in zip(copies.tolist(), cases, strict=True):
        grams = [
            {tuple(words[at : at + DEFAULT.ngram]) for at in range(len(words))} for words in (tokens[copy], tokens[row])
        ]
        share[copy] = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
    for params in (DEFAULT.model_copy(update={"mode": "jaccard"}), DEFAULT):
        near, _ = keep(corpus, params)
        found = []
        for name in EDITS:
            places = [copy for copy, (_, kind, _) in zip(copies.tolist(), cases, strict=True) if kind == name]
            reached = [copy for copy in places if share[copy] >= params.threshold]
            hits = sum(near.survivor[copy] == cases[copy - len(texts)][0] for copy in reached)
            found.append(f"{name.replace('_', ' ')} {hits}/{len(reached)}")
        print(f"planted copies at {params.threshold} or more found, mode {params.mode}: {', '.join(found)}", flush=True)


def main(data: Path, sizes: list[str], rounds: int, sets: list[str]) -> None:
    folders = {"medquad": "medquad", "imdb": "counterfactual-imdb", "articles": "minhash-plagiarism-articles"}
    names = [name for name in sets if (data / folders[name]).exists()]
    for name in sorted(set(sets) - set(names)):
        print(f"{name}: not in {data}, skipped")
    print("text-dedup, datatrove and Daft are not among this environment's packages: not measured")
    print(
        f"S-curve of {PURE.bands} bands of {PURE.rows} rows: {float(candidate_probability(0.7, PURE)):.4f} at 0.7, "
        f"{float(candidate_probability(0.8, PURE)):.4f} at 0.8, one half at {even_similarity(PURE):.2f}"
    )
    show_speed([*names, *sizes], data, rounds)
    if "medquad" in names:
        show_quality(data)
        show_planted(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real sets")
    parser.add_argument("--sizes", default="10000,100000,1000000", help="rows of generated text")
    parser.add_argument("--sets", default="medquad,imdb,articles", help="of the real sets")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many is shown")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure, arguments.data)
    else:
        main(
            arguments.data, list(filter(None, arguments.sizes.split(","))), arguments.rounds, arguments.sets.split(",")
        )
