"""Everything that the card states, read from what the other stages wrote; a missing file names the stage to run."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stages.cards.digests import read_lock
from stages.cards.flow import Flow, follow_sources
from stages.cards.tables import READER, Tables, read_tables
from stages.common.errors import InputError
from stages.common.params import Pipeline, Source, Task, Train, load, load_sources, load_tasks, read_yaml

MODELS = {"base": "Base", "sft": "SFT", "align": "Aligned", "quantized": "Quantized"}
"""Folder below metrics/eval and data/eval → what the card calls the model."""

REQUIRED = {
    "base": ("parameters", "bytes", "digest"),
    "pool": (
        "records_in", "records_read", "refused", "excluded", "rows_out", "rows", "records_by_source",
        "refused_by_source", "excluded_by_source", "raw", "subject_key",
    ),
    "dedup": ("rows_in", "rows_out", "exact_duplicates", "near_duplicates", "swapped_labels", "dropped_by_source"),
    "scrub": ("rows_in", "rows_out", "changed", "failed", "equal_replies", "dropped_by_source", "entities"),
    "decontaminate": ("rows_in", "rows_out", "dropped", "marked", "contaminated", "dirty_items", "filtered"),
    "mix": ("rows_in", "rows_out", "left_out", "sft", "model_licence", "duties"),
    "sft": ("rows_in", "steps", "train_loss", "heldout_loss", "supervised_tokens"),
    "align": ("rows_in", "steps", "loss_at_start", "heldout_accuracy", "heldout_margin"),
    "quantize": ("rows_in", "bytes", "bytes_share", "digest"),
}  # fmt: skip
COUNTS = {
    "rows", "records_by_source", "refused_by_source", "excluded_by_source", "no_consent", "dropped_by_source",
    "entities", "kept", "residual", "contaminated", "dirty_items", "filtered", "left_out", "sft", "preference",
    "unpaired", "probes",
}  # fmt: skip
"""Keys of metrics/<stage>.json under which there are numbers by name, at any depth."""
TEXTS = {"digest", "subject_key", "model_licence", "names"}
LISTS = {"duties", "not_covered"}  # of texts
PRIVATE = ("delta", "noise_multiplier", "sample_rate", "clip_norm")  # of metrics/sft.json, where it has an epsilon
CURVES = {
    "sft": ("step", "loss"),
    "align": ("step", "loss"),
    "mix": ("kind", "source", "planned", "realised", "tokens", "rows"),
}
NOT_OF_STAGES = ("catalogue", "dev")
ITEM_KEY = ["task", "subtask", "item"]


@dataclass(frozen=True)
class Facts:
    """What the stages wrote, as it stands in their files."""

    params: dict[str, Any]
    """params.yaml, whole; only the blocks that dvc.yaml declares for the card are read."""
    pipeline: Pipeline
    sources: list[Source]
    tasks: list[Task]
    train: Train
    metrics: dict[str, dict[str, Any]]
    """metrics/<stage>.json."""
    scores: dict[str, dict[str, dict[str, Any]]]
    """Model → task → metrics/eval/<model>.json."""
    items: dict[str, pl.DataFrame]
    """Model → ITEM_KEY, `correct` as a number, `dirty`."""
    answers: dict[str, pl.DataFrame]
    """Model → prompt, answer."""
    curves: dict[str, pl.DataFrame]
    """metrics/plots/<stage>.csv."""
    packages: dict[str, list[str]]
    """Dependency group of pyproject.toml → its pins."""
    tables: Tables
    flow: list[Flow]
    """A line for each source."""
    lock: dict[str, dict[str, Any]]
    """Stage → its entry in dvc.lock."""
    parents: dict[str, dict[str, str]]
    """sft, align → {parent, digest} of the model that it was trained on."""
    names_model: list[dict[str, Any]]
    """What the model of names finds on texts whose names are known (NAMES_SCORES); empty where another one was used."""

    @property
    def generated(self) -> bool:
        """Whether quantization was calibrated on text that the model wrote, not on rows."""
        return bool(self.params["quantize"]["calibration"] == "generated")

    @property
    def kinds_read(self) -> set[str]:
        """Kinds of rows that the quantized model was trained on, itself or before preference tuning."""
        chain = ("sft", "align") if self.pipeline.final == "align" else ("sft",)
        return {kind for kind, model in READER.items() if model in chain}


NAMES_SCORES = "stages/pii/ner/scores.json"


def read_input(path: str, stage: str, read: Callable[[str], Any], keys: tuple[str, ...]) -> Any:
    """A file with the keys or columns that the card states. Raises InputError that names the stage to run."""
    try:
        value = read(path)
        value = value if isinstance(value, pl.DataFrame) else unflatten(value)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro {stage}`") from None
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); run `dvc repro --force {stage}`") from None
    present = value.columns if isinstance(value, pl.DataFrame) else value
    missing = [key for key in keys if key not in present]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing; run `dvc repro --force {stage}`")
    return value


def unflatten(metrics: dict[str, Any]) -> dict[str, Any]:
    """Keys with a point in them as nested ones: {"entities.PERSON": 2} → {"entities": {"PERSON": 2}}."""
    nested: dict[str, Any] = {}
    for key, value in metrics.items():
        first, _, rest = key.partition(".")
        if rest:
            nested.setdefault(first, {})[rest] = value
        else:
            nested[key] = value
    return nested


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def are_counts(value: Any) -> bool:
    """Whether a value is numbers by name, nested or not."""
    return isinstance(value, dict) and all(is_number(part) or are_counts(part) for part in value.values())


def check_shape(stage: str, values: dict[str, Any], required: tuple[str, ...]) -> None:
    """Raises InputError where a value that the card reckons with is none that a stage writes."""
    for key in dict.fromkeys([*required, *(key for key in values if key in {*COUNTS, "names", *LISTS})]):
        value = values[key]
        if key in COUNTS:
            right, expected = are_counts(value), "numbers by name"
        elif key in TEXTS:
            right, expected = isinstance(value, str), "a text"
        elif key == "raw":
            right = isinstance(value, dict) and all(isinstance(digest, str) for digest in value.values())
            expected = "a digest by source"
        elif key in LISTS:
            right = isinstance(value, list) and all(isinstance(part, str) for part in value)
            expected = "a list of texts"
        else:
            right, expected = is_number(value), "a number"
        if not right:
            told = f"{json.dumps(value)[:80]}, but it must be {expected}"
            raise InputError(f"metrics/{stage}.json, {key}: {told}; run `dvc repro --force {stage}`")


def is_left_out(scores: dict[str, Any], key: str) -> bool:
    """Whether null stands for a standard error that lm-eval does not give, or the score of a part without items."""
    part = key.partition("_")[0]
    return scores[key] is None and (key.endswith("_stderr") or scores.get(f"{part}_items") == 0)


def check_scores(model: str, scores: dict[str, Any], tasks: tuple[str, ...]) -> None:
    """Raises InputError where a task's scores are not numbers by name."""
    for task in tasks:
        found = scores[task]
        if isinstance(found, dict):
            found = {key: value for key, value in found.items() if not is_left_out(found, key)}
        if not are_counts(found):
            told = f"{json.dumps(scores[task])[:80]}, but it must be numbers by name"
            raise InputError(f"metrics/eval/{model}.json, {task}: {told}; run `dvc repro --force eval@{model}`")


