"""A text as words with the characters they stand at: what the model sees, and where that is in what the user wrote.

Characters of no width are left out, and letters of other alphabets that look like Latin ones are read as Latin where
they stand in a word beside Latin letters (Jоhn with a Cyrillic о): offsets always point into the text as given.
"""

import unicodedata
from typing import NamedTuple

import regex

LONGEST = 200  # words of a piece: memory and time grow with the text, not with its longest paragraph squared
NO_WIDTH = regex.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2060-\u2064\u206a-\u206f\ufeff]"
)
ALIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТХУЗаеѕіјорсухԁһԛԝӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧαονρι",
    "ABESIJKMHOPCTXY3aesijopcyxdhqwlABEZHIKMNOPTYXaovpi",
)
OTHER_ALPHABET = regex.compile(r"[\p{Cyrillic}\p{Greek}\uff21-\uff3a\uff41-\uff5a]")
TOKEN = regex.compile(
    r"https?://\S+|www\.\S+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # addresses of the net, whole
    r"|[@#]\w+"
    r"|(?<![\p{L}\p{N}])(?:\p{L}\.)+(?!\p{L}{2})"  # J. and U.S., with their points
    r"|['’]s(?!\w)"
    r"|[\w\p{M}]+(?:['’](?!s(?!\w))\p{L}+)*"
    r"|([^\w\s])\1*"
)
QUOTE_SIGNS = regex.compile(r"(?m)^[ \t]*(?:[>|?*•][ \t]?)+")  # at the beginning of quoted lines: no words
SENTENCE_END = regex.compile(r"[.!?]+")


class Token(NamedTuple):
    """A word or sign: the text that the model reads, its characters in the user's text, and the white space before."""

    text: str
    start: int
    end: int
    newline: bool  # a line ended between the token before and this one


def read_plain(text: str) -> tuple[str, list[int] | None]:
    """`text` as it looks, and for each of its characters the place in `text`; None where places are equal."""
    if text.isascii():
        return text, None
    places = None
    if NO_WIDTH.search(text):
        places = [place for place, sign in enumerate(text) if not NO_WIDTH.match(sign)]
        text = "".join(text[place] for place in places)
    if OTHER_ALPHABET.search(text):
        text = regex.sub(r"[\p{L}\p{M}]+", lambda word: read_alike(word[0]), text)
    return text, places


def read_alike(word: str) -> str:
    """The word in Latin letters where it mixes alphabets or is in wide letters; as long as before."""
    wide = "".join(unicodedata.normalize("NFKC", sign) if "\uff21" <= sign <= "\uff5a" else sign for sign in word)
    latin = wide.translate(ALIKE)
    mixed = regex.search(r"\p{Latin}", wide) and regex.search(r"[\p{Cyrillic}\p{Greek}]", wide)
    return latin if mixed and len(latin) == len(word) else wide if len(wide) == len(word) else word


def tokens_of(text: str) -> list[Token]:
    """The tokens of a text in order; they never overlap."""
    plain, places = read_plain(text)
    if QUOTE_SIGNS.search(plain):
        plain = QUOTE_SIGNS.sub(lambda quote: " " * len(quote[0]), plain)
    tokens: list[Token] = []
    last = 0
    for found in TOKEN.finditer(plain):
        start, end = found.span()
        newline = "\n" in plain[last:start]
        last = end
        if places:
            start, end = places[start], places[end - 1] + 1
        tokens.append(Token(found[0], start, end, newline))
    return tokens


def pieces_of(tokens: list[Token]) -> list[list[Token]]:
    """Tokens in pieces of at most LONGEST, cut after the last sentence or line that fits."""
    pieces: list[list[Token]] = []
    start = 0
    while len(tokens) - start > LONGEST:
        cut = start + LONGEST
        for index in range(cut, start + LONGEST // 2, -1):
            if tokens[index].newline or SENTENCE_END.fullmatch(tokens[index - 1].text):
                cut = index
                break
        pieces.append(tokens[start:cut])
        start = cut
    if start < len(tokens):
        pieces.append(tokens[start:])
    return pieces
