"""Which rows hold which item, by two rules.

- share: the row holds at least `threshold` of the different word n-grams of one of the item's texts. A text of fewer
  words than an n-gram is one n-gram of all of them: the row must hold that run.
- run: the row and the text share one whole run of `run` words, 13 in GPT-3 (Brown et al. 2020, appendix C). A run that
  stands in more than `common` different items is common wording there and says nothing; an item that several subtasks
  have counts once. How many rows hold it says nothing either way: the eleventh copy of a leak must not free the others.

Rows are compared in batches by a pure function of the batch, so that they may go to any number of processes. Its cost
is that of one multiplication and addition for each token and length: the n-grams of all lengths are made in one pass,
and a table of which one place in 8 is taken at most ends nearly all of them before the exact look-up.

A text that a row overlaps by the share rule has one of its rarest n-grams in the row: of T n-grams, a row that lacks
all of some T - ceil(threshold * T) + 1 holds too few. Only these make pairs of rows and texts, so that wording which
thousands of items and rows share makes none.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.engine import Engine, map_batches, slices
from stages.common.rows import text_of_row
from stages.common.shingles import MULTIPLIER, Ragged, offsets_of, tokenise

BATCH = 20_000  # rows compared at a time
FILTER_BITS = 4  # the table that rules an n-gram out has 2^4 or half as many places for each sought one
FOUND: dict[str, Any] = {"row_id": pl.String, "text": pl.Int64, "share": pl.Float64, "run": pl.Boolean}

Places = dict[int, tuple[npt.NDArray[np.bool_], np.uint64]]


class Sought(NamedTuple):
    """The n-grams to look for; a text is a line of the table of texts."""

    grams: pl.DataFrame
    """text, gram: the different n-grams of each text that the share rule counts."""
    rare: pl.DataFrame
    """text, gram: those of them of which an overlapping row holds one at least."""
    runs: pl.DataFrame
    """text, gram: the runs of which one is enough."""
    texts: pl.DataFrame
    """text, threshold, total (of its n-grams)."""
    known: dict[int, npt.NDArray[np.uint64]]
    """Length in words → all sought n-grams of that length, ascending, one for each text."""


def roll_ngrams(
    tokens: Ragged, lengths: Sequence[int]
) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.uint64]]]:
    """For each length, ascending: where each run of that many tokens within a text begins, and its number."""
    total = len(tokens.values)
    room = np.repeat(tokens.offsets[1:], tokens.counts()) - np.arange(total)  # tokens from here to the end of the text
    values = np.zeros(total, np.uint64)
    for length in range(1, max(lengths, default=0) + 1):
        values = values[: max(total - length + 1, 0)]
        values *= MULTIPLIER
        values += tokens.values[length - 1 :]
        if length in lengths:
            starts = np.flatnonzero(room[: len(values)] >= length)
            yield length, starts, values[starts] + np.uint64(length)  # the length is part of the number


def list_ngrams(tokens: Ragged, length_of_text: npt.NDArray[np.int64]) -> pl.DataFrame:
    """The different n-grams of each text, of the text's own length (0: none): text, gram, length, texts_with (it)."""
    text_of_token = tokens.texts()
    tables = [pl.DataFrame(schema={"text": pl.Int64, "gram": pl.UInt64, "length": pl.Int64, "texts_with": pl.Int64})]
    for length, starts, values in roll_ngrams(tokens, np.unique(length_of_text[length_of_text > 0]).tolist()):
        owners = text_of_token[starts]
        own = length_of_text[owners] == length
        table = pl.DataFrame({"text": owners[own], "gram": values[own]}).unique().sort("text", "gram")
        table = table.with_columns(
            pl.lit(length, pl.Int64).alias("length"), texts_with=pl.len().over("gram").cast(pl.Int64)
        )
        tables.append(table.select(tables[0].columns))
    return pl.concat(tables)


def choose_rare(grams: pl.DataFrame, totals: npt.NDArray[np.int64], threshold: pl.Series) -> pl.DataFrame:
    """The T - ceil(threshold * T) + 1 n-grams of each text that the fewest texts hold: text, gram."""
    text = grams["text"].to_numpy()
    order = np.argsort(text * 2**32 + grams["texts_with"].to_numpy())  # by text, in it the rarest first
    rank = np.arange(len(order)) - np.repeat(offsets_of(totals)[:-1], totals)
    enough = totals - np.ceil(totals * threshold.to_numpy() - 1e-9) + 1
    return grams.select("text", "gram")[order[rank < np.repeat(enough, totals)]]


