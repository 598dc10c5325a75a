"""The files of a small finished run, worked out by hand, for the tests of the card.

800 rows of faq: 100 duplicates, 1 not searchable, 2 filtered, 5 like an evaluation item, 167 left out, 25 held out, 500
trained; 400 rows of votes: 12 duplicates, 13 left out, 75 held out, 300 trained.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl
from ruamel.yaml import YAML

from stages.cards.digests import digest_path

MODELS = ("base", "sft", "align", "quantized")
TRAIN = {
    "method": "lora", "lr": 0.0005, "epochs": 1, "batch_size": 4, "micro_batch_size": 2, "schedule": "cosine",
    "warmup_share": 0.1, "weight_decay": 0.0, "max_grad_norm": 1.0, "lora_rank": 4, "lora_alpha": 8,
    "lora_dropout": 0.0, "precision": "auto", "checkpoint_steps": 5, "seed": 1,
}  # fmt: skip
PARAMS: dict[str, Any] = {
    "pipeline": {"sft": "sft", "align": "dpo", "final": "align"},
    "base": {
        "model": "hub:someone/small-model@" + "a" * 40, "digest": "sha256:0", "licence": "Apache-2.0",
        "attribution": {"title": "Small model", "author": "Someone", "link": "https://example.org/small"},
        "chat_template": "chatml", "dtype": "float32",
    },
    "policy": {
        "use": "commercial", "release": "public", "share_alike": "refuse", "no_derivatives": "refuse",
        "consents": ["public"],
        "licences": {
            "ours | internal": {
                "commercial_use": True, "derivatives": "shared", "share_alike": [], "attribution": False,
                "conditions": None, "url": "letter of 3 May",
            }
        },
    },
    "sources": [
        {"name": "faq", "path": "data/raw/sources/faq.json", "format": "alpaca", "licence": "CC-BY-4.0",
         "attribution": {"title": "The <faq>", "author": "A clinic", "link": None}, "consent": "public", "share": 1.0},
        {"name": "votes", "path": "hub:someone/votes", "format": "pairs", "licence": "ours | internal",
         "consent": "public", "share": 1.0, "revision": "b" * 40},
    ],
    "tasks": [{"name": "clinic", "path": "data/raw/eval/clinic.yaml", "chat": True, "limit": None}],
    "mix": {"repeat_cap": 1, "max_length_tokens": 512, "unit": "tokens"},
    "train": TRAIN,
    "sft_dp": {"accountant": "prv"},
    "dpo": TRAIN | {"beta": 0.1, "loss_type": "sigmoid", "label_smoothing": 0.0},
    "quantize": {"scheme": "w4a16", "group_size": 64, "calibration": "mixture"},
    "card": {"title": "Wren: a test", "language": "en"},
}  # fmt: skip
METRICS: dict[str, Any] = {
    "base": {"parameters": 1_500_000, "bytes": 3_000_000, "digest": "sha256:ba5e"},
    "pool": {"rows_in": 1010, "rows_out": 1200, "records_in": 1010, "records_read": 1007, "refused": 3, "excluded": 0,
             "rows": {"faq": 800, "votes": 400}, "records_by_source": {"faq": 610, "votes": 400},
             "refused_by_source": {"faq": 3, "votes": 0}, "excluded_by_source": {"faq": 0, "votes": 0},
             "raw": {"faq": "sha256:fa90"}, "subject_key": "public"},
    "dedup": {"rows_in": 1200, "rows_out": 1088, "exact_duplicates": 70, "near_duplicates": 41, "swapped_labels": 1,
              "dropped_by_source": {"faq": {"exact_duplicate": 70, "near_duplicate": 29, "swapped_labels": 1},
                                    "votes": {"near_duplicate": 12}}},
    "scrub": {"rows_in": 1088, "rows_out": 1087, "changed": 90, "failed": 1, "entities": {"PERSON": 55, "US_SSN": 4},
              "kept": {"URL": 7}, "names": "lists", "not_covered": ["LOCATION"],
              "dropped_by_source": {"faq": {"scrub_failed": 1}},
              "equal_replies": 0},
    "decontaminate": {"rows_in": 1087, "rows_out": 1080, "dropped": 5, "marked": 0, "contaminated": {"clinic": 7},
                      "dirty_items": {"clinic": 1}, "items": {"clinic": 4}, "filtered": {"echo": 0, "too_short": 2}},
    "mix": {"rows_in": 1080, "rows_out": 900, "repeats": 0, "left_out": {"too_long": 20, "over_budget": 160},
            "sft": {"train_rows": 500, "heldout_rows": 25, "train_tokens": 60_000},
            "preference": {"train_rows": 300, "heldout_rows": 75, "train_tokens": 50_000},
            "licences": {"CC-BY-4.0": {"rows": 500, "tokens": 60_000, "share_tokens": 0.545455},
                         "ours | internal": {"rows": 300, "tokens": 50_000, "share_tokens": 0.454545}},
            "model_licence": "Apache-2.0", "duties": []},
    "sft": {"rows_in": 500, "steps": 3, "train_loss": 1.5, "heldout_loss": 1.25, "supervised_tokens": 31_000},
    "align": {"rows_in": 300, "steps": 3, "loss_at_start": 0.693147, "heldout_accuracy": 0.72, "heldout_margin": 0.31},
    "quantize": {"rows_in": 64, "bytes": 1_200_000, "bytes_share": 0.4, "digest": "sha256:4b17"},
}  # fmt: skip
PRIVATE = {"epsilon": 7.99, "delta": 0.0001, "noise_multiplier": 0.8, "sample_rate": 0.01, "clip_norm": 1.0}
"""What private training adds to the metrics of its stage."""
CORRECT = {"base": [1, 0, 0, 0], "sft": [1, 1, 0, 0], "align": [1, 1, 1, 1], "quantized": [1, 1, 1, 0]}
FATES = {
    "faq": {"scrub_failed": 1, "too_short": 2, "contaminated": 5, "too_long": 20, "over_budget": 147, "heldout": 25,
            "train": 500},
    "votes": {"over_budget": 13, "heldout": 75, "train": 300},
}  # fmt: skip
"""Rows that dedup let through: source → what became of them."""
KINDS = {"faq": "sft", "votes": "preference"}
READS = {
    "pool": ["data/raw/sources"],
    "dedup": ["data/pool"],
    "scrub": ["data/dedup", "data/raw/eval"],
    "decontaminate": ["data/scrub"],
    "mix": ["data/clusters", "data/decontaminate", "models/base"],
    "sft": ["data/mix/sft.parquet", "models/base"],
    "align": ["data/mix/preference.parquet", "models/base", "models/sft"],
    "quantize": ["data/mix/sft.parquet", "models/align"],
    **{f"eval@{model}": ["data/raw/eval", "data/raw/prompts.yaml", f"models/{model}"] for model in MODELS},
}
WRITES = {
    "base": ["models/base", "metrics/base.json"],
    "pool": ["data/pool", "metrics/pool.json"],
    "dedup": ["data/dedup", "data/clusters", "metrics/dedup.json"],
    "scrub": ["data/scrub", "metrics/scrub.json"],
    "decontaminate": ["data/decontaminate", "metrics/decontaminate.json"],
    "mix": ["data/mix", "metrics/mix.json", "metrics/plots/mix.csv"],
    "sft": ["models/sft", "metrics/sft.json", "metrics/plots/sft.csv"],
    "align": ["models/align", "metrics/align.json", "metrics/plots/align.csv"],
    "quantize": ["models/quantized", "metrics/quantize.json"],
    **{f"eval@{model}": [f"data/eval/{model}", f"metrics/eval/{model}.json"] for model in MODELS},
}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path)


def write_tables(folder: Path) -> None:
    """Rows, ledgers, mixture and consumed tables of FATES."""
    fates = [
        (f"{source}{fate}{number}", source, fate)
        for source, counts in FATES.items()
        for fate, total in counts.items()
        for number in range(total)
    ]
    rows = pl.DataFrame(fates, ["row_id", "source", "fate"], orient="row")
    gone = {
        "scrub": ["scrub_failed"],
        "decontaminate": ["too_short", "contaminated"],
        "mix": ["too_long", "over_budget"],
    }
    for stage, reasons in gone.items():
        left = rows.filter(pl.col("fate").is_in(reasons))
        lines = left.select("row_id", action=pl.lit("drop"), reason="fate")
        rows = rows.filter(~pl.col("fate").is_in(reasons))
        if stage == "scrub":
            changed = rows.head(90).select("row_id", action=pl.lit("change"), reason=pl.lit("pii"))
            lines = pl.concat([lines, changed])
        write_parquet(folder / f"data/{stage}/ledger.parquet", lines)
        if stage != "mix":
            write_parquet(folder / f"data/{stage}/rows.parquet", rows.select("row_id", "source"))
    for source, kind in KINDS.items():
        own = rows.filter(source=source).with_columns(split="fate", repeat=pl.lit(0))
        first = pl.int_range(pl.len()).over("fate") == 0
        tokens = pl.when(first).then(366).otherwise(166) if kind == "preference" else pl.lit(120)
        mixed = own.select("row_id", "source", "split", "repeat", tokens=tokens)
        write_parquet(folder / f"data/mix/{kind}.parquet", mixed)
        train = mixed.filter(split="train").select("row_id", step=pl.int_range(pl.len()) * 3 // pl.len())
        write_parquet(folder / f"models/{'sft' if kind == 'sft' else 'align'}/consumed.parquet", train)
        if kind == "sft":
            write_parquet(folder / "models/quantized/consumed.parquet", train.head(64))
    items = pl.DataFrame({"task": ["clinic"] * 4, "dirty": [False, False, False, True]})
    write_parquet(folder / "data/decontaminate/items.parquet", items)


def write_lock(folder: Path) -> None:
    """dvc.lock of what lies in the folder; of what does not, a digest that all agree on."""

    def entry(path: str) -> dict[str, Any]:
        place = folder / path
        digest = digest_path(place) if place.exists() else "0" * 32
        return {"path": path, "hash": "md5", "md5": digest, "size": 2_000_000}

    code = {"path": "stages/common/files.py", "hash": "md5", "md5": "1" * 32, "size": 1}
    stages = {
        name: {"deps": [entry(path) for path in READS.get(name, [])] + [code], "outs": [entry(path) for path in outs]}
        for name, outs in WRITES.items()
    }
    with (folder / "dvc.lock").open("w") as file:
        YAML().dump({"schema": "2.0", "stages": stages}, file)


def write_inputs(folder: Path, params: dict = PARAMS, metrics: dict = METRICS) -> None:
    """A repository after a run."""
    (folder / "metrics/plots").mkdir(parents=True, exist_ok=True)
    YAML().dump(params, folder / "params.yaml")
    groups = '[dependency-groups]\ncore = ["polars==2.1.0"]\ndev = ["ruff==0.17.6"]\nall = [{include-group = "core"}]\n'
    (folder / "pyproject.toml").write_text(groups)
    for stage, values in metrics.items():
        write_json(folder / f"metrics/{stage}.json", values)
    curve = pl.DataFrame({"step": [1, 2, 3], "loss": [0.693147, 0.6, 0.5]})
    curve.write_csv(folder / "metrics/plots/sft.csv")
    curve.write_csv(folder / "metrics/plots/align.csv")
    pl.DataFrame(
        {"kind": ["sft", "preference"], "source": ["faq", "votes"], "planned": [1.0, 1.0], "realised": [1.0, 1.0],
         "tokens": [60_000, 50_000], "rows": [500, 300]}
    ).write_csv(folder / "metrics/plots/mix.csv")  # fmt: skip
    for model, correct in CORRECT.items():
        clean = correct[:3]  # the last item is the dirty one
        scores = {
            "acc": sum(correct) / 4, "acc_stderr": 0.1, "items": 4, "clean_items": 3, "clean_acc": sum(clean) / 3,
            "dirty_items": 1, "dirty_acc": float(correct[3]),
        }  # fmt: skip
        write_json(folder / f"metrics/eval/{model}.json", {"clinic": scores})
        dirty = [False, False, False, True]
        items = {
            "task": ["clinic"] * 4,
            "subtask": ["clinic"] * 4,
            "item": range(4),
            "correct": correct,
            "dirty": dirty,
        }
        write_parquet(folder / f"data/eval/{model}/items.parquet", pl.DataFrame(items))
        answer = f"<script>alert('{model}')</script>\n- a | b\n1. *c*"
        answers = {"prompt": ["When is <it> open?"], "answer": [answer]}
        write_parquet(folder / f"data/eval/{model}/answers.parquet", pl.DataFrame(answers))
    write_tables(folder)
    for model, size in (("base", 3_000_000), ("quantized", 1_200_000)):
        weights = folder / f"models/{model}/model.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        with weights.open("wb") as file:
            file.truncate(size)
    write_json(folder / "models/sft/parent.json", {"parent": "models/base", "digest": "sha256:ba5e"})
    write_json(folder / "models/align/parent.json", {"parent": "models/sft", "digest": "sha256:5f7"})
    for name in ("data/raw/eval/clinic.yaml", "data/raw/prompts.yaml", "data/clusters/clusters.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    write_lock(folder)
