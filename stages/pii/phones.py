"""Presidio's search for telephone numbers, the same spans in a fraction of the time.

Presidio walks through a text once for each of its eight regions, and libphonenumber parses every run of digits each
time. Here a text is walked through once for all regions, passing over digits that stand alone and are too few, and each
run of digits is judged once, however often it occurs: the judgement, by libphonenumber's own PhoneNumberMatcher,
depends on nothing but the run, the kind of the character before it and after it, and whether minutes follow.
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
from phonenumbers.phonenumbermatcher import _LEAD_CLASS, _LEAD_PATTERN, _PATTERN, _TIME_STAMPS_SUFFIX
from phonenumbers.phonenumberutil import _SECOND_NUMBER_START_PATTERN, _VALID_PUNCTUATION

MOST_TRIES = 65_535  # runs that are no number after which PhoneNumberMatcher gives up on a text
MEMORY = 100_000  # runs that are remembered
PLAIN = re.compile(r"[\d\s()\[\]./-]+")  # no plus, no extension, no letters that may stand for digits
NO_DIGITS, DIGITS = re.compile(r"[\s()\[\]./-]+"), re.compile(r"\d+")
LETTER, OTHER, MINUTES = "a", " ", ":00"
LEAST_ABROAD = 4  # digits of a call abroad without a plus: its prefix, a country's code, two digits of a number
LEAD_WIDTH = 10  # characters that _PATTERN takes before the first digit: twice a bracket or plus and four signs
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
    least_digits: int
    """Of a valid national number, as written."""


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
    added = max((sum(map(str.isdecimal, rule)) for _, rule in prefixes), default=0)
    return Plan(
        str(code),
        tuple((re.compile(prefix), rule) for prefix, rule in sorted(prefixes)),
        re.compile(metadata.international_prefix or "(?!)"),
        re.compile("|".join(patterns)),
        min(length - added for one in neighbours for length in one.general_desc.possible_length),
    )


@cache
def written_in(regions: tuple[str, ...]) -> tuple[re.Pattern[str], tuple[Plan, ...]]:
    """What the digits of every number fit, but for regions where something takes the place of a prefix; and these."""
    plans = [plan_of(region) for region in regions]
    others = tuple(plan for plan in plans if any(rule for _, rule in plan.prefixes))
    ways = {f"(?:{plan.abroad.pattern}).*" for plan in plans}
    for plan in plans:
        if plan not in others:
            prefixes = "|".join(prefix.pattern for prefix, _ in plan.prefixes)
            ways.add(f"(?:{plan.code})?(?:{prefixes}){{0,2}}(?:{plan.national.pattern})")
    return re.compile("|".join(sorted(ways))), others


@cache
def promising(regions: tuple[str, ...]) -> re.Pattern[str]:
    """Fits wherever a run begins whose judgement may be anything but "one try, no number": digits that are enough for a
    number, or beside other digits, behind a bracket or plus, or before what may be an extension."""
    least = max(1, min(LEAST_ABROAD, *(plan_of(region).least_digits for region in regions)))
    signs = f"[{_VALID_PUNCTUATION}]"
    led = "|".join(rf"(?<={_LEAD_CLASS}{signs}{{{width}}}\d)" for width in range(5))
    extension = r"[ \xa0\t,-]*(?:[;exｅｘaiｉд#＃~～]|\d)"
    return re.compile(rf"\d(?:{led}|\d*+(?:(?<=\d{{{least}}})|{signs}{{1,4}}\d|{extension}))", re.IGNORECASE)


def prepare(regions: tuple[str, ...]) -> None:
    """Make what find_phones needs for `regions`, once a process: expressions of several thousand characters."""
    promising(regions)
    written_in(regions)


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
        plain = NO_DIGITS.sub("", candidate)
        if not plain.isascii():
            plain = "".join(str(unicodedata.digit(character)) for character in plain)
        written, others = written_in(regions)
        if not written.fullmatch(plain) and not any(
            len(plain) >= plan.least_digits and may_be_number(plain, plan) for plan in others
        ):
            return ()
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
    if run.isdecimal():  # nothing inside to try
        digits = verify(before, run, OTHER if after == MINUTES else after, regions, leniency)
        return Judgement(tuple(Phone(0, len(run), count) if count else None for count in digits), 1)
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
    hopeful = promising(regions) if leniency >= Leniency.VALID else DIGITS
    waiting: dict[int, tuple[int, ...]] = {0: tuple(range(len(regions)))}  # where to search on → for which regions
    while waiting:
        index = min(waiting)
        here = waiting.pop(index)
        hope = hopeful.search(text, index)
        if len(text) >= most_tries:
            tries += len(DIGITS.findall(text, index, hope.start() if hope else len(text)))
        if hope is None:
            continue
        first = hope.start()
        lead = _LEAD_PATTERN.search(text, max(index, first - LEAD_WIDTH), first)
        match: Any = _PATTERN.search(text, lead.start() if lead else first)  # a digit alone is a match
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
