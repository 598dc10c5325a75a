"""Labelled sentences out of templates: templates.txt and negatives.txt filled from vocabulary.txt and the lexicon.

A slot in braces becomes a value; slots of names, places and organisations become spans. Streets with what belongs to
them are ADDRESS inside the model, so that it learns where an address ends; outside it they are LOCATION. Everything
comes from one random generator: equal seeds give equal text.
"""

import random
from pathlib import Path

import regex

from stages.pii.ner.train.corpora import Labelled, Span

FOLDER = Path(__file__).parent
SLOT = regex.compile(r"\{(\w+)\}")
SPAN_TYPES = {
    "person": "PERSON",
    "first": "PERSON",
    "last": "PERSON",
    "lasts": "PERSON",
    "inverted": "PERSON",
    "who": "PERSON",
    "city": "LOCATION",
    "country": "LOCATION",
    "region": "LOCATION",
    "place": "LOCATION",
    "landmark": "LOCATION",
    "address": "ADDRESS",
    "street": "ADDRESS",
    "streetname": "ADDRESS",
    "corner": "ADDRESS",
    "org": "ORGANIZATION",
}
PARTICLES = ("van", "van der", "van den", "de", "de la", "del", "von", "di", "da", "dos", "bin", "al", "El", "Le", "St.")
STATES = (
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA "
    "RI SC SD TN TX UT VT VA WA WV WI WY DC ON BC QC NSW VIC QLD"
).split()
SYLLABLES = "ba be bi bo ca co da de di do el en er fa fi fo ga go in ka ki ko la le li lo lu ma me mi mo na ne no or pa "
SYLLABLES += "per po ra re ri ro sa se si so ta te ti to tra u va ve vi vo xa xi ya yo za zen"
LOWER_SHARE, UPPER_SHARE, JOINED_SHARE = 0.1, 0.03, 0.3  # of the texts
COUNTRIES, STATES_END = 252, 303  # the lexicon's places: countries, then US states, then regions and cities


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


