"""pedigree review: a sample of decisions, masked unless asked, and what becomes of the verdicts."""

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pedigree import review
from pedigree.cli import main
from stages.common.params import load
from stages.common.row_contracts import FINDINGS
from stages.common.rows import ROW_SCHEMA, message
from stages.pii.given import read_deny
from stages.pii.params import Scrub

PARAMS = """
scrub:
  language: en
  entities: {PERSON: replace, EMAIL_ADDRESS: replace}
  locales: []
  threshold: 0.5
  names: lists
  key_fingerprint: public
  deny: []
  deny_file:          # path
  deny_fingerprint:   # digest
  # public facts
  allow:
  - Maren Okafor
"""


def row(row_id: str, text: str) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(ROW_SCHEMA)
    place = {"source": "s", "file": "s.json", "record": 0, "licence": "CC0-1.0"}
    said = [message("user", text), message("assistant", "Noted.")]
    return empty | place | {"row_id": row_id, "kind": "sft", "messages": said}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").touch()
    Path("params.yaml").write_text(PARAMS)
    for folder in ("data/dedup", "data/scrub"):
        Path(folder).mkdir(parents=True)
    before = [row("a", "I am Helen Novak, helen@example.com"), row("b", "Ask Metformin Will, or zzyx@localhost.")]
    after = [row("a", "I am <PERSON>, <EMAIL_ADDRESS>"), row("b", "Ask <PERSON>, or zzyx@localhost.")]
    pl.DataFrame(before, ROW_SCHEMA).write_parquet("data/dedup/rows.parquet")
    pl.DataFrame(after, ROW_SCHEMA).write_parquet("data/scrub/rows.parquet")
    found = [("a", 5, 16, "PERSON"), ("a", 18, 35, "EMAIL_ADDRESS"), ("b", 4, 18, "PERSON")]
    lines = [
        {"row_id": name, "place": "messages.0", "start": start, "end": end, "entity": entity, "score": 0.9}
        for name, start, end, entity in found
    ]
    pl.DataFrame(lines, FINDINGS.columns).write_parquet("data/scrub/findings.parquet")
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["review", *arguments])
    return int(str(ended.value.code))


def exported(*arguments: str) -> list[dict[str, Any]]:
    main(["review", "--export", "out.jsonl", *arguments])
    return [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]


def test_export_shows_forms_and_values_only_when_asked(project: Path) -> None:
    shown = {item["kind"]: item["shown"] for item in exported() if item["row_id"] == "a"}
    assert shown["PERSON"] == "[PERSON] ...X am ⟦Xxxxx Xxxxx⟧, <EMAIL_ADDRESS>..."
    assert shown["EMAIL_ADDRESS"] == "[EMAIL_ADDRESS] ...X am <PERSON>, ⟦xxxxx@xxxxxxx.xxx⟧..."
    assert "Novak" not in Path("out.jsonl").read_text()
    assert "zzyx" not in Path("out.jsonl").read_text()
    assert any("Helen Novak" in item["shown"] for item in exported("--show-values"))


def test_sample_is_the_same_for_a_seed(project: Path) -> None:
    samples = [
        tuple(item["start"] for item in exported("--count", "2", "--seed", str(seed))) for seed in (1, 1, 2, 3, 4)
    ]
    assert samples[0] == samples[1]
    assert len(samples[0]) == 3  # two replacements, and the one place that the second look sees
    assert len(set(samples)) > 1


