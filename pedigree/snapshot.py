"""What the stages wrote: as it lies in the workspace, or as a git revision's dvc.lock has it.

A revision is read out of DVC's cache; what is not there is fetched from the remote, where there is one. `data/pool` and
`data/dedup` are never pushed, so a table may be out of reach: that is told, never passed over.
"""

from pathlib import Path
from typing import Any

import polars as pl

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

    def find(self, name: str) -> Path | None:
        """A file of this disk with the content that `name` had; None where the run did not write it.

        What was written but cannot be had any more is named in `out_of_reach`.
        """
        if self._store is None:
            return Path(name) if Path(name).is_file() else None
        if not self._store.exists(name):
            return None
        digest = self._store.info(name).get("md5")
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
                self.out_of_reach.append(name)
                part.unlink(missing_ok=True)
                return None
            part.replace(place)
        return place

    def scan(self, name: str) -> pl.LazyFrame | None:
        path = self.find(name)
        return None if path is None else pl.scan_parquet(path)

    def read_params(self) -> dict[str, Any]:
        path = self.find(str(PARAMS_FILE))
        if path is None:
            raise InputError(f"{PARAMS_FILE}: {self.name} has none")
        return read_yaml(path)

    @property
    def name(self) -> str:
        return self.revision or "the workspace"
