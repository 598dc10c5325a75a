"""The second look: pairs written by hand, with what a reader would say of them."""

import numpy as np
import polars as pl
import pytest

from stages.deduplication.first_differences import WHY, Known
from stages.deduplication.second_look import look_again

BASE = (
    "Take one tablet of metformin twice a day with food. Do not stop without asking your doctor, even if you feel "
    "well. Call the clinic at once if you are short of breath or very tired. He may drive before noon."
)
OTHERS = [
    "Many patients take tablets of glipizide or metformin. The doctor asks whether you feel better or worse.",
    "One tablet a day. The patient drives home after noon with a nurse. She may stop early, and with food.",
    "The clinic stops all glipizide for a patient with hypotension; hypertension is another thing.",
]


def verdict(one: str, other: str) -> str | None:
    """What keeps the texts apart, in a corpus in which each word of OTHERS and BASE is known."""
    texts = pl.Series([one, other])
    corpus = pl.Series([BASE, *OTHERS, *OTHERS, one, other])
    known = Known(lambda start, count: corpus.slice(start, count), corpus.str.len_bytes().to_numpy())
    sides = np.array([0]), np.array([1])
    found = [look_again(texts, texts, *order, known)[0] for order in (sides, sides[::-1])]
    assert found[0] == found[1], "the same whichever row comes first"
    return WHY[found[0]] if found[0] >= 0 else None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("metformin", "metfromin"),  # exchanged letters
        ("tablet", "tabblet"),  # a doubled one
        ("breath", "breth"),  # one left out
        ("clinic", "clinoc"),  # a changed one
        ("Take one tablet", "TAKE  one\n\ntablet"),
        ("even if you feel well", "(even if you feel well)"),
        ("asking your doctor, even", "asking your doctor; even"),
        ("a day", "the day"),
        ("Do not", "Don't"),
        ("at once", "right away"),
        ("tablet", "tablets"),
        (" Do not stop without asking your doctor, even if you feel well.", ""),
        ("He may drive before noon.", "He may drive before noon. Visit our website for more information."),
        ("Take one", "Hello there! Take one"),
        ("with food. ", "with food. Drink a glass of water. "),
        ("Take one tablet", "Take the one tablet"),
        ("doctor, even", "doctor – even"),
        ("Do not stop", "Don’t stop"),
    ],
)
def test_what_does_not_matter(old: str, new: str) -> None:
    assert old in BASE
    assert verdict(BASE, BASE.replace(old, new, 1)) is None


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("one tablet", "two tablets", "word"),
        ("one tablet", "1 tablet", "number"),
        ("metformin", "glipizide", "word"),
        ("Do not stop", "Do stop", "polarity"),
        ("without asking", "with asking", "polarity"),
        ("breath or very", "breath and very", "polarity"),
        ("He may", "She may", "polarity"),
        ("before noon", "after noon", "polarity"),
        ("very tired", "tired", "polarity"),
        ("feel well", "feel better", "polarity"),
        ("Call the clinic", "Call the old clinic", "word"),
        ("Take one tablet of metformin twice a day with food.", "Yes.", "polarity"),
        ("tablet of metformin", "tablet of 500 mg metformin", "number"),
    ],
)
def test_what_matters(old: str, new: str, why: str) -> None:
    assert old in BASE
    assert verdict(BASE, BASE.replace(old, new, 1)) == why


