"""The evaluation sets of params.yaml, rendered by lm-eval itself: what eval asks is what decontaminate compares with.

A task is a YAML file of lm-eval beside its items (docs of lm-eval: docs/new_task_guide.md), alone or as a group. Only
files in its own folder are known: lm-eval's built-in tasks fetch their items from a network.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from stages.common.errors import InputError
from stages.common.item_contracts import ITEM_SCHEMA
from stages.common.params import Task

LOCAL_FORMATS = ("json", "csv", "parquet", "text")  # dataset_path of a task whose items are files


class _TaskConstructor(SafeConstructor):
    """Reads lm-eval's `!function module.name` as text."""


_TaskConstructor.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def read_task_yaml(path: Path) -> dict[str, Any]:
    """One YAML file with what it includes; its own keys win. Raises InputError."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _TaskConstructor
    try:
        config = yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; mend `path` of the task, or write the file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; give the task's YAML file in it") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or 'unreadable'})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected the keys of an lm-eval task, got a {type(config).__name__}")
    includes = config.pop("include", [])
    merged: dict[str, Any] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        merged |= read_task_yaml(path.parent / include)
    return merged | config


def named_configs(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Name of each task and group below `folder` → its file and keys; the first file by path wins, as in lm-eval."""
    named: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(folder.glob("**/*.yaml"), key=lambda path: path.as_posix()):
        try:
            config = read_task_yaml(path)
        except InputError:
            continue  # not a task (prompts, a template); the task's own file is read again below and then complains
        name = config.get("group") or config.get("task")
        if isinstance(name, str):
            named.setdefault(name, (path, config))
    return named


