"""pedigree summary: what the stages did, on one screen, out of metrics/ and data/eval.

`make repro` ends with it. A stage that has not run is named; a time is that of the stage's last run.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pedigree.layout import WIDTH, shorten, show_bytes, table
from stages.common.errors import InputError
from stages.common.params import Pipeline, Train, load, read_yaml

if TYPE_CHECKING:
    from stages.cards.scores import Difference, Score

METRICS = Path("metrics")
DATA_STAGES = ("pool", "dedup", "scrub", "decontaminate", "mix")
MODELS = ("base", "sft", "align", "quantized")
STAGES = ("base", *DATA_STAGES, "sft", "align", "quantize", *(f"eval_{model}" for model in MODELS), "card")
# What a data stage took out or changed: key of its metrics, and the words for it. A key may hold counts by name.
REASONS = {
    "pool": (("refused", "records refused"), ("no_consent", "without consent of"), ("excluded", "deleted on request")),
    "dedup": (("exact_duplicates", "exact"), ("near_duplicates", "near"), ("swapped_labels", "swapped labels")),
    "scrub": (("entities", ""), ("failed", "failed"), ("equal_replies", "equal pairs")),
    "decontaminate": (("filtered", ""), ("contaminated", "like items of")),
    "mix": (("left_out", ""),),
}
HIGH_RATE = {"lora": 2e-3, "full": 4e-5}  # twice that was no better with LoRA on the default recipe (docs/log.md)
Metrics = dict[str, dict[str, Any]]


def read_metrics() -> Metrics:
    """What each stage measured, eval_<model> among them. Raises InputError where a file is broken."""
    paths = {stage: METRICS / f"{stage}.json" for stage in STAGES if stage != "card"}
    paths |= {f"eval_{model}": METRICS / "eval" / f"{model}.json" for model in MODELS}
    return {stage: read_object(path) for stage, path in paths.items() if path.is_file()}


def read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: is no JSON object; `git checkout {path}` or `dvc repro --force` brings it back")
    return value


def show_number(value: Any, places: int = 3) -> str:
    """1,234 and 0.123; `-` where there is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{places}f}"


def show_reasons(stage: str, measured: dict[str, Any]) -> str:
    """`90 exact, 40 near`: the counts above 0 of what a stage took out or changed."""
    told = []
    for key, words in REASONS[stage]:
        value = measured.get(key, 0)
        counts = (
            {f"{words} {name}".strip(): n for name, n in value.items()} if isinstance(value, dict) else {words: value}
        )
        told += [f"{count:,} {name}" for name, count in counts.items() if count]
    found = ", ".join(told).replace("_", " " if stage == "mix" else "_")
    return f"replaced: {found}" if stage == "scrub" and found else found


def data_lines(metrics: Metrics) -> list[list[str]]:
    rows = [["data", "in", "out", "taken out"]]
    for stage in DATA_STAGES:
        if stage in metrics:
            counts = [show_number(metrics[stage].get(key)) for key in ("rows_in", "rows_out")]
            rows.append([stage, *counts, shorten(show_reasons(stage, metrics[stage]), WIDTH - 36)])
    return rows if len(rows) > 1 else []


def probe_lines(metrics: Metrics) -> list[list[str]]:
    """Of each stage the type of probe that it caught least of, and the decoys that it caught most of."""
    rows = [["probes", "caught", "lowest recall", "decoys caught", "most of"]]
    for stage in DATA_STAGES:
        types = metrics.get(stage, {}).get("probes", {})
        sought = {name: each for name, each in types.items() if "recall" in each and "precision" in each}
        decoys = {name: each for name, each in types.items() if each.get("decoys")}
        if sought:
            worst = min(sought, key=lambda name: sought[name]["recall"])
            wrong = max(decoys, key=lambda name: decoys[name]["wrongly_caught"] / decoys[name]["decoys"], default="")
            caught, planted = (sum(each[key] for each in sought.values()) for key in ("caught", "planted"))
            hit, spared = (sum(each[key] for each in decoys.values()) for key in ("wrongly_caught", "decoys"))
            rows.append(
                [stage, f"{caught} of {planted}", f"{sought[worst]['recall']:.2f} {shorten(worst, 24)}",
                 f"{hit} of {spared}", shorten(wrong, 24) if hit else "-"]
            )  # fmt: skip
    return rows if len(rows) > 1 else []


