"""Names of persons from lists and context rules: no model, several 100,000 words a second.

Two lists (first and family names of 60 locales) say what may be a name; two more say which of them are also words (May,
Grace, Mark) or places (Virginia, Jordan). A name counts where two parts agree (first and family name) or where the text
says that a name comes: Mrs, "my name is", "my son", a greeting, a sign-off, a label. A single first name without such a
context stays, so about half of the names in free text are missed. Names found once are found again in the same text.
Names before `syndrome`, `disease`, `University` and the like belong to something else and stay.
"""

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from stages.pii import Finding, contexts
from stages.pii.spelling import fold

LISTS = Path(__file__).parent / "lists"
ENTITY = "PERSON"
SURE, LIKELY = 0.85, 0.6  # scores: two parts of a name, or a title; one part and a context
ANNOUNCING = ("title", "intro", "self", "label", "greeting", "signoff")  # contexts after which a name is sure to come
MOST_BETWEEN = 3  # initials and particles between the two words of a pair: J. R. van der Berg
MORE_WORDS = 2  # words that a name may have beside its first two


class Token(NamedTuple):
    """A part of a run of words with capitals: where it stands, and what the lists know of it."""

    start: int
    end: int
    kind: str  # word | initial | particle
    first: bool
    family: bool
    common: bool  # also a word
    place: bool  # also a place
    capitals: bool  # nothing but capitals
    folded: str

    @property
    def known(self) -> bool:
        return self.first or self.family

    @property
    def strong_first(self) -> bool:
        return self.first and not self.common and not self.place

    @property
    def strong_family(self) -> bool:
        return self.family and not self.common

    @property
    def unknown(self) -> bool:
        """On no list, and looks like a name."""
        listed = self.known or self.common or self.place
        return self.kind == "word" and not listed and not self.capitals and len(self.folded) > 2


@cache
def load_list(name: str) -> frozenset[str]:
    """first, family, words or places, folded."""
    return frozenset((LISTS / f"{name}.txt").read_text(encoding="utf-8").split())


@lru_cache(100_000)
def look_up(word: str) -> tuple[bool, bool, bool, bool, bool, str]:
    """The fields `first` to `folded` of a word's Token."""
    folded = fold(word)
    capitals = len(word) > 1 and word.isupper()
    if contexts.INNER_CAPITAL.search(word) or (capitals and len(word) < 4):
        return False, False, True, False, capitals, folded
    whole = folded in load_list("first") or folded in load_list("family")
    parts = [folded] if whole else folded.split("-")
    first, family, common, place = (
        all(part in load_list(name) for part in parts) for name in ("first", "family", "words", "places")
    )
    spoken = len(parts) > 1 and any(part[:1].islower() for part in word.split("-"))  # Who-knows-what
    return first, family, common or spoken, place, capitals, folded


def read_token(start: int, end: int, kind: str, text: str) -> Token:
    if kind == "word":
        return Token(start, end, kind, *look_up(text))
    return Token(start, end, kind, False, False, False, False, False, fold(text))


def tokens_of(run: Any) -> list[Token]:
    """The tokens of a match of contexts.RUN."""
    offset = run.start()
    return [
        read_token(offset + found.start(), offset + found.end(), found.lastgroup or "word", found[0])
        for found in contexts.TOKEN.finditer(run[0])
    ]


def next_word(tokens: list[Token], index: int) -> int:
    """Index of the word after `index`, past initials and particles; len(tokens) where there is none."""
    index += 1
    while index < len(tokens) and tokens[index].kind != "word":
        index += 1
    return index


def score_pair(token: Token, other: Token) -> float:
    """How sure `token other` is a first and a family name; 0 where it is not."""
    if contexts.LANDSCAPE.fullmatch(other.folded):
        return 0.0
    if token.kind == "initial":
        # "A Doppler", "I Miller"
        return LIKELY if other.strong_family and len(other.folded) > 2 and token.folded not in ("a", "i") else 0.0
    if token.capitals != other.capitals or (token.capitals and (token.common or other.common)):
        return 0.0
    if token.strong_first:
        if other.strong_family or (other.known and not other.place):
            return SURE
        return LIKELY if other.unknown else 0.0
    if token.first and other.strong_family and not (token.place and other.place):
        return SURE
    if other.strong_family and token.unknown:
        return LIKELY
    return LIKELY if token.strong_family and other.strong_first else 0.0


def match_pair(tokens: list[Token], index: int) -> tuple[int, float]:
    """Index after the pair of words that begins at `index` and is a name, and its score; (index, 0) for none."""
    second = next_word(tokens, index)
    if tokens[index].kind == "particle" or second == len(tokens) or second - index > MOST_BETWEEN + 1:
        return index, 0.0
    score = score_pair(tokens[index], tokens[second])
    third = next_word(tokens, second)
    if tokens[index].unknown and third < len(tokens) and score_pair(tokens[second], tokens[third]) >= score:
        return index, 0.0  # "Does Tomas Lindqvist": the name begins one word later
    return (second + 1, score) if score else (index, 0.0)


def extend_name(tokens: list[Token], end: int, announced: bool) -> int:
    """Index after the further words of a name whose first words end before `end`; words on no list count after words
    that are on one, and in a name that was `announced`."""
    for _ in range(MORE_WORDS):
        following = next_word(tokens, end - 1)
        if following == len(tokens):
            break
        token = tokens[following]
        follows_name = announced or tokens[end - 1].known or tokens[end - 1].kind == "initial"
        if token.common or not (token.known or (token.unknown and follows_name)):
            break
        end = following + 1
    return end