def drop_common_wording(runs: pl.DataFrame, item: pl.Series, common: int) -> pl.DataFrame:
    """The runs that stand in no more than `common` items; `item` says whose each text is."""
    often = runs.filter(pl.col("texts_with") > common)
    items_with = often.with_columns(item.gather(often["text"])).unique(["item", "gram"])["gram"].value_counts()
    return runs.join(items_with.filter(pl.col("count") > common), on="gram", how="anti")


def seek(texts: pl.DataFrame, common: int) -> Sought:
    """What to look for, out of texts with item, text, ngram, threshold and run (null: no such rule)."""
    tokens = tokenise(texts["text"])
    words = tokens.counts()
    grams = list_ngrams(tokens, np.minimum(texts["ngram"].to_numpy(), words))
    totals = np.bincount(grams["text"], minlength=texts.height)
    run = texts["run"].fill_null(0).to_numpy()
    runs = list_ngrams(tokens, np.where(run <= words, run, 0))
    runs = drop_common_wording(runs, texts.select(pl.col("item").min().over("text"))["item"], common)
    known = pl.concat([grams, runs]).select("length", "gram")
    lengths = known["length"].unique().sort().to_list()
    return Sought(
        grams.select("text", "gram"),
        choose_rare(grams, totals, texts["threshold"]),
        runs.select("text", "gram"),
        texts.select("threshold", text=pl.int_range(pl.len()), total=pl.Series(totals)),
        {length: np.sort(known.filter(length=length)["gram"].to_numpy()) for length in lengths},
    )


def mark_places(known: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.bool_], np.uint64]:
    """A table that is true at the first bits of every known number, and the shift that leaves these bits."""
    bits = FILTER_BITS + len(known).bit_length()
    shift = np.uint64(64 - bits)
    places = np.zeros(2**bits, np.bool_)
    places[known >> shift] = True
    return places, shift


def find_hits(tokens: Ragged, sought: Sought, places: Places) -> pl.DataFrame:
    """The sought n-grams that each text holds: row (position), gram, each pair once."""
    found = [pl.DataFrame(schema={"row": pl.Int64, "gram": pl.UInt64})]
    for length, starts, values in roll_ngrams(tokens, list(sought.known)):
        table, shift = places[length]
        likely = np.flatnonzero(table[values >> shift])
        values, starts, known = values[likely], starts[likely], sought.known[length]
        held = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
        rows = np.searchsorted(tokens.offsets, starts[held], "right") - 1
        found.append(pl.DataFrame({"row": rows, "gram": values[held]}))
    return pl.concat(found).unique()


def make_comparer(sought: Sought) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The function that compares a batch of rows; the tables that it needs are made once for each process."""
    places = {length: mark_places(known) for length, known in sought.known.items()}

    def compare_batch(rows: pl.DataFrame) -> pl.DataFrame:
        """FOUND, for a batch with row_id and the conversations: the share reaches the threshold, or there is a run."""
        tokens = tokenise(rows.select(text=text_of_row())["text"])
        hits = find_hits(tokens, sought, places)
        runs = hits.join(sought.runs, on="gram").select("row", "text").unique()
        pairs = pl.concat([hits.join(sought.rare, on="gram").select("row", "text"), runs]).unique()
        held = pairs.join(sought.grams, on="text").join(hits, on=["row", "gram"], how="semi")
        shares = (
            pairs.join(held.group_by("row", "text").len("held"), on=["row", "text"], how="left")
            .join(sought.texts, on="text")
            .join(runs.with_columns(run=True), on=["row", "text"], how="left")
            .with_columns(pl.col("run").fill_null(False), share=pl.col("held").fill_null(0) / pl.col("total"))
            .filter((pl.col("share") >= pl.col("threshold")) | pl.col("run"))
            .sort("row", "text")
        )
        return shares.select(rows["row_id"].gather(shares["row"]), *list(FOUND)[1:])

    return compare_batch


def find_overlaps(rows: pl.DataFrame, texts: pl.DataFrame, common: int, engine: Engine) -> pl.DataFrame:
    """Rows and items that overlap: row_id, item, share (the largest of its texts), text (that one), run, in order."""
    sought = seek(texts, common)
    batches, total = slices(rows, BATCH)
    parts = map_batches(partial(make_comparer, sought), batches, engine, "decontaminate: comparing", total)
    found = pl.concat([pl.DataFrame(schema=FOUND), *parts])
    return (
        found.with_columns(texts["item"].gather(found["text"]))
        .sort("row_id", "item", -pl.col("share"), ~pl.col("run"), "text")
        .group_by("row_id", "item", maintain_order=True)
        .agg(pl.col("share", "text").first(), pl.col("run").any())
    )
