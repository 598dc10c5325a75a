"""What stands in for personal data: its type, a pseudonym, a made-up value of the same form, asterisks.

Pseudonyms and surrogates are made from an HMAC-SHA256 (RFC 2104) of the type and the value, with a key outside the
repository. So a value has the same stand-in in the whole corpus, in any order of rows and on any machine, and without
the key nobody can try values until one fits. Two spellings of one value (case, spaces, titles of a person, the layout
of a number) count as one.
"""

import hashlib
import hmac
import re
import unicodedata
from datetime import date, timedelta
from functools import cache
from typing import NamedTuple

import regex

from stages.pii import Finding
from stages.pii.names import load_list
from stages.pii.numbers import close_luhn, plain_digits, read_phone
from stages.pii.spelling import TITLES_BEFORE, fold, normalise_value

TOKEN_DIGITS = 12  # hex digits of a pseudonym: among a million values two are alike with probability 0.2 %
MOST_DRAWS = 100  # of a surrogate that is to differ from the value; where none does, the type stands there
PLACES = ("LOCATION", "STREET_ADDRESS")
NAMED = ("PERSON", "ORGANIZATION", "NRP", *PLACES)
LONGEST_SHIFT_DAYS = 180
KEPT_WORDS = regex.compile(
    r"(?:street|st|avenue|ave|road|rd|lane|ln|drive|dr|court|ct|boulevard|blvd|way|place|pl|terrace|square|crescent|"
    r"close|apt|unit|suite|ste|inc|ltd|llc|gmbh|hospital|clinic|university|bank|the|of|and|de|la|van|von)\.?",
    regex.IGNORECASE,
)
LETTERS = {
    "Cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "Greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "Hebrew": "אבגדהוזחטיכלמנסעפצקרשת",
    "Arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "Han": "".join(map(chr, range(0x4E00, 0x9FA6))),
    "Hiragana": "".join(map(chr, range(0x3041, 0x3097))),
    "Katakana": "".join(map(chr, range(0x30A1, 0x30FB))),
    "Hangul": "".join(map(chr, range(0xAC00, 0xD7A4))),
    "Latin": "abcdefghijklmnopqrstuvwxyz",
}
"""Script → the letters that stand for its letters."""
_OF_SCRIPTS = "".join(rf"\p{{{script}}}" for script in LETTERS)
NO_LETTERS_FOR = regex.compile(rf"[\p{{M}}\p{{Nl}}\p{{No}}]|[\p{{L}}--[{_OF_SCRIPTS}ー]]", regex.VERSION1)
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
MONTH_NAMES = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip


_MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in MONTH_NAMES) + "|sept"
DATE_FORM = rf"(?:\P{{L}}|\b(?:{_MONTH}|of)\b|(?<=\d)(?:st|nd|rd|th)\b)*"
FORMS = {
    "CREDIT_CARD": r"\P{L}*",
    "US_NPI": r"\P{L}*",
    "US_SSN": r"\P{L}*",
    "PHONE_NUMBER": r"\P{L}*(?:(?:x|ext|extn|extension)\P{L}*)?",
    "IBAN_CODE": r"[A-Z]{2}[ .-]*[0-9]{2}[0-9A-Z .-]+",
    "DATE_OF_BIRTH": DATE_FORM,
    "DATE_TIME": DATE_FORM,
}
"""Of values of which the digits alone change: a finding that lies over another one may hold a name."""


@cache
def listed(name: str) -> tuple[str, ...]:
    return tuple(sorted(word for word in load_list(name) if word.isalpha() and len(word) > 2))


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
    """A made-up value of the same form, another one than `text`; <ENTITY> where there is none."""
    same = normalise_value(entity, text)
    draws = Draws(key, entity, same)
    for _ in range(MOST_DRAWS):
        new = _draw(key, draws, entity, text)
        if new is not None and normalise_value(entity, new) != same:
            return new
    return f"<{entity}>"


