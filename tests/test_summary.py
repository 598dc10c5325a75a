"""pedigree summary: the numbers of the metric files on one screen, and what to try next."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ruamel.yaml import YAML

from pedigree.cli import main
from pedigree.summary import show_seconds, suggest, write_summary
from stages.common.files import write_json, write_table
from stages.common.params import Train, read_yaml

ROOT = Path(__file__).parent.parent
METRICS: dict[str, dict[str, Any]] = {
    "base": {"parameters": 135, "bytes": 269_000_000},
    "pool": {"rows_in": 1812, "rows_out": 1930, "refused": 12},
    "dedup": {"rows_in": 1930, "rows_out": 1800, "exact_duplicates": 90, "near_duplicates": 40, "swapped_labels": 0},
    "scrub": {"rows_in": 1800, "rows_out": 1800, "changed": 99, "failed": 0, "entities": {"PERSON": 80, "URL": 0}},
    "decontaminate": {
        "rows_in": 1800,
        "rows_out": 1791,
        "contaminated": {"clinic": 7, "general": 0},
        "filtered": {"echo": 2, "too_short": 0},
    },
    "mix": {
        "rows_in": 1793,
        "rows_out": 1700,
        "left_out": {"too_long": 3, "over_budget": 90},
        "sft": {"train_rows": 1400, "heldout_rows": 75, "train_tokens": 150_000},
    },
    "sft": {"train_loss": 1.5, "heldout_loss": 1.25, "supervised_tokens": 60_000},
    "align": {"loss_at_start": 0.69314, "heldout_accuracy": 0.75, "heldout_margin": 0.125},
    "quantize": {"bytes": 94_150_000, "bytes_share": 0.35},
}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone in which every stage has run."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    params = read_yaml(ROOT / "recipes/default.yaml")
    params["train"].update(method="lora", lr=5e-4, epochs=1)
    YAML().dump(params, Path("params.yaml"))
    for stage, measured in METRICS.items():
        write_json(f"metrics/{stage}.json", measured)
    for model, right in {"base": 10, "sft": 25, "align": 28, "quantized": 30}.items():
        put_evaluation(model, right)
    write_json(
        "metrics/timing/sft.json",
        {"wall_seconds": 200.4, "peak_memory_bytes": 2_000_000_000, "output_bytes": 20_000_000},
    )
    write_json(
        "metrics/timing/base.json",
        {"wall_seconds": 4.2, "peak_memory_bytes": 1_000_000_000, "output_bytes": 270_000_000},
    )
    Path("reports").mkdir()
    Path("reports/card.html").write_text("<p>")
    return tmp_path


def put_evaluation(model: str, right: int) -> None:
    """`right` of 40 items are right."""
    write_json(
        f"metrics/eval/{model}.json", {"clinic": {"acc": right / 40, "acc_stderr": 0.05, "items": 40, "clean_acc": 0.1}}
    )
    items = pl.DataFrame({"item": range(40), "correct": [float(item < right) for item in range(40)]})
    write_table(f"data/eval/{model}/items.parquet", items.with_columns(task=pl.lit("clinic"), subtask=pl.lit("clinic")))


def words() -> list[list[str]]:
    return [line.split() for line in write_summary().splitlines()]


def test_all_of_it(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["summary"])
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert ["pool", "1,812", "1,930", "12", "records", "refused"] in lines
    assert ["dedup", "1,930", "1,800", "90", "exact,", "40", "near"] in lines
    assert ["scrub", "1,800", "1,800", "replaced:", "80", "PERSON"] in lines
    assert ["decontaminate", "1,800", "1,791", "2", "echo,", "7", "like", "items", "of", "clinic"] in lines
    assert ["mix", "1,793", "1,700", "3", "too", "long,", "90", "over", "budget"] in lines
    assert ["sft", "1,400", "75", "150,000"] in lines
    assert "training loss 1.500 -> held-out loss 1.250, 60,000 supervised tokens" in text
    assert "loss at start 0.6931 (ln 2 = 0.6931), held-out accuracy 0.750 (0.5 before), margin 0.125" in text
    assert "269 MB -> 94.2 MB, 35% of the base model" in text
    scores = ["0.250", "0.625", "0.700", "0.750"]
    assert ["clinic.acc", *(cell for score in scores for cell in (score, "±", "0.050"))] in lines
    assert ["sft", "3", "min", "20", "s", "2", "GB", "20", "MB"] in lines
    assert ["all", "3", "min", "25", "s", "2", "GB", "290", "MB"] in lines  # 204.6 s, the highest peak, the sum
    cost = [line[0] for line in lines[[line[:1] for line in lines].index(["cost"]) :] if line]
    assert cost[:4] == ["cost", "base", "sft", "all"]
    assert "the quantized model is better on clinic (0.250 to 0.750; difference +0.500" in " ".join(text.split())
    assert "dvc exp run -S train.lr=1.0e-3" in text  # twice 5.0e-4
    assert "reports/card.html" in text
    assert "Not run yet" not in text
    assert "epsilon" not in text
    assert "\033" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_long_counts_stay_within_the_page(clone: Path) -> None:
    entities = {f"ENTITY_OF_A_LONG_NAME_{number}": 1000 + number for number in range(20)}
    write_json("metrics/scrub.json", METRICS["scrub"] | {"entities": entities})
    assert max(map(len, write_summary().splitlines())) <= 100


def test_the_worst_probes_of_each_stage(clone: Path) -> None:
    assert "probes" not in write_summary()
    near = {"planted": 20, "caught": 20, "recall": 1.0, "precision": 0.8}
    types = {
        "exact": near,
        "near_80": near | {"caught": 17, "recall": 0.85},
        "number": {"decoys": 10, "wrongly_caught": 2},
        "negation": {"decoys": 5, "wrongly_caught": 4},
    }
    write_json("metrics/dedup.json", METRICS["dedup"] | {"probes": types})
    # Nothing is expected of a reworded item: its recall is not the lowest.
    reworded = {"planted": 9, "caught": 1, "recall": 0.1}
    write_json(
        "metrics/decontaminate.json", METRICS["decontaminate"] | {"probes": {"part": near, "reworded": reworded}}
    )
    lines = words()
    assert ["dedup", "37", "of", "40", "0.85", "near_80", "6", "of", "15", "negation"] in lines
    assert ["decontaminate", "20", "of", "20", "1.00", "part", "0", "of", "0", "-"] in lines


def test_what_has_not_run_is_named(clone: Path) -> None:
    for path in ("metrics/align.json", "metrics/eval/quantized.json", "reports/card.html"):
        Path(path).unlink()
    text = write_summary()
    assert "Not run yet: align, eval_quantized, card." in text
    assert "dvc exp run" not in text
    assert ["clinic.acc", "0.250", "±", "0.050", "0.625", "±", "0.050", "0.700", "±", "0.050", "-"] in words()


def test_nothing_has_run(clone: Path) -> None:
    shutil.rmtree("metrics")
    assert write_summary().startswith("No stage has run yet: `dvc repro`")


def test_privacy(clone: Path) -> None:
    private = {"epsilon": 7.99, "delta": 1e-4, "noise_multiplier": 0.8, "private": True}
    write_json("metrics/sft.json", METRICS["sft"] | private)
    assert "epsilon 7.99 at delta 0.0001, noise multiplier 0.80\n" in write_summary()
    write_json("metrics/sft.json", METRICS["sft"] | private | {"private": False})
    assert "NOT private" in write_summary()


def test_without_the_items_there_is_no_verdict(clone: Path) -> None:
    shutil.rmtree("data")
    assert "Against its base model" not in write_summary()


def test_headings_are_bold_where_asked_for(clone: Path) -> None:
    assert write_summary(bold=True).startswith("\033[1mdata ")


def test_a_broken_file_is_one_line(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("metrics/mix.json").write_text("{")
    with pytest.raises(SystemExit):
        main(["summary"])
    assert capsys.readouterr().err.startswith("pedigree: error: metrics/mix.json: is no JSON object")


@pytest.mark.parametrize(
    ("changes", "sft", "verdicts", "expected"),
    [
        ({"lr": 2e-5}, {}, ["unclear"], "train.lr=5.0e-4` (LoRA hardly moves at a rate of 2e-05)"),
        (
            {"lr": 4e-4},
            {"train_loss": 1.0, "heldout_loss": 1.1},
            ["better"],
            "train.lr=2.0e-4` (the held-out loss is above",
        ),
        (
            {"epochs": 3},
            {"train_loss": 1.0, "heldout_loss": 1.1},
            ["better"],
            "train.epochs=2` (the held-out loss is above",
        ),
        ({"lr": 4e-4}, {}, ["better", "worse"], "train.lr=2.0e-4` (a gentler rate"),
        ({"epochs": 1}, {}, ["unclear"], "train.epochs=2` (nothing is clearly better"),
        ({"lr": 4e-4}, {}, ["better"], "train.lr=8.0e-4` (to see"),
        ({"lr": 2e-3}, {}, ["better"], "train.epochs=2` (the rate is high"),
        ({"method": "full", "lr": 2e-5}, {}, ["better"], "train.lr=4.0e-5` (to see"),
        ({"method": "full", "lr": 4e-5}, {}, ["better"], "train.epochs=2` (the rate is high"),
    ],
)
def test_what_to_try_next(changes: dict[str, Any], sft: dict[str, Any], verdicts: list[str], expected: str) -> None:
    train = Train(**read_yaml(ROOT / "recipes/default.yaml")["train"] | {"method": "lora", "lr": 5e-4} | changes)
    assert expected in suggest({"sft": sft}, verdicts, train, random_base=False)
    assert "recipe use default" in suggest({"sft": sft}, verdicts, train, random_base=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.23, "4.2 s"),
        (41.8, "42 s"),
        (99.4, "99 s"),
        (99.6, "1 min 40 s"),
        (200.4, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text
