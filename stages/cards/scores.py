"""Scores with their uncertainty, and what a model gained or lost against another on the same items."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

RESAMPLES = 10_000
SEED = 1
DRAWN_NUMBERS = 2**22  # held at once: 32 MiB
Z_95 = 1.96  # standard errors on either side of a score that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Score:
    """One metric of one model on one task."""

    model: str
    task: str
    metric: str
    value: float
    stderr: float | None
    """null where lm-eval gives none."""

    @property
    def low(self) -> float:
        return self.value - Z_95 * (self.stderr or 0)

    @property
    def high(self) -> float:
        return self.value + Z_95 * (self.stderr or 0)


@dataclass(frozen=True)
class Difference:
    """A model minus a reference on the items of a task: mean, 95 % interval, items that only one of them got right."""

    model: str
    reference: str
    task: str
    items: int
    value: float
    low: float
    high: float
    won: int
    lost: int

    @property
    def verdict(self) -> str:
        """better | worse where the interval leaves 0 out, else unclear."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "unclear"


def metrics_of(result: Mapping[str, Any]) -> list[str]:
    """The metrics of a task that come with a standard error, in the task's own order: the first is the main one."""
    return [key for key in result if isinstance(result.get(f"{key}_stderr"), int | float)]


def bare_metric(result: Mapping[str, Any]) -> list[str]:
    """The first metric of a task of which none has a standard error."""
    return [key for key, value in result.items() if isinstance(value, float)][:1]


def list_scores(scores: Mapping[str, Mapping[str, Mapping[str, Any]]], tasks: Iterable[str]) -> list[Score]:
    """Every metric of every model and task, by task, then metric, then model."""
    return [
        Score(model, task, metric, float(results[task][metric]), results[task].get(f"{metric}_stderr"))
        for task in tasks
        for metric in metrics_of(scores["base"][task]) or bare_metric(scores["base"][task])
        for model, results in scores.items()
        if metric in results[task]
    ]


def main_scores(scores: list[Score]) -> list[Score]:
    """The first metric of each task."""
    first: dict[str, str] = {}
    for score in scores:
        first.setdefault(score.task, score.metric)
    return [score for score in scores if score.metric == first[score.task]]


def evaluation_table(scores: list[Score]) -> pl.DataFrame:
    """model, task, metric, value, low, high (95 % interval; null where there is no standard error) for `dvc plots`."""
    names = ("model", "task", "metric", "value", "low", "high")
    lines = [
        (
            score.model,
            score.task,
            score.metric,
            score.value,
            *((score.low, score.high) if score.stderr else (None, None)),
        )
        for score in scores
    ]
    return pl.DataFrame(lines, dict.fromkeys(names[:3], pl.String) | dict.fromkeys(names[3:], pl.Float64), orient="row")


def bootstrap_interval(differences: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of paired differences (Efron and Tibshirani 1993, chapter 13).

    Resampling n items is a multinomial draw over the few values that a difference takes (-1, 0, 1 for right or wrong),
    so that its cost does not grow with n.
    """
    values, counts = np.unique(differences, return_counts=True)
    generator, chunk = np.random.default_rng(seed), max(1, DRAWN_NUMBERS // len(values))
    sums = [
        generator.multinomial(len(differences), counts / len(differences), size=min(chunk, resamples - start)) @ values
        for start in range(0, resamples, chunk)
    ]
    low, high = np.quantile(np.concatenate(sums) / len(differences), [0.025, 0.975])
    return float(low), float(high)


def compare(items: Mapping[str, pl.DataFrame], model: str, reference: str, tasks: Iterable[str]) -> list[Difference]:
    """`model` minus `reference` on each task whose items are marked right or wrong, paired by task, subtask, item."""
    key = ["task", "subtask", "item"]
    pairs = items[model].join(items[reference], on=key, suffix="_reference").sort(key)
    pairs = pairs.with_columns(difference=pl.col("correct") - pl.col("correct_reference"))
    found = []
    for task in tasks:
        differences = pairs.filter(pl.col("task") == task)["difference"].drop_nulls().to_numpy()
        if len(differences):
            low, high = bootstrap_interval(differences)
            won, lost = int((differences > 0).sum()), int((differences < 0).sum())
            mean = float(differences.mean())
            found.append(Difference(model, reference, task, len(differences), mean, low, high, won, lost))
    return found
