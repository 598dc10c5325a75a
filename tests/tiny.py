"""The pipeline on the recipe `tiny` in a repository of its own, for tests that need what it writes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pedigree.cli import main

ROOT = Path(__file__).parent.parent
DVC = [sys.executable, "-m", "dvc"]
LEFT_OUT = {".venv", ".git", ".dvc", ".pedigree", "models", "metrics", "reports", "dvc.lock"}


def call(folder: Path, *command: str) -> str:
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def copy_project(folder: Path) -> None:
    """What git tracks (or would track), as a git and DVC repository of its own, with the recipe `tiny`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for name in filter(None, listed):
        if Path(name).parts[0] not in LEFT_OUT and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copy2(ROOT / "recipes/default.yaml", folder / "params.yaml")
    call(folder, "git", "init", "-q")
    call(folder, *DVC, "init", "-q")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    call(folder, sys.executable, "-m", "pedigree", "recipe", "use", "tiny")
    call(folder, "git", "add", "-A")
    call(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "tiny")


def tell(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a pedigree command prints."""
    capsys.readouterr()
    main(arguments)
    return capsys.readouterr().out


def complain(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The errors with which a pedigree command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    return capsys.readouterr().err
