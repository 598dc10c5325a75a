"""Read every source into the one row schema.

data/raw/{sources,exclusions.jsonl} → data/pool/{rows,subjects,refused,ledger,probes}.parquet, metrics/pool.json

A record becomes a row, an OASST tree one row a path (`stages/common/formats.py` says how each format is read). A
malformed record is refused, and one whose own column does not say that its subject agreed (`consent_by_record`):
refused.parquet says which and why, never what stood in it, and records_in = records_read + refused is checked. Rows on
the exclusion list (data/raw/exclusions.jsonl, which `pedigree forget` writes) go no further, and the ledger names them.
Files are read in batches, which become rows side by side and are written in order: memory holds some batches and about
110 bytes a row (docs/sources.md), however long the rows are.

`row_id` is a keyed digest (HMAC-SHA256, RFC 2104) of the source's name, the subject, the content, and its occurrence
among equal contents of the source: the same on any machine and in any order of the records, and no other record changes
it. It stands beside the scrubbed text in every later table, so a digest without a key would give back what scrub took
out: try all dates of birth, and one fits. `subject` is a keyed digest of the column that names whose data a record is:
who has the key finds a person's rows, no one else can. The key `public` protects nobody. Where turns of a record, or
messages of a tree, have a value of their own in that column, subjects.parquet says who speaks in a row beside its
subject: row_id, subject.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from stages.common.stage import run, say  # isort: skip
from stages.common.batches import read_source
from stages.common.contracts import write_tables
from stages.common.engine import Engine, map_batches
from stages.common.errors import InputError
from stages.common.exclusions import Matcher, describe_match, read_exclusions
from stages.common.files import digest_files, write_json
from stages.common.ledger import ledger_lines
from stages.common.params import Params, Source, load, load_sources
from stages.common.probes import PROBES, Probes
from stages.common.records import NO_CONSENT, build_table, make_row_id, make_worker, read_entries
from stages.common.row_contracts import POOL, POOL_LEDGER, REFUSED, SUBJECTS, UNIQUE_IDS
from stages.common.rows import ROW_SCHEMA
from stages.common.sources import check_place, check_source, is_hub
from stages.common.stores import is_remote
from stages.common.table_file import open_table
from stages.probes.duplicates import plant_duplicates
from stages.probes.personal_data import plant_personal_data

IDS = replace(POOL, columns={"row_id": pl.String}, invariants=(UNIQUE_IDS,))
TREES = 1000  # built at a time
FEW_BATCHES = 8  # fewer are done in this process: another one takes 1.5 s to start, in which 32 MiB are read
SHOWN_REASONS = 3


class Pool(Params):
    """How the sources are read."""

    subject_key: Annotated[str, Field(pattern=r"^(public|[0-9a-f]{12})$")]
    """`public`, a key everyone knows, for data that names nobody; else the fingerprint of the secret in the environment
    variable PEDIGREE_KEY: the first 12 hex digits of its sha256, in quotes."""


def read_subject_key(fingerprint: str, environment: Mapping[str, str]) -> bytes:
    """The key of the subjects' digests. Raises InputError where the environment does not hold the right one."""
    if fingerprint == "public":
        return b"pedigree"
    secret = environment.get("PEDIGREE_KEY", "").encode()
    if not secret:
        raise InputError(
            "PEDIGREE_KEY is not set in the environment; params.yaml, pool.subject_key asks for the key with the "
            f"fingerprint {fingerprint} (`public` for data that names nobody)"
        )
    found = hashlib.sha256(secret).hexdigest()[:12]
    if found != fingerprint:
        raise InputError(
            f"PEDIGREE_KEY has the fingerprint {found}, params.yaml, pool.subject_key asks for {fingerprint}; "
            "set the right key, or the new fingerprint, in quotes: every subject then has a new digest"
        )
    return secret


@dataclass
class Tally:
    """What became of the records of one source."""

    records_in: int = 0
    records_read: int = 0
    rows: int = 0
    rows_with_subject: int = 0
    excluded: int = 0
    """Of these rows, those on the exclusion list."""
    excluded_with_subject: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def no_consent(self) -> int:
        """Records that are refused because nobody agreed to their use."""
        return sum(count for reason, count in self.reasons.items() if reason.startswith(NO_CONSENT))

    @property
    def without_subject(self) -> int:
        """Rows that go on and are nobody's."""
        return (self.rows - self.excluded) - (self.rows_with_subject - self.excluded_with_subject)


class Part(NamedTuple):
    """What came of some records of a source."""

    rows: pl.DataFrame
    refused: pl.DataFrame
    others: pl.DataFrame
    """row_id, subject: who speaks in a row beside its own subject."""


