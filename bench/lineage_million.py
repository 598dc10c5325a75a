"""`pedigree trace` over a generated run of a million rows: seconds and peak memory of each way to name rows.

    python bench/lineage_million.py [--rows 1000000] [--folder DIR] [--json]

The run: a pool of three sources with questions and answers of 60 invented words each, 100,000 subjects; a twentieth
dropped by dedup, a tenth changed by scrub, a hundredth dropped by decontaminate, half of the rest trained on. Each
command is a process of its own, its start included: first with the files out of the page cache (posix_fadvise), then
three times more, of which the median is shown. Bytes are the peak of its resident memory.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.common.files import write_table
from stages.common.ledger import ledger_lines
from stages.common.records import digest_subject
from stages.common.rows import ROW_SCHEMA

ROOT = Path(__file__).parent.parent
SOURCES = ("desk", "forum", "leaflets")
VOCABULARY, ASKED, ANSWERED = 20_000, 12, 48  # words
SUBJECTS = 100_000
ROUNDS = 3


def invent_texts(generator: np.random.Generator, rows: int, words: int, vocabulary: np.ndarray) -> list[str]:
    return [" ".join(line) for line in vocabulary[generator.integers(0, len(vocabulary), (rows, words))].tolist()]


def invent_rows(rows: int, generator: np.random.Generator) -> pl.DataFrame:
    """A table of ROW_SCHEMA; ids are random, as digests are."""
    letters = generator.integers(97, 123, (VOCABULARY, 10), np.uint8).tobytes().decode()
    vocabulary = np.array([letters[10 * at : 10 * at + 3 + at % 7] for at in range(VOCABULARY)])
    asked, answered = (invent_texts(generator, rows, words, vocabulary) for words in (ASKED, ANSWERED))
    digests = [digest_subject(f"P-{number}", b"pedigree") for number in range(SUBJECTS)]
    numbers = np.arange(rows)
    empty = [pl.lit(None, pl.String).alias(name) for name in ("tool_calls", "tool_call_id", "name")]
    turns = [pl.struct(pl.lit(role).alias("role"), pl.col(text).alias("content"), *empty)
             for role, text in (("user", "asked"), ("assistant", "answered"))]  # fmt: skip
    table = pl.DataFrame(
        {
            "row_id": [f"{number:016x}" for number in generator.choice(2**60, rows, replace=False)],
            "source": np.array(SOURCES)[numbers * len(SOURCES) // rows],
            "record": numbers % (rows // len(SOURCES) + 1),
            "subject": np.array(digests)[generator.integers(0, SUBJECTS, rows)],
            "asked": asked,
            "answered": answered,
        }
    )
    whole = table.with_columns(
        file=pl.format("data/raw/sources/{}.jsonl", "source"), licence=pl.lit("MIT"), kind=pl.lit("sft"),
        messages=pl.concat_list(turns),
    )  # fmt: skip
    return whole.match_to_schema(ROW_SCHEMA, missing_columns="insert", extra_columns="ignore")


def write_run(folder: Path, rows: int) -> dict[str, str]:
    """All tables of a run; a row that was trained on, as id, record, subject and text."""
    generator = np.random.default_rng(1)
    table = invent_rows(rows, generator)
    write_table(folder / "data/pool/rows.parquet", table)
    write_table(folder / "data/pool/ledger.parquet", ledger_lines("pool", []))
    chance = pl.Series(generator.random(rows))
    ids = table["row_id"]
    dropped = ids.filter(chance < 0.05)
    lines = {"action": "drop", "reason": "near_duplicate", "detail": "similarity=0.91"}
    survivors = ids.filter(chance >= 0.95).to_list()
    dedup = [{"row_id": row, "other_id": survivors[at % len(survivors)]} | lines for at, row in enumerate(dropped)]
    write_table(folder / "data/dedup/ledger.parquet", ledger_lines("dedup", dedup))
    pairs = [(line["other_id"], line["row_id"], 0.91, False) for line in dedup]
    pairs += [(row, row, 1.0, True) for row in dict.fromkeys(line["other_id"] for line in dedup)]
    clusters = pl.DataFrame(pairs, ["cluster", "row_id", "similarity", "kept"], orient="row").sort("cluster", "row_id")
    write_table(folder / "data/clusters/clusters.parquet", clusters)
    write_table(folder / "data/dedup/rows.parquet", table.filter(chance >= 0.05))
    changed = ids.filter((chance >= 0.05) & (chance < 0.15))
    change = {"action": "change", "reason": "pii", "detail": "PERSON=1"}
    write_table(
        folder / "data/scrub/ledger.parquet", ledger_lines("scrub", [{"row_id": row} | change for row in changed])
    )
    write_table(folder / "data/scrub/rows.parquet", table.filter(chance >= 0.05))
    contaminated = ids.filter((chance >= 0.15) & (chance < 0.16))
    leak = {"action": "drop", "reason": "overlap", "other_id": "general/3", "detail": "share=0.80"}
    ledger = ledger_lines("decontaminate", [{"row_id": row} | leak for row in contaminated])
    write_table(folder / "data/decontaminate/ledger.parquet", ledger)
    left = table.filter((chance >= 0.05) & ~((chance >= 0.15) & (chance < 0.16)))
    write_table(folder / "data/decontaminate/rows.parquet", left)
    mixed, over = left[: left.height // 2], left[left.height // 2 :]
    more = {"split": pl.lit("train"), "repeat": pl.lit(0), "tokens": pl.lit(80), "position": pl.int_range(pl.len())}
    write_table(folder / "data/mix/sft.parquet", mixed.with_columns(**more))
    budget = {"action": "drop", "reason": "over_budget", "detail": "tokens=80"}
    write_table(
        folder / "data/mix/ledger.parquet", ledger_lines("mix", [{"row_id": row} | budget for row in over["row_id"]])
    )
    consumed = mixed.select("row_id", epoch=pl.lit(0), step=pl.int_range(pl.len()) // 8)
    for model, seen in (("sft", consumed), ("align", consumed[:0]), ("quantized", consumed[:128])):
        write_table(folder / f"models/{model}/consumed.parquet", seen)
        (folder / f"models/{model}/config.json").write_text("{}")
    (folder / "models/base").mkdir()
    (folder / "models/base/config.json").write_text("{}")
    (folder / "dvc.yaml").touch()
    (folder / "params.yaml").write_text((ROOT / "recipes/default.yaml").read_text())
    row = mixed.row(mixed.height // 2, named=True)
    number = next(number for number in range(SUBJECTS) if digest_subject(f"P-{number}", b"pedigree") == row["subject"])
    text = row["messages"][1]["content"]
    return {"row_id": row["row_id"], "source": row["source"], "record": str(row["record"]), "text": text,
            "subject": f"P-{number}"}  # fmt: skip


def forget_pages(folder: Path) -> None:
    """Out of the page cache, as after a boot."""
    os.sync()
    for path in folder.rglob("*.parquet"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, arguments: list[str], row_id: str) -> tuple[float, float, int]:
    """Seconds, seconds of CPU and peak bytes of a command, which must name the row.

    The peak is VmHWM, read until the end: what wait4 tells holds also this process, out of which the command was made.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "pedigree", "trace", *arguments]
    peak, start, before = 0, time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            peak = max(peak, int(found[1]) * 1024 if found else 0)
            time.sleep(0.005)
        seconds = time.perf_counter() - start
        output.seek(0)
        said = output.read()
    if process.returncode or row_id not in said:
        sys.exit(f"trace {' '.join(arguments)}: {said[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, peak


def measure_all(folder: Path, row: dict[str, str]) -> list[dict[str, Any]]:
    part = " ".join(row["text"].split()[5:13])
    ways = {
        "by id": [row["row_id"]],
        "by source and record": ["--source", row["source"], "--record", row["record"]],
        "by subject": ["--subject", row["subject"]],
        "by 8 words of its text": ["--text", part.upper()],
        "by 0.8 of its text": ["--text", row["text"] + " and a little more", "--near", "0.8"],
    }  # fmt: skip
    found = []
    for way, arguments in ways.items():
        forget_pages(folder)
        first, _, most = measure(folder, arguments, row["row_id"])
        again = [measure(folder, arguments, row["row_id"]) for _ in range(ROUNDS)]
        seconds, cpu = (statistics.median(one[at] for one in again) for at in (0, 1))
        size = max(most, *(one[2] for one in again))
        found.append({"way": way, "first": first, "seconds": seconds, "cpu": cpu, "bytes": size})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the run is made, and stays")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (arguments.folder or Path(name)).resolve()
        known = folder / "row.json"
        if not known.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            known.write_text(json.dumps(write_run(folder, arguments.rows)))
        lines = measure_all(folder, json.loads(known.read_text()))
        if arguments.json:
            print(json.dumps(lines))
            return
        size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
        print(f"{arguments.rows:,} rows, {size / 1e9:.1f} GB of tables")
        for line in lines:
            times = f"{line['seconds']:.2f} s, first {line['first']:.2f} s, {line['cpu']:.2f} s of CPU"
            print(f"{line['way']:24} {times}, {line['bytes'] / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
