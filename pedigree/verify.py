"""pedigree verify: the repository, dvc.lock, the outputs and the card agree; exit code 1 where something does not.

Each file that dvc.lock names is hashed anew, whatever its time stamp says, so that a flipped bit is found; a folder is
compared with DVC's own list of it, so that the file is named. Then the graph (what a stage read is what the
stage before it wrote), parameters and packages, the contracts of all tables, the chain of models, and the card, which
is rendered once more and must come out the same to the byte.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from pedigree.contracts import check_tables
from pedigree.layout import show_value, table
from pedigree.lockfile import Lock, find_stale, flatten, maker_of, makers, packages, recorded_files
from pedigree.snapshot import Snapshot
from stages.cards.digests import digest_file, digest_folder
from stages.common.errors import InputError
from stages.common.params import PARAMS_FILE, read_yaml


class Agreement:
    """What was compared, and what does not agree."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, str]] = []
        self.faults: list[str] = []

    def wrong(self, where: str, what: str) -> None:
        self.faults.append(f"{where}: {what}")


def list_folder(path: Path) -> dict[str, str]:
    """File → md5 of all files below a folder, but for what .dvcignore names."""
    from dvc.fs import localfs
    from dvc.repo import Repo

    whole = path.resolve()
    files = sorted(Path(name) for name in Repo(".").dvcignore.find(localfs, str(whole)))
    return {file.relative_to(whole).as_posix(): digest_file(file) for file in files}


def compare_path(entry: Mapping[str, Any]) -> Iterator[str]:
    """What differs between a file or folder and its entry in dvc.lock, file by file where that can be told."""
    path, expected = Path(entry["path"]), entry["md5"]
    if not path.exists():
        yield f"{path}: is not here"
    elif path.is_file():
        if digest_file(path) != expected:
            yield f"{path}: is not what dvc.lock recorded (md5 {digest_file(path)[:8]}, recorded {expected[:8]})"
    elif digest_folder(files := list_folder(path)) != expected:
        before = recorded_files(expected)
        names = sorted(name for name in files.keys() | before.keys() if files.get(name) != before.get(name))
        for name in names if before else []:
            what = "was added" if name not in before else "is missing" if name not in files else "has changed"
            yield f"{path / name}: {what} since dvc.lock recorded it"
        if not before:
            yield f"{path}: is not what dvc.lock recorded; its list is not in the cache, so the file cannot be named"


def check_files(lock: Lock, found: Agreement) -> None:
    """Inputs and outputs of every stage, each as every stage recorded it."""
    entries: dict[tuple[str, str], tuple[str, str, Mapping[str, Any]]] = {}
    for kind in ("outs", "deps"):
        for name, stage in lock.items():
            for entry in stage.get(kind, ()):
                entries.setdefault((entry["path"], entry["md5"]), (name, kind, entry))
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=False).stdout
    in_git = set(listed.split("\0"))
    for (path, _), (stage_name, kind, entry) in sorted(entries.items()):
        if path in ("data/pool", "data/dedup") and not Path(path).exists():
            found.facts.append((path, "not here: raw data stays on the machine that made it"))
            continue
        keeper = "git" if path in in_git else "dvc"  # metrics and the card are in no cache of DVC's
        made = (
            f"`{keeper} checkout {path}` brings it back" if kind == "outs" else f"`dvc repro {stage_name}` takes it up"
        )
        found.faults += [f"{fault}; {made}" for fault in compare_path(entry)]
    found.facts.append(("files", f"{len({path for path, _ in entries})} files and folders hashed anew"))


def check_edges(lock: Lock, found: Agreement) -> None:
    """What a stage read is what another one wrote."""
    made = makers(lock)
    found.faults += map(str, find_stale(lock))
    count = sum(maker_of(dep["path"], made) is not None for stage in lock.values() for dep in stage.get("deps", ()))
    found.facts.append(("graph", f"{count} edges between {len(lock)} stages"))


def check_params(lock: Lock, found: Agreement) -> None:
    """params.yaml and pyproject.toml as each stage read them, and the packages that are installed."""
    current = dict(flatten(read_yaml(PARAMS_FILE)))
    recorded: set[str] = set()
    pins: dict[str, str] = {}
    for name, stage in lock.items():
        for file, block in stage.get("params", {}).items():
            if file == "pyproject.toml":
                pins |= packages(block)
                continue
            for key, value in flatten(block):
                recorded.add(key)
                if current.get(key) != value:
                    told = f"is {show_value(current.get(key))}, but {show_value(value)} made the outputs of {name}"
                    found.wrong(f"{PARAMS_FILE}, {key}", told)
    for name, version in sorted(pins.items()):
        check_package(name, version, found)
    found.facts.append(("parameters", f"{len(recorded)} values"))
    found.facts.append(("packages", f"{len(pins)} as recorded"))


def check_package(name: str, version: str, found: Agreement) -> None:
    from packaging.requirements import Requirement

    requirement = Requirement(f"{name}=={version}" if version else name)
    if requirement.marker and not requirement.marker.evaluate():
        return
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        installed = "none"
    if not requirement.specifier.contains(installed.partition("+")[0], prereleases=True):
        found.wrong(f"package {requirement.name}", f"{installed} is installed, {version} made the outputs")


