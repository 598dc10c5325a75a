"""Write files so that a reader sees all of one or nothing, and the same input gives the same bytes."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.errors import InputError


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write to a temporary name beside `path`, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: could not be written ({error.strerror}); free some space, then run again") from None


def write_text(path: Path | str, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Indented JSON with the keys in the order given; floats to 6 significant digits, so that diffs are readable."""
    write_text(path, json.dumps(_rounded(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_table(path: Path | str, table: pl.DataFrame) -> None:
    """Parquet, zstd, no statistics of time or machine."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        table.write_parquet(temporary, compression="zstd", compression_level=3)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: could not be written ({error.strerror}); free some space, then run again") from None


def write_csv(path: Path | str, table: pl.DataFrame) -> None:
    """CSV for `dvc plots`; floats to 6 significant digits."""
    write_text(path, table.with_columns(pl.selectors.float().round_sig_figs(6)).write_csv())


def digest_text(text: str, length: int = 64) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def digest_files(files: Iterable[Path]) -> str:
    """sha256 over the sorted lines `<name> <sha256>` of the files: one digest for a folder."""
    lines = []
    for file in sorted(files, key=lambda file: file.name):
        with file.open("rb") as handle:
            lines.append(f"{file.name} {hashlib.file_digest(handle, 'sha256').hexdigest()}\n")
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
