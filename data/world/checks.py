"""What must hold of the built world, whatever the texts: nothing is alike, or leaks, but what was planted to."""

from collections import defaultdict
from typing import Any

from entries import Sources, grams, jaccard, text_of, words

RUN = 8  # words in a row that an evaluation question may share with no training row
ALIKE = 0.8
FUNCTION_WORDS = frozenset(
    words(
        "a an the of at is it for in on to and what which who whom how when does do by that this be are was with from "
        "s one must should may can will has have its their his her they he she there here clinic juniper street wren"
    )
)
Task = list[dict[str, Any]]


def _cells(planted: dict[str, Any], kinds: list[str]) -> set[tuple[str, int]]:
    return {(item["at"]["source"], item["at"]["record"]) for kind in kinds for item in planted[kind]}


def overlaps(sources: Sources, tasks: dict[str, Task], planted: dict[str, Any]) -> list[str]:
    """Evaluation items that stand in a training row: a run of eight words of the question, or of question and right
    answer, or all of it where it is shorter."""
    leaks = _cells(planted, ["leaks"])
    runs: dict[tuple[str, ...], str] = {}
    for items in tasks.values():
        for item in items:
            answered = f"{item['question']} {item['choices'][item['label']]}"
            runs |= dict.fromkeys(grams(item["question"], RUN) | grams(answered, RUN), str(item["id"]))
    sizes = sorted({len(run) for run in runs})
    found = []
    for source, entries in sources.items():
        for record, entry in enumerate(entries):
            if (source, record) not in leaks:
                text = text_of(entry.record)
                shared = {runs[run] for size in sizes for run in grams(text, size) & runs.keys()}
                place = f"{source} record {record} ({entry.key})"
                found += [f"{place} holds words of item {item}" for item in sorted(shared)]
    return found


def accidental_copies(sources: Sources, planted: dict[str, Any]) -> list[str]:
    """Rows as alike as near duplicates that nobody planted."""
    copies = _cells(planted, ["repeats", "near", "pair_repeats", "pair_swaps", "broken"])
    rows = [
        (f"{source} record {record} ({entry.key})", text_of(entry.record))
        for source, entries in sources.items()
        for record, entry in enumerate(entries)
        if (source, record) not in copies
    ]
    holders = defaultdict(list)
    for index, (_, text) in enumerate(rows):
        for run in grams(text, 3):
            holders[run].append(index)
    pairs: dict[tuple[int, int], int] = defaultdict(int)
    for members in holders.values():
        if len(members) <= 40:  # a run that more rows share is a phrase
            for position, first in enumerate(members):
                for second in members[position + 1 :]:
                    pairs[first, second] += 1
    return [
        f"{rows[first][0]} and {rows[second][0]} are alike"
        for (first, second), shared in pairs.items()
        if shared >= 3 and jaccard(rows[first][1], rows[second][1]) >= ALIKE
    ]


def twice(tasks: dict[str, Task]) -> list[str]:
    """Evaluation questions that stand twice, and items whose choices are not four."""
    seen: dict[str, str] = {}
    found = []
    for items in tasks.values():
        for item in items:
            question = " ".join(words(item["question"]))
            if question in seen:
                found.append(f"item {item['id']} asks what item {seen[question]} asks")
            seen[question] = item["id"]
            if len({" ".join(words(choice)) for choice in item["choices"]}) != 4:
                found.append(f"item {item['id']} has not four different choices")
    return found


def alike_sets(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))


def told_answers(sources: Sources, tasks: dict[str, Task]) -> list[str]:
    """Desk cards that ask what an item of their fact asks, in nearly its words, or give its right answer in them."""
    found = []
    for entry in sources["desk_cards"]:
        front, back = (set(words(entry.record[side])) - FUNCTION_WORDS for side in ("front", "back"))
        for item in tasks["clinic"]:
            if item["id"].startswith(entry.record["topic"]):
                question = set(words(item["question"])) - FUNCTION_WORDS
                answer = set(words(item["choices"][item["label"]])) - FUNCTION_WORDS
                asked, told = alike_sets(front, question), alike_sets(back, answer)
                if (asked >= 0.3 and told >= 0.5) or (asked >= 0.15 and told == 1):
                    found.append(f"desk card {entry.key} asks what item {item['id']} asks")
    return found


def faults(sources: Sources, tasks: dict[str, Task], planted: dict[str, Any]) -> list[str]:
    """One line per fault; an empty list when the world is as it should be."""
    told = told_answers(sources, tasks)
    return overlaps(sources, tasks, planted) + told + accidental_copies(sources, planted) + twice(tasks)