class Occurrences:
    """Counts equal contents by sorted runs of their digests, of which a new one swallows the shorter.

    8 bytes a row, and for a moment three times as many where runs are joined.
    """

    def __init__(self) -> None:
        self.runs: list[np.ndarray] = []

    def number(self, digests: np.ndarray) -> np.ndarray:
        """Of each digest, uint64 (n,), how many equal ones came before it, int64 (n,)."""
        order = np.argsort(digests, kind="stable")
        run = digests[order]
        earlier = np.arange(len(run)) - np.searchsorted(run, run)
        for older in self.runs:
            earlier += np.searchsorted(older, run, "right") - np.searchsorted(older, run)
        while self.runs and len(self.runs[-1]) <= len(run):
            run = np.sort(np.concatenate([self.runs.pop(), run]), kind="stable")
        self.runs.append(run)
        numbers = np.empty_like(earlier)
        numbers[order] = earlier
        return numbers


def number_occurrences(rows: pl.DataFrame, source: Source, key: bytes, seen: Occurrences) -> pl.DataFrame:
    """Rows whose content the source has shown before get the row_id of their occurrence."""
    numbers = seen.number(rows["row_id"].str.to_integer(base=16, dtype=pl.UInt64).to_numpy())
    again = np.flatnonzero(numbers)
    repeats = rows[again].iter_rows(named=True)
    ids = [
        make_row_id(source, key, row["subject"], row, int(number))
        for row, number in zip(repeats, numbers[again], strict=True)
    ]
    return rows.with_columns(rows["row_id"].scatter(again, ids)) if ids else rows


def read_tables(source: Source, key: bytes, engine: Engine) -> Iterator[pl.DataFrame]:
    """The records of a source as tables of RESULT_SCHEMA, in order."""
    if source.format == "oasst":  # a message may hang in the tree of any other of its file
        entries = read_entries(source)
        while part := list(islice(entries, TREES)):
            yield build_table(source, key, part)
        return
    batches = read_source(source)
    head = list(islice(batches, FEW_BATCHES))
    if len(head) < FEW_BATCHES and engine.name == "local":
        engine = engine.model_copy(update={"workers": 1})
    yield from map_batches(partial(make_worker, source, key), chain(head, batches), engine, f"pool {source.name}")


def pool_source(source: Source, key: bytes, engine: Engine, tally: Tally) -> Iterator[Part]:
    """Rows and refused records of one source, part by part, counted in `tally`.

    Raises InputError in the end where no row, or no row's subject, has come of it.
    """
    seen = Occurrences()
    for table in read_tables(source, key, engine):
        refused = table.filter(pl.col("reason").is_not_null()).select(list(REFUSED.columns))
        rows = table.filter(pl.col("row_id").is_not_null())
        records = table.group_by("file", "record").agg(pl.col("reason").is_null().all())["reason"]
        tally.records_in += records.len()
        tally.records_read += int(records.sum())
        tally.rows += rows.height
        tally.rows_with_subject += rows["subject"].count()
        tally.reasons.update(refused["reason"])
        rows = number_occurrences(rows, source, key, seen)
        others = rows.select("row_id", subject="others").explode("subject").drop_nulls()
        yield Part(rows.select(list(ROW_SCHEMA)), refused, others)
    check_tally(source, tally)


def exclude(part: Part, exclusions: Matcher, tally: Tally) -> tuple[Part, pl.DataFrame]:
    """A part without the rows on the exclusion list, counted in `tally`, and a ledger line for each of these."""
    judged = exclusions.judge(part.rows, part.others)
    gone = part.rows.select("row_id", "file").hstack(judged).filter(pl.col("request").is_not_null())
    lines = [
        {"row_id": row["row_id"], "action": "drop", "reason": "excluded", "detail": describe_match(row)}
        for row in gone.iter_rows(named=True)
    ]
    kept = part.rows.filter(judged["request"].is_null())
    tally.excluded += len(lines)
    tally.excluded_with_subject += part.rows["subject"].count() - kept["subject"].count()
    others = part.others.join(gone, on="row_id", how="anti", maintain_order="left")
    return Part(kept, part.refused, others), ledger_lines("pool", lines)


def check_tally(source: Source, tally: Tally) -> None:
    if tally.records_in != tally.records_read + tally.reasons.total():
        counts = f"records_in {tally.records_in} != read {tally.records_read} + refused {tally.reasons.total()}"
        raise RuntimeError(f"pool: {source.name}: {counts}")
    if not tally.rows:
        reasons = list_reasons(tally.reasons)
        raise InputError(f"params.yaml, sources.{source.name}: all {tally.records_in} records are refused: {reasons}")
    if source.subject and not tally.rows_with_subject:
        raise InputError(
            f"params.yaml, sources.{source.name}.subject: no record has a value in '{source.subject}'; mend the name, "
            "or leave subject out where nobody's data is in it"
        )


