"""The one row schema of every table between pool and mix, and what is read off a row.

A conversation is a list of messages. `tool_calls` is JSON text of a list of {name, arguments}; `content` is null only
where tool calls stand in its place.
"""

import re
import unicodedata
from typing import Any

import polars as pl

MESSAGE = pl.Struct(
    {"role": pl.String, "content": pl.String, "tool_calls": pl.String, "tool_call_id": pl.String, "name": pl.String}
)
ROW_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "row_id": pl.String,
    "source": pl.String,
    "file": pl.String,
    "record": pl.Int64,
    "branch": pl.String,
    "licence": pl.String,
    "subject": pl.String,
    "kind": pl.String,
    "messages": pl.List(MESSAGE),
    "tools": pl.String,
    "chosen": pl.List(MESSAGE),
    "rejected": pl.List(MESSAGE),
    "label": pl.Boolean,
}
CONVERSATIONS = ("messages", "chosen", "rejected")
PROBE_PREFIX = "probe-"  # of the ids of probes; no row's id begins so
SET_APART = (
    (r"(\d)([¹²³⁰⁴-⁹⁺⁻])", "^"),
    (r"(\d)([¼-¾₀-₉⅐-⅞↉①-⒛⓪])", " "),
    (r"([¹²³⁰⁴-⁹¼-¾₀-₉⅐-⅞↉①-⒛⓪])(\d)", " "),
)
"""Digits beside signs that NFKC makes digits of, and what to put between them: 10⁵ would be 105, 1½ would be 11⁄2."""


def message(
    role: str,
    content: str | None,
    tool_calls: str | None = None,
    tool_call_id: str | None = None,
    name: str | None = None,
) -> dict[str, str | None]:
    """A message with all five fields."""
    return {"role": role, "content": content, "tool_calls": tool_calls, "tool_call_id": tool_call_id, "name": name}


def texts_of(conversations: pl.Expr | str) -> pl.Expr:
    """A list of messages as one text: contents and tool calls, one to a line."""
    expression = pl.col(conversations) if isinstance(conversations, str) else conversations
    part = pl.concat_str(
        [
            pl.element().struct.field("content").fill_null(""),
            pl.element().struct.field("tool_calls").fill_null(""),
        ],
        separator=" ",
    ).str.strip_chars()
    return expression.list.eval(part).list.join("\n").fill_null("")


def text_of_row() -> pl.Expr:
    """All text of a row that a model would be trained on: prompt or conversation, chosen, rejected."""
    return pl.concat_str([texts_of(column) for column in CONVERSATIONS], separator="\n").str.strip_chars()


def normalise(text: str) -> str:
    """The text that two rows must share to be the same: NFKC, lower case, single spaces.

    >>> normalise("Five  ﬁsh in 10⁵ l, 1½ m²")
    'five fish in 10^5 l, 1 1⁄2 m2'
    """
    for pattern, sign in () if text.isascii() else SET_APART:
        text = re.sub(pattern, rf"\1{sign}\2", text)
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def plain_messages(messages: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Messages without their empty fields, as chat templates and trainers expect them."""
    return [{key: value for key, value in item.items() if value is not None} for item in messages or []]
