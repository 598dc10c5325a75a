"""Read messages out of a record's fields, and check that they make a conversation.

A conversation is kept when it alternates: an optional system message, then user, assistant, user, ...; a call of a tool
is followed by the tool's answers and these by the assistant; only an assistant message with tool calls has no text.
"""

import json
from typing import Any

from stages.common.rows import message

Record = dict[str, Any]
Message = dict[str, str | None]

ROLES = {
    "system": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "function_call": "assistant",
    "tool": "tool", "observation": "tool",
}  # fmt: skip
FOLLOWERS = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "tool call": ("tool",),
    "tool": ("tool", "assistant"),
}


class RecordError(ValueError):
    """A record that is refused. `reason` is short and never quotes the record; with a `field` it is said of that."""

    def __init__(self, reason: str, field: str = ""):
        super().__init__(reason)
        self.reason, self.field = reason, field


def parse_json(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise RecordError("is not valid JSON", field) from None


def compact_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):  # a date out of Parquet, or NaN
        raise RecordError("a value of the tools has no JSON form") from None


def read_text(record: Record, field: str) -> str:
    """The text of a field that must have some."""
    value = record.get(field)
    if value is None:
        raise RecordError("is missing", field)
    if not isinstance(value, str):
        raise RecordError("is not text", field)
    if not value.strip():
        raise RecordError("is empty", field)
    return value


def read_optional_text(record: Record, field: str) -> str:
    """The text of a field, "" where it has none."""
    value = record.get(field)
    return "" if value is None or (isinstance(value, str) and not value.strip()) else read_text(record, field)


def read_list(record: Record, field: str) -> list[Any]:
    """A list, or JSON text of one as CSV files hold it; [] where the field has none."""
    value = record.get(field)
    if isinstance(value, str):
        value = parse_json(value, field) if value.strip() else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise RecordError("is not a list", field)
    return value


def read_tools(record: Record) -> str | None:
    """The tool definitions as JSON text of a list, each definition as it came."""
    value = record.get("tools")
    tools = [value] if isinstance(value, dict) else read_list(record, "tools")
    if not all(isinstance(tool, dict) for tool in tools):
        raise RecordError("is not a list of objects", "tools")
    return compact_json(tools) if tools else None


def read_tool_calls(value: Any) -> str | None:
    """Calls as JSON text of [{"name", "arguments": {}}], out of that form or OpenAI's, either also as JSON text."""
    if isinstance(value, str) and value.strip():
        value = parse_json(value, "tool_calls")
    if value and not isinstance(value, dict | list):
        raise RecordError("is not a list of tool calls", "tool_calls")
    calls = []
    for call in [value] if isinstance(value, dict) else value or []:
        function = call.get("function") or call if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise RecordError("a tool call has no name")
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            arguments = parse_json(arguments, "arguments")
        if not isinstance(arguments, dict):
            raise RecordError("the arguments of a tool call are not an object")
        calls.append({"name": function["name"], "arguments": arguments})
    return compact_json(calls) if calls else None


def join_parts(content: Any) -> str | None:
    """The content of a message: text, or the texts of a list of {type: text, text} (or value) parts joined."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RecordError("the content of a message is not text")
    texts = []
    for part in content:
        text = (
            (part.get("text") or part.get("value")) if isinstance(part, dict) and part.get("type") == "text" else None
        )
        if not isinstance(text, str):
            raise RecordError("a part of a message is not text")
        texts.append(text)
    return "".join(texts)


def read_message(turn: Any) -> Message:
    """A message from {role, content, tool_calls, tool_call_id, name} or {from, value}."""
    if not isinstance(turn, dict):
        raise RecordError("a message is not an object")
    given = turn.get("role") or turn.get("from")
    role = ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        raise RecordError(f"a message has none of the roles {', '.join(ROLES)}")
    content = join_parts(turn.get("content", turn.get("value")))
    if given == "function_call":
        content, calls = None, read_tool_calls(content)
    else:
        calls = read_tool_calls(turn.get("tool_calls"))
    if calls and role != "assistant":
        raise RecordError(f"a message of the {role} has tool calls")
    call_id, name = turn.get("tool_call_id"), turn.get("name")
    if not all(value is None or isinstance(value, str) for value in (call_id, name)):
        raise RecordError("tool_call_id or name of a message is not text")
    blank = not (content or "").strip()
    return message(role, None if calls and blank else content or "", calls, call_id, name)


def read_messages(turns: list[Any]) -> list[Message]:
    """The messages; a system message without text is left out."""
    messages = [read_message(turn) for turn in turns]
    return [item for item in messages if item["role"] != "system" or (item["content"] or "").strip()]


def check_conversation(messages: list[Message]) -> None:
    """Raises RecordError where the messages do not alternate, lack text, or do not end with the assistant."""
    previous = ""
    for item in messages:
        role, expected = item["role"] or "", FOLLOWERS[previous]
        if role not in expected:
            place = f"follows {previous}" if previous else "starts the conversation"
            raise RecordError(f"{role} {place}; expected {' or '.join(expected)}")
        # the answer of a tool may be empty: it did its work and has nothing to say
        if not (item["content"] or "").strip() and not item["tool_calls"] and role != "tool":
            raise RecordError(f"a message of the {role} is empty")
        previous = "tool call" if item["tool_calls"] else role
    if not messages or messages[-1]["role"] != "assistant":
        raise RecordError("the conversation does not end with the assistant")


def cut_after_assistant(messages: list[Message]) -> list[Message]:
    """Without the turns that no reply follows."""
    for count in range(len(messages), 0, -1):
        if messages[count - 1]["role"] == "assistant":
            return messages[:count]
    raise RecordError("there is no message of the assistant")
