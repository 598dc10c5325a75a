"""Words that the second look knows: those that do not matter, that turn a sentence round, that mean the same.

English, and the particles of Chinese that carry no meaning of their own. In another language every word counts, so
that a changed article keeps two rows apart: they are listed as alike, and nothing is lost.
"""

import re

TOKEN = re.compile(r"[0-9A-Za-z_\x80-\U0010ffff]+")
"""A word of shingles.space_tokens."""


def these(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# Articles, copulas and auxiliaries, plain prepositions, relative words, courtesies, the ends of contractions.
HARMLESS = these(
    """a an the our of to in on at for by with as is are was were be been being am do does did has have had having it
    its this that these those there here which who whom whose also then so please hi hello hey dear thank thanks kindly
    m re s ll ve d 的 了 呢 吧 啊 呀 嘛 吗"""
)
# Negation, modality, quantity, order, condition, direction, and who is spoken of.
POLARITY = these(
    """no not nor none never nothing nobody nowhere neither without cannot t yes true false right wrong hardly barely
    can must shall should will would ought need only all any each some few many most more less least much several both
    either half double once twice always often sometimes rarely seldom usually too very enough and or but if unless
    until before after while during over under above below up down off out into from against between within beyond
    except instead increase increases increased decrease decreases decreased high higher low lower safe unsafe good bad
    better worse best worst he she him her his hers they them their we us i me my mine you your yours
    不 没 無 无 非 未 勿 别 莫 他 她"""
)
# What stands before n't, and the word itself.
CONTRACTED = {
    "don": "do", "doesn": "does", "didn": "did", "isn": "is", "aren": "are", "wasn": "was", "weren": "were",
    "hasn": "has", "haven": "have", "hadn": "had", "won": "will", "wouldn": "would", "shouldn": "should",
    "couldn": "could", "mustn": "must", "can": "can", "needn": "need", "shan": "shall",
}  # fmt: skip
# One way of saying it, then others; before `not` the modal verbs differ (may not, cannot) and stay as they are.
SAME_MEANING = """
can: could, may, might
must: has to, have to, need to, needs to
will: is going to, are going to, am going to
would: d
until: till
because: since
each: every
usually: normally
start: begin
starts: begins
call: ring, phone
big: large
quickly: fast
mother: mom, mum
father: dad
like: such as
now: right now, at the moment, at this moment
immediately: at once, right away, straight away
"""
# A short sentence with one of these, and otherwise none but words of COURTESIES, says nothing.
GREETINGS = these("hi hello hey dear greetings")
CORE_COURTESIES = GREETINGS | these(
    """thanks thank appreciate appreciated sorry please regards cheers morning afternoon evening bye question"""
)
COURTESIES = CORE_COURTESIES | these("good quick again many much so very you it i in advance best kind bother")


def same_meanings() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """The other ways of SAME_MEANING by their first word: all words, and what stands for them."""
    table: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for line in SAME_MEANING.strip().splitlines():
        word, _, others = line.partition(": ")
        for other in others.split(", "):
            table.setdefault(other.split()[0], []).append((tuple(other.split()), word))
    return table
