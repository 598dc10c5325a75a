"""Words that the second look knows: those that do not matter, that turn a sentence round, that mean the same.

English, and the particles of Chinese that carry no meaning of their own. In another language every word counts, so
that a changed article keeps two rows apart: they are listed as alike, and nothing is lost.
"""

from collections.abc import Iterable


def these(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# What may be there or not: articles, the copula, relative words, fillers, courtesies.
HARMLESS = these(
    """a an the our this that these those which who whom is are am be 's of also then so
    please hi hello hey dear thank thanks kindly 的 了 呢 吧 啊 呀 嘛"""
)
# What may stand for each other. Tenses differ (is and was a smoker), and so do prepositions (by and to 50 mg).
CLASSES = [
    these(line)
    for line in """
a an the our this that these those
that which who whom
is are am be 's
has have 's
was were
do does
also then so
hi hello hey dear
thank thanks
please kindly
的 了 呢 吧 啊 呀 嘛""".strip().splitlines()
]
# Not harmless, but short and so common that a slip of three letters is one.
SMALL = HARMLESS | these(
    "to in on at for by with as was were been being do does did has have had having it its there here whose"
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
NUMBERS = these(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion first
    second third fourth fifth sixth seventh eighth ninth tenth"""
)
# What stands before n't, and the word itself.
CONTRACTED = {
    "don": "do", "doesn": "does", "didn": "did", "isn": "is", "aren": "are", "wasn": "was", "weren": "were",
    "hasn": "has", "haven": "have", "hadn": "had", "won": "will", "wouldn": "would", "shouldn": "should",
    "couldn": "could", "mustn": "must", "can": "can", "needn": "need", "shan": "shall",
}  # fmt: skip
ENDINGS = {"'ll": "will", "'d": "would", "'m": "am", "'re": "are", "'ve": "have"}
# One way of saying it, then others; before `not` the modal verbs differ (may not, cannot) and stay as they are.
SAME_MEANING = """
can: could, may, might
must: has to, have to, need to, needs to
will: is going to, are going to, am going to
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
CLOSINGS = """
i hope this helps
hope this helps
i hope that makes sense
take your time
please take your time
feel free to ask
feel free to ask again
best wishes
with best wishes
let me know
let me know what you think
thank you for reading this
have a nice day
"""
"""Sentences that say nothing either, with or without HARMLESS words."""


def leave_out_harmless(words: Iterable[str]) -> tuple[str, ...]:
    """Words without those that may be there or not."""
    return tuple(word for word in words if word not in HARMLESS)


def same_meanings() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """The other ways of SAME_MEANING by their first word: all words, and what stands for them."""
    table: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for line in SAME_MEANING.strip().splitlines():
        word, _, others = line.partition(": ")
        for other in others.split(", "):
            table.setdefault(other.split()[0], []).append((tuple(other.split()), word))
    return table
