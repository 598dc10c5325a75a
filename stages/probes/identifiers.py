"""Made-up numbers of persons, accounts and cards whose form and checksum are valid, each from a random generator.

The rules are those of the bodies that give the numbers out; no code of the recognisers that look for them is used.
"""

import hashlib
import string
from collections.abc import Callable
from random import Random

Make = Callable[[Random], str]

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def digits(random: Random, count: int) -> str:
    """Digits of which the first is not 0."""
    return str(random.randrange(10 ** (count - 1), 10**count))


def letters(random: Random, count: int, alphabet: str = string.ascii_uppercase) -> str:
    return "".join(random.choices(alphabet, k=count))


def fill(form: str, random: Random) -> str:
    """# is a digit, the first not 0, and @ a capital letter."""
    text, first = "", True
    for sign in form:
        if sign == "#":
            text, first = text + str(random.randrange(1 if first else 0, 10)), False
        else:
            text += letters(random, 1) if sign == "@" else sign
    return text


def in_groups(text: str, sizes: tuple[int, ...], mark: str) -> str:
    """The text cut into runs of these sizes, joined by `mark`; the last size repeats."""
    parts: list[str] = []
    while text:
        size = sizes[min(len(parts), len(sizes) - 1)]
        parts, text = [*parts, text[:size]], text[size:]
    return mark.join(parts)


def luhn_sum(number: str) -> int:
    """Luhn's sum (ISO/IEC 7812-1, annex B); a valid number's is a multiple of 10.

    >>> luhn_sum("79927398713")
    70
    """
    doubled = (int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(number)))
    return sum(value - 9 if value > 9 else value for value in doubled)


def close_luhn(number: str) -> str:
    return number + str(-luhn_sum(number + "0") % 10)


def weigh(number: str, weights: tuple[int, ...]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(number, weights, strict=True))


def multiply_d5(one: int, other: int) -> int:
    """The group of the symmetries of a pentagon: 0 to 4 are turns, 5 to 9 reflections."""
    if one < 5:
        return (one + other) % 5 if other < 5 else 5 + (one + other - 5) % 5
    return 5 + (one - 5 - other) % 5 if other < 5 else (one - other) % 5


def verhoeff_sum(number: str) -> int:
    """Verhoeff's check (1969), 0 for a valid number.

    >>> verhoeff_sum("2363")
    0
    """
    permutation = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(place % 8):
            value = permutation[value]
        total = multiply_d5(total, value)
    return total


def close_verhoeff(number: str) -> str:
    return next(f"{number}{check}" for check in range(10) if verhoeff_sum(f"{number}{check}") == 0)


