"""Edits of a text: harmless ones, after which it says the same, and ones that change what matters.

An edit takes a text and a random generator, and returns the new text, or null where it finds nothing to change. The
rules know English, and of other languages numbers, names, and the commonest words for `not`.
"""

import re
import unicodedata
from collections.abc import Callable
from random import Random

Edit = Callable[[str, Random], str | None]

LONG_WORD = re.compile(r"(?<![\w-])[^\W\d_]{8,}(?![\w-])")
COURTESIES = (
    "Thank you very much.", "I hope this helps.", "Thanks in advance.", "Please take your time.", "Kind regards.",
    "I hope that makes sense.", "Thank you for reading this.", "Feel free to ask again.", "With best wishes.",
    "Let me know what you think.",
)  # fmt: skip
FUNCTION_WORDS = {
    "the": ["this"], "a": ["the"], "an": ["the"], "and": ["and also"], "because": ["since"], "which": ["that"],
    "that": ["which"],
}  # fmt: skip
FILLERS = ("also", "so", "then")
NEGATIONS = r"not|never|n[o']t|nicht|keine?[nrs]?|pas|non|niet|geen|nunca|não|inte|ikke"
AUXILIARY = re.compile(
    r"\b(is|are|was|were|can|could|should|will|would|must|may|might|does|do|did)\b(?= [a-z])(?! (?:not|never|n't))"
)
TAKEN_OUT = re.compile(rf" (?:{NEGATIONS})\b|n['’]t\b|(?<=[\u4e00-\u9fff])[不没]")
POLARITY = [
    ("increase", "decrease"), ("increases", "decreases"), ("increased", "decreased"), ("safe", "dangerous"),
    ("always", "never"), ("before", "after"), ("higher", "lower"), ("high", "low"), ("more", "less"),
    ("positive", "negative"), ("good", "bad"), ("better", "worse"), ("best", "worst"), ("allowed", "forbidden"),
    ("open", "closed"), ("opens", "closes"), ("true", "false"), ("healthy", "ill"), ("possible", "impossible"),
    ("with", "without"), ("start", "stop"), ("include", "exclude"), ("includes", "excludes"), ("early", "late"),
    ("first", "last"), ("yes", "no"), ("warm", "cold"), ("hot", "cold"), ("large", "small"), ("most", "least"),
    ("severe", "mild"), ("common", "rare"), ("free", "costly"), ("helpful", "harmful"), ("right", "wrong"),
]  # fmt: skip
OPPOSITE = dict(POLARITY) | {other: one for one, other in reversed(POLARITY)}
NUMBER_WORDS = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
NAMES = (
    "Anselm", "Corinne", "Halvard", "Ottilie", "Brunswick", "Tamsin", "Evander", "Marseille", "Leontine",
    "Okanagan", "Piotr", "Zuleika",
)  # fmt: skip
TOPICS = (
    "asthma", "measles", "mortgage", "violin", "glacier", "migraine", "carpentry", "diabetes", "telescope", "insurance",
    "pneumonia", "orchard", "passport", "arthritis", "volcano", "anaemia", "pottery", "cataract", "railway", "eczema",
)  # fmt: skip
NO_TOPICS = frozenset((
    "although", "another", "anything", "because", "before", "between", "different", "during", "either", "enough",
    "especially", "everything", "following", "further", "however", "instead", "neither", "nothing", "otherwise",
    "perhaps", "please", "really", "several", "should", "somebody", "someone", "something", "sometimes",
    "themselves", "therefore", "though", "through", "together", "towards", "usually", "various", "whatever",
    "whenever", "whether", "without", "yourself", "available", "necessary", "important", "possible", "certain",
    "increase", "decrease",
))  # fmt: skip
SENTENCE = re.compile(r"(?:^|(?<=[.!?] ))[A-Z][^.!?\n]+[.!?]+(?=\s|$)\s*")
RISKY = re.compile(rf"\d|(?<=\w )[A-Z]|\b(?:{NEGATIONS}|without|none|nothing|neither|nor|no)\b|n['’]t\b")


