"""The journey of a row worked out a second time, without the pipeline's code: what `pedigree trace` must say of it.

Raw files are read with the standard library, row ids made from their definition (HMAC-SHA256 over source, canonical
JSON of the content, and occurrence), tables and ledgers read with pyarrow. bench/lineage.py compares 200 rows of public
data so, tests/test_lineage.py 200 of the embedded data.
"""

import csv
import gzip
import hmac
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROLES = {"human": "user", "prompter": "user", "gpt": "assistant"}
KINDS = {"hh": "preference", "pairs": "preference"}
JUDGED = ("dedup", "scrub", "decontaminate")
TABLES = ("sft", "preference", "unpaired")
MODELS = {"sft": "trained", "align": "trained", "quantized": "calibrated"}
PARTS = {"sft": {"sft"}, "align": {"sft", "align"}, "quantized": {"sft", "align", "quantized"}}
EVENT = ("stage", "event", "reason", "other_id", "times", "first_step", "last_step", "other_models")
Content = dict[str, Any]


class RefusedError(ValueError):
    """A record that can be no row."""


def read_raw(path: Path) -> list[Any]:
    """The records of a file; None for a line that is none."""
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode("utf-8-sig")
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".json":
        return json.loads(text)
    if suffix in (".csv", ".tsv"):
        return list(csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if suffix == ".tsv" else ","))
    return [read_line(line) for line in text.removesuffix("\n").split("\n")]