def leaves(
    path: Path, config: dict[str, Any], named: dict[str, tuple[Path, dict[str, Any]]], seen: tuple[str, ...] = ()
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The tasks of a task or group: the file that defines each, and its keys. Raises InputError on unknown members."""
    if "group" not in config:
        yield path, config
        return
    for member in config["task"] if isinstance(config.get("task"), list) else []:
        keys = _items_from(config) | ({"task": member} if isinstance(member, str) else member)
        name = keys.get("group") or keys.get("task")
        tagged = [entry for entry in named.values() if name in _as_list(entry[1].get("tag"))]
        if name in seen:
            raise InputError(f"{path}: the group {name} holds itself; take it out")
        if name in named:
            yield from leaves(named[name][0], named[name][1] | _items_from(keys), named, (*seen, name))
        elif tagged:
            yield from ((where, found | _items_from(keys)) for where, found in tagged)
        elif "group" in keys or "dataset_path" in keys:
            yield from leaves(path, keys, named, seen)  # written out inside the group
        else:
            raise InputError(f"{path}: its member {name} is not a task in {path.parent}; write {name}.yaml beside it")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _items_from(keys: dict[str, Any]) -> dict[str, Any]:
    """What a group says about its members' items, which overrides the members' own words."""
    return {key: keys[key] for key in ("dataset_path", "dataset_kwargs") if key in keys}


def check_task(task: Task) -> list[tuple[Path, dict[str, Any]]]:
    """The task's leaves. Raises InputError where its file is missing or broken, or bears another name."""
    path = Path(task.path)
    config = read_task_yaml(path)
    name = config.get("group") or config.get("task")
    if name != task.name:
        raise InputError(f"{path}: calls its task {name}, params.yaml says {task.name}; make the two names equal")
    named = named_configs(path.parent)
    if named[task.name][0] != path:
        raise InputError(f"{path}: {named[task.name][0]} has a task {task.name} too; rename one of them")
    found = list(leaves(path, config, named, (task.name,)))
    if not found:
        raise InputError(f"{path}: the group {task.name} has no tasks; list them under `task:`")
    return found


def data_files(tasks: list[Task]) -> list[Path]:
    """The item files that the tasks read, in order, without lm-eval: cheap enough for a preflight.

    A pattern stands for the files that it finds, or for itself where it finds none. Raises InputError where a YAML
    file is wrong or a task's items do not come from local files.
    """
    paths: dict[Path, None] = {}
    for task in tasks:
        for yaml, config in check_task(task):
            if "class" in config or "custom_dataset" in config:
                continue  # Python code of the user's own, which finds its items itself
            given = (config.get("dataset_kwargs") or {}).get("data_files")
            if config.get("dataset_path") not in LOCAL_FORMATS or not given:
                raise InputError(
                    f"{yaml}: its items are not local files; put `dataset_path: json` and "
                    f"`dataset_kwargs: {{data_files: {{test: data/raw/eval/{task.name}.jsonl}}}}`"
                )
            for entry in given.values() if isinstance(given, dict) else [given]:
                for name in _as_list(entry):
                    found = sorted(Path().glob(name)) if "*" in name and not Path(name).is_absolute() else []
                    paths |= dict.fromkeys(found or [Path(name)])
    return list(paths)


def build_task(task: Task) -> dict[str, Any]:
    """lm-eval's task objects by name: one, or the members of the group. Raises InputError."""
    for file in data_files([task]):
        if not file.exists():
            raise InputError(f"{file}: there is no such file; {task.path} reads its items from it")
    from jinja2 import TemplateError
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        manager = TaskManager(include_path=str(Path(task.path).parent), include_defaults=False)
        return manager.load(task.name)["tasks"]
    except Exception as error:  # whatever a wrong file makes lm-eval or datasets raise
        # Their other messages may quote an item.
        told = isinstance(error, TemplateError | KeyError | AttributeError | ImportError | FileNotFoundError)
        what = (
            f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
            if told and str(error)
            else type(error).__name__
        )
        raise InputError(
            f"{task.path}: lm-eval cannot build the task {task.name} ({what}); compare its keys with the items' "
            "fields, which are the same in every item"
        ) from None


def render_item(built: Any, document: dict[str, Any]) -> dict[str, Any]:
    """question, choices and answer of one document, as lm-eval asks it."""
    question = built.doc_to_text(document)
    target = built.doc_to_target(document)
    choices = (
        [str(choice) for choice in built.doc_to_choice(document)] if built.config.doc_to_choice is not None else []
    )
    if isinstance(question, int):  # several contexts and one ending (WinoGrande): the contexts are the choices
        ending = str(target)
        return {"question": ending, "choices": choices, "answer": choices[question]}
    targets = target if isinstance(target, list) else [target]
    answers = [choices[entry] if isinstance(entry, int) and choices else str(entry) for entry in targets]
    return {"question": str(question), "choices": choices, "answer": "\n".join(answers)}


def list_examples(built: Any) -> list[dict[str, Any]]:
    """The documents that lm-eval may show as worked examples: none, the first ones, or all that it draws from."""
    shots = built.config.num_fewshot or 0
    if not shots:
        return []
    from lm_eval.api.samplers import FirstNSampler

    documents = built.sampler.fewshot_docs()
    if not isinstance(built.sampler, FirstNSampler):
        return documents
    # examples out of the items themselves: an item is no example of its own, so that one more may be shown
    return documents[: shots + (built.fewshot_cfg.split == built.config.test_split)]


def load_items(tasks: list[Task]) -> pl.DataFrame:
    """Every item that eval will run and every worked example that it may show, with ITEM_SCHEMA, in the order of
    `tasks`; `limit` counts items per subtask.

    Raises InputError with the file and the remedy: no such file, broken YAML, another name, a field that is missing.
    """
    items: list[dict[str, Any]] = []
    for task in tasks:
        for subtask, built in build_task(task).items():
            for split, documents in (
                ("test", built.doc_iterator(limit=task.limit)),
                ("fewshot", enumerate(list_examples(built))),
            ):
                for number, document in documents:
                    try:
                        rendered = render_item(built, document)
                    except Exception as error:  # a template or a function of the user's that fails on this item
                        raise InputError(
                            f"{task.path}, {subtask}, item {number} of {split}: cannot be rendered "
                            f"({type(error).__name__}); mend the item, or doc_to_text, doc_to_choice and doc_to_target"
                        ) from None
                    items.append({"task": task.name, "subtask": subtask, "split": split, "item": number} | rendered)
    return pl.DataFrame(items, ITEM_SCHEMA)