def mixture_lines(mix: dict[str, Any]) -> list[list[str]]:
    rows = [["mixture", "rows", "held out", "tokens"]]
    for kind in ("sft", "preference", "unpaired"):
        if kind in mix:
            rows.append(
                [kind, *(show_number(mix[kind].get(key)) for key in ("train_rows", "heldout_rows", "train_tokens"))]
            )
    return rows if len(rows) > 1 else []


def training_lines(metrics: Metrics) -> list[list[str]]:
    rows = []
    if sft := metrics.get("sft"):
        losses = " -> ".join((f"training loss {show_number(sft.get('train_loss'))}",
                              f"held-out loss {show_number(sft.get('heldout_loss'))}"))  # fmt: skip
        rows.append(["sft", f"{losses}, {show_number(sft.get('supervised_tokens'))} supervised tokens"])
        if "epsilon" in sft:
            promise = "" if sft.get("private", True) else "; NOT private: the noise has a published seed"
            noise = f"noise multiplier {show_number(sft.get('noise_multiplier'), 2)}"
            rows.append(["", f"epsilon {sft['epsilon']:.2f} at delta {sft.get('delta', 0):g}, {noise}{promise}"])
    if align := metrics.get("align"):
        start = f"loss at start {show_number(align.get('loss_at_start'), 4)} (ln 2 = 0.6931)"
        accuracy = f"held-out accuracy {show_number(align.get('heldout_accuracy'))} (0.5 before)"
        rows.append(["align", f"{start}, {accuracy}, margin {show_number(align.get('heldout_margin'))}"])
    if quantize := metrics.get("quantize"):
        before, after = metrics.get("base", {}).get("bytes"), quantize.get("bytes", 0)
        share = f", {quantize['bytes_share']:.0%} of the base model" if "bytes_share" in quantize else ""
        rows.append(["quantize", f"{f'{show_bytes(before)} -> ' if before else ''}{show_bytes(after)}{share}"])
    return [["training"], *rows] if rows else []


def list_main_scores(metrics: Metrics) -> "list[Score]":
    """The main metric of each task for each model that was evaluated."""
    from stages.cards.scores import Score, metrics_of

    return [
        Score(model, task, name, float(result[name]), float(result[f"{name}_stderr"]))
        for model in MODELS
        for task, result in metrics.get(f"eval_{model}", {}).items()
        if isinstance(result, dict)
        for name in metrics_of(result)[:1]
    ]


def score_lines(scores: "list[Score]") -> list[list[str]]:
    if not scores:
        return []
    cells = {(score.task, score.metric, score.model): f"{score.value:.3f} ± {score.stderr:.3f}" for score in scores}
    rows = [["scores", *MODELS]]
    for task, metric in dict.fromkeys((score.task, score.metric) for score in scores):
        rows.append([f"{shorten(task, 20)}.{metric}", *(cells.get((task, metric, model), "-") for model in MODELS)])
    return rows


def show_seconds(seconds: float) -> str:
    """4.2 s, 95 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def cost_lines() -> list[list[str]]:
    """Time, peak memory and size of the outputs of each stage's last run, and all together."""
    costs = {path.stem: read_object(path) for path in sorted((METRICS / "timing").glob("*.json"))}
    if not costs:
        return []
    order = [stage for stage in STAGES if stage in costs] + [stage for stage in costs if stage not in STAGES]
    seconds, memory, disk = ([costs[stage].get(key, 0) for stage in order]
                             for key in ("wall_seconds", "peak_memory_bytes", "output_bytes"))  # fmt: skip
    rows = [["cost (last run)", "time", "memory", "disk"]]
    rows += [
        [stage, show_seconds(time), show_bytes(peak), show_bytes(size)]
        for stage, time, peak, size in zip(order, seconds, memory, disk, strict=True)
    ]
    return [*rows, ["all", show_seconds(sum(seconds)), show_bytes(max(memory)), show_bytes(sum(disk))]]


