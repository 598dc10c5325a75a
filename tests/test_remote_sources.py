"""Sources that are not on this disk: object stores and web servers through fsspec, data sets of the hub."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

from stages import pool
from stages.common.errors import InputError
from stages.common.params import Source
from stages.common.records import read_entries
from stages.common.sources import check_source
from stages.common.stores import COPIES

ROOT = Path(__file__).parent.parent
COMMIT = "0123456789" * 4
QA = [{"question": f"Question {number}?", "answer": f"Answer {number}."} for number in range(6)]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_source(path: str, **rest: Any) -> Source:
    fields = {"name": "desk", "path": path, "format": "qa", "licence": "MIT", "consent": "public", "share": 1.0}
    return Source(**(fields | rest))


def write_shards(folder: Path) -> dict[str, bytes]:
    """Two shards, JSONL and Parquet, and a file that no glob of the tests names."""
    folder.mkdir(parents=True)
    (folder / "part-0.jsonl").write_text("".join(json.dumps(record) + "\n" for record in QA[:4]))
    pl.DataFrame(QA[4:]).write_parquet(folder / "part-1.parquet")
    (folder / "notes.txt").write_text("nothing")
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def digest_of(contents: dict[str, bytes]) -> str:
    lines = "".join(f"{path} {hashlib.sha256(content).hexdigest()}\n" for path, content in sorted(contents.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(params=["memory", "file", "http"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, bytes]]:
    """The address of a folder with shards, and their contents."""
    contents = write_shards(tmp_path / "web/shards")
    match request.param:
        case "memory":
            address = "memory:///bucket/shards"
            for name, content in contents.items():
                fsspec.filesystem("memory").pipe(f"/bucket/shards/{name}", content)
        case "file":
            address = f"file://{tmp_path}/web/shards"
        case _:
            address = f"{request.getfixturevalue('web')}/shards"
    return address, contents


def test_a_glob_in_a_store(store: tuple[str, dict[str, bytes]]) -> None:
    address, contents = store
    digest = digest_of({f"{address}/{name}": content for name, content in contents.items()})
    entries = list(read_entries(make_source(f"{address}/part-*", digest=digest)))
    assert [entry.value for _, entry in entries] == QA
    first, second = (f"{address}/part-{name}" for name in ("0.jsonl", "1.parquet"))
    assert [(path, entry.number) for path, entry in entries] == [
        *((first, number) for number in range(4)), (second, 0), (second, 1)
    ]  # fmt: skip
    assert not COPIES.exists()


def test_a_digest_is_printed_once_then_checked(store: tuple[str, dict[str, bytes]]) -> None:
    address, contents = store
    path = f"{address}/part-0.jsonl"
    digest = digest_of({path: contents["part-0.jsonl"]})
    with pytest.raises(InputError, match=rf"sources\.desk\.digest: unknown; these files are {digest}: put that in"):
        list(read_entries(make_source(path, digest="unknown")))
    assert len(list(read_entries(make_source(path, digest=digest)))) == 4
    with pytest.raises(InputError, match=f"but the files are {digest}; they have changed"):
        list(read_entries(make_source(path, digest="sha256:" + "0" * 64)))
    assert not COPIES.exists()


def test_a_file_of_this_disk_can_be_pinned_too() -> None:
    contents = write_shards(Path("data"))
    digest = digest_of({f"data/{name}": content for name, content in contents.items()})
    source = make_source("data/part-*", digest=digest)
    assert len(list(read_entries(source))) == 6
    Path("data/part-0.jsonl").write_text(json.dumps(QA[0]))
    with pytest.raises(InputError, match="they have changed"):
        list(read_entries(source))


@pytest.mark.parametrize("change", ["appended", "replaced", "gone"])
@pytest.mark.parametrize("digest", [None, "sha256:" + "0" * 64])
def test_a_file_that_changes_while_it_is_read(change: str, digest: str | None) -> None:
    write_shards(Path("data"))
    entries = read_entries(make_source("data/part-*", digest=digest))
    next(entries)
    match change:
        case "appended":
            with Path("data/part-0.jsonl").open("a") as file:
                file.write(json.dumps(QA[0]) + "\n")
        case "replaced":
            content = Path("data/part-0.jsonl").read_bytes()
            Path("data/new").write_bytes(content)
            Path("data/new").replace("data/part-0.jsonl")
        case "gone":
            Path("data/part-1.parquet").unlink()
    told = r"part-1\.parquet: cannot be read \(No such" if change == "gone" else r"part-0\.jsonl: was written to while"
    with pytest.raises(InputError, match=told):
        list(entries)


def test_changed_files_leave_no_table(tmp_path: Path) -> None:
    write_shards(tmp_path / "web")
    entry = {
        "name": "desk", "path": f"file://{tmp_path}/web/part-*", "format": "qa", "licence": "MIT", "consent": "public",
        "share": 1.0, "digest": "sha256:" + "0" * 64,
    }  # fmt: skip
    blocks = {
        "sources": [entry],
        "pool": {"subject_key": "public"},
        "engine": {"name": "local", "workers": 2, "address": None},
        "probes": {"duplicates": 0, "personal_data": 0, "leaks": 0, "seed": 1},
    }
    Path("params.yaml").write_text(json.dumps(blocks))
    with pytest.raises(InputError, match="they have changed"):
        pool.main()
    assert list(Path("data/pool").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "rest", "text"),
    [
        ("s3://bucket/a.jsonl", {}, "sources.desk.digest: missing; no one sees a remote file change"),
        ("hub:lab/toy", {"revision": COMMIT, "split": "train", "digest": "unknown"}, "is pinned by its revision"),
        ("s3://bucket/a.jsonl", {"digest": "unknown"}, "s3:// needs a package that is not installed (Install s3fs"),
        ("s4://bucket/a.jsonl", {"digest": "unknown"}, "s4:// is no protocol that fsspec opens by an address alone"),
        (
            "zip://a.jsonl::file:///x.zip",
            {"digest": "unknown"},
            "zip:// is no protocol that fsspec opens by an address",
        ),
        ("ftp://ann:secret@host/a.jsonl", {"digest": "unknown"}, "must hold no user, password or query"),
        ("s3://ann:secret@bucket/a.jsonl", {"digest": "unknown"}, "must hold no user, password or query"),
        ("https://ann:secret@host/a.jsonl", {"digest": "unknown"}, "must hold no user, password or query"),
        ("https://host/a.jsonl?token=secret", {"digest": "unknown"}, "must hold no user, password or query"),
        ("memory://nothing/a.jsonl", {"digest": "unknown"}, "no file memory://nothing/a.jsonl"),
        ("http://127.0.0.1:9/*.jsonl", {"digest": "unknown"}, "cannot be read (ClientConnectorError"),
    ],
)
def test_what_cannot_be_read(path: str, rest: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # not installed, wherever this runs
    with pytest.raises(InputError) as error:
        check_source(make_source(path, **rest))
    assert text in str(error.value)
    assert "secret" not in str(error.value)


def test_a_copy_that_finds_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "web")
    address = f"file://{tmp_path}/web/part-0.jsonl"

    def fill_disk(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fsspec.filesystem("file"), "get_file", fill_disk)
    with pytest.raises(InputError, match=r"sources\.desk\.path: no room on this disk for a copy of file://"):
        list(read_entries(make_source(address, digest="unknown")))


def test_a_file_that_vanishes_is_told(tmp_path: Path, web: str) -> None:
    contents = write_shards(tmp_path / "web")
    source = make_source(f"{web}/part-*", digest=digest_of(contents))
    entries = read_entries(source)
    next(entries)
    (tmp_path / "web/part-1.parquet").unlink()
    with pytest.raises(InputError, match=r"part-1.parquet cannot be read \(FileNotFoundError"):
        list(entries)


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's HTTP that reading a data set needs."""

    folder: Path

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def list_files(self, names: list[str]) -> bytes:
        sizes = [(name, (self.folder / name).stat().st_size) for name in names]
        return json.dumps(
            [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes]
        ).encode()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(200, b"[]", Content_Type="application/json")

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        names = sorted(file.name for file in self.folder.iterdir())
        name = path.rpartition("/")[2]
        if path == f"/api/datasets/lab/toy/revision/{COMMIT}":
            body = {"id": "lab/toy", "sha": COMMIT, "tags": [], "siblings": [{"rfilename": each} for each in names]}
            self.answer(200, json.dumps(body).encode(), Content_Type="application/json")
        elif path == f"/api/datasets/lab/toy/tree/{COMMIT}":
            self.answer(200, self.list_files(names), Content_Type="application/json")
        elif path.startswith(f"/datasets/lab/toy/resolve/{COMMIT}/") and name in names:
            content = (self.folder / name).read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.answer(200, content, ETag=etag, X_Repo_Commit=COMMIT)
        else:
            missing = "EntryNotFound" if COMMIT in path else "RevisionNotFound"
            self.answer(404, b'{"error": "not found"}', X_Error_Code=missing)


