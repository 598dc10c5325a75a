"""From one record in a source's native format to rows: alpaca, sharegpt, chat, oasst, qa, hh, pairs, kto.

A record is refused as a whole (`RecordError`), never mended, but for two things: in SFT formats the turns after the
assistant's last one are cut off, and a system message without text is left out. Texts stay as they are; only the turns
of HH transcripts lose the white space around them.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from stages.common.conversation import (
    Message,
    Record,
    RecordError,
    check_conversation,
    cut_after_assistant,
    read_list,
    read_message,
    read_messages,
    read_optional_text,
    read_text,
    read_tools,
)
from stages.common.rows import message

# Fields of each format: what a record must have (alternatives by |), and what it may have.
FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "alpaca": (("instruction", "output"), ("input", "system", "history")),
    "sharegpt": (("conversations",), ("system", "tools")),
    "chat": (("messages",), ("system", "tools")),
    "oasst": (("prompt|message_id",), ()),
    "qa": (("question", "answer"), ("system",)),
    "hh": (("chosen", "rejected"), ()),
    "pairs": (
        ("chosen", "rejected"),
        ("prompt", "messages", "conversations", "instruction", "input", "system", "history", "tools"),
    ),
    "kto": (
        ("prompt|messages|conversations|instruction", "label|tag"),
        ("completion", "output", "input", "system", "history", "tools"),
    ),
}
EXPECTED = {  # as a message says it
    "alpaca": "instruction, input, output",
    "sharegpt": "conversations",
    "chat": "messages",
    "oasst": "a tree (prompt with replies) or a message (message_id, parent_id, role, text)",
    "qa": "question, answer",
    "hh": "chosen, rejected",
    "pairs": "prompt, chosen, rejected",
    "kto": "prompt, completion, label",
}
TURN = re.compile(r"\n\n(Human|Assistant):")
LABELS = {"true": True, "1": True, "false": False, "0": False}


@dataclass
class Content:
    """What a row says. Of a preference or unpaired row `messages` is the prompt, `chosen` the better or only reply."""

    messages: list[Message]
    tools: str | None = None
    chosen: list[Message] | None = None
    rejected: list[Message] | None = None
    label: bool | None = None
    branch: str | None = None


def parse(record: Any, form: str, columns: dict[str, str]) -> list[Content]:
    """The rows of a record in the format `form`: one, or of a tree one a path. Raises RecordError.

    `columns` maps a field of the format to the record's own name for it.
    """
    if not isinstance(record, dict):
        raise RecordError(f"not an object; expected {EXPECTED[form]} (format {form})")
    fields = record
    if columns:
        fields = {name: value for name, value in record.items() if name not in columns}
        fields |= {field: record[column] for field, column in columns.items() if column in record}
    try:
        return PARSERS[form](fields)
    except RecursionError:
        raise RecordError("nested too deeply") from None
    except RecordError as error:
        if not error.field:
            raise
        reason = f"'{columns.get(error.field, error.field)}' {error.reason}"
        if error.reason == "is missing":
            reason += f"; expected {EXPECTED[form]} (format {form})"
        raise RecordError(reason) from None


def conversation(messages: list[Message], tools: str | None = None, branch: str | None = None) -> Content:
    """An SFT row."""
    messages = cut_after_assistant(messages)
    check_conversation(messages)
    return Content(messages, tools, branch=branch)


def read_system(record: Record) -> list[Message]:
    """The system message that stands in a field of its own, if there is one."""
    text = read_optional_text(record, "system")
    return [message("system", text)] if text else []


def read_instruction(record: Record) -> list[Message]:
    """Alpaca's prompt: system, the turns of `history`, then instruction and input, one above the other."""
    messages = read_system(record)
    for pair in read_list(record, "history"):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RecordError("is not a list of [user, assistant] texts", "history")
        messages += [message("user", pair[0]), message("assistant", pair[1])]
    instruction, given = read_text(record, "instruction"), read_optional_text(record, "input")
    return [*messages, message("user", f"{instruction}\n{given}" if given else instruction)]


