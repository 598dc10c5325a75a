"""What was found in a text, remembered from one run to the next.    .pedigree/cache/scrub/FINGERPRINT.sqlite

An entry is the HMAC-SHA256 of a text → its findings (start, end, entity, score): no value and no text, and without the
key no text can be tried against it. The key is drawn at random on each machine and lies beside the cache, readable for
its owner alone. The fingerprint is that of all that decides what is found: parameters, code, lists, packages. Other
fingerprints' files are deleted. A file that cannot be read is deleted and begun anew. Failures are not remembered.
"""

import hashlib
import hmac
import importlib.metadata
import json
import os
import sqlite3
import sys
from pathlib import Path

from stages.common.files import digest_text
from stages.pii import Finding
from stages.pii.analyser import Analyser
from stages.pii.params import Scrub

FOLDER = Path(".pedigree/cache/scrub")
PACKAGES = ("phonenumbers", "presidio-analyzer", "python-crfsuite", "regex", "spacy", "tldextract")
MOST_BYTES = 2**28  # of a cache file; beyond, nothing more is written
DIGEST_BYTES = 16  # of the HMAC: two of 10^9 texts are alike with a probability of 10^-21
SHORTEST_TEXT = 32  # characters; shorter texts are searched as fast as they are looked up
WAIT_SECONDS = 30  # for another process that writes


def fingerprint_of(params: Scrub) -> str | None:
    """Of all that decides what is found; None where it cannot be told, since a model lies elsewhere."""
    if params.names.partition(":")[2]:
        return None
    parts = [json.dumps([params.language, sorted(params.entities), params.locales, params.threshold, params.names])]
    parts.append(sys.version)
    parts += [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    for file in sorted(Path(__file__).parent.rglob("*")):
        if file.is_file() and file.suffix not in (".pyc", ".part"):
            name = file.relative_to(Path(__file__).parent).as_posix()
            parts.append(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    return digest_text("\n".join(parts), 16)


def read_local_key(folder: Path) -> bytes:
    """This machine's key, drawn on the first use."""
    path = folder / "key"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = folder / f".key.{os.getpid()}"
    if not path.exists() or path.stat().st_size != 32:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(os.urandom(32))
        try:
            if path.exists():
                temporary.replace(path)  # a broken one
            else:
                os.link(temporary, path)  # the first of several processes wins
        except FileExistsError:
            pass
        temporary.unlink(missing_ok=True)
    return path.read_bytes()


class Cache:
    """The findings of an analyser, remembered; `save` keeps those of the texts since the last one.

    Raises OSError or sqlite3.Error where there can be none; later faults of its file only cost time.
    """

    def __init__(self, analyser: Analyser, fingerprint: str, folder: Path = FOLDER) -> None:
        self.not_covered = analyser.not_covered
        self.analyser, self.path = analyser, folder / f"{fingerprint}.sqlite"
        self.key = read_local_key(folder)
        self.fresh: dict[bytes, str] = {}
        for old in folder.glob("*.sqlite*"):
            if not old.name.startswith(fingerprint):
                old.unlink(missing_ok=True)
        self.connection: sqlite3.Connection | None = self.open()

    def open(self) -> sqlite3.Connection:
        for attempt in range(2):
            # one thread at a time, but with Ray not always the one that opened it
            connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, check_same_thread=False)
            try:
                connection.execute("CREATE TABLE IF NOT EXISTS found (text BLOB PRIMARY KEY, spans TEXT) WITHOUT ROWID")
                connection.execute("SELECT count(*) FROM (SELECT text FROM found LIMIT 1)").fetchone()
                return connection
            except sqlite3.DatabaseError as error:
                connection.close()
                if attempt or isinstance(error, sqlite3.OperationalError):  # locked or read-only is not broken
                    raise
                self.path.unlink(missing_ok=True)
        raise AssertionError

    def find(self, text: str) -> list[Finding]:
        """As Analyser.find."""
        if len(text) < SHORTEST_TEXT:
            return self.analyser.find(text)
        digest = hmac.digest(self.key, text.encode("utf-8", "surrogatepass"), "sha256")[:DIGEST_BYTES]
        known = self.fresh.get(digest) or self.look_up(digest)
        try:
            if known is not None:
                return [Finding(*item) for item in json.loads(known)]
        except (ValueError, TypeError):
            pass  # a broken entry is none
        found = self.analyser.find(text)
        self.fresh[digest] = json.dumps(found)
        return found

    def look_up(self, digest: bytes) -> str | None:
        if self.connection is None:
            return None
        try:
            row = self.connection.execute("SELECT spans FROM found WHERE text = ?", (digest,)).fetchone()
        except sqlite3.OperationalError:  # locked for long
            return None
        except sqlite3.DatabaseError:  # broken further on
            self.begin_anew()
            return None
        return row[0] if row else None

    def begin_anew(self) -> None:
        """In the place of a broken file; without one where that fails."""
        if self.connection:
            self.connection.close()
        try:
            self.path.unlink(missing_ok=True)
            self.connection = self.open()
        except (OSError, sqlite3.Error):
            self.connection = None

    def save(self) -> None:
        """Write what is new. What cannot be written is forgotten: the cache only saves time."""
        try:
            if self.connection and self.fresh and self.path.stat().st_size < MOST_BYTES:
                with self.connection:
                    self.connection.executemany(
                        "INSERT OR REPLACE INTO found VALUES (?, ?)", sorted(self.fresh.items())
                    )
        except (OSError, sqlite3.OperationalError):  # the file is gone, locked for long, read-only; no space
            pass
        except sqlite3.DatabaseError:
            self.begin_anew()
        self.fresh.clear()
