"""What beside the workspace still holds rows of earlier runs, and its deletion: DVC's cache, experiments, checkpoints.

`plan_purge` tells what would go before anything does. A purge keeps what the workspace uses and nothing else, so all
older versions lose their data: their tables and models can be made again from the raw files alone.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pedigree.absence import LEDGER, is_proved, read_list, values_in
from pedigree.deletion_report import count
from pedigree.layout import show_bytes
from pedigree.verify import digest_file
from stages.common.errors import InputError

BESIDE = (".pedigree/checkpoints", ".pedigree/cache", ".pedigree/revisions", ".dvc/tmp/exps")
SHOWN = 20
# Of dvc.lock; metrics and reports are in git, whatever copies of them the run cache has left among the objects.
OBJECT = re.compile(r"path: (?!metrics/|reports/)\S+\s+hash: md5\s+md5: ([0-9a-f]{32}(?:\.dir)?)\b")


MODEL = re.compile(r"path: models/\S+\s+hash: md5\s+md5: ([0-9a-f]{32}\.dir)")


def run_dvc(*arguments: str) -> str:
    """What a command of DVC prints. Raises InputError where it fails."""
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"dvc {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def run_git(*arguments: str) -> str:
    """What a command of git prints, "" where it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def cache_folder() -> Path:
    from dvc.repo import Repo

    return Path(Repo(".").cache.local.path)


def runs_folder() -> Path:
    """DVC's run cache: of each run of a stage here, what it read and made, by digest."""
    return cache_folder().parent.parent / "runs"


def used_objects() -> set[str]:
    """Digests of what the workspace uses of the cache."""
    from dvc.repo import Repo

    return {obj.value for objs in Repo(".").used_objs().values() for obj in objs}


def list_objects() -> dict[str, Path]:
    """Digest → file of DVC's cache."""
    return {path.parent.name + path.name: path for path in sorted(cache_folder().glob("??/*"))}


def find_heirs(rows: dict[str, int]) -> dict[str, int]:
    """Digest of a model's folder → rows that it holds: those that are given, and all that runs of this clone made of
    them, an adapter on top or the same weights in fewer bits."""
    texts = [path.read_text().partition("\nouts:") for path in runs_folder().glob("??/*/*")]
    runs = [(MODEL.findall(before), MODEL.findall(after)) for before, _, after in texts]
    held, grows = dict(rows), True
    while grows:
        grows = False
        for parents, made in runs:
            inherited = max((held.get(parent, 0) for parent in parents), default=0)
            for model in made:
                if inherited > held.get(model, 0):
                    held[model], grows = inherited, True
    return held


def find_copies(values: pl.Series) -> list[dict[str, Any]]:
    """Objects of the cache that hold a row: digest, bytes, rows, and whether dvc.lock still names it. Of a table that
    training wrote also the model beside it, and what was made of that."""
    used, objects = used_objects(), list_objects()
    now = digest_file(LEDGER)  # names the rows as excluded, and nothing of them
    found: dict[str, dict[str, Any]] = {}
    folders = {}
    for digest, path in objects.items():
        if path.suffix == ".dir":
            folders[digest] = {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text())}
            continue
        with path.open("rb") as file:
            is_table = file.read(4) == b"PAR1"
        if is_table and digest != now and (held := values_in(path, values)):
            found[digest] = {"what": "table", "bytes": path.stat().st_size, "rows": len(held), "in_use": digest in used}
    of_folder = {folder: found.get(files.get("consumed.parquet", "")) for folder, files in folders.items()}
    for folder, rows in find_heirs({folder: about["rows"] for folder, about in of_folder.items() if about}).items():
        for name, digest in folders.get(folder, {}).items():
            if name.endswith(".safetensors") and digest in objects:
                about = {"what": "model", "bytes": objects[digest].stat().st_size, "rows": rows}
                found[digest] = about | {"in_use": digest in used}
    return [{"md5": digest} | about for digest, about in found.items()]


def count_commits(paths: Iterable[str]) -> dict[str, int]:
    """Raw file → commits that hold a version of it in git; files that git never had are left out."""
    counts = {path: len(run_git("log", "--all", "--format=%h", "--", path).split()) for path in sorted(set(paths))}
    return {path: count for path, count in counts.items() if count}


