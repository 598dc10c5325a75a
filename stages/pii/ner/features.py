"""What the model is told of each word: the word, its form, what the lists know of it, and its neighbours.

Everything that depends on one word alone is worked out once per word and kept; a token's features are then joined from
those of five neighbouring words. Lists (lexicon.txt.xz, made by train/compile_lexicon.py): first and family names,
places, common words by frequency.
"""

import lzma
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from stages.pii.ner.text import Token
from stages.pii.spelling import fold

LEXICON = Path(__file__).parent / "lexicon.txt.xz"
KEPT_WORDS = 100_000  # words whose features are kept; about 150 MB when full of different words
WORD_BANDS = ((500, "4"), (3000, "3"), (12000, "2"), (10**9, "1"))  # ranks of common words


class Known(NamedTuple):
    """What stands for one word: its forms, and the features it gives to itself and to its neighbours."""

    low: str
    kind: str  # case and lists in short
    place_begins: bool
    own: list[str]
    next: list[str]  # what it tells the word before it, as that one's next word
    second_next: list[str]
    previous: list[str]
    second_previous: list[str]


def shape_of(word: str) -> str:
    """The form of a word: McDonald → XxXx, B12 → Xd, 80203 → d5."""
    if word.isdigit():
        return f"d{min(len(word), 7)}"
    signs: list[str] = []
    for sign in word:
        form = "X" if sign.isupper() else "x" if sign.isalpha() else "d" if sign.isdigit() else sign
        if not signs or signs[-1] != form:
            signs.append(form)
    return "".join(signs[:6])


def case_of(word: str) -> str:
    """t Title, u UPPER, l lower, i one capital, I initial with point, m miXed, d digits, a alphanumeric, p sign."""
    if word.isalpha():
        if word.islower():
            return "l"
        if len(word) == 1:
            return "i"
        return "t" if word[0].isupper() and word[1:].islower() else "u" if word.isupper() else "m"
    if word.isdigit():
        return "d"
    if not any(sign.isalnum() for sign in word):
        return "p"
    if word[-1] == ".":
        return "I" if len(word) == 2 else "A"
    if word[0] in "@#" or "@" in word or "://" in word:
        return "h"
    if any(sign.isdigit() for sign in word):
        return "a"
    return "t" if word[0].isupper() and not word.isupper() else "u" if word.isupper() else "l"


class Lexicon:
    """The lists, by folded word. `dropped` names words of which the lists shall know nothing but that they are common
    (training leaves some names out, so that the model does not rest on the lists alone)."""

    def __init__(self, lists: dict[str, list[str]], dropped: frozenset[str] = frozenset()) -> None:
        self.first = _bands(lists["first"], 3000, dropped)
        self.family = _bands(lists["family"], 12000, dropped)
        self.words = {fold(word): _band(rank) for rank, word in reversed(list(enumerate(lists["word"])))}
        self.lower = frozenset(lists["lower"])
        places = [fold(place) for place in lists["place"]]
        self.places = {place for place in places if " " not in place and place not in dropped}
        self.phrases = {place for place in places if " " in place}
        self.beginnings = {
            " ".join(words[:end]) for words in map(str.split, self.phrases) for end in range(1, len(words))
        }
        self.kept: dict[str, Known] = {}

    def known(self, word: str, caseless: str) -> Known:
        found = self.kept.get(word + caseless)
        if found is None:
            if len(self.kept) >= KEPT_WORDS:
                self.kept.clear()
            found = self.kept[word + caseless] = self.describe(word, caseless)
        return found

    def describe(self, word: str, caseless: str) -> Known:
        """`caseless`: a sign for words of a line in capitals, or of a text in small letters; else nothing."""
        low, case = fold(word), case_of(word) + caseless
        first, family, common = self.first.get(low, ""), self.family.get(low, ""), self.words.get(low, "")
        lower, place = "w" if low in self.lower else "", "P" if low in self.places else ""
        short = (
            case
            + ("F" if first else "")
            + ("L" if family else "")
            + place
            + ("W" if common > "1" else "w" if common or lower else "")
        )
        lists = f"{first}.{family}.{common}{lower}{place}"
        own = [f"w={low}", f"s={shape_of(word)}", f"l={lists}", f"k={short}", f"c={case}", f"kl={case}{lists}"]
        if low.isalpha() and len(low) > 2:
            own += [f"2={low[-2:]}", f"3={low[-3:]}", f"4={low[-4:]}", f"{case}3={low[-3:]}", f"b={low[:3]}"]
        if case[0] in "tum" and not common and self.is_compound(low):
            own.append(f"{case[0]}words")
        return Known(
            low,
            short,
            low in self.beginnings and case[0] != "l",
            own,
            [f"+w={low}", f"+k={short}", f"+s={shape_of(word)}"],
            [f"++w={low}", f"++k={short}"],
            [f"-w={low}", f"-k={short}", f"-3={low[-3:]}"],
            [f"--w={low}", f"--k={short}"],
        )

    def is_compound(self, low: str) -> bool:
        """Whether a word is two frequent words in one: Cloudbasket."""
        return any(
            self.words.get(low[:cut], "") > "1" and self.words.get(low[cut:], "") > "1"
            for cut in range(3, len(low) - 2)
        )

    def length_of_place(self, words: Sequence[Known], index: int) -> int:
        """How many words from `index` on are a place of several words (New York City); 0 for none."""
        phrase, length = words[index].low, 0
        for end in range(index + 1, min(index + 5, len(words))):
            phrase = f"{phrase} {words[end].low}"
            if phrase in self.phrases:
                length = end + 1 - index
            if phrase not in self.beginnings:
                break
        return length


