"""pedigree trace: the journey of a row from its line in a raw file to every model, or of a model back to its rows.

Rows are named by their id (or its beginning), by the record of a raw file, by text that they hold, by whose data they
are, by their source, or by a model that they trained. The tables are those of the workspace, or with --rev those that a
git revision's dvc.lock recorded. No text of a row is printed: what stands here may be passed on.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from pedigree.journey import (
    TABLES,
    carriers,
    find_origins,
    follow,
    of_subject,
    rows_of_model,
    stood_for,
)
from pedigree.journey_text import show_journey, sum_up
from pedigree.lockfile import find_stale
from pedigree.snapshot import Snapshot
from stages.common.errors import InputError
from stages.common.files import write_table, write_text

SHOWN = 20  # journeys on the terminal; more are summed up
ID_DIGITS = 16
NGRAM = 3  # words, of --near


def choose_rows(arguments: argparse.Namespace, snapshot: Snapshot) -> pl.DataFrame:
    """ORIGIN of the rows that the arguments name. Raises InputError where they name none, or in two ways."""
    ways = {
        "ROW_ID": arguments.row_ids, "--model": getattr(arguments, "model", None), "--text": arguments.text,
        "--subject": arguments.subject, "--source or --file": arguments.source or arguments.file,
    }  # fmt: skip
    given = [way for way, value in ways.items() if value]
    if len(given) != 1:
        raise InputError(
            f"{' and '.join(given) or 'nothing'} is given; name rows in one way: ROW_ID ..., --source or --file (with "
            "--record), --text, --subject or --model"
        )
    if arguments.row_ids:
        return by_id(snapshot, arguments.row_ids)
    if ways["--model"]:
        ids = rows_of_model(snapshot, arguments.model)
        return ids.to_frame().join(find_origins(snapshot, pl.col("row_id").is_in(ids.implode())), "row_id", "left")
    if arguments.text:
        return by_text(snapshot, read_value(arguments.text, "--text"), arguments.near)
    if arguments.subject:
        digest = digest_of(snapshot, read_value(arguments.subject, "--subject"))
        rows = find_origins(snapshot, of_subject(snapshot, digest))
        if not rows.height:
            raise InputError(f"--subject: {snapshot.name} has no row of this subject (its keyed digest is {digest})")
        return rows
    return by_record(snapshot, arguments)


def read_value(value: str, option: str) -> str:
    """A value of the command line; `-` is read from standard input, so that it stays out of the shell's history."""
    value = sys.stdin.read().strip("\n") if value == "-" else value
    if not value.strip():
        raise InputError(f"{option}: is empty")
    return value


def by_id(snapshot: Snapshot, ids: list[str]) -> pl.DataFrame:
    wrong = [name for name in ids if not name or set(name) - set("0123456789abcdef") or len(name) > ID_DIGITS]
    if wrong:
        raise InputError(f"{wrong[0]}: is no row_id; expected up to {ID_DIGITS} hexadecimal digits")
    whole, beginnings = ([name for name in ids if (len(name) == ID_DIGITS) == is_whole] for is_whole in (True, False))
    begins = [pl.col("row_id").str.starts_with(name) for name in beginnings]
    rows = find_origins(snapshot, pl.any_horizontal(pl.col("row_id").is_in(whole), *begins))
    for name in ids:
        count = rows["row_id"].str.starts_with(name).sum()
        if count > 1 and len(name) < ID_DIGITS:
            raise InputError(f"{name}: {count} rows begin so; give more digits")
        if not count:
            raise InputError(
                f"{name}: no row of {snapshot.name} has this id; it may be of another revision (--rev), or its record "
                "may have changed (--file FILE --record N)"
            )
    places = [next(at for at, name in enumerate(ids) if row.startswith(name)) for row in rows["row_id"]]
    return rows.with_columns(place=pl.Series(places)).sort("place").drop("place")


