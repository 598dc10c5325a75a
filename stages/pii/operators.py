"""What stands in for personal data: its type, a pseudonym, a made-up value of the same form, asterisks.

Pseudonyms and surrogates are made from an HMAC-SHA256 (RFC 2104) of the type and the value, with a key outside the
repository. So a value has the same stand-in in the whole corpus, in any order of rows and on any machine, and without
the key nobody can try values until one fits. Two spellings of one value (case, spaces, titles of a person, the layout
of a number) count as one.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache
from typing import NamedTuple

import regex

from stages.common.errors import InputError
from stages.pii import Finding
from stages.pii.names import fold, load_list
from stages.pii.spans import TITLES

TOKEN_DIGITS = 8  # hex digits of a pseudonym: among 10,000 values two are alike with probability 1 %
NUMBERS = ("PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "US_BANK_NUMBER", "US_NPI", "IP_ADDRESS")
PLACES = ("LOCATION", "STREET_ADDRESS")
LONGEST_SHIFT_DAYS = 180
KEPT_WORDS = regex.compile(
    r"(?:street|st|avenue|ave|road|rd|lane|ln|drive|dr|court|ct|boulevard|blvd|way|place|pl|terrace|square|crescent|"
    r"close|apt|unit|suite|ste|inc|ltd|llc|gmbh|hospital|clinic|university|bank|the|of|and|de|la|van|von)\.?",
    regex.IGNORECASE,
)
A_TITLE = regex.compile(rf"(?:{TITLES})\.?", regex.IGNORECASE)
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
MONTH_NAMES = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip


def read_key(fingerprint: str, environment: Mapping[str, str]) -> bytes | None:
    """The key of pseudonyms, derived from PEDIGREE_KEY; None for `public`. Raises InputError where the environment does
    not hold the secret with that fingerprint."""
    if fingerprint == "public":
        return None
    secret = environment.get("PEDIGREE_KEY", "").encode()
    found = hashlib.sha256(secret).hexdigest()[:12] if secret else "nothing"
    if found != fingerprint:
        raise InputError(
            f"params.yaml, scrub.key_fingerprint asks for the key {fingerprint}, PEDIGREE_KEY holds {found}; set the "
            "right key in the environment, or the new fingerprint, in quotes: every stand-in then changes"
        )
    return hmac.new(secret, b"scrub", hashlib.sha256).digest()


@cache
def listed(name: str) -> tuple[str, ...]:
    return tuple(sorted(word for word in load_list(name) if word.isalpha() and len(word) > 2))


def normalise_value(entity: str, text: str) -> str:
    """The form in which two spellings of one value are equal."""
    if entity == "PERSON":
        text = regex.sub(rf"^(?:(?:{TITLES})\.?\s+)+", "", text.strip(), flags=regex.IGNORECASE)
        return fold(" ".join(text.replace(".", " ").split()))
    if entity in NUMBERS:
        return re.sub(r"[^0-9a-z:]", "", text.lower())
    return " ".join(text.lower().split())


class Draws:
    """Numbers from a digest, one after the other."""

    def __init__(self, key: bytes, *parts: str) -> None:
        self.key, self.seed, self.count = key, "\0".join(parts).encode(), 0

    def below(self, limit: int) -> int:
        self.count += 1
        digest = hmac.new(self.key, self.seed + self.count.to_bytes(4, "big"), hashlib.sha256).digest()
        return int.from_bytes(digest[:8], "big") % limit


def pseudonym(key: bytes, entity: str, text: str) -> str:
    digest = hmac.new(key, f"{entity}\0{normalise_value(entity, text)}".encode(), hashlib.sha256)
    return f"<{entity}_{digest.hexdigest()[:TOKEN_DIGITS]}>"


def surrogate(key: bytes, entity: str, text: str) -> str:
    """A made-up value of the same form."""
    draws = Draws(key, entity, normalise_value(entity, text))
    if entity in ("PERSON", "ORGANIZATION", "NRP", *PLACES):
        return regex.sub(r"[\p{L}\p{M}]+\.?|\d+", lambda part: _word(key, entity, part[0]), text)
    match entity:
        case "EMAIL_ADDRESS":
            first, family = listed("first"), listed("family")
            name = f"{first[draws.below(len(first))]}.{family[draws.below(len(family))]}"
            return f"{name}{draws.below(1000)}@example.org"
        case "URL":
            scheme = regex.match(r"[a-z]+://", text, regex.IGNORECASE)
            return f"{scheme[0] if scheme else ''}example.org/{draws.below(16**8):08x}"
        case "IP_ADDRESS":  # the ranges for documentation: RFC 5737, RFC 3849
            if ":" in text:
                return f"2001:db8::{draws.below(16**4):x}:{draws.below(16**4):x}"
            return f"{('192.0.2', '198.51.100', '203.0.113')[draws.below(3)]}.{draws.below(256)}"
        case "DATE_OF_BIRTH" | "DATE_TIME":
            days = 1 + Draws(key, "shift").below(2 * LONGEST_SHIFT_DAYS) - LONGEST_SHIFT_DAYS
            return shift_date(text, timedelta(days=days or LONGEST_SHIFT_DAYS)) or f"<{entity}>"
        case "CREDIT_CARD":
            return _with_digits(text, _complete(_digits(draws, text, keep=1), ""))
        case "US_NPI":
            return _with_digits(text, _complete(_digits(draws, text, keep=1), "80840"))
        case "US_SSN":
            return _with_digits(text, "9" + _digits(draws, text)[1:])  # never given out with a 9
        case "PHONE_NUMBER":
            digits = _digits(draws, text)
            if len(digits) in (10, 11):  # 555-0100 to 555-0199 are nobody's in North America
                digits = digits[:-7] + "55501" + digits[-2:]
            return _with_digits(text, digits)
        case "IBAN_CODE":
            return _iban(draws, text)
    return "".join(_same_kind(draws, character) for character in text)


def _same_kind(draws: Draws, character: str) -> str:
    if character.isdigit():
        return str(draws.below(10))
    if not character.isalpha():
        return character
    letter = _letter(draws, character)
    return letter.upper() if character.isupper() else letter


def _letter(draws: Draws, character: str) -> str:
    """Another letter of the same script."""
    for first, last in (
        ("а", "я"),
        ("α", "ω"),
        ("א", "ת"),
        ("ا", "ي"),
        ("一", "鿿"),
        ("ぁ", "ゖ"),
        ("ァ", "ヺ"),
        ("가", "힣"),
    ):
        if first <= character.lower() <= last:
            letters = [code for code in range(ord(first), ord(last) + 1) if chr(code).isalpha()]
            return chr(letters[draws.below(len(letters))])
    return chr(ord("a") + draws.below(26))


def _word(key: bytes, entity: str, word: str) -> str:
    """Another word for a word of a name or a place, the same wherever the word stands; digits for a number."""
    if (A_TITLE if entity == "PERSON" else KEPT_WORDS).fullmatch(word):
        return word
    if word.isdigit():
        draws = Draws(key, "number", word)
        return str(1 + draws.below(9)) + _digits(draws, word[1:])
    folded = fold(word.rstrip("."))
    draws = Draws(key, "word", folded)
    if not folded.isascii() or len(folded) == 1:
        return "".join(_same_kind(draws, character) for character in word)
    group = "places" if entity == "LOCATION" else "first" if folded in load_list("first") else "family"
    names = listed(group)
    new = names[draws.below(len(names))]
    return new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new


def _digits(draws: Draws, text: str, keep: int = 0) -> str:
    """As many digits as `text` has, the first `keep` its own."""
    own = [character for character in text if character.isdigit()]
    return "".join(own[:keep]) + "".join(str(draws.below(10)) for _ in own[keep:])


def _with_digits(text: str, digits: str) -> str:
    left = iter(digits)
    return "".join(next(left) if character.isdigit() else character for character in text)


def _complete(digits: str, before: str) -> str:
    """`digits` with the last one as check digit (Luhn, ISO/IEC 7812-1) of `before` and the others."""
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(before + digits[:-1]))]
    return digits[:-1] + str(-sum(value // 10 + value % 10 for value in doubled) % 10)


def _iban(draws: Draws, text: str) -> str:
    """The same country and layout, other characters, right check digits (ISO 13616)."""
    plain = re.sub(r"[^0-9A-Za-z]", "", text)
    account = "".join(_same_kind(draws, character) for character in plain[4:]).upper()
    country = plain[:2].upper()
    number = "".join(str(int(character, 36)) for character in f"{account}{country}00")
    left = iter(f"{country}{98 - int(number) % 97:02d}{account}")
    new = "".join(next(left) if character.isalnum() else character for character in text)
    return new.lower() if text.islower() else new


def shift_date(text: str, days: timedelta) -> str | None:
    """The date so many days later in the same layout; None where `text` is no whole date. 3/4 is the 4th of March."""
    numbers = [(match.start(), match.end(), match[0]) for match in re.finditer(r"\d+", text)]
    name = regex.search(rf"\b({'|'.join(MONTHS)})[a-z]*", text, regex.IGNORECASE)
    years = [number for number in numbers if len(number[2]) == 4]
    if name and len(numbers) == 2 and len(years) == 1:
        day = next(number for number in numbers if number is not years[0])
        month = MONTHS.index(name[1].lower()) + 1
        places = [years[0], (*name.span(), name[0]), day]
    elif len(numbers) == 3:
        year = years[0] if years else numbers[2]
        others = [number for number in numbers if number is not year]
        if int(others[0][2]) > 12 and year is not numbers[0]:
            others.reverse()
        places, day, month = [year, *others], others[1], int(others[0][2])
    else:
        return None
    century = 0 if years else 2000 if int(places[0][2]) < 30 else 1900
    try:
        moved = date(int(places[0][2]) + century, month, int(day[2])) + days
    except (ValueError, OverflowError):
        return None
    written = [f"{moved.year % 100:02d}" if not years else str(moved.year), str(moved.month), str(moved.day)]
    if name:
        whole = MONTH_NAMES[moved.month - 1]
        written[1] = whole if len(name[0]) > 4 else whole[:3]
    new = text
    for (start, end, old), value in sorted(zip(places, written, strict=True), reverse=True):
        padded = value.zfill(len(old)) if old.isdigit() else value
        new = new[:start] + padded + new[end:]
    return new


class Operators(NamedTuple):
    """What becomes of the findings of each entity."""

    actions: dict[str, str]
    key: bytes | None

    def stand_in(self, entity: str, text: str) -> str:
        match self.actions.get(entity, "replace"):
            case "mask":
                return "*" * len(text)
            case "pseudonym" if self.key:
                return pseudonym(self.key, entity, text)
            case "surrogate" if self.key:
                return surrogate(self.key, entity, text)
        return f"<{entity}>"

    def replace(self, findings: list[Finding], text: str) -> tuple[str, list[tuple[int, int]]]:
        """`text` with a stand-in for each finding (ordered, apart), and where the stand-ins are."""
        parts: list[str] = []
        spans = []
        position = length = 0
        for found in findings:
            new = self.stand_in(found.entity, text[found.start : found.end])
            start = length + found.start - position
            parts += [text[position : found.start], new]
            spans.append((start, start + len(new)))
            position, length = found.end, start + len(new)
        return "".join([*parts, text[position:]]), spans