def choose(matches: list[re.Match[str]], random: Random) -> re.Match[str] | None:
    return random.choice(matches) if matches else None


def put(text: str, match: re.Match[str], new: str) -> str:
    return text[: match.start()] + new + text[match.end() :]


def like(word: str, new: str) -> str:
    """`new` with the capital letters of `word`."""
    return new.upper() if word.isupper() and len(word) > 1 else new.capitalize() if word[:1].isupper() else new


def is_english(text: str) -> bool:
    return len(re.findall(r"\b(?:the|a|is|to|of|and|you|in|it)\b", text.lower())) * 12 >= len(text.split())


# Harmless


def mistype(text: str, random: Random) -> str | None:
    """Two letters inside a long word exchanged, or one doubled, or one left out. Never in a name."""
    words = [match for match in LONG_WORD.finditer(text) if match[0] == match[0].lower()]
    match = choose(words, random)
    if not match:
        return None
    word, at = match[0], random.randrange(2, len(match[0]) - 3)
    kind = random.choice(("exchange", "double", "drop") if word.islower() else ("exchange", "double"))
    if kind == "exchange" and word[at] != word[at + 1]:
        new = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif kind == "drop" and word[at] != word[at + 1]:
        new = word[:at] + word[at + 1 :]
    else:
        new = word[:at] + word[at] + word[at:]
    return put(text, match, new)


def change_function_word(text: str, random: Random) -> str | None:
    if not is_english(text):
        return None
    match = choose([each for each in re.finditer(r"\b[a-z]+\b", text) if each[0] in FUNCTION_WORDS], random)
    return put(text, match, random.choice(FUNCTION_WORDS[match[0]])) if match else None


def add_filler(text: str, random: Random) -> str | None:
    gaps = re.finditer(r"(?<=[a-z]) (?=[a-z])", text)
    match = choose(list(gaps), random) if is_english(text) else None
    return put(text, match, f" {random.choice(FILLERS)} ") if match else None


def append_sentence(text: str, random: Random) -> str | None:
    sentence = random.choice(COURTESIES)
    fits = is_english(text) and sentence not in text and text.rstrip()[-1:] in (".", "!", "?")
    return f"{text.rstrip()} {sentence}" if fits else None


def leave_out_sentence(text: str, random: Random) -> str | None:
    """Without one of at least four sentences: a short one that holds no number, name or negation."""
    sentences = list(SENTENCE.finditer(text))
    short = [each for each in sentences if 3 <= len(each[0].split()) <= 15 and not RISKY.search(each[0])]
    match = choose(short, random) if len(sentences) >= 4 else None
    return put(text, match, "").strip() if match else None


HARMLESS: tuple[Edit, ...] = (
    mistype, mistype, mistype, change_function_word, add_filler, append_sentence, leave_out_sentence,
)  # fmt: skip


# The same once normalised


def change_case(text: str, random: Random) -> str:
    return text.lower() if random.random() < 0.5 else text.upper()


def change_spaces(text: str, random: Random) -> str:
    """Runs of spaces, and spaces that are no plain ones, at the ends and between words."""
    spaced = re.sub(" ", lambda _: random.choice((" ", "  ", " \N{NO-BREAK SPACE}", " ")), text)
    return f" {spaced}\n"


def change_punctuation(text: str, random: Random) -> str:
    """Typographic quotes and dashes, other ends of sentences; no sign inside a word or a number."""
    text = re.sub(r"(?<=\w)\.(?=\s|$)", lambda _: random.choice((".", "!", " .", "...")), text)
    text = re.sub(r"(?<=[^\W\d]), ", lambda _: random.choice((", ", "; ", " - ")), text)
    return re.sub(r'"([^"\n]*)"', "\N{LEFT DOUBLE QUOTATION MARK}\\1\N{RIGHT DOUBLE QUOTATION MARK}", text)


