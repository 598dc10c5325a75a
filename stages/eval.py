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
import math
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
from stages.common.chat import render
from stages.common.errors import InputError
from stages.common.evalsets import build_task, read_task_yaml
from stages.common.files import write_csv, write_json, write_table
from stages.common.models import load_model, load_tokenizer
from stages.common.params import Params, PositiveInt, Seed, Task, load, load_tasks, read_yaml, validate
from stages.common.rows import message

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODELS = ("base", "sft", "align", "quantized")
DIRTY = Path("data/decontaminate/items.parquet")
ITEM_SCHEMA: dict[str, Any] = {
    "task": pl.String,  # the name in params.yaml
    "subtask": pl.String,  # lm-eval's name: the same, or a member of the group
    "item": pl.Int64,  # 0-based, lm-eval's doc_id
    "correct": pl.Float64,  # the task's first metric on this item; null where it is not a number
    "loglikelihoods": pl.List(pl.Float64),  # of each choice; null where the answer is generated
    "choice": pl.Int64,  # the likeliest choice
    "target": pl.Int64,  # the right choice; null where there are several or the answer is free text
    "dirty": pl.Boolean,  # a row of the training data overlaps the item
}
PLOT_SCHEMA = {"task": pl.String, "metric": pl.String, "value": pl.Float64, "stderr": pl.Float64}

Results = dict[str, dict[str, Any]]
"""Task, subtask or group → lm-eval's {"acc,none": 0.5, "acc_stderr,none": 0.1, ...}."""
Samples = dict[str, list[dict[str, Any]]]
"""Subtask → lm-eval's record of each item."""


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


def read_dirty(path: Path = DIRTY) -> pl.DataFrame:
    """task, subtask, item, dirty of every evaluation item. Raises InputError where decontaminate has not run."""
    try:
        return pl.read_parquet(path, columns=["task", "subtask", "item", "dirty"])
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro decontaminate`") from None
    except pl.exceptions.ColumnNotFoundError as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}; run `dvc repro --force decontaminate`") from None


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
        from stages.shared_prompt import SharedPromptLM

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
    """Metrics of one task or group, and its items with ITEM_SCHEMA. Raises InputError where an item has no mark."""
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
    items = pl.DataFrame(lines, ITEM_SCHEMA).drop("dirty")
    items = items.join(dirty, on=["task", "subtask", "item"], how="left", maintain_order="left")
    unknown = items["dirty"].null_count()
    if unknown:
        raise InputError(f"{DIRTY}: {unknown} items of the task {task.name} are missing; run `dvc repro decontaminate`")
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


def answer_prompts(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: list[str], params: Eval
) -> pl.DataFrame:
    """prompt, answer: the likeliest token at each step, up to the end of the turn or `answer_tokens`."""
    import torch

    answers: list[str] = []
    ends = [tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)]
    ends = sorted({end for entry in ends for end in (entry if isinstance(entry, list) else [entry]) if end is not None})
    tokenizer.padding_side = "left"
    for start in range(0, len(prompts), params.batch_size):
        some = prompts[start : start + params.batch_size]
        texts = [render(tokenizer, [message("user", text)], None, prompt=True) for text in some]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        with torch.inference_mode():
            written = model.generate(  # type: ignore[operator]
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=params.answer_tokens,
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
            )
        replies = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers += [reply.strip() for reply in replies]
    return pl.DataFrame({"prompt": prompts, "answer": answers}, {"prompt": pl.String, "answer": pl.String})


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
    write_table(f"data/eval/{name}/items.parquet", pl.concat(items))
    write_table(f"data/eval/{name}/answers.parquet", answer_prompts(lm.model, lm.tokenizer, prompts, params))
    write_csv(f"metrics/plots/eval_{name}.csv", plot_rows(metrics))
    write_json(f"metrics/eval/{name}.json", metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.eval", description="Evaluate one model of models/.")
    parser.add_argument("model", choices=MODELS)
    chosen = parser.parse_args().model
    run(f"eval_{chosen}", partial(main, chosen), outputs=[f"data/eval/{chosen}"])
