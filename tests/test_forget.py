"""A request for deletion on a finished run: what it reaches, the exclusion list, the proof, the purge."""

import csv
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from tiny import DVC, call, complain, tell

from stages.common.exclusions import FILE

COMMIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm")


@pytest.fixture(scope="module")
def clone(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the finished run that may be changed and purged."""
    folder = tmp_path_factory.mktemp("forget") / "clone"
    shutil.copytree(project, folder, symlinks=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def inside(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(clone)
    return clone


def test_what_a_request_reaches_is_listed_and_nothing_written(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survivor, twin = pl.read_parquet("data/dedup/ledger.parquet").filter(reason="near_duplicate").select(
        "other_id", "row_id"
    ).row(0)  # fmt: skip
    said = tell(capsys, "forget", survivor, "--request", "r1")
    assert "1 duplicates of other records go with them" in said
    assert twin in said
    assert "Nothing is written" in said
    assert "steps into the place" in tell(capsys, "forget", survivor, "--request", "r1", "--keep-duplicates")
    assert FILE.read_text() == ""
    assert "letters, digits" in complain(capsys, "forget", survivor, "--request", "a/b")
    assert "no line of the request" in complain(capsys, "forget", "--request", "r1", "--prove")


def test_a_duplicate_of_somebody_else_goes_without_its_owner(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pl.read_parquet("data/pool/rows.parquet").filter(pl.col("subject").is_not_null())
    clusters = pl.read_parquet("data/clusters/clusters.parquet").join(pool, on="row_id")
    shared = clusters.filter(pl.col("subject").n_unique().over("cluster") > 1)
    assert shared.height
    row = shared.row(0, named=True)
    with open(row["file"], newline="") as lines:
        patient = list(csv.DictReader(lines))[row["record"]]["patient_id"]
    try:
        tell(capsys, "forget", "--subject", patient, "--request", "r2", "--write")
        entries = [json.loads(line) for line in FILE.read_text().splitlines()]
        assert [entry["value"] for entry in entries if entry["kind"] == "subject"] == [row["subject"]]
        twins = set(shared.filter(cluster=row["cluster"])["row_id"])
        assert twins <= {entry["value"] for entry in entries if entry["kind"] == "row"}
        tell(capsys, "forget", "--subject", "nobody yet", "--request", "r3", "--write")
        assert json.loads(FILE.read_text().splitlines()[-1])["kind"] == "subject"
    finally:
        FILE.write_text("")
    assert "in one way" in complain(capsys, "forget", "--subject", patient, "--source", "desk_cards", "--request", "r2")


def test_a_person_is_forgotten(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows, duplicates, tables, models, evidence, purge: one drill from the request to the report."""
    pool = pl.read_parquet("data/pool/rows.parquet")
    trained = set(pl.read_parquet("models/sft/consumed.parquet")["row_id"])
    with open("data/raw/sources/patient_questions.csv", newline="") as lines:
        records = list(csv.DictReader(lines))
    mine = pool.filter(pl.col("subject").is_not_null(), pl.col("row_id").is_in(list(trained))).row(0, named=True)
    patient = records[mine["record"]]["patient_id"]
    rows = set(pool.filter(subject=mine["subject"])["row_id"])
    clusters = pl.read_parquet("data/clusters/clusters.parquet")
    theirs = clusters.filter(pl.col("row_id").is_in(list(rows)))["cluster"]
    rows |= set(clusters.filter(pl.col("cluster").is_in(theirs.implode()))["row_id"])
    said = tell(capsys, "forget", "--subject", patient, "--request", "2026.014", "--write")
    assert "models that carry them or their duplicates: align, quantized, sft" in said
    assert "whoever reads the list can try names" in said
    entries = [json.loads(line) for line in FILE.read_text().splitlines()]
    assert {entry["value"] for entry in entries if entry["kind"] == "row"} == rows
    assert [entry["value"] for entry in entries if entry["kind"] == "subject"] == [mine["subject"]]
    assert "pool would run again" in complain(capsys, "forget", "--request", "2026.014", "--prove")

    call(inside, *DVC, "repro")
    ledger = pl.read_parquet("data/pool/ledger.parquet")
    assert set(ledger.filter(reason="excluded")["row_id"]) == rows
    for path in [*Path("data").glob("*/*.parquet"), *Path("models").glob("*/*.parquet")]:
        if path != Path("data/pool/ledger.parquet"):
            table = pl.read_parquet(path)
            columns = [column for column in ("row_id", "other_id", "target", "cluster") if column in table.columns]
            assert not rows & {name for column in columns for name in table[column]}, path
    assert "dropped: excluded" in tell(capsys, "trace", sorted(rows)[0])

    said = tell(capsys, "forget", "--request", "2026.014", "--prove")
    report = json.loads(Path("reports/forget_2026.014.json").read_text())
    assert report["excluded"] == {"subject": 1, "source": 0, "row": len(rows)}
    assert report["match_no_record"] == []
    assert sum(report["records_in_raw_files"].values()) == len(rows)
    assert {copy["what"] for copy in report["cache"]} == {"table", "model"}
    assert set(report["likelihood"]["before"]) == {"forgotten", "heldout"}
    assert "data/raw/sources/patient_questions.csv: git holds it in" in said
    assert "Signed off by" in Path("reports/forget_2026.014.md").read_text()

    call(inside, "git", "add", "-A")
    call(inside, *COMMIT, "forgotten")
    tell(capsys, "forget", "--request", "2026.014", "--prove", "--purge")
    before, report = report, json.loads(Path("reports/forget_2026.014.json").read_text())
    assert [copy for copy in report["cache"] if not copy["in_use"]] == []
    tell(capsys, "forget", "--request", "2026.014", "--prove")  # the tables of before are gone, what they said is not
    again = json.loads(Path("reports/forget_2026.014.json").read_text())
    assert not again["tables_of_before"]
    assert again["likelihood"] == before["likelihood"]
    assert again["raw_files_in_git"].keys() == before["raw_files_in_git"].keys()
    assert report["purged"][0].startswith("every object of the cache that the workspace does not use")
    assert again["purged"] == report["purged"]
    done = subprocess.run([*DVC, "status"], capture_output=True, text=True, check=True)
    assert "up to date" in done.stdout
