"""What dvc.lock says of a run: who wrote what, who read what, and whether the two fit together."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Lock = Mapping[str, Any]
"""`stages` of a dvc.lock: name → {cmd, deps, params, outs}."""


class Stale(NamedTuple):
    """A stage read another version of a path than the one that its maker wrote last."""

    stage: str
    path: str
    maker: str

    def __str__(self) -> str:
        return f"dvc.lock: {self.stage} read another {self.path} than {self.maker} wrote; run `dvc repro {self.stage}`"


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with dotted names; entries of a list that have a `name` are known by it.

    >>> dict(flatten({"a": {"b": 1}, "s": [{"name": "x", "share": 2}]}))
    {'a.b': 1, 's.x.name': 'x', 's.x.share': 2}
    """
    named = isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value)
    if isinstance(value, dict) or named:
        items = value.items() if isinstance(value, dict) else ((item["name"], item) for item in value)
        for key, item in items:
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def packages(block: Mapping[str, list[str]]) -> dict[str, str]:
    """name → version of the requirements in the groups of pyproject.toml."""
    parts = (line.partition("==") for lines in block.values() for line in lines)
    return {name: version for name, _, version in parts}


def makers(lock: Lock) -> dict[str, str]:
    """Path of an output → the stage that writes it."""
    return {out["path"]: name for name, stage in lock.items() for out in stage.get("outs", ())}


def maker_of(path: str, made: Mapping[str, str]) -> str | None:
    """The stage that writes a file, or the folder that it lies in."""
    parts = path.split("/")
    return next((made[name] for end in range(len(parts), 0, -1) if (name := "/".join(parts[:end])) in made), None)


def recorded_files(digest: str) -> dict[str, str]:
    """The list of a folder that DVC's cache holds under its digest; empty where it has none."""
    from dvc.repo import Repo

    path = Path(Repo(".").cache.local.oid_to_path(digest))
    if not path.is_file():
        return {}
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text())}


def find_stale(lock: Lock) -> Iterator[Stale]:
    """Where a run is made of two: an edge of the graph whose ends differ, as after a `dvc repro` that was stopped."""
    made = makers(lock)
    outs = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", ())}
    lists: dict[str, dict[str, str]] = {}
    for name, stage in lock.items():
        for dep in stage.get("deps", ()):
            path, maker = dep["path"], maker_of(dep["path"], made)
            if maker is None:
                continue
            if path in outs:
                written = outs[path]
            else:  # a file of a folder that a stage wrote
                folder = max((out for out in outs if path.startswith(f"{out}/")), key=len)
                listed = lists.setdefault(folder, recorded_files(outs[folder]))
                written = listed.get(path.removeprefix(f"{folder}/"), dep["md5"] if not listed else "")
            if written != dep["md5"]:
                yield Stale(name, path, maker)