class Generator:
    """Fills slots; `lists` are those of the lexicon."""

    def __init__(self, seed: int, lists: dict[str, list[str]]) -> None:
        self.random = random.Random(seed)
        self.lists = lists
        sections = read_sections(FOLDER / "vocabulary.txt")
        self.vocabulary = {name: "; ".join(lines).split("; ") for name, lines in sections.items()}
        latin = [place for place in lists["place"] if regex.fullmatch(r"[\p{Lu}][\p{L}' -]+", place)]
        self.countries, self.cities = latin[:COUNTRIES], latin[STATES_END:]
        self.regions = [*latin[COUNTRIES:STATES_END], *STATES]
        # The most frequent thousand words are left out, and with them most that are also names.
        names = set(lists["name_words"])
        self.plain_words = [word for word in lists["word"][1000:15000] if word not in names]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def draw(self, entries: list[str], skewed: bool = False) -> str:
        """One of the entries; `skewed`: the first ones more often."""
        share = self.random.random() ** (3 if skewed else 1)
        return entries[int(share * len(entries))]

    def first(self) -> str:
        names = self.lists["first"]
        return self.draw(names[:2000], True) if self.chance(0.45) else self.draw(names)

    def last(self) -> str:
        names = self.lists["family"]
        name = self.draw(names[:5000], True) if self.chance(0.35) else self.draw(names)
        if self.chance(0.4):
            name = self.draw(names[88000:])
        if name.startswith("Mc") and len(name) > 4:
            return "Mc" + name[2:].capitalize()
        return f"O'{name}" if self.chance(0.005) else name

    def letter(self) -> str:
        return self.random.choice("ABCDEFGHIJKLMNOPRSTW")

    def person(self) -> str:
        first, last, kind = self.first(), self.last(), self.random.random()
        if kind < 0.55:
            return f"{first} {last}"
        if kind < 0.67:
            return f"{first} {self.letter()}{'.' if self.chance(0.6) else ''} {last}"
        if kind < 0.71:
            return f"{first} {self.first()} {last}"
        if kind < 0.75:
            return f"{first} {last} {self.last()}"
        if kind < 0.78:
            return f"{first} {last}-{self.last()}"
        if kind < 0.80:
            return f"{first}-{self.first()} {last}"
        if kind < 0.84:
            return f"{first} {self.random.choice(PARTICLES)} {last}"
        if kind < 0.87:
            return f"{self.letter()}. {last}"
        if kind < 0.89:
            return f"{self.letter()}. {self.letter()}. {last}"
        if kind < 0.90:
            return f"{self.letter()}.{self.letter()}. {last}"
        if kind < 0.91:
            return f"{first} {last} {self.random.choice(('Jr.', 'Jr', 'Sr.', 'II', 'III'))}"
        return first if kind < 0.96 else f"{first} {last}"

    def city(self) -> str:
        if self.chance(0.2):
            town = self.fill_value(self.draw(self.vocabulary["town"]))
        else:
            town = self.draw(self.cities, self.chance(0.6))
        return town.upper() if self.chance(0.06) else town

    def corner(self) -> str:
        words = self.random.choice(("the corner of {} and {}", "corner of {} and {}", "{} and {}", "{} & {}", "the corner of {} & {}"))
        one, two = ((self.street if self.chance(0.3) else self.streetname)() for _ in range(2))
        return words.format(one, two)

    def number(self) -> str:
        return str(self.random.randrange(1, 10 ** self.random.randrange(1, 5)))

    def house(self) -> str:
        number = str(self.random.randrange(1, 10 ** self.random.randrange(1, 6)))
        return number + (self.letter().lower() if self.chance(0.05) else "")

    def streetname(self) -> str:
        if self.chance(0.35):
            return self.fill_value(self.draw(self.vocabulary["foreign street"]))
        name = self.fill_value(self.draw(self.vocabulary["street name"]))
        return f"{name} {self.draw(self.vocabulary['street word'])}"

    def street(self) -> str:
        name, house = self.streetname(), self.house()
        kind = self.random.random()
        line = f"{house} {name}" if kind < 0.65 else f"{name} {house}" if kind < 0.9 else f"{name}, {house}"
        if kind < 0.08:
            line += f" {self.number()}"
        if self.chance(0.25):
            line += self.random.choice((" ", ", ")) + self.fill_value(self.draw(self.vocabulary["unit"]))
        return line

    def box(self) -> str:
        """An address line without a street."""
        pattern = self.random.choice(("PO Box {}", "P.O. Box {}", "Box {}", "Postfach {}", "PSC {}, Box 99", "Unit {} Box 9999", "RR {}", "USS", "USCGC"))
        if pattern[-1] != "}" and "{" not in pattern:
            return f"{pattern} {self.last()}"
        return self.digits(pattern.format(self.house()))

    def postcode(self) -> str:
        kind = self.random.random()
        if kind < 0.6:
            return "".join(self.random.choices("0123456789", k=5))
        if kind < 0.8:
            return "".join(self.random.choices("0123456789", k=4))
        if kind < 0.85:
            return f"{self.random.randrange(10000, 99999)}-{self.random.randrange(1000, 9999)}"
        pattern = self.random.choice(("A9 9AA", "AA99 9AA", "A9A 9A9", "999 99", "99-999", "999999", "A-9999"))
        return "".join(
            self.letter() if sign == "A" else str(self.random.randrange(10)) if sign == "9" else sign for sign in pattern
        )

    def address(self) -> str:
        """A street line with some of unit, town, state, postcode and country, on one line or several."""
        if self.chance(0.1):
            return self.street() if self.chance(0.6) else self.corner()
        break_ = self.random.choice((", ", ", ", "\n", "\n", "\n", " , ", ",\n", " ", "\n    ", "\n > ", "\n\n"))
        town, code = self.city(), self.postcode()
        kind = self.random.random()
        if kind < 0.35:
            state = self.random.choice(STATES) if self.chance(0.8) else self.draw(self.regions)
            town = self.random.choice(("APO", "FPO")) if self.chance(0.04) else town
            place = f"{town}, {state} {code}" if self.chance(0.8) else f"{town} {state} {code}"
        elif kind < 0.6:
            place = f"{code} {town}"
        elif kind < 0.75:
            place = f"{town}{self.random.choice((' ', ', ', break_))}{code}"
        elif kind < 0.85:
            place = f"{town}{break_}{self.random.choice(STATES)}{break_}{code}"
        else:
            place = town
        parts = [self.box() if self.chance(0.06) else self.street(), place]
        if self.chance(0.35):
            country = self.draw(self.countries)
            parts.append(country if self.chance(0.85) else f"{country} {self.postcode()}")
        return break_.join(parts)

    def organisation(self) -> str:
        kind = self.random.random()
        if kind < 0.25:
            return self.draw(self.vocabulary["organisation"])
        if kind < 0.4:
            return self.fill_value(self.draw(self.vocabulary["organisation of"]))
        if kind < 0.75:
            return self.fill_value(self.draw(self.vocabulary["organisation alone"]))
        head = self.fill_value(self.draw(self.vocabulary["organisation head"]))
        return head if self.chance(0.15) else f"{head} {self.draw(self.vocabulary['organisation tail'])}"

    def invented(self) -> str:
        name = "".join(self.random.choices(SYLLABLES.split(), k=self.random.randrange(2, 4))).capitalize()
        return name + self.random.choice(("", "", "", "x", "tech", "soft", "net", "ia", "ex", "Corp"))

    def compound(self) -> str:
        """Two words in one, as firms call themselves: Cloudbasket, BlueDesk."""
        one, two = self.draw(self.plain_words, True), self.draw(self.plain_words, True)
        return one.capitalize() + (two.capitalize() if self.chance(0.3) else two)

    def work_title(self) -> str:
        """A film, book or song: common words with capitals; no name."""
        words = [self.draw(self.plain_words, True).capitalize() for _ in range(self.random.randrange(1, 4))]
        return self.compound() if self.chance(0.25) else self.random.choice(("", "", "The ", "A ")) + " ".join(words)

    def who(self) -> str:
        return self.random.choice((self.person, self.first, self.first, self.last))()

    def date(self) -> str:
        day, month, year = self.random.randrange(1, 29), self.draw(self.vocabulary["month"]), self.random.randrange(1930, 2027)
        number = self.random.randrange(1, 13)
        return self.random.choice(
            (f"{month} {day}, {year}", f"{day} {month} {year}", f"{number}/{day}/{year}", f"{year}-{number:02}-{day:02}", f"{month} {day}")
        )

    def digits(self, pattern: str) -> str:
        return "".join(str(self.random.randrange(10)) if sign == "9" else sign for sign in pattern)

    def value(self, slot: str) -> str:
        """A value for a slot; sections of the vocabulary are slots too."""
        match slot:
            case "person" | "first" | "last" | "city" | "street" | "streetname" | "address" | "date" | "invented" | "letter" | "compound" | "who" | "corner":
                return getattr(self, slot)()
            case "lasts":
                return self.last() + "s"
            case "inverted":
                return f"{self.last()}, {self.first()}" + (f" {self.letter()}." if self.chance(0.3) else "")
            case "country":
                return self.draw(self.countries)
            case "region":
                return self.draw(self.regions)
            case "place":
                return self.value(self.random.choice(("city", "country", "region")))
            case "org":
                return self.organisation()
            case "landmark":
                return self.fill_value(self.draw(self.vocabulary["landmark"]))
            case "num":
                return self.number()
            case "age":
                return str(self.random.randrange(1, 99))
            case "year":
                return str(self.random.randrange(1850, 2027))
            case "money":
                return self.random.choice(("$9", "$99.99", "€999", "£9,999", "999 dollars", "$9.9 million")).replace("9", self.number(), 1)
            case "time":
                return f"{self.random.randrange(1, 12)}:{self.random.randrange(10, 60)}{self.random.choice((' pm', ' AM', ''))}"
            case "phone":
                return self.digits(self.random.choice(("(999) 999-9999", "999-999-9999", "+99 99 9999 9999", "999.999.9999", "09999 999999")))
            case "email":
                return f"{self.first()}.{self.last()}@{self.invented()}.com".lower()
            case "url":
                return f"https://www.{self.invented().lower()}.com/{self.number()}"
            case "ip":
                return self.digits("19.99.9.99")
            case "card":
                return self.digits(self.random.choice(("9999 9999 9999 9999", "9999999999999999", "9999-9999-9999-9999")))
            case "iban":
                return self.letter() + self.letter() + self.digits("99999999999999999999")
            case "handle":
                return self.first().lower() + self.number()
            case "code":
                return self.random.choice(("", "get", "set", "is", "my_")) + self.draw(self.plain_words) + self.random.choice(("()", "_", ".py", "Id", "(x)"))
            case "acronym":
                return "".join(self.letter() for _ in range(self.random.randrange(2, 5)))
            case "word":
                return self.draw(self.plain_words)
            case "worktitle":
                return self.work_title()
            case "he":
                return self.random.choice(("he", "she", "they"))
            case "He":
                return self.random.choice(("He", "She", "They"))
            case "his":
                return self.random.choice(("his", "her", "their"))
        if slot.isupper():
            return self.value(slot.lower()).upper()
        if slot[0].isupper():
            value = self.value(slot.lower())
            return value.title() if self.chance(0.5) else value[:1].upper() + value[1:]
        return self.draw(self.vocabulary[slot])

    def fill_value(self, pattern: str) -> str:
        return SLOT.sub(lambda slot: self.value(slot[1]), pattern)

    def fill(self, template: str) -> Labelled:
        """The text of a template and its spans."""
        text = ""
        spans: list[Span] = []
        template = template.replace("\\n", "\n").replace("{{", "\0").replace("}}", "\1")
        position = 0
        for slot in SLOT.finditer(template):
            text += template[position : slot.start()]
            position = slot.end()
            name = slot[1]
            if name in ("tperson", "tlast"):
                text += self.draw(self.vocabulary["title"]) + " "
                name = name[1:]
            value = self.value(name)
            if name == "last" and spans and spans[-1][1:] == (len(text) - 1, "PERSON") and text[-1] == " ":
                spans[-1] = (spans[-1][0], len(text) + len(value), "PERSON")  # {first} {last}: one name
            elif name in SPAN_TYPES:
                spans.append((len(text), len(text) + len(value), SPAN_TYPES[name]))
            text += value
        text = (text + template[position:]).replace("\0", "{").replace("\1", "}")
        return text, spans

    def sentence(self, templates: list[str]) -> Labelled:
        """One text: one template or some joined, now and then in small letters or capitals."""
        text, spans = self.fill(self.draw(templates))
        while self.chance(JOINED_SHARE):
            gap = self.random.choice((" ", " ", "\n", "\n\n"))
            more, more_spans = self.fill(self.draw(templates))
            offset = len(text) + len(gap)
            text += gap + more
            spans += [(start + offset, end + offset, kind) for start, end, kind in more_spans]
        kind = self.random.random()
        changed = text.lower() if kind < LOWER_SHARE else text.upper() if kind < LOWER_SHARE + UPPER_SHARE else text
        return (changed if len(changed) == len(text) else text), spans

    def heading(self) -> Labelled:
        """Common words in Title or UPPER case: no names."""
        words = [self.draw(self.plain_words, True) for _ in range(self.random.randrange(1, 7))]
        if self.chance(0.5):
            words.insert(1, self.random.choice(("of", "and", "in", "the", "for", "with", "to")))
        heading = " ".join(words)
        heading = heading.title() if self.chance(0.6) else heading.upper()
        if self.chance(0.4):
            heading += self.random.choice((":", "\n", ": ")) + " ".join(self.draw(self.plain_words) for _ in range(5))
        return heading, []
