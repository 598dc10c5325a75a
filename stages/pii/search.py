"""Presidio's AnalyzerEngine, the same findings at many times the speed.

What takes its time is asking every pattern of every character of every text. Here a pattern whose matches lie inside
one word (shapes.py says which do, and why) is asked of each distinct word once; the other patterns are asked of texts
that hold what their matches must hold (rules.py); telephone numbers have a file of their own (phones.py). Context
words, thresholds and the removal of duplicates follow AnalyzerEngine step by step, on plain tuples:
tests/test_pii_search.py compares the two.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import regex
from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer, pattern_recognizer
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer, UrlRecognizer

from stages.pii import Finding
from stages.pii.domains import quicken
from stages.pii.phones import MOST_TRIES, TooManyTriesError, find_phones, prepare
from stages.pii.rules import Gate, Rule, can_hold, count_signs, is_in_row, row_of_digits
from stages.pii.shapes import shape_of
from stages.pii.straight import straighten

WORD = re.compile(r"\S+")
NO_SPACE_FOR_REGEX = re.compile("[\x1c-\x1f]")  # white space for Python, not for `regex`
MEMORY_WORDS = 200_000  # distinct words whose findings are remembered, about 30 MB
CONTEXT = -1  # the gate that a context word opens
LONG_WORD = 200  # characters from which a word is not remembered, and the time of a search is watched

Raw = tuple[int, str, int, int, float]
"""Number of the recogniser, entity, start, end, score. A word that opens a gate of the recogniser holds one without an
entity: `start` is the number of the gate."""


def remove_duplicates(found: Iterable[Raw]) -> list[Raw]:
    """As EntityRecognizer.remove_duplicates: of one entity nothing that lies in something as sure."""
    by_entity: dict[str, list[Raw]] = {}
    for item in found:
        if item[4]:
            by_entity.setdefault(item[1], []).append(item)
    kept: list[Raw] = []
    for items in by_entity.values():
        if len(items) == 1:
            kept += items
            continue
        open_: list[Raw] = []  # not yet passed
        for item in sorted(items, key=lambda item: (item[2], -item[3], -item[4])):
            _, _, start, end, score = item
            open_ = [other for other in open_ if other[3] >= start]
            if not any(other[3] >= end and other[4] >= score for other in open_):
                kept.append(item)
                open_.append(item)
    return kept


class Search:
    """Finds in a text what `recognisers` find there.

    threshold: the score from which a finding counts. words: gives the words that the enhancer looks at; None where
    context words do not count. gates: name of a recogniser → expressions of which each fits in a word of every text
    where the recogniser can find anything. in_plain_signs: what is not written in plain signs (straight.py) is searched
    by all patterns once more in these, beyond what Presidio finds. `find` raises TimeoutError where a pattern takes too
    long.
    """

    def __init__(
        self,
        recognisers: list[Any],
        threshold: float = 0.0,
        words: NlpEngine | None = None,
        enhancer: LemmaContextAwareEnhancer | Any = None,
        gates: dict[str, tuple[re.Pattern[str], ...]] | None = None,
        in_plain_signs: bool = False,
    ) -> None:
        self.recognisers, self.threshold, self.words, self.enhancer = recognisers, threshold, words, enhancer
        self.in_plain_signs = in_plain_signs
        self.language = words.get_supported_languages()[0] if words else ""
        self.in_words: list[Rule] = []
        self.in_rows: list[Rule] = []
        self.in_texts: list[Rule] = []
        self.phones: list[int] = []
        self.others: list[int] = []
        self.gates: list[Gate] = []
        own = gates or {}
        for number, recogniser in enumerate(recognisers):
            ways = own.get(recogniser.name, ())
            if type(recogniser).analyze is PatternRecognizer.analyze:
                rules = [self._rule(number, recogniser, pattern, ways) for pattern in recogniser.patterns]
                self.in_words += [rule for rule in rules if rule.shape and rule.shape.in_word]
                whole = [rule for rule in rules if not (rule.shape and rule.shape.in_word)]
                self.in_rows += [rule for rule in whole if is_in_row(rule.shape)]
                self.in_texts += [rule for rule in whole if not is_in_row(rule.shape)]
                if not whole:
                    continue
                if any(rule.weak for rule in whole):
                    words_of_it = "|".join(re.escape(word.lower()) for word in recogniser.context)
                    self._open(number, CONTEXT, re.compile(words_of_it, re.IGNORECASE))
            elif type(recogniser) is PhoneRecognizer or hasattr(recogniser, "least_digits"):
                self.phones.append(number)
                prepare(tuple(recogniser.supported_regions))
                continue
            else:
                self.others.append(number)
            for place, way in enumerate(ways):
                self._open(number, place, way)
        self.closed = {
            number: {(number, gate.place) for gate in self.gates if gate.number == number and gate.place != CONTEXT}
            for number in range(len(recognisers))
        }
        self.context = [frozenset(word.lower() for word in recogniser.context or ()) for recogniser in recognisers]
        rules = [*self.in_words, *self.in_rows, *self.in_texts]
        several = {rule.number for rule in rules if sum(other.number == rule.number for other in rules) > 1}
        self.overlapping = several & {rule.number for rule in [*self.in_rows, *self.in_texts]}
        shapes = [rule.shape for rule in self.in_rows if rule.shape]
        self.row_signs = frozenset().union(*(shape.between or () for shape in shapes))
        self.reach = max((shape.reach for shape in shapes), default=0)
        row = row_of_digits(self.row_signs, min((shape.needs[0] for shape in shapes), default=2))
        self.rows, self.ascii_rows = regex.compile(row), re.compile(row)
        self.by_signs: dict[tuple[Any, ...], tuple[list[Rule], list[Gate]]] = {}  # what a word with these can hold
        self.memory: dict[str, tuple[Raw, ...]] = {}

    def _open(self, number: int, place: int, expression: Any) -> None:
        self.gates.append(Gate(number, place, expression, shape_of(expression.pattern, expression.flags)))

    def _rule(self, number: int, recogniser: Any, pattern: Pattern, ways: tuple[Any, ...]) -> Rule:
        flags = recogniser.global_regex_flags
        shape = shape_of(pattern.regex, flags)
        gate = None
        if shape is not None and shape.in_word:
            gate = ways[0] if ways else None
        elif shape is not None and is_in_row(shape):
            gate = regex.compile(row_of_digits(shape.between or (), shape.needs[0]))
        validates = type(recogniser).validate_result is not PatternRecognizer.validate_result
        judged = validates or type(recogniser).invalidate_result is not PatternRecognizer.invalidate_result
        weak = bool(self.words and recogniser.context) and pattern.score < self.threshold and not validates
        written = quicken(pattern.regex) if isinstance(recogniser, UrlRecognizer) else pattern.regex
        return Rule(number, regex.compile(written, flags=flags), pattern.score, shape, weak, gate, judged)

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
            if rule.judged:
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
        width = len(word)
        signs = (0, 1, 0, 0, 0, 0, 0, 0, 0) if word.isalpha() else count_signs(word)
        measure = (*signs, min(width, LONG_WORD))
        chosen = self.by_signs.get(measure)
        if chosen is None:
            if len(self.by_signs) >= MEMORY_WORDS:
                self.by_signs.clear()
            chosen = self.by_signs[measure] = (
                [rule for rule in self.in_words if can_hold(rule.shape, signs, width)],
                [gate for gate in self.gates if can_hold(gate.shape, signs, width)],
            )
        rules, gates = chosen
        found: list[Raw] = []
        tried, fits = None, False  # patterns of one recogniser have one gate
        for rule in rules:
            if rule.gate is not None:
                if rule.gate is not tried:
                    tried, fits = rule.gate, rule.gate.search(word) is not None
                if not fits:
                    continue
            found += self.match(rule, word)
        if len(found) > 1:
            found = self.settle(found)
        for gate in gates:
            if gate.expression.search(word):
                found.append((gate.number, "", gate.place, 0, 1.0))
        result = tuple(found)
        if width < LONG_WORD:
            if len(self.memory) >= MEMORY_WORDS:
                self.memory.clear()
            self.memory[word] = result
        return result

    def find_in_rows(self, text: str, opened: set[tuple[int, int]]) -> list[Raw]:
        """What the patterns of rows of digits find in a text: each is asked of a row with the signs around it, where a
        match lies, and of as much beside it as can decide."""
        found: list[Raw] = []
        for row in (self.ascii_rows if text.isascii() else self.rows).finditer(text):
            start, end = row.span()
            while start and text[start - 1] in self.row_signs:
                start -= 1
            while end < len(text) and text[end] in self.row_signs:
                end += 1
            first = max(0, start - self.reach)
            here = text[first : end + self.reach]
            for rule in self.in_rows:
                if (
                    self.closed[rule.number] <= opened
                    and (not rule.weak or (rule.number, CONTEXT) in opened)
                    and rule.gate.search(row[0])
                ):
                    found += [
                        (number, entity, first + left, first + right, score)
                        for number, entity, left, right, score in self.match(rule, here)
                        if start <= first + left < end
                    ]
        return found

    def find_in_words(self, text: str) -> list[Raw]:
        """What the patterns of words find in a text."""
        if NO_SPACE_FOR_REGEX.search(text):
            opened: list[Raw] = [(gate.number, "", gate.place, 0, 1.0) for gate in self.gates]
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
        found = self.find_as_written(text, self.others)
        straight = straighten(text) if self.in_plain_signs else None
        if straight:
            plain, places = straight
            others = [number for number in self.others if isinstance(self.recognisers[number], PatternRecognizer)]
            for number, entity, start, end, score in self.find_as_written(plain, others):
                if places:
                    start, end = places[start], places[end - 1] + 1
                found.append((number, entity, start, end, score))
        found = remove_duplicates(item for item in found if item[4] >= self.threshold)
        return sorted({Finding(start, end, entity, score) for _, entity, start, end, score in found})

    def find_as_written(self, text: str, others: list[int]) -> list[Raw]:
        """What the patterns, the search for telephone numbers and `others` find in a text, whatever the score."""
        found = self.find_in_words(text)
        opened: set[tuple[int, int]] = set()
        if self.gates:
            opened = {(item[0], item[2]) for item in found if not item[1]}
            if opened:
                found = [item for item in found if item[1]]
        if self.in_rows:
            found += self.find_in_rows(text, opened)
        if self.in_texts:
            signs = count_signs(text)
            for rule in self.in_texts:
                if (
                    (rule.shape is None or can_hold(rule.shape, signs, len(text)))
                    and self.closed[rule.number] <= opened
                    and (not rule.weak or (rule.number, CONTEXT) in opened)
                ):
                    found += self.match(rule, text)
        if self.overlapping and not self.overlapping.isdisjoint(item[0] for item in found):
            found = self.settle(found)
        for number in self.phones:
            found += self.find_phones(number, text)
        artifacts = None
        for number in others:
            if self.closed[number] <= opened:
                artifacts = artifacts or (self.words.process_text(text, self.language) if self.words else None)
                found += self.ask(number, text, artifacts)
        if found and self.words and self.enhancer:
            found = self.raise_scores(found, text, artifacts or self.words.process_text(text, self.language))
        return found

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