def by_record(snapshot: Snapshot, arguments: argparse.Namespace) -> pl.DataFrame:
    wanted = pl.lit(True)
    if arguments.source:
        wanted &= pl.col("source") == arguments.source
    if arguments.file:
        wanted &= pl.col("file") == arguments.file
    if arguments.record is not None:
        wanted &= pl.col("record") == arguments.record
    rows = find_origins(snapshot, wanted)
    if not rows.height:
        raise InputError(f"{name_place(arguments)}: {why_none(snapshot, wanted)}")
    return rows


def name_place(arguments: argparse.Namespace) -> str:
    parts = [arguments.source, arguments.file, f"record {arguments.record}" if arguments.record is not None else None]
    return ", ".join(filter(None, parts))


def why_none(snapshot: Snapshot, wanted: pl.Expr) -> str:
    """Why a record has become no row."""
    refused = snapshot.scan("data/pool/refused.parquet")
    if refused is not None:
        reasons = refused.filter(wanted).collect()["reason"]
        if len(reasons):
            return f"refused by pool: {reasons[0]}" + (f", and {len(reasons) - 1} more" if len(reasons) > 1 else "")
    return (
        f"{snapshot.name} has no row of it; a message of an OASST tree stands in the rows of the tree's first message"
    )


def digest_of(snapshot: Snapshot, subject: str) -> str:
    """The keyed digest of whose data a row is. Raises InputError where the environment has not the key."""
    from stages.common.records import digest_subject
    from stages.pool import read_subject_key

    return str(digest_subject(subject, read_subject_key(snapshot.read_params()["pool"]["subject_key"], os.environ)))


def by_text(snapshot: Snapshot, text: str, near: float) -> pl.DataFrame:
    """Rows that hold a text, see `find_texts`."""
    ids = find_texts(snapshot, text, near)["row_id"]
    if not len(ids):
        raise InputError(
            f"--text: no row of {snapshot.name} holds it; --near 0.8 finds rows that hold that share of its 3-grams"
        )
    return find_origins(snapshot, pl.col("row_id").is_in(ids.implode()))


def find_texts(snapshot: Snapshot, text: str, near: float) -> pl.DataFrame:
    """row_id, held: rows that hold the text (normalised), or at least the share `near` of its n-grams of words."""
    from stages.common.rows import CONVERSATIONS, normalise, text_of_row
    from stages.common.shingles import ngram_sets, normalise_texts, tokenise

    groups = (
        [table for name in names if (table := snapshot.scan(f"data/{name}.parquet")) is not None] for names in TABLES
    )
    tables = next(filter(None, groups), [])
    if not tables:
        raise InputError(f"{snapshot.name} has no table of rows; run `dvc repro`")
    rows = pl.concat([table.select("row_id", *CONVERSATIONS) for table in tables])
    wanted, text_column = normalise(text), text_of_row().alias("text")
    if near == 1:
        few = rows.filter(may_hold(wanted)).select("row_id", text_column).collect(engine="streaming")
        whole = few.filter(normalise_texts(few["text"]).str.contains(wanted, literal=True))
        parts = [whole.select("row_id", held=pl.lit(1.0))]
    else:
        sought = pl.Series(ngram_sets(tokenise(pl.Series([wanted])), NGRAM).values)
        parts = []
        for part in rows.select("row_id", text_column).collect_batches(chunk_size=5000):
            held = ngram_sets(tokenise(part["text"]), NGRAM)
            hits = pl.Series(held.texts()).filter(pl.Series(held.values).is_in(sought.implode()))
            counts = hits.value_counts(name="count")
            enough = counts.filter(pl.col("count") >= near * len(sought))
            places = enough.sort(pl.nth(0))
            held_shares = (places["count"] / len(sought)).alias("held")
            parts.append(part[places.to_series()].select("row_id").with_columns(held_shares))
    return pl.concat([pl.DataFrame(schema={"row_id": pl.String, "held": pl.Float64}), *parts])


