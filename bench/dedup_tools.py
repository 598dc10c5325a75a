"""The other tools of bench/dedup.py, each as its own documentation shows it: one measurement, JSON on stdout.

    PYTHON bench/dedup_tools.py TOOL FILE      one object with "text" a line

Runs in the interpreter that has the tool, so it imports nothing but the standard library and that tool. All make 5-word
shingles and 128 hashes in 16 bands of 8 rows; none verifies a candidate. What each does inside the clock:

- datasketch, rensa: a signature and a query for each text, one core, texts in memory.
- Daft: signatures, bands and edges as data frames, texts in memory; the components of the edges by scipy, which is less
  work than the joins of its tutorial.
- text-dedup: its command, called in the process, on two processes; it insists on files, so reading the JSON lines and
  writing the kept rows count.
- datatrove: its four steps on two workers; it insists on files, so reading two shards of JSON lines (twice) and writing
  the kept rows count. Workers are forked, which starts faster than its own choice.
"""

import contextlib
import ctypes
import gc
import importlib.metadata
import json
import os
import re
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NGRAM, HASHES, BANDS, CORES = 5, 128, 16, 2
SETTLED = 3
"""Seconds for allocators to give back what reading left: it was 0.6 KB a row, which the work would seem not to need."""


class Clock:
    """Seconds, seconds of all cores and peak bytes of what runs inside, worker processes too."""

    def __enter__(self) -> "Clock":
        gc.collect()
        with contextlib.suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
        time.sleep(SETTLED)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counter starts anew
        self.before = self.peak = read_bytes("self/status", "VmRSS")
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch_workers)
        self.watcher.start()
        self.start, self.cpu_start = time.perf_counter(), sum(os.times()[:4])
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self.start, sum(os.times()[:4]) - self.cpu_start
        self.ended.set()
        self.watcher.join()
        self.bytes = max(self.peak, read_bytes("self/status", "VmHWM")) - self.before

    def watch_workers(self) -> None:
        """20 times a second; a page that processes share counts once (Pss)."""
        while not self.ended.wait(0.05):
            if workers := find_workers(os.getpid()):
                with contextlib.suppress(OSError):  # a worker that has just ended
                    shares = [read_bytes(f"{process}/smaps_rollup", "Pss") for process in [os.getpid(), *workers]]
                    self.peak = max(self.peak, sum(shares))

    def result(self, found: Sequence[int]) -> str:
        return json.dumps({"seconds": self.seconds, "cpu": self.cpu, "bytes": self.bytes, "found": list(found)})


def read_bytes(file: str, field: str) -> int:
    return int(re.search(rf"^{field}:\s+(\d+)", Path("/proc", file).read_text(), re.MULTILINE)[1]) * 1024  # type: ignore[index]


def find_workers(process: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for listed in Path(f"/proc/{process}/task").glob("*/children"):
            for child in map(int, listed.read_text().split()):
                found += [child, *find_workers(child)]
    return found


def shingles(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[start : start + NGRAM]) for start in range(max(1, len(words) - NGRAM + 1))]


def first_of_each(groups: Sequence[Any]) -> list[int]:
    """Group of each row → the first row of its group."""
    first: dict[Any, int] = {}
    return [first.setdefault(group, row) for row, group in enumerate(groups)]


