"""The whole graph on the recipe `tiny`: real stages, a toy model, and what an edit reruns."""

import hashlib
import json
import re
from pathlib import Path

import polars as pl
import pytest
from ruamel.yaml import YAML
from tiny import DVC, call, copy_project

STAGES = ["base", "pool", "dedup", "scrub", "decontaminate", "mix", "sft", "align", "quantize"] + [
    f"eval@{model}" for model in ("base", "sft", "align", "quantized")
] + ["card"]  # fmt: skip


def would_run(folder: Path) -> list[str]:
    """The stages that an edit reaches at once; what follows them runs too where their outputs come out changed."""
    lines = call(folder, *DVC, "repro", "--dry").splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def metrics(folder: Path, name: str) -> dict:
    return json.loads((folder / "metrics" / f"{name}.json").read_text())


def test_every_stage_ran_and_a_second_run_has_nothing_to_do(project: Path) -> None:
    locked = (project / "dvc.lock").read_text()
    assert all(f"  {stage}:\n" in locked for stage in STAGES)
    assert would_run(project) == []


def test_rows_balance_from_stage_to_stage(project: Path) -> None:
    pool = metrics(project, "pool")
    assert pool["records_in"] == pool["records_read"] + pool["refused"]
    rows = pool["rows_out"]
    for stage in ("dedup", "scrub", "decontaminate"):
        counts = metrics(project, stage)
        dropped = pl.read_parquet(project / f"data/{stage}/ledger.parquet").filter(pl.col("action") == "drop")
        assert counts["rows_in"] == rows
        assert counts["rows_out"] == rows - dropped["row_id"].n_unique()
        rows = counts["rows_out"]
    assert metrics(project, "mix")["rows_in"] == rows


def test_what_was_consumed_is_the_training_mixture(project: Path) -> None:
    for kind, model in (("sft", "sft"), ("preference", "align")):
        mixture = pl.read_parquet(project / f"data/mix/{kind}.parquet")
        consumed = pl.read_parquet(project / f"models/{model}/consumed.parquet")
        assert sorted(consumed["row_id"]) == sorted(mixture.filter(pl.col("split") == "train")["row_id"])
        steps = metrics(project, model)["steps"]
        assert consumed["step"].max() == steps - 1


def test_no_held_out_prompt_is_trained_on(project: Path) -> None:
    for kind in ("sft", "preference"):
        rows = pl.read_parquet(project / f"data/mix/{kind}.parquet").with_columns(
            pl.col("messages").list.first().struct.field("content").str.to_lowercase().alias("asked"),
            pl.col("messages").list.first().struct.field("role").alias("role"),
        )
        users = rows.filter((pl.col("role") == "user") & pl.col("subject").is_null())
        sides = {split: set(users.filter(pl.col("split") == split)["asked"]) for split in ("train", "heldout")}
        assert sides["train"]
        assert sides["train"] & sides["heldout"] == set()


def test_preference_tuning_starts_at_ln_2_and_the_metrics_bear_their_names(project: Path) -> None:
    align = metrics(project, "align")
    assert abs(align["loss_at_start"] - 0.693147) < 1e-3
    assert {"heldout_accuracy", "heldout_margin"} <= set(align)
    assert {"train_loss", "heldout_loss", "supervised_tokens"} <= set(metrics(project, "sft"))
    assert {"bytes", "bytes_share"} <= set(metrics(project, "quantize"))
    for model in ("base", "sft", "align", "quantized"):
        scores = metrics(project, f"eval/{model}")
        assert {"acc", "acc_stderr"} <= set(scores["clinic"]) & set(scores["general"])


def test_every_plot_is_drawn_by_dvc(project: Path) -> None:
    drawn = json.loads(call(project, *DVC, "plots", "show", "--json"))["data"]
    named = YAML(typ="safe", pure=True).load((project / "dvc.yaml").read_text())["plots"]
    assert list(drawn) == [name for plot in named for name in plot]
    assert all(plot["content"]["data"]["values"] for (plot,) in drawn.values())
    scores = drawn["metrics/plots/evaluation.csv"][0]["content"]
    assert scores["facet"]["field"] == "score"
    assert {(line["model"], line["task"]) for line in scores["data"]["values"]} == {
        (model, task) for model in ("base", "sft", "align", "quantized") for task in ("clinic", "general")
    }


def test_quantized_weights_are_compressed_tensors_without_a_trace_of_this_machine(project: Path) -> None:
    config = json.loads((project / "models/quantized/config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    reports = (path for path in project.glob("reports/**/*") if path.is_file())
    for path in [*project.glob("models/*/*.json"), *project.glob("metrics/**/*.json"), *reports]:
        assert str(project) not in path.read_text(), path
    assert not [path for path in project.glob("models/**/*") if path.suffix in (".bin", ".pt", ".pkl", ".pth")]


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("dpo.beta=0.2", ["align", "card"]),  # the card states the settings of the method
        ("quantize.dampening=0.1", ["quantize"]),
        ("sft_dp.epsilon=3.0", []),
        ("train.lr=0.02", ["sft", "card"]),
    ],
)
def test_a_parameter_reruns_what_it_reaches(project: Path, change: str, first: list[str]) -> None:
    before = (project / "params.yaml").read_text()
    try:
        key, _, value = change.partition("=")
        block, _, name = key.partition(".")
        parameters = YAML()
        values = parameters.load(before)
        values[block][name] = float(value)
        parameters.dump(values, project / "params.yaml")
        ran = set(would_run(project))
        assert ran == set(first)
    finally:
        (project / "params.yaml").write_text(before)


