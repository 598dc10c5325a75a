"""What dvc.lock records of the run, hashed as DVC hashes: each output, the code that made it, the fixed inputs.

DVC writes the entry of a stage when the stage has ended, so that the card, the last one, finds all others there. It
states the digest of nothing that dvc.yaml does not make it depend on, or that no metric of it names: else the digest
could change and the card would stay.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import InputError

LOCK = Path("dvc.lock")
FOLDERS = ("data/", "models/")  # whose outputs the card names; plots and metrics it quotes
CODE = "stages/"
CODE_DIGITS = 16  # of the 64 of a digest


class Recorded(NamedTuple):
    """An output, or an input that no stage made, as dvc.lock has it."""

    path: str
    stage: str
    """That writes it; of an input the first that reads it."""
    md5: str
    size: int


def digest_file(path: Path) -> str:
    """md5, as DVC takes it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def digest_folder(files: Mapping[str, str]) -> str:
    """DVC's digest of a folder: md5 of the JSON list of its files, sorted by name."""
    entries = [{"md5": digest, "relpath": name} for name, digest in sorted(files.items())]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def digest_path(path: Path) -> str:
    """Digest of a file, or of a folder with all its files."""
    if path.is_file():
        return digest_file(path)
    files = (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return digest_folder({file.relative_to(path).as_posix(): digest_file(file) for file in files})


def read_lock() -> dict[str, dict[str, Any]]:
    """The stages of dvc.lock, but for the card itself. Raises InputError."""
    try:
        text = LOCK.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{LOCK}: is not here, so nothing tells what made the outputs; run `dvc repro`") from None
    try:  # the C parser where it is installed: a quarter of the time
        stages = YAML(typ="safe").load(text)["stages"]
        return {name: stage for name, stage in stages.items() if name != "card"}
    except (YAMLError, TypeError, KeyError, AttributeError) as error:
        told = f"cannot be read ({type(error).__name__})"
        raise InputError(f"{LOCK}: {told}; take it from git, then run `dvc repro`") from None


def list_outputs(lock: Mapping[str, Any]) -> dict[str, Recorded]:
    """Path → what dvc.lock says of it."""
    return {
        out["path"]: Recorded(out["path"], name, out["md5"], out.get("size", 0))
        for name, stage in lock.items()
        for out in stage.get("outs", ())
    }


def list_reads(lock: Mapping[str, Any]) -> Iterator[Recorded]:
    """Everything that a stage read, once for each stage."""
    for name, stage in lock.items():
        for dep in stage.get("deps", ()):
            yield Recorded(dep["path"], name, dep["md5"], dep.get("size", 0))


def code_digest(stage: Mapping[str, Any]) -> str:
    """Digest of the code that a stage ran: sha256 over the lines `<path> <md5>` of its files below stages/."""
    lines = [f"{dep['path']} {dep['md5']}\n" for dep in stage.get("deps", ()) if dep["path"].startswith(CODE)]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:CODE_DIGITS]


def describe_outputs(lock: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each table and model: the stage, its code, path, md5, size."""
    return [
        out._asdict() | {"code": code_digest(lock[out.stage])}
        for out in list_outputs(lock).values()
        if out.path.startswith(FOLDERS)
    ]


def describe_evaluation(lock: Mapping[str, Any]) -> list[Recorded]:
    """What all models were asked: the files of the tasks and the prompts."""
    return [read for read in list_reads(lock) if read.stage == "eval@base" and read.path.startswith("data/raw/")]
