"""Whether rows of a deletion request stand in a table of the workspace: for the proof, later for `pedigree verify`."""

import json
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from stages.common.errors import InputError
from stages.common.exclusions import FILE, Exclusion, digest_contents, read_exclusions
from stages.common.params import PARAMS_FILE, read_yaml

REPORTS = Path("reports")
COLUMNS = ("row_id", "other_id", "target", "cluster", "subject", "source")  # of tables: where a line's value may stand
TABLES = ("data/*/*.parquet", "models/*/*.parquet")
POOL, LEDGER = Path("data/pool/rows.parquet"), Path("data/pool/ledger.parquet")


def read_list() -> list[Exclusion]:
    return read_exclusions(read_yaml(PARAMS_FILE)["pool"]["subject_key"])


def entries_of(request: str) -> list[Exclusion]:
    """The lines of a request. Raises InputError where there is none."""
    entries = [entry for entry in read_list() if entry.request == request]
    if not entries:
        raise InputError(f"{FILE}: has no line of the request {request}")
    return entries


def report_of(request: str) -> Path:
    return REPORTS / f"forget_{request}.json"


def is_proved(request: str) -> bool:
    return report_of(request).is_file()


def values_in(path: Path, wanted: pl.Series) -> set[str]:
    """Which row ids, subjects or sources stand in a table."""
    scan = pl.scan_parquet(path)
    columns = [name for name, kind in scan.collect_schema().items() if name in COLUMNS and kind == pl.String]
    found = [scan.select(name).filter(pl.col(name).is_in(wanted.implode())).unique().collect() for name in columns]
    return {name for table in found for name in table.to_series()}


def read_contents(pool: pl.LazyFrame, key: bytes) -> pl.DataFrame:
    """row_id, content: of each row of data/pool the digest of its text, as the list has it."""
    parts = pool.collect_batches(chunk_size=5000, maintain_order=True)
    empty = pl.DataFrame(schema={"row_id": pl.String, "content": pl.String})
    return pl.concat([empty, *(part.select("row_id", digest_contents(part, key)) for part in parts)])


def list_tables() -> list[Path]:
    """All tables of the workspace but pool's ledger, which says that rows are excluded."""
    return sorted(path for pattern in TABLES for path in Path().glob(pattern) if path != LEDGER)


def find_present(entries: Iterable[Exclusion]) -> dict[str, list[str]]:
    """Table of the workspace → what the lines name and it still holds."""
    wanted = pl.Series([entry.value for entry in entries], dtype=pl.String)
    found = {str(path): sorted(values_in(path, wanted)) for path in list_tables()}
    return {name: values for name, values in found.items() if values}


def check_requests() -> tuple[str, list[str]]:
    """(what was checked, what is wrong): each report on a deletion still holds, so that no row of it has come back."""
    listed = read_list()
    faults, proved = [], []
    for path in sorted(REPORTS.glob("forget_*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        mine = [entry for entry in listed if entry.request == report["request"]]
        before, now = sum(report["excluded"].values()), len(mine)
        if now < before:
            faults.append(f"{path}: speaks of {before} lines of {FILE}, which has {now}; bring the others back")
        proved += mine
    for name, values in find_present(proved).items() if proved else ():
        requests = sorted({entry.request for entry in proved if entry.value in values})
        faults.append(
            f"{name}: holds {len(values)} of the rows that reports/forget_{requests[0]}.md says are gone; "
            "run `dvc repro`"
        )
    done = {entry.request for entry in proved}
    waiting = sorted({entry.request for entry in listed} - done)
    told = f"{len(done)} proved: none of their rows is back" if not faults else "their reports do not hold"
    return told + (f"; without a report: {', '.join(waiting)}" if waiting else ""), faults