def test_verdicts_become_allow_and_deny_entries(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = exported()
    for item in lines:
        if item["row_id"] == "b":
            item["verdict"] = "missed" if item["residual"] else "wrong"
        elif item["kind"] == "PERSON":
            item |= {"verdict": "correct", "missed": "PERSON: Oru"}
    Path("out.jsonl").write_text("\n".join(json.dumps(item) for item in lines))
    for expected in (
        "1 entries to scrub.allow, 2 to .pedigree/deny.txt; next: dvc repro",
        "0 entries to scrub.allow, 0 to",
    ):
        main(["review", "--import", "out.jsonl"])
        assert expected in capsys.readouterr().out
        params = load(Scrub, "scrub")
        assert params.allow == ["Maren Okafor", "Metformin Will"]
        content = Path(".pedigree/deny.txt").read_bytes()
        first, *entries = content.decode().split("\n")
        assert re.fullmatch("# [0-9a-f]{32}", first)  # so that nobody finds an entry by trying
        assert sorted(entries) == ["", "PERSON: Oru", "zzyx@localhost."]
        assert stat.S_IMODE(Path(".pedigree/deny.txt").stat().st_mode) == 0o600
        assert sorted(read_deny(params)) == ["PERSON: Oru", "zzyx@localhost."]
        assert params.deny_file == ".pedigree/deny.txt"
        assert params.deny_fingerprint == hashlib.sha256(content).hexdigest()[:12]
    text = Path("params.yaml").read_text()
    assert "# public facts" in text
    assert "# path" in text


def test_verdict_at_the_terminal(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["w", "m", "PERSON: Oru", "c", "m"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    main(["review"])
    assert len(load(Scrub, "scrub").allow) == 2
    assert sorted(read_deny(load(Scrub, "scrub"))) == ["PERSON: Oru", "zzyx@localhost."]


def test_wrong_files_are_one_clear_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.jsonl").write_text('{"verdict": "good"}\n')
    assert run("--import", "out.jsonl") == 1
    assert "out.jsonl, line 1: expected a line of `pedigree review --export`" in capsys.readouterr().err
    assert run("--import", "none.jsonl") == 1
    Path("data/scrub/findings.parquet").unlink()
    assert run() == 1
    assert "run `dvc repro scrub`" in capsys.readouterr().err


def test_words_around_a_value_are_forms_too(project: Path) -> None:
    text = "spoke to Zzyva Qwortle, room 7b; see xandu@ward or 李雷, ask <PERSON>, the sister, about I am Helen Novak!"
    start = text.index("Helen")
    pl.DataFrame([row("a", text)], ROW_SCHEMA).write_parquet("data/dedup/rows.parquet")
    found = {"row_id": "a", "place": "messages.0", "start": start, "end": start + 11, "entity": "PERSON", "score": 0.9}
    pl.DataFrame([found], FINDINGS.columns).write_parquet("data/scrub/findings.parquet")
    (decision,) = review.sample_replaced(1, 1)
    masked = review.mask_telling(decision["left"])
    assert masked == "spoke to Xxxxx Xxxxxxx, room 0x; see xxxxx@xxxx or xx, ask <PERSON>, the sister, about X am "
    exported()
    assert not re.search("Zzyva|7b|xandu|李|Helen", Path("out.jsonl").read_text())
    assert stat.S_IMODE(Path("out.jsonl").stat().st_mode) == 0o600


def test_characters_that_steer_a_terminal_are_not_printed() -> None:
    shown = {
        "left": "a\x1b[2J\n\tb",
        "text": "\x9b\u202eX",
        "right": "\ud83d\x07\r",
        "kind": "PERSON",
        "residual": False,
    }
    for show_values in (False, True):
        line = review.show(shown, show_values)
        assert line.isprintable()
        assert "\\x1b[" in line
        assert "\\u202e" in line


def test_verdicts_on_other_tables_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [item | {"verdict": "missed"} for item in exported() if item["residual"]]
    Path("out.jsonl").write_text("\n".join(json.dumps(item) for item in lines) + "\n\n")
    before = Path("params.yaml").read_text()
    rows = pl.read_parquet("data/scrub/rows.parquet")
    rows.with_columns(licence=pl.lit("MIT")).write_parquet("data/scrub/rows.parquet")  # scrub ran again
    assert run("--import", "out.jsonl") == 1
    assert "line 1: was exported before the last run of scrub" in capsys.readouterr().err
    assert Path("params.yaml").read_text() == before
    rows.write_parquet("data/scrub/rows.parquet")
    main(["review", "--import", "out.jsonl"])
    assert read_deny(load(Scrub, "scrub")) == ["zzyx@localhost."]


@pytest.mark.parametrize("changed", [{"place": "chosen.0"}, {"place": "messages"}, {"row_id": "z"}, {"start": "0"}])
def test_lines_that_somebody_broke_are_one_clear_error(
    project: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any]
) -> None:
    item = exported()[0] | {"verdict": "correct"} | changed
    Path("out.jsonl").write_text(json.dumps(item))
    assert run("--import", "out.jsonl") == 1
    assert "out.jsonl, line 1: " in capsys.readouterr().err


def test_an_entry_that_begins_like_a_comment_is_one(project: Path) -> None:
    params = load(Scrub, "scrub")
    assert "2 to" in review.apply_corrections([], ["#5 Mill Lane", "\\\\server"], params)
    params = load(Scrub, "scrub")
    assert read_deny(params) == ["#5 Mill Lane", "\\\\server"]
    first = Path(review.DENY_FILE).read_text().splitlines()[0]
    assert "0 to" in review.apply_corrections([], ["#5 Mill Lane"], params)
    review.apply_corrections([], ["Oru"], params)
    assert read_deny(load(Scrub, "scrub")) == ["#5 Mill Lane", "\\\\server", "Oru"]
    assert Path(review.DENY_FILE).read_text().splitlines()[0] == first
