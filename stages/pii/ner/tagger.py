"""Finds names in a text with the trained CRF: spans with probabilities, the same for the same text always.

The model gives each word the probability of being no name at all; below 1 - THRESHOLD it is one, of the likeliest type.
Then rules: an address is joined from its lines; names of diseases (Down syndrome) and ranks (the Queen Mother) stay;
the corner of two streets is no person, nor are the partners of a firm; a person found once is found again; an account
named after a person (@margaretpeterson) is one; and what the rules of stages/pii/names.py find beside it is added.
"""

import lzma
from functools import cache
from pathlib import Path

import pycrfsuite
import regex

from stages.pii import Finding
from stages.pii.names import find_names
from stages.pii.ner.features import Lexicon, features_of, load_lexicon
from stages.pii.ner.text import Token, pieces_of, tokens_of
from stages.pii.spelling import fold

MODEL = Path(__file__).parent / "model.crfsuite.xz"
LABELS = {"PERSON": "PER", "LOCATION": "LOC", "ORGANIZATION": "ORG", "ADDRESS": "ADR"}
"""Type → its name inside the model's labels (B-PER, I-PER)."""
THRESHOLD = 0.55  # of the probability of being a name; chosen on development text (scores.json)
REPEATED = 0.9  # probability from which a person's name is looked for in the rest of the text

TITLE = regex.compile(r"(?:mr|mrs|ms|miss|dr|prof|sir|madam)\.?", regex.IGNORECASE)
EPONYM = regex.compile(
    r"""(?:[-–\s]\p{Lu}[\w.]*){0,3}(?:['’]s?)?[-\s](?i:(?:[\w-]+\s)?(?:syndromes?|diseases?|disorders?|anomal(?:y|ies)
    |malformations?|deformity|phenomenon|signs?|palsy|dystrophy|myopathy|neuropathy|an(?:a)?emia|ataxia|chorea|dementia
    |lymphomas?|sarcomas?|tumou?rs?|carcinoma|esophagus|arteritis|thyroiditis|sequence|catheter|ring|cysts?|bod(?:y|ies)
    |cells?|gland|duct|ligament|reflex|tests?|scale|score|index|procedure|maneuver|method|criteria|law|theorem|equation
    |effect|constant|virus))\b""",
    regex.VERBOSE,
)
RANK = regex.compile(
    r"(?<=\bthe )(?:king|queen|prince|princess|duke|duchess|emperor|empress|earl|count|countess|lord|lady)\s\p{L}+",
    regex.IGNORECASE,
)
NAME = r"[\p{L}\p{M}][\p{L}\p{M}'’-]+"
FIRM = regex.compile(rf"(?:^|(?<=[.!?\n]\s*)){NAME}(?:, {NAME}){{1,3}},? (?:and|&) {NAME}(?= (?:is|was|has|does)\b)")
"""Several names that begin a sentence whose verb is in the singular: the firm of that name."""
CORNER = regex.compile(r"(?i:\bcorner of )[^\n;!?]{1,60} (?:and|&) $")
BETWEEN_LINES = regex.compile(r"[\s,>|?.-]{1,12}")  # what may stand between two parts of an address
POSTCODE = regex.compile(r"[\s,>|]{1,8}(?:[A-Z]{2}[\s,]{1,3})?\d{4,6}(?:-\d{4})?(?![\w/.-]*\d)")


