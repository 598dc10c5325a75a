"""Evaluation of the four models: scoring with the shared prompt beside stock lm-eval, on the tasks of params.yaml.

    python bench/evaluation.py [--precision float32] [--models base,sft]

Stock is lm-eval's own HFLM with the same model, precision and batch size (of requests; ours counts items). Both run in
this process, one after the other for each model; loading is not counted. In float32 both must choose alike on every
item; bfloat16 rounds differently for other shapes of a batch, so that a near tie may fall otherwise.

Needs models/ and data/decontaminate (`make repro`). Prints seconds, the ratio, the items that differ and the largest
difference of a log-probability; writes nothing.
"""

import argparse
import sys
import time
from pathlib import Path

from stages.common.stage import say  # isort: skip
import polars as pl

from stages import eval as evaluation
from stages.common.params import Task, load, load_tasks
from stages.evaluation.judging import judge_task, read_dirty


def time_scoring(folder: Path, tasks: list[Task], params: evaluation.Eval) -> tuple[float, pl.DataFrame]:
    """Seconds of scoring, and what each item came to."""
    groups, dirty = evaluation.build_all(tasks), read_dirty()
    lm = evaluation.load_scorer(folder, params)
    start = time.perf_counter()
    label = f"{folder.name}, {'ours' if params.shared_prompt else 'stock'}"
    results, samples = evaluation.run_tasks(lm, tasks, [runnable for runnable, _ in groups], params, label)
    seconds = time.perf_counter() - start
    judged = [
        judge_task(task, built, results[task.name], samples, dirty)[1]
        for task, (_, built) in zip(tasks, groups, strict=True)
    ]
    return seconds, pl.concat(judged)


def main(models: list[str], precision: str | None) -> None:
    params, tasks = load(evaluation.Eval, "eval"), load_tasks()
    if precision:
        params = params.model_copy(update={"precision": precision})
    totals, differing_in_all = {"stock": 0.0, "ours": 0.0}, 0
    for model in models:
        items = {}
        for way, shared in (("stock", False), ("ours", True)):
            chosen = params.model_copy(update={"shared_prompt": shared})
            seconds, items[way] = time_scoring(Path("models") / model, tasks, chosen)
            totals[way] += seconds
            say(model, f"{way:5} {seconds:6.1f} s")
        differing = int((items["stock"]["choice"] != items["ours"]["choice"]).sum())
        differing_in_all += differing
        both = [items[way]["loglikelihoods"].explode() for way in ("stock", "ours")]
        largest = (both[0] - both[1]).abs().max()
        say(
            model,
            f"{differing} of {items['stock'].height} items chosen otherwise; log-probabilities within {largest:.4f}",
        )
    say(
        "all",
        f"stock {totals['stock']:.1f} s, ours {totals['ours']:.1f} s: {totals['ours'] / totals['stock']:.2f} of it",
    )
    if precision == "float32" and differing_in_all:
        sys.exit("in float32 both must choose alike")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(evaluation.MODELS), help="default: all four")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), help="default: eval.precision of params.yaml")
    arguments = parser.parse_args()
    main(arguments.models.split(","), arguments.precision)
