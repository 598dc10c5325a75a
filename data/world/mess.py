"""Plant the mess that real data has: copies, leaks and broken records. Each planted thing is listed.

The list says what stands where, so that a test, or anyone who wonders what a stage should have found, can look it up.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from entries import Entry, Sources, grams, jaccard, pick, shuffled, shuffled_entries, text_of, words

NEAR = 0.81  # Jaccard of runs of three words that a near duplicate reaches: a little above the usual threshold of 0.8
Edit = Callable[[str], str]


@dataclass(frozen=True)
class Plant:
    """One planted record: what it is, the source that it goes into, the row (source, key) that it copies."""

    what: str
    source: str
    entry: Entry
    origin: tuple[str, str] | None = None
    details: dict[str, Any] = field(default_factory=dict)


def change(record: dict[str, Any], part: str, edit: Edit) -> dict[str, Any]:
    """The record with its first question or its last answer edited, in any of the SFT sources' forms."""
    first = part == "question"
    match record:
        case {"instruction": _, "output": _}:
            name = "instruction" if first else "output"
            return record | {name: edit(record[name])}
        case {"message": _, "reply": _}:
            name = "message" if first else "reply"
            return record | {name: edit(record[name])}
        case {"conversations": turns}:
            return record | {"conversations": _change_at(turns, 0 if first else len(turns) - 1, "value", edit)}
        case {"messages": messages}:
            user = [item["role"] for item in messages].index("user")
            return record | {"messages": _change_at(messages, user if first else len(messages) - 1, "content", edit)}
    raise ValueError(f"no question and answer in {sorted(record)}")


def _change_at(items: list[dict[str, Any]], place: int, name: str, edit: Edit) -> list[dict[str, Any]]:
    return [item | {name: edit(item[name])} if index == place else item for index, item in enumerate(items)]


def convert(record: dict[str, Any], source: str) -> dict[str, Any]:
    """The same record in the form of another source."""
    if source == "patient_questions" and "instruction" in record:
        return {"message": record["instruction"], "reply": record["output"]}
    if source == "reviewed_replies" and "reviewer" not in record:
        return record | {"reason": "second look", "reviewer": "r6"}
    return record


def repeated(text: str, kind: str) -> str:
    """A question as it is sent again. Case and spacing are equal once normalised, punctuation is not."""
    match kind:
        case "case":
            return text.lower() if text != text.lower() else text.upper()
        case "spacing":
            between = re.sub(r"(?<=[.?!,]) ", "  ", text, count=1)
            return (between if between != text else text.replace(" ", "\u00a0", 1)) + "\n"
        case "punctuation":
            other = [text.rstrip(".?!"), text.replace("'", "\u2019"), text.replace("?", "??"), f"{text} ..."]
            return pick([marked for marked in other if marked != text], "marks", text)
    return text


def repeats(sources: Sources, mess: dict[str, Any], taken: set[str]) -> list[Plant]:
    """Rows that stand twice, most of them with other case, spaces or punctuation in the question."""
    plants: list[Plant] = []
    for origin, into, count in mess["counts"]["repeats"]:
        free = [entry for entry in shuffled_entries(sources[origin], "repeats") if entry.key not in taken]
        taken = taken | {entry.key for entry in free[:count]}
        for entry in free[:count]:
            kinds = ["verbatim", "case", "spacing", "punctuation"]
            kind = "verbatim" if origin in ("dialogues", "desk_tools") else kinds[len(plants) % 4]
            record = change(convert(entry.record, into), "question", partial(repeated, kind=kind))
            copy = Entry(f"repeat.{len(plants)}", record)
            plants.append(Plant("repeats", into, copy, (origin, entry.key), {"kind": kind}))
    return plants


def swap(old: str, new: str) -> Edit:
    return lambda text: re.sub(rf"\b{old}\b(?= )", new, text, count=1)


def swaps(mess: dict[str, Any], key: str) -> list[tuple[str, str, Edit]]:
    """A word exchanged, in the order in which it is tried: (kind, part, edit)."""
    return [
        ("swap", part, swap(old, new))
        for old, new in shuffled(mess["swaps"], f"swaps {key}")
        for part in ("question", "answer")
    ]


def greetings(mess: dict[str, Any], key: str) -> list[tuple[str, str, Edit]]:
    """Words before or behind the question, in the order in which they are tried."""
    opening, closing = pick(mess["openings"], "opening", key), pick(mess["closings"], "closing", key)
    edits: list[tuple[str, str, Edit]] = [
        ("opening", "question", lambda text: f"{opening} {text}"),
        ("closing", "question", lambda text: f"{text} {closing}"),
    ]
    return shuffled(edits, f"greetings {key}", lambda edit: edit[0])


def near_duplicate(entry: Entry, into: str, edits: list[tuple[str, str, Edit]]) -> tuple[Any, dict[str, Any]] | None:
    """The row with the first edit that leaves it a near duplicate, and what was done; None where no edit does."""
    for kind, part, edit in edits:
        record = change(convert(entry.record, into), part, edit)
        alike = jaccard(text_of(entry.record), text_of(record))
        if NEAR <= alike < 1:
            return record, {"kind": kind, "jaccard": round(alike, 4)}
    return None


