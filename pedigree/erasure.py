"""Whether rows are gone: from the tables and models of the workspace, and what beside it still holds them.

`prove` writes reports/forget_<request>.{md,json}. Absence is read off the tables themselves, of a run that is whole:
`dvc status` has nothing to do. The likelihood of the rows' text under the models before and after is evidence of
another kind: a model that never saw a text may still find it likely, so the figures stand beside those of held-out
rows, which neither model trained on.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from pedigree.deletion_report import render
from pedigree.forget import entries_of
from pedigree.snapshot import Snapshot
from pedigree.trace import check_whole
from pedigree.verify import digest_file
from stages.common.errors import InputError
from stages.common.exclusions import Exclusion
from stages.common.files import read_json, write_json, write_text

REPORTS = Path("reports")
COLUMNS = ("row_id", "other_id", "target", "cluster")  # of tables: where a row's id may stand
TABLES = ("data/*/*.parquet", "models/*/*.parquet")
POOL, LEDGER = Path("data/pool/rows.parquet"), Path("data/pool/ledger.parquet")
PLACE = ["source", "file", "record", "branch"]
SCORED_ROWS = 64  # of a request, and as many held-out rows
BESIDE = (".pedigree/checkpoints", ".pedigree/cache", ".pedigree/revisions", ".dvc/tmp/exps")
OF_BEFORE = ("likelihood", "records_in_raw_files", "raw_files_in_git", "at_the_same_place")
"""What of a report is known from the tables of before."""


def run_dvc(*arguments: str) -> str:
    """What a command of DVC prints. Raises InputError where it fails."""
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"dvc {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def check_current() -> None:
    """Raises InputError where the outputs are not those of one whole run of what is here."""
    waiting = json.loads(run_dvc("status", "--json"))
    if waiting:
        raise InputError(f"dvc status: {', '.join(waiting)} would run again, so nothing can be proved; run `dvc repro`")
    snapshot = Snapshot(None)
    for out in (out["path"] for stage in snapshot.lock.values() for out in stage["outs"]):
        snapshot.find(out)
    check_whole(snapshot)


def ids_in(path: Path, ids: pl.Series) -> set[str]:
    """Which of the ids stand in a table."""
    scan = pl.scan_parquet(path)
    columns = [name for name, kind in scan.collect_schema().items() if name in COLUMNS and kind == pl.String]
    found = [scan.select(name).filter(pl.col(name).is_in(ids.implode())).collect()[name] for name in columns]
    return {name for column in found for name in column}


def find_present(ids: pl.Series) -> dict[str, list[str]]:
    """Table of the workspace → ids that it still holds. Pool's own ledger, which says that they are excluded, may."""
    paths = sorted(path for pattern in TABLES for path in Path().glob(pattern))
    found = {str(path): sorted(ids_in(path, ids)) for path in paths if path != LEDGER}
    return {name: rows for name, rows in found.items() if rows}


def former_rows(entries: Iterable[Exclusion]) -> tuple[Snapshot | None, pl.DataFrame]:
    """The version that still held the rows, None where it cannot be had, and them as pool had read them."""
    since = next((entry.since for entry in entries if entry.since), None)
    ids = [entry.value for entry in entries if entry.kind == "row"]
    try:
        snapshot = Snapshot(since)
    except InputError:  # the history was written anew since
        return None, pl.DataFrame()
    scan = snapshot.scan("data/pool/rows.parquet")
    return snapshot, pl.DataFrame() if scan is None else scan.filter(pl.col("row_id").is_in(ids)).collect()


def find_equal_texts(rows: pl.DataFrame) -> list[str]:
    """Rows of the workspace with the very text of a forgotten one."""
    from stages.common.rows import text_of_row
    from stages.common.shingles import normalise_texts

    if not rows.height:
        return []
    gone = normalise_texts(rows.select(text_of_row().alias("text"))["text"])
    here = pl.read_parquet(POOL)
    texts = normalise_texts(here.select(text_of_row().alias("text"))["text"])
    return here.filter(texts.is_in(gone.implode()))["row_id"].to_list()


def find_copies(ids: pl.Series) -> list[dict[str, Any]]:
    """Objects of DVC's cache that hold a row: digest, bytes, rows, and whether dvc.lock still names it. Of a table that
    training wrote also the model beside it."""
    from dvc.repo import Repo

    repo = Repo(".")
    used = {obj.value for objs in repo.used_objs().values() for obj in objs}
    now = digest_file(LEDGER)  # names the rows as excluded, and nothing of them
    found: dict[str, dict[str, Any]] = {}
    folders = []
    for path in sorted(Path(repo.cache.local.path).glob("*/*")):
        digest = path.parent.name + path.name
        if path.suffix == ".dir":
            folders.append({entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text())})
            continue
        with path.open("rb") as file:
            is_table = file.read(4) == b"PAR1"
        if is_table and digest != now and (held := ids_in(path, ids)):
            found[digest] = {"what": "table", "bytes": path.stat().st_size, "rows": len(held), "in_use": digest in used}
    for files in folders:
        consumed = found.get(files.get("consumed.parquet", ""))
        if consumed is None:
            continue
        for name, digest in files.items():
            path = Path(repo.cache.local.oid_to_path(digest))
            if name.endswith(".safetensors") and path.is_file():
                about = {"what": "model", "bytes": path.stat().st_size, "rows": consumed["rows"]}
                found[digest] = about | {"in_use": digest in used}
    return [{"md5": digest} | about for digest, about in found.items()]


