"""What licences allow: a table of known ones, and expressions of them as SPDX writes them.

licences.yaml beside this file holds the table, filled in from the licences' own texts. A licence that is not in it is
described in params.yaml, `policy.licences`, with the same fields. Case does not matter, nor do the hub's tags.

Expressions: `MIT OR Apache-2.0` lets you choose, `CC-BY-4.0 AND ODbL-1.0` binds to both, AND before OR, with brackets
(SPDX 3.0, annex B). An exception behind WITH only permits more, so it is left out; `+` is the licence itself.
"""

import difflib
import itertools
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stages.common.params import Params, read_yaml, validate

TABLE = Path(__file__).with_name("licences.yaml")
WORD = re.compile(r"[()]|[^\s()]+")
JOINS = {"(", ")", "AND", "OR", "WITH"}
NOTHING_SAID = ("", "other", "unknown", "none", "cc", "openrail", "llama", "gpl", "proprietary")


class Terms(Params):
    """What a licence allows to do with a work, and with a model that is trained on it."""

    commercial_use: bool
    """Whether a model that earns money may be made of it."""
    derivatives: Literal["shared", "internal", "none"]
    """Of what is made of it: shared, may be passed on; internal, may be made, not passed on; none, may not be made."""
    share_alike: list[str]
    """Licences of which an adaptation must bear one where it is passed on, the best choice first; []: any."""
    attribution: bool
    """Whether those who pass an adaptation on must name the author, or keep the notice."""
    conditions: str | None
    """What else goes with a model that is passed on; empty: nothing."""
    url: Annotated[str, Field(min_length=1)]
    """Where the terms can be read: an address, or the contract and its section."""


class Licence(NamedTuple):
    """A licence by its name in the table, or in policy.licences."""

    name: str
    terms: Terms


class UnknownLicenceError(ValueError):
    """The message says what to do."""


@cache
def read_table() -> tuple[dict[str, Licence], dict[str, str]]:
    """The known licences by their names in lower case, and other spellings of these names, likewise."""
    table = read_yaml(TABLE)
    terms = validate(dict[str, Terms], "licences", table["licences"], TABLE)
    known = {name.lower(): Licence(name, each) for name, each in terms.items()}
    return known, {alias.lower(): name.lower() for alias, name in table["aliases"].items()}


def find_licence(name: str, own: Mapping[str, Terms]) -> Licence:
    """A licence by any of its spellings; `own` are those of params.yaml. Raises UnknownLicenceError."""
    known, aliases = read_table()
    wanted = name.strip().lower()
    mine = {each.lower(): Licence(each, terms) for each, terms in own.items()}
    for spelling in (wanted, wanted.removesuffix("+")):
        if found := mine.get(spelling) or known.get(aliases.get(spelling, spelling)):
            return found
    describe = "say under policy.licences what it allows (docs/licences.md)"
    if wanted in NOTHING_SAID:
        raise UnknownLicenceError(f"'{name}' says nothing of what is allowed; find the terms, and {describe}")
    names = {each: licence.name for each, licence in (known | mine).items()}
    near = difflib.get_close_matches(wanted, [*names, *aliases], n=1, cutoff=0.7)
    hint = f"; did you mean `{names[aliases.get(near[0], near[0])]}`?" if near else "."
    raise UnknownLicenceError(f"'{name}' is no licence that Pedigree knows{hint} If it is your own, {describe}")


def read_alternatives(expression: str, own: Mapping[str, Terms]) -> list[tuple[Licence, ...]]:
    """The choices that an expression leaves, each as the licences that bind together. Raises UnknownLicenceError."""
    words = WORD.findall(expression)
    a_name = not JOINS & {word.upper() for word in words}
    if a_name or expression.strip().lower() in {name.lower() for name in own}:  # a name of your own may hold anything
        return [(find_licence(expression, own),)]
    found = _read_choice(words, own)
    if words:
        raise UnknownLicenceError(f"'{expression}' cannot be read from '{words[0]}' on; join licences by AND or OR")
    return found


def _read_choice(words: list[str], own: Mapping[str, Terms]) -> list[tuple[Licence, ...]]:
    """Alternatives joined by OR; the words that were read are taken off the list."""
    found = _read_bundle(words, own)
    while words and words[0].upper() == "OR":
        words.pop(0)
        found += _read_bundle(words, own)
    return found


def _read_bundle(words: list[str], own: Mapping[str, Terms]) -> list[tuple[Licence, ...]]:
    """What is joined by AND: each choice of the one with each choice of the other."""
    found = _read_one(words, own)
    while words and words[0].upper() == "AND":
        words.pop(0)
        pairs = itertools.product(found, _read_one(words, own))
        found = [tuple({each.name: each for each in (*one, *other)}.values()) for one, other in pairs]
    return found


def _read_one(words: list[str], own: Mapping[str, Terms]) -> list[tuple[Licence, ...]]:
    """A licence, or an expression in brackets."""
    word = words.pop(0) if words else ""
    if word == "(":
        found = _read_choice(words, own)
        if not words or words.pop(0) != ")":
            raise UnknownLicenceError("a bracket is not closed; join licences by AND or OR")
        return found
    if not word or word.upper() in JOINS:
        raise UnknownLicenceError(f"a licence is missing{f' before {word}' if word else ''}; join them by AND or OR")
    found = [(find_licence(word, own),)]
    if words[:1] and words[0].upper() == "WITH":
        del words[:2]
    return found
