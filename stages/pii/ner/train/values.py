"""Values for the slots of templates: names, addresses, organisations, and what stands around them.

All come from the lexicon's lists, from vocabulary.txt and from one random generator.
"""

import random
from pathlib import Path

import regex

FOLDER = Path(__file__).parent
SLOT = regex.compile(r"\{(\w+)\}")
COUNTRIES, STATES_END = 252, 303  # the lexicon's places: countries, then US states, then regions and cities
CENSUS_END = 88_000  # the lexicon's family names: those of the US census, then those of other countries
PATTERNS = ("phone", "money", "card", "ip", "iban", "postcode", "time")
"""Sections of the vocabulary in which 9 stands for any digit and A for any capital."""


def read_sections(path: Path) -> dict[str, list[str]]:
    """Heading without # → its lines."""
    sections: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            name = line[2:]
        elif line:
            sections.setdefault(name, []).append(line)
    return sections


class Values:
    """Draws values; `lists` are those of the lexicon, with `name_words`: the common words that are names too."""

    def __init__(self, seed: int, lists: dict[str, list[str]]) -> None:
        self.random = random.Random(seed)
        self.firsts, self.families = lists["first"], lists["family"]
        sections = read_sections(FOLDER / "vocabulary.txt")
        self.vocabulary = {name: "; ".join(lines).split("; ") for name, lines in sections.items()}
        latin = [place for place in lists["place"] if regex.fullmatch(r"[\p{Lu}][\p{L}' -]+", place)]
        self.countries, self.cities = latin[:COUNTRIES], latin[STATES_END:]
        self.regions = [*latin[COUNTRIES:STATES_END], *self.vocabulary["state"]]
        names = set(lists["name_words"])
        # Not the thousand most frequent words: many of them are names that no list has (will, may, us).
        self.plain_words = [word for word in lists["word"][1000:15000] if word not in names]
        self.rare_words = [word for word in lists["word"][15000:] if word not in names]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def draw(self, entries: list[str], skewed: bool = False) -> str:
        """One of the entries; `skewed`: the first ones more often."""
        share = self.random.random() ** (3 if skewed else 1)
        return entries[int(share * len(entries))]

    def drawn(self, section: str) -> str:
        """An entry of a section of the vocabulary with its slots filled."""
        entry = self.draw(self.vocabulary[section])
        if section in PATTERNS:
            return regex.sub("[9A]", lambda sign: self.letter() if sign[0] == "A" else self.digit(), entry)
        return SLOT.sub(lambda slot: self.value(slot[1]), entry)

    def letter(self) -> str:
        return self.random.choice("ABCDEFGHIJKLMNOPRSTW")

    def digit(self) -> str:
        return str(self.random.randrange(10))

    def number(self, most_digits: int = 4) -> str:
        return str(self.random.randrange(1, 10 ** self.random.randrange(1, most_digits + 1)))

    def value(self, slot: str) -> str:
        """A value for a slot: a method of that name, else a section of the vocabulary; in capitals if the slot is."""
        if slot.isupper():
            return self.value(slot.lower()).upper()
        if slot[0].isupper():
            value = self.value(slot.lower())
            return value.title() if self.chance(0.5) else value[:1].upper() + value[1:]
        return getattr(self, slot)() if hasattr(Values, slot) else self.drawn(slot)

    def first(self) -> str:
        return self.draw(self.firsts[:2000], True) if self.chance(0.45) else self.draw(self.firsts)

    def last(self) -> str:
        kind = self.random.random()
        if kind < 0.4:
            name = self.draw(self.families[CENSUS_END:])
        else:
            name = self.draw(self.families[:5000], True) if kind < 0.6 else self.draw(self.families)
        if name.startswith("Mc") and len(name) > 4:
            return "Mc" + name[2:].capitalize()
        return f"O'{name}" if self.chance(0.005) else name

    def lasts(self) -> str:
        return self.last() + "s"

    def inverted(self) -> str:
        return f"{self.last()}, {self.first()}" + (f" {self.letter()}." if self.chance(0.3) else "")

    def person(self) -> str:
        return self.drawn("person form")

    def initial(self) -> str:
        return self.letter() + ("." if self.chance(0.7) else "")

    def who(self) -> str:
        return self.random.choice((self.person, self.first, self.first, self.last))()

    def country(self) -> str:
        return self.draw(self.countries)

    def region(self) -> str:
        return self.draw(self.regions)

    def place(self) -> str:
        return self.random.choice((self.city, self.country, self.region))()

    def city(self) -> str:
        town = self.drawn("town") if self.chance(0.2) else self.draw(self.cities, self.chance(0.6))
        return town.upper() if self.chance(0.06) else town

    def streetname(self) -> str:
        if self.chance(0.35):
            return self.drawn("foreign street")
        name = self.who() if self.chance(0.35) else self.drawn("street name")
        return f"{name} {self.drawn('street word')}"

    def house(self) -> str:
        return self.number(5) + (self.letter().lower() if self.chance(0.05) else "")

    def street(self) -> str:
        name, house = self.streetname(), self.house()
        kind = self.random.random()
        line = f"{house} {name}" if kind < 0.65 else f"{name} {house}" if kind < 0.9 else f"{name}, {house}"
        if kind < 0.08:
            line += f" {self.number()}"
        if self.chance(0.25):
            line += self.random.choice((" ", ", ")) + self.drawn("unit")
        return line

    def corner(self) -> str:
        words = self.random.choice(("the corner of {} and {}", "the corner of {} and {}", "{} and {}", "{} & {}"))
        first = self.who() if self.chance(0.12) else (self.street if self.chance(0.45) else self.streetname)()
        return words.format(first, (self.street if self.chance(0.45) else self.streetname)())

    def address(self) -> str:
        """A street line with some of unit, town, state, postcode and country, on one line or several."""
        if self.chance(0.1):
            return self.street() if self.chance(0.4) else self.corner()
        gap = self.random.choice((", ", ", ", "\n", "\n", "\n", " , ", ",\n", " ", "\n    ", "\n > ", "\n\n"))
        town, code, state = self.city(), self.drawn("postcode"), self.drawn("state")
        kind = self.random.random()
        if kind < 0.35:
            town = self.random.choice(("APO", "FPO")) if self.chance(0.04) else town
            state = state if self.chance(0.8) else self.region()
            place = f"{town}{', ' if self.chance(0.8) else ' '}{state} {code}"
        elif kind < 0.6:
            place = f"{code} {town}"
        elif kind < 0.75:
            place = f"{town}{self.random.choice((' ', ', ', gap))}{code}"
        elif kind < 0.85:
            place = f"{town}{gap}{state}{gap}{code}"
        else:
            place = town
        parts = [self.drawn("box") if self.chance(0.06) else self.street(), place]
        if self.chance(0.35):
            parts.append(self.country() + ("" if self.chance(0.85) else f" {self.drawn('postcode')}"))
        return gap.join(parts)

    def org(self) -> str:
        kind = self.random.random()
        if kind < 0.75:
            names = "organisation" if kind < 0.25 else "organisation of" if kind < 0.4 else "organisation alone"
            return self.drawn(names)
        head = self.drawn("organisation head")
        return head if self.chance(0.15) else f"{head} {self.drawn('organisation tail')}"

    def invented(self) -> str:
        name = "".join(self.random.choices(self.vocabulary["syllable"], k=self.random.randrange(2, 4))).capitalize()
        return name + self.random.choice(("", "", "", "x", "tech", "soft", "net", "ia", "ex", "Corp"))

    def compound(self) -> str:
        """Two words in one, as firms call themselves: Cloudbasket, BlueDesk."""
        one, two = self.draw(self.plain_words, True), self.draw(self.plain_words, True)
        return one.capitalize() + (two.capitalize() if self.chance(0.3) else two)

    def worktitle(self) -> str:
        """A film, book or song: common words with capitals; no name."""
        words = [self.draw(self.plain_words, True).capitalize() for _ in range(self.random.randrange(1, 4))]
        return self.compound() if self.chance(0.25) else self.random.choice(("", "", "The ", "A ")) + " ".join(words)

    def word(self) -> str:
        return self.draw(self.plain_words)

    def rare(self) -> str:
        return self.draw(self.rare_words)

    def acronym(self) -> str:
        return "".join(self.letter() for _ in range(self.random.randrange(2, 5)))

    def num(self) -> str:
        return self.number()

    def age(self) -> str:
        return str(self.random.randrange(1, 99))

    def year(self) -> str:
        return str(self.random.randrange(1850, 2027))

    def date(self) -> str:
        day, month, year = self.random.randrange(1, 29), self.drawn("month"), self.year()
        number = self.random.randrange(1, 13)
        forms = (f"{month} {day}, {year}", f"{day} {month} {year}", f"{number}/{day}/{year}", f"{month} {day}")
        return self.random.choice((*forms, f"{year}-{number:02}-{day:02}"))

    def email(self) -> str:
        return f"{self.first()}.{self.last()}@{self.invented()}.com".lower()

    def url(self) -> str:
        return f"https://www.{self.invented().lower()}.com/{self.number()}"

    def handle(self) -> str:
        return self.first().lower() + self.number()

    def code(self) -> str:
        ends = ("()", "_", ".py", "Id", "(x)")
        return self.random.choice(("", "get", "set", "is", "my_")) + self.word() + self.random.choice(ends)
