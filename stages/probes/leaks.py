"""Rows that hold an evaluation item, and innocent neighbours: the probes of decontaminate, made in scrub.

- verbatim: the question as lm-eval asks it, and the right answer; with_answer: both in one message among other words;
  question: the question alone. A pair of replies where the source has pairs.
- part: the first or last words of the question, a known share of them. Which of them must be found is settled by
  decontaminate's threshold, in its n-grams.
- reworded: the same question in other words, by synonyms and another order of its clauses; in English alone. How
  many of them keep enough of its runs of words is told, nothing is expected.
- neighbour: another task about the same words, which must stay.

They go through the same scrub as rows do.
"""

import re
from random import Random
from typing import Any

import polars as pl

from stages.common.files import digest_text
from stages.common.probes import CAUGHT, OPEN, STAYS, Probes, converse, list_sources, make_probe, make_table
from stages.common.rows import message

LEAST_WORDS = 8  # of a question that is planted: of shorter ones decontaminate asks for more than the question
LONG_WORD = 12  # characters a word on average, from which a script puts no spaces between words
LEAST_SYNONYMS = 2  # words to exchange in a question that is reworded
SHARES = (0.95, 0.85, 0.75, 0.5, 0.35, 0.2)  # of the words of a question
OPTIONS = re.compile(r"^[ \t]*\(?A[.):][ \t]", re.MULTILINE)
FRAME = re.compile(r"^\s*(?:Question|Q|Problem)\s*:\s*|\s*(?:Answer|A)\s*:?\s*$", re.IGNORECASE)
UNSURE = (
    "I am not sure about that one.",
    "Let me think about it and come back to you.",
    "I would have to look that up.",
)
BEFORE = ("I came across this one today.", "Here is one for our quiz evening.", "A friend asked me something.")
AFTER = ("That is what it said.", "I thought that you would like it.", "It came up again today.")
NEIGHBOURS = (
    "Write a short poem that has the words {words} in it.",
    "Which of these words comes first in the alphabet: {words}?",
    "Make a crossword clue for each of these: {words}.",
    "Translate the following words into Spanish: {words}.",
    "How many letters do these words have in all: {words}?",
)
LEADS = ("Do you happen to know:", "Quick question,", "Tell me,", "I was asked this:")
SYNONYMS = {
    "who": "which person", "where": "in what place", "why": "for what reason", "kind": "sort",
    "best": "most fitting", "large": "big", "big": "large", "small": "little", "begin": "start", "start": "begin",
    "help": "assist", "show": "display", "need": "require", "needs": "requires", "buy": "purchase",
    "doctor": "physician", "child": "youngster", "often": "frequently", "happens": "occurs", "called": "named",
    "used": "employed", "makes": "produces", "make": "produce", "ask": "inquire", "person": "individual",
    "part": "piece", "about": "regarding", "after": "following", "use": "employ",
    "find": "discover", "clinic": "practice", "day": "date", "get": "obtain", "gets": "obtains", "like": "similar to",
    "woman": "lady", "man": "gentleman", "somebody": "someone", "someone": "somebody",
    "whole": "entire", "right": "correct", "quickly": "fast", "end": "finish", "city": "town", "country": "nation",
    "during": "in the course of", "because": "since",
}  # fmt: skip


def cut_options(question: str) -> tuple[str, str]:
    """A question up to its list of options (a line that begins with "A."), and that list; empty where it has none."""
    options = OPTIONS.search(question)
    place = options.start() if options else len(question)
    return question[:place], question[place:]


def strip_question(question: str) -> str:
    """The question without its list of options and the words that frame it.

    >>> strip_question("Question: Where is it?\\nA. here\\nB. there\\nAnswer:")
    'Where is it?'
    """
    return FRAME.sub("", cut_options(question)[0]).strip()


def split_words(text: str) -> list[str]:
    """Words, or characters in a script without spaces."""
    words = text.split()
    return words if len(text) < LONG_WORD * len(words) else list(text)


def cut_question(question: str, share: float, at_end: bool) -> str:
    """The first or the last words of a question, `share` of them.

    >>> cut_question("Which of the four gates is closed?", 0.5, at_end=True)
    'four gates is closed?'
    """
    words = split_words(question)
    count = max(1, round(share * len(words)))
    mark = " " if len(words) == len(question.split()) else ""
    return mark.join(words[-count:] if at_end else words[:count])


def count_synonyms(question: str) -> int:
    return sum(word in SYNONYMS for word in re.findall(r"[^\W\d_]+", question.lower()))


def reword(question: str, random: Random) -> str:
    """Words exchanged for synonyms, what stands behind the first comma put before it, and another beginning."""
    changed = re.sub(
        r"[^\W\d_]+", lambda match: SYNONYMS.get(match[0].lower(), match[0]), question.strip().rstrip("?.")
    )
    before, comma, behind = changed.partition(", ")
    return f"{random.choice(LEADS)} {f'{behind}, {before}' if comma else changed}?"


def ask_otherwise(question: str, random: Random) -> str:
    """Another task about the words of the question that carry its meaning, in another order."""
    words = sorted(set(re.findall(r"[^\W\d_]{5,}", question)))
    random.shuffle(words)
    return random.choice(NEIGHBOURS).format(words=", ".join(words[:6]))


def choose_items(items: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """The items that are long enough, in an order of their own that other items do not change."""
    lines = items.with_columns(body=items["question"].map_elements(strip_question, pl.String)).to_dicts()
    keys = [digest_text(f"{seed} {line['task']} {line['subtask']} {line['item']}") for line in lines]
    ordered = [line for _, line in sorted(zip(keys, lines, strict=True), key=lambda pair: pair[0])]
    return [line for line in ordered if len(split_words(line["body"])) >= LEAST_WORDS and line["answer"].strip()]


def plant_leaks(items: pl.DataFrame, rows: pl.LazyFrame, params: Probes) -> pl.DataFrame:
    """`params.leaks` probes of each kind, none where no item is long enough.

    items: of evalsets.load_items. rows: for the names and kinds of the sources, which take turns.
    """
    chosen, sources = choose_items(items, params.seed), list_sources(rows)
    probes: list[dict[str, Any]] = []
    for kind in ("verbatim", "with_answer", "question", "part", "reworded", "neighbour"):
        random = Random(f"{params.seed} {kind}")
        fitting = [item for item in chosen if kind != "reworded" or count_synonyms(item["body"]) >= LEAST_SYNONYMS]
        for number in range(params.leaks if fitting and sources else 0):
            item = fitting[len(probes) % len(fitting)]
            unsure, rest = random.choice(UNSURE), {"expected": CAUGHT}
            asked, reply = item["question"], unsure
            match kind:
                case "verbatim":
                    reply = item["answer"]
                case "with_answer":
                    asked = f"{random.choice(BEFORE)} {item['body']} {item['answer']} {random.choice(AFTER)}"
                case "part":
                    asked = cut_question(item["body"], SHARES[number % len(SHARES)], bool(number // len(SHARES) % 2))
                case "reworded":
                    asked, rest = reword(item["body"], random), {"expected": OPEN}
                case "neighbour":
                    asked, rest = ask_otherwise(item["body"], random), {"expected": STAYS}
            source, row_kind, licence = sources[len(probes) % len(sources)]
            turns = [message("user", asked), message("assistant", reply)]
            row = converse(source, row_kind, licence, turns, "I do not know.")
            target = f"{item['task']}/{item['subtask']}/{item['item']}"
            probes.append(make_probe(row, kind, "decontaminate", number, target=target, **rest))
    return make_table(probes)
