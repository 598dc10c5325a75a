"""Words that the second look knows: those that do not matter, and those that turn a sentence round.

English, and the particles of Chinese that carry no meaning of their own. In another language every word counts, so
that a changed article keeps two rows apart: they are listed as alike, and nothing is lost.
"""

# Articles, copulas and auxiliaries, plain prepositions, relative words, courtesies, the ends of contractions.
HARMLESS = frozenset(
    """a an the of to in on at for by with as is are was were be been being am do does did has have had having it its
    this that these those there here which who whom whose also then so please hi hello hey dear thank thanks kindly
    m re s ll ve d 的 了 呢 吧 啊 呀 嘛 吗""".split()
)
# Negation, modality, quantity, order, condition, direction, and who is spoken of.
POLARITY = frozenset(
    """no not nor none never nothing nobody nowhere neither without cannot t yes true false right wrong hardly barely
    can could may might must shall should will would ought need only all any every each some few many most more less
    least much several both either half double once twice always often sometimes rarely seldom usually too very enough
    and or but if unless until before after since while during over under above below up down off out into from against
    between within beyond except instead increase increases increased decrease decreases decreased high higher low
    lower safe unsafe good bad better worse best worst he she him her his hers they them their we us our i me my mine
    you your yours 不 没 無 无 非 未 勿 别 莫 他 她""".split()
)
# What is left of a word before n't, and the word itself.
CONTRACTED = {
    "don": "do", "doesn": "does", "didn": "did", "isn": "is", "aren": "are", "wasn": "was", "weren": "were",
    "hasn": "has", "haven": "have", "hadn": "had", "won": "will", "wouldn": "would", "shouldn": "should",
    "couldn": "could", "mustn": "must", "can": "can", "needn": "need", "shan": "shall",
}  # fmt: skip
