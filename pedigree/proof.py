"""Proof that the rows of a request are gone, and the report on it: reports/forget_<request>.{md,json}.

Absence is read off the tables themselves, of a run that is whole: `dvc status` has nothing to do. What was true before
is read out of the version that the request names (`since`), as long as DVC's cache or a remote has it; once it is
purged, a later proof keeps what the earlier report knew.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from pedigree.absence import LEDGER, POOL, entries_of, find_present, list_tables, read_contents, report_of
from pedigree.deletion_report import render
from pedigree.erasure import (
    check_pending,
    confirm,
    count_commits,
    find_copies,
    list_beside,
    list_experiments,
    plan_purge,
    purge,
    run_dvc,
    run_git,
)
from pedigree.journey import TRAINED
from pedigree.likelihood import measure_likelihood
from pedigree.snapshot import Snapshot
from pedigree.trace import check_whole
from pedigree.versions import compare_rows
from stages.common.errors import InputError
from stages.common.exclusions import Exclusion, digest_contents, digest_places, read_matches
from stages.common.files import read_json, write_json, write_text
from stages.common.params import PARAMS_FILE, read_yaml

OF_BEFORE = ("before", "rows_of_sources", "trained_before", "likelihood")
"""What of a report is known from the tables of before."""


def check_current() -> None:
    """Raises InputError where the outputs are not those of one whole run of what is here."""
    waiting = json.loads(run_dvc("status", "--json"))
    if waiting:
        raise InputError(f"dvc status: {', '.join(waiting)} would run again, so nothing can be proved; run `dvc repro`")
    snapshot = Snapshot(None)
    for out in (out["path"] for stage in snapshot.lock.values() for out in stage["outs"]):
        snapshot.find(out)
    check_whole(snapshot)


def former_rows(entries: Iterable[Exclusion]) -> tuple[Snapshot | None, pl.DataFrame]:
    """The last version that held rows of the request, None where none can be had; and all the rows, as read."""
    wanted = [entry for entry in entries if entry.kind == "row"]
    before: Snapshot | None = None
    parts: list[pl.DataFrame] = []
    for since in dict.fromkeys(entry.since for entry in wanted if entry.since):
        try:
            snapshot = Snapshot(since)
        except InputError:  # the history was written anew since
            continue
        scan = snapshot.scan("data/pool/rows.parquet")
        if scan is None:
            continue
        found = scan.filter(pl.col("row_id").is_in([entry.value for entry in wanted])).collect()
        before, parts = (snapshot, [*parts, found]) if found.height else (before, parts)
    return before, pl.concat(parts).unique("row_id", maintain_order=True) if parts else pl.DataFrame()


def find_equal_texts(entries: list[Exclusion], rows: pl.DataFrame, earlier: dict[str, Any]) -> pl.DataFrame:
    """row_id, content: rows of the workspace with the very text of a forgotten one.

    A text that stays is not on the list, so once the tables of before are purged an earlier report has its digest.
    """
    from stages.pool import read_subject_key

    key = read_subject_key(read_yaml(PARAMS_FILE)["pool"]["subject_key"], os.environ)
    gone = {entry.content for entry in entries if entry.content} | set(earlier.get("contents_that_stay", ()))
    if rows.height:
        gone |= set(digest_contents(rows, key))
    return read_contents(pl.scan_parquet(POOL), key).filter(pl.col("content").is_in(list(gone)))


def find_in_place(before: Snapshot | None, entries: list[Exclusion]) -> list[dict[str, Any]]:
    """Rows that came in the place of forgotten ones with another text: row_id, of, similarity.

    Out of the tables of before: the same record edited, or else its nearest neighbour. Without these by the digests of
    places alone (`of` and `similarity` null), which cannot tell an edited record from one that moved up.
    """
    if before is not None and (former := before.scan("data/pool/rows.parquet")) is not None:
        ids = [entry.value for entry in entries if entry.kind == "row"]
        changes = compare_rows(former, pl.scan_parquet(POOL)).filter(pl.col("former_id").is_in(ids))
        return changes.select("row_id", pl.col("former_id").alias("of"), "similarity").to_dicts()
    from stages.pool import read_subject_key

    places = {entry.place: entry.value for entry in entries if entry.place}
    if not places:
        return []
    key = read_subject_key(entries[0].key, os.environ)
    rows = pl.read_parquet(POOL, columns=["row_id", "file", "record", "branch"])
    found = rows.filter(digest_places(rows, key).is_in(list(places)))["row_id"]
    return [{"row_id": name, "of": None, "similarity": None} for name in found]


def count_in_files(matches: pl.DataFrame, former_files: Iterable[str]) -> dict[str, int | None]:
    """Raw file → how many rows of the request pool found in it.

    None: the request's rows came from it, and it is here, but no source reads it, so that this is not known.
    """
    counts: dict[str, int | None] = dict(matches.group_by("file").len().sort("file").iter_rows())
    read = {*counts, *pl.scan_parquet(POOL).select("file").unique().collect()["file"]}
    return counts | {name: None for name in sorted(former_files) if name not in read and Path(name).is_file()}


def trained_on(snapshot: Snapshot, ids: pl.Series) -> dict[str, int]:
    """Model of a version → rows of the request that it was trained on or calibrated with."""
    tables = {model: snapshot.scan(f"models/{model}/consumed.parquet") for model in TRAINED}
    wanted = pl.col("row_id").is_in(ids.implode())
    return {
        model: table.filter(wanted).select(pl.col("row_id").n_unique()).collect().item()
        for model, table in tables.items()
        if table is not None
    }


def name_version(snapshot: Snapshot) -> dict[str, str | None]:
    """commit and sha256 of dvc.lock; no commit where the workspace's dvc.lock is not committed."""
    path = snapshot.find("dvc.lock")
    commit = snapshot.revision
    if commit is None and not run_git("status", "--porcelain", "--", "dvc.lock").strip():
        commit = run_git("rev-parse", "HEAD").strip() or None
    return {"commit": commit, "dvc_lock": hashlib.sha256(path.read_bytes()).hexdigest() if path else None}