def check_contracts(found: Agreement) -> None:
    """Every table that is here holds what its contract says: the ledgers' balance is part of that."""
    count, faults = check_tables()
    found.faults += faults
    found.facts.append(("contracts", "are broken" if faults else f"{count} tables hold"))


def check_models(found: Agreement) -> None:
    """Each adapter's parent is the one here, and each digest in metrics/ is that of the weights."""
    from stages.common.models import chain_of, model_digest

    models = [path for path in sorted(Path("models").glob("*")) if path.is_dir()]
    for path in models:
        try:
            chain_of(path)
        except InputError as error:
            found.faults.append(str(error))
    for name, folder in (("base", "base"), ("quantize", "quantized")):
        file = Path(f"metrics/{name}.json")
        if not file.is_file() or not Path("models", folder).is_dir():
            continue
        try:
            digest = json.loads(file.read_text()).get("digest")
        except (ValueError, AttributeError):
            found.wrong(str(file), f"is no JSON object; `git checkout {file}` brings it back")
            continue
        if digest and model_digest(Path("models", folder)) != digest:
            found.wrong(str(file), f"its digest is not that of models/{folder}; a card of it would be untrue")
    found.facts.append(("models", ", ".join(path.name for path in models)))


def check_card(found: Agreement) -> None:
    """The card, rendered again from metrics, ledgers and parameters, is the card that is here."""
    from stages.card import PAGES, render

    try:
        pages = render()
    except InputError as error:
        found.faults += [f"reports: no card can be made of what is here: {line}" for line in str(error).splitlines()]
        return
    faults = len(found.faults)
    for name in PAGES:
        if not Path(name).is_file():
            found.wrong(name, "is not here; run `dvc repro card`")
        elif Path(name).read_text(encoding="utf-8") != pages[name]:
            found.wrong(name, f"does not say what metrics and parameters say ({first_difference(name, pages[name])})")
    found.facts.append(("card", "rendered again: " + ("the same" if len(found.faults) == faults else "another")))


def first_difference(name: str, page: str) -> str:
    lines = Path(name).read_text(encoding="utf-8").splitlines()
    for number, (here, there) in enumerate(zip(lines, page.splitlines(), strict=False), 1):
        if here != there:
            return f"first in line {number}"
    return f"{len(lines)} lines, {len(page.splitlines())} expected"


def check_deletions(found: Agreement) -> None:
    """What the reports on deletions say is gone has not come back."""
    from pedigree.absence import check_requests

    told, faults = check_requests()
    found.facts.append(("deletions", told))
    found.faults += faults


def check_git(found: Agreement) -> None:
    """Whether the commit holds all that was verified: told, no fault."""
    listed = [
        "git",
        "status",
        "--porcelain",
        "--",
        "dvc.lock",
        "dvc.yaml",
        "params.yaml",
        "stages",
        "metrics",
        "reports",
    ]
    done = subprocess.run(listed, capture_output=True, text=True, check=False)
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    count = len(done.stdout.splitlines())
    state = "everything is in it" if not count else f"{count} files of the workspace are not in it"
    found.facts.append(("commit", f"{head.stdout.strip() or 'none'}; {state}"))


def attempt(check: Callable[[Agreement], None], name: str, found: Agreement) -> None:
    """A check that cannot read what it compares is a fault, and hides no other check's."""
    part = name.removeprefix("check_")
    try:
        check(found)
    except InputError as error:
        found.faults.append(str(error))
        found.facts.append((part, "could not be compared"))
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        pl.exceptions.PolarsError,
    ) as error:
        found.wrong(part, f"could not be compared ({type(error).__name__}): a file is broken, see the other lines")
        found.facts.append((part, "could not be compared"))


def certify(stage: str, lock: Lock) -> None:
    """Run a stage again and write how near it came. Raises InputError where an output is outside its tolerance."""
    from pedigree.certificate import rerun, write_certificate

    if stage not in lock:
        raise InputError(f"--rerun {stage}: dvc.lock has no such stage; it has {', '.join(lock)}")
    near = rerun(stage, lock)
    path = write_certificate(stage, lock, near)
    print(table([[each.path, each.verdict, f"{each.largest:.2g}" if 0 < each.largest < 1e9 else ""] for each in near]))
    print(f"certificate: {path}")
    if far := [each.path for each in near if each.verdict not in ("equal", "within tolerance")]:
        raise InputError("\n".join(f"{name}: came out different when {stage} ran again" for name in far))


def verify(arguments: argparse.Namespace) -> None:
    lock = Snapshot(None).lock
    if not lock:
        raise InputError("dvc.lock: is not here; nothing has run. Next: make repro")
    if arguments.rerun:
        certify(arguments.rerun, lock)
        return
    found = Agreement()
    for check in (check_edges, check_files, check_params):
        attempt(partial(check, lock), check.__name__, found)
    for look in (check_contracts, check_models, check_deletions, check_card, check_git):
        attempt(look, look.__name__, found)
    print(table(found.facts))
    if found.faults:
        raise InputError("\n".join(found.faults))
    print("All of it agrees.")
