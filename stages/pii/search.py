"""Presidio's AnalyzerEngine, the same findings at many times the speed.

What takes its time is asking every pattern of every character of every text. Here a pattern whose matches lie inside
one word (shapes.py says which do, and why) is asked of each distinct word once; the other patterns are asked of texts
that hold what their matches must hold; telephone numbers have a file of their own (phones.py). Context words,
thresholds and the removal of duplicates follow AnalyzerEngine step by step, on plain tuples:
tests/test_pii_search.py compares the two.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

import regex
from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer, pattern_recognizer
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer, UrlRecognizer

from stages.pii import Finding
from stages.pii.domains import quicken
from stages.pii.phones import MOST_TRIES, TooManyTriesError, find_phones
from stages.pii.shapes import DIGIT, LETTER, SIGNS, Shape, shape_of

WORD = re.compile(r"\S+")
A_DIGIT = regex.compile(r"\d")
A_LETTER = regex.compile(r"[^\W\d_]")
NO_SPACE_FOR_REGEX = re.compile("[\x1c-\x1f]")  # white space for Python, not for `regex`
MEMORY_WORDS = 200_000  # distinct words whose findings are remembered, about 30 MB
CONTEXT = -1  # the gate that a context word opens
LONG_WORD = 200  # characters from which a word is not remembered, and the time of a search is watched

Raw = tuple[int, str, int, int, float]
"""Number of the recogniser, entity, start, end, score. A word that opens a gate of the recogniser holds one without an
entity: `start` is the number of the gate."""


class Rule(NamedTuple):
    """One pattern of a recogniser."""

    number: int
    pattern: Any
    score: float
    shape: Any
    weak: bool
    """Whether a match stays below the threshold unless a context word stands beside it."""
    gate: Any
    """An expression that matches in every text where the pattern can; None for no such."""


def signs_of(text: str) -> tuple[bool, ...]:
    """Which of SIGNS stand in a text."""
    colon, hyphen = ":" in text, "-" in text
    return (
        A_DIGIT.search(text) is not None,
        A_LETTER.search(text) is not None,
        "@" in text,
        "." in text,
        colon,
        hyphen,
        "/" in text,
        colon or hyphen,
        '"' in text or "'" in text,
    )


def row_of_digits(shape: Shape) -> Any:
    """An expression that matches where as many digits stand in a row as the shape says; None where it does not say."""
    if shape.between is None or shape.least_digits < 2:
        return None
    signs = "".join(regex.escape(sign) for sign in sorted(shape.between))
    return regex.compile(
        rf"\d(?:[{signs}]*\d){{{shape.least_digits - 1}}}" if signs else rf"\d{{{shape.least_digits}}}"
    )


def remove_duplicates(found: Iterable[Raw]) -> list[Raw]:
    """As EntityRecognizer.remove_duplicates: of one entity nothing that lies in something as sure."""
    kept: list[Raw] = []
    open_: list[Raw] = []  # of the same entity, not yet passed
    entity = None
    for item in sorted(set(found), key=lambda item: (item[1], item[2], -item[3], -item[4])):
        _, kind, start, end, score = item
        if not score:
            continue
        open_ = [other for other in open_ if other[3] >= start] if kind == entity else []
        entity = kind
        if not any(other[3] >= end and other[4] >= score for other in open_):
            kept.append(item)
            open_.append(item)
    return kept


class Search:
    """Finds in a text what `recognisers` find there.

    threshold: the score from which a finding counts. words: gives the words that the enhancer looks at; None where
    context words do not count. gates: name of a recogniser → expressions of which each fits in a word of every text
    where the recogniser can find anything. `find` raises TimeoutError where a pattern takes too long.
    """

    def __init__(
        self,
        recognisers: list[Any],
        threshold: float = 0.0,
        words: NlpEngine | None = None,
        enhancer: LemmaContextAwareEnhancer | Any = None,
        gates: dict[str, tuple[re.Pattern[str], ...]] | None = None,
    ) -> None:
        self.recognisers, self.threshold, self.words, self.enhancer = recognisers, threshold, words, enhancer
        self.language = words.get_supported_languages()[0] if words else ""
        self.in_words: list[Rule] = []
        self.in_texts: list[Rule] = []
        self.phones: list[int] = []
        self.others: list[int] = []
        self.gates: list[tuple[int, int, Any]] = []  # number of the recogniser, of the gate, its expression
        own = gates or {}
        for number, recogniser in enumerate(recognisers):
            ways = own.get(recogniser.name, ())
            if type(recogniser).analyze is PatternRecognizer.analyze:
                rules = [self._rule(number, recogniser, pattern, ways) for pattern in recogniser.patterns]
                self.in_words += [rule for rule in rules if rule.shape and rule.shape.in_word]
                whole = [rule for rule in rules if not (rule.shape and rule.shape.in_word)]
                self.in_texts += whole
                if not whole:
                    continue
                if any(rule.weak for rule in whole):
                    words_of_it = "|".join(re.escape(word.lower()) for word in recogniser.context)
                    self.gates.append((number, CONTEXT, re.compile(words_of_it, re.IGNORECASE)))
            elif type(recogniser) is PhoneRecognizer or hasattr(recogniser, "least_digits"):
                self.phones.append(number)
                continue
            else:
                self.others.append(number)
            self.gates += [(number, place, way) for place, way in enumerate(ways)]
        self.closed = {
            number: {gate for other, gate, _ in self.gates if other == number and gate != CONTEXT}
            for number in range(len(recognisers))
        }
        self.context = [frozenset(word.lower() for word in recogniser.context or ()) for recogniser in recognisers]
        rules = [*self.in_words, *self.in_texts]
        several = {rule.number for rule in rules if sum(other.number == rule.number for other in rules) > 1}
        self.overlapping = several & {rule.number for rule in self.in_texts}
        self.letters_hold_nothing = all(rule.shape.needs - {LETTER} for rule in self.in_words if rule.shape)
        self.by_signs: dict[tuple[bool, ...], list[Rule]] = {}  # for a word with these SIGNS
        self.memory: dict[str, tuple[Raw, ...]] = {}

    def _rule(self, number: int, recogniser: Any, pattern: Pattern, ways: tuple[Any, ...]) -> Rule:
        flags = recogniser.global_regex_flags
        shape = shape_of(pattern.regex, flags)
        gate = None
        if shape is not None:
            gate = (ways[0] if ways else None) if shape.in_word else row_of_digits(shape)
        validates = type(recogniser).validate_result is not PatternRecognizer.validate_result
        weak = bool(self.words and recogniser.context) and pattern.score < self.threshold and not validates
        written = quicken(pattern.regex) if isinstance(recogniser, UrlRecognizer) else pattern.regex
        return Rule(number, regex.compile(written, flags=flags), pattern.score, shape, weak, gate)

    def match(self, rule: Rule, text: str) -> list[Raw]:
        """What one pattern finds in `text`, judged by its recogniser.

        Only in long texts is the clock watched, which doubles the time of a search: no pattern of Presidio's takes more
        than a power of the length of a word."""
        recogniser = self.recognisers[rule.number]
        watched = len(text) >= LONG_WORD
        found = []
        for match in (
            rule.pattern.finditer(text, timeout=pattern_recognizer.REGEX_TIMEOUT_SECONDS)
            if watched
            else rule.pattern.finditer(text)
        ):
            start, end = match.span()
            if start == end:
                continue
            score = rule.score
            valid = recogniser.validate_result(match[0])
            if valid is not None:
                score = EntityRecognizer.MAX_SCORE if valid else EntityRecognizer.MIN_SCORE
            if recogniser.invalidate_result(match[0]):
                score = EntityRecognizer.MIN_SCORE
            if score > EntityRecognizer.MIN_SCORE:
                found.append((rule.number, recogniser.supported_entities[0], start, end, score))
        return found

    @staticmethod
    def settle(found: list[Raw]) -> list[Raw]:
        """Without what a recogniser finds twice."""
        numbers = sorted({item[0] for item in found}) if len(found) > 1 else []
        if not numbers:
            return found
        return [item for number in numbers for item in remove_duplicates(item for item in found if item[0] == number)]

    def find_in_word(self, word: str) -> tuple[Raw, ...]:
        """What the patterns of words find in one word."""
        if word in self.memory:
            return self.memory[word]
        found: list[Raw] = []
        if not (self.letters_hold_nothing and word.isalpha()):
            signs = signs_of(word)
            rules = self.by_signs.get(signs)
            if rules is None:
                present = {sign for sign, here in zip(SIGNS, signs, strict=True) if here}
                rules = self.by_signs[signs] = [rule for rule in self.in_words if rule.shape.needs <= present]
            digits, width = len(A_DIGIT.findall(word)) if signs[0] else 0, len(word)
            for rule in rules:
                if (
                    width >= rule.shape.least_width
                    and digits >= rule.shape.least_digits
                    and (rule.gate is None or rule.gate.search(word))
                ):
                    found += self.match(rule, word)
        found += [(number, "", place, 0, 1.0) for number, place, gate in self.gates if gate.search(word)]
        result = tuple(self.settle(found))
        if len(word) < LONG_WORD:
            if len(self.memory) >= MEMORY_WORDS:
                self.memory.clear()
            self.memory[word] = result
        return result

    def find_in_words(self, text: str) -> list[Raw]:
        """What the patterns of words find in a text."""
        if NO_SPACE_FOR_REGEX.search(text):
            opened: list[Raw] = [(number, "", place, 0, 1.0) for number, place, _ in self.gates]
            return opened + self.settle([item for rule in self.in_words for item in self.match(rule, text)])
        remembered = self.memory.get
        by_word = [remembered(word) for word in text.split()]
        if None in by_word:
            by_word = [
                self.find_in_word(word) if known is None else known
                for word, known in zip(text.split(), by_word, strict=True)
            ]
        if not any(by_word):
            return []
        found = []
        for match, here in zip(WORD.finditer(text), by_word, strict=True):
            if here:
                offset = match.start()
                for number, entity, start, end, score in here:
                    shift = offset if entity else 0
                    found.append((number, entity, start + shift, end + shift, score))
        return found

    def find_phones(self, number: int, text: str) -> list[Raw]:
        recogniser = self.recognisers[number]
        least = getattr(recogniser, "least_digits", 0)
        most = getattr(recogniser, "most_tries", MOST_TRIES)
        try:
            found = {
                (number, recogniser.supported_entities[0], phone.start, phone.end, recogniser.SCORE)
                for phone in find_phones(text, tuple(recogniser.supported_regions), recogniser.leniency, most)
                if phone.national_digits >= least
            }
        except TooManyTriesError:
            return self.ask(number, text, None)
        return remove_duplicates(found)

    def ask(self, number: int, text: str, artifacts: Any) -> list[Raw]:
        """What a recogniser of any kind answers."""
        recogniser = self.recognisers[number]
        results = recogniser.analyze(text, recogniser.supported_entities, artifacts) or []
        return [(number, item.entity_type, item.start, item.end, item.score) for item in results]

    def find(self, text: str) -> list[Finding]:
        """The findings from the threshold on, by position; they may overlap."""
        found = self.find_in_words(text)
        opened = {(item[0], item[2]) for item in found if not item[1]}
        if opened:
            found = [item for item in found if item[1]]
        present = {sign for sign, here in zip(SIGNS, signs_of(text), strict=True) if here}
        for rule in self.in_texts:
            if (
                (rule.shape is None or rule.shape.needs <= present)
                and all((rule.number, gate) in opened for gate in self.closed[rule.number])
                and (not rule.weak or (rule.number, CONTEXT) in opened)
                and (rule.gate is None or rule.gate.search(text))
            ):
                found += self.match(rule, text)
        if self.overlapping and not self.overlapping.isdisjoint(item[0] for item in found):
            found = self.settle(found)
        if self.phones and DIGIT in present:
            for number in self.phones:
                found += self.find_phones(number, text)
        artifacts = None
        for number in self.others:
            if all((number, gate) in opened for gate in self.closed[number]):
                artifacts = artifacts or (self.words.process_text(text, self.language) if self.words else None)
                found += self.ask(number, text, artifacts)
        if found and self.words and self.enhancer:
            found = self.raise_scores(found, text, artifacts or self.words.process_text(text, self.language))
        found = remove_duplicates(item for item in found if item[4] >= self.threshold)
        return sorted({Finding(start, end, entity, score) for _, entity, start, end, score in found})

    def raise_scores(self, found: list[Raw], text: str, artifacts: NlpArtifacts) -> list[Raw]:
        """As LemmaContextAwareEnhancer: a context word of the recogniser beside a finding makes it surer.

        What would stay below the threshold, and what cannot rise, is not looked at.
        """
        enhancer = self.enhancer
        ends: list[int] = []
        raised = []
        for item in found:
            number, entity, start, end, score = item
            more = min(max(score + enhancer.context_similarity_factor, enhancer.min_score_with_context_similarity), 1.0)
            if self.context[number] and score < more >= self.threshold:
                if not ends:
                    ends = [
                        at + len(token) for at, token in zip(artifacts.tokens_indices, artifacts.tokens, strict=True)
                    ]
                if self.context[number] & self.words_beside(bisect_right(ends, start), artifacts):
                    item = (number, entity, start, end, more)
            raised.append(item)
        return raised

    def words_beside(self, index: int, artifacts: NlpArtifacts) -> set[str]:
        """The keywords before and after the word `index`, itself included."""
        if index == len(artifacts.tokens):
            raise ValueError("a finding that begins behind the last word")
        beside = set()
        for step, most in ((-1, self.enhancer.context_prefix_count), (1, self.enhancer.context_suffix_count)):
            at, left = index, most + 1
            while 0 <= at < len(artifacts.lemmas) and left:
                lemma = artifacts.lemmas[at].lower()
                if lemma in artifacts.keywords:
                    beside.add(lemma)
                    left -= 1
                at += step
        return beside
