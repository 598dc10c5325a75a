"""Presidio's search for telephone numbers, the same spans in a fraction of the time.

Presidio walks through a text once for each of its eight regions, and libphonenumber parses every run of digits each
time. Here a text is walked through once for all regions, and each run of digits is judged once, however often it
occurs: the judgement, by libphonenumber's own PhoneNumberMatcher, depends on nothing but the run, the kind of the
character before it and after it, and whether minutes follow.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

from phonenumbers import (
    COUNTRY_CODE_TO_REGION_CODE,
    Leniency,
    PhoneMetadata,
    PhoneNumberMatcher,
    national_significant_number,
)
from phonenumbers.phonenumbermatcher import _LEAD_PATTERN, _PATTERN, _TIME_STAMPS_SUFFIX
from phonenumbers.phonenumberutil import _SECOND_NUMBER_START_PATTERN

MOST_TRIES = 65_535  # runs that are no number after which PhoneNumberMatcher gives up on a text
MEMORY = 100_000  # runs that are remembered
PLAIN = re.compile(r"[\d\s()\[\]./-]+")  # no plus, no extension, no letters that may stand for digits
LETTER, OTHER, MINUTES = "a", " ", ":00"
TYPES = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
    "voicemail",
)  # fmt: skip
"""Of numbers: a valid one is of one of them."""


class Phone(NamedTuple):
    """Characters `start` to `end` are a number whose national part has so many digits."""

    start: int
    end: int
    national_digits: int


class Judgement(NamedTuple):
    """Region by region the number inside a run, counted from the run's start, or None; () where no region has one. And
    how many tries that took at most."""

    found: tuple[Phone | None, ...]
    tries: int


class TooManyTriesError(Exception):
    """PhoneNumberMatcher may give up on this text before its end."""


@lru_cache(2**14)
def kind_beside(character: str) -> str:
    """A character that libphonenumber treats like `character` where it stands beside a number."""
    bad = PhoneNumberMatcher._is_latin_letter(character) or PhoneNumberMatcher._is_invalid_punctuation_symbol(character)
    return LETTER if bad else OTHER


class Plan(NamedTuple):
    """How numbers are written in a region."""

    code: str
    prefixes: tuple[tuple[re.Pattern[str], str], ...]
    """What may be written before a national number, and what takes its place."""
    abroad: re.Pattern[str]
    """How calls abroad begin."""
    national: re.Pattern[str]
    """Every valid national number of the regions with the same country code, and more."""


@cache
def plan_of(region: str) -> Plan:
    metadata: Any = PhoneMetadata.metadata_for_region(region)
    code = metadata.country_code
    neighbours: list[Any] = [PhoneMetadata.metadata_for_region(name) for name in COUNTRY_CODE_TO_REGION_CODE[code]]
    prefixes = {
        (one.national_prefix_for_parsing, one.national_prefix_transform_rule or "")
        for one in (metadata, neighbours[0])  # with the country's code before it a number is the main region's
        if one.national_prefix_for_parsing
    }
    types = [getattr(one, kind) for one in neighbours for kind in TYPES]
    patterns = sorted({one.national_number_pattern for one in types if one and one.national_number_pattern})
    return Plan(
        str(code),
        tuple((re.compile(prefix), rule) for prefix, rule in sorted(prefixes)),
        re.compile(metadata.international_prefix or "(?!)"),
        re.compile("|".join(patterns)),
    )


def may_be_number(plain: str, plan: Plan) -> bool:
    """Whether digits, or what is left of them without the country's code and without what is written before national
    numbers, which libphonenumber takes away up to twice, may be a valid number; or whether they lead abroad."""
    left = {plain, plain.removeprefix(plan.code)}
    for _ in range(2):
        for digits in tuple(left):
            for prefix, rule in plan.prefixes:
                if before := prefix.match(digits):
                    left.add(digits[before.end() :])
                    if rule:
                        left.add(prefix.sub(rule, digits, count=1))
    return any(map(plan.national.fullmatch, left)) or plan.abroad.match(plain) is not None


@lru_cache(MEMORY)
def verify(before: str, candidate: str, after: str, regions: tuple[str, ...], leniency: int) -> tuple[int, ...]:
    """Region by region the digits of the national number that the whole of `candidate` is between `before` and `after`,
    0 for none; () where no region has one. Regions whose valid numbers look otherwise are not asked."""
    plain = ""
    if leniency >= Leniency.VALID and (after == LETTER or (before == LETTER and not _LEAD_PATTERN.match(candidate))):
        return ()
    if leniency >= Leniency.VALID and PLAIN.fullmatch(candidate):
        plain = "".join(str(unicodedata.digit(character)) for character in candidate if character.isdecimal())
    found = [0] * len(regions)
    for place, region in enumerate(regions):
        if not plain or may_be_number(plain, plan_of(region)):
            matcher = PhoneNumberMatcher(before + candidate + after, region, leniency=leniency)
            match = matcher._parse_and_verify(candidate, len(before))
            found[place] = 0 if match is None else len(national_significant_number(match.number))
    return tuple(found) if any(found) else ()


class Matcher(PhoneNumberMatcher):
    """PhoneNumberMatcher for several regions at once. Which parts of a run it tries, and in which order, is the same
    for all regions; so a region only leaves once it has its number."""

    def __init__(self, text: str, regions: tuple[str, ...], leniency: int) -> None:
        super().__init__(text, None, leniency=leniency)
        self.regions = regions
        self.found: list[Phone | None] = [None] * len(regions)

    def _parse_and_verify(self, candidate: str, offset: int) -> Any:
        """True where all regions have a number now, else None, and the search goes on for the others."""
        end = offset + len(candidate)
        before = kind_beside(self.text[offset - 1]) if offset else ""
        after = kind_beside(self.text[end]) if end < len(self.text) else ""
        for place, digits in enumerate(verify(before, candidate, after, self.regions, self.leniency)):
            if digits and self.found[place] is None:
                self.found[place] = Phone(offset, end, digits)
        return True if all(self.found) else None


@lru_cache(MEMORY)
def judge(before: str, run: str, after: str, regions: tuple[str, ...], leniency: int) -> Judgement:
    """What PhoneNumberMatcher finds first in `run`, which stands between `before` and `after`."""
    matcher = Matcher(before + run + after, regions, leniency)
    matcher._extract_match(run, len(before))
    shift = len(before)
    found = tuple(
        None if phone is None else phone._replace(start=phone.start - shift, end=phone.end - shift)
        for phone in matcher.found
    )
    return Judgement(found if any(found) else (), MOST_TRIES - matcher._max_tries + 1)


def find_phones(text: str, regions: tuple[str, ...], leniency: int, most_tries: int = MOST_TRIES) -> Iterator[Phone]:
    """The matches of PhoneNumberMatcher in all regions, each as often as regions have it. Raises TooManyTriesError
    where `most_tries` may be reached."""
    tries = 0
    waiting: dict[int, tuple[int, ...]] = {0: tuple(range(len(regions)))}  # where to search on → for which regions
    while waiting:
        index = min(waiting)
        here = waiting.pop(index)
        match = _PATTERN.search(text, index)
        if match is None:
            continue
        start, run = match.start(), match[0]
        if second := _SECOND_NUMBER_START_PATTERN.search(run):
            run = run[: second.start()]
        end = start + len(run)
        before = kind_beside(text[start - 1]) if start else ""
        after = MINUTES if _TIME_STAMPS_SUFFIX.match(text, end) else ""
        if not after and end < len(text):
            after = kind_beside(text[end])
        found, most = judge(before, run, after, regions, leniency)
        tries += most
        if tries >= most_tries:
            raise TooManyTriesError
        if not found:
            waiting[end] = waiting.get(end, ()) + here
            continue
        for region in here:
            number = found[region]
            if number is not None:
                yield Phone(start + number.start, start + number.end, number.national_digits)
            following = end if number is None else start + number.end
            waiting[following] = (*waiting.get(following, ()), region)
