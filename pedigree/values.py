"""The values of a YAML file by key, each with its place in the text, so that one can be replaced and nothing else.

A round trip through a YAML library moves comments that stand behind a replaced list; replacing text does not.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from stages.common.errors import InputError
from stages.common.params import PARAMS_FILE, read_yaml

Key = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """A value that is no mapping (a list is one value) and its text, characters `start` to `end` of the file.

    `column` is where it begins in its line, `comment` where the comment behind it does, -1 where there is none.
    """

    value: Any
    text: str
    start: int
    end: int
    column: int
    comment: int


Leaves = dict[Key, Leaf]


def read_leaves(path: Path) -> Leaves:
    """The values of a file. Raises InputError where it is missing or not valid YAML."""
    values = read_yaml(path)
    if values is not None and not isinstance(values, dict):
        raise InputError(f"{path}: holds no keys; expected lines such as `train:` and `  lr: 1.0e-4`")
    text = path.read_text(encoding="utf-8")
    return leaves_of(text, values)


def leaves_of(text: str, values: dict[Any, Any] | None = None) -> Leaves:
    """The values of valid YAML text (`values`: the same as Python objects, where they are at hand)."""
    values = YAML(typ="safe", pure=True).load(text) if values is None else values
    leaves: Leaves = {}
    if values is not None:  # else nothing but comments
        _collect((), values, YAML(typ="safe", pure=True).compose(text), text, leaves)
    return leaves


def _collect(key: Key, value: Any, node: Node, text: str, leaves: Leaves, place: int = 0) -> None:
    if isinstance(value, dict) and value and isinstance(node, MappingNode):
        for (name, item), (name_node, item_node) in zip(value.items(), node.value, strict=False):
            _collect((*key, str(name)), item, item_node, text, leaves, _behind_colon(name_node, text))
        return
    start = place if _is_empty(node) else node.start_mark.index
    end = max(start, _end_of(node, text))
    if isinstance(node, SequenceNode) and not node.flow_style:  # with the comment behind its last line
        end += len(text[end:].partition("\n")[0])
    written = text[start:end].rstrip() if not _is_empty(node) else ""
    end = start + len(written)
    line_start = text.rfind("\n", 0, end) + 1
    behind = text[end:].partition("\n")[0]
    comment = end - line_start + behind.index("#") if behind.lstrip(" ").startswith("#") else -1
    leaves[key] = Leaf(value, written, start, end, start - text.rfind("\n", 0, start) - 1, comment)


def _is_empty(node: Node) -> bool:
    """`key:` with nothing behind it, whose marks stand at the next word of the file."""
    return isinstance(node, ScalarNode) and node.start_mark.index == node.end_mark.index


def _behind_colon(name: Node, text: str) -> int:
    return text.index(":", name.end_mark.index) + 1


def _end_of(node: Node, text: str) -> int:
    """Where a node's own text ends; the end mark of a block stands behind the comments that follow it."""
    if isinstance(node, MappingNode) and node.value and not node.flow_style:
        return max(_behind_colon(name, text) if _is_empty(item) else _end_of(item, text) for name, item in node.value)
    if isinstance(node, SequenceNode) and node.value and not node.flow_style:
        return max(item.start_mark.index if _is_empty(item) else _end_of(item, text) for item in node.value)
    return 0 if _is_empty(node) else int(node.end_mark.index)


def same(one: Any, other: Any) -> bool:
    """Equal as YAML values: 1 is 1.0, but true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def differing(one: Leaves, other: Leaves) -> list[Key]:
    """Keys that stand in one only or have another value there, in the order of `one`."""
    keys = dict.fromkeys([*one, *other])
    return [key for key in keys if key not in one or key not in other or not same(one[key].value, other[key].value)]


def set_values(text: str, wanted: Leaves) -> str:
    """`text` with the values of `wanted`, each in the place of the value that has its key.

    A value that is the same already keeps its text. Raises InputError where a value could not be placed.
    """
    here = leaves_of(text)
    changed = [key for key in wanted if not same(wanted[key].value, here[key].value)]
    for key in sorted(changed, key=lambda key: here[key].start, reverse=True):  # from the end, so that places stay
        text = _set_value(text, here[key], wanted[key])
    try:
        after = leaves_of(text)
    except YAMLError:
        after = {}
    for key, leaf in wanted.items():
        if key not in after or not same(after[key].value, leaf.value):
            name = ".".join(key)
            raise InputError(f"{PARAMS_FILE}, {name}: its form (an anchor, an alias?) cannot be kept; write it plainly")
    return text


def _set_value(text: str, old: Leaf, new: Leaf) -> str:
    first, *rest = new.text.split("\n")
    shift = old.column - new.column
    rest = [" " * shift + line if shift > 0 and line else line[max(-shift, 0) :] for line in rest]
    written = "\n".join([first, *rest])
    before = text[: old.start] + (" " if old.start == old.end else "")  # `key:` with nothing behind it
    behind = text[old.end :]
    if old.comment >= 0 and not rest:  # the comment stands where it does beside the new value, if there is room
        column = old.comment if new.comment < 0 else new.comment
        behind = " " * max(column - old.column - len(written), 1) + behind.lstrip(" ")
    return before + written + behind
