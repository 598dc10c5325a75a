"""Evaluate one model.    models/<model> + tasks + data/decontaminate/items.parquet → metrics/eval/<model>.json, ...

    python -m stages.eval base|sft|align|quantized

Runs the tasks of params.yaml through lm-eval, in this process and without a network, and keeps what each item came to.
An item that a training row overlaps is dirty: accuracy is also given over clean and over dirty items alone, so that a
gain that is only memory shows. Answers to a few fixed prompts are written greedily, for people to read.

    metrics/eval/<model>.json           <task>: its metrics with _stderr, items, clean_items, clean_acc, dirty_...
    data/eval/<model>/items.parquet     one line an item: what the model chose, and the log-probability of each choice
    data/eval/<model>/answers.parquet   prompt, answer
    metrics/plots/eval_<model>.csv      task, metric, value, stderr
"""

import argparse
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal
from unittest.mock import patch

import polars as pl
from pydantic import Field

from stages.common.stage import run, say  # isort: skip
from stages.common.contracts import write_tables
from stages.common.errors import InputError
from stages.common.evalsets import build_task, read_task_yaml
from stages.common.files import write_csv, write_json, write_table
from stages.common.item_contracts import evaluated_items
from stages.common.models import load_model, load_tokenizer
from stages.common.params import Params, PositiveInt, Seed, Task, load, load_tasks, read_yaml, validate
from stages.evaluation.answers import answer_prompts
from stages.evaluation.judging import Results, Samples, judge_task, plot_rows, read_dirty

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedModel

MODELS = ("base", "sft", "align", "quantized")


class Eval(Params):
    """How each model is evaluated."""

    batch_size: PositiveInt
    """Items scored at once; less needs less memory."""
    shared_prompt: bool
    """Compute the prompt that the choices of an item share once; false: lm-eval's own way, about 4 times slower."""
    precision: Literal["auto", "bfloat16", "float32"]
    """Of the weights and the arithmetic. auto: bfloat16 where the hardware has it."""
    answer_tokens: Annotated[int, Field(ge=0)]
    """Length in tokens of the answers to the fixed prompts that the card shows; 0: none."""
    prompts: str
    """YAML file with the fixed prompts, a list of texts."""
    bootstrap_samples: Annotated[int, Field(ge=0)]
    """Resamples for the standard error of metrics without a formula for it (f1, perplexity); 0: no standard errors."""
    seed: Seed
    """Of few-shot examples and of the bootstrap."""


def build_group(task: Task) -> tuple[Any, dict[str, Any]]:
    """What lm-eval shall run, a task or a group, and its task objects by name. Raises InputError."""
    from lm_eval.api.group import Group
    from lm_eval.config.group import GroupConfig

    built = build_task(task)
    config = read_task_yaml(Path(task.path))
    if "group" not in config:
        return built[task.name], built
    if not config.get("aggregate_metric_list"):
        raise InputError(
            f"{task.path}: the group {task.name} says nothing of its mean; add "
            "`aggregate_metric_list: [{metric: acc, weight_by_size: true}]`"
        )
    # A group averages over the tasks at its leaves, so groups between need not be rebuilt.
    group = Group.from_config(
        GroupConfig(group=task.name, task=list(built), aggregate_metric_list=config["aggregate_metric_list"])
    )
    for member in built.values():
        group.add(member)
    return group, built


def build_all(tasks: list[Task]) -> list[tuple[Any, dict[str, Any]]]:
    """`build_group` of each task. Raises InputError where two tasks hold the same subtask."""
    groups = [build_group(task) for task in tasks]
    owner: dict[str, str] = {}
    for task, (_, built) in zip(tasks, groups, strict=True):
        for subtask in built:
            if owner.setdefault(subtask, task.name) != task.name:
                raise InputError(
                    f"params.yaml, tasks: {owner[subtask]} and {task.name} both hold {subtask}; take one out"
                )
    return groups


def unpack_weights(model: "PreTrainedModel") -> None:
    """compressed-tensors unpacks 4-bit weights in a hook on the whole model's first call, which a scorer that calls the
    backbone alone would never make."""
    import torch

    with torch.no_grad():
        model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device))


