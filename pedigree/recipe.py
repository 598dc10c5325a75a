"""pedigree recipe list | show | use | diff: named sets of differences to params.yaml.

A recipe is recipes/NAME.yaml: a sentence as its first comment, then the keys in which it differs from
recipes/default.yaml, which is complete. `use NAME` means the default values with these differences, so that recipes do
not pile up on each other. Only the text of the values that differ is changed: comments, quotes and the spelling of
numbers (1.0e-4) stay; a list is one value and is replaced whole. Values of your own are never lost unsaid: `--keep`
carries them over, `--force` gives them up.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from pedigree.blocks import validate_blocks
from pedigree.layout import nearest, show_value, table
from pedigree.values import Key, Leaves, differing, leaves_of, read_leaves, same, set_values
from stages.common.errors import InputError
from stages.common.params import PARAMS_FILE

FOLDER = Path("recipes")
DEFAULT = "default"
SCHEMA_LINE = "# yaml-language-server: $schema=params.schema.json"
SHOWN_DIFFERENCES = 30


def recipe_names() -> list[str]:
    """The recipes, the default first."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    if DEFAULT not in names:
        raise InputError(f"{FOLDER}/{DEFAULT}.yaml: there is no such file; `git checkout {FOLDER}` brings it back")
    return [DEFAULT, *(name for name in names if name != DEFAULT)]


def recipe_path(name: str) -> Path:
    """Raises InputError where there is no such recipe."""
    names = recipe_names()
    if name not in names:
        raise InputError(f"there is no recipe `{name}`{nearest(name, names)} (there are: {', '.join(names)})")
    return FOLDER / f"{name}.yaml"


def describe_recipe(name: str) -> str:
    """The first paragraph of a recipe's opening comment."""
    lines = []
    for line in recipe_path(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.strip("# "))
    return " ".join(lines)


def read_differences(name: str, default: Leaves) -> Leaves:
    """What a recipe sets, its comments in the columns of the default's; an InputError line for each unknown key."""
    path = recipe_path(name)
    differences = read_leaves(path)
    unknown = [f"{path}, {'.'.join(key)}: {_explain(key, default)}" for key in differences if key not in default]
    if unknown:
        raise InputError("\n".join(unknown))
    return {key: replace(leaf, comment=default[key].comment) for key, leaf in differences.items()}


def _explain(key: Key, default: Leaves) -> str:
    """Why `key` is not one that a recipe can set."""
    depth = 0
    while depth < len(key) - 1 and any(other[: depth + 1] == key[: depth + 1] for other in default):
        depth += 1
    here = list(dict.fromkeys(other[depth] for other in default if other[:depth] == key[:depth] and len(other) > depth))
    below = list(dict.fromkeys(other[depth + 1] for other in default if other[: len(key)] == key))
    if below:
        return f"has keys of its own, set them one by one ({', '.join(below)})"
    if not here:
        return f"unknown key; `{'.'.join(key[:depth])}` is a single value"
    return "unknown key" + (nearest(key[depth], here) or f"; the keys here are {', '.join(here)}")


def read_recipes() -> dict[str, Leaves]:
    """All values that each recipe stands for: the default ones with its differences."""
    default = read_leaves(recipe_path(DEFAULT))
    return {name: default | read_differences(name, default) for name in recipe_names()}


def find_own_values(here: Leaves, recipes: dict[str, Leaves]) -> tuple[str, list[Key]]:
    """The recipe that params.yaml is closest to, and the keys in which it differs: the user's own values."""
    differences = {name: differing(here, recipe) for name, recipe in recipes.items()}
    name = min(differences, key=lambda name: len(differences[name]))
    return name, differences[name]


def count_own(own: list[Key]) -> str:
    return f" with {len(own)} value{'s' if len(own) > 1 else ''} of your own" if own else ""


