"""The files of a source and what a table of them must have.

A source is a file, a glob of files (read in the order of their names), either also in an object store, or a data set of
the Hugging Face hub at a commit.
"""

import glob
import os
import re
from pathlib import Path

from stages.common.errors import InputError
from stages.common.formats import FIELDS
from stages.common.params import Source
from stages.common.stores import is_remote, list_files

TYPES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
FLAT = ("alpaca", "qa", "hh")  # records of the other formats may name their subjects turn by turn
FOLDER = Path("data/raw/sources")  # what dvc.yaml watches
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


def is_hub(source: Source) -> bool:
    return source.path.startswith("hub:")


def key_of(source: Source) -> str:
    return f"params.yaml, sources.{source.name}"


def type_of(path: str) -> tuple[str, str | None]:
    """File type and compression of a path by its endings. Raises InputError."""
    name = Path(path).name.lower()
    compression = COMPRESSIONS.get(Path(name).suffix)
    ending = Path(Path(name).stem).suffix if compression else Path(name).suffix
    if ending not in TYPES:
        raise InputError(f"{path}: the type is unknown; name it {', '.join(TYPES)}, or one of these + .gz, .bz2, .zst")
    if compression and ending == ".parquet":
        raise InputError(f"{path}: Parquet is compressed inside; unpack the file")
    return ending, compression


def known_fields(source: Source) -> list[str]:
    required, optional = FIELDS[source.format]
    return [field for name in required + optional for field in name.split("|")]


def columns_beside(source: Source) -> list[str]:
    """The columns of the file that no format knows: whose data a record is, and whether its subject agreed."""
    consent = source.consent_by_record
    return [column for column in (source.subject, consent.column if consent else None) if column]


def check_entry(source: Source) -> None:
    """Raises InputError where the entry of params.yaml contradicts itself; no file or store is looked at."""
    key = key_of(source)
    known = [] if source.format == "oasst" else known_fields(source)
    for field in source.columns:
        if field not in known:
            names = ", ".join(known) or "none, since they are nested"
            raise InputError(
                f"{key}.columns: '{field}' is not a field of format {source.format} that can be mapped ({names})"
            )
    if is_hub(source):
        if not re.fullmatch(r"[0-9a-f]{40}", source.revision or ""):
            raise InputError(f"{key}.revision: must be the data set's commit, 40 hex digits, got {source.revision!r}")
        if not source.split:
            raise InputError(f"{key}.split: missing; name the split to read, such as train")
        if source.digest:
            raise InputError(f"{key}.digest: a data set of the hub is pinned by its revision; take the digest out")
    elif is_remote(source.path):
        if not source.digest:
            raise InputError(
                f"{key}.digest: missing; no one sees a remote file change, so its digest is pinned: put `unknown` to "
                "have it printed once"
            )
    elif Path(source.path).is_absolute():
        raise InputError(f"{key}.path: must be relative to the repository's root, so that it is the same everywhere")


def check_place(source: Source) -> None:
    """Raises InputError where the source is of this disk, and `dvc repro` would not see it change."""
    on_disk = not is_hub(source) and not is_remote(source.path)
    if on_disk and FOLDER not in Path(os.path.normpath(source.path)).parents:
        raise InputError(
            f"{key_of(source)}.path: {source.path} is not below {FOLDER}: `dvc repro` would not see it change; move it "
            "there, or give its address (file:///...) with a digest"
        )


def check_source(source: Source) -> list[str]:
    """The files of a source, sorted (of a hub data set: its path). Raises InputError; no record is read."""
    check_entry(source)
    if is_hub(source):
        return [source.path]
    key = f"{key_of(source)}.path"
    if is_remote(source.path):
        files = list_files(source.path, key)
    else:
        found = [source.path] if os.path.exists(source.path) else glob.glob(source.path, recursive=True)
        # by links a file has several names, with a link to a folder around it dozens: it is read once, by the highest
        ordered = sorted(filter(os.path.isfile, found), key=lambda path: (path.count(os.sep), path), reverse=True)
        named = {os.path.realpath(path): path for path in ordered}
        files = sorted(Path(path).as_posix() for path in named.values())
    if not files:
        raise InputError(f"{key}: no file {source.path}; put it there, or mend the path")
    for path in files:
        type_of(path)
    return files


def used_columns(source: Source, names: list[str]) -> list[str]:
    """The columns among `names` that the format can read: the others of a wide table are not decoded."""
    if source.format == "oasst":
        return names
    used = {*known_fields(source), *source.columns.values(), *columns_beside(source)}
    return [name for name in names if name in used]


def check_header(names: list[str], source: Source, path: str) -> None:
    """Raises InputError where a table lacks a column that every record needs, or has one twice."""
    twice = [name for name in used_columns(source, sorted(set(names))) if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: the column {', '.join(twice)} stands twice; give each its own name")
    needed = [[source.columns.get(field, field) for field in name.split("|")] for name in FIELDS[source.format][0]]
    beside = [column for column in columns_beside(source) if column != source.subject or source.format in FLAT]
    needed += [[column] for column in (*source.columns.values(), *beside)]
    missing = [" or ".join(columns) for columns in needed if not set(columns) & set(names)]
    if missing:
        # Without a header line the first record stands here, and what it holds must not be shown: only names that a
        # format or params.yaml knows are.
        fields = (name for required, optional in FIELDS.values() for name in (*required, *optional))
        known = {part for field in fields for part in field.split("|")}
        known |= {*source.columns.values(), *columns_beside(source)}
        shown = [name for name in names if name in known]
        others = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
        raise InputError(
            f"{path}: no column {', '.join(dict.fromkeys(missing))}; it has {', '.join(shown) or 'none'}{others}. "
            f"The first line names the columns; params.yaml, sources.{source.name}.columns maps a field to a column"
        )