EDGE = Known("", "|", False, [], ["+w=|"], ["++w=|"], ["-w=|"], ["--w=|"])


def _band(rank: int) -> str:
    return next(band for limit, band in WORD_BANDS if rank < limit)


def _bands(names: list[str], frequent: int, dropped: frozenset[str]) -> dict[str, str]:
    """Folded name → 2 for the most frequent, 1 for the others."""
    folded = [(fold(name), "2" if rank < frequent else "1") for rank, name in enumerate(names)]
    return {name: band for name, band in reversed(folded) if name not in dropped}


def read_lists(path: Path = LEXICON) -> dict[str, list[str]]:
    """List name → entries, the most frequent first."""
    lists: dict[str, list[str]] = {}
    for part in lzma.decompress(path.read_bytes()).decode("utf-8").split("\n# ")[1:]:
        name, *entries = part.strip("\n").split("\n")
        lists[name] = entries
    return lists


@cache
def load_lexicon() -> Lexicon:
    return Lexicon(read_lists())


def caseless_signs(tokens: Sequence[Token]) -> list[str]:
    """For each token + where its line is in capitals, - where the whole piece has none, else nothing."""
    words = [token.text for token in tokens]
    if not any(word != word.lower() for word in words):
        return ["-" if len(words) > 2 else ""] * len(words)
    signs = [""] * len(words)
    start = 0
    for end in range(1, len(words) + 1):
        if end == len(words) or tokens[end].newline:
            if end - start > 2 and all(word == word.upper() for word in words[start:end]):
                signs[start:end] = ["+"] * (end - start)
            start = end
    return signs


def features_of(tokens: Sequence[Token], lexicon: Lexicon) -> list[list[str]]:
    """For each token of a piece the features that are true of it."""
    words = [lexicon.known(token.text, sign) for token, sign in zip(tokens, caseless_signs(tokens), strict=True)]
    around = [EDGE, EDGE, *words, EDGE, EDGE]
    rows: list[list[str]] = []
    place_until = 0
    for index, word in enumerate(words):
        second_previous, previous, _, following, second_next = around[index : index + 5]
        kind = word.kind
        row = (
            word.own
            + previous.previous
            + second_previous.second_previous
            + following.next
            + second_next.second_next
            + [
                f"-k0={previous.kind}_{kind}",
                f"0k+={kind}_{following.kind}",
                f"-k0k+={previous.kind}_{kind}_{following.kind}",
                f"-w0={previous.low}_{kind}",
                f"0w+={kind}_{following.low}",
            ]
        )
        if tokens[index].newline:
            row += ["n", f"n{kind}"]
        if index + 1 == len(words) or tokens[index + 1].newline:
            row += ["e", f"e{kind}"]
        if index < place_until:
            row.append("in")
        elif word.place_begins and (length := lexicon.length_of_place(words, index)):
            place_until = index + length
            row.append("begins")
        rows.append(row)
    return rows