READ = """
import sys, json
from stages.common.stage import say
from stages.common.records import read_entries
from stages.common.errors import InputError
from stages.common.params import Source

for revision, split in json.loads(sys.argv[1]):
    source = Source(name="desk", path="hub:lab/toy", format="qa", licence="MIT", consent="public", share=1.0,
                    revision=revision, split=split)
    try:
        print(json.dumps([[path, *entry] for path, entry in read_entries(source)]))
    except InputError as error:
        print(json.dumps(str(error)))
"""


def test_hub_data_set(tmp_path: Path) -> None:
    """The real library against a local server: its files in order, the columns that count, and two mistakes."""
    (tmp_path / "hub").mkdir()
    for number in range(2):
        rows = pl.DataFrame(QA[3 * number : 3 * number + 3]).with_columns(other=pl.lit(1))
        rows.write_parquet(tmp_path / f"hub/train-{number:05d}-of-00002.parquet")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ToyHub", (Hub,), {"folder": tmp_path / "hub"}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}", "HF_HOME": str(tmp_path / "hf"),
        "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    cases = json.dumps([(COMMIT, "train"), ("f" * 40, "train"), (COMMIT, "test")])
    command = [sys.executable, "-c", READ, cases]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    entries, no_revision, no_split = map(json.loads, done.stdout.splitlines())
    assert entries == [["hub:lab/toy", number, record] for number, record in enumerate(QA)]
    for told in (no_revision, no_split):
        assert told.startswith("params.yaml, sources.desk: hub:lab/toy at ")
        assert "check the network, the name, the split and the configuration" in told
    assert "Traceback" not in done.stderr
