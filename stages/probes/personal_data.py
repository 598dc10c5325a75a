"""Personal data that nobody has, in sentences of several styles, and lookalikes: the probes of scrub.

stages/probes/{sentences.yaml,values.py} → rows of the kinds that the sources have, one value each: in a chat, a mail, a
form, a table, a log, a system message, the arguments of a tool call, a reply, a rejected reply.

They hold no text of the user's. English only: what scrub finds in another language is not measured.
"""

import json
import re
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from stages.common.params import read_yaml
from stages.common.probes import STAYS, Probes, converse, list_sources, make_probe, make_table
from stages.common.rows import message
from stages.probes.identifiers import fill
from stages.probes.values import MAKE

SENTENCES = Path(__file__).with_name("sentences.yaml")
STYLES = ("chat", "form", "arguments", "mail", "reply", "system", "table", "log")
MARKED = re.compile(r"\[\[(.+?)\]\]")


def place_value(style: str, value: str, says: str, entry: dict[str, Any], texts: dict[str, Any]) -> dict[str, Any]:
    """The turns of a conversation that holds the value: {turns, other}, `other` being a worse last reply."""
    label = entry["label"]
    fields = {"value": value, "label": label, "Label": label[0].upper() + label[1:]}
    fields["says"] = says.format(**fields)
    ask, (thanks, other) = texts["questions"][len(value) % 3], texts["replies"][:2]
    match style:
        case "reply":
            return {"turns": [message("user", ask), message("assistant", fields["says"])], "other": other}
        case "system":
            about = message("system", texts["system"].format(**fields))
            return {"turns": [about, message("user", ask), message("assistant", thanks)], "other": other}
        case "arguments":
            call = [{"name": "update_record", "arguments": {label.replace(" ", "_"): value, "verified": True}}]
            turns = [
                message("user", "Please put it on my file, you have it from the last letter."),
                message("assistant", None, tool_calls=json.dumps(call, ensure_ascii=False, separators=(",", ":"))),
                message("tool", '{"status": "ok"}'),
                message("assistant", thanks),
            ]
            return {"turns": turns, "other": other}
        case _:
            return {"turns": [message("user", texts[style].format(**fields)), message("assistant", thanks)],
                    "other": other}  # fmt: skip


def reject_last(placed: dict[str, Any]) -> dict[str, Any]:
    """The same with the last reply as the rejected one."""
    *before, last = placed["turns"]
    return {"turns": [*before, message("assistant", placed["other"])], "other": last["content"]}


def plant_personal_data(rows: pl.LazyFrame, params: Probes) -> pl.DataFrame:
    """`params.personal_data` values of each entity, and as many of its lookalikes, where there are as many.

    rows: those of pool, for the names and kinds of the sources, which take turns.
    """
    texts, sources = read_yaml(SENTENCES), list_sources(rows)
    probes: list[dict[str, Any]] = []
    numbers: Counter[str] = Counter()
    for name, entry in texts["entities"].items():
        entity = entry.get("entity", name)
        random, says = Random(f"{params.seed} {name}"), entry.get("says", texts["says"])
        make = MAKE.get(name) or partial(fill, entry.get("form", ""))
        for number in range(params.personal_data):
            style, value = STYLES[number % len(STYLES)], make(random)
            placed = place_value(style, value, says[number % len(says)], entry, texts)
            source, kind, licence = sources[len(probes) % len(sources)]
            if style == "reply" and kind == "preference":
                placed = reject_last(placed)
            row = converse(source, kind, licence, **placed)
            probes.append(make_probe(row, entity, "scrub", numbers[entity], planted=[value]))
            numbers[entity] += 1
        for number, marked in enumerate(entry.get("lookalikes", [])[: params.personal_data]):
            text = MARKED.sub(r"\1", marked).replace("{", "{{").replace("}", "}}")
            placed = place_value(("chat", "reply")[number % 2], "", text, entry, texts)
            source, kind, licence = sources[len(probes) % len(sources)]
            row = converse(source, kind, licence, **placed)
            lookalikes = {"planted": MARKED.findall(marked), "expected": STAYS}
            probes.append(make_probe(row, entity, "scrub", numbers[entity], **lookalikes))
            numbers[entity] += 1
    return make_table(probes)
