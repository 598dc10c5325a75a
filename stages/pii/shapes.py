"""What every match of a regular expression must look like, read off its parsed form.

These facts let a pattern be asked of a few words instead of a whole text, with the same matches:

- `in_word`: it consumes no white space, and what it asserts around a match is the same at white space as at the end of
  a text. Then each match lies inside one word (a run without white space), and the words can be searched one by one,
  once for each distinct word: a scan from left to right starts afresh behind every match anyway.
- `needs`: how many characters of each group of SIGNS every match holds at least (digits, letters, an @, a quote ...).
- `least_width`: characters that every match has at least.
- `between`: what a match may hold beside digits, where that is a handful of signs: then its digits stand in a row but
  for those signs.
- `reach`: how many characters before or behind a match can decide whether it is one, at most.

Python's own parser reads the expression (`re._parser`); the package `regex`, which Presidio runs, knows more than it.
What the parser does not know has no shape, and is asked of whole texts.
"""

import re
import sys
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

import regex

SPACES = [code for code in range(0x3001) if regex.fullmatch(r"\s", chr(code))]
DIGIT, LETTER = "0", "a"  # stand for any decimal digit and any letter among SIGNS
SIGNS = (DIGIT, LETTER, "@", ".", ":", "-", "/", ":-", "\"'")
ONCE = (LETTER, "\"'")  # of these no more than one is counted
REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)


class Shape(NamedTuple):
    """See the module's docstring."""

    in_word: bool
    needs: tuple[int, ...]
    least_width: int
    between: frozenset[str] | None
    reach: int


def shape_of(pattern: str, flags: int) -> Shape | None:
    """The shape of an expression, None where Python's parser cannot read it. `flags` are those of `regex`."""
    ours = re.IGNORECASE if flags & regex.IGNORECASE else re.NOFLAG
    try:
        parsed = _parser.parse(pattern, ours | re.DOTALL | re.MULTILINE)
    except (re.error, RecursionError):
        return None
    if not _is_known(parsed):
        return None
    needs = tuple(min(_least(parsed, sign), 1 if sign in ONCE else sys.maxsize) for sign in SIGNS)
    return Shape(_in_word(parsed), needs, int(parsed.getwidth()[0]), _between(parsed), _reach(parsed))


def _parts(argument: Any) -> list[Any]:
    """The parsed expressions inside the argument of an operation."""
    if isinstance(argument, _parser.SubPattern):
        return [argument]
    if isinstance(argument, list | tuple):
        return [part for item in argument for part in _parts(item)]
    return []


def _is_known(items: Any) -> bool:
    """Whether only operations occur that the functions below reckon with."""
    known = {op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.BRANCH, op.SUBPATTERN, op.ATOMIC_GROUP, op.AT, op.GROUPREF,
             op.ASSERT, op.ASSERT_NOT, *REPEATS}  # fmt: skip
    return all(what in known and all(_is_known(part) for part in _parts(argument)) for what, argument in items)


def _holds_space(what: Any, argument: Any) -> bool:
    """Whether a single character that is consumed may be white space."""
    if what is op.LITERAL:
        return argument in SPACES
    if what is op.NOT_LITERAL or what is op.ANY:
        return True
    negated = bool(argument) and argument[0][0] is op.NEGATE
    inside = [
        any(_member(part, code) for part in argument[negated:]) for code in SPACES if code not in (28, 29, 30, 31)
    ]
    return not all(inside) if negated else any(inside)


def _member(part: Any, code: int) -> bool:
    """Whether the white space `code` belongs to a part of a set."""
    kind, value = part
    if kind is op.LITERAL:
        return bool(value == code)
    if kind is op.RANGE:
        return bool(value[0] <= code <= value[1])
    return value in (op.CATEGORY_SPACE, op.CATEGORY_NOT_WORD, op.CATEGORY_NOT_DIGIT)


def _in_word(items: Any) -> bool:
    for what, argument in items:
        if what in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            if _holds_space(what, argument):
                return False
        elif what is op.AT:
            if argument not in (op.AT_BOUNDARY, op.AT_NON_BOUNDARY):
                return False
        elif not all(_in_word(part) for part in _parts(argument)):  # of an assertion too: it fails at either
            return False
    return True


def is_sign(character: str, sign: str) -> bool:
    """Whether a character belongs to a group of SIGNS."""
    if sign == DIGIT:
        return character.isdecimal()
    return character.isalpha() if sign == LETTER else character in sign


def _is_sign(what: Any, argument: Any, sign: str) -> bool:
    """Whether a character that is consumed belongs to `sign` for certain."""
    match what:
        case op.LITERAL:
            return is_sign(chr(argument), sign)
        case op.RANGE:
            return argument[1] - argument[0] < 128 and all(
                is_sign(chr(code), sign) for code in range(argument[0], argument[1] + 1)
            )
        case op.CATEGORY:
            return sign == DIGIT and argument is op.CATEGORY_DIGIT
        case op.IN:
            return all(_is_sign(kind, value, sign) for kind, value in argument)
    return False


def _least(items: Any, sign: str) -> int:
    """How many of `sign` every match of a sequence consumes at least."""
    total = 0
    for what, argument in items:
        if what in REPEATS:
            total += argument[0] * _least(argument[2], sign)
        elif what is op.BRANCH:
            total += min(_least(branch, sign) for branch in argument[1])
        elif what in (op.SUBPATTERN, op.ATOMIC_GROUP):
            total += sum(_least(part, sign) for part in _parts(argument))
        else:
            total += _is_sign(what, argument, sign)
    return total


def _between(items: Any) -> frozenset[str] | None:
    """The characters that are no digits and may be consumed; None where they are not a set of single characters."""
    signs: set[str] = set()
    for what, argument in items:
        if what in (op.LITERAL, op.IN):
            for kind, value in [(what, argument)] if what is op.LITERAL else argument:
                if kind is op.LITERAL:
                    signs |= set() if chr(value).isdecimal() else {chr(value)}
                elif not _is_sign(kind, value, DIGIT):
                    return None
        elif what in (op.NOT_LITERAL, op.ANY, op.GROUPREF):
            return None
        elif what not in (op.AT, op.ASSERT, op.ASSERT_NOT):
            for part in _parts(argument):
                inner = _between(part)
                if inner is None:
                    return None
                signs |= inner
    return frozenset(signs) if not any(sign.isalpha() for sign in signs) else None


def _reach(items: Any) -> int:
    """How far all that is asserted looks, one assertion behind the other."""
    total = 0
    for what, argument in items:
        parts = _parts(argument)
        if what in (op.ASSERT, op.ASSERT_NOT):
            total += sum(int(part.getwidth()[1]) for part in parts)
        total += (what is op.AT) + sum(_reach(part) for part in parts)
    return total
