"""Exact similarity of two rows, counted n-gram by n-gram, and the verdicts on the probes that it decides.

This is the definition that dedup and decontaminate implement for whole columns, on Python's sets: slow, and beside them
a second way to the same number.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from stages.common.probes import CAUGHT, STAYS
from stages.common.rows import CONVERSATIONS, text_of_row, texts_of
from stages.common.shingles import normalise_texts, split_tokens
from stages.probes.leaks import strip_question

Rule = tuple[int, float, int | None]
LEVEL = 5  # width of a band of similarity, in hundredths
SWAPPED, EXACT, NEAR, PART, BELOW = "swapped_labels", "exact", "near", "part", "below_threshold"


def ngrams_of(tokens: list[str], ngram: int) -> set[tuple[str, ...]]:
    """The set of n-grams; a shorter text is one n-gram of all its tokens, an empty one none."""
    length = min(ngram, len(tokens))
    return {tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)} if tokens else set()


def tokens_of(texts: Sequence[str]) -> list[list[str]]:
    return split_tokens(normalise_texts(pl.Series(list(texts), dtype=pl.String))).to_list()


def jaccard(one: Sequence[str], other: Sequence[str], ngram: int) -> float:
    """Jaccard similarity of the sets of n-grams of two rows, each a list of texts; 1 for two rows without words.

    >>> jaccard(["a b c d e"], ["A, b; c d", "x"], 3)  # abc bcd cde; abc bcd x
    0.5
    """
    first, second = (set().union(*(ngrams_of(each, ngram) for each in tokens_of(texts))) for texts in (one, other))
    return len(first & second) / len(first | second) if first | second else 1.0


def share_held(part: str, whole: str, ngram: int) -> float:
    """Share of the n-grams of `whole` that stand in `part`; of a whole shorter than an n-gram, all of it as one.

    >>> share_held("say a b c d", "a b c d e f", 3)  # abc and bcd of abc bcd cde def
    0.5
    """
    held, sought = tokens_of([part, whole])
    length = min(ngram, len(sought))
    grams = ngrams_of(sought, length)
    return len(ngrams_of(held, length) & grams) / len(grams) if grams and len(held) >= length else 0.0


def name_level(similarity: float) -> str:
    """near_85 for a similarity from 0.85 to 0.9; near_95 up to 1."""
    return f"{NEAR}_{min(int(similarity * 100 + 1e-9) // LEVEL * LEVEL, 100 - LEVEL)}"


def judge_duplicates(
    probes: pl.DataFrame, rows: pl.DataFrame, marks: pl.DataFrame, ngram: int, threshold: float
) -> pl.DataFrame:
    """The probes of dedup with `similarity` in its n-grams and `caught`.

    rows: those that the probes copy, among others. marks: row_id, survivor, reason (null: kept) of rows and probes. A
    near duplicate below the threshold must stay; one above it bears its level as its type. Nothing is said where the
    row that it copies is not kept, or where a decoy is dropped for another row: it may be a copy of that one.
    """
    parts = [texts_of(column) for column in CONVERSATIONS]
    copied = rows.filter(pl.col("row_id").is_in(probes["target"].implode())).select("row_id", *parts)
    texts = {row_id: each for row_id, *each in copied.iter_rows()}
    told = pl.concat([probes["row_id"], probes["target"]]).implode()
    lines = marks.filter(pl.col("row_id").is_in(told)).select("row_id", "survivor", "reason").iter_rows()
    verdict = {row_id: (survivor, reason) for row_id, survivor, reason in lines}
    judged = []
    for line, text in zip(probes.iter_rows(named=True), probes.select(parts).iter_rows(), strict=True):
        target = line["target"]
        line["similarity"] = jaccard(text, texts[target], ngram)
        if line["probe"].startswith(NEAR):
            above = line["similarity"] >= threshold
            line["probe"], line["expected"] = (name_level(line["similarity"]), CAUGHT) if above else (BELOW, STAYS)
        survivor, reason = verdict[line["row_id"]]
        if verdict[target][1] is not None or (line["expected"] == STAYS and reason and survivor != target):
            line["caught"] = None
        else:
            line["caught"] = reason == SWAPPED if line["probe"] == SWAPPED else reason is not None
        judged.append(line)
    return pl.DataFrame(judged, probes.schema)


def judge_leaks(
    probes: pl.DataFrame, overlapping: set[str], items: pl.DataFrame, rules: Mapping[str, Rule]
) -> pl.DataFrame:
    """The probes of decontaminate with `similarity` in its n-grams and `caught`.

    overlapping: row_ids that overlap an item. items: task, subtask, item, question. rules: task → words per n-gram,
    threshold, and the length of a run that is enough by itself, if one is. A part of a question below the threshold
    must stay; of one that holds such a run nothing is said.
    """
    named = items.select(pl.format("{}/{}/{}", "task", "subtask", "item").alias("target"), "question")
    questions = dict(named.filter(pl.col("target").is_in(probes["target"].implode())).iter_rows())
    judged = []
    for line in probes.with_columns(text=text_of_row()).iter_rows(named=True):
        text, question = line.pop("text"), strip_question(questions[line["target"]])
        ngram, threshold, run = rules[line["target"].partition("/")[0]]
        line["similarity"] = share_held(text, question, ngram)
        line["caught"] = line["row_id"] in overlapping
        if line["probe"] == PART and line["similarity"] < threshold:
            line["expected"] = STAYS
            if run and share_held(text, question, run):
                line["caught"] = None
        judged.append(line)
    return pl.DataFrame(judged, probes.schema)
