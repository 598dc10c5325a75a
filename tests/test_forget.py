"""A request for deletion on a finished run: what it reaches, the exclusion list, the proof, the purge."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import make_row, make_rows
from ruamel.yaml import YAML
from test_pool import QA, exclude, exclude_row, pool_people, write_lines
from tiny import DVC, call, complain, tell

from pedigree import forget as forgetting
from pedigree import proof
from pedigree.absence import check_requests
from pedigree.erasure import confirm
from pedigree.journey import find_origins, of_subject
from pedigree.snapshot import Snapshot
from stages.common.errors import InputError
from stages.common.exclusions import FILE, Exclusion, digest_contents

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
    assert "1 duplicate in other records: to go with them" in said
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


def test_rows_that_hold_a_text_are_listed_without_it(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pl.read_parquet("data/pool/rows.parquet").filter(pl.col("source") == "desk_cards")
    row = max(pool.iter_rows(named=True), key=lambda row: len(row["messages"][1]["content"]))
    words = row["messages"][1]["content"].split()
    said = tell(capsys, "forget", "--text", " ".join(words), "--request", "r1")
    assert f"{row['row_id']}  holds 100%  desk_cards, {row['file']}, record {row['record']}" in said
    assert "Nothing is written" in said
    assert " ".join(words[:4]) not in said
    other = " ".join([*words[:-1], "zebra"])  # its last 3-gram is in no row
    assert "no row of the workspace holds it" in complain(capsys, "forget", "--text", other, "--request", "r1")
    share = f"holds {(len(words) - 3) / (len(words) - 2):.0%}"
    said = tell(capsys, "forget", "--text", other, "--near", "0.7", "--request", "r1")
    assert f"{row['row_id']}  {share}" in said


def test_a_subject_is_found_where_it_only_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ann, bob = "a" * 16, "b" * 16
    rows = [make_row(1, "Hi", "Hello", subject=ann), make_row(2, "Open?", "Yes", subject=bob), make_row(3, "Hm", "Hm")]
    for stage in ("pool", "dedup"):
        Path("data", stage).mkdir(parents=True)
        make_rows(rows).write_parquet(f"data/{stage}/rows.parquet")
    pl.DataFrame({"row_id": [rows[1]["row_id"]], "subject": [ann]}).write_parquet("data/pool/subjects.parquet")
    found = {
        name: find_origins(Snapshot(None), of_subject(Snapshot(None), name))["row_id"].to_list() for name in (ann, bob)
    }
    assert found == {ann: [rows[0]["row_id"], rows[1]["row_id"]], bob: [rows[1]["row_id"]]}
    Path("data/pool/subjects.parquet").unlink()  # as an older version has it
    assert find_origins(Snapshot(None), of_subject(Snapshot(None), ann))["row_id"].to_list() == [rows[0]["row_id"]]


@pytest.fixture
def empty_list(inside: Path) -> Iterator[Path]:
    yield inside
    FILE.write_text("")
    Path("reports/forget_r1.json").unlink(missing_ok=True)


def test_a_request_is_not_mixed_with_another_of_its_name(empty_list: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = pl.read_parquet("data/pool/rows.parquet").filter(source="desk_tools")["row_id"][:2]
    tell(capsys, "forget", first, "--request", "r1", "--write")
    FILE.write_text(FILE.read_text().rstrip("\n"))  # somebody's editor
    lines = FILE.read_text().splitlines()
    assert "has 0 new lines" in tell(capsys, "forget", first, "--request", "r1", "--write")
    assert "--add puts them to it" in complain(capsys, "forget", second, "--request", "r1", "--write")
    assert FILE.read_text().splitlines() == lines
    tell(capsys, "forget", second, "--request", "r1", "--write", "--add")
    values = {json.loads(line)["value"] for line in FILE.read_text().splitlines()}
    assert {first, second} <= values
    Path("reports/forget_r1.json").write_text("{}")
    third = pl.read_parquet("data/pool/rows.parquet").filter(source="community")["row_id"][0]
    assert "the request r1 is proved" in complain(capsys, "forget", third, "--request", "r1", "--write", "--add")


def test_two_who_write_at_once_lose_no_line(empty_list: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is slow between reading and writing."""

    def write_late(path: Path, text: str) -> None:
        time.sleep(0.05)
        path.write_text(text)

    monkeypatch.setattr(forgetting, "write_text", write_late)
    entries = [Exclusion(request=f"r{n}", kind="row", value=f"{n:016x}", key="public", since=None) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda entry: forgetting.append([entry], entry.request, "public", False), entries))
    assert counts == [1] * 8
    assert sorted(json.loads(line)["request"] for line in FILE.read_text().splitlines()) == [f"r{n}" for n in range(8)]


