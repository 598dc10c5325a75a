"""Labelled sentences out of templates: templates.txt and negatives.txt filled with values.

A slot in braces becomes a value; slots of names, places and organisations become spans. Streets with what belongs to
them are ADDRESS inside the model, so that it learns where an address ends; outside it they are LOCATION. Everything
comes from one random generator: equal seeds give equal text.
"""

from stages.pii.ner.train.corpora import Labelled, Span
from stages.pii.ner.train.values import SLOT, Values

SPAN_TYPES = {
    **dict.fromkeys(("person", "first", "last", "lasts", "inverted", "who"), "PERSON"),
    **dict.fromkeys(("city", "country", "region", "place", "landmark"), "LOCATION"),
    **dict.fromkeys(("address", "street", "streetname", "corner"), "ADDRESS"),
    "org": "ORGANIZATION",
}
LOWER_SHARE, UPPER_SHARE, JOINED_SHARE = 0.1, 0.03, 0.3  # of the texts


class Generator(Values):
    """Fills templates."""

    def fill(self, template: str) -> Labelled:
        """The text of a template and its spans; {tperson} and {tlast} have a title before the span."""
        text = ""
        spans: list[Span] = []
        template = template.replace("\\n", "\n").replace("{{", "\0").replace("}}", "\1")
        position = 0
        for slot in SLOT.finditer(template):
            text += template[position : slot.start()]
            position = slot.end()
            name = slot[1]
            if name in ("tperson", "tlast"):
                text += self.drawn("title") + " "
                name = name[1:]
            value = self.value(name)
            if name == "last" and spans and spans[-1][1:] == (len(text) - 1, "PERSON") and text[-1] == " ":
                spans[-1] = (spans[-1][0], len(text) + len(value), "PERSON")  # {first} {last}: one name
            elif name in SPAN_TYPES:
                spans.append((len(text), len(text) + len(value), SPAN_TYPES[name]))
            text += value
        return (text + template[position:]).replace("\0", "{").replace("\1", "}"), spans

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
            heading += self.random.choice((":", "\n", ": ")) + " ".join(self.word() for _ in range(5))
        return heading, []