def parse_alpaca(record: Record) -> list[Content]:
    return [conversation([*read_instruction(record), message("assistant", read_text(record, "output"))])]


def parse_qa(record: Record) -> list[Content]:
    question = message("user", read_text(record, "question"))
    return [conversation([*read_system(record), question, message("assistant", read_text(record, "answer"))])]


def read_turns(record: Record, field: str) -> list[Message]:
    """The messages of a list of turns, which must be there."""
    turns = read_list(record, field)
    if not turns:
        raise RecordError("is missing" if record.get(field) is None else "is empty", field)
    return read_system(record) + read_messages(turns)


def parse_sharegpt(record: Record) -> list[Content]:
    return [conversation(read_turns(record, "conversations"), read_tools(record))]


def parse_chat(record: Record) -> list[Content]:
    return [conversation(read_turns(record, "messages"), read_tools(record))]


def find_paths(node: Any, before: list[Message], branch: tuple[int, ...]) -> list[tuple[list[Message], str]]:
    """The conversations of a tree, each with the places of its replies in their lists, joined by dots ("0.1.0").

    Each best reply of the assistant (rank 0 or none) that no other one follows ends a conversation; a message that is
    deleted or empty is left out with all below it. So reads Open-Assistant's own trainer with top_k = 1. Language and
    tree state are not looked at.
    """
    if not isinstance(node, dict):
        raise RecordError("a message is not an object")
    item = read_message({"role": node.get("role"), "content": "" if node.get("deleted") else node.get("text")})
    best = item["role"] != "assistant" or str(node.get("rank")) in ("None", "0", "0.0")
    if not best or not (item["content"] or "").strip():
        return []
    messages = [*before, item]
    replies = enumerate(read_list(node, "replies"))
    found = [path for place, reply in replies for path in find_paths(reply, messages, (*branch, place))]
    if not found and item["role"] == "assistant":
        found = [(messages, ".".join(str(place) for place in branch))]
    return found


def parse_oasst(record: Record) -> list[Content]:
    """One row a path. A flat message below another makes none of its own: `gather_trees` has hung it into its tree."""
    if record.get("parent_id"):
        return []
    if "message_id" not in record and record.get("prompt") is None:
        raise RecordError("is missing", "prompt")
    paths = find_paths(record.get("prompt") or record, [], ())
    if not paths:
        raise RecordError("no reply of the assistant is ranked first and kept")
    return [conversation(messages, branch=branch) for messages, branch in paths]


def gather_trees(records: Iterable[Any]) -> list[Any]:
    """The records of a file, with flat messages hung into the `replies` of their parents in the order of the file.

    Each record stays in its place; a message that repeats an id, or whose parents lead to no first message of the file,
    becomes a RecordError.
    """
    gathered: list[Any] = []
    messages: dict[str, Record] = {}
    for record in records:
        if isinstance(record, dict) and "message_id" in record and "prompt" not in record:
            name, nested = name_message(record["message_id"]), record.get("replies")
            record = record | {"replies": list(nested) if isinstance(nested, list) else []}
            if not name:
                record = RecordError("its message_id is neither text nor a number")
            elif name in messages:
                record = RecordError("its message_id stands twice in the file")
            else:
                messages[name] = record
        gathered.append(record)
    rooted: dict[str, bool] = {}
    for place, record in enumerate(gathered):
        if isinstance(record, dict) and record.get("parent_id"):
            parent = name_message(record["parent_id"])
            if is_rooted(parent, messages, rooted):
                messages[parent]["replies"].append(record)
            else:
                gathered[place] = RecordError("its parents lead to no first message in the file")
    return gathered


def name_message(value: Any) -> str:
    """An id as text, "" where it is none."""
    return str(value) if isinstance(value, str | int) else ""


def is_rooted(name: str, messages: dict[str, Record], rooted: dict[str, bool]) -> bool:
    """Whether the parents of a message lead to one without a parent; `rooted` keeps what is known."""
    chain = []
    while name in messages and name not in rooted:
        rooted[name] = not messages[name].get("parent_id")  # until more is known: a circle leads nowhere
        chain.append(name)
        name = name if rooted[name] else name_message(messages[name]["parent_id"])
    found = rooted.get(name, False)
    rooted.update(dict.fromkeys(chain, found))
    return found


