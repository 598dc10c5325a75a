"""Lineage on public data: 200 rows recounted, two deletion drills, revisions compared, faults caught, a million rows.

    python bench/lineage.py --data ../shared/data [--folder DIR] [--parts run,rows,diff,verify,drill,million] [--seed 5]

run      the whole graph in a copy of the repository: medquad (the disease as the subject, and every 20th record once
         more as nobody's leaflet), Alpaca, OASST trees, HH transcripts, UltraFeedback pairs; 24,000 tokens of SFT
rows     200 rows drawn from the raw files, their journeys by `pedigree trace` and by bench/recount.py
diff     three revisions of TruthfulQA's file as a source, beside what difflib says of the CSV files; one record of the
         clinic's data changed
verify   faults, each in a copy of the run, and the line that names it
drill    one row that never trained, then a subject that did, from the request to the proof and the purge
million  trace over a generated run of 1,000,000 rows (bench/lineage_million.py)

--folder keeps the project, so that the later parts can run again without the first. Exits 1 where something does not
come out as it must.
"""

import argparse
import csv
import difflib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from lineage_project import ROOT, call, commit, copy_repository, make_project, pedigree, repro, time_call, use_recipe
from recount import Run, compare, make_ids, normalised, similarity, text_of
from ruamel.yaml import YAML

PARTS = ("run", "rows", "diff", "verify", "drill", "million")
REVISIONS = {"v0": "data_v0_TruthfulQA.csv", "v1": "data_v1_TruthfulQA.csv", "v2": "TruthfulQA.csv"}
REVISED = """# One file in three revisions.
sources:
- {name: truthfulqa, path: data/raw/sources/truthfulqa.csv, format: qa, licence: Apache-2.0, consent: public,
   columns: {question: Question, answer: Best Answer}, share: 1}
"""
LEAST = 0.5  # similarity of a changed row
NOT_NEEDED = {"base", "eval@base"}
Lines = Iterator[tuple[str, str, bool]]
"""What was asked, what came out, whether it is as it must be."""


def read_ids(folder: Path) -> dict[str, dict[str, Any]]:
    """Every row that the raw files make, by bench/recount.py."""
    sources = YAML(typ="safe").load((folder / "params.yaml").read_text())["sources"]
    return {row: place for source in sources for row, place in make_ids(source, folder).items()}


def run_all(folder: Path, data: Path) -> Lines:
    make_project(folder, data)
    seconds, ran = repro(folder)
    commit(folder, "Results")
    yield "dvc repro, the whole graph", f"{seconds:.0f} s, {len(ran)} stages", len(ran) == 14


def recount_rows(folder: Path, seed: int) -> Lines:
    raw, run = read_ids(folder), Run(folder)
    pool = set(pq.read_table(folder / "data/pool/rows.parquet", columns=["row_id"])["row_id"].to_pylist())
    yield "row ids made from the raw files alone", f"{len(pool & set(raw)):,} of {len(pool):,}", pool == set(raw)
    drawn = random.Random(seed).sample(sorted(raw), 200)
    seconds, said = time_call(folder, "trace", *drawn, "--json")
    told = [json.loads(line) for line in said.splitlines()]
    wrong = [fault for row, each in zip(drawn, told, strict=True) for fault in compare(each, row, raw, run)]
    rows = len({fault.split()[0] for fault in wrong})
    yield "rows drawn at random whose journey agrees", f"{200 - rows} of 200, {seconds:.1f} s", not wrong
    ends: Counter[str] = Counter()
    for each in told:
        last = each["events"][-1]
        ends[" ".join(filter(None, (last["stage"], last["event"], last.get("reason"))))] += 1
    yield "where these end", ", ".join(f"{count} {end}" for end, count in ends.most_common()), True
    special = [row for stage in ("dedup", "decontaminate") for row in run.ledgers[stage]]
    special += [row for steps in run.steps.values() for row in steps]
    special = list(dict.fromkeys(special))
    told = [json.loads(line) for line in pedigree(folder, "trace", *special, "--json").splitlines()]
    wrong += [fault for row, each in zip(special, told, strict=True) for fault in compare(each, row, raw, run)]
    yield "rows dropped or trained on, all of them", f"{len(special)} compared, {len(wrong)} faults", not wrong
    for fault in wrong[:5]:
        yield "fault", fault, False
    for row in special[:20]:
        place = raw[row]
        found = pedigree(folder, "trace", "--file", place["file"], "--record", str(place["record"]), "--json")
        if row not in found:
            yield f"{place['file']}, record {place['record']}", f"does not lead to {row}", False