def read_json_object(path: str) -> dict[str, Any]:
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def read_items(model: str) -> pl.DataFrame:
    """ITEM_KEY, `correct` as a number and `dirty`, one line an item."""
    path = f"data/eval/{model}/items.parquet"
    items = read_input(path, "eval", pl.read_parquet, (*ITEM_KEY, "correct", "dirty"))
    return items.select(*ITEM_KEY, pl.col("correct").cast(pl.Float64), "dirty")


def read_curve(stage: str) -> pl.DataFrame:
    def read(path: str) -> pl.DataFrame:
        return pl.read_csv(path, infer_schema_length=None)

    return read_input(f"metrics/plots/{stage}.csv", stage, read, CURVES[stage])


def read_packages(path: Path = Path("pyproject.toml")) -> dict[str, list[str]]:
    """The pins of each dependency group that stages use: no group that only joins others, none of NOT_OF_STAGES."""
    try:
        groups = tomllib.loads(path.read_text(encoding="utf-8"))["dependency-groups"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no dependency groups to read ({type(error).__name__}); restore the file") from None
    pins = {name: [pin for pin in group if isinstance(pin, str)] for name, group in groups.items()}
    return {name: group for name, group in pins.items() if group and name not in NOT_OF_STAGES}


def check_same_items(items: dict[str, pl.DataFrame]) -> None:
    """Raises InputError where two models were asked different items, so that no difference can be told."""
    for model, table in items.items():
        if not table.select(ITEM_KEY).sort(ITEM_KEY).equals(items["base"].select(ITEM_KEY).sort(ITEM_KEY)):
            raise InputError(f"data/eval/{model}/items.parquet: other items than of base; run `dvc repro --force eval`")


def read_facts() -> Facts:
    """Everything the card states. Raises InputError."""
    metrics = {
        stage: read_input(f"metrics/{stage}.json", stage, read_json_object, keys) for stage, keys in REQUIRED.items()
    }
    for stage, keys in REQUIRED.items():
        check_shape(stage, metrics[stage], keys)
    if "epsilon" in metrics["sft"]:
        read_input("metrics/sft.json", "sft", read_json_object, PRIVATE)
        check_shape("sft", metrics["sft"], ("epsilon", *PRIVATE))
    sources, tasks = load_sources(), load_tasks()
    tables = read_tables(dict.fromkeys(source.kind for source in sources))
    names = tuple(task.name for task in tasks)
    items = {model: read_items(model) for model in MODELS}
    check_same_items(items)
    scores = {model: read_input(f"metrics/eval/{model}.json", "eval", read_json_object, names) for model in MODELS}
    for model, found in scores.items():
        check_scores(model, found, names)
    return Facts(
        params=read_yaml(Path("params.yaml")),
        pipeline=load(Pipeline, "pipeline"),
        sources=sources,
        tasks=tasks,
        train=load(Train, "train"),
        metrics=metrics,
        scores=scores,
        items=items,
        answers={
            model: read_input(f"data/eval/{model}/answers.parquet", "eval", pl.read_parquet, ("prompt", "answer"))
            for model in MODELS
        },
        curves={stage: read_curve(stage) for stage in CURVES},
        packages=read_packages(),
        tables=tables,
        flow=follow_sources(sources, metrics, tables),
        lock=read_lock(),
        parents={
            model: read_input(f"models/{model}/parent.json", model, read_json_object, ("parent", "digest"))
            for model in ("sft", "align")
        },
        names_model=read_json_object(NAMES_SCORES)["sets"] if metrics["scrub"].get("names") == "model" else [],
    )