def test_an_edit_of_the_method_reruns_nothing_before_it(project: Path) -> None:
    path = project / "stages/dpo.py"
    before = path.read_text()
    try:
        path.write_text(before + "\n# edited\n")
        assert would_run(project) == ["align", "card"]  # the card states the digest of each stage's code
    finally:
        path.write_text(before)


def test_one_changed_record_reruns_from_pool_and_the_rest_stands(project: Path) -> None:
    path = project / "data/raw/sources/clinic_faq.json"
    before = path.read_bytes()
    try:
        records = json.loads(before)
        records[0]["output"] = "We open early and close at six."
        path.write_text(json.dumps(records))
        assert would_run(project) == ["pool"]
    finally:
        path.write_bytes(before)


def test_a_teammate_works_without_the_raw_personal_data(project: Path, tmp_path: Path) -> None:
    """`dvc push` leaves pool and dedup out; pull and repro with --allow-missing go on from scrub."""
    identity = ("git", "-c", "user.name=t", "-c", "user.email=t@example.com")
    call(project, *DVC, "remote", "add", "--local", "-f", "-d", "store", str(tmp_path / "store"))
    call(project, "git", "add", "-A")
    call(project, *identity, "commit", "-qm", "results", "--allow-empty")
    call(project, *DVC, "push")
    call(tmp_path, "git", "clone", "-q", str(project), "clone")
    clone = tmp_path / "clone"
    call(clone, *DVC, "remote", "add", "--local", "-f", "-d", "store", str(tmp_path / "store"))
    call(clone, *DVC, "pull", "--allow-missing")
    assert (clone / "data/scrub/rows.parquet").is_file()
    assert (clone / "data/clusters/clusters.parquet").is_file()  # row ids alone
    assert not (clone / "data/pool/rows.parquet").exists()
    assert not (clone / "data/dedup/rows.parquet").exists()
    lines = call(clone, *DVC, "repro", "--allow-missing", "--dry").splitlines()
    assert [line for line in lines if line.startswith("Running stage")] == []
    stored = {path.name for path in (tmp_path / "store").rglob("*") if path.is_file()}
    for stage in ("pool", "dedup"):
        for path in (project / f"data/{stage}").iterdir():
            assert hashlib.md5(path.read_bytes()).hexdigest()[2:] not in stored


def test_two_runs_from_scratch_are_equal(project: Path, tmp_path: Path) -> None:
    """Data byte for byte, and the loss of every step of both trainings."""
    copy_project(tmp_path)
    call(tmp_path, *DVC, "repro", "align")
    for path in sorted((project / "data").glob("*/*.parquet")):
        assert path.read_bytes() == (tmp_path / path.relative_to(project)).read_bytes(), path.name
    for name in ("sft", "align"):
        curve = f"metrics/plots/{name}.csv"
        assert (project / curve).read_text() == (tmp_path / curve).read_text()


def test_the_card_accounts_for_every_row_of_every_source(project: Path) -> None:
    """The table of the card, counted again in the tables, also in those that the card cannot ask for."""
    read = {path: pl.read_parquet(project / path) for path in (
        "data/pool/rows.parquet", "data/pool/refused.parquet", "data/dedup/ledger.parquet", "data/scrub/ledger.parquet",
        "data/decontaminate/ledger.parquet", "data/mix/ledger.parquet", "data/mix/sft.parquet",
        "data/mix/preference.parquet", "models/sft/consumed.parquet", "models/align/consumed.parquet",
    )}  # fmt: skip
    rows = read["data/pool/rows.parquet"]
    source_of = dict(rows.select("row_id", "source").iter_rows())

    def count(ids: pl.Series, source: str) -> int:
        return sum(source_of[row] == source for row in set(ids))

    mixed = pl.concat([read["data/mix/sft.parquet"], read["data/mix/preference.parquet"]], how="vertical_relaxed")
    clean = read["data/decontaminate/ledger.parquet"].filter(action="drop")
    trained = pl.concat([read[f"models/{model}/consumed.parquet"]["row_id"] for model in ("sft", "align")])
    table = re.search(
        r"\| source \|( records in .*)\n\|[-:|]+\n((?:\|.*\n)+)", (project / "reports/card.md").read_text()
    )
    assert table is not None
    titles = [title.strip() for title in table[1].split("|")[:-1]]
    lines = {cells[1].strip(): [int(cell.replace(",", "")) for cell in cells[2:-1]]
             for line in table[2].splitlines() if (cells := line.split("|"))}  # fmt: skip
    assert set(lines) == {*rows["source"].unique(), "**all sources**"}
    for source, numbers in lines.items():
        if source == "**all sources**":
            assert numbers == [
                sum(column) for column in zip(*(lines[name] for name in lines if name != source), strict=True)
            ]
            continue
        shown = dict(zip(titles, numbers, strict=True))
        expected = {
            "refused": read["data/pool/refused.parquet"].filter(source=source).select("file", "record").n_unique(),
            "rows": rows.filter(source=source).height,
            "duplicates": count(read["data/dedup/ledger.parquet"]["row_id"], source),
            "like eval items": count(clean.filter(reason="contaminated")["row_id"], source),
            "left out of mix": count(read["data/mix/ledger.parquet"]["row_id"], source),
            "held out": count(mixed.filter(split="heldout")["row_id"], source),
            "trained": count(trained, source),
            "changed by scrub": count(read["data/scrub/ledger.parquet"].filter(action="change")["row_id"], source),
        }
        assert {title: shown[title] for title in expected} == expected
        seldom = ("deletion requests", "not searchable", "equal pairs", "filtered", "not used")
        rare = sum(shown.get(title, 0) for title in seldom)
        gone = ("duplicates", "like eval items", "left out of mix", "held out", "trained")
        assert shown["rows"] == rare + sum(shown[title] for title in gone)