def expect_changes(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> Counter[tuple[str, int]]:
    """(added, removed or changed; record) by difflib: a block that is replaced by as many records is changed in order,
    of others the pairs with half of their word 3-grams in common."""
    found: Counter[tuple[str, int]] = Counter()
    for what, i, j, k, n in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        old, new = list(range(i, j)), list(range(k, n))
        if len(old) != len(new):
            near = [(similarity("\n".join(before[a]), "\n".join(after[b])), a, b) for a in old for b in new]
            pairs = [(a, b) for share, a, b in sorted(near, reverse=True) if share >= LEAST]
            pairs = [pair for at, pair in enumerate(pairs) if not any(set(pair) & set(one) for one in pairs[:at])]
        else:
            pairs = list(zip(old, new, strict=True))
        found.update(("changed", b) for _, b in pairs)
        found.update(("removed", a) for a in old if a not in {pair[0] for pair in pairs})
        found.update(("added", b) for b in new if b not in {pair[1] for pair in pairs})
    return found


def compare_revisions(folder: Path, data: Path) -> Lines:
    copy_repository(folder)
    shutil.rmtree(folder / "data/raw/sources")
    (folder / "data/raw/sources").mkdir()
    use_recipe(folder, "truthfulqa", REVISED)
    rows: dict[str, list[tuple[str, str]]] = {}
    for name, file in REVISIONS.items():
        shutil.copyfile(data / "truthfulqa" / file, folder / "data/raw/sources/truthfulqa.csv")
        with open(data / "truthfulqa" / file, encoding="utf-8-sig", newline="") as lines:
            rows[name] = [(line["Question"], line["Best Answer"]) for line in csv.DictReader(lines)]
        repro(folder, "pool")
        commit(folder, name)
        call(folder, "git", "tag", name)
    for one, other in (("v0", "v1"), ("v1", "v2"), ("v0", "v2")):
        seconds, _ = time_call(folder, "diff", one, other, "--output", "changes.parquet")
        told = pq.read_table(folder / "changes.parquet").to_pylist()
        found = Counter((line["change"], line["record"]) for line in told)
        counts = Counter(line["change"] for line in told)
        shown = ", ".join(f"{counts[change]} {change}" for change in ("added", "removed", "changed"))
        same = found == expect_changes(rows[one], rows[other])
        yield f"TruthfulQA {one} to {other}", f"{shown}; {'as' if same else 'not as'} difflib, {seconds:.1f} s", same


def change_one_record(folder: Path) -> Lines:
    copy_repository(folder)
    repro(folder, "pool")
    commit(folder, "before")
    path = folder / "data/raw/sources/patient_questions.csv"
    with path.open(newline="") as lines:
        records = list(csv.DictReader(lines))
    records[40]["reply"] += " Please bring your card."
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    repro(folder, "pool")
    _, told = time_call(folder, "diff", "HEAD", "--output", "changes.parquet")
    changes = pq.read_table(folder / "changes.parquet").to_pylist()
    named = [(line["change"], line["file"], line["record"]) for line in changes]
    expected = [("changed", "data/raw/sources/patient_questions.csv", 40)]
    print(told)
    yield (
        "clinic data, one record changed",
        ", ".join(f"{what} {at} of {of}" for what, of, at in named),
        named == expected,
    )


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def edit_metric(path: Path) -> None:
    values = json.loads(path.read_text())
    values["clinic"]["acc"] += 0.1
    path.write_text(json.dumps(values, indent=1))


def edit_rate(path: Path) -> None:
    path.write_text(path.read_text().replace("lr: 2.0e-3", "lr: 1.0e-3"))


def drop_line(path: Path) -> None:
    table = pq.read_table(path)
    path.unlink()
    pq.write_table(table.slice(1), path)


def catch_faults(folder: Path) -> Lines:
    seconds, said = time_call(folder, "verify")
    yield "verify, nothing touched", f"{said.splitlines()[-1]} {seconds:.1f} s", "All of it agrees" in said
    model, metric, cards = "models/sft/adapter_model.safetensors", "metrics/eval/sft.json", ("card.md", "card.html")
    ledgers = [f"data/{stage}/ledger.parquet" for stage in ("dedup", "scrub", "decontaminate", "mix")]
    faults: dict[str, tuple[Callable[[Path], Any], str]] = {
        "a byte of a model": (lambda copy: flip_byte(copy / model), model),
        "a metric edited by hand": (lambda copy: edit_metric(copy / metric), metric),
        **{f"a line less in {name}": (lambda copy, name=name: drop_line(copy / name), name) for name in ledgers},
        "a line less in consumed": (
            lambda copy: drop_line(copy / "models/sft/consumed.parquet"), "models/sft/consumed.parquet"),
        "the card of another run": (
            lambda copy: [shutil.copy(ROOT / "reports" / name, copy / "reports" / name) for name in cards],
            "reports/card.md: does not say"),
        "a parameter": (lambda copy: edit_rate(copy / "params.yaml"), "params.yaml, train.lr"),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        for fault, (make, expected) in faults.items():
            copy = Path(name) / "copy"
            call(folder, "cp", "-r", ".", str(copy))
            make(copy)
            told = pedigree(copy, "verify", fails=True)
            yield fault, " / ".join(line for line in told.splitlines() if expected in line), expected in told
            shutil.rmtree(copy)
        other = Path(name) / "polars-0.1.dist-info"
        other.mkdir()
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: polars\nVersion: 0.1\n")
        told = pedigree(folder, "verify", fails=True, PYTHONPATH=name)
        yield "another version of a package", told.splitlines()[-1], "package polars: 0.1 is installed" in told


def count_left(folder: Path, gone: set[str], texts: set[str]) -> tuple[int, int, int]:
    """Tables after pool's ledger that were read; rows of them with one of the ids; rows with one of the texts."""
    tables = ids = same = 0
    for path in [*folder.glob("data/*/*.parquet"), *folder.glob("models/*/*.parquet")]:
        if path == folder / "data/pool/ledger.parquet":
            continue
        tables += 1
        for row in pq.read_table(path).to_pylist():
            ids += any(isinstance(value, str) and value in gone for value in row.values())
            same += "chosen" in row and normalised(text_of(row)) in texts
    return tables, ids, same


def drill(folder: Path, request: str, selection: list[str], mine: set[str], needless: set[str]) -> Lines:
    """A request from its line to the proof; `mine`: the rows that it must reach beside their duplicates."""
    raw, before = read_ids(folder), Run(folder)
    consumed = [row for steps in before.steps.values() for row in steps]
    seconds, _ = time_call(folder, "forget", *selection, "--request", request, "--write")
    entries = [json.loads(line) for line in (folder / "data/raw/exclusions.jsonl").read_text().splitlines()]
    gone = {entry["value"] for entry in entries if entry["request"] == request and entry["kind"] == "row"}
    twins = gone - mine
    trained = sum(row in gone for row in consumed)
    told = f"{len(mine)} rows, {len(twins)} duplicates of others; {trained} times trained on, {seconds:.1f} s"
    yield f"{request}: reach", told, mine <= gone
    commit(folder, request)
    seconds, ran = repro(folder)
    yield f"{request}: dvc repro", f"{seconds:.0f} s, ran {' '.join(ran)}", not needless & set(ran)
    texts = {normalised(text_of(raw[row]["content"])) for row in gone}
    tables, ids, same = count_left(folder, gone, texts)
    yield f"{request}: left", f"{ids} rows by id and {same} by text in {tables} tables", not ids and not same
    after = Run(folder)
    excluded = {row for row, line in after.ledgers["pool"].items() if line["reason"] == "excluded"}
    consumed = [row for steps in after.steps.values() for row in steps if row in gone]
    told = f"{len(excluded & gone)} excluded, {len(consumed)} consumed"
    yield f"{request}: ledgers", told, gone <= excluded and not consumed
    seconds, said = time_call(folder, "forget", "--request", request, "--prove")
    report = json.loads((folder / f"reports/forget_{request}.json").read_text())
    yield f"{request}: proof", f"{seconds:.1f} s; likelihood {json.dumps(report['likelihood'])}", True
    print(said)
    commit(folder, f"{request} done")


def run_drills(folder: Path) -> Lines:
    raw, run = read_ids(folder), Run(folder)
    dedup = run.ledgers["dedup"].values()
    trained = {row for steps in run.steps.values() for row in steps}
    clusters = {line["other_id"] for line in dedup}
    survivor = sorted(row for row in clusters if row not in trained and raw[row]["source"] == "medquad")[0]
    training = {"sft", "align", "quantize"} | NOT_NEEDED
    yield from drill(folder, "row", [survivor], {survivor}, training)
    rows = {}
    for row, place in raw.items():
        rows.setdefault(place["subject"], set()).add(row)
    twins = [subject for line in dedup if raw[line["row_id"]]["source"] == "leaflets"
             for subject in [raw[line["other_id"]]["subject"]]]  # fmt: skip
    able = {subject for subject in twins if rows[subject] & trained and survivor not in rows[subject]}
    chosen = max(able, key=lambda subject: (len(rows[subject]), subject))
    first = raw[min(rows[chosen])]
    focus = json.loads((folder / first["file"]).read_text().split("\n")[first["record"]])["focus"]
    yield "subject", f"{focus}: {len(rows[chosen])} rows, {twins.count(chosen)} copies in leaflets", True
    yield from drill(folder, "subject", ["--subject", focus], rows[chosen], NOT_NEEDED)
    report = folder / "reports/forget_subject.json"
    held = [copy for copy in json.loads(report.read_text())["cache"] if not copy["in_use"]]
    seconds, _ = time_call(folder, "forget", "--request", "subject", "--prove", "--purge")
    left = [copy for copy in json.loads(report.read_text())["cache"] if not copy["in_use"]]
    told = f"{len(held)} objects of the cache held rows, {len(left)} after, {seconds:.1f} s"
    yield "subject: purge", told, bool(held) and not left


def run_million() -> Lines:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench/lineage_million.py"), "--json"], capture_output=True, text=True, check=True
    )
    for line in json.loads(done.stdout):
        times = f"{line['seconds']:.2f} s (cold {line['first']:.2f}, CPU {line['cpu']:.2f})"
        good = line["way"] == "by 0.8 of its text" or (line["seconds"] <= 1 and line["bytes"] <= 500e6)
        yield f"1,000,000 rows, {line['way']}", f"{times}, {line['bytes'] / 1e6:.0f} MB", good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--folder", type=Path, help="where the project is made, and stays")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seed", type=int, default=5, help="of the 200 rows")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if not (arguments.data / "medquad/medquad.jsonl").is_file():
        print(f"{arguments.data}: has no medquad/medquad.jsonl; only the part `million` needs no data")
        parts = [part for part in parts if part == "million"]
    data = arguments.data.resolve()
    with tempfile.TemporaryDirectory() as name:
        project = (arguments.folder or Path(name) / "project").resolve()
        ways: dict[str, Callable[[], Lines]] = {
            "run": lambda: run_all(project, data),
            "rows": lambda: recount_rows(project, arguments.seed),
            "diff": lambda: (line for lines in (compare_revisions(Path(name) / "revisions", data),
                                                change_one_record(Path(name) / "clinic")) for line in lines),
            "verify": lambda: catch_faults(project),
            "drill": lambda: run_drills(project),
            "million": run_million,
        }  # fmt: skip
        lines = []
        for part in PARTS:
            for line in ways[part]() if part in parts else ():
                print(f"{'' if line[2] else 'NOT AS IT MUST BE: '}{line[0]}: {line[1]}", flush=True)
                lines.append((part, *line))
    print("\n| part | what | came out |\n|---|---|---|")
    for part, what, told, good in lines:
        print(f"| {part} | {what} | {told}{'' if good else ' (NOT AS IT MUST BE)'} |")
    sys.exit(not all(line[3] for line in lines))


if __name__ == "__main__":
    main()