def run_datasketch(texts: list[str], folder: Path) -> tuple[Clock, list[int]]:
    from datasketch import MinHash, MinHashLSH

    found = []
    with Clock() as clock:
        index = MinHashLSH(num_perm=HASHES, params=(BANDS, HASHES // BANDS))
        for row, text in enumerate(texts):
            sketch = MinHash(num_perm=HASHES, scheme="affine32")
            sketch.update_batch([shingle.encode() for shingle in shingles(text)])
            found.append(min(index.query(sketch), default=row))
            index.insert(row, sketch)
    return clock, found


def run_rensa(texts: list[str], folder: Path) -> tuple[Clock, list[int]]:
    from rensa import RMinHash, RMinHashLSH

    found = []
    with Clock() as clock:
        index = RMinHashLSH(threshold=0.7, num_perm=HASHES, num_bands=BANDS)
        for row, text in enumerate(texts):
            sketch = RMinHash(num_perm=HASHES, seed=1)
            sketch.update(shingles(text))
            found.append(min(index.query(sketch), default=row))
            index.insert(row, sketch)
    return clock, found


def run_daft(texts: list[str], folder: Path) -> tuple[Clock, list[int]]:
    import daft
    import numpy as np
    from daft import col
    from daft.functions import minhash, normalize
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    @daft.func
    def number_bands(bands: list[list[int]]) -> list[int]:
        return list(range(len(bands)))

    table = daft.from_pydict({"node": list(range(len(texts))), "text": texts})
    with Clock() as clock:
        clean = normalize(col("text"), remove_punct=True, lowercase=True, nfd_unicode=True, white_space=True)
        hashes = minhash(clean, num_hashes=HASHES, ngram_size=NGRAM, seed=1, hash_function="xxhash")
        bands = table.select("node", bands=hashes.chunk(HASHES // BANDS))
        bands = bands.with_column("band", number_bands(col("bands"))).explode("bands", "band")
        groups = bands.groupby("band", "bands").agg(col("node").list_agg().alias("nodes"))
        edges = groups.with_column("first", col("nodes").list_min()).explode("nodes")
        edges = edges.where(col("first") != col("nodes")).select("first", "nodes").distinct().to_pydict()
        ends = np.array(edges["first"], np.int64), np.array(edges["nodes"], np.int64)
        graph = coo_array((np.ones(len(ends[0]), np.bool_), ends), shape=(len(texts), len(texts)))
        found = first_of_each(connected_components(graph, directed=False)[1].tolist())
    return clock, found


def run_text_dedup(texts: list[str], folder: Path) -> tuple[Clock, list[int]]:
    from text_dedup import minhash

    write_shards(texts, folder / "in", 1)
    given = {
        "path": "json", "data_files": folder / "in/0.jsonl", "split": "train", "cache_dir": folder / "cache",
        "output": folder / "out", "column": "text", "ngram": NGRAM, "min_length": 1, "num_perm": HASHES, "b": BANDS,
        "r": HASHES // BANDS, "num_proc": CORES, "batch_size": 10_000,
    }  # fmt: skip
    with Clock() as clock:
        minhash.main(
            [str(part) for name, value in given.items() for part in (f"--{name}", value)], standalone_mode=False
        )
    return clock, first_of_each([minhash.uf.find(row) for row in range(len(texts))])


def run_datatrove(texts: list[str], folder: Path) -> tuple[Clock, list[int]]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    sizes = write_shards(texts, folder / "in", CORES)
    given, signatures, buckets, clusters, kept = (str(folder / name) for name in ("in", "sig", "dup", "remove", "out"))
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=HASHES // BANDS)
    steps: list[tuple[int, list[Any]]] = [
        (CORES, [JsonlReader(given), MinhashDedupSignature(signatures, config)]),
        (BANDS, [MinhashDedupBuckets(signatures, buckets, config=config)]),
        (1, [MinhashDedupCluster(buckets, clusters, config=config, save_cluster_id=True)]),
        (CORES, [JsonlReader(given), MinhashDedupFilter(clusters), JsonlWriter(kept)]),
    ]
    with Clock() as clock:
        for number, (tasks, pipeline) in enumerate(steps):
            logs = str(folder / f"logs{number}")
            LocalPipelineExecutor(pipeline, tasks, CORES, logging_dir=logs, start_method="fork").run()
    groups: list[int] = list(range(-1, -1 - len(texts), -1))
    removed = set()
    for shard in range(CORES):
        start = sum(sizes[:shard])
        for name, form in (("clusters", "<2I"), ("remove", "<I")):
            file = Path(clusters, f"{shard:06}.{name}")
            for place, *cluster in struct.iter_unpack(form, file.read_bytes() if file.exists() else b""):
                if cluster:
                    groups[start + place] = cluster[0]
                else:
                    removed.add(start + place)
    kept_of = {group: row for row, group in enumerate(groups) if row not in removed}
    return clock, [kept_of[group] for group in groups]


def write_shards(texts: list[str], folder: Path, count: int) -> list[int]:
    """Rows of each shard."""
    folder.mkdir(parents=True)
    size = -(-len(texts) // count)
    parts = [texts[start : start + size] for start in range(0, len(texts), size)]
    for number, part in enumerate(parts):
        with (folder / f"{number}.jsonl").open("w") as file:
            file.writelines(json.dumps({"id": str(row), "text": text}) + "\n" for row, text in enumerate(part))
    return [len(part) for part in parts]


TOOLS: dict[str, tuple[str, Callable[[list[str], Path], tuple[Clock, list[int]]]]] = {
    "datasketch": ("datasketch", run_datasketch),
    "rensa": ("rensa", run_rensa),
    "daft": ("daft", run_daft),
    "text-dedup": ("text_dedup", run_text_dedup),
    "datatrove": ("datatrove", run_datatrove),
}
"""Package → what is imported, what is measured."""


def main(tool: str, file: Path) -> None:
    texts = [json.loads(line)["text"] for line in file.open()]
    run = TOOLS[tool][1]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        run(texts[:500], Path(folder, "first"))  # imports and first calls do not count
        clock, found = run(texts, Path(folder, "all"))
    print(clock.result(found))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--version", tool]:
            __import__(TOOLS[tool][0])
            print(importlib.metadata.version(tool))
        case [tool, file]:
            main(tool, Path(file))
        case _:
            sys.exit(__doc__)