def may_hold(wanted: str) -> pl.Expr:
    """Whether a row can hold a normalised text: one in ASCII does only where it has the longest word of it, in small or
    capital letters. To normalise them is left to the rows that pass: of a million it takes ten times as long."""
    from stages.common.rows import CONVERSATIONS

    word = max(re.findall("[a-z0-9]+", wanted), key=len, default="")
    texts = [pl.element().struct.field(name) for name in ("content", "tool_calls")]
    found = pl.any_horizontal(
        text.str.contains(f"(?i-u){word}") | (text.str.len_bytes() != text.str.len_chars()) for text in texts
    )
    return pl.any_horizontal(pl.col(name).list.eval(found).list.any().fill_null(False) for name in CONVERSATIONS)


def journeys(
    snapshot: Snapshot, origins: pl.DataFrame, events: pl.DataFrame, carried: pl.DataFrame
) -> Iterator[dict[str, Any]]:
    """Each row as one object: its origin, its events without what is empty, the models that carry it, and the rows that
    dedup dropped in its favour."""
    twins = stood_for(snapshot, origins["row_id"]).partition_by("row_id", as_dict=True, include_key=False)
    by_row = events.partition_by("row_id", as_dict=True, include_key=False)
    models = dict(carried.iter_rows())
    for origin in origins.iter_rows(named=True):
        happened = by_row.get((origin["row_id"],), events.clear()).iter_rows(named=True)
        told = [{key: value for key, value in event.items() if value is not None} for event in happened]
        stands_for = twins[(origin["row_id"],)].rows(named=True) if (origin["row_id"],) in twins else []
        yield origin | {"events": told, "models": models.get(origin["row_id"], []), "stands_for": stands_for}


def trace(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.near <= 1:
        raise InputError("--near: a share above 0 and up to 1")
    snapshot = Snapshot(arguments.rev)
    origins = choose_rows(arguments, snapshot)
    events = follow(snapshot, origins["row_id"])
    carried = carriers(snapshot, events)
    if arguments.output:
        write_journeys(Path(arguments.output), snapshot, origins, events, carried)
    elif arguments.json:
        for journey in journeys(snapshot, origins, events, carried):
            print(json.dumps(journey, ensure_ascii=False))
        check_whole(snapshot)
        return
    elif origins.height <= SHOWN:
        print("\n\n".join(show_all(snapshot, origins, events, carried)))
    if origins.height > SHOWN or arguments.model:
        print(sum_up(origins, events, carried))
    check_whole(snapshot)


def check_whole(snapshot: Snapshot) -> None:
    """Raises InputError where what was told may be incomplete, or of two runs."""
    missing = [
        f"{out}: was written, but is not here, so what is told is without it; `dvc pull {out}` may bring it"
        for out in snapshot.out_of_reach
    ]
    stale = [str(edge) for edge in find_stale(snapshot.lock)]
    if missing or stale:
        raise InputError("\n".join([*missing, *stale]))


def show_all(snapshot: Snapshot, origins: pl.DataFrame, events: pl.DataFrame, carried: pl.DataFrame) -> Iterator[str]:
    others, models = stood_for(snapshot, origins["row_id"]), dict(carried.iter_rows())
    for origin in origins.iter_rows(named=True):
        name = origin["row_id"]
        stands = others.filter(row_id=name).select("other_id", "similarity").rows()
        yield show_journey(origin, events.filter(row_id=name), models.get(name, []), stands)


def write_journeys(
    path: Path, snapshot: Snapshot, origins: pl.DataFrame, events: pl.DataFrame, carried: pl.DataFrame
) -> None:
    """.parquet: a line an event, with the origin and the models of its row beside it; .jsonl: a line a row."""
    if path.suffix == ".parquet":
        write_table(path, origins.join(events, on="row_id", how="left").join(carried, on="row_id", how="left"))
    elif path.suffix == ".jsonl":
        lines = (json.dumps(journey, ensure_ascii=False) for journey in journeys(snapshot, origins, events, carried))
        write_text(path, "\n".join(lines) + "\n")
    else:
        raise InputError(f"{path}: expected a name that ends in .parquet or .jsonl")
    print(f"{origins.height:,} rows, {events.height:,} events in {path}")
