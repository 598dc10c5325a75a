"""Why two runs of the graph may differ: what each stage read, as the two dvc.lock have it.

An input that another stage made is no cause by itself; it differs because that stage did. What is left are roots: raw
files, parameters, packages and code. A metric can only differ because of the roots of the stages before it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pedigree.lockfile import Lock, flatten, maker_of, makers, packages


class Cause(NamedTuple):
    """Something that stands before a stage and differs."""

    stage: str
    kind: str
    """data | parameter | package | code | command | stage"""
    name: str
    before: Any
    after: Any


def differences_of(stage: str, before: Lock, after: Lock, made: Mapping[str, str]) -> Iterator[Cause]:
    """What differs in what one stage read, but for what other stages made."""
    if stage not in before or stage not in after:
        yield Cause(stage, "stage", stage, stage in before, stage in after)
        return
    one, other = before[stage], after[stage]
    if one["cmd"] != other["cmd"]:
        yield Cause(stage, "command", stage, one["cmd"], other["cmd"])
    files = [{dep["path"]: dep.get("md5") for dep in lock.get("deps", ())} for lock in (one, other)]
    for path in sorted(files[0].keys() | files[1].keys()):
        if maker_of(path, made) is None and files[0].get(path) != files[1].get(path):
            kind = "data" if path.startswith("data/raw") else "code"
            yield Cause(stage, kind, path, files[0].get(path), files[1].get(path))
    for file in sorted(one.get("params", {}).keys() | other.get("params", {}).keys()):
        read = packages if file == "pyproject.toml" else flatten
        leaves = [dict(read(lock.get("params", {}).get(file, {}))) for lock in (one, other)]
        for key in sorted(leaves[0].keys() | leaves[1].keys()):
            values = [side.get(key) for side in leaves]
            if values[0] != values[1]:
                yield Cause(stage, "package" if read is packages else "parameter", key, *values)


def roots_before(stage: str, before: Lock, after: Lock) -> list[Cause]:
    """Every root that differs for a stage or one that it reads from, named once, at the first that reads it."""
    made = makers(before) | makers(after)
    found: dict[tuple[str, str], Cause] = {}
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        for lock in (before, after):
            for dep in lock.get(name, {}).get("deps", ()):
                if maker := maker_of(dep["path"], made):
                    visit(maker)
        for cause in differences_of(name, before, after, made):
            found.setdefault((cause.kind, cause.name), cause)

    visit(stage)
    return list(found.values())
