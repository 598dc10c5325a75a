"""Files of an object store or a web server, through fsspec: listed, copied one at a time, pinned by a digest.

A file is copied to this disk before it is read: Parquet is read from its end, and no connection waits while records are
parsed. Credentials come from the store's own environment variables and configuration files, never from params.yaml.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.errors import InputError
from stages.common.stage import is_disk_full

COPIES = Path(".pedigree/sources")
WEB = ("http", "https")


def is_remote(path: str) -> bool:
    return "://" in path


def open_store(path: str, key: str) -> Any:
    """The fsspec file system of an address. Raises InputError where its package is missing."""
    import fsspec

    protocol, _, rest = path.partition("://")
    user = rest.partition("/")[0].rpartition("@")[0]  # before it in abfs://CONTAINER@ACCOUNT/ no secret stands
    if ":" in user or (protocol in WEB and (user or "?" in rest)):
        raise InputError(
            f"{key}: an address must hold no user, password or query, because it stands beside every row; put them "
            "where the store's package looks for them, or download the file and give its path"
        )
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        raise InputError(f"{key}: {protocol}:// needs a package that is not installed ({error})") from None
    except Exception:  # TypeError and others of those that need more than an address: ftp, zip, git
        raise InputError(
            f"{key}: {protocol}:// is no protocol that fsspec opens by an address alone; s3, gs, https and file are "
            "some; else download the file and give its path"
        ) from None


@contextmanager
def told_plainly(path: str, key: str) -> Iterator[None]:
    """Each store raises exceptions of its own for a missing file, a wrong credential, a lost network."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise InputError(
                f"{key}: no room on this disk for a copy of {path}; free some space, then run again"
            ) from None
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{key}: {path} cannot be read ({type(error).__name__}: {reason}); check the address, the credentials and "
            "the network"
        ) from None


def list_files(path: str, key: str) -> list[str]:
    """The addresses that a path or glob names, sorted."""
    store = open_store(path, key)
    with told_plainly(path, key):
        if not any(sign in path for sign in "*?["):
            return [path] if store.isfile(path) else []
        found = store.glob(path, detail=True)  # with what the listing says, or each file would be asked for
        return sorted(store.unstrip_protocol(name) for name, about in found.items() if about["type"] == "file")


@contextmanager
def local_copy(path: str, key: str) -> Iterator[str]:
    """A path of this disk with the content of `path`; the copy of a remote file is deleted in the end."""
    if not is_remote(path):
        yield path
        return
    shutil.rmtree(COPIES, ignore_errors=True)  # what a killed run left
    COPIES.mkdir(parents=True)
    copy = COPIES / Path(path).name
    try:
        with told_plainly(path, key):
            open_store(path, key).get_file(path, str(copy))
        yield str(copy)
    finally:
        shutil.rmtree(COPIES, ignore_errors=True)


@contextmanager
def at_rest(path: str, local: str) -> Iterator[None]:
    """Raises InputError where the file of this disk is not there, or in the end no longer the same."""
    before = stamp(path, local)
    yield
    if stamp(path, local) != before:
        raise InputError(f"{path}: was written to while it was read; wait until it is complete, then run again")


def stamp(path: str, local: str) -> tuple[int, int, int, int]:
    """What changes when a file is written to or replaced."""
    try:
        status = os.stat(local)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); put it there again") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def digest_content(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(expected: str, contents: dict[str, str], key: str) -> None:
    """`contents` maps each file to the sha256 of its content; the digest is the sha256 of the lines `<file> <sha256>`.

    Raises InputError where it is another one than in params.yaml.
    """
    lines = "".join(f"{path} {content}\n" for path, content in sorted(contents.items()))
    found = "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    if expected == "unknown":
        raise InputError(f"{key}.digest: unknown; these files are {found}: put that in, if you trust them")
    if found != expected:
        raise InputError(
            f"{key}.digest: {expected}, but the files are {found}; they have changed: bring the old ones back, or put "
            "the new digest in, which reruns what depends on them"
        )
