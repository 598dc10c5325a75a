"""Probes: planted cases by which each data stage measures itself (docs/probes.md).

pool and scrub plant them (`stages/probes`), into probes.parquet beside their rows: the columns of the row schema and
those of PROBE_SCHEMA. dedup, scrub and decontaminate each put the probes that measure them through the function that
their rows go through, take them out again, write down what became of them, and hand on the probes of later stages.
Their ids begin with `probe-`, which no row's does. mix reads none.

Of each type a stage's metrics tell, under `probes`:

- planted, caught, recall = caught / planted: of the probes that it must catch;
- decoys, wrongly_caught: of those that it must leave alone;
- precision = 1 - wrongly caught / (caught + wrongly caught) over the family of the type, 1 where it caught nothing. All
  types of dedup are one family, and so are those of decontaminate; of scrub each type is one, with its lookalikes.

A probe whose verdict would say nothing counts nowhere (its `caught` is null). A type of which nothing is expected (a
reworded item) has a recall and no precision.
"""

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from stages.common.contracts import Contract, Invariant, unique, where
from stages.common.params import Params, Seed
from stages.common.rows import PROBE_PREFIX, ROW_SCHEMA, message, text_of_row

SOURCE = "(probes)"
"""The source of a probe where a stage ranks sources: last of all, and no source of a user's can bear the name."""
CAUGHT, STAYS, OPEN = "caught", "stays", "open"
PROBE_SCHEMA: dict[str, Any] = ROW_SCHEMA | {
    "probe": pl.String,  # its type
    "stage": pl.String,  # dedup, scrub or decontaminate: which it measures
    "expected": pl.String,  # caught | stays | open: nothing is expected of it
    "target": pl.String,  # the row_id that it copies, or task/subtask/item
    "similarity": pl.Float64,  # exact, to the target: Jaccard, or of a part of an item the share of its n-grams
    "planted": pl.List(pl.String),  # made-up personal data in it, or its lookalikes
    "caught": pl.Boolean,  # null before it is measured, and where that says nothing
}
MEASURED = ("dedup", "scrub", "decontaminate")
PROBES = {
    stage: Contract(
        f"data/{stage}/probes.parquet",
        stage,
        PROBE_SCHEMA,
        ("row_id",),
        (
            unique("unique ids", "the id of a probe stands twice or is missing", "row_id"),
            Invariant("own ids", "the id is no probe's", where(~pl.col("row_id").str.starts_with(PROBE_PREFIX))),
            Invariant(
                "what it measures",
                f"the stage is none of {', '.join(MEASURED)}",
                where(~pl.col("stage").is_in(MEASURED)),
            ),
            Invariant(
                "what is expected",
                f"what is expected is none of {CAUGHT}, {STAYS}, {OPEN}",
                where(~pl.col("expected").is_in((CAUGHT, STAYS, OPEN))),
            ),
        ),
        unit="probe",
    )
    for stage in ("pool", *MEASURED)
}
"""The contract of the probes that each stage hands on."""
LEAST_PIECE = 4  # letters or digits of a value that give it away
LEAST_DIGITS = 5  # in a row, whatever stands between them
NUMBER = re.compile(r"\d(?:[\s().,:/-]{0,2}\d)*")
TEXTS = ("messages", "tools", "chosen", "rejected")

Count = Annotated[int, Field(ge=0, le=1000)]


class Probes(Params):
    """Planted cases by which the data stages measure themselves; 0 plants none."""

    duplicates: Count
    """Copies of the sources' own rows: probes of each kind of duplicate, and of each kind of decoy."""
    personal_data: Count
    """Rows with a made-up value: probes of each type of personal data, and at most as many of its lookalikes."""
    leaks: Count
    """Rows with an evaluation item: probes of each kind of leak, and innocent neighbours."""
    seed: Seed
    """Of what is planted."""


def make_probe(row: dict[str, Any], probe: str, stage: str, number: int, **rest: Any) -> dict[str, Any]:
    """A line of the table of probes from a row; `rest` are columns of PROBE_SCHEMA."""
    identity = {
        "row_id": f"{PROBE_PREFIX}{probe}-{number}",
        "probe": probe,
        "stage": stage,
        "file": "",
        "record": number,
    }
    empty: dict[str, Any] = dict.fromkeys(PROBE_SCHEMA) | {"expected": CAUGHT, "planted": []}
    return empty | {name: row[name] for name in ROW_SCHEMA} | {"branch": None, "subject": None} | identity | rest


def converse(source: str, kind: str, licence: str, turns: Sequence[dict[str, Any]], other: str) -> dict[str, Any]:
    """A row of the kind, from a conversation that ends with the assistant; `other` is the reply that is rejected."""
    row: dict[str, Any] = dict.fromkeys(ROW_SCHEMA) | {"source": source, "kind": kind, "licence": licence}
    if kind == "preference":
        reply = {"chosen": [turns[-1]], "rejected": [message("assistant", other)]}
        return row | reply | {"messages": list(turns[:-1])}
    if kind == "unpaired":
        return row | {"messages": list(turns[:-1]), "chosen": [turns[-1]], "label": True}
    return row | {"messages": list(turns)}