def near_duplicates(sources: Sources, mess: dict[str, Any], taken: set[str]) -> list[Plant]:
    """Rows with a word exchanged or a greeting more."""
    plants: list[Plant] = []
    for origin, into, *counts in mess["counts"]["near"]:
        for count, edits in zip(counts, (swaps, greetings), strict=True):
            free = [entry for entry in shuffled_entries(sources[origin], "near") if entry.key not in taken]
            tried = ((entry, near_duplicate(entry, into, edits(mess, entry.key))) for entry in free)
            found = list(islice(((entry, near) for entry, near in tried if near), count))
            taken = taken | {entry.key for entry, _ in found}
            for entry, (record, details) in found:
                copy = Entry(f"near.{len(plants)}", record)
                plants.append(Plant("near", into, copy, (origin, entry.key), details))
    return plants


def _instead(reworded: str, _: str) -> str:
    return reworded


def rewordings(sources: Sources, mess: dict[str, Any]) -> list[Plant]:
    """Questions asked again in other words, with the same answer: rows that a deduplicator should keep."""
    by_question = {
        entry.record.get("instruction") or entry.record["message"]: (source, entry)
        for source in ("clinic_faq", "patient_questions")
        for entry in sources[source]
    }
    plants: list[Plant] = []
    for question, reworded in mess["reworded"]:
        source, entry = by_question[question]
        record = change(entry.record, "question", partial(_instead, reworded))
        details = {"jaccard": round(jaccard(text_of(entry.record), text_of(record)), 4)}
        plants.append(Plant("reworded", source, Entry(f"reworded.{len(plants)}", record), (source, entry.key), details))
    return plants


def pairs(sources: Sources, mess: dict[str, Any], what: str, taken: set[str]) -> list[Plant]:
    """Preference pairs that stand twice (pair_repeats), or whose copy says the opposite (pair_swaps)."""
    plants: list[Plant] = []
    for origin, into, count in mess["counts"][what]:
        free = [entry for entry in shuffled_entries(sources[origin], what) if entry.key not in taken]
        taken = taken | {entry.key for entry in free[:count]}
        for entry in free[:count]:
            record = convert(entry.record, into)
            if what == "pair_swaps":
                record = record | {"chosen": record["rejected"], "rejected": record["chosen"]}
            plants.append(Plant(what, into, Entry(f"{what}.{len(plants)}", record), (origin, entry.key)))
    return plants


def overlap(item: str, question: str) -> float:
    """Share of the item's runs of eight words that the question holds; an item shorter than that is one run."""
    runs = grams(item, 8)
    return len(runs & grams(question, min(8, len(words(item))))) / len(runs)


def leaks(tasks: dict[str, list[dict[str, Any]]], mess: dict[str, Any]) -> list[Plant]:
    """Evaluation items as training rows, with the right answer: word for word, and some in other words."""
    into = {task: source for task, source, *_ in mess["counts"]["leaks"]}
    reworded = {leak["item"]: leak["question"] for leak in mess["leaks_reworded"]}
    leaked: list[tuple[str, dict[str, Any]]] = []
    for task, _, long_count, short_count in mess["counts"]["leaks"]:
        items = [item for item in shuffled(tasks[task], "leaks", _id_of) if item["question"] not in reworded]
        long = [item for item in items if len(words(item["question"])) >= 8]
        short = [item for item in items if 5 <= len(words(item["question"])) < 8]
        leaked += [(task, item) for item in long[:long_count] + short[:short_count]]
    for leak in mess["leaks_reworded"]:
        leaked += [(leak["task"], item) for item in tasks[leak["task"]] if item["question"] == leak["item"]]
    plants: list[Plant] = []
    for task, item in leaked:
        question = reworded.get(item["question"], item["question"])
        record = {"instruction": question, "input": "", "output": item["choices"][item["label"]]}
        share = round(overlap(item["question"], question), 4)
        details = {"task": task, "item": item["id"], "verbatim": question == item["question"], "share": share}
        plants.append(Plant("leaks", into[task], Entry(f"leak.{len(plants)}", record), None, details))
    return plants


def _id_of(item: dict[str, Any]) -> str:
    return str(item["id"])


def broken(mess: dict[str, Any]) -> list[Plant]:
    """Records that cannot be read."""
    return [
        Plant("broken", item["source"], Entry(f"broken.{index}", item["record"]), None, {"kind": item["kind"]})
        for index, item in enumerate(mess["broken"])
    ]


def mess_of(sources: Sources, tasks: dict[str, list[dict[str, Any]]], mess: dict[str, Any]) -> list[Plant]:
    """All plants but personal data. No row is copied twice."""

    def taken(plants: list[Plant]) -> set[str]:
        return {plant.origin[1] for plant in plants if plant.origin}

    plants = rewordings(sources, mess)
    plants += repeats(sources, mess, taken(plants))
    plants += near_duplicates(sources, mess, taken(plants))
    plants += pairs(sources, mess, "pair_repeats", taken(plants))
    plants += pairs(sources, mess, "pair_swaps", taken(plants))
    return plants + leaks(tasks, mess) + broken(mess)