def context_before(text: str, start: int) -> str | None:
    """Kind of the context that ends at `start`, where a name may begin."""
    words = text[max(0, start - 24) : start].lower().rstrip(contexts.PUNCTUATION).rsplit(maxsplit=2)
    last = words[-1].lstrip(contexts.PUNCTUATION) if words else ""
    if (
        last not in contexts.ENDS
        and (len(words) < 2 or f"{words[-2].lstrip(contexts.PUNCTUATION)} {last}" not in contexts.ENDS)
        and text[max(0, start - 2) : start].strip()[-1:] not in contexts.DASHES
    ):
        return None
    found = contexts.BEFORE.search(text, max(0, start - contexts.LENGTH), start)
    return found.lastgroup if found else None


def score_in_context(token: Token, kind: str | None, text: str, run_end: int) -> float:
    """How sure `token` begins a name, by the kind of context before it and by what stands after it."""
    if token.kind == "particle" or (not token.known and (token.common or token.capitals)):
        return 0.0
    score = 0.0
    match kind:
        case "title":
            score = SURE if token.kind == "initial" or token.known or token.unknown else 0.0
        case "intro":
            score = SURE if token.known or token.unknown else 0.0
        case "label":
            score = SURE if token.known else LIKELY if token.unknown else 0.0
        case "rank" | "relative" | "known":
            score = LIKELY if token.first or token.strong_family else 0.0
        case "verb":
            score = LIKELY if token.strong_first else 0.0
        case "self":
            pair = token.unknown and "\n" not in text[token.end : run_end] and run_end > token.end
            score = LIKELY if (token.strong_first or pair) and contexts.NAME_ENDS.match(text, run_end) else 0.0
        case "soft":
            score = LIKELY if token.strong_first and contexts.NAME_ENDS.match(text, token.end) else 0.0
        case "greeting":
            clear = token.first or token.strong_family
            score = LIKELY if clear and contexts.NAME_ENDS.match(text, token.end) else 0.0
            if token.unknown and contexts.LINE_ENDS.match(text, run_end):  # "Thank you,\nTevita Zzyx"
                score = LIKELY
        case "dash":
            clear = token.first or token.strong_family
            score = LIKELY if clear and not token.common and contexts.LINE_ENDS.match(text, run_end) else 0.0
        case "signoff":
            score = LIKELY if not token.common and contexts.LINE_ENDS.match(text, run_end) else 0.0
    if not score and token.first and contexts.HERE.match(text, run_end):
        score = LIKELY
    if not score and token.strong_first and not token.capitals and contexts.AFTER.match(text, token.end):
        score = LIKELY
    return score


def is_thing(name: list[Token], text: str) -> bool:
    """Whether a pair after `the` is no person, since its second word is also a word."""
    return name[-1].common and text[max(0, name[0].start - 4) : name[0].start].lower() == "the "


def belongs_to_thing(start: int, end: int, text: str, whole: bool) -> bool:
    """Whether a name is part of the name of a disease, a test, a place or a company: Addison's disease; not, as it is
    a `whole` name, Anna Miller's disease."""
    if whole and text[end : end + 1] in ("'", "’"):
        return False
    before = contexts.PLACE_BEFORE.search(text, max(0, start - 16), start)
    return before is not None or contexts.EPONYM.match(text, end) is not None


def find_names(text: str) -> list[Finding]:
    """Names of persons in `text`, in order, without overlaps; titles stay outside."""
    findings: list[Finding] = []
    alone: list[Token] = []
    parts: set[str] = set()
    for run in contexts.RUN.finditer(text):
        tokens = tokens_of(run)
        index = 0
        while index < len(tokens):
            token, kind = tokens[index], context_before(text, tokens[index].start)
            end, pair = match_pair(tokens, index)
            in_context = score_in_context(token, kind, text, run.end())
            score = max(pair, in_context)
            if not score:
                alone.append(token)
                index += 1
                continue
            end = extend_name(tokens, max(end, index + 1), kind in ANNOUNCING)
            last = tokens[end - 1].end
            if tokens[end - 1].kind == "initial" or (not in_context and is_thing(tokens[index:end], text)):
                index = end  # "Mrs. G."; "the Rosetta Stone"
                continue
            if kind in ("title", "intro") or not belongs_to_thing(token.start, last, text, pair >= SURE):
                findings.append(Finding(token.start, last, ENTITY, score))
                parts |= {part.folded for part in tokens[index:end] if part.kind == "word" and not part.common}
            index = end
    for token in alone:
        if (
            token.folded in parts
            and len(token.folded) > 2
            and not belongs_to_thing(token.start, token.end, text, False)
        ):
            findings.append(Finding(token.start, token.end, ENTITY, LIKELY))
    for found in contexts.SMALL_LETTERS.finditer(text):
        if read_token(0, 0, "word", found["first"]).strong_first:
            last_group = "family" if read_token(0, 0, "word", found["family"] or "").strong_family else "first"
            findings.append(Finding(found.start("first"), found.end(last_group), ENTITY, SURE))
    return sorted(findings)
