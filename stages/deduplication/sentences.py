"""A row as the second look reads it: sentences and lines of words, numbers and the signs that matter.

What stands between words is mostly punctuation, but not in `≤ 38`, `-5`, `1:2`, `C++`, `x / y`, `👎`. Such a sign is a
word here, or part of one. A lone capital A within a sentence is no article (hepatitis A), and an `s` behind an
apostrophe no size S.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from stages.common.shingles import space_tokens
from stages.deduplication.words import CONTRACTED, ENDINGS, same_meanings

SIGNS = r"[\p{Sm}\p{Sc}\p{So}--[\p{ascii}©®�\x{2500}-\x{25FF}]]"  # no signs of layout, no bullets: a list's dots vary
RESPELLED = (
    (r"[‐‑‒–—−]", "-"),
    (r"[’ʼ]", "'"),
    (r"[\x{FE00}-\x{FE0F}]", ""),  # which of two looks an emoji has
    (r"([a-z,] )A\b", "${1}a_"),
)
LETTER_A = "a_"
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
LETTERS = r"[0-9a-z_\x80-\U0010ffff]"
SAID = re.compile(
    rf"(?<=[a-z])'(?:s|m|d|t|re|ve|ll)(?!{LETTERS})"  # it's
    rf"|(?:(?<![\w)])[-+])?[0-9]+(?:(?:[.,/:-]|\^-?)[0-9]+)*{LETTERS}*(?:\s?%)?"  # -5, 1.5, 1/2, 10:30am, 5 %
    rf"|{LETTERS}+(?:[+\#]+(?![\w+\#]))?"  # C++, Na+; every sign of SIGNS
    r"|[<>=~$+]+|(?<!\*)\*(?!\*)|[/^]|(?<=\s)-(?=\s)"  # those of OPERATORS and BESIDE
)
OPERATORS = frozenset("-*/^")  # count between two numbers or single letters: no and/or, no dash
BESIDE = frozenset("<>=~$+")  # count beside one of them: no <b>tag</b>, no ===
SINGLE = re.compile(r"[-+]?[0-9].*|[a-z]_?")
SAME_MEANINGS = same_meanings()
EXPANDED = frozenset(["t", "'t", "cannot", *ENDINGS, *SAME_MEANINGS])


class Said(NamedTuple):
    """A row as sentences and lines of words, and for each the words of the line that it stands in."""

    sentences: list[tuple[str, ...]]
    room: list[int]


def respell(texts: pl.Series) -> pl.Series:
    """Texts as split_sentences reads them: spaces around the characters of scripts without spaces, and around signs."""
    for pattern, spelling in RESPELLED:
        texts = texts.str.replace_all(pattern, spelling)
    return space_tokens(texts, SIGNS).str.replace_all(" ⁄ ", "/").str.replace_all(r"\^ − ", "^-")  # NFKC of ½ and 10⁻⁵


def split_sentences(text: str) -> Said:
    """What a text out of `respell` says.

    >>> split_sentences("It's 5 % - or x - 2 - of C++. And/or C#, and -5.5").sentences
    [('it', "'s", '5%', 'or', 'x', '-', '2', 'of', 'c++'), ('and', 'or', 'c#', 'and', '-5.5')]
    """
    sentences: list[tuple[str, ...]] = []
    room: list[int] = []
    for line in text.lower().split("\n"):
        parts = [expand(words) for part in SENTENCE_END.split(line) if (words := read_words(part))]
        sentences += parts
        room += [sum(map(len, parts))] * len(parts)
    return Said(sentences, room)


def read_words(sentence: str) -> list[str]:
    """The words of a sentence, without the signs that are punctuation there."""
    words = SAID.findall(sentence)
    if OPERATORS.isdisjoint(sentence) and BESIDE.isdisjoint(sentence) and "%" not in sentence:
        return words
    single = [False, *(SINGLE.fullmatch(word) is not None for word in words), False]
    kept = []
    for place, word in enumerate(words):
        before, behind = single[place], single[place + 2]
        if word[0] in OPERATORS and len(word) == 1:
            counts = before and behind and (word != "-" or words[place - 1][-1].isdigit() or words[place + 1].isdigit())
        else:
            counts = not BESIDE.issuperset(word) or before or behind
        if counts:
            kept.append("".join(word.split()))
    return kept


def expand(words: Sequence[str]) -> tuple[str, ...]:
    """Words with contractions written out, and one way of saying it for SAME_MEANING's others.

    >>> expand("we can 't call so you 'll have to ring till noon".split())
    ('we', 'can', 'not', 'call', 'so', 'you', 'will', 'must', 'call', 'until', 'noon')
    """
    if EXPANDED.isdisjoint(words):
        return tuple(words)
    full: list[str] = []
    for word in words:
        if word in ("t", "'t") and full and full[-1] in CONTRACTED:
            full[-1:] = [CONTRACTED[full[-1]], "not"]
        else:
            full += ["can", "not"] if word == "cannot" else [ENDINGS.get(word, word)]
    said: list[str] = []
    while full:
        ways = [(len(way), word) for way, word in SAME_MEANINGS.get(full[0], ()) if tuple(full[: len(way)]) == way]
        length, word = max(ways, default=(1, full[0]))
        said.append(full[0] if full[length : length + 1] == ["not"] else word)
        del full[: 1 if said[-1] == full[0] else length]
    return tuple(said)
