"""Whether rows are gone: from the tables and models of the workspace, and what beside it still holds them.

`prove` writes reports/forget_<request>.{md,json}. Absence is read off the tables themselves. The likelihood of the
rows' text under the models before and after is evidence of another kind: a model that never saw a text may still find
it likely, so the figures stand beside those of held-out rows, which neither model saw.
"""

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from pedigree.forget import entries_of
from pedigree.layout import show_bytes
from pedigree.snapshot import Snapshot
from stages.common.errors import InputError
from stages.common.exclusions import Exclusion
from stages.common.files import write_json, write_text

REPORTS = Path("reports")
COLUMNS = ("row_id", "other_id", "target", "cluster")  # of tables: where a row's id may stand
TABLES = ("data/*/*.parquet", "models/*/*.parquet")
SCORED_ROWS = 64  # of a request, and as many held-out rows
BESIDE = (".pedigree/checkpoints", ".pedigree/cache", ".pedigree/revisions", ".dvc/cache/runs", ".dvc/tmp/exps")


def ids_in(path: Path, ids: pl.Series) -> set[str]:
    """Which of the ids stand in a table."""
    scan = pl.scan_parquet(path)
    columns = [name for name, kind in scan.collect_schema().items() if name in COLUMNS and kind == pl.String]
    found = [scan.select(name).filter(pl.col(name).is_in(ids.implode())).collect()[name] for name in columns]
    return {name for column in found for name in column}


def find_present(ids: pl.Series) -> dict[str, list[str]]:
    """Table of the workspace → ids that it still holds. Pool's own ledger, which says that they are excluded, may."""
    paths = sorted(path for pattern in TABLES for path in Path().glob(pattern))
    found = {str(path): sorted(ids_in(path, ids)) for path in paths if str(path) != "data/pool/ledger.parquet"}
    return {name: rows for name, rows in found.items() if rows}


def find_unnamed(ids: pl.Series) -> list[str]:
    """Ids that pool's ledger does not name as excluded: their records are no longer in the raw files."""
    ledger = pl.read_parquet("data/pool/ledger.parquet").filter(reason="excluded")["row_id"]
    return sorted(set(ids) - set(ledger))


def former_rows(entries: Iterable[Exclusion]) -> tuple[Snapshot | None, pl.DataFrame]:
    """The version that still held the rows, and them as pool had read them."""
    since = next((entry.since for entry in entries if entry.since), None)
    if since is None:
        return None, pl.DataFrame()
    snapshot = Snapshot(since)
    ids = [entry.value for entry in entries if entry.kind == "row"]
    scan = snapshot.scan("data/pool/rows.parquet")
    return snapshot, pl.DataFrame() if scan is None else scan.filter(pl.col("row_id").is_in(ids)).collect()


def find_equal_texts(rows: pl.DataFrame) -> list[str]:
    """Rows of the workspace with the very text of a forgotten one."""
    from stages.common.rows import text_of_row
    from stages.common.shingles import normalise_texts

    if not rows.height:
        return []
    gone = normalise_texts(rows.select(text_of_row().alias("text"))["text"])
    here = pl.read_parquet("data/pool/rows.parquet")
    texts = normalise_texts(here.select(text_of_row().alias("text"))["text"])
    return here.filter(texts.is_in(gone.implode()))["row_id"].to_list()


def find_copies(ids: pl.Series) -> list[dict[str, Any]]:
    """Objects of DVC's cache that hold a row: digest, bytes, rows, and whether dvc.lock still names it."""
    from dvc.repo import Repo

    repo = Repo(".")
    named = {obj.value for objs in repo.used_objs().values() for obj in objs}
    found = []
    for path in sorted(Path(repo.cache.local.path).glob("*/*")):
        digest = path.parent.name + path.name
        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                continue
        held = ids_in(path, ids)
        if held:
            found.append({"md5": digest, "bytes": path.stat().st_size, "rows": len(held), "in_use": digest in named})
    return found


def count_commits(paths: Iterable[str]) -> dict[str, int]:
    """Raw file → commits that hold a version of it in git."""
    counts = {}
    for path in sorted(set(paths)):
        done = subprocess.run(
            ["git", "log", "--all", "--format=%h", "--", path], capture_output=True, text=True, check=False
        )
        counts[path] = len(done.stdout.split())
    return counts


def list_beside() -> Iterator[tuple[str, int]]:
    """Folders that may hold rows or models of earlier runs, and their bytes."""
    for name in BESIDE:
        size = sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file())
        if size:
            yield name, size


def list_remotes() -> list[str]:
    done = subprocess.run(["dvc", "remote", "list"], capture_output=True, text=True, check=False)
    return [line.split()[0] for line in done.stdout.splitlines() if line.strip()]