START = "Please read the leaflet that came with it, and ask the nurse on Thursday. "


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("Call us when it is ≤ 38 degrees.", "Call us when it is ≥ 38 degrees.", "sign"),
        ("Call when potassium is < 5 units.", "Call when potassium is > 5 units.", "sign"),
        ("The change is -5 points.", "The change is 5 points.", "number"),
        ("The change is −5 points.", "The change is 5 points.", "number"),
        ("Write it in C++ please.", "Write it in C# please.", "sign"),
        ("Check for Na+ in it.", "Check for Na in it.", "sign"),
        ("The answer is 👍.", "The answer is 👎.", "sign"),
        ("Mix it 1:2 now.", "Mix it 1.2 now.", "number"),
        ("Then take 1/2 tablet.", "Then take 1-2 tablet.", "number"),
        ("Then take 1.5 mg daily.", "Then take 15 mg daily.", "number"),
        ("Then take 1 5 mg daily.", "Then take 15 mg daily.", "number"),
        ("There were 10⁵ cells left.", "There were 105 cells left.", "number"),
        ("There were 10⁵ cells left.", "There were 10⁻⁵ cells left.", "number"),
        ("It costs $5 there.", "It costs €5 there.", "sign"),
        ("Set x = a + b there.", "Set x = a / b there.", "sign"),
        ("It is 7 - 9 there.", "It is 7 + 9 there.", "sign"),
        ("Increase the dose by 50 mg.", "Increase the dose to 50 mg.", "word"),
        ("Order it in size S for her.", "Order it in size M for her.", "sign"),
        ("She has hepatitis A now.", "She has hepatitis now.", "sign"),
        ("Take eight tablets daily.", "Take eighty tablets daily.", "word"),
        ("It gets worse then.", "It gets worst then.", "polarity"),
        ("He drinks less then.", "He drinks loss then.", "polarity"),
        ("He is a smoker.", "He was a smoker.", "word"),
        ("It is a typical case.", "It is atypical case.", "word"),
    ],
)  # fmt: skip
def test_a_sign_or_a_small_word_that_matters(one: str, other: str, why: str) -> None:
    assert verdict(START + one, START + other) == why
    assert verdict(one + " " + START, other + " " + START) == why


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is 5–10 mg – or 5 % of it.", "It is 5-10 mg or 5% of it."),
        ("It's ½ of it, isn’t it?", "it’s 1/2 of it, is not it."),
        ("**Take** it, and/or a/the pill.", "Take it and or the pill"),
        ("● Take it → home ©", "- Take it → home"),
        ("Ask for Ｎａ＋ ≥ ３.", "Ask for Na+ ≥ 3."),
        ("She has hepatitis A now.", "SHE HAS HEPATITIS A NOW."),
        ("Ask at the web site now.", "Ask at the website now."),
    ],
)
def test_signs_that_are_punctuation(one: str, other: str) -> None:
    assert verdict(START + one, START + other) is None


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("Take two tablets daily. Keep the dressing dry.", "Keep the dressing dry. Take nine tablets daily.", "word"),
        ("Open the valve first. Keep the dressing dry.", "Keep the dressing dry. Open the valve first.", "word"),
        ("Keep the dressing dry. Never take milk.", "Always take milk. Keep the dressing dry.", "polarity"),
        ("Keep the dressing dry. Open the valve.", "Keep the dressing dry. I hope this helps.", None),
        ("Open the valve first. Keep the dressing dry.", "Keep the dressing dry. Thank you very much.", None),
    ],
)
def test_sentences_that_each_row_lacks(one: str, other: str, why: str | None) -> None:
    assert verdict(START + one, START + other) == why


def test_known_words_are_never_slips_of_each_other() -> None:
    assert verdict("A patient with hypotension rests.", "A patient with hypertension rests.") == "word"
    assert verdict("Is this case typical of it?", "Is this case atypical of it?") == "word"


def test_a_word_that_a_sentence_lacks() -> None:
    rest = "The signs vary from one person to the next and may be mild at first, " * 7  # 105 words without an end
    frame = "What are the signs of {} cataract in adults? " + rest + "so that nobody is sure of the {} cause."
    assert verdict(frame.format("total", "known"), frame.format("total", "")) is None
    assert verdict(frame.format("total", "known"), frame.format("", "known")) == "word"
    assert verdict(rest + "and ask about vitamin C then", rest + "and ask about vitamin then") == "sign"


def test_added_sentences_that_begin_alike() -> None:
    one = "The dose is low. The dose is given at night. Sleep well, and long enough to rest, each night of the week."
    assert verdict(one, one.replace("The dose is given", "The dose is safe for you. The dose is given")) is None
    assert verdict(one, one.replace("given at night", "safe for you at night")) is not None


def test_scripts_without_spaces() -> None:
    one = "头痛超过三天请来看医生。每天吃一片药。不要停药。"
    assert verdict(one, one.replace("每天吃一片药。", "")) is None
    assert verdict(one, one.replace("请来看医生", "请来看医生了")) is None
    assert verdict(one, one.replace("一片", "两片")) == "word"
    assert verdict(one, one.replace("不要停", "要停")) == "polarity"


def test_another_template_word_in_long_rows() -> None:
    frame = "What are the symptoms of {}? " + "The signs vary from person to person and may be mild at first. " * 3
    assert verdict(frame.format("hypotension"), frame.format("glipizide")) == "word"
