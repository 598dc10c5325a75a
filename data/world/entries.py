"""What the builder's parts share: entries, draws that depend on the seed alone, and how alike two texts are."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

SEED = 1
Value = TypeVar("Value")


@dataclass(frozen=True)
class Entry:
    """One record of a source. `key` says where it comes from: a fact's question (h01.3), a planted copy (near.12)."""

    key: str
    record: Any


Sources = dict[str, list[Entry]]


def draw(*parts: object) -> int:
    """A number that depends on the seed and on `parts` alone: an edit of one text moves no other."""
    text = "/".join(str(part) for part in (SEED, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def pick(values: Sequence[Value], *parts: object) -> Value:
    return values[draw(*parts) % len(values)]


def shuffled(values: Iterable[Value], purpose: str, key: Callable[[Value], str] = str) -> list[Value]:
    """The values in an order drawn for `purpose`; `key` names a value and must be unique."""
    return sorted(values, key=lambda value: draw(purpose, key(value)))


def shuffled_entries(entries: Iterable[Entry], purpose: str) -> list[Entry]:
    return shuffled(entries, purpose, lambda entry: entry.key)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def grams(text: str, size: int) -> set[tuple[str, ...]]:
    """Runs of `size` words; a shorter text is one run."""
    tokens = words(text)
    return {tuple(tokens[start : start + size]) for start in range(max(1, len(tokens) - size + 1))}


def jaccard(one: str, other: str) -> float:
    """Share of the runs of three words that two texts have in common."""
    first, second = grams(one, 3), grams(other, 3)
    return len(first & second) / len(first | second)


def text_of(record: Any) -> str:
    """All text of a record that a model would read, in any of the sources' forms."""
    match record:
        case {"instruction": instruction, "input": given, "output": output}:
            parts = [instruction, given, output]
        case {"message": message, "reply": reply}:
            parts = [message, reply]
        case {"front": front, "back": back}:
            parts = [front, back]
        case {"conversations": turns}:
            parts = [turn["value"] for turn in turns]
        case {"messages": messages}:
            calls = [call["function"] for item in messages for call in item.get("tool_calls", [])]
            parts = [item["content"] or "" for item in messages]
            parts += [f"{call['name']} {call['arguments']}" for call in calls]
        case {"prompt": {"text": _, "replies": _} as root}:
            parts = _texts_of_tree(root)
        case {"chosen": chosen, "rejected": rejected}:
            parts = [record.get("prompt", ""), chosen, rejected]
        case _:
            parts = [str(record)]
    return "\n".join(str(part) for part in parts)


def _texts_of_tree(node: dict[str, Any]) -> list[str]:
    return [node["text"], *(text for reply in node["replies"] for text in _texts_of_tree(reply))]