class Tagger:
    """A model with its lists. Not for threads: CRFsuite keeps the text that it works on."""

    def __init__(self, model: bytes, lexicon: Lexicon) -> None:
        self.model, self.lexicon = pycrfsuite.Tagger(), lexicon
        self.bytes = model  # open_inmemory does not copy them
        self.model.open_inmemory(model)
        known = set(self.model.labels())
        self.labels = {
            kind: [f"{part}-{label}" if f"{part}-{label}" in known else "" for part in "BI"]
            for kind, label in LABELS.items()
        }

    def find(self, text: str) -> list[Finding]:
        """Names in `text` by position, without overlaps; LOCATION holds addresses too."""
        tokens = tokens_of(text)
        findings = [found for piece in pieces_of(tokens) for found in self.tag(piece)]
        findings = join_addresses(findings, text)
        findings = [found for found in findings if not (is_eponym(found, text) or is_title(found, text))]
        findings = join_firms([turn_corner(found, text) for found in findings], text)
        findings = add_apart(findings, [found for found in find_names(text) if not is_eponym(found, text)])
        findings = add_apart(findings, self.find_again(findings, tokens, text))
        return add_apart(findings, [account for token in tokens for account in self.read_account(token)])

    def tag(self, tokens: list[Token]) -> list[Finding]:
        """What the model finds in one piece of a text."""
        self.model.set(pycrfsuite.ItemSequence(features_of(tokens, self.lexicon)))
        findings: list[Finding] = []
        last = -2
        for index, token in enumerate(tokens):
            named = 1 - self.model.marginal("O", index)
            if named < THRESHOLD:
                continue
            kind, begins = self.type_of(index)
            goes_on = last == index - 1 and findings[-1].entity == kind and not begins
            if goes_on and not (token.newline and kind == "PERSON"):
                findings[-1] = findings[-1]._replace(end=token.end, score=max(findings[-1].score, named))
            else:
                findings.append(Finding(token.start, token.end, kind, named))
            last = index
        return findings

    def type_of(self, index: int) -> tuple[str, bool]:
        """The likeliest type of a word, and whether a name begins with it."""
        shares = {
            kind: [self.model.marginal(label, index) if label else 0.0 for label in labels]
            for kind, labels in self.labels.items()
        }
        address = shares.pop("ADDRESS")
        shares["LOCATION"] = [one + other for one, other in zip(shares["LOCATION"], address, strict=True)]
        kind = max(shares, key=lambda kind: sum(shares[kind]))
        return kind, shares[kind][0] > shares[kind][1]

    def find_again(self, findings: list[Finding], tokens: list[Token], text: str) -> list[Finding]:
        """The words of surely found full names where they stand once more, with a capital and no common words."""
        words = {
            token.text
            for found in findings
            if found.entity == "PERSON" and found.score >= REPEATED and " " in text[found.start : found.end]
            for token in tokens_of(text[found.start : found.end])
            if len(token.text) > 2 and token.text[0].isupper() and not self.is_common(token.text)
        }
        again = [Finding(token.start, token.end, "PERSON", REPEATED) for token in tokens if token.text in words]
        return [found for found in again if not is_eponym(found, text)]

    def read_account(self, token: Token) -> list[Finding]:
        """A person where the name of an account is a frequent first name and a family name that is no common word.

        Of 299 such accounts in the tweets for training (Broad Twitter Corpus b, g, h) 291 are labelled as persons. With
        every first name or common words it would be 95 in 100 too, but code has @validator and @ManyToOne.
        """
        name = fold(token.text[1:]).replace("_", "").rstrip("0123456789")
        if token.text[0] != "@" or not any(
            self.lexicon.first.get(name[:cut]) == "2"
            and name[cut:] in self.lexicon.family
            and self.lexicon.words.get(name[cut:], "") < "3"
            for cut in range(3, len(name) - 2)
        ):
            return []
        return [Finding(token.start + 1, token.end, "PERSON", REPEATED)]

    def is_common(self, word: str) -> bool:
        low = fold(word)
        return low in self.lexicon.words or low in self.lexicon.lower or low in self.lexicon.places


def add_apart(findings: list[Finding], more: list[Finding]) -> list[Finding]:
    """`findings`, and those of `more` that touch none of them, by position."""
    taken = {place for found in findings for place in range(found.start, found.end)}
    return sorted([*findings, *(found for found in more if taken.isdisjoint(range(found.start, found.end)))])


def is_eponym(found: Finding, text: str) -> bool:
    """Whether a person's name of one word is the name of a disease, a sign or a law."""
    return found.entity == "PERSON" and " " not in text[found.start : found.end] and bool(EPONYM.match(text, found.end))


def is_title(found: Finding, text: str) -> bool:
    """Whether a person's name is a title alone: Mrs, or after `the` a rank and a word (the Queen Mother)."""
    return found.entity == "PERSON" and any(title.fullmatch(text, found.start, found.end) for title in (TITLE, RANK))


def turn_corner(found: Finding, text: str) -> Finding:
    """What follows `the corner of Oak Street and` is a street, whatever its name."""
    if found.entity == "PERSON" and CORNER.search(text, max(0, found.start - 90), found.start):
        return found._replace(entity="LOCATION")
    return found


def join_firms(findings: list[Finding], text: str) -> list[Finding]:
    """The partners in the name of a firm, found one by one, become one organisation."""
    for firm in FIRM.finditer(text):
        parts = [found for found in findings if found.start < firm.end() and found.end > firm.start()]
        if parts and all(firm.start() <= found.start and found.end <= firm.end() for found in parts):
            whole = Finding(firm.start(), firm.end(), "ORGANIZATION", max(found.score for found in parts))
            findings = add_apart([whole], [found for found in findings if found not in parts])
    return findings


def join_addresses(findings: list[Finding], text: str) -> list[Finding]:
    """Locations that follow each other after a line with a number become one, and take the postcode after them."""
    joined: list[Finding] = []
    for found in findings:
        before = joined[-1] if joined else None
        if (
            before
            and before.entity == found.entity == "LOCATION"
            and any(sign.isdigit() for sign in text[before.start : before.end])
            and BETWEEN_LINES.fullmatch(text, before.end, found.start)
        ):
            joined[-1] = before._replace(end=found.end, score=max(before.score, found.score))
        else:
            joined.append(found)
    for index, found in enumerate(joined):
        limit = joined[index + 1].start if index + 1 < len(joined) else len(text)
        if found.entity == "LOCATION" and any(sign.isdigit() for sign in text[found.start : found.end]):
            code = POSTCODE.match(text, found.end)
            if code and code.end() <= limit:
                joined[index] = found._replace(end=code.end())
    return joined


@cache
def load_tagger() -> Tagger:
    return Tagger(lzma.decompress(MODEL.read_bytes()), load_lexicon())