def load_scorer(folder: Path, params: Eval) -> "HFLM":
    """The model behind lm-eval's interface. Softmax in float32: bfloat16 rounds a log-probability of -10 to 1/16."""
    model: Any = load_model(folder, params.precision)
    if getattr(model.config, "quantization_config", None) is not None:
        unpack_weights(model)
    options = {"pretrained": model, "tokenizer": load_tokenizer(folder), "batch_size": params.batch_size}
    if params.shared_prompt:
        from stages.evaluation.shared_prompt import SharedPromptLM

        return SharedPromptLM(**options)
    from lm_eval.models.huggingface import HFLM

    return HFLM(**options, softmax_dtype="float32")


@contextmanager
def one_progress_bar(label: str) -> Iterator[None]:
    """lm-eval shows a bar for each of its steps; here its requests move one bar, and its other steps none.

    After each run it also describes the machine and the repository (2 to 4 seconds), which nothing here reads.
    """
    from lm_eval import evaluator
    from lm_eval.api import model, task
    from lm_eval.models import huggingface
    from tqdm import tqdm

    with tqdm(total=0, desc=label, unit="request") as bar, ExitStack() as replaced:

        def count(iterable: Any = None, *, total: int = 0, disable: bool = False, **_: Any) -> Any:
            if iterable is not None:
                return iterable
            if disable:
                return SimpleNamespace(update=lambda steps: None, close=lambda: None)
            bar.total += total
            return SimpleNamespace(update=bar.update, close=bar.refresh)

        for module in (model, task, huggingface):
            replaced.enter_context(patch.object(module, "tqdm", count))
        for name in ("add_env_info", "get_git_commit_hash"):
            replaced.enter_context(patch.object(evaluator, name, lambda *_: None))
        yield


def run_tasks(lm: "HFLM", tasks: list[Task], runnable: list[Any], params: Eval, label: str) -> tuple[Results, Samples]:
    """Results and per-item samples of all tasks: one call of lm-eval for each way of asking (chat or not, limit)."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    known = TaskManager(include_defaults=False)  # else it reads lm-eval's own 13,000 task files, for 10 seconds
    ways: dict[tuple[bool, int | None], list[Any]] = {}
    for task, entry in zip(tasks, runnable, strict=True):
        ways.setdefault((task.chat, task.limit), []).append(entry)
    results: Results = {}
    samples: Samples = {}
    with one_progress_bar(label):
        for chat, limit in ways:
            outcome = simple_evaluate(
                lm,
                tasks=ways[chat, limit],
                task_manager=known,
                limit=limit,
                apply_chat_template=chat,
                bootstrap_iters=params.bootstrap_samples,
                **{
                    f"{kind}_seed": params.seed for kind in ("random", "numpy_random", "torch_random", "fewshot_random")
                },
            )
            results |= outcome["results"]
            samples |= outcome["samples"]
    return results, samples


def main(name: str) -> None:
    params, tasks, dirty = load(Eval, "eval"), load_tasks(), read_dirty()
    path = Path(params.prompts)
    prompts = validate(list[str], "prompts", read_yaml(path), path) if params.answer_tokens else []
    groups = build_all(tasks)
    lm = load_scorer(Path("models") / name, params)
    results, samples = run_tasks(lm, tasks, [runnable for runnable, _ in groups], params, f"eval {name}")
    metrics, items = {}, []
    for task, (_, built) in zip(tasks, groups, strict=True):
        metrics[task.name], judged = judge_task(task, built, results[task.name], samples, dirty)
        items.append(judged)
        metric, score = next(iter(metrics[task.name].items()))
        say("eval", f"{name}: {task.name}.{metric} {score:.3f} over {judged.height} items")
    answers = answer_prompts(lm.model, lm.tokenizer, prompts, params.batch_size, params.answer_tokens)
    write_tables({evaluated_items(name): pl.concat(items)})
    write_table(f"data/eval/{name}/answers.parquet", answers)
    write_csv(f"metrics/plots/eval_{name}.csv", plot_rows(metrics))
    write_json(f"metrics/eval/{name}.json", metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.eval", description="Evaluate one model of models/.")
    parser.add_argument("model", choices=MODELS)
    chosen = parser.parse_args().model
    run(f"eval_{chosen}", partial(main, chosen), outputs=[f"data/eval/{chosen}"])
