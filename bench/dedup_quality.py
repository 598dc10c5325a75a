"""Near duplicates: what stages/dedup.py finds and merges, against all pairs compared exactly, and of planted copies.

    python bench/dedup_quality.py [--data ../shared/data]

Reads medquad (question and answer); writes nothing. All pairs come from an inverted index. The reference tokens are
lower-case words between white space, which we are given as words of hexadecimal digits; our own tokens leave
punctuation out. Planted are copies of medquad's answers with one kind of edit each, among all of medquad.
"""

import argparse
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse
from dedup import DEFAULT, PURE, keep, read_set

from stages.common.rows import normalise
from stages.common.shingles import split_tokens

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


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
    """How many of the planted copies are found, by edit."""
    texts = read_set("medquad", data)["text"]
    near, _ = keep(texts, PURE)
    free = np.flatnonzero((near.survivor == np.arange(len(texts))) & (near.alike < 0)).tolist()
    chance = random.Random(1)
    cases: list[tuple[int, str, str]] = []
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real sets")
    chosen = parser.parse_args()
    if not (chosen.data / "medquad").is_dir():
        raise SystemExit(f"{chosen.data / 'medquad'} is not there: nothing to measure")
    show_quality(chosen.data)
    show_planted(chosen.data)