def list_sources(rows: pl.LazyFrame) -> list[tuple[str, str, str]]:
    """The sources of the rows as (name, kind, licence), by name."""
    return rows.select("source", "kind", "licence").unique("source").collect().sort("source").rows()


def make_table(probes: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(probes, PROBE_SCHEMA)


def read_probes(before: str, stage: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The probes that measure the stage, and those that it hands on, as the stage `before` wrote them. Raises
    InputError."""
    probes = PROBES[before].read()
    later = {"dedup": ["scrub"]}.get(stage, [])  # raw rows of dedup's probes never go further than dedup
    return probes.filter(stage=stage), probes.filter(pl.col("stage").is_in(later))


def add_probes(rows: pl.DataFrame, probes: pl.DataFrame) -> pl.DataFrame:
    """The rows and behind them the probes as rows of the source SOURCE."""
    return pl.concat([rows.select(*ROW_SCHEMA), rows_of(probes)])


def rows_of(probes: pl.DataFrame) -> pl.DataFrame:
    """The probes as rows."""
    return probes.select(*ROW_SCHEMA).with_columns(source=pl.lit(SOURCE))


def split_off(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The lines of rows and the lines of probes, by `row_id`."""
    of_probe = pl.col("row_id").str.starts_with(PROBE_PREFIX)
    return table.filter(~of_probe), table.filter(of_probe)


def contains(value: str, text: str) -> bool:
    return value in text


def gives_away(value: str, text: str) -> bool:
    """Whether the value, a piece of it of LEAST_PIECE letters or digits, or LEAST_DIGITS of its digits stand there.

    >>> gives_away("4929 0014 2210", "card <PHONE_NUMBER> 2210"), gives_away("tom@mail.test", "write to <EMAIL>")
    (True, False)
    >>> gives_away("219-09-9998", "It is 219-09-<US_SSN>.")
    True
    """
    pieces = [piece for piece in re.findall(r"[^\W_]+", value) if len(piece) >= LEAST_PIECE]
    if contains(value, text) or any(re.search(rf"(?<![^\W_]){re.escape(piece)}(?![^\W_])", text) for piece in pieces):
        return True
    digits = re.sub(r"\D", "", value)
    runs = {digits[start : start + LEAST_DIGITS] for start in range(len(digits) - LEAST_DIGITS + 1)}
    numbers = [re.sub(r"\D", "", number) for number in NUMBER.findall(text)]
    return any(run in number for run in runs for number in numbers)


def judge_personal_data(probes: pl.DataFrame, scrubbed: pl.DataFrame, surrogates: Collection[str] = ()) -> pl.DataFrame:
    """The probes with their texts after scrub and, those of scrub, with `caught`.

    Caught: of the planted value nothing is left. A lookalike is wrongly caught where it does not stand as before. Of a
    row that scrub dropped nothing is said, for what failed found nothing: the metrics count them as `probes_failed`.
    Of the types `surrogates` only the whole value counts: a stand-in of the same form has pieces of it by right, such
    as the 555-01 of a telephone number or the https of an address.
    """
    passed = scrubbed.select("row_id", *TEXTS, text=text_of_row())
    joined = probes.drop(TEXTS).join(passed, on="row_id", how="left", maintain_order="left")

    def judge(probe: str, stage: str, expected: str, planted: list[str], text: str | None) -> bool | None:
        if stage != "scrub" or text is None:
            return None
        if expected == CAUGHT:
            left = contains if probe in surrogates else gives_away
            return not any(left(value, text) for value in planted)
        return any(value not in text for value in planted)

    verdicts = [judge(*line) for line in joined.select("probe", "stage", "expected", "planted", "text").iter_rows()]
    return joined.with_columns(caught=pl.Series(verdicts, dtype=pl.Boolean)).select(*PROBE_SCHEMA)


def score(probes: pl.DataFrame, by_type: bool = False) -> dict[str, dict[str, int | float]]:
    """What the metrics tell of each type (see the top); by_type: each type is a family of its own."""
    judged = probes.filter(pl.col("caught").is_not_null())
    scores: dict[str, dict[str, int | float]] = {}
    for (name,), own in judged.group_by("probe", maintain_order=True):
        sought, decoys = own.filter(pl.col("expected") != STAYS), own.filter(expected=STAYS)
        entry: dict[str, int | float] = {}
        if sought.height:
            caught = int(sought["caught"].sum())
            entry |= {"planted": sought.height, "caught": caught, "recall": caught / sought.height}
        if decoys.height:
            entry |= {"decoys": decoys.height, "wrongly_caught": int(decoys["caught"].sum())}
        if sought.filter(expected=CAUGHT).height:
            family = (own if by_type else judged).filter(pl.col("caught"), pl.col("expected") != OPEN)
            wrong = family.filter(expected=STAYS).height
            entry["precision"] = 1 - wrong / max(family.height, 1)
        scores[str(name)] = entry
    return scores