def compare_with_base(tasks: list[str]) -> "list[Difference]":
    """The quantized model against the base model on the same items; empty where an item file is missing."""
    import polars as pl

    from stages.cards.scores import compare

    try:
        columns = ["task", "subtask", "item", "correct"]
        tables = {
            model: pl.read_parquet(f"data/eval/{model}/items.parquet", columns=columns).cast({"correct": pl.Float64})
            for model in ("base", "quantized")
        }
    except (OSError, pl.exceptions.PolarsError):
        return []
    return compare(tables, "quantized", "base", tasks)


def suggest(metrics: Metrics, verdicts: list[str], train: Train, random_base: bool) -> str:
    """What to try next, as a command with its reason."""
    sft = metrics.get("sft", {})
    if random_base:
        return "These models are toys: `pedigree recipe use default`, then `dvc repro`, trains a real one."
    if train.method == "lora" and train.lr < 5e-5:
        key, value, why = "lr", 5e-4, f"LoRA hardly moves at a rate of {train.lr:g}"
    elif sft.get("heldout_loss", 0) > sft.get("train_loss", 0):
        why = "the held-out loss is above the training loss"
        key, value = ("epochs", train.epochs - 1) if train.epochs > 1 else ("lr", train.lr / 2)
    elif "worse" in verdicts:
        key, value, why = "lr", train.lr / 2, "a gentler rate forgets less"
    elif "better" not in verdicts:
        key, value, why = "epochs", train.epochs + 1, "nothing is clearly better yet"
    elif train.lr < HIGH_RATE[train.method]:
        key, value, why = "lr", train.lr * 2, "to see whether more of it helps"
    else:
        key, value, why = "epochs", train.epochs + 1, "the rate is high already; another pass may help"
    shown = re.sub(r"e([+-])0*", r"e\1", f"{value:.1e}") if key == "lr" else str(value)
    return f"Try `dvc exp run -S train.{key}={shown}` ({why}), then `dvc exp show`."


def name_missing(metrics: Metrics) -> list[str]:
    """The stages whose results are not there, in the order of the graph."""
    card = [] if Path("reports/card.html").is_file() else ["card"]
    return [stage for stage in STAGES if stage not in metrics and stage != "card"] + card


def write_summary(bold: bool = False) -> str:
    """The whole text; headings bold on a terminal. Raises InputError."""
    metrics = read_metrics()
    if not metrics:
        return "No stage has run yet: `dvc repro` runs them, `make repro` sets up the environment first."
    scores = list_main_scores(metrics)
    parts = []
    for rows, right in (
        (data_lines(metrics), (1, 2)),
        (probe_lines(metrics), ()),
        (mixture_lines(metrics.get("mix", {})), (1, 2, 3)),
        (training_lines(metrics), ()),
        (score_lines(scores), ()),
        (cost_lines(), (1, 2, 3)),
    ):
        if rows:
            heading, _, body = table(rows, right).partition("\n")
            parts.append((f"\033[1m{heading}\033[0m" if bold else heading) + "\n" + body)
    missing = name_missing(metrics)
    parts.append(finish(metrics, scores, missing))
    return "\n\n".join(parts)


def finish(metrics: Metrics, scores: "list[Score]", missing: list[str]) -> str:
    """The last lines: what came of it, what is still to run, what to try next."""
    import textwrap

    from stages.cards.wording import describe_outcome

    tasks = list(dict.fromkeys(score.task for score in scores))
    lines, differences = [], []
    if {"eval_base", "eval_quantized"} <= set(metrics):
        differences = compare_with_base(tasks)
        if differences:
            lines.append(describe_outcome(scores, differences))
    if missing:
        lines.append(f"Not run yet: {', '.join(missing)}. `dvc repro` runs what is missing.")
    else:
        random_base = str((read_yaml(Path("params.yaml")).get("base") or {}).get("model")).startswith("random:")
        verdicts = [difference.verdict for difference in differences]
        lines.append(suggest(metrics, verdicts, load(Train, "train"), random_base))
    if "card" not in missing:
        final = load(Pipeline, "pipeline").final
        lines.append(f"reports/card.html tells it all; models/quantized is models/{final} in 4 bits.")
    return "\n".join(textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False) for line in lines)


def summary(arguments: argparse.Namespace) -> None:
    print(write_summary(bold=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