def test_options_without_effect_are_refused(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--yes: is for --purge" in complain(capsys, "forget", "--request", "r1", "--prove", "--yes")
    assert "--add: is for --write" in complain(capsys, "forget", "--request", "r1", "--source", "community", "--add")


def test_a_purge_wants_the_name_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nothing was deleted; --yes"):
        confirm("r1", agreed=False)  # no terminal
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: " r1 ")
    confirm("r1", agreed=False)
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    with pytest.raises(InputError, match="nothing was deleted"):
        confirm("r1", agreed=False)


def test_shares_sum_to_one_without_the_source_that_goes() -> None:
    assert forgetting.divide_anew([("a", 0.21), ("b", 0.25), ("c", 0.49)]) == {"a": 0.2211, "b": 0.2632, "c": 0.5157}
    assert forgetting.divide_anew([("a", 0.2), ("b", None)]) == {}
    assert forgetting.divide_anew([("a", 0.5), ("b", 0.5)]) == {}
    thirds = forgetting.divide_anew([(name, 0.3) for name in "abc"])
    assert sum(thirds.values()) == pytest.approx(1, abs=1e-9)


def test_texts_of_duplicates_that_stay_are_not_excluded(empty_list: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = pl.read_parquet("data/dedup/ledger.parquet").filter(reason="exact_duplicate").row(0, named=True)
    tell(capsys, "forget", same["row_id"], "--request", "r1", "--write", "--keep-duplicates")
    (entry,) = (json.loads(line) for line in FILE.read_text().splitlines())
    assert (entry["value"], "content" in entry, "place" in entry) == (same["row_id"], False, True)
    FILE.write_text("")
    tell(capsys, "forget", same["row_id"], "--request", "r1", "--write")
    entries = [json.loads(line) for line in FILE.read_text().splitlines()]
    assert {same["row_id"], same["other_id"]} <= {entry["value"] for entry in entries}
    assert all(entry["content"] for entry in entries)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of raw files and of what pool makes of them; nothing in git or DVC."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("")
    monkeypatch.setattr(proof, "check_current", lambda: None)
    for name in ("find_copies", "list_beside", "list_experiments"):
        monkeypatch.setattr(proof, name, lambda *_: [])
    monkeypatch.setattr(proof, "run_dvc", lambda *_: "")
    return tmp_path


def prove_alone(*options: bool) -> dict[str, Any]:
    proof.prove("r-1", False, False, *options or (False,))
    return json.loads(Path("reports/forget_r-1.json").read_text())


def test_a_renamed_source_still_holds_the_records(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Renamed, or with a subject, its rows have new ids: the list meets them by their text, and so does the proof."""
    write_lines("data/raw/sources/a.jsonl", [QA[0] | {"id": "p1"}, QA[1] | {"id": "p2"}])
    before = pool_people({"a": "a.jsonl"}, None)
    exclude_row(before[:1])
    for name, subject in (("a", None), ("renamed", None), ("a", "id")):
        pool_people({name: "a.jsonl"}, subject)
        report = prove_alone()
        assert report["match_no_record"] == []
        assert report["records_in_raw_files"] == {"data/raw/sources/a.jsonl": 1}
        assert (
            "| raw file data/raw/sources/a.jsonl | 1 row of the request |" in Path("reports/forget_r-1.md").read_text()
        )
    write_lines("data/raw/sources/b.jsonl", [QA[1] | {"id": "p2"}])
    pool_people({"b": "b.jsonl"}, None)  # a.jsonl lies there untouched
    report = prove_alone()
    assert report["match_no_record"] == [before["row_id"][0]]
    assert report["records_in_raw_files"] == {"data/raw/sources/a.jsonl": None}
    page = Path("reports/forget_r-1.md").read_text()
    assert "match no record any more, since it was deleted, edited, or its source is no longer read: 1" in page
    Path("data/raw/sources/a.jsonl").unlink()
    assert prove_alone()["records_in_raw_files"] == {}


def test_texts_that_stay_are_told_after_a_purge_too(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines("data/raw/sources/a.jsonl", [QA[0], QA[1]])
    write_lines("data/raw/sources/b.jsonl", [QA[0]])
    sources = {"a": "a.jsonl", "b": "b.jsonl"}
    before = pool_people(sources, None)
    exclude(kind="row", value=before["row_id"][0])  # as --keep-duplicates does, without the digest of the text
    pool_people(sources, None)
    monkeypatch.setattr(proof, "former_rows", lambda _: (None, before[:1]))
    with pytest.raises(InputError, match="has the very text of a forgotten one; --keep-duplicates lets it stay"):
        prove_alone(False)
    stays = before.filter(source="b")["row_id"].to_list()
    assert prove_alone(True)["equal_texts_that_stay"] == stays
    monkeypatch.setattr(proof, "former_rows", lambda _: (None, pl.DataFrame()))  # purged
    for _ in range(2):
        assert prove_alone(True)["equal_texts_that_stay"] == stays
        assert f"Rows with the very same text that stay, as was asked: 1 ({stays[0]})" in (
            Path("reports/forget_r-1.md").read_text()
        )
    with pytest.raises(InputError, match="has the very text of a forgotten one"):
        prove_alone(False)
    write_lines("data/raw/sources/b.jsonl", [QA[1]])
    pool_people(sources, None)
    assert prove_alone(False)["equal_texts_that_stay"] == []


def test_the_same_text_in_rows_of_another_kind_is_reached(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pool leaves out every row with the text, so the request lists each: of another kind, label, or other tools."""
    rows = make_rows([
        make_row(1, "Open?", "Yes, until 6."),
        make_row(2, "Open?", "Yes, until 6.", kind="unpaired", label=False, source="thumbs"),
        make_row(3, "open?", "yes,  until 6.", tools="[]", source="tools"),
        make_row(4, "Open?", "No."),
    ])  # fmt: skip
    Path("data/pool").mkdir(parents=True)
    rows.write_parquet("data/pool/rows.parquet")
    Path("data/raw").mkdir()
    source = "{name: source_a, path: a.json, format: qa, licence: MIT, consent: public, share: 1.0}"
    Path("params.yaml").write_text(f"pool:\n  subject_key: public\npipeline:\n  final: sft\nsources:\n  - {source}\n")
    Path("models/align").mkdir(parents=True)
    Path("models/align/adapter_config.json").write_text("{}")
    pl.DataFrame({"row_id": [rows["row_id"][1]], "step": [1]}).write_parquet("models/align/consumed.parquet")
    said = tell(capsys, "forget", rows["row_id"][0], "--request", "r-1")
    assert "models that carry them or their duplicates: align" in said
    assert "2 duplicates in other records: to go with them" in said
    for row in rows["row_id"][1:3]:
        assert f"{row}  of {rows['row_id'][0]}  similarity 1.00" in said
    assert rows["row_id"][3] not in said
    assert "3 rows would go onto" in said
    said = tell(capsys, "forget", rows["row_id"][0], "--request", "r-1", "--keep-duplicates")
    assert "2 duplicates in other records: to stay" in said
    assert "1 row would go onto" in said
    call(alone, "git", "init", "-q")
    Path("dvc.lock").write_text("stages: {}\n")
    call(alone, "git", "add", "dvc.lock")
    call(alone, *COMMIT, "results")
    tell(capsys, "forget", rows["row_id"][0], "--request", "r-1", "--write")
    entries = [json.loads(line) for line in FILE.read_text().splitlines()]
    assert [entry["value"] for entry in entries] == rows["row_id"][:3].to_list()
    assert {entry["content"] for entry in entries} == set(digest_contents(rows[:3], b"pedigree"))


def test_a_table_that_is_cut_off_is_named(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/pool").mkdir(parents=True)
    path = Path("data/pool/rows.parquet")
    make_rows([make_row(1, "Open?", "Yes.")]).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    Path("params.yaml").write_text("pool:\n  subject_key: public\n")
    for command in (("trace",), ("forget", "--request", "r-1")):
        said = complain(capsys, command[0], f"{1:016x}", *command[1:])
        assert f"{path}: expected {path} of the workspace, a Parquet table, and found none, or one that is cut" in said
        assert f"`dvc checkout --force {path}`" in said
    said = complain(capsys, "trace", "--text", "Open?")
    assert f"{path}: expected {path} of the workspace, a Parquet table, and found none, or one that is cut" in said


def follow_advice(said: str) -> None:
    """Do in params.yaml what forget prints, word for word."""
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    sources = {source["name"]: source for source in params["sources"]}
    for name in re.findall(r"sources: delete the entry (\w+)", said):
        params["sources"].remove(sources[name])
    for name, share in re.findall(r"sources\.(\w+)\.share: ([\d.]+)", said):
        sources[name]["share"] = float(share)
    yaml.dump(params, Path("params.yaml"))


def edit_record(path: str, number: int, column: str, text: str) -> None:
    with open(path, newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t")
        records, names = list(reader), reader.fieldnames or []
    records[number][column] = text
    with open(path, "w", newline="") as lines:
        writer = csv.DictWriter(lines, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def request_all(inside: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, set[str]]:
    """Three requests: a person and a pair that trained models, a whole source, a row whose record is then edited."""
    pool = pl.read_parquet("data/pool/rows.parquet")
    trained = set(pl.read_parquet("models/sft/consumed.parquet")["row_id"])
    pair = pl.read_parquet("models/align/consumed.parquet")["row_id"][0]
    mine = pool.filter(pl.col("subject").is_not_null(), pl.col("row_id").is_in(list(trained))).row(0, named=True)
    with open("data/raw/sources/patient_questions.csv", newline="") as lines:
        patient = list(csv.DictReader(lines))[mine["record"]]["patient_id"]
    said = tell(capsys, "forget", "--subject", patient, "--request", "2026.014", "--write")
    assert "models that carry them or their duplicates: align, quantized, sft" in said
    assert "whoever reads the list can try names" in said
    tell(capsys, "forget", pair, "--request", "2026.014", "--write", "--add")
    said = tell(capsys, "forget", "--source", "dialogues", "--request", "2026.015", "--write")
    assert "No row of dialogues is left" in said
    follow_advice(said)
    clusters = pl.read_parquet("data/clusters/clusters.parquet")
    lone = pool.filter(~pl.col("row_id").is_in(clusters["row_id"].implode()), source="desk_cards").row(0, named=True)
    tell(capsys, "forget", lone["row_id"], "--request", "2026.016", "--write")
    edit_record(lone["file"], lone["record"], "back", lone["messages"][1]["content"] + " Ask the desk.")
    entries = [json.loads(line) for line in FILE.read_text().splitlines()]
    assert [(e["request"], e["value"]) for e in entries if e["kind"] != "row"] == [
        ("2026.014", mine["subject"]),
        ("2026.015", "dialogues"),
    ]
    rows = {name: {e["value"] for e in entries if e["kind"] == "row" and e["request"] == name}
            for name in ("2026.014", "2026.015", "2026.016")}  # fmt: skip
    asked = {*pool.filter(subject=mine["subject"])["row_id"], pair}
    near = clusters.filter(pl.col("row_id").is_in(list(asked)))["cluster"]
    alike = asked | set(clusters.filter(pl.col("cluster").is_in(near.implode()))["row_id"])
    texts = pl.Series(digest_contents(pool, b"pedigree"))
    same = pool.filter(texts.is_in(texts.filter(pool["row_id"].is_in(list(alike))).implode()))
    assert rows["2026.014"] == alike | set(same["row_id"])
    assert rows["2026.016"] == {lone["row_id"]}
    return rows


def test_a_person_is_forgotten(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows, duplicates, tables, models, evidence, purge: one drill from the requests to the reports."""
    former = pl.read_parquet("data/pool/rows.parquet")
    rows = request_all(inside, capsys)
    gone = set.union(*rows.values())
    assert "dvc status: pool, dedup, mix, card would run again" in complain(
        capsys, "forget", "--request", "2026.014", "--prove"
    )

    call(inside, *DVC, "repro")
    ledger = pl.read_parquet("data/pool/ledger.parquet")
    read = set(former.filter(pl.col("source") != "dialogues")["row_id"])
    assert set(ledger.filter(reason="excluded")["row_id"]) == (gone & read) - rows["2026.016"]
    for path in [*Path("data").glob("*/*.parquet"), *Path("models").glob("*/*.parquet")]:
        if path != Path("data/pool/ledger.parquet"):
            table = pl.read_parquet(path)
            columns = [column for column in ("row_id", "other_id", "target", "cluster") if column in table.columns]
            assert not gone & {name for column in columns for name in table[column]}, path
    assert "dropped: excluded" in tell(capsys, "trace", sorted(rows["2026.014"])[0])
    assert f"without a report: {', '.join(rows)}" in check_requests()[0]
    assert "2026.015, 2026.016 is on the exclusion list and has no report" in complain(
        capsys, "forget", "--request", "2026.014", "--prove", "--purge", "--yes"
    )
    assert not Path("reports/forget_2026.014.json").exists()
    check_reports(rows, former, capsys)
    call(inside, "git", "add", "-A")
    call(inside, *COMMIT, "forgotten")
    check_purge(rows, capsys)


def prove(name: str, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    tell(capsys, "forget", "--request", name, "--prove", *options)
    return json.loads(Path(f"reports/forget_{name}.json").read_text())


def check_reports(rows: dict[str, set[str]], former: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    report = prove("2026.014", capsys)
    assert report["excluded"] == {"subject": 1, "source": 0, "row": len(rows["2026.014"])}
    assert report["match_no_record"] == report["in_their_place"] == []
    assert sum(report["left_out_by_pool"].values()) == len(rows["2026.014"])
    assert sum(report["records_in_raw_files"].values()) == len(rows["2026.014"])
    assert {copy["what"] for copy in report["cache"]} == {"table", "model"}
    before = call(Path(), "git", "show", f"{report['before']['commit']}:dvc.lock")
    assert hashlib.sha256(before.encode()).hexdigest() == report["before"]["dvc_lock"]
    # The adapter that the rows trained, the one on top of it, and the weights that have both merged in.
    former_models = set(re.findall(r"path: models/(?:sft|align|quantized)\n\s+hash: md5\n\s+md5: (\w+\.dir)", before))
    assert len(former_models) == 3
    for folder in former_models:
        files = json.loads((Path(".dvc/cache/files/md5") / folder[:2] / folder[2:]).read_text())
        weights = {file["md5"] for file in files if file["relpath"].endswith(".safetensors")}
        assert weights
        assert weights <= {copy["md5"] for copy in report["cache"] if copy["what"] == "model" and not copy["in_use"]}
    assert hashlib.sha256(Path("dvc.lock").read_bytes()).hexdigest() == report["after"]["dvc_lock"]
    assert report["after"]["commit"] is None  # not committed yet
    for model, parts in (("sft", {"text"}), ("align", {"chosen", "rejected"})):
        found = report["likelihood"][model]
        assert 1 <= found["scored"] == found["rows"] == report["trained_before"][model]
        assert [set(found[when]["forgotten"]) for when in ("before", "after")] == [parts, parts]
        assert all(
            value > 0 for when in ("before", "after") for group in found[when].values() for value in group.values()
        )
    assert report["trained_after"] == {"sft": 0, "align": 0, "quantized": 0}
    page = Path("reports/forget_2026.014.md").read_text()
    assert "git history of data/raw/sources/patient_questions.csv" in page
    assert "| Name | Role | Date | Signature |" in page
    assert f"the {len(rows['2026.014'])} rows of this request stand in none of the" in page

    whole = prove("2026.015", capsys)
    assert set(whole["match_no_record"]) == set(former.filter(source="dialogues")["row_id"]) & rows["2026.015"]
    assert whole["records_in_raw_files"]["data/raw/sources/dialogues.json"] is None
    assert "is here, read by no source" in Path("reports/forget_2026.015.md").read_text()

    edited = prove("2026.016", capsys)
    (place,) = edited["in_their_place"]
    assert (place["of"], place["similarity"] > 0.5) == (*rows["2026.016"], True)
    assert (
        "Rows with another text that came in the place of one, and are used"
        in Path("reports/forget_2026.016.md").read_text()
    )
    told, faults = check_requests()
    assert (told, faults) == ("3 proved: none of their rows is back", [])


def check_purge(rows: dict[str, set[str]], capsys: pytest.CaptureFixture[str]) -> None:
    earlier = prove("2026.014", capsys)
    assert earlier["after"]["commit"] == call(Path(), "git", "rev-parse", "HEAD").strip()
    objects = set(Path(".dvc/cache/files/md5").glob("*/*"))
    said = tell(capsys, "forget", "--request", "2026.014", "--purge", "--dry-run")
    count = int(re.search(r"cache: (\d+) objects", said)[1])  # type: ignore[index]
    assert re.search(r"the data of 1 commit\b", said)
    refused = complain(capsys, "forget", "--request", "2026.014", "--prove", "--purge")
    assert "nothing was deleted; --yes deletes" in refused
    assert set(Path(".dvc/cache/files/md5").glob("*/*")) == objects
    report = prove("2026.014", capsys, "--purge", "--yes")
    assert len(objects) - len(set(Path(".dvc/cache/files/md5").glob("*/*"))) == count > 0
    assert [copy for copy in report["cache"] if not copy["in_use"]] == []
    assert report["purged"][0].startswith(f"{count} objects of DVC's cache")
    again = prove("2026.014", capsys)  # the tables of before are gone, what they said is not
    assert not again["tables_of_before"]
    for key in ("before", "likelihood", "raw_files_in_git", "trained_before", "purged"):
        assert again[key] == report[key], key
    (place,) = prove("2026.016", capsys)["in_their_place"]
    assert (place["of"], place["similarity"]) == (None, None)
    done = subprocess.run([*DVC, "status"], capture_output=True, text=True, check=True)
    assert "up to date" in done.stdout
    back = pl.DataFrame({"row_id": sorted(rows["2026.014"])[:1]})
    back.write_parquet("data/mix/back.parquet")
    (fault,) = check_requests()[1]
    assert fault.startswith("data/mix/back.parquet: holds 1 of the rows that reports/forget_2026.014.md says are gone")
    Path("data/mix/back.parquet").unlink()
    FILE.write_text("".join(FILE.read_text().splitlines(keepends=True)[:-1]))
    (fault,) = check_requests()[1]
    assert fault.startswith("reports/forget_2026.016.json: speaks of 1 lines of data/raw/exclusions.jsonl, which has 0")
