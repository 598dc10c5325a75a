"""Run a stage again in a clean copy and say how near its outputs come to the recorded ones: reports/certificates/.

Data must come out equal to the byte, wherever it is made. Weights, losses and scores are equal on the same kind of
processor with the same number of threads; elsewhere the order of additions differs, and the tolerances below decide.
"""

import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pedigree.lockfile import Lock, flatten
from stages.common.errors import InputError
from stages.common.files import write_json

FOLDER = Path("reports/certificates")
WEIGHTS = 0.05  # root mean square of the difference, as a share of that of the weights
NUMBERS = 0.05  # relative difference of a loss or score
EXACT = ("pool", "dedup", "scrub", "decontaminate", "mix")
NAMES_BYTES = ("digest",)  # metrics that name bytes: the weights themselves are compared


class Nearness(NamedTuple):
    """How an output of the rerun compares with the recorded one."""

    path: str
    verdict: str
    """equal | within tolerance | differs | missing"""
    largest: float
    """The largest difference in the measure of its kind; 0 where the bytes are equal."""


def rerun(stage: str, lock: Lock) -> list[Nearness]:
    """Run one stage on its recorded inputs in a copy of its own. Raises InputError where it does not end well."""
    Path(".pedigree").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rerun-", dir=".pedigree") as place:
        copy = Path(place)
        shutil.copytree("stages", copy / "stages", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("params.yaml", "pyproject.toml", "dvc.yaml", "dvc.lock"):
            shutil.copy2(name, copy / name)
        for dep in lock[stage].get("deps", ()):
            put(Path(dep["path"]), copy)
        environment = {key: value for key, value in os.environ.items() if key not in ("DVC_STAGE", "PYTHONPATH")}
        environment["VIRTUAL_ENV"] = sys.prefix  # where stages/run finds Python, if no .venv lies above the copy
        done = subprocess.run(lock[stage]["cmd"].split(), cwd=copy, env=environment, check=False)
        if done.returncode:
            raise InputError(f"{stage}: its rerun ended with exit code {done.returncode}; the lines above say why")
        outs = [Path(out["path"]) for out in lock[stage].get("outs", ())]
        return [compare(file, copy / file, stage) for out in outs for file in files_of(out, copy)]


def put(path: Path, copy: Path) -> None:
    """Copy an input to the same place of the copy."""
    target = copy / path
    if target.exists():
        return
    if not path.exists():
        raise InputError(f"{path}: is not here, so the stage cannot run again; `dvc pull` or `dvc checkout` brings it")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target)
    else:
        shutil.copy2(path, target)


def files_of(out: Path, copy: Path) -> list[Path]:
    """The files of an output, here or in the copy."""
    if out.is_file() or (copy / out).is_file():
        return [out]
    found = {file.relative_to(root) for root in (Path(), copy) for file in (root / out).rglob("*") if file.is_file()}
    return sorted(found)


def compare(here: Path, again: Path, stage: str) -> Nearness:
    name = here.as_posix()
    if not here.is_file() or not again.is_file():
        return Nearness(name, "missing", float("inf"))
    if here.read_bytes() == again.read_bytes():
        return Nearness(name, "equal", 0.0)
    if stage in EXACT:
        return Nearness(name, "differs", float("inf"))
    measure, tolerance = MEASURES.get(here.suffix, (lambda *_: float("inf"), 0.0))
    largest = measure(here, again)
    return Nearness(name, "within tolerance" if largest <= tolerance else "differs", largest)


def measure_weights(here: Path, again: Path) -> float:
    """The largest of all tensors' root mean square difference, relative to that of the tensor."""
    from safetensors.torch import load_file

    one, other = load_file(here), load_file(again)
    if one.keys() != other.keys() or any(one[name].shape != other[name].shape for name in one):
        return float("inf")
    shares = [
        ((one[name].double() - other[name].double()).pow(2).mean() / one[name].double().pow(2).mean().clamp(min=1e-30))
        for name in one
    ]
    largest = max(map(float, shares), default=0.0)
    return largest**0.5 if all(map(math.isfinite, map(float, shares))) else float("inf")


def measure_json(here: Path, again: Path) -> float:
    one, other = (dict(flatten(json.loads(path.read_text()))) for path in (here, again))
    return largest_difference(one, other)


def measure_table(here: Path, again: Path) -> float:
    one, other = (
        pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path) for path in (here, again)
    )  # fmt: skip
    if one.schema != other.schema or one.height != other.height:
        return float("inf")
    cells = [{f"{column} {row}": value for column in table.columns for row, value in enumerate(table[column].to_list())}
             for table in (one, other)]  # fmt: skip
    return largest_difference(*cells)


def largest_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest relative difference of two sets of numbers; infinite where anything else differs."""
    if one.keys() != other.keys():
        return float("inf")
    largest = 0.0
    for key, value in one.items():
        if value == other[key] or key.rpartition(".")[2] in NAMES_BYTES:
            continue
        pair = [value, other[key]]
        if not all(
            isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in pair
        ):
            return float("inf")
        largest = max(largest, abs(value - other[key]) / max(abs(value), abs(other[key])))
    return largest


MEASURES = {
    ".safetensors": (measure_weights, WEIGHTS),
    ".json": (measure_json, NUMBERS),
    ".csv": (measure_table, NUMBERS),
    ".parquet": (measure_table, NUMBERS),
}


def write_certificate(stage: str, lock: Lock, found: list[Nearness]) -> Path:
    """What was run again, where, on what, and how near it came; no time and no name of a machine."""
    from importlib import metadata

    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    packages = ("polars", "torch", "transformers", "trl", "peft")
    certificate = {
        "stage": stage,
        "commit": commit,
        "inputs": {dep["path"]: dep["md5"] for dep in lock[stage].get("deps", ())},
        "processor": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "tolerances": {"data": 0, "weights_rms_share": WEIGHTS, "numbers_relative": NUMBERS},
        "outputs": {
            each.path: {"verdict": each.verdict, "largest": each.largest if math.isfinite(each.largest) else None}
            for each in found
        },
    }
    path = FOLDER / f"{stage.replace('@', '_')}.json"
    write_json(path, certificate)
    return path