def use_recipe(name: str, keep: bool, force: bool) -> str:
    """Write a recipe into params.yaml and say what changed. Raises InputError; then nothing was written."""
    from stages.common.files import write_text

    path, recipes = recipe_path(name), read_recipes()
    wanted = recipes[name]
    before = read_leaves(PARAMS_FILE) if PARAMS_FILE.exists() else {}
    own = find_own_values(before, recipes)[1] if before else []
    if keep:
        differences = read_leaves(path) if name != DEFAULT else {}
        own = [key for key in own if key not in differences]
        wanted = {key: leaf for key, leaf in wanted.items() if key in before and key not in own}
    lost = [
        key for key in own if key not in wanted or key not in before or not same(before[key].value, wanted[key].value)
    ]
    if lost and not keep and not force:
        print(f"{PARAMS_FILE} holds values of your own, which `{name}` would overwrite:\n")
        print(show_differences(lost, {"yours": before, name: wanted}) + "\n")
        raise InputError(
            f"nothing was written; `pedigree recipe use {name} --keep` keeps them, --force overwrites them"
        )

    anew = not keep and set(before) != set(wanted)  # keys came or went: the default's text has every key
    text = set_values(default_text() if anew else PARAMS_FILE.read_text(encoding="utf-8"), wanted)
    after = leaves_of(text)
    mistakes = validate_blocks(_nested(after))[1]
    if mistakes:
        raise InputError("\n".join([*mistakes, f"nothing was written: mend {PARAMS_FILE if keep else path} first"]))
    changed = differing(before, after)
    if changed:
        write_text(PARAMS_FILE, text)
    lines = [show_differences(changed, {"before": before, "now": after}) + "\n"] if changed and before else []
    state = f"{PARAMS_FILE} is `{name}` {'now' if changed else 'already'}"
    lines.append(f"{state}{count_own(own) if keep else ''}. Next: pedigree check, dvc repro")
    return "\n".join(lines)


def default_text() -> str:
    """params.yaml as recipes/default.yaml gives it: all that stands behind its opening comment."""
    _, _, body = recipe_path(DEFAULT).read_text(encoding="utf-8").partition("\n\n")
    return f"{SCHEMA_LINE}\n\n{body}"


def _nested(leaves: Leaves) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, leaf in leaves.items():
        block = values
        for part in key[:-1]:
            block = block.setdefault(part, {})
        block[key[-1]] = leaf.value
    return values


def show_differences(keys: list[Key], columns: dict[str, Leaves]) -> str:
    """A line for each key with its value in each of `columns`; sources and tasks by name."""
    rows = []
    for key in keys:
        found: list[Any] = [leaves[key].value if key in leaves else None for leaves in columns.values()]
        if all(isinstance(value, list) and all(isinstance(item, dict) for item in value) for value in found):
            rows += _show_entries(key, found)
        else:
            shown = [show_value(leaves[key].value) if key in leaves else "-" for leaves in columns.values()]
            rows.append([".".join(key), *shown])
    more = len(rows) - SHOWN_DIFFERENCES
    lines = table([["key", *columns], *rows[:SHOWN_DIFFERENCES]], indent="  ")
    return lines + (f"\n  and {more} more" if more > 0 else "")


def _show_entries(key: Key, lists: list[list[dict[str, Any]]]) -> list[list[str]]:
    """Lines for lists of entries with a name, as far as they differ."""
    entries = [{str(item.get("name")): item for item in items} for items in lists]
    rows = []
    for name in dict.fromkeys(name for items in entries for name in items):
        if not all(name in items for items in entries):
            rows.append([".".join((*key, name)), *("(an entry)" if name in items else "-" for items in entries)])
            continue
        for field in dict.fromkeys(field for items in entries for field in items[name]):
            values = [items[name].get(field) for items in entries]
            if not all(same(value, values[0]) for value in values):
                rows.append([".".join((*key, name, field)), *map(show_value, values)])
    return rows or [[".".join(key), *(show_value(list(items)) for items in entries)]]  # another order


def list_recipes() -> str:
    """A line for each recipe, `*` at the one that params.yaml is."""
    recipes = read_recipes()
    if PARAMS_FILE.exists():
        closest, own = find_own_values(read_leaves(PARAMS_FILE), recipes)
        hint = f": `pedigree recipe diff {closest}` shows them" if own else ""
        state = f"{PARAMS_FILE} is `{closest}`{count_own(own)}{hint}"
    else:
        closest, state = "", f"there is no {PARAMS_FILE}: `pedigree recipe use {DEFAULT}` writes it"
    rows = [["*" if name == closest else " ", name, describe_recipe(name)] for name in recipes]
    return f"{table(rows)}\n\n{state}"


def compare_with_recipe(name: str) -> str:
    """The keys in which params.yaml differs from a recipe."""
    recipe_path(name)
    here, there = read_leaves(PARAMS_FILE), read_recipes()[name]
    keys = differing(here, there)
    return show_differences(keys, {"here": here, name: there}) if keys else f"{PARAMS_FILE} is the recipe `{name}`"


def recipe(arguments: argparse.Namespace) -> None:
    match arguments.action:
        case "list":
            print(list_recipes())
        case "show":
            print(recipe_path(arguments.name).read_text(encoding="utf-8"), end="")
        case "use":
            print(use_recipe(arguments.name, arguments.keep, arguments.force))
        case "diff":
            print(compare_with_recipe(arguments.name))
