"""Turn conversations into tokens, with a mask of the tokens that the model must learn to write.

The mask does not rely on `{% generation %}` marks, which most templates lack (an assistant-only loss is then silently
empty): an assistant turn is what the template adds to the text before it, from the generation prompt to the end of
turn. Each supervised turn ends in the end-of-turn token, or the row is an error.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.common.errors import InputError
from stages.common.rows import plain_messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """Token ids and, for each, whether it is trained on. Both have the same length."""

    input_ids: list[int]
    supervised: list[bool]


def template_messages(messages: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Messages as chat templates want them: empty fields gone, tool calls as objects."""
    plain = plain_messages(messages)
    return [item | {"tool_calls": json.loads(item["tool_calls"])} if "tool_calls" in item else item for item in plain]


def render(
    tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]], tools: str | None, prompt: bool
) -> str:
    """The text of a conversation; with `prompt`, the beginning of an assistant's turn behind it."""
    text = tokenizer.apply_chat_template(
        template_messages(messages),
        tools=json.loads(tools) if tools else None,
        tokenize=False,
        add_generation_prompt=prompt,
    )
    if not isinstance(text, str):
        raise InputError("the chat template gave no text; set base.chat_template to chatml")
    return text


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    messages: list[dict[str, Any]],
    tools: str | None = None,
    row_id: str = "",
    first_turn: int = 0,
) -> Encoded:
    """Tokens of a conversation; the assistant's turns from message `first_turn` on are supervised.

    Raises InputError where the template rewrites earlier turns (then no mask can be right) or a turn lacks its end.
    """
    text = render(tokenizer, messages, tools, prompt=False)
    spans = []
    for turn, item in enumerate(messages):
        if item["role"] != "assistant" or turn < first_turn:
            continue
        before = render(tokenizer, messages[:turn], tools, prompt=True)
        after = render(tokenizer, messages[: turn + 1], tools, prompt=False)
        if not (after.startswith(before) and text.startswith(after.rstrip())):
            raise InputError(
                f"row {row_id}, message {turn}: the chat template rewrites earlier turns, so the supervised tokens "
                "cannot be told; set base.chat_template to chatml"
            )
        spans.append((len(before), len(after.rstrip())))
    batch = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = [start for start, _ in batch["offset_mapping"]]
    supervised = [any(begin <= start < end for begin, end in spans) for start in starts]
    for _, end in spans:
        last = max((position for position, start in enumerate(starts) if start < end), default=-1)
        if last < 0 or batch["input_ids"][last] != tokenizer.eos_token_id:
            raise InputError(
                f"row {row_id}: an assistant turn does not end in the end-of-turn token {tokenizer.eos_token!r}, so "
                "the model would never learn to stop; set base.chat_template to chatml"
            )
    return Encoded(list(batch["input_ids"]), supervised)


def encode_reply(
    tokenizer: "PreTrainedTokenizerBase",
    prompt: list[dict[str, Any]],
    reply: list[dict[str, Any]],
    tools: str | None = None,
    row_id: str = "",
) -> tuple[list[int], list[int]]:
    """(prompt ids, reply ids) of a preference reply, cut where the first supervised token stands."""
    encoded = encode(tokenizer, prompt + reply, tools, row_id, first_turn=len(prompt))
    if True not in encoded.supervised:
        raise InputError(f"row {row_id}: the reply has no token to train on")
    cut = encoded.supervised.index(True)
    end = len(encoded.supervised) - encoded.supervised[::-1].index(True)
    return encoded.input_ids[:cut], encoded.input_ids[cut:end]