def list_experiments() -> list[str]:
    command = ["git", "for-each-ref", "--format=%(refname)", "refs/exps/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [name for name in done.stdout.split() if "/stash" not in name]


def measure_likelihood(before: Snapshot, ids: pl.Series) -> dict[str, dict[str, float]]:
    """Mean negative log-likelihood of a supervised token, in nats, under the models before and after.

    Of the SFT rows of a request that trained the model before, as they were trained on, and of held-out rows.
    """
    from pedigree.likelihood import score_rows

    scan = before.scan("data/mix/sft.parquet")
    if scan is None:
        return {}
    rows = scan.collect()
    forgotten = rows.filter(pl.col("row_id").is_in(ids.implode()), split="train").unique("row_id", maintain_order=True)
    heldout = rows.filter(~pl.col("row_id").is_in(ids.implode()), split="heldout")
    if not forgotten.height:
        return {}
    groups = {"forgotten": forgotten.head(SCORED_ROWS), "heldout": heldout.head(SCORED_ROWS)}
    return {when: score_rows(snapshot, groups) for when, snapshot in (("before", before), ("after", Snapshot(None)))}


def purge() -> list[str]:
    """Delete what earlier runs left: unused objects of the cache, experiments, checkpoints and caches."""
    done = []
    if list_experiments():
        subprocess.run(["dvc", "exp", "remove", "--all-commits"], check=True, capture_output=True)
        done.append("all experiments")
    for name in BESIDE:
        if Path(name).exists():
            shutil.rmtree(name)
            done.append(name)
    subprocess.run(["dvc", "gc", "--workspace", "--force"], check=True, capture_output=True)
    done.append("every object of the cache that the workspace does not use")
    return done


def prove(request: str, purging: bool) -> None:
    """Write the report. Raises InputError where a row is still there."""
    entries = entries_of(request, Snapshot(None).read_params())
    ids = pl.Series([entry.value for entry in entries if entry.kind == "row"], dtype=pl.String)
    present = find_present(ids)
    if present:
        lines = [f"{name}: still holds {len(rows)} of the rows, {rows[0]} first" for name, rows in present.items()]
        raise InputError("\n".join([*lines, "run `dvc repro`, then prove again"]))
    before, rows = former_rows(entries)
    likelihood = measure_likelihood(before, ids) if before else {}
    purged = purge() if purging else []
    report = {
        "request": request,
        "excluded": {kind: sum(entry.kind == kind for entry in entries) for kind in ("subject", "source", "row")},
        "tables_searched": len([path for pattern in TABLES for path in Path().glob(pattern)]),
        "present": present,
        "no_longer_in_raw_files": find_unnamed(ids),
        "equal_texts_that_stay": find_equal_texts(rows),
        "likelihood": likelihood,
        "purged": purged,
        "cache": find_copies(ids),
        "raw_files_in_git": count_commits(rows["file"]) if rows.height else {},
        "beside": dict(list_beside()),
        "experiments": list_experiments(),
        "remotes": list_remotes(),
    }
    path = REPORTS / f"forget_{request}"
    write_json(path.with_suffix(".json"), report)
    write_text(path.with_suffix(".md"), render(report))
    print(render(report))


def render(report: dict[str, Any]) -> str:
    """The report for who signs it."""
    counts = ", ".join(
        f"{count} {kind}{'s' if count != 1 else ''}" for kind, count in report["excluded"].items() if count
    )
    lines = [
        f"# Request {report['request']}",
        "",
        f"On the exclusion list: {counts}. None of these rows stands in any of the {report['tables_searched']} tables "
        "of this version, nor in what training consumed; pool's ledger names them as excluded.",
        "",
    ]
    if report["no_longer_in_raw_files"]:
        lines += [f"{len(report['no_longer_in_raw_files'])} of them are no longer in the raw files either.", ""]
    if report["equal_texts_that_stay"]:
        same = ", ".join(report["equal_texts_that_stay"][:5])
        lines += [f"Rows with the very same text that stay: {same}.", ""]
    if report["likelihood"]:
        lines += ["## Likelihood", "", "Negative log-likelihood of a token, nats; lower is likelier.", "",
                  "| rows | model before | model after |", "|---|---|---|"]  # fmt: skip
        for group in ("forgotten", "heldout"):
            values = [report["likelihood"][when][group] for when in ("before", "after")]
            lines.append(f"| {group} | {values[0]:.3f} | {values[1]:.3f} |")
        lines += ["", "Evidence, not proof: what is still likely after, the model has from other rows.", ""]
    lines += ["## What remains", ""]
    lines += [f"- deleted: {what}" for what in report["purged"]]
    old = [copy for copy in report["cache"] if not copy["in_use"]]
    if report["cache"]:
        size = show_bytes(sum(copy["bytes"] for copy in report["cache"]))
        held = f"{len(report['cache'])} objects hold rows of the request ({size}), {len(old)} not used by this version"
        lines.append(f"- DVC's cache: {held}; --purge deletes those")
    for name, commits in report["raw_files_in_git"].items():
        lines.append(
            f"- {name}: git holds it in {commits} commits; only rewriting history (git filter-repo) takes it out"
        )
    lines += [
        f"- {name}: {show_bytes(size)} of earlier runs; --purge deletes it" for name, size in report["beside"].items()
    ]
    lines += [f"- experiment {name}" for name in report["experiments"]]
    lines += [
        f"- remote {name}: `dvc gc --workspace --cloud --remote {name}` after a push of this version"
        for name in report["remotes"]
    ]
    lines += [
        "- clones, backups, and models that were given away: not known here",
        "",
        "Signed off by: ____________________",
        "",
    ]
    return "\n".join(lines)