CARDS = (("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("34", 15), ("37", 15), ("6011", 16), ("3528", 16))


def make_card(random: Random) -> str:
    prefix, length = random.choice(CARDS)
    number = close_luhn(prefix + digits(random, length - len(prefix) - 1))
    return in_groups(number, (4, 6, 5) if length == 15 else (4,), random.choice(("", " ", "-")))


IBAN_FORMS = {"DE": "#" * 18, "GB": "@@@@" + "#" * 14, "NL": "@@@@" + "#" * 10, "ES": "#" * 20, "CH": "#" * 17,
              "AT": "#" * 16, "BE": "#" * 12, "DK": "#" * 14}  # fmt: skip


def iban_rest(iban: str) -> int:
    """ISO 13616: 1 for a valid number.

    >>> iban_rest("GB82WEST12345698765432")
    1
    """
    return int("".join(str(int(sign, 36)) for sign in iban[4:] + iban[:4])) % 97


def make_iban(random: Random) -> str:
    country, form = random.choice(sorted(IBAN_FORMS.items()))
    account = fill(form, random)
    check = 98 - iban_rest(f"{country}00{account}")
    return in_groups(f"{country}{check:02}{account}", (4,), random.choice(("", " ")))


def make_ssn(random: Random) -> str:
    area = random.choice([number for number in range(101, 773) if number != 666])
    return f"{area}-{random.randrange(10, 100)}-{random.randrange(1000, 10000)}"


def make_itin(random: Random) -> str:
    group = random.choice([*range(70, 89), *range(90, 93), *range(94, 100)])
    return f"9{digits(random, 2)}-{group}-{digits(random, 4)}"


def make_npi(random: Random) -> str:
    """Ten digits that are valid by Luhn behind 80840, the health industry's prefix."""
    body = random.choice("12") + digits(random, 8)
    return close_luhn("80840" + body)[5:]


def make_routing(random: Random) -> str:
    """ABA: 3, 7, 1 weigh the digits."""
    body = "0" + random.choice("123456789") + digits(random, 6)
    return body + str(-weigh(body, (3, 7, 1) * 2 + (3, 7)) % 10)


def make_dea(random: Random) -> str:
    """Two letters, seven digits: twice the even places and once the odd ones give the last."""
    body = digits(random, 6)
    return f"{random.choice('ABFM')}{letters(random, 1)}{body}{weigh(body, (1, 2, 1, 2, 1, 2)) % 10}"


def make_mbi(random: Random) -> str:
    """CMS: the letters without S, L, O, I, B and Z."""
    alphabet = "ACDEFGHJKMNPQRTUVWXY"
    kinds = {"C": "123456789", "A": alphabet, "N": string.digits, "X": alphabet + string.digits}
    text = "".join(random.choice(kinds[kind]) for kind in "CAXNAXNAANN")
    return in_groups(text, (4, 3, 4), random.choice(("", "-")))


def make_nhs(random: Random) -> str:
    while True:
        body = digits(random, 9)
        check = 11 - weigh(body, tuple(range(10, 1, -1))) % 11
        if check != 10:
            return in_groups(body + str(check % 11), (3, 3, 4), random.choice(("", " ", "-")))


def make_nino(random: Random) -> str:
    text = random.choice(("AB", "CE", "HK", "JM", "PR", "TW")) + digits(random, 6) + random.choice("ABCD")
    return in_groups(text, (2, 2, 2, 2, 1), random.choice(("", " ")))


def make_mod_11(weights: tuple[int, ...], mark: tuple[int, ...]) -> Make:
    """Digits whose weighed sum is a multiple of 11; the last one is the check."""

    def make(random: Random) -> str:
        while True:
            body = digits(random, len(weights) - 1)
            for check in range(10):
                if weigh(f"{body}{check}", weights) % 11 == 0:
                    return in_groups(f"{body}{check}", mark, " ")

    return make


def make_pesel(random: Random) -> str:
    body = f"{random.randrange(30, 100)}{random.randrange(1, 13):02}{random.randrange(1, 29):02}{digits(random, 4)}"
    return body + str(-weigh(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10)


def make_personnummer(random: Random) -> str:
    born = f"{random.randrange(30, 100)}{random.randrange(1, 13):02}{random.randrange(1, 29):02}"
    return in_groups(close_luhn(born + digits(random, 3)), (6, 4), "-")


def make_hetu(random: Random) -> str:
    born = f"{random.randrange(1, 29):02}{random.randrange(1, 13):02}{random.randrange(30, 100)}"
    number = random.randrange(2, 900)
    return f"{born}-{number:03}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(f'{born}{number:03}') % 31]}"


def make_nif(random: Random) -> str:
    number = digits(random, 8)
    return number + "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def make_nie(random: Random) -> str:
    first, number = random.randrange(3), digits(random, 7)
    return f"{'XYZ'[first]}{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[int(f'{first}{number}') % 23]}"


def make_tax_id(random: Random) -> str:
    """Germany's: one digit stands twice among the first ten, the check is ISO 7064, MOD 11, 10."""
    body = random.sample(string.digits[1:], 9)
    body.insert(random.randrange(1, 10), body[0])
    product = 10
    for digit in body:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return "".join(body) + str((11 - product) % 10)


ODD = dict(zip(string.digits + string.ascii_uppercase, (
    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22,
    25, 24, 23), strict=True))  # fmt: skip


def make_fiscal_code(random: Random) -> str:
    consonants = "BCDFGLMNPRSTVZ"
    body = letters(random, 6, consonants) + f"{random.randrange(40, 99)}{random.choice('ABCDEHLMPRST')}"
    body += f"{random.randrange(1, 29):02}{random.choice('ABCDEFGHL')}{digits(random, 3)}"
    total = sum(ODD[sign] if place % 2 == 0 else int(sign, 36) - (10 if sign.isalpha() else 0)
                for place, sign in enumerate(body))  # fmt: skip
    return body + string.ascii_uppercase[total % 26]


def make_nric(random: Random) -> str:
    first, number = random.choice("ST"), digits(random, 7)
    total = weigh(number, (2, 7, 6, 5, 4, 3, 2)) + (4 if first == "T" else 0)
    return f"{first}{number}{'JZIHGFEDCBA'[total % 11]}"


def make_sin(random: Random) -> str:
    return in_groups(close_luhn(random.choice("124567") + digits(random, 7)), (3,), random.choice(" -"))


def make_aadhaar(random: Random) -> str:
    number = close_verhoeff(random.choice("23456789") + digits(random, 10))
    return in_groups(number, (4,), random.choice(("", " ", "-")))


def make_turkish(random: Random) -> str:
    body = [int(digit) for digit in digits(random, 9)]
    tenth = (sum(body[::2]) * 7 - sum(body[1::2])) % 10
    return "".join(map(str, [*body, tenth, (sum(body) + tenth) % 10]))


def make_thai(random: Random) -> str:
    body = random.choice("1234578") + random.choice(("10", "30", "50", "83")) + digits(random, 9)  # type, province
    check = (11 - weigh(body, tuple(range(13, 1, -1))) % 11) % 10
    return in_groups(f"{body}{check}", (1, 4, 5, 2, 1), random.choice(("", "-")))


def make_south_african(random: Random) -> str:
    born = f"{random.randrange(50, 100)}{random.randrange(1, 13):02}{random.randrange(1, 29):02}"
    return close_luhn(f"{born}{digits(random, 4)}08")


def make_rrn(random: Random) -> str:
    body = f"{random.randrange(50, 100)}{random.randrange(1, 13):02}{random.randrange(1, 29):02}"
    body += random.choice("12") + f"{random.randrange(0, 90):02}{digits(random, 3)}"
    return f"{body[:6]}-{body[6:]}{(11 - weigh(body, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)) % 11) % 10}"


def make_bitcoin(random: Random) -> str:
    """Base58Check of a version byte 0 and 20 bytes."""
    payload = b"\0" + random.randbytes(20)
    check = hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    whole = payload + check
    number, text = int.from_bytes(whole), ""
    while number:
        number, rest = divmod(number, 58)
        text = BASE58[rest] + text
    return "1" * (len(whole) - len(whole.lstrip(b"\0"))) + text


IDENTIFIERS: dict[str, Make] = {
    "CREDIT_CARD": make_card,
    "IBAN_CODE": make_iban,
    "CRYPTO": make_bitcoin,
    "MEDICAL_LICENSE": make_dea,
    "US_NPI": make_npi,
    "US_MBI": make_mbi,
    "US_SSN": make_ssn,
    "US_ITIN": make_itin,
    "ABA_ROUTING_NUMBER": make_routing,
    "UK_NHS": make_nhs,
    "UK_NINO": make_nino,
    "CA_SIN": make_sin,
    "AU_TFN": make_mod_11((1, 4, 3, 7, 5, 8, 6, 9, 10), (3,)),
    "DE_TAX_ID": make_tax_id,
    "ES_NIF": make_nif,
    "ES_NIE": make_nie,
    "FI_PERSONAL_IDENTITY_CODE": make_hetu,
    "IN_AADHAAR": make_aadhaar,
    "IT_FISCAL_CODE": make_fiscal_code,
    "KR_RRN": make_rrn,
    "NG_NIN": lambda random: close_verhoeff(digits(random, 10)),
    "PL_PESEL": make_pesel,
    "SE_PERSONNUMMER": make_personnummer,
    "SG_NRIC_FIN": make_nric,
    "TH_TNIN": make_thai,
    "TR_NATIONAL_ID": make_turkish,
    "ZA_ID_NUMBER": make_south_african,
}
