"""Reading sources: pool beside what only loads a file, for time and memory.

    python bench/sources.py [--rows 100000] [--limit-gib 3 --large-gib 4]

Questions and answers of about 100 invented words each as zstd JSONL, as eight shards of it, and as Parquet; and medquad
(16,407 rows), where ../shared/data has it. `ours` is pool from the file to rows.parquet, with one worker process and
with two: each record checked, brought into the row schema, given its keyed row_id, repeats counted. Stock does
less: `datasets` is load_dataset (a copy as Arrow on disk), `polars` a lazy scan written to Parquet; both keep the
file's own columns, check no record, and stop at the first that is broken.

Each in a process of its own, one after the other, its start included. Prints seconds, records and MB (of the unpacked
text) a second, and the peak of the resident memory of all its processes together. With --limit-gib, pool then reads a
zstd JSONL of --large-gib (unpacked) with no more than the limit to map for each process (RLIMIT_AS). Writes to a
temporary folder.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa

ROOT = Path(__file__).parent.parent
MEDQUAD = ROOT / "../shared/data/medquad/medquad.jsonl"
SHARDS = 8
WORDS = 5000


def invent_lines(rows: int, seed: int) -> Iterator[bytes]:
    """JSON lines, all different; words from a vocabulary of invented ones."""
    import numpy as np

    generator = np.random.default_rng(seed)
    letters = generator.integers(97, 123, (WORDS, 9), np.uint8).tobytes().decode()
    words = [letters[9 * place : 9 * place + 3 + place % 7] for place in range(WORDS)]
    for start in range(0, rows, 1000):
        for number, picks in enumerate(generator.integers(0, WORDS, (1000, 100)).tolist(), start):
            if number < rows:
                texts = [words[pick] for pick in picks]
                record = {"question": " ".join(texts[:15]) + "?", "answer": " ".join(texts[15:]), "id": number}
                yield json.dumps(record).encode() + b"\n"


def write_jsonl(path: Path, rows: int, seed: int) -> int:
    """Bytes before compression."""
    size = 0
    with pa.output_stream(str(path), compression="zstd") as file:
        for line in invent_lines(rows, seed):
            file.write(line)
            size += len(line)
    return size


def pool_files(path: str, output: str, workers: int) -> int:
    import polars as pl

    from stages import pool
    from stages.common.engine import Engine
    from stages.common.params import Source
    from stages.common.rows import ROW_SCHEMA
    from stages.common.table_file import open_table

    source = Source(name="bench", path=path, format="qa", licence="MIT", consent="x", share=1.0)
    engine, tally = Engine(name="local", workers=workers, address=None), pool.Tally()
    with open_table(output, pl.Schema(ROW_SCHEMA)) as write:
        for rows, _, _ in pool.pool_source(source, b"pedigree", engine, tally):
            write(rows)
    return tally.rows


def load_with_datasets(path: str, output: str) -> int:
    import datasets

    kind = "parquet" if path.endswith(".parquet") else "json"
    return len(datasets.load_dataset(kind, data_files=path, split="train", cache_dir=output))


def scan_with_polars(path: str, output: str) -> int:
    import polars as pl

    scan = pl.scan_parquet(path) if path.endswith(".parquet") else pl.scan_ndjson(path)
    scan.sink_parquet(output, compression="zstd", compression_level=3)
    return pl.scan_parquet(output).select(pl.len()).collect().item()


def run_way(way: str, path: str) -> None:
    """In a process of its own: print the rows that came of it."""
    name, _, workers = way.partition(":")
    output = "out" if name == "datasets" else "out.parquet"
    match name:
        case "ours":
            rows = pool_files(path, output, int(workers))
        case "datasets":
            rows = load_with_datasets(path, output)
        case _:
            rows = scan_with_polars(path, output)
    print(rows)


def watch_memory(process: "subprocess.Popen[str]", peak: list[int]) -> None:
    """The resident bytes of a process and all below it, looked at 20 times a second; shared pages count each time."""
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            peak[0] = max(peak[0], sum(each.memory_info().rss for each in (parent, *parent.children(recursive=True))))
        time.sleep(0.05)


def cpu_seconds() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(way: str, path: str, folder: Path, limit: int | None = None) -> tuple[int, float, float, int]:
    """Rows, seconds, seconds of CPU, peak bytes."""
    command = [sys.executable, str(ROOT / "bench/sources.py"), "--way", way, path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

    def set_limit() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    start, cpu, peak = time.perf_counter(), cpu_seconds(), [0]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=set_limit,
    )  # fmt: skip
    watcher = threading.Thread(target=watch_memory, args=(process, peak))
    watcher.start()
    output, errors = process.communicate()
    watcher.join()
    if process.returncode:
        sys.exit(f"{way} {path}: {errors}")
    return int(output.split()[-1]), time.perf_counter() - start, cpu_seconds() - cpu, peak[0]


def compare(ways: list[str], title: str, path: str, size: int, folder: Path) -> None:
    took, wrote = {}, {}
    for way in ways:
        rows, seconds, cpu, peak = measure(way, path, folder)
        took[way] = seconds
        if way.startswith("ours"):
            wrote[way] = hashlib.sha256((folder / "out.parquet").read_bytes()).digest()
        speed = f"{rows / seconds:8,.0f} records/s {size / seconds / 1e6:6.1f} MB/s"
        print(
            f"{title:15} {way:9} {rows:9,} rows {seconds:6.1f} s, {cpu:5.1f} s of CPU {speed} {peak / 1e6:6,.0f} MB",
            flush=True,
        )
    same = "the same bytes" if wrote["ours:1"] == wrote["ours:2"] else "NOT the same bytes"
    print(f"{title:15} two processes: {took['ours:1'] / took['ours:2']:.2f} times as fast as one, {same}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--limit-gib", type=float)
    parser.add_argument("--large-gib", type=float, default=4)
    parser.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        run_way(*arguments.way)
        return
    ours = ["ours:1", "ours:2"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if MEDQUAD.is_file():
            (folder / "medquad.jsonl").symlink_to(MEDQUAD.resolve())
            compare([*ours, "datasets", "polars"], "medquad.jsonl", "medquad.jsonl", MEDQUAD.stat().st_size, folder)
        else:
            print("no ../shared/data/medquad: generated text alone")
        size = write_jsonl(folder / "rows.jsonl.zst", arguments.rows, seed=1)
        compare([*ours, "datasets", "polars"], "rows.jsonl.zst", "rows.jsonl.zst", size, folder)
        size = sum(
            write_jsonl(folder / f"part-{part}.jsonl.zst", arguments.rows // SHARDS, part) for part in range(SHARDS)
        )
        compare([*ours, "datasets", "polars"], f"{SHARDS} shards", "part-*.jsonl.zst", size, folder)
        import polars as pl

        pl.scan_ndjson(folder / "rows.jsonl.zst").sink_parquet(folder / "rows.parquet")
        compare([*ours, "datasets", "polars"], "rows.parquet", "rows.parquet", size, folder)
        if arguments.limit_gib:
            rows = int(arguments.large_gib * 2**30 / (size / arguments.rows))
            size = write_jsonl(folder / "large.jsonl.zst", rows, seed=2)
            rows, seconds, _, peak = measure(ours[1], "large.jsonl.zst", folder, int(arguments.limit_gib * 2**30))
            print(
                f"{size / 2**30:.1f} GiB under a limit of {arguments.limit_gib:g} GiB a process: {rows:,} rows, "
                f"{seconds:.0f} s, {peak / 1e6:,.0f} MB in all"
            )


if __name__ == "__main__":
    main()
