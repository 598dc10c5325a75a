"""trace, diff and verify on a finished run: what they say is recomputed here from raw files and tables."""

import csv
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import make_row, make_rows
from ruamel.yaml import YAML
from tiny import DVC, call, complain, tell

from bench.recount import Run, compare, make_ids
from pedigree.certificate import largest_difference
from pedigree.cli import main
from pedigree.journey import follow
from pedigree.snapshot import Snapshot
from pedigree.trace import may_hold


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def restored(inside: Path) -> Iterator[Path]:
    """The project, which is brought back to its last commit in the end."""
    head = call(inside, "git", "rev-parse", "HEAD").strip()
    yield inside
    call(inside, "git", "reset", "-q", "--hard", head)
    shutil.rmtree("models/sft", ignore_errors=True)  # DVC believes a file of the same size and time unchanged
    call(inside, *DVC, "checkout", "--force")
    assert "up to date" in call(inside, *DVC, "status")


def trace_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in tell(capsys, "trace", *arguments, "--json").splitlines()]


def test_two_hundred_random_rows_are_where_trace_says(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids made from the raw files, journeys walked through tables and ledgers, all without the pipeline's code."""
    sources = YAML(typ="safe").load(Path("params.yaml").read_text())["sources"]
    raw = {row: place for source in sources for row, place in make_ids(source, Path()).items()}
    assert set(raw) == set(pl.read_parquet("data/pool/rows.parquet")["row_id"])
    run = Run(Path())
    dropped = [row for stage in ("dedup", "decontaminate") for row in run.ledgers[stage]]
    drawn = list(dict.fromkeys([*random.Random(5).sample(sorted(raw), 200), *dropped]))
    told = trace_json(capsys, *drawn)
    assert [journey["row_id"] for journey in told] == drawn
    assert [fault for journey in told for fault in compare(journey, journey["row_id"], raw, run)] == []


def test_a_dropped_duplicate_names_the_row_that_stands_for_it(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = pl.read_parquet("data/dedup/ledger.parquet").filter(reason="near_duplicate")
    dropped, survivor = ledger.select("row_id", "other_id").row(0)
    text = tell(capsys, "trace", dropped)
    assert f"dropped: near duplicate of {survivor}" in text
    assert "carried by  no model" in text
    assert f"stands for 1 more: {dropped}" in tell(capsys, "trace", survivor)


def test_rows_by_record_text_subject_and_model(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pl.read_parquet("data/pool/rows.parquet")
    row = pool.filter(source="patient_questions").row(7, named=True)
    by_record = trace_json(capsys, "--source", "patient_questions", "--record", str(row["record"]))
    assert [journey["row_id"] for journey in by_record] == [row["row_id"]]
    asked = row["messages"][0]["content"]
    assert row["row_id"] in [journey["row_id"] for journey in trace_json(capsys, "--text", asked.upper())]
    near = trace_json(capsys, "--text", asked + " And a word or two beside it.", "--near", "0.5")
    assert row["row_id"] in [journey["row_id"] for journey in near]
    with open("data/raw/sources/patient_questions.csv", newline="") as lines:
        patient = list(csv.DictReader(lines))[row["record"]]["patient_id"]
    of_person = {journey["row_id"] for journey in trace_json(capsys, "--subject", patient)}
    assert of_person == set(pool.filter(subject=row["subject"])["row_id"])
    everything = {journey["row_id"] for journey in trace_json(capsys, "--model", "align")}
    trained = [set(pl.read_parquet(f"models/{model}/consumed.parquet")["row_id"]) for model in ("sft", "align")]
    assert everything == trained[0] | trained[1]
    assert "rows are in a model" in tell(capsys, "trace", "--model", "sft")


def test_what_a_duplicate_trained_through_its_twin_is_told(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the terminal, in its object, in the table of events, and in the sum of many."""
    trained = set(pl.read_parquet("models/sft/consumed.parquet")["row_id"])
    ledger = pl.read_parquet("data/dedup/ledger.parquet")
    row, twin = ledger.filter(pl.col("other_id").is_in(list(trained))).select("row_id", "other_id").row(0)
    assert "that row trained sft, align, quantized" in tell(capsys, "trace", row)
    (journey,) = trace_json(capsys, row)
    assert journey["models"] == []
    assert journey["events"][-1]["other_models"] == ["sft", "align", "quantized"]
    (journey,) = trace_json(capsys, twin)
    assert row in [other["other_id"] for other in journey["stands_for"]]
    source = pl.read_parquet("data/pool/rows.parquet").filter(row_id=row)["source"].item()
    ids = set(pl.read_parquet("data/pool/rows.parquet").filter(source=source)["row_id"])
    twins = ledger.filter(pl.col("row_id").is_in(list(ids)), pl.col("other_id").is_in(list(trained))).height
    path = Path(".pedigree/events.parquet")
    said = tell(capsys, "trace", "--source", source, "--output", str(path))
    assert f"{twins:,} are duplicates of rows that trained sft, align, quantized" in said
    table = pl.read_parquet(path).filter(row_id=row, event="dropped")
    assert table["other_models"].to_list() == [["sft", "align", "quantized"]]


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ("The Desk\n opens at NINE", "desk opens at nine"),
        ("in the \ufb01rst room", "IN THE FIRST ROOM"),  # a ligature: not ASCII, so looked into whole
        ("it costs 5 + 5 = 10", "+ 5 ="),
        ("¿por qué?", "por qué?"),
    ],
)
def test_no_row_that_holds_a_text_is_passed_over(held: str, asked: str) -> None:
    from stages.common.rows import normalise

    rows = make_rows([make_row(1, held, "Yes."), make_row(2, "Nothing of it", "No."), make_row(3, "A pair", "a", held)])
    assert rows.lazy().filter(may_hold(normalise(asked))).collect()["record"].to_list() == [1, 3]


def test_journeys_as_parquet_and_lines(inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(capsys, "trace", "--source", "community", "--output", str(tmp_path / "rows.parquet"))
    table = pl.read_parquet(tmp_path / "rows.parquet")
    assert table["row_id"].n_unique() == pl.read_parquet("data/pool/rows.parquet").filter(source="community").height
    tell(capsys, "trace", "--source", "community", "--output", str(tmp_path / "rows.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {line["row_id"] for line in lines} == set(table["row_id"])


def test_what_trace_cannot_find_is_said(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = pl.read_parquet("data/pool/refused.parquet").row(0, named=True)
    where = ("--source", refused["source"], "--record", str(refused["record"]))
    assert f"refused by pool: {refused['reason']}" in complain(capsys, "trace", *where)
    assert "no row of the workspace has this id" in complain(capsys, "trace", "0123456789abcdef")
    assert "is no row_id" in complain(capsys, "trace", "xyz")
    assert "no row of this subject" in complain(capsys, "trace", "--subject", "nobody at all")
    assert "git knows no such revision" in complain(capsys, "trace", "--rev", "nowhere", "ab")
    assert "name rows in one way" in complain(capsys, "trace")
    assert "--near" in complain(capsys, "trace", "--text", "x", "--near", "2")


def test_a_revision_is_read_out_of_the_cache(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = pl.read_parquet("data/pool/rows.parquet")["row_id"][3]
    before = trace_json(capsys, row)
    shutil.rmtree("data/pool")
    shutil.rmtree("models/sft")
    assert trace_json(capsys, row, "--rev", "HEAD") == before


def test_what_is_not_here_is_said_and_no_model_is_cleared(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = pl.read_parquet("models/sft/consumed.parquet")["row_id"][0]
    for name in ("pool", "dedup"):
        shutil.rmtree(f"data/{name}")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["trace", row])
    said = capsys.readouterr()
    assert "dedup          not known: its tables are not here" in said.out
    assert "carried by     sft, align, quantized" in said.out
    assert "data/dedup: was written, but is not here" in said.err
    shutil.rmtree("models/sft")
    assert "models/sft: was written, but is not here" in complain(capsys, "trace", row)


def test_a_run_made_of_two_is_said(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = YAML().load(Path("dvc.lock").read_text())
    (out,) = [out for out in lock["stages"]["sft"]["outs"] if out["path"] == "models/sft"]
    out["md5"] = "0" * 32 + ".dir"
    YAML().dump(lock, Path("dvc.lock"))
    row = pl.read_parquet("models/sft/consumed.parquet")["row_id"][0]
    assert "align read another models/sft than sft wrote" in complain(capsys, "trace", row)
    assert "align read another models/sft than sft wrote" in complain(capsys, "verify")


def test_no_number_is_near_none() -> None:
    assert largest_difference({"loss": 1.0}, {"loss": 1.02}) == pytest.approx(0.02 / 1.02)
    assert largest_difference({"loss": 1.0}, {"loss": float("nan")}) == float("inf")
    assert largest_difference({"loss": 1.0}, {"loss": True, "more": 1}) == float("inf")


def test_one_changed_record_is_the_difference_that_is_named(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("data/raw/sources/clinic_faq.json")
    records = json.loads(path.read_text())
    old = pl.read_parquet("data/pool/rows.parquet").filter(source="clinic_faq", record=5)["row_id"].item()
    records[5]["output"] += " Please bring a card."
    records.insert(2, {"instruction": "May I bring my parrot?", "input": "", "output": "Birds stay at home."})
    path.write_text(json.dumps(records))
    call(restored, *DVC, "repro", "pool")
    report = json.loads(tell(capsys, "diff", "HEAD", "--json"))
    (counts,) = [line for line in report["rows"] if line["source"] == "clinic_faq"]
    assert (counts["added"], counts["removed"], counts["changed"]) == (1, 0, 1)
    assert all(line["added"] == line["removed"] == line["changed"] == 0 for line in report["rows"] if line != counts)
    examples = {line["change"]: line for line in report["examples"]}
    assert examples["changed"]["former_id"] == old
    assert (examples["changed"]["record"], examples["added"]["record"]) == (6, 2)
    assert {cause["name"] for cause in report["causes"]["eval@sft"]} == {"data/raw/sources"}


def test_a_changed_parameter_is_the_only_difference(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = YAML()
    values = parameters.load(Path("params.yaml").read_text())
    values["dpo"]["beta"] = 0.3
    parameters.dump(values, Path("params.yaml"))
    call(restored, *DVC, "repro", "align")
    text = tell(capsys, "diff", "HEAD")
    assert "dpo.beta" in text
    assert "the only difference before align, quantized" in text
    assert "the same on every item" in text


def test_versions_with_different_keys_are_compared_by_content(
    restored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    secret = "a key that is long enough"
    monkeypatch.setenv("PEDIGREE_KEY", secret)
    fingerprint = hashlib.sha256(secret.encode()).hexdigest()[:12]
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("subject_key: public", f'subject_key: "{fingerprint}"'))
    call(restored, *DVC, "repro", "pool")
    report = json.loads(tell(capsys, "diff", "HEAD", "--json"))
    assert all(line["added"] == line["removed"] == line["changed"] == 0 for line in report["rows"])


def test_a_finished_run_agrees_with_itself(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bytecode = Path("stages/mixing/__pycache__/sample.pyc")  # no input of any stage
    bytecode.parent.mkdir(exist_ok=True)
    bytecode.write_bytes(b"")
    assert "All of it agrees" in tell(capsys, "verify")


def replace_byte(path: Path) -> None:
    """Another content of the same size and time, in a file of its own (DVC may have linked it to its cache)."""
    content, stat = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    import os

    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_flipped_byte_of_a_model_is_named(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace_byte(Path("models/sft/adapter_model.safetensors"))
    assert "models/sft/adapter_model.safetensors: has changed since dvc.lock" in complain(capsys, "verify")


def test_an_edited_metric_is_named(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("metrics/eval/sft.json")
    measured = json.loads(path.read_text())
    measured["clinic"]["acc"] += 0.1
    path.write_text(json.dumps(measured, indent=1))
    said = complain(capsys, "verify")
    assert "metrics/eval/sft.json: is not what dvc.lock recorded" in said
    assert "`git checkout metrics/eval/sft.json` brings it back" in said
    assert "reports: no card can be made of what is here: metrics/eval/sft.json: " in said


def test_a_lost_line_of_a_ledger_is_named(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("data/decontaminate/ledger.parquet")
    ledger = pl.read_parquet(path)
    path.unlink()
    ledger[1:].write_parquet(path)
    said = complain(capsys, "verify")
    assert "a row is gone without a line: rows_in = rows_out + dropped does not hold (1 row: " in said
    assert f"(1 row: {ledger['row_id'][0]})" in said
    assert "data/decontaminate/ledger.parquet: has changed since dvc.lock" in said


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("models/base/config.json", "{"),
        ("models/sft/parent.json", "[]"),
        ("metrics/quantize.json", "{,"),
        ("metrics/eval/sft.json", '{"clinic": {"acc": null}}'),
        ("metrics/scrub.json", '{"rows_in": "many"}'),
        ("data/mix/ledger.parquet", "PAR1"),
    ],
)
def test_a_broken_file_hides_no_other_fault(
    path: str, text: str, restored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(path).unlink()
    Path(path).write_text(text)
    with Path("metrics/mix.json").open("a") as file:
        file.write("\n")
    said = complain(capsys, "verify")
    assert re.search(rf"{path}: (has changed since|is not what) dvc.lock recorded", said)
    assert "metrics/mix.json: is not what dvc.lock recorded" in said


def test_a_row_that_mix_lost_is_named(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("data/mix/ledger.parquet")
    ledger = pl.read_parquet(path)
    path.unlink()
    ledger[1:].write_parquet(path)
    told = f"rows_in = rows_out + dropped does not hold (1 row: {ledger['row_id'][0]})"
    assert f"{path}, nothing is lost: a row is gone without a line: {told}" in complain(capsys, "verify")


def test_another_package_is_named(
    restored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    true = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "polars" else true(name))
    assert "package polars: 0.1 is installed" in complain(capsys, "verify")


def test_a_card_of_another_run_is_named(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run with other parameters, rendered with all that card reads but the lock."""
    params = Path("params.yaml")
    text = params.read_text()
    params.write_text(text.replace("  seed: 1", "  seed: 2").replace("lr: 1.0e-2", "lr: 1.0e-3"))
    call(restored, "sh", "stages/run", "card")
    params.write_text(text)
    said = complain(capsys, "verify")
    for name in ("card.md", "card.html"):
        assert f"reports/{name}: does not say what metrics and parameters say (first in line" in said
        assert f"reports/{name}: is not what dvc.lock recorded" in said


def test_a_rerun_is_certified(restored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tell(capsys, "verify", "--rerun", "dedup")
    assert "certificate: reports/certificates/dedup.json" in said
    outputs = json.loads(Path("reports/certificates/dedup.json").read_text())["outputs"]
    assert {output["verdict"] for output in outputs.values()} == {"equal"}
    assert "data/dedup/rows.parquet" in outputs
    tell(capsys, "verify", "--rerun", "card")
    outputs = json.loads(Path("reports/certificates/card.json").read_text())["outputs"]
    assert outputs["reports/card.html"]["verdict"] == "equal"
    assert "dvc.lock has no such stage" in complain(capsys, "verify", "--rerun", "nothing")


def test_following_many_rows_is_following_each(inside: Path) -> None:
    snapshot = Snapshot(None)
    ids = pl.read_parquet("data/pool/rows.parquet")["row_id"].head(40)
    whole = follow(snapshot, ids)
    parts = pl.concat([follow(snapshot, ids.slice(place, 1)) for place in range(40)])
    assert whole.equals(parts)
