"""Read every source into the one row schema.

data/raw/sources → data/pool/{rows,refused,ledger,probes}.parquet, metrics/pool.json

A record becomes a row, an OASST tree one row a path (`stages/common/formats.py` says how each format is read). A
malformed record is refused: refused.parquet says which and why, never what stood in it, and
records_in = records_read + refused is checked.

`row_id` is a keyed digest (HMAC-SHA256, RFC 2104) of the source's name, the subject, the content, and its occurrence
among equal contents of the source: the same on any machine and in any order of the records, and no other record changes
it. It stands beside the scrubbed text in every later table, so a digest without a key would give back what scrub took
out: try all dates of birth, and one fits. `subject` is a keyed digest of the column that names whose data a record is:
who has the key finds a person's rows, no one else can. The key `public` protects nobody.
"""

import hashlib
import hmac
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import polars as pl
from pydantic import Field
from tqdm import tqdm

from stages.common.stage import run, say  # isort: skip
from stages.common.conversation import RecordError
from stages.common.errors import InputError
from stages.common.files import write_json, write_table
from stages.common.formats import Content, gather_trees, parse
from stages.common.ledger import ledger_lines
from stages.common.params import Params, Source, load, load_sources
from stages.common.probes import Probes
from stages.common.rows import ROW_SCHEMA
from stages.common.sources import Entry, check_source, read_entries
from stages.probes.duplicates import plant_duplicates
from stages.probes.personal_data import plant_personal_data

REFUSED_SCHEMA = {"source": pl.String, "file": pl.String, "record": pl.Int64, "reason": pl.String}
CHUNK_ROWS = 20_000  # rows held as Python objects, which are several times the size of the table that they become
SHOWN_REASONS = 3


class Pool(Params):
    """How the sources are read."""

    subject_key: Annotated[str, Field(pattern=r"^(public|[0-9a-f]{12})$")]
    """`public`, a key everyone knows, for data that names nobody; else the fingerprint of the secret in the environment
    variable PEDIGREE_KEY: the first 12 hex digits of its sha256, in quotes."""


@dataclass(frozen=True)
class Pooled:
    """What became of the records of one source."""

    rows: pl.DataFrame
    refused: pl.DataFrame
    records_in: int
    records_read: int


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


def digest_subject(value: Any, key: bytes) -> str | None:
    """First 16 hex digits of the HMAC-SHA256 of a subject's name or number; null where there is none."""
    if value is None or not str(value).strip():
        return None
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise RecordError("the subject is neither text nor a number")
    return hmac.new(key, str(value).strip().encode(), hashlib.sha256).hexdigest()[:16]


def content_hash(source: Source, content: Content, subject: str | None, key: bytes) -> hmac.HMAC:
    """HMAC-SHA256 over source, subject and the content as canonical JSON, open for the occurrence."""
    fields = {name: value for name, value in vars(content).items() if name != "branch"}
    fields |= {"kind": source.kind, "subject": subject}
    canonical = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hmac.new(key, f"{source.name}\n{canonical}\n".encode(), hashlib.sha256)


def build_rows(source: Source, path: str, entry: Entry, key: bytes, seen: Counter[bytes]) -> list[dict[str, Any]]:
    """The rows of one record with the columns of ROW_SCHEMA. Raises RecordError.

    `seen` counts, by digest, the contents that the source has shown so far.
    """
    if isinstance(entry.value, RecordError):
        raise entry.value
    contents = parse(entry.value, source.format, source.columns)
    try:
        subject = digest_subject(entry.value.get(source.subject) if source.subject else None, key)
        hashes = [content_hash(source, content, subject, key) for content in contents]
    except UnicodeEncodeError:
        raise RecordError("a text holds half of a surrogate pair, which is no character") from None
    place = {"source": source.name, "file": path, "record": entry.number, "licence": source.licence}
    rows = []
    for content, digest in zip(contents, hashes, strict=True):
        equal = digest.digest()
        digest.update(str(seen[equal]).encode())
        seen[equal] += 1
        identity = {"row_id": digest.hexdigest()[:16], "subject": subject, "kind": source.kind}
        rows.append(identity | place | vars(content))
    return rows


def entries_of(source: Source) -> Iterator[tuple[str, Entry]]:
    """All records of a source, each with its file."""
    for path in check_source(source):
        entries = read_entries(source, path)
        if source.format == "oasst":
            records = list(entries)
            values = gather_trees(entry.value for entry in records)
            entries = (Entry(entry.number, value) for entry, value in zip(records, values, strict=True))
        for entry in entries:
            yield path, entry


