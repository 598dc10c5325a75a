"""Duplicates of the user's own rows at known similarity, and decoys that must stay: the probes of dedup.

rows of pool → exact copies once normalised, near duplicates by level of similarity, pairs with exchanged labels, pairs
below the threshold, and copies in which the one thing that matters is changed (stages/probes/edits.py).

The rows are chosen by their row_id, in turn from each source: a row that is added moves few of the choices.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from random import Random
from typing import Any

import polars as pl

from stages.common.files import digest_text
from stages.common.probes import CAUGHT, STAYS, Probes, make_probe, make_table
from stages.common.rows import CONVERSATIONS, text_of_row
from stages.probes.edits import CHANGES, COURTESIES, FILLERS, FUNCTION_WORDS, HARMLESS, NORMALISED
from stages.probes.leaks import split_words
from stages.probes.similarity import BELOW, EXACT, NEAR, SWAPPED, jaccard, ngrams_of, tokens_of

NGRAM = 3  # words; what dedup finds is measured anew in its own n-grams
LEVELS = {f"{NEAR}_95": (0.95, 1.0), f"{NEAR}_90": (0.9, 0.95), f"{NEAR}_85": (0.85, 0.9), f"{NEAR}_80": (0.8, 0.85)}
BELOW_LEVEL = (0.5, 0.7)
DECOY_LEVEL = (0.8, 1.0)  # a change that alters more than this would stay without anyone looking at it
CANDIDATES = 60  # rows looked at for each probe of a type: not every row has a number or is long enough
LONG, TOO_LONG = 40, 1500  # words; of 40 words one can change at a similarity of 0.85
STEPS = 60  # edits tried on one row: 22 ms
PATIENCE = 10  # rows tried in vain for each probe of a level before the level is given up
LEAST_WORDS = 12  # of a message that is edited, where the row has one: of a shorter one an edit changes all
MARK = "\0"  # between the texts of a row

Row = dict[str, Any]
Build = Callable[[Row, Random], tuple[Row, float] | None]


def choose_rows(rows: pl.LazyFrame, number: int, seed: int) -> pl.DataFrame:
    """At least `number` rows, where there are as many, with `words`, in turn from each source.

    Of the other rows no more is held in memory than the id and the source.
    """
    start = digest_text(f"probes {seed}", 16)
    every = rows.select("row_id", "source").collect().sort(pl.col("row_id") < start, "row_id")
    each = -(-number // max(every["source"].n_unique(), 1))
    turned = every.with_columns(turn=pl.int_range(pl.len()).over("source"))
    taken = turned.filter(pl.col("turn") < each).sort("turn", "source").select("row_id")
    counted = rows.filter(pl.col("row_id").is_in(taken["row_id"].implode())).with_columns(
        words=text_of_row().str.count_matches(r"\w+")
    )
    found = counted.filter(pl.col("words").is_between(1, TOO_LONG)).collect()
    return taken.join(found, on="row_id", maintain_order="left", how="inner")


def places_of(row: Row) -> list[tuple[str, int]]:
    """Column and position of each message that is prose: no JSON of a tool."""
    return [
        (column, index)
        for column in CONVERSATIONS
        for index, each in enumerate(row[column] or [])
        if each["role"] != "tool" and (each["content"] or "").strip() and each["content"].lstrip()[0] not in "{["
        if MARK not in each["content"]
    ]


def replace_texts(row: Row, places: list[tuple[str, int]], texts: list[str]) -> Row:
    """The row with these texts at these places."""
    changed = row | {column: [dict(each) for each in row[column]] for column in CONVERSATIONS if row[column]}
    for (column, index), text in zip(places, texts, strict=True):
        changed[column][index]["content"] = text
    return changed


def texts_at(row: Row, places: list[tuple[str, int]]) -> list[str]:
    return [row[column][index]["content"] for column, index in places]


def parts_of(row: Row) -> list[str]:
    """The texts of prompt or conversation, chosen and rejected."""
    return [
        "\n".join(f"{each['content'] or ''} {each['tool_calls'] or ''}" for each in row[column] or [])
        for column in CONVERSATIONS
    ]


def renormalise(texts: list[str], style: int, random: Random) -> list[str]:
    """The texts in another case, spacing or punctuation; as they were where that would change a word."""
    changed = [NORMALISED[style](text, random) for text in texts]
    same = zip(tokens_of(texts), tokens_of(changed), strict=True)
    return [new if one == other else old for old, new, (one, other) in zip(texts, changed, same, strict=True)]


def copy_row(row: Row, random: Random) -> tuple[Row, float]:
    """An exact copy, as it stands or in other case, spaces, signs or forms of letters."""
    places, style = places_of(row), random.randrange(len(NORMALISED) + 1)
    if style == len(NORMALISED):
        return row, 1.0
    return replace_texts(row, places, renormalise(texts_at(row, places), style, random)), 1.0


def swap_labels(row: Row, random: Random) -> tuple[Row, float] | None:
    """The pair with its replies exchanged, or the reply with the other label."""
    if row["kind"] == "preference" and row["chosen"] != row["rejected"]:
        return row | {"chosen": row["rejected"], "rejected": row["chosen"]}, 1.0
    return (row | {"label": not row["label"]}, 1.0) if row["kind"] == "unpaired" else None


def touches_again(text: str, new: str, untouched: frozenset[str]) -> bool:
    """Whether an edit changes a word that an earlier one has made: two slips may make another word of it."""
    return any(word not in untouched for word in Counter(split_words(text)) - Counter(split_words(new)))


def blur(low: float, high: float) -> Build:
    """Harmless edits of the longer messages until the similarity is in [low, high)."""

    def build(row: Row, random: Random) -> tuple[Row, float] | None:
        places, original = places_of(row), parts_of(row)
        texts = texts_at(row, places)
        grams = sum(len(ngrams_of(tokens, NGRAM)) for tokens in tokens_of(original))
        if not texts or grams < low * (grams + 1):  # one n-gram more is the least that an edit changes
            return None
        untouched = frozenset(word for text in texts for word in split_words(text))
        words = [len(text.split()) for text in texts]
        weights = [count if count >= min(LEAST_WORDS, max(words)) else 0 for count in words]
        for _ in range(STEPS):
            (chosen,) = random.choices(range(len(texts)), [max(weight, 0) for weight in weights])
            new = random.choice(HARMLESS)(texts[chosen], random)
            if not new or not new.strip() or touches_again(texts[chosen], new, untouched):
                continue
            trial = [*texts[:chosen], new, *texts[chosen + 1 :]]
            similarity = jaccard(original, parts_of(replace_texts(row, places, trial)), NGRAM)
            if low <= similarity < high:
                styled = renormalise(trial, random.randrange(len(NORMALISED)), random)
                return replace_texts(row, places, styled if random.random() < 0.5 else trial), similarity
            texts = trial if similarity >= high else texts
        return None

    return build


def change(kind: str) -> Build:
    """What matters is changed, at a similarity of DECOY_LEVEL."""

    def build(row: Row, random: Random) -> tuple[Row, float] | None:
        places = places_of(row)
        new = CHANGES[kind](MARK.join(texts_at(row, places)), random) if places else None
        if new is None:
            return None
        changed = replace_texts(row, places, new.split(MARK))
        similarity = jaccard(parts_of(row), parts_of(changed), NGRAM)
        return (changed, similarity) if DECOY_LEVEL[0] <= similarity < DECOY_LEVEL[1] else None

    return build


# Type → how it is made, what is expected, whether long rows come first.
KINDS: dict[str, tuple[Build, str, bool]] = (
    {EXACT: (copy_row, CAUGHT, False), SWAPPED: (swap_labels, CAUGHT, False)}
    | {name: (blur(*level), CAUGHT, True) for name, level in LEVELS.items()}
    | {BELOW: (blur(*BELOW_LEVEL), STAYS, True)}
    | {kind: (change(kind), STAYS, True) for kind in CHANGES}
)


def words_of(texts: Iterable[str]) -> set[str]:
    return set(chain.from_iterable(tokens_of(list(texts))))


def plant_duplicates(rows: pl.LazyFrame, params: Probes) -> pl.DataFrame:
    """`params.duplicates` probes of each of KINDS, fewer where the rows do not offer as many.

    A row is copied once, and again only where there are too few. A text below the threshold is called near in its
    level here; dedup, which knows its threshold, names it.
    """
    number = params.duplicates
    spread = choose_rows(rows, CANDIDATES * number, params.seed).to_dicts()
    long_first = sorted(spread, key=lambda row: row["words"] < LONG)
    used: set[str] = set()
    words = words_of(
        [*chain.from_iterable(map(parts_of, spread)), *COURTESIES, *FILLERS, *chain(*FUNCTION_WORDS.values())]
    )
    misspelt: set[str] = set()  # a slip that a second probe makes too would be a word that rows have in common
    probes: dict[str, list[dict[str, Any]]] = {}
    for kind, (build, expected, prefers_long) in reversed(KINDS.items()):
        order = long_first if prefers_long else spread
        fresh = [row for row in order if row["row_id"] not in used]
        probes[kind] = []
        in_vain = 0
        for row in chain(fresh, [row for row in order if row["row_id"] in used]):
            if len(probes[kind]) == number or in_vain == PATIENCE * number:
                break
            built = build(row, Random(f"{params.seed} {kind} {row['row_id']}"))
            slips = words_of(parts_of(built[0])) - words if built else set()
            in_vain = in_vain + (kind in LEVELS or kind == BELOW) if not built else 0
            if built and not slips & misspelt:
                used.add(row["row_id"])
                misspelt |= slips
                place = {"target": row["row_id"], "similarity": built[1], "expected": expected}
                probes[kind].append(make_probe(built[0], kind, "dedup", len(probes[kind]), **place))
    return make_table([probe for kind in KINDS for probe in probes[kind]])
