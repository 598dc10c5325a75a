"""From lm-eval's results and samples to metrics and a table of items, clean and dirty ones apart."""

import math
from typing import Any

import polars as pl

from stages.common.errors import InputError
from stages.common.item_contracts import EVALUATED_SCHEMA, MARKED_ITEMS
from stages.common.params import Task

PLOT_SCHEMA = {"task": pl.String, "metric": pl.String, "value": pl.Float64, "stderr": pl.Float64}

Results = dict[str, dict[str, Any]]
"""Task, subtask or group → lm-eval's {"acc,none": 0.5, "acc_stderr,none": 0.1, ...}."""
Samples = dict[str, list[dict[str, Any]]]
"""Subtask → lm-eval's record of each item."""


def read_dirty() -> pl.DataFrame:
    """task, subtask, item, dirty of every evaluation item. Raises InputError where decontaminate has not run."""
    return MARKED_ITEMS.read().select("task", "subtask", "item", "dirty")


def named_metrics(result: dict[str, Any]) -> dict[str, float]:
    """`acc,none` → acc, `exact_match_stderr,strict-match` → exact_match_strict_match_stderr; numbers only.

    >>> named_metrics({"alias": "x", "acc,none": 0.5, "acc_stderr,none": "N/A", "em_stderr,strict-match": 0.1})
    {'acc': 0.5, 'em_strict_match_stderr': 0.1}
    """
    metrics = {}
    for key, value in result.items():
        name, comma, filtered = key.partition(",")
        if not comma or isinstance(value, str) or not math.isfinite(value):
            continue
        base = name.removesuffix("_stderr")
        way = "" if filtered == "none" else "_" + filtered.replace("-", "_")
        metrics[base + way + name.removeprefix(base)] = float(value)
    return metrics


def choose(sample: dict[str, Any], built: Any) -> dict[str, Any]:
    """loglikelihoods, choice and target of one item of lm-eval's samples, as far as it has them."""
    replies, target = sample["filtered_resps"], sample["target"]
    if not isinstance(replies[0], list | tuple):  # generated text, or the log-likelihood of a whole document
        return {"loglikelihoods": None, "choice": None, "target": None}
    likelihoods = [float(likelihood) for likelihood, _ in replies]
    choices = built.doc_to_choice(sample["doc"]) if built.config.doc_to_choice is not None else []
    scored = likelihoods[: len(choices)] or likelihoods  # acc_mutual_info adds each choice without its prompt
    if isinstance(target, str):
        target = choices.index(target) if target in choices else None
    return {
        "loglikelihoods": likelihoods,
        "choice": scored.index(max(scored)) if choices else None,
        "target": target if isinstance(target, int) else None,
    }


def judge_task(
    task: Task, built: dict[str, Any], result: dict[str, Any], samples: Samples, dirty: pl.DataFrame
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Metrics of one task or group, and its items (EVALUATED_SCHEMA). Raises InputError where an item has no mark."""
    from lm_eval.api.metrics import mean

    scores = [key for key in result if "," in key]
    if not scores:
        raise InputError(f"{task.path}: aggregate_metric_list names no metric that the tasks of {task.name} have")
    metric, _, filtered = scores[0].partition(",")
    lines: list[dict[str, Any]] = []
    values: list[Any] = []
    for subtask, entry in built.items():
        for sample in samples[subtask]:
            if sample["filter"] == filtered and metric in sample:
                value = sample[metric]
                number = float(value) if hasattr(value, "__float__") else None
                line = {"task": task.name, "subtask": subtask, "item": sample["doc_id"], "correct": number}
                lines.append(line | choose(sample, entry))
                values.append(value)
    items = pl.DataFrame(lines, EVALUATED_SCHEMA).drop("dirty")
    items = items.join(dirty, on=["task", "subtask", "item"], how="left", maintain_order="left")
    unknown = items["dirty"].null_count()
    if unknown:
        raise InputError(
            f"{MARKED_ITEMS.path}: {unknown} items of the task {task.name} are missing; run `dvc repro decontaminate`"
        )
    metrics: dict[str, Any] = named_metrics(result) | {"items": items.height}
    aggregate = next(iter(built.values())).aggregation().get(metric, mean)
    for name, wanted in (("clean", False), ("dirty", True)):
        some = [value for value, is_dirty in zip(values, items["dirty"], strict=True) if is_dirty == wanted]
        metrics |= {f"{name}_items": len(some), f"{name}_{metric}": float(aggregate(some)) if some else None}
    return metrics, items


def plot_rows(metrics: dict[str, dict[str, Any]]) -> pl.DataFrame:
    """task, metric, value, stderr of every score."""
    return pl.DataFrame(
        [
            {"task": task, "metric": name, "value": value, "stderr": scores.get(f"{name}_stderr")}
            for task, scores in metrics.items()
            for name, value in scores.items()
            if isinstance(value, float) and not name.endswith("_stderr")
        ],
        PLOT_SCHEMA,
    )