def list_beside() -> Iterator[tuple[Path, int]]:
    """Folders that may hold rows or models of earlier runs, and their bytes."""
    runs, here = runs_folder(), Path.cwd()
    for path in [*map(Path, BESIDE), runs.relative_to(here) if runs.is_relative_to(here) else runs]:
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if size:
            yield path, size


def list_experiments() -> list[str]:
    names = run_git("for-each-ref", "--format=%(refname)", "refs/exps/").split()
    return [name for name in names if "/stash" not in name]


@dataclass
class Purge:
    """What a purge would delete, and which versions could no longer be checked out."""

    experiments: list[str]
    objects: int
    bytes: int
    beside: dict[Path, int]
    names: list[str]
    """Tags and branches whose data would be gone from this disk."""
    commits: int
    """Commits of which the same is true."""

    def render(self) -> str:
        lines = [f"  cache: {count(self.objects, 'object')}, {show_bytes(self.bytes)}, that the workspace does not use"]
        lines += [f"  {path}: {show_bytes(size)}" for path, size in self.beside.items()]
        lines += [f"  experiment {name}" for name in _some(self.experiments)]
        told = f"  no longer to be checked out from this disk: the data of {count(self.commits, 'commit')}"
        lines.append(told + (f", among them {', '.join(_some(self.names))}" if self.names else ""))
        return "--purge deletes, for good:\n" + "\n".join(lines)


def _some(names: list[str]) -> list[str]:
    return names if len(names) <= SHOWN else [*names[:SHOWN], f"{len(names) - SHOWN} more"]


def plan_purge() -> Purge:
    """Raises InputError where the cache may serve other repositories too."""
    cache = cache_folder().resolve()
    if not cache.is_relative_to(Path.cwd()):
        raise InputError(
            f"--purge: DVC's cache {cache} lies outside this repository and may serve others; clean it by hand"
        )
    used = used_objects()
    doomed = {digest: path.stat().st_size for digest, path in list_objects().items() if digest not in used}
    refs = run_git("for-each-ref", "--format=%(refname:short)", "refs/tags", "refs/heads", "refs/remotes").split()
    commits = run_git("log", "--branches", "--tags", "--remotes", "HEAD", "--format=%H", "--", "dvc.lock").split()
    return Purge(
        experiments=list_experiments(),
        objects=len(doomed),
        bytes=sum(doomed.values()),
        beside=dict(list_beside()),
        names=[name for name in refs if loses_data(name, doomed)],
        commits=sum(loses_data(commit, doomed) for commit in commits),
    )


def loses_data(revision: str, doomed: Iterable[str]) -> bool:
    return not set(OBJECT.findall(run_git("show", f"{revision}:dvc.lock"))).isdisjoint(doomed)


def check_pending(request: str) -> None:
    """Raises InputError where another request has no report: a purge would destroy what its proof compares with."""
    waiting = sorted({entry.request for entry in read_list()} - {request})
    waiting = [name for name in waiting if not is_proved(name)]
    if waiting:
        raise InputError(
            f"--purge: {', '.join(waiting)} is on the exclusion list and has no report, and a purge would delete the "
            f"tables and models that its evidence is taken from; first `pedigree forget --request {waiting[0]} --prove`"
        )


def confirm(request: str, agreed: bool) -> None:
    """Raises InputError where nobody at the terminal agrees to a purge."""
    if agreed:
        return
    if not sys.stdin.isatty():
        raise InputError("--purge: nothing was deleted; --yes deletes what is listed above")
    if input(f"Type the name of the request ({request}) to delete this: ").strip() != request:
        raise InputError("--purge: nothing was deleted")


def purge(plan: Purge) -> Iterator[str]:
    """Delete it, and say what is gone as it goes."""
    if plan.experiments:
        run_dvc("exp", "remove", "--all-commits")
        yield f"{count(len(plan.experiments), 'experiment')}: all of them"
    run_dvc("gc", "--workspace", "--force")
    if plan.objects:
        told = f"all that this version does not use; gone from this disk is the data of {count(plan.commits, 'commit')}"
        yield f"{count(plan.objects, 'object')} of DVC's cache, {show_bytes(plan.bytes)}: {told}"
    for path, size in plan.beside.items():
        shutil.rmtree(path)
        yield f"{path}, {show_bytes(size)}"
