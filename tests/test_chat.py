from pathlib import Path

import pytest

from stages.common.chat import encode, encode_reply, render
from stages.common.errors import InputError
from stages.common.models import load_tokenizer
from stages.common.rows import message


@pytest.fixture(scope="module")
def tokenizer(toy_base: Path):
    return load_tokenizer(toy_base)


def supervised_text(tokenizer, encoded) -> str:
    return tokenizer.decode([t for t, kept in zip(encoded.input_ids, encoded.supervised, strict=True) if kept])


def test_only_the_assistant_is_supervised_with_its_end_of_turn(tokenizer) -> None:
    talk = [message("system", "Be kind."), message("user", "Hi"), message("assistant", "Hello."),
            message("user", "Bye"), message("assistant", "So long.")]  # fmt: skip
    encoded = encode(tokenizer, talk)
    assert supervised_text(tokenizer, encoded) == "Hello.<|im_end|>So long.<|im_end|>"
    expected = (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nSo long.<|im_end|>\n"
    )
    assert tokenizer.decode(encoded.input_ids) == expected


def test_first_turn_leaves_earlier_replies_unsupervised(tokenizer) -> None:
    talk = [
        message("user", "Hi"),
        message("assistant", "Hello."),
        message("user", "Bye"),
        message("assistant", "Ciao."),
    ]
    assert supervised_text(tokenizer, encode(tokenizer, talk, first_turn=2)) == "Ciao.<|im_end|>"


def test_tool_calls_are_written_by_the_assistant_and_results_are_not(tokenizer) -> None:
    call = '[{"name": "opening_hours", "arguments": {"day": "Monday"}}]'
    talk = [
        message("user", "Open on Monday?"), message("assistant", None, tool_calls=call),
        message("tool", '{"open": "7:30"}', name="opening_hours"), message("assistant", "From 7:30."),
    ]  # fmt: skip
    tools = '[{"type": "function", "function": {"name": "opening_hours", "parameters": {}}}]'
    encoded = encode(tokenizer, talk, tools)
    assert supervised_text(tokenizer, encoded) == (
        '<tool_call>{"name": "opening_hours", "arguments": {"day": "Monday"}}</tool_call><|im_end|>From 7:30.<|im_end|>'
    )
    assert '"name": "opening_hours"' in render(tokenizer, talk[:1], tools, prompt=True)


def test_reply_is_cut_from_its_prompt(tokenizer) -> None:
    prompt, reply = encode_reply(tokenizer, [message("user", "Hi")], [message("assistant", "Hello.")])
    assert tokenizer.decode(prompt) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(reply) == "Hello.<|im_end|>"


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer, toy_base: Path) -> None:
    other = load_tokenizer(toy_base)
    # Like templates that drop the thinking of earlier turns: only the last assistant turn is written in full.
    other.chat_template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content if loop.last or m.role == 'user' else '-' }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    talk = [
        message("user", "Hi"),
        message("assistant", "Hello."),
        message("user", "Bye"),
        message("assistant", "Ciao."),
    ]
    with pytest.raises(InputError, match="rewrites earlier turns"):
        encode(other, talk)


def test_a_turn_without_its_end_token_is_refused(toy_base: Path) -> None:
    other = load_tokenizer(toy_base)
    other.chat_template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    with pytest.raises(InputError, match="end-of-turn"):
        encode(other, [message("user", "Hi"), message("assistant", "Hello.")])