def check_ids(parts: list[pl.Series]) -> None:
    """Raises InputError where an id, as a number, stands twice in all parts together: POOL sees one part at a time."""
    numbers = pl.concat([pl.Series("row_id", [], pl.UInt64), *parts])
    again = numbers.filter(numbers.is_duplicated())
    IDS.check(pl.DataFrame({"row_id": [f"{number:016x}" for number in again]}, IDS.columns))


def list_reasons(reasons: Counter[str]) -> str:
    """The commonest reasons, with the number of records, as one line."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} x {reason}" for reason, count in ordered[:SHOWN_REASONS]]
    return " | ".join(shown) + (" | ..." if len(ordered) > SHOWN_REASONS else "")


def measure(
    sources: list[Source],
    tallies: list[Tally],
    raw: Mapping[str, str],
    exclusions: Matcher,
    subjects: int,
    subject_key: str,
) -> dict[str, Any]:
    """metrics/pool.json: counts of records (rows_in is records_in), rows, subjects and lines of the exclusion list;
    digests of what was read."""
    named = list(zip(sources, tallies, strict=True))
    records_in = sum(tally.records_in for tally in tallies)
    return {
        "rows_in": records_in,
        "rows_out": sum(tally.rows - tally.excluded for tally in tallies),
        "records_in": records_in,
        "records_read": sum(tally.records_read for tally in tallies),
        "refused": sum(tally.reasons.total() for tally in tallies),
        "excluded": sum(tally.excluded for tally in tallies),
        "exclusions": exclusions.count(),
        "rows": {source.name: tally.rows - tally.excluded for source, tally in named},
        "records_by_source": {source.name: tally.records_in for source, tally in named},
        "refused_by_source": {source.name: tally.reasons.total() for source, tally in named},
        "excluded_by_source": {source.name: tally.excluded for source, tally in named},
        "no_consent": {source.name: tally.no_consent for source, tally in named if source.consent_by_record},
        "raw": dict(raw),
        "subjects": subjects,
        "subject_missing": sum(tally.without_subject for source, tally in named if source.subject),
        "subject_key": subject_key,
    }


def main() -> None:
    params, sources, probes, engine = load(Pool, "pool"), load_sources(), load(Probes, "probes"), load(Engine, "engine")
    key = read_subject_key(params.subject_key, os.environ)
    raw: dict[str, str] = {}  # of files on this disk; what lies elsewhere is pinned in params.yaml
    for source in sources:  # all of them, before the first is read
        files = [Path(file) for file in check_source(source)]
        check_place(source)
        if not is_hub(source) and not is_remote(source.path):
            raw[source.name] = digest_files(files)
    exclusions = Matcher(read_exclusions(params.subject_key), key)
    tallies, ledger, ids = [], [ledger_lines("pool", [])], []
    with (
        open_table(POOL.path, pl.Schema(POOL.columns)) as write_rows,
        open_table(REFUSED.path, pl.Schema(REFUSED.columns)) as write_refused,
        open_table(SUBJECTS.path, pl.Schema(SUBJECTS.columns)) as write_subjects,
    ):
        for source in sources:
            tallies.append(tally := Tally())
            for part in pool_source(source, key, engine, tally):
                kept, lines = exclude(part, exclusions, tally)
                write_rows(POOL.check(kept.rows))
                write_refused(REFUSED.check(kept.refused))
                write_subjects(SUBJECTS.check(kept.others, rows_out=kept.rows))
                ledger.append(lines)
                ids.append(kept.rows["row_id"].str.to_integer(base=16, dtype=pl.UInt64))
            reasons = f": {list_reasons(tally.reasons)}" if tally.reasons else ""
            gone = f", {tally.excluded} excluded" if tally.excluded else ""
            say(
                "pool",
                f"{source.name}: {tally.rows - tally.excluded} rows{gone}, {tally.reasons.total()} refused{reasons}",
            )
        check_ids(ids)
    for warning in exclusions.list_warnings():
        say("pool", f"WARNING: {warning}")
    table = pl.scan_parquet(POOL.path)
    planted = pl.concat([plant_duplicates(table, probes), plant_personal_data(table, probes)])
    write_tables({POOL_LEDGER: pl.concat(ledger), PROBES["pool"]: planted}, rows_out=table)
    subjects = table.select(pl.col("subject").drop_nulls().n_unique())
    metrics = measure(sources, tallies, raw, exclusions, subjects.collect().item(), params.subject_key)
    write_json("metrics/pool.json", metrics | {"digest": digest_files(Path("data/pool").glob("*.parquet"))})


if __name__ == "__main__":
    run("pool", main, outputs=["data/pool"])
