"""Made-up personal data: names, places, telephone numbers, secrets, and the numbers of identifiers.py.

Telephone numbers, addresses and domains are of the ranges kept free for examples (North America 555-01xx, Ofcom's and
ARCEP's numbers for drama, the networks of RFC 5737 and 3849, the domains of RFC 2606). The words are of words.yaml,
written for this: no list of the recognisers that look for them.
"""

import calendar
import string
from functools import cache, partial
from pathlib import Path
from random import Random

from stages.common.params import read_yaml
from stages.probes.identifiers import IDENTIFIERS, Make, digits, fill, in_groups, letters

WORDS = Path(__file__).with_name("words.yaml")
ALPHANUMERIC = string.ascii_letters + string.digits


@cache
def read_words() -> dict[str, list[str]]:
    return read_yaml(WORDS)


def choose_word(kind: str, random: Random) -> str:
    return random.choice(read_words()[kind])


def make_person(random: Random) -> str:
    first, family = choose_word("first", random), choose_word("family", random)
    initial = letters(random, 1)
    forms = (f"{first} {family}",) * 5 + (f"{first} {initial}. {family}", f"{first[0]}. {family}")
    return random.choice(forms)


def make_email(random: Random) -> str:
    first, family = choose_word("first", random).lower(), choose_word("family", random).lower()
    local = random.choice((f"{first}.{family}", f"{first[0]}{family}{digits(random, 2)}", f"{family}_{first}+home"))
    return f"{local}@{random.choice(('example.com', 'example.org', 'box.example.net', 'example.net'))}"


PHONE_FORMS = (
    "(###) 555-01##", "###-555-01##", "+1 ### 555 01##", "###.555.01##", "020 7946 0###", "+44 7700 900###",
    "07700 900###", "+33 1 99 00 ## ##", "+49 30 23125 ###", "+61 491 57# ###", "+353 20 91# ####", "1-###-555-01##",
)  # fmt: skip
AREAS = ("202", "312", "415", "512", "617", "702", "804", "919")


def make_phone(random: Random) -> str:
    form = random.choice(PHONE_FORMS)
    text = form.replace("###", random.choice(AREAS), 1) if "555" in form else form
    return "".join(str(random.randrange(10)) if sign == "#" else sign for sign in text)


def make_ip(random: Random) -> str:
    last, words = random.randrange(1, 255), [f"{random.randrange(1, 2**16):x}" for _ in range(3)]
    return random.choice((f"192.0.2.{last}", f"198.51.100.{last}", f"203.0.113.{last}",
                          f"10.{random.randrange(256)}.{random.randrange(256)}.{last}",
                          f"2001:db8::{':'.join(words)}"))  # fmt: skip


def make_mac(random: Random) -> str:
    return random.choice(":-").join(f"{byte:02x}" for byte in b"\x02" + random.randbytes(5))


def make_birth_date(random: Random) -> str:
    year, month, day = random.randrange(1931, 2016), random.randrange(1, 13), random.randrange(1, 29)
    name = calendar.month_name[month]
    return random.choice((f"{month:02}/{day:02}/{year}", f"{day:02}.{month:02}.{year}", f"{year}-{month:02}-{day:02}",
                          f"{day} {name} {year}", f"{name} {day}, {year}"))  # fmt: skip


def make_address(random: Random) -> str:
    street = f"{random.randrange(2, 4000)} {choose_word('streets', random)} {choose_word('street_types', random)}"
    return street + random.choice(("", "", f", Apt {random.randrange(2, 40)}", f", Unit {random.randrange(2, 9)}B"))


def make_record_number(random: Random) -> str:
    return fill(random.choice(("########", "#######", "@@-######", "0#######")), random)


def make_key(random: Random) -> str:
    """A secret of one of the forms that services publish for their keys."""
    return random.choice((
        "AKIA" + letters(random, 16, string.ascii_uppercase + "234567"), "ghp_" + letters(random, 36, ALPHANUMERIC),
        "AIza" + letters(random, 35, ALPHANUMERIC), "sk_live_" + letters(random, 24, ALPHANUMERIC),
        f"xoxb-{digits(random, 12)}-{digits(random, 12)}-{letters(random, 24, ALPHANUMERIC)}",
        "glpat-" + letters(random, 20, ALPHANUMERIC), "sk-proj-" + letters(random, 48, ALPHANUMERIC),
        "SG." + letters(random, 22, ALPHANUMERIC) + "." + letters(random, 43, ALPHANUMERIC),
    ))  # fmt: skip


def make_password(random: Random) -> str:
    return (
        choose_word("streets", random) + random.choice("!#%&*") + letters(random, 4, ALPHANUMERIC) + digits(random, 2)
    )


def make_uuid(random: Random) -> str:
    text = random.randbytes(16).hex()
    return in_groups(text[:12] + "4" + text[13:16] + "a" + text[17:], (8, 4, 4, 4, 12), "-")


VALUES: dict[str, Make] = {
    "PERSON": make_person,
    "LOCATION": partial(choose_word, "places"),
    "ORGANIZATION": partial(choose_word, "companies"),
    "NRP": partial(choose_word, "groups"),
    "EMAIL_ADDRESS": make_email,
    "PHONE_NUMBER": make_phone,
    "STREET_ADDRESS": make_address,
    "DATE_OF_BIRTH": make_birth_date,
    "IP_ADDRESS": make_ip,
    "MAC_ADDRESS": make_mac,
    "URL": lambda random: f"https://www.example.org/people/{choose_word('family', random).lower()}-{digits(random, 3)}",
    "UUID": make_uuid,
    "API_KEY": make_key,
    "PASSWORD": make_password,
    "MEDICAL_RECORD": make_record_number,
}
MAKE = VALUES | IDENTIFIERS
"""Entity → how its value is made; those that are a form alone stand with their sentences."""
