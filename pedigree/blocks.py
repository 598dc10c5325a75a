"""Which class validates which block of params.yaml, and what is wrong with one.

The classes stand in the stages. They are imported one by one when they are asked for; a stage imports nothing heavy.
"""

import importlib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pedigree.layout import nearest
from stages.common.params import PARAMS_FILE, check_shares, describe

# block: (module, class). `sources` and `tasks` are lists of theirs.
BLOCKS = {
    "pipeline": ("stages.common.params", "Pipeline"),
    "base": ("stages.common.params", "Base"),
    "policy": ("stages.common.policy", "Policy"),
    "sources": ("stages.common.params", "Source"),
    "tasks": ("stages.common.params", "Task"),
    "engine": ("stages.common.engine", "Engine"),
    "pool": ("stages.pool", "Pool"),
    "probes": ("stages.common.probes", "Probes"),
    "dedup": ("stages.dedup", "Dedup"),
    "scrub": ("stages.pii.params", "Scrub"),
    "filters": ("stages.quality.filters", "Filters"),
    "decontaminate": ("stages.decontaminate", "Decontaminate"),
    "mix": ("stages.mix", "Mix"),
    "train": ("stages.common.params", "Train"),
    "sft": ("stages.sft", "Sft"),
    "sft_dp": ("stages.sft_dp", "SftDp"),
    "dpo": ("stages.dpo", "Dpo"),
    "quantize": ("stages.quantize", "Quantize"),
    "eval": ("stages.eval", "Eval"),
    "card": ("stages.card", "Card"),
}
LISTS = ("sources", "tasks")


def block_class(name: str) -> Any:
    module, attribute = BLOCKS[name]
    return getattr(importlib.import_module(module), attribute)


def field_names(schema: Any) -> set[str]:
    """Every name of a field anywhere in a JSON Schema."""
    if isinstance(schema, list):
        return {name for item in schema for name in field_names(item)}
    if not isinstance(schema, dict):
        return set()
    below = {name for item in schema.values() for name in field_names(item)}
    return below | set(schema.get("properties", {}))


def validate_block(name: str, value: Any, path: Path = PARAMS_FILE) -> tuple[Any, list[str]]:
    """(the validated block, no mistakes) or (None, a line for each mistake)."""
    block: Any = block_class(name)
    block = list[block] if name in LISTS else block
    adapter: TypeAdapter[Any] = TypeAdapter(block)
    try:
        return adapter.validate_python(value), []
    except ValidationError as error:
        lines = describe(error, name, path).splitlines()
        mistakes = error.errors()
        if len(lines) != len(mistakes):  # a message of several lines: no hint can be told to its line
            return None, lines
        names = field_names(adapter.json_schema()) if any(m["type"] == "extra_forbidden" for m in mistakes) else set()
        return None, [
            line + (nearest(str(mistake["loc"][-1]), names) if mistake["type"] == "extra_forbidden" else "")
            for line, mistake in zip(lines, mistakes, strict=True)
        ]


def compare_entries(name: str, entries: list[Any], path: Path = PARAMS_FILE) -> list[str]:
    """What is wrong among the entries of a list: names that stand twice, shares of a kind that do not sum to 1."""
    names = [entry.name for entry in entries]
    mistakes = [
        f"{path}, {name}: the name {twice} stands twice; names are unique"
        for twice in dict.fromkeys(names)
        if names.count(twice) > 1
    ]
    if name != "sources":
        return mistakes
    if not entries:
        return [f"{path}, sources: empty; give at least one source"]
    return mistakes + [f"{path}, {name}: {mistake}" for mistake in check_shares(entries)]


def validate_blocks(values: Any, path: Path = PARAMS_FILE) -> tuple[dict[str, Any], list[str]]:
    """The blocks that are valid, by name, and a line for each mistake of the others."""
    if not isinstance(values, dict):
        return {}, [f"{path}: holds no blocks; recipes/default.yaml shows all"]
    mistakes = [f"{path}, {name}: unknown block{nearest(str(name), BLOCKS)}" for name in values if name not in BLOCKS]
    valid = {}
    for name in BLOCKS:
        if name not in values:
            mistakes.append(f"{path}, {name}: the block is missing; recipes/default.yaml shows all")
            continue
        block, wrong = validate_block(name, values[name], path)
        if not wrong and name in LISTS:
            wrong = compare_entries(name, block, path)
        mistakes += wrong
        if not wrong:
            valid[name] = block
    return valid, mistakes
