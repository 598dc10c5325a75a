"""When two spellings are one value: case, accents, titles, the layout of a number, characters that nobody sees."""

import ipaddress
import unicodedata

import regex

from stages.pii.ner.text import NO_WIDTH, read_plain
from stages.pii.numbers import plain_digits, read_phone

STAFF = (
    "dr|doctor|prof|professor|nurse|nurse practitioner|counsell?or|pharmacist|physiotherapist|therapist|dietitian|"
    "midwife|manager|officer|director|receptionist"
)
TITLES = f"{STAFF}|mr|mrs|ms|miss|mx"
TITLES_BEFORE = regex.compile(rf"\s*(?:(?:{TITLES})\.?\s+)*", regex.IGNORECASE)
IN_WORDS = (
    "LOCATION", "STREET_ADDRESS", "ORGANIZATION", "NRP", "EMAIL_ADDRESS", "URL", "DATE_OF_BIRTH", "DATE_TIME", "OTHER",
)  # fmt: skip
"""Entities whose punctuation tells one value from another; of those not named here, numbers and identifiers, it does
not."""
EXACT = ("SECRET", "CRYPTO")  # capitals count
CLUSTER = regex.compile(r"\P{M}\p{M}*|\p{M}+")  # a letter and its signs
PLAIN_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i", "ß": "ss", "æ": "ae", "’": "'"})
PLAIN_SIGNS = str.maketrans(dict.fromkeys("‐‑‒–—―−", "-") | dict.fromkeys("‘’ʼ′", "'"))


def fold(name: str) -> str:
    """Lower case without accents: Szöllősy → szollosy."""
    plain = name.lower().translate(PLAIN_LETTERS)
    if plain.isascii():
        return plain
    return "".join(letter for letter in unicodedata.normalize("NFD", plain) if not unicodedata.combining(letter))


def read_alike(text: str) -> tuple[str, list[tuple[int, int]] | None]:
    """`text` so that what looks the same is the same, and for each of its characters the place in `text`; None where
    the places are equal.

    No matter are case, composed or decomposed letters (NFKD and full case folding, UAX #15 and Unicode 3.13), the kind
    of hyphen and apostrophe, and characters of no width. Accents matter.
    """
    if text.isascii():
        return text.lower(), None
    plain, places = read_plain(text)
    letters: list[str] = []
    spans: list[tuple[int, int]] = []
    for cluster in CLUSTER.finditer(plain):
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", cluster[0]).casefold())
        start, end = cluster.span()
        letters.append(folded.translate(PLAIN_SIGNS))
        spans += [(places[start], places[end - 1] + 1) if places else (start, end)] * len(folded)
    return "".join(letters), spans


def normalise_value(entity: str, text: str) -> str:
    """The form in which two spellings of one value are equal."""
    text = unicodedata.normalize("NFKC", NO_WIDTH.sub("", text)).strip()
    if entity in EXACT:
        return text
    if entity == "PERSON":
        name = " ".join(text[TITLES_BEFORE.match(text).end() :].replace(".", " ").split()) or text
        folded = fold(name)
        return folded if folded.isascii() else name.casefold()  # signs on letters of other alphabets are no accents
    if entity in IN_WORDS:
        return " ".join(text.casefold().split())
    if entity == "IP_ADDRESS":
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            return text.casefold()
    if entity == "PHONE_NUMBER" and (phone := read_phone(text)):
        return f"+{phone.country} {phone.national} {phone.extension}"
    return regex.sub(r"[^\p{L}\p{N}]", "", plain_digits(text.casefold())) or text
