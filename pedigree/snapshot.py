"""What the stages wrote: as it lies in the workspace, or as a git revision's dvc.lock has it.

A revision is read out of DVC's cache; what is not there is fetched from the remote, where there is one. `data/pool` and
`data/dedup` are never pushed, so a table may be out of reach: that is told, never passed over.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from pedigree.lockfile import Lock
from stages.common.errors import InputError
from stages.common.params import PARAMS_FILE, read_yaml

FETCHED = Path(".pedigree/revisions")


class Snapshot:
    """The outputs of one run of the graph. Raises InputError where git knows no such revision."""

    def __init__(self, revision: str | None) -> None:
        self.revision = revision
        self.out_of_reach: list[str] = []
        self._store: Any = None
        if revision is not None:
            from dvc.api import DVCFileSystem
            from dvc.repo import Repo
            from dvc.scm import RevError, resolve_rev

            try:
                self._store = DVCFileSystem(".", rev=resolve_rev(Repo(".").scm, revision))
            except RevError:
                raise InputError(f"{revision}: git knows no such revision, tag, branch or experiment") from None

    @cached_property
    def repo(self) -> Any:
        """DVC's view of the repository: the workspace's or the revision's."""
        from dvc.repo import Repo

        return Repo(".") if self._store is None else self._store.repo

    @cached_property
    def lock(self) -> Lock:
        """The stages of dvc.lock; none where nothing has run."""
        path = Path("dvc.lock") if self._store is None else self._find("dvc.lock")
        return dict(read_yaml(path)["stages"]) if path is not None and path.is_file() else {}

    def find(self, name: str) -> Path | None:
        """A file of this disk with the content that `name` had; None where the run did not write it.

        A folder that was written but cannot be had any more is named in `out_of_reach`.
        """
        path = self._find(name)
        if path is None:
            outs = [out["path"] for stage in self.lock.values() for out in stage.get("outs", ())]
            for out in outs:
                if (name == out or name.startswith(f"{out}/")) and not self._has(out) and out not in self.out_of_reach:
                    self.out_of_reach.append(out)
        return path

    def _has(self, out: str) -> bool:
        """Whether an output, or some file of it, can be had."""
        if self._store is None:
            return Path(out).exists()
        return any(self._find(file) for file in self.list_files(out)[:1])

    def list_files(self, folder: str) -> list[str]:
        """The files below a folder, sorted."""
        if self._store is None:
            return sorted(path.as_posix() for path in Path(folder).rglob("*") if path.is_file())
        try:
            return sorted(self._store.find(folder))
        except Exception:  # each kind of remote raises its own
            return []

    def _find(self, name: str) -> Path | None:
        if self._store is None:
            return Path(name) if Path(name).is_file() else None
        try:
            if not self._store.exists(name):
                return None
            digest = self._store.info(name).get("md5")
        except Exception:  # each kind of remote raises its own
            return None
        if digest is None:  # git has it
            return self._fetch(name, FETCHED / str(self._store.repo.get_rev()) / name)
        cached = Path(self._store.repo.cache.local.oid_to_path(digest))
        return cached if cached.is_file() else self._fetch(name, FETCHED / digest)

    def _fetch(self, name: str, place: Path) -> Path | None:
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(f".{place.name}.part")
            try:
                self._store.get_file(name, str(part))
            except Exception:  # each kind of remote raises its own
                part.unlink(missing_ok=True)
                return None
            part.replace(place)
        return place

    def scan(self, name: str) -> pl.LazyFrame | None:
        """A table, None where it is not to be had. Raises InputError where the file is cut off or no table."""
        path = self.find(name)
        if path is None:
            return None
        table = pl.scan_parquet(path)
        try:
            table.collect_schema()  # it stands at the end of the file
        except pl.exceptions.PolarsError:
            back = f"`dvc checkout --force {name}` puts back what the last run wrote, else run `dvc repro`"
            if self.revision:
                back = "delete this file, then `dvc fetch --all-commits` where a remote has it"
            raise InputError(
                f"{path}: expected {name} of {self.name}, a Parquet table, and found none, or one that is cut off; "
                f"{back}"
            ) from None
        return table

    def read_params(self) -> dict[str, Any]:
        path = self.find(str(PARAMS_FILE))
        if path is None:
            raise InputError(f"{PARAMS_FILE}: {self.name} has none")
        return read_yaml(path)

    @property
    def name(self) -> str:
        return self.revision or "the workspace"