def read_line(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def message(role: str, text: Any, **more: Any) -> dict[str, Any]:
    if role != "tool" and not more.get("tool_calls") and not (isinstance(text, str) and text.strip()):
        raise RefusedError("a message without text")
    empty = {"tool_calls": None, "tool_call_id": None, "name": None}
    return {"role": role, "content": text or (None if more.get("tool_calls") else "")} | empty | more


def read_turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    role, text = turn.get("role") or turn["from"], turn.get("content", turn.get("value"))
    calls = [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
        for call in turn.get("tool_calls") or []
    ]
    told = {"tool_calls": json.dumps(calls, ensure_ascii=False) if calls else None}
    return message(ROLES.get(role, role), text, **told, tool_call_id=turn.get("tool_call_id"), name=turn.get("name"))


def read_transcript(text: str) -> list[dict[str, Any]]:
    parts = re.split(r"\n\n(Human|Assistant):", "\n\n" + text.lstrip())
    if parts[0].strip() or len(parts) < 3:
        raise RefusedError("no transcript")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [message(roles[name], said.strip()) for name, said in zip(parts[1::2], parts[2::2], strict=True)]


def walk_tree(node: Mapping[str, Any], before: list[Any], branch: tuple[int, ...]) -> Iterator[tuple[str, list[Any]]]:
    """The conversations of a tree: each best reply of the assistant behind which none follows."""
    role = ROLES.get(node["role"], node["role"])
    if node.get("deleted") or not node["text"].strip() or (role == "assistant" and node.get("rank") not in (None, 0)):
        return
    messages = [*before, message(role, node["text"])]
    below = [path for place, reply in enumerate(node.get("replies") or [])
             for path in walk_tree(reply, messages, (*branch, place))]  # fmt: skip
    if below:
        yield from below
    elif role == "assistant":
        yield ".".join(map(str, branch)), messages


def read_contents(record: Any, source: Mapping[str, Any]) -> list[tuple[str | None, Content]]:
    """branch and content of each row of a record. Raises RefusedError where there is none."""
    if not isinstance(record, dict):
        raise RefusedError("no object")
    columns = source.get("columns") or {}

    def field(name: str) -> Any:
        return record.get(columns.get(name, name))

    nothing: Content = {"tools": None, "chosen": None, "rejected": None, "label": None}
    try:
        match source["format"]:
            case "qa":
                turns = [message("user", field("question")), message("assistant", field("answer"))]
            case "alpaca":
                asked = message("user", field("instruction"))
                asked["content"] += f"\n{field('input')}" if (field("input") or "").strip() else ""
                turns = [asked, message("assistant", field("output"))]
            case "sharegpt" | "chat":
                turns = [
                    read_turn(turn) for turn in field("conversations" if source["format"] == "sharegpt" else "messages")
                ]
                while turns[-1]["role"] != "assistant":
                    turns.pop()
                tools = field("tools")
                nothing["tools"] = json.dumps(tools, ensure_ascii=False) if tools else None
            case "oasst":
                found = [(branch, nothing | {"messages": path}) for branch, path in walk_tree(field("prompt"), [], ())]
                if not found:
                    raise RefusedError("no conversation")
                return found
            case "hh":
                chosen, rejected = read_transcript(field("chosen")), read_transcript(field("rejected"))
                if chosen[:-1] != rejected[:-1]:
                    raise RefusedError("prompts differ")
                return [(None, read_pair(nothing, chosen[:-1], chosen[-1:], rejected[-1:]))]
            case "pairs":
                replies = [[message("assistant", field(name))] for name in ("chosen", "rejected")]
                return [(None, read_pair(nothing, [message("user", field("prompt"))], *replies))]
    except (KeyError, IndexError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise RefusedError("not of this format") from error
    check_turns(turns)
    return [(None, nothing | {"messages": turns})]


def check_turns(turns: list[Any]) -> None:
    """An optional system message; then user, calls with their answers, and assistant, in turn."""
    letters = "".join("c" if turn["tool_calls"] else turn["role"][0] for turn in turns)
    if not re.fullmatch("s?(u(ct+)*a)+", letters):
        raise RefusedError("turns do not alternate")


def read_pair(nothing: Content, prompt: list[Any], chosen: list[Any], rejected: list[Any]) -> Content:
    if chosen == rejected:
        raise RefusedError("no pair")
    check_turns(prompt + chosen)
    check_turns(prompt + rejected)
    return nothing | {"messages": prompt, "chosen": chosen, "rejected": rejected}


def keyed(key: bytes, text: bytes) -> str:
    return hmac.digest(key, text, "sha256").hex()[:16]


def make_ids(source: Mapping[str, Any], folder: Path, key: bytes = b"pedigree") -> dict[str, dict[str, Any]]:
    """row_id → file, record, branch, subject and content of every row of a source, out of its raw files."""
    found: dict[str, dict[str, Any]] = {}
    seen: Counter[bytes] = Counter()
    for path in sorted(folder.glob(source["path"])):
        for number, record in enumerate(read_raw(path)):
            try:
                contents = read_contents(record, source)
            except RefusedError:
                continue
            whose = record.get(source["subject"]) if source.get("subject") else None
            subject = keyed(key, str(whose).strip().encode()) if str(whose or "").strip() else None
            for branch, content in contents:
                fields = content | {"kind": KINDS.get(source["format"], "sft"), "subject": subject}
                text = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
                row_id = keyed(key, b"%b\n%b\n%d" % (source["name"].encode(), text, seen[text]))
                seen[text] += 1
                place = {"file": path.relative_to(folder).as_posix(), "record": number, "branch": branch}
                found[row_id] = place | {"source": source["name"], "subject": subject, "content": content}
    return found


def text_of(content: Content) -> str:
    """All text of a row, one message to a line."""
    turns = [turn for name in ("messages", "chosen", "rejected") for turn in content[name] or []]
    return "\n".join(f"{turn['content'] or ''} {turn['tool_calls'] or ''}".strip() for turn in turns)


def normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the 3-grams of words."""
    words = [re.findall(r"\w+", normalised(text)) for text in (one, other)]
    sets = [{tuple(of[at : at + 3]) for at in range(max(1, len(of) - 2))} for of in words]
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))


class Run:
    """The tables of a finished run, by row."""

    def __init__(self, folder: Path) -> None:
        def read(name: str) -> list[dict[str, Any]]:
            path = folder / name
            return pq.read_table(path).to_pylist() if path.is_file() else []

        self.rows = {stage: {row["row_id"]: row for row in read(f"data/{stage}/rows.parquet")} for stage in JUDGED}
        self.ledgers = {stage: {line["row_id"]: line for line in read(f"data/{stage}/ledger.parquet")}
                        for stage in ("pool", *JUDGED, "mix")}  # fmt: skip
        self.mixed: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for kind in TABLES:
            for row in read(f"data/mix/{kind}.parquet"):
                self.mixed[row["row_id"]].append(row)
        self.steps: dict[str, dict[str, list[int]]] = {model: defaultdict(list) for model in MODELS}
        for model, steps in self.steps.items():
            for row in read(f"models/{model}/consumed.parquet"):
                steps[row["row_id"]].append(row["step"])

    def recount(self, row_id: str) -> dict[str, Any]:
        """What trace must say of a row: its events without details, and the models that carry it."""
        events: list[dict[str, Any]] = [{"stage": "pool", "event": "read"}]
        for stage in JUDGED:
            line = self.ledgers[stage].get(row_id)
            if line is None:
                events.append({"stage": stage, "event": "kept" if row_id in self.rows[stage] else "lost"})
                continue
            what = "dropped" if line["action"] == "drop" else "changed"
            events.append({"stage": stage, "event": what, "reason": line["reason"], "other_id": line["other_id"]})
            if what == "dropped":
                if stage == "dedup":
                    events[-1]["other_models"] = self.list_models(line["other_id"])
                break
        if taken := self.mixed.get(row_id):
            events.append({"stage": "mix", "event": taken[0]["split"], "times": len(taken)})
        if line := self.ledgers["mix"].get(row_id):
            events.append({"stage": "mix", "event": "left_out", "reason": line["reason"], "other_id": line["other_id"]})
        for model, event in MODELS.items():
            if not (steps := self.steps[model].get(row_id)):
                continue
            told = {"times": len(steps), "first_step": min(steps), "last_step": max(steps)}
            events.append({"stage": model, "event": event} | told)
        events = [{key: value for key, value in event.items() if value is not None} for event in events]
        return {"events": events, "models": self.list_models(row_id)}

    def list_models(self, row_id: str) -> list[str]:
        """The models of which a row trained some part."""
        parts = {model for model, steps in self.steps.items() if row_id in steps}
        return [model for model, chain in PARTS.items() if chain & parts]

    def check_text(self, row_id: str, raw: Mapping[str, dict[str, Any]]) -> str | None:
        """What speaks against the ledgers in the texts themselves, read from the raw files: a duplicate that is not
        one, a row that scrub left alone though another text comes out, one that it changed though the same does."""
        mine, line = text_of(raw[row_id]["content"]), self.ledgers["dedup"].get(row_id)
        if (
            line
            and line["reason"] == "exact_duplicate"
            and normalised(text_of(raw[line["other_id"]]["content"])) != normalised(mine)
        ):
            return "its survivor has another text"
        if line and line["reason"] == "near_duplicate":
            told, found = (
                float(line["detail"].split("=")[1]),
                similarity(mine, text_of(raw[line["other_id"]]["content"])),
            )
            return None if abs(told - found) < 0.05 else f"similarity {found:.2f}, told {told:.2f}"
        after = self.rows["scrub"].get(row_id)
        if after and (text_of(after) == mine) == (row_id in self.ledgers["scrub"]):
            return "scrub's ledger does not fit its text"
        return None


def compare(told: Mapping[str, Any], row_id: str, raw: Mapping[str, dict[str, Any]], run: Run) -> list[str]:
    """Where an object of `pedigree trace --json` is not what was worked out here."""
    place, expected = raw[row_id], run.recount(row_id)
    wrong = [f"{name}: {told[name]}, not {place[name]}" for name in ("source", "file", "record", "branch", "subject")
             if told[name] != place[name]]  # fmt: skip
    events = [{key: event[key] for key in EVENT if key in event} for event in told["events"]]
    if events != expected["events"]:
        wrong.append(f"events: {events}, not {expected['events']}")
    if told["models"] != expected["models"]:
        wrong.append(f"models: {told['models']}, not {expected['models']}")
    twins = [line["row_id"] for line in run.ledgers["dedup"].values()
             if line["other_id"] == row_id and line["reason"].endswith("_duplicate")]  # fmt: skip
    if sorted(twin["other_id"] for twin in told["stands_for"]) != sorted(twins):
        wrong.append(f"stands for: {told['stands_for']}, not {twins}")
    if fault := run.check_text(row_id, raw):
        wrong.append(fault)
    return [f"{row_id} {fault}" for fault in wrong]
