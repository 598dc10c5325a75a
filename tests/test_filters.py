"""The filters: what each rule takes, and what it must leave."""

from typing import Any

import polars as pl
import pytest
from conftest import make_row, make_rows

from stages.common.errors import InputError
from stages.common.rows import message
from stages.quality.filters import Filters, make_filter, share_repeated_words

OFF: dict[str, Any] = {
    "echoes": False, "min_reply_words": None, "max_reply_words": None, "languages": None, "language_probability": 0.8,
    "max_repeated_lines": None, "max_repeated_words": None, "truncated": False, "refusals": False,
}  # fmt: skip


def judged(rows: list[dict[str, Any]], **rules: Any) -> list[tuple[int, str, str | None]]:
    """(number of the row, reason, detail) of the rows that go."""
    found = make_filter(Filters(**OFF | rules))(make_rows(rows))
    return [(int(row_id, 16), reason, detail) for row_id, reason, detail in found.iter_rows()]


def broken(replies: list[str], **rules: Any) -> list[str]:
    """The replies that go."""
    found = judged([make_row(number, "Tell me.", reply) for number, reply in enumerate(replies)], **rules)
    return [replies[number] for number, _, _ in found]


def test_no_rule_takes_nothing() -> None:
    assert judged([make_row(0, "x", "x"), make_row(1, "x", "")]) == []


def test_echoes_and_empty_replies() -> None:
    rows = [
        make_row(0, "When do you open?", "when do you  OPEN?"),
        make_row(1, "When do you open?", "When do you open? At noon."),
        make_row(2, "Who is it?", "<PERSON>, ****."),
        make_row(3, "Who is it?", "It is <PERSON>."),
        make_row(4, "Less or equal?", "≤"),
        make_row(5, "Say hi", "hi", "Say hi"),  # the rejected reply may be as bad as it likes
        make_row(6, "Say hi", "Say hi", "hi"),
    ]
    calls = [message("user", "Look."), message("assistant", None, tool_calls='[{"name": "look", "arguments": {}}]')]
    rows.append(make_row(7, "x", "x", messages=calls))
    assert judged(rows, echoes=True) == [(0, "echo", None), (2, "empty", None), (6, "echo", None)]


def test_lengths_in_words_or_characters() -> None:
    rows = [make_row(0, "x", "one two"), make_row(1, "x", "one two three"), make_row(2, "x", "一二三四")]
    assert judged(rows, min_reply_words=3) == [(0, "too_short", "words=2")]
    assert judged(rows, max_reply_words=3) == [(2, "too_long", "words=4")]
    turns = [message("user", "a b c d"), message("assistant", "one"), message("user", "x"), message("assistant", "two")]
    assert judged([make_row(0, "x", "x", messages=turns)], min_reply_words=3) == [(0, "too_short", "words=2")]
    call = message("assistant", None, tool_calls='[{"name": "look", "arguments": {"where": "here"}}]')
    calling = [
        make_row(0, "x", "x", messages=[message("user", "Look."), call]),
        make_row(
            1, "x", "x", messages=[message("user", "Look."), call, message("tool", "12"), message("assistant", "12")]
        ),
        make_row(2, "x", "x", "y") | {"chosen": [call]},
        make_row(3, "x", "x", "y") | {"rejected": [call]},
    ]
    assert judged(calling, min_reply_words=3) == [(3, "too_short", "words=1")]


def test_languages() -> None:
    german = "Die Sprechstunde beginnt am Montag um acht Uhr, bitte bringen Sie Ihre Karte mit."
    english = "The clinic opens on Monday at eight, please bring your card with you."
    rows = [make_row(0, english, german), make_row(1, german, english), make_row(2, "x", "Ja."), make_row(3, "x", "4")]
    rows.append(make_row(4, "x", f"{english}\n```\nfür jeden Artikel in der Liste die Summe der Preise\n```"))
    assert judged(rows, languages=["en"]) == [(0, "language", "language=de")]
    assert judged(rows, languages=["de"]) == [(1, "language", "language=en"), (4, "language", "language=en")]
    assert judged(rows, languages=["de", "en"]) == []


def test_repeated_words_are_counted_inside_runs_of_five() -> None:
    texts = ["a b c d e f g", "a b c d e x A B C D E", "w w w w w w w w w w", "", "a b c"]
    # of 11 words the last 5; of 10 the first run of 5 stands alone, the other five runs cover the words 2 to 10
    assert share_repeated_words(pl.Series(texts)).to_list() == [0, 5 / 11, 9 / 10, 0, 0]


def test_repetition() -> None:
    line = "Please bring your card."
    rows = [
        make_row(0, "x", f"{line}\n{line}\nThank you very much for it."),  # 1 of 3 lines stood there before
        make_row(1, "x", f"{line}\n}}\n}}\n}}\nThank you very much for it."),  # brackets are no lines
        make_row(2, "x", "}\n}"),
        make_row(3, "x", "x", line + "\n" + line),  # the rejected reply
        make_row(4, "x", f"{line}\n{line}") | {"kind": "unpaired", "label": False, "chosen": [
            message("assistant", f"{line}\n{line}")]},
    ]  # fmt: skip
    assert judged(rows, max_repeated_lines=0.3) == [(0, "repetition", "repeated_lines=0.33")]
    assert judged(rows, max_repeated_lines=0.34) == []
    assert judged([make_row(0, "x", "w " * 10)], max_repeated_words=0.8) == [(0, "repetition", "repeated_words=0.9")]


def test_truncated_replies() -> None:
    cut = [
        "The clinic opens at noon. After that the nurse will see you and then she will",
        "The clinic opens at noon. Bring the card, the form, the letter of your doctor,",
        "Here is the code:\n```python\nprint(1",
    ]
    whole = [
        "The clinic opens at noon. After that the nurse will see you, and then you may go.",
        "The clinic opens at noon. The nurse will tell you more; call her at the number 555 0142",
        "You need these. Bring them along:\n- the card that you got by mail with the letter of the doctor",
        "Volunteers Haul Eleven Truckloads of Trash from Alder River",  # a headline
        "Read it. All of it is on our page, which you find at the address clinic.example/hours",
        "Here is the code:\n```python\nprint(1)\n```",
        "Paris",
    ]
    assert broken(cut + whole, truncated=True) == cut


def test_refusals() -> None:
    refusals = [
        "I'm sorry, but I can't help with that.",
        "I cannot provide medical advice.",
        "Sorry, I am unable to assist you.",
        "As an AI language model, I don't have opinions.",
        "I’m sorry, but as an AI assistant, I can’t do that.",
    ]
    answers = [
        "I can't judge a single reading, but write it down and call the nurse.",
        "Sorry to hear that. Please rest.",
        "We cannot refill it by phone.",
        "You said that I cannot help you; I can.",
        "As an AI grows, I believe, it helps.",
    ]
    assert broken(refusals + answers, refusals=True) == refusals
    assert judged([make_row(0, "How to steal?", refusals[0], "Like this.")], refusals=True) == []


def test_the_first_rule_is_the_reason() -> None:
    rows = [make_row(0, "Hi", "hi")]
    assert judged(rows, echoes=True, min_reply_words=5) == [(0, "echo", None)]


def test_unknown_languages_are_refused() -> None:
    with pytest.raises(InputError, match=r"filters\.languages: qq is not known; known are af,"):
        judged([], languages=["en", "qq"])
    with pytest.raises(ValueError, match="languages"):
        Filters(**OFF | {"languages": ["English"]})
