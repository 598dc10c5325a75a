"""Numbers as they are written: digits of every script, the check digit of cards, the parts of telephone numbers."""

from typing import NamedTuple

import phonenumbers
import regex

REGION = "US"  # of telephone numbers without a country code


class PhoneParts(NamedTuple):
    country: int
    national: str
    extension: str
    valid: bool
    """Whether libphonenumber knows a range of numbers in which it lies."""


def read_phone(text: str) -> PhoneParts | None:
    """The parts of a telephone number, which without a country code is one of North America; None for no number."""
    try:
        number = phonenumbers.parse(text, REGION)
    except phonenumbers.NumberParseException:
        return None
    national = phonenumbers.national_significant_number(number)
    valid = phonenumbers.is_valid_number(number)
    return PhoneParts(number.country_code or 0, national, number.extension or "", valid)


def plain_digits(text: str) -> str:
    """The text with its decimal digits, of any script, as 0 to 9."""
    return regex.sub(r"\p{Nd}", lambda digit: str(int(digit[0])), text)


def is_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


def close_luhn(digits: str, before: str = "") -> str:
    """`digits` with such a last one that they are right by is_luhn behind `before`."""
    return next(new for last in "0123456789" if is_luhn(before + (new := digits[:-1] + last)))