def change_form(text: str, random: Random) -> str:
    """Letters and digits in their wide forms, which NFKC takes back."""
    chosen = random.sample(range(len(text)), min(len(text), 5))
    letters = list(text)
    for place in chosen:
        if "!" <= text[place] <= "~":
            letters[place] = chr(ord(text[place]) + 0xFEE0)
    changed = "".join(letters)
    return changed if unicodedata.normalize("NFKC", changed) == unicodedata.normalize("NFKC", text) else text


NORMALISED: tuple[Callable[[str, Random], str], ...] = (change_case, change_spaces, change_punctuation, change_form)


# What matters is changed. These take the whole row: what is exchanged is exchanged wherever it stands.


def change_negation(text: str, random: Random) -> str | None:
    """A `not` put in, or taken out."""
    taken, places = list(TAKEN_OUT.finditer(text)), list(AUXILIARY.finditer(text))
    if taken and (not places or random.random() < 0.5):
        match = random.choice(taken)
        stem = {"ca": "n", "wo": ""}  # can't, won't
        before = text[: match.start()]
        if match[0][0] in "nN" and before.endswith("wo"):
            return before[:-2] + "will" + text[match.end() :]
        return before + (stem["ca"] if match[0][0] in "nN" and before.endswith("ca") else "") + text[match.end() :]
    match_in = choose(places, random) if is_english(text) else None
    return put(text, match_in, f"{match_in[0]} not") if match_in else None


def change_number(text: str, random: Random) -> str | None:
    """Another number of as many digits, or another number word."""
    digits = list(re.finditer(r"(?<![\w.,])\d{1,9}(?![\w])", text))
    if match := choose(digits, random):
        low = 10 ** (len(match[0]) - 1) if len(match[0]) > 1 else 1
        other = [number for number in (random.randrange(low, low * 10) for _ in range(20)) if number != int(match[0])]
        return put(text, match, str(other[0])) if other else None
    match = choose(list(re.finditer(rf"\b(?:{'|'.join(NUMBER_WORDS)})\b", text)), random)
    return put(text, match, random.choice([word for word in NUMBER_WORDS if word != match[0]])) if match else None


def exchange_word(text: str, word: str, new: str) -> str:
    """The word exchanged wherever it stands, in its case."""
    return re.sub(rf"\b{re.escape(word)}\b", lambda match: like(match[0], new), text, flags=re.IGNORECASE)


def change_name(text: str, random: Random) -> str | None:
    """A word with a capital letter inside a sentence exchanged for a name."""
    inside = re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b", text)
    names = sorted({word for word in inside if text.count(word) <= 3})
    if not names:
        return None
    word = random.choice(names)
    return exchange_word(text, word, random.choice([name for name in NAMES if name != word]))


def change_topic(text: str, random: Random) -> str | None:
    """A long word that carries meaning exchanged for a topic of its own."""
    words = sorted(set(re.findall(r"(?<![\w'-])[a-z]{6,}(?![\w'-])", text)) - NO_TOPICS)
    nouns = [word for word in words if not word.endswith(("ly", "ing", "ed")) and len(re.findall(word, text)) <= 4]
    if not nouns or not is_english(text):
        return None
    return exchange_word(text, random.choice(nouns), random.choice([topic for topic in TOPICS if topic not in text]))


def change_polarity(text: str, random: Random) -> str | None:
    """One word turned into its opposite."""
    words = [match for match in re.finditer(r"\b[A-Za-z]+\b", text) if match[0].lower() in OPPOSITE]
    match = choose(words, random) if is_english(text) else None
    return put(text, match, like(match[0], OPPOSITE[match[0].lower()])) if match else None


CHANGES: dict[str, Edit] = {
    "negation": change_negation,
    "number": change_number,
    "name": change_name,
    "topic": change_topic,
    "polarity": change_polarity,
}
