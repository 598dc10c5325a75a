"""The patterns of recognisers as rules, and what a text must hold before one of them is asked.

shapes.py says of a pattern how many signs of each kind a match has; here the signs of a word are counted, and a pattern
that finds fewer is not asked. A pattern of digits alone is asked of rows of digits.
"""

import operator
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import regex

from stages.pii.shapes import Shape

A_DIGIT = regex.compile(r"\d")
A_LETTER = regex.compile(r"[^\W\d_]")
ASCII_DIGITS, ASCII_LETTER = re.compile("[0-9]"), re.compile("[A-Za-z]")
LONGEST_REACH = 40  # of a pattern that is asked of rows of digits, with what stands around them


class Rule(NamedTuple):
    """One pattern of a recogniser."""

    number: int
    pattern: Any
    score: float
    shape: Shape | None
    weak: bool
    """Whether a match stays below the threshold unless a context word stands beside it."""
    gate: Any
    """An expression that matches in every text where the pattern can; None for no such."""
    judged: bool
    """Whether its recogniser judges a match, by a checksum for example."""


class Gate(NamedTuple):
    """An expression that fits in a word of every text where a recogniser can find anything."""

    number: int
    place: int
    expression: Any
    shape: Shape | None


def count_signs(text: str) -> tuple[int, ...]:
    """How many of SIGNS stand in a text; of letters and quotes, whether any does."""
    count = text.count
    if text.isascii():
        digits, letter = len(ASCII_DIGITS.findall(text)), ASCII_LETTER.search(text)
    else:
        digits, letter = len(A_DIGIT.findall(text)), A_LETTER.search(text)
    colons, hyphens = count(":"), count("-")
    return (
        digits,
        letter is not None,
        count("@"),
        count("."),
        colons,
        hyphens,
        count("/"),
        colons + hyphens,
        '"' in text or "'" in text,
    )


def can_hold(shape: Shape | None, signs: tuple[int, ...], width: int) -> bool:
    """Whether a match of such a shape fits in a text with these SIGNS."""
    if shape is None:
        return True
    return width >= shape.least_width and all(map(operator.ge, signs, shape.needs))


def row_of_digits(signs: Iterable[str], least: int) -> str:
    """An expression for at least so many digits with nothing but `signs` between them."""
    between = "".join(regex.escape(sign) for sign in sorted(signs))
    return rf"\d(?:[{between}]*+\d){{{least - 1},}}" if between else rf"\d{{{least},}}"


def is_in_row(shape: Shape | None) -> bool:
    """Whether a match is a row of digits that can be told by what stands near it."""
    return (
        shape is not None
        and not shape.in_word
        and shape.between is not None
        and shape.needs[0] > 1
        and shape.reach <= LONGEST_REACH
    )