def count_commits(paths: Iterable[str]) -> dict[str, int]:
    """Raw file → commits that hold a version of it in git; files that git never had are left out."""
    counts = {}
    for path in sorted(set(paths)):
        command = ["git", "log", "--all", "--format=%h", "--", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.split():
            counts[path] = len(done.stdout.split())
    return counts


def list_beside() -> Iterator[tuple[str, int]]:
    """Folders that may hold rows or models of earlier runs, and their bytes."""
    for path in places_beside():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if size:
            yield str(path), size


def places_beside() -> list[Path]:
    from dvc.repo import Repo

    runs = Path(Repo(".").cache.local.path).parent.parent / "runs"
    return [*map(Path, BESIDE), runs.relative_to(Path.cwd()) if runs.is_relative_to(Path.cwd()) else runs]


def list_experiments() -> list[str]:
    command = ["git", "for-each-ref", "--format=%(refname)", "refs/exps/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [name for name in done.stdout.split() if "/stash" not in name]


def measure_likelihood(before: Snapshot, ids: pl.Series) -> dict[str, dict[str, float]]:
    """Mean negative log-likelihood of a supervised token, in nats, under models/sft before and after.

    Of the SFT rows of a request that trained the model before, as they were trained on, and of rows that were held out
    then and trained no model since. Nothing where no such row trained it.
    """
    from pedigree.likelihood import score_rows

    scan = before.scan("data/mix/sft.parquet")
    if scan is None:
        return {}
    rows = scan.collect()
    trained = pl.read_parquet("models/sft/consumed.parquet", columns=["row_id"])["row_id"]
    forgotten = rows.filter(pl.col("row_id").is_in(ids.implode()), split="train").unique("row_id", maintain_order=True)
    outside = ~pl.col("row_id").is_in(pl.concat([ids, trained]).implode())
    heldout = rows.filter(outside, split="heldout")
    if not forgotten.height or not heldout.height:
        return {}
    groups = {"forgotten": forgotten.head(SCORED_ROWS), "heldout": heldout.head(SCORED_ROWS)}
    return {when: score_rows(snapshot, groups) for when, snapshot in (("before", before), ("after", Snapshot(None)))}


def purge() -> list[str]:
    """Delete what earlier runs left on this disk. Raises InputError where the cache serves other repositories too."""
    from dvc.repo import Repo

    cache = Path(Repo(".").cache.local.path).resolve()
    if not cache.is_relative_to(Path.cwd()):
        raise InputError(
            f"--purge: DVC's cache {cache} lies outside this repository and may serve others; clean it by hand"
        )
    done = []
    if list_experiments():
        run_dvc("exp", "remove", "--all-commits")
        done.append("all experiments")
    run_dvc("gc", "--workspace", "--force")
    done.append("every object of the cache that the workspace does not use, those of all older versions and tags")
    for path in places_beside():
        if path.exists():
            shutil.rmtree(path)
            done.append(str(path))
    return done


def prove(request: str, purging: bool, keep_duplicates: bool) -> None:
    """Write the report. Raises InputError where a row, or its very text, is still there."""
    entries = entries_of(request, Snapshot(None).read_params())
    check_current()
    ids = pl.Series([entry.value for entry in entries if entry.kind == "row"], dtype=pl.String)
    before, rows = former_rows(entries)
    equal = find_equal_texts(rows)
    faults = [
        f"{name}: still holds {len(held)} of the rows, {held[0]} first" for name, held in find_present(ids).items()
    ]
    if equal and not keep_duplicates:
        faults.append(f"data/pool: row {equal[0]} has the very text of a forgotten one; --keep-duplicates lets it stay")
    if faults:
        raise InputError("\n".join(faults))
    path = REPORTS / f"forget_{request}.json"
    report = build_report(request, entries, ids, before, rows) | {"equal_texts_that_stay": equal}
    if path.is_file():
        earlier = read_json(path)
        report["purged"] = earlier["purged"]
        if not rows.height:  # after a purge: what was known of before
            report |= {key: earlier[key] for key in OF_BEFORE}
    if purging:
        write_json(path, report)
        report["purged"] = [*report["purged"], *purge()]
    report |= {
        "cache": find_copies(ids),
        "beside": dict(list_beside()),
        "experiments": list_experiments(),
        "remotes": [line.split()[0] for line in run_dvc("remote", "list").splitlines() if line.strip()],
    }
    write_json(path, report)
    write_text(REPORTS / f"forget_{request}.md", render(report))
    print(render(report))


def build_report(
    request: str, entries: list[Exclusion], ids: pl.Series, before: Snapshot | None, rows: pl.DataFrame
) -> dict[str, Any]:
    """What the tables say, of now and of before."""
    named = pl.read_parquet(LEDGER).filter(reason="excluded")["row_id"]
    unmatched = sorted(set(ids) - set(named))
    moved = rows.filter(pl.col("row_id").is_in(unmatched)) if rows.height else rows
    here = pl.read_parquet(POOL, columns=["row_id", *PLACE])
    same_place = here.join(moved, on=PLACE, nulls_equal=True)["row_id"].to_list() if moved.height else []
    in_files = rows.filter(pl.col("row_id").is_in(named.implode())) if rows.height else rows
    return {
        "request": request,
        "excluded": {kind: sum(entry.kind == kind for entry in entries) for kind in ("subject", "source", "row")},
        "tables_searched": len([path for pattern in TABLES for path in Path().glob(pattern)]),
        "tables_of_before": bool(rows.height),
        "match_no_record": unmatched,
        "at_the_same_place": same_place,
        "likelihood": measure_likelihood(before, ids) if before and rows.height else {},
        "records_in_raw_files": dict(in_files.group_by("file").len().sort("file").iter_rows()) if rows.height else {},
        "raw_files_in_git": count_commits(rows["file"]) if rows.height else {},
        "purged": [],
    }