def pool_source(source: Source, key: bytes) -> Pooled:
    """Rows and refused records of one source. Raises InputError where no row, or no row's subject, comes of it."""
    seen: Counter[bytes] = Counter()
    tables = [pl.DataFrame(schema=ROW_SCHEMA)]
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    records_in = records_read = 0
    for path, entry in tqdm(entries_of(source), desc=f"pool {source.name}", unit=" records"):
        records_in += 1
        try:
            rows += build_rows(source, path, entry, key, seen)
        except RecordError as error:
            refused.append({"source": source.name, "file": path, "record": entry.number, "reason": error.reason})
        else:
            records_read += 1
        if len(rows) >= CHUNK_ROWS:
            tables.append(pl.DataFrame(rows, ROW_SCHEMA))
            rows = []
    pooled = Pooled(
        rows=pl.concat([*tables, pl.DataFrame(rows, ROW_SCHEMA)]),
        refused=pl.DataFrame(refused, REFUSED_SCHEMA),
        records_in=records_in,
        records_read=records_read,
    )
    check_pooled(source, pooled)
    return pooled


def check_pooled(source: Source, pooled: Pooled) -> None:
    if pooled.records_in != pooled.records_read + pooled.refused.height:
        counts = f"records_in {pooled.records_in} != read {pooled.records_read} + refused {pooled.refused.height}"
        raise RuntimeError(f"pool: {source.name}: {counts}")
    if pooled.rows.is_empty():
        reasons = list_reasons(pooled.refused)
        raise InputError(f"params.yaml, sources.{source.name}: all {pooled.records_in} records are refused: {reasons}")
    if source.subject and pooled.rows["subject"].null_count() == pooled.rows.height:
        raise InputError(
            f"params.yaml, sources.{source.name}.subject: no record has a value in '{source.subject}'; mend the name, "
            "or leave subject out where nobody's data is in it"
        )


def list_reasons(refused: pl.DataFrame) -> str:
    """The commonest reasons, with the number of records, as one line."""
    counts = refused.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    shown = [f"{count} x {reason}" for reason, count in counts.head(SHOWN_REASONS).iter_rows()]
    return " | ".join(shown) + (" | ..." if counts.height > SHOWN_REASONS else "")


def measure(sources: list[Source], pooled: list[Pooled], subject_key: str) -> dict[str, Any]:
    """metrics/pool.json: counts of records (rows_in is records_in), rows and subjects."""
    rows = pl.concat([each.rows for each in pooled])
    records_in = sum(each.records_in for each in pooled)
    with_subject = [source.name for source in sources if source.subject]
    return {
        "rows_in": records_in,
        "rows_out": rows.height,
        "records_in": records_in,
        "records_read": sum(each.records_read for each in pooled),
        "refused": sum(each.refused.height for each in pooled),
        "rows": {source.name: each.rows.height for source, each in zip(sources, pooled, strict=True)},
        "refused_by_source": {source.name: each.refused.height for source, each in zip(sources, pooled, strict=True)},
        "subjects": rows["subject"].drop_nulls().n_unique(),
        "subject_missing": rows.filter(pl.col("source").is_in(with_subject), pl.col("subject").is_null()).height,
        "subject_key": subject_key,
    }


def main() -> None:
    params, probes = load(Pool, "pool"), load(Probes, "probes")
    sources = load_sources()
    key = read_subject_key(params.subject_key, os.environ)
    for source in sources:  # all of them, before the first is read
        check_source(source)
    pooled = []
    for source in sources:
        pooled.append(pool_source(source, key))
        refused = pooled[-1].refused
        reasons = f": {list_reasons(refused)}" if refused.height else ""
        say("pool", f"{source.name}: {pooled[-1].rows.height} rows, {refused.height} refused{reasons}")
    write_table("data/pool/rows.parquet", pl.concat([each.rows for each in pooled]))
    write_table("data/pool/refused.parquet", pl.concat([each.refused for each in pooled]))
    write_table("data/pool/ledger.parquet", ledger_lines("pool", []))
    table = pl.scan_parquet("data/pool/rows.parquet")
    planted = pl.concat([plant_duplicates(table, probes), plant_personal_data(table, probes)])
    write_table("data/pool/probes.parquet", planted)
    write_json("metrics/pool.json", measure(sources, pooled, params.subject_key))


if __name__ == "__main__":
    run("pool", main, outputs=["data/pool"])