def _draw(key: bytes, draws: Draws, entity: str, text: str) -> str | None:
    """A value of the form of `text`, which may be its own; None for none."""
    if entity in FORMS and not regex.fullmatch(FORMS[entity], text, regex.IGNORECASE):
        return None
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
            return shift_date(plain_digits(text), timedelta(days=days or LONGEST_SHIFT_DAYS))
        case "CREDIT_CARD":
            return _with_digits(text, close_luhn(_digits(draws, text, keep=1)))
        case "US_NPI":
            return _with_digits(text, close_luhn(_digits(draws, text, keep=1), "80840"))
        case "US_SSN":  # never given out with a 9; of the other numbers of tax payers with a 9 none goes on with 0
            digits = _digits(draws, text)
            return _with_digits(text, f"9{digits[1:3]}0{digits[4:]}")
        case "PHONE_NUMBER":
            return _phone(draws, text)
        case "IBAN_CODE":
            return _iban(draws, text)
    text = unicodedata.normalize("NFC", text)
    if NO_LETTERS_FOR.search(text):
        return None
    if entity in NAMED:
        begin = TITLES_BEFORE.match(text).end() if entity == "PERSON" else 0
        return text[:begin] + regex.sub(r"\p{L}+\.?|\d+", lambda part: _word(key, entity, part[0]), text[begin:])
    return "".join(_same_kind(draws, character) for character in text)


def _same_kind(draws: Draws, character: str) -> str:
    """Another digit for a digit, another letter of the same script for a letter."""
    if character.isdecimal():
        return str(draws.below(10))
    for script, letters in LETTERS.items():
        if regex.match(rf"(?=\p{{L}})\p{{{script}}}", character):
            letter = letters[draws.below(len(letters))]
            return letter.upper() if character.isupper() else letter
    return character


def _word(key: bytes, entity: str, word: str) -> str:
    """Another word for a word of a name or a place, the same wherever the word stands; digits for a number."""
    if entity != "PERSON" and KEPT_WORDS.fullmatch(word):
        return word
    own = plain_digits(word) if word.isdecimal() else unicodedata.normalize("NFC", fold(word.rstrip(".")))
    draws, new = Draws(key, "word", own), own
    while new == own:
        if own.isdecimal():
            new = str(1 + draws.below(9)) + _digits(draws, own[1:])
        elif not own.isascii() or len(own) == 1:
            new = "".join(_same_kind(draws, letter) for letter in own)
        else:
            group = "places" if entity == "LOCATION" else "first" if own in load_list("first") else "family"
            new = listed(group)[draws.below(len(listed(group)))]
    return new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new


def _phone(draws: Draws, text: str) -> str | None:
    """The same country and layout. In North America 555-0100 to 555-0199 are nobody's where the area code is no one of
    services; elsewhere no national number begins with 0, and libphonenumber is asked whether this may be one."""
    phone, digits = read_phone(text), re.sub(r"\D", "", plain_digits(text))
    main = digits.removesuffix(phone.extension) if phone else ""
    if phone is None or len(phone.national) < 7 or not main.endswith(phone.national):
        return None
    area = "".join(str(draws.below(10)) for _ in phone.national[:-7])
    if area and phone.country == 1:
        area = str(2 + int(area[0]) % 8) + area[1:]
        if area[-2:-1] == area[-1]:  # 800, 888, 411
            return None
    elif area:
        area = "0" + area[1:]
    before = main[: len(main) - len(phone.national)]
    new = _with_digits(text, f"{before}{area}55501{draws.below(100):02d}{'0' * len(phone.extension)}")
    made = read_phone(new)
    return None if made is None or made.country != phone.country or (made.valid and made.country != 1) else new


def _digits(draws: Draws, text: str, keep: int = 0) -> str:
    """As many digits as `text` has, the first `keep` its own."""
    own = re.sub(r"\D", "", plain_digits(text))
    return own[:keep] + "".join(str(draws.below(10)) for _ in own[keep:])


def _with_digits(text: str, digits: str) -> str:
    left = iter(digits)
    return "".join(next(left) if character.isdecimal() else character for character in text)


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