def build_report(
    request: str, entries: list[Exclusion], before: Snapshot | None, rows: pl.DataFrame, earlier: dict[str, Any]
) -> dict[str, Any]:
    """What the tables say, of now and of before; of before what an earlier report knew, where they are gone."""
    listed = [entry for entry in entries if entry.kind == "row"]
    ids = pl.Series([entry.value for entry in listed], dtype=pl.String)
    contents = [entry.content for entry in listed if entry.content]
    matches = read_matches(pl.read_parquet(LEDGER))
    mine = matches.filter(request=request)
    held = matches.filter(
        (pl.col("request") == request) | pl.col("row_id").is_in(ids.implode()) | pl.col("content").is_in(contents)
    )
    met = {*held["row_id"], *held["content"].drop_nulls()}
    known = rows.height > 0
    files = {*earlier.get("records_in_raw_files", ()), *earlier.get("raw_files_in_git", ()), *held["file"]}
    files |= set(rows["file"]) if known else set()
    return {
        "request": request,
        "excluded": {kind: sum(entry.kind == kind for entry in entries) for kind in ("subject", "source", "row")},
        "tables_searched": len(list_tables()),
        "tables_of_before": known,
        "before": name_version(before) if before else {"commit": None, "dvc_lock": None},
        "after": name_version(Snapshot(None)),
        "rows_of_sources": dict(rows.group_by("source").len().sort("source").iter_rows()) if known else {},
        "left_out_by_pool": dict(sorted(Counter(mine["by"]).items())),
        "match_no_record": sorted(entry.value for entry in listed if met.isdisjoint({entry.value, entry.content})),
        "in_their_place": find_in_place(before, entries),
        "trained_before": trained_on(before, ids) if before else {},
        "trained_after": trained_on(Snapshot(None), ids),
        "likelihood": measure_likelihood(before, ids) if before else {},
        "records_in_raw_files": count_in_files(held, files),
        "raw_files_in_git": count_commits(files),
        "purged": earlier.get("purged", []),
    } | ({} if known else {key: earlier[key] for key in OF_BEFORE if key in earlier})


def list_faults(entries: list[Exclusion], equal: list[str], keep_duplicates: bool) -> list[str]:
    """Why the rows are not gone."""
    present = find_present(entries)
    faults = [f"{name}: still holds {len(held)} of the rows, {held[0]} first" for name, held in present.items()]
    if equal and not keep_duplicates:
        faults.append(f"data/pool: row {equal[0]} has the very text of a forgotten one; --keep-duplicates lets it stay")
    return faults


def prove(request: str, purging: bool, agreed: bool, keep_duplicates: bool) -> None:
    """Write the report, and purge where asked. Raises InputError where a row, or its very text, is still there."""
    entries = entries_of(request)
    check_current()
    if purging:
        check_pending(request)
    before, rows = former_rows(entries)
    path = report_of(request)
    earlier = read_json(path) if path.is_file() else {}
    equal = find_equal_texts(entries, rows, earlier)
    if faults := list_faults(entries, equal["row_id"].to_list(), keep_duplicates):
        raise InputError("\n".join(faults))
    report = build_report(request, entries, before, rows, earlier)
    staying = {*equal["content"], *earlier.get("contents_that_stay", ())}
    report |= {"equal_texts_that_stay": equal["row_id"].to_list(), "contents_that_stay": sorted(staying)}
    write_report(report, entries)  # before anything is deleted
    print(render(report))
    if purging:
        plan = plan_purge()
        print(plan.render())
        confirm(request, agreed)
        for what in purge(plan):  # written down as it goes: a purge that is cut short has told what it did
            report["purged"].append(what)
            write_json(path, report)
            print(f"deleted: {what}")
        write_report(report, entries)
    print(f"\n{path.with_suffix('.md')} is for who signs it; commit it with {path.name}, dvc.lock and metrics")


def write_report(report: dict[str, Any], entries: list[Exclusion]) -> None:
    """With what outside the workspace holds rows at this moment."""
    report |= {
        "cache": find_copies(pl.Series([entry.value for entry in entries if entry.kind == "row"], dtype=pl.String)),
        "beside": {str(path): size for path, size in list_beside()},
        "experiments": list_experiments(),
        "remotes": [line.split()[0] for line in run_dvc("remote", "list").splitlines() if line.strip()],
    }
    path = report_of(report["request"])
    write_text(path.with_suffix(".md"), render(report))
    write_json(path, report)  # last: where it stands, the proof is whole