def read_transcript(record: Record, field: str) -> list[Message]:
    """Messages of the transcript "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    opening, *parts = TURN.split("\n\n" + read_text(record, field).lstrip())
    if opening.strip() or not parts:
        raise RecordError("does not start with 'Human:'", field)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [message(roles[name], text.strip()) for name, text in zip(parts[::2], parts[1::2], strict=True)]


def read_reply(record: Record, field: str, prompt: list[Message]) -> list[Message]:
    """A reply as messages: from text, one message, or a list of them that may repeat the prompt."""
    value = record.get(field)
    if isinstance(value, dict):
        return [read_message(value)]
    if not isinstance(value, list):
        return [message("assistant", read_text(record, field))]
    messages = read_messages(value)
    return messages[len(prompt) :] if messages[: len(prompt)] == prompt else messages


def read_prompt(record: Record) -> list[Message]:
    """The prompt out of whichever field holds it: text, a list of messages, or Alpaca's; [] where there is none."""
    if isinstance(record.get("prompt"), str):
        return [*read_system(record), message("user", read_text(record, "prompt"))]
    for field in ("prompt", "messages", "conversations"):
        if record.get(field) is not None:
            return read_turns(record, field)
    return read_instruction(record) if record.get("instruction") is not None else []


def read_said(reply: list[Message]) -> list[tuple[str | None, ...]]:
    """What a reply says, white space around it aside: who differs in no more than that cannot be told apart."""
    return [(item["role"], (item["content"] or "").strip(), item["tool_calls"]) for item in reply]


def preference(
    prompt: list[Message], chosen: list[Message], rejected: list[Message], tools: str | None = None
) -> Content:
    if read_said(chosen) == read_said(rejected):
        raise RecordError("the replies are equal")
    for reply in (chosen, rejected):
        if not reply or reply[0]["role"] != "assistant":
            raise RecordError("prompts differ")
        check_conversation([*prompt, *reply])
    return Content(prompt, tools, chosen, rejected)


def parse_hh(record: Record) -> list[Content]:
    """The two transcripts must be equal up to the last reply."""
    chosen, rejected = read_transcript(record, "chosen"), read_transcript(record, "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise RecordError("prompts differ")
    return [preference(chosen[:-1], chosen[-1:], rejected[-1:])]


def parse_pairs(record: Record) -> list[Content]:
    """Without a prompt of its own, the prompt is what both lists of messages begin with."""
    prompt = read_prompt(record)
    chosen, rejected = read_reply(record, "chosen", prompt), read_reply(record, "rejected", prompt)
    if not prompt:
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        if not shared:
            raise RecordError("is missing", "prompt")
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    return [preference(prompt, chosen, rejected, read_tools(record))]


def parse_kto(record: Record) -> list[Content]:
    """Without a completion of its own, the reply is the assistant's last message."""
    value = record.get("label") if record.get("label") is not None else record.get("tag")
    if value is None:
        raise RecordError("is missing", "label")
    label = LABELS.get(str(value).lower())
    if label is None:
        raise RecordError("is neither true nor false", "label")
    prompt = read_prompt(record)
    given = [field for field in ("completion", "output") if record.get(field) is not None]
    if given:
        reply = read_reply(record, given[0], prompt)
    else:
        messages = cut_after_assistant(prompt)
        prompt, reply = messages[:-1], messages[-1:]
    if not prompt:
        raise RecordError("is missing", "prompt")
    check_conversation([*prompt, *reply])
    return [Content(prompt, read_tools(record), reply, label=label)]


PARSERS: dict[str, Callable[[Record], list[Content]]] = {
    "alpaca": parse_alpaca,
    "sharegpt": parse_sharegpt,
    "chat": parse_chat,
    "oasst": parse_oasst,
    "qa": parse_qa,
    "hh": parse_hh,
    "pairs": parse_pairs,
    "kto": parse_kto,
}
