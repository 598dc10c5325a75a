"""Our search finds what Presidio's own engine finds: the same spans with the same scores, whatever the text."""

import operator
import random
import re
from inspect import signature

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberMatcher
from phonenumbers.phonenumbermatcher import _PATTERN
from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NoOpNlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer, UrlRecognizer

from stages.pii.analyser import GATES, Analyser, presidio_kinds
from stages.pii.domains import ALTERNATIVES, quicken, taken
from stages.pii.phones import MOST_TRIES, TooManyTriesError, find_phones, promising
from stages.pii.search import Search, count_signs
from stages.pii.shapes import shape_of
from stages.pii.straight import straighten
from stages.pii.words import WordEngine

Analyser("en", ["URL"], 0.5, "none")  # no list of domains from a network


def stock_recognisers() -> list[PatternRecognizer]:
    """Every recogniser of Presidio's that needs no model, of every country."""
    return [kind(supported_language="en") for kinds in presidio_kinds().values() for kind in kinds]


class Pair:
    """Presidio's engine and our search with the same recognisers."""

    def __init__(self, words: WordEngine | None, mode: str = "substring") -> None:
        recognisers = stock_recognisers()
        engine = words or NoOpNlpEngine(models=[{"lang_code": "en", "model_name": "none"}])
        enhancer = LemmaContextAwareEnhancer(context_matching_mode=mode, context_suffix_count=2) if words else None
        registry = RecognizerRegistry(recognisers, supported_languages=["en"])
        self.stock = AnalyzerEngine(registry=registry, nlp_engine=engine, context_aware_enhancer=enhancer)
        self.ours = Search(recognisers, 0.0, words, enhancer, GATES)

    def compare(self, text: str) -> None:
        stock = {(item.start, item.end, item.entity_type, item.score) for item in self.stock.analyze(text, "en")}
        ours = self.ours.find(text)
        assert ours == sorted(ours)
        assert set(map(tuple, ours)) == stock


PLAIN, IN_CONTEXT = Pair(None), Pair(WordEngine("en"), "whole_word")

VALUES = """
    tom@example.com a.b-c@mail.co.uk x@y.museum tom@exa_mple.com 720-555-0188 +17205550188 +44 011442079460958
    0490754081 4111111111111111 4111-1111-1111-1111 378282246310005 501864667909 GB33BUKB20201555555555
    DE89-3704-0044-0532-0130-00 de89370400440532013000 536-22-8726 536.22.8726 536228726 203.0.113.7 ::1 2001:db8::1
    2001:db8:0:0:0:0:0:1 ::ffff:10.0.0.1 fe80::1%eth0/64 http://a.example.org/x?y=1 https://b.community example.com
    www.a.de A.IO 'http://q.org' "q.co.uk/x" 00482913 03/14/1972 1972-03-14 14.03.72 12-JAN-1999 3/99
    2012-01-02T08:00:00Z 12:34:56:78:9a:bc ab:cd:ef:ab:cd:ef 0012.3456.789A 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa
    bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq 123e4567-e89b-12d3-a456-426614174000 B12345678 AB123456C A1B2C3
    943-476-5919 BB1388568 1234567893 80-20-1 x y ７２０５５５０１８８ 720ー555ー0188 exa·mple.ſex www.K.uk 2012-01-02
    08:00:15 211-227 (2003) 3/10/2011 1-800-222-1222x12
"""
WORDS = """
    call phone card born account number passport driver license the is at of my IBAN ip . , : ; ( ) " ' < > € % x
"""
SPACES = [" ", " ", " ", "\n", "\t", "", "-", ", ", ": ", "\xa0", "\x1c", "\u2028", "/", "."]
pieces = st.one_of(
    st.sampled_from(VALUES.split()),
    st.sampled_from(WORDS.split()),
    st.text(alphabet="0123456789 -./:@xX+()aZéſK#,", max_size=24),
    st.builds(lambda value, cut: value[cut:], st.sampled_from(VALUES.split()), st.integers(1, 6)),
)
texts = st.lists(st.tuples(st.sampled_from(SPACES), pieces), max_size=9).map(lambda parts: "".join(sum(parts, ())))


@settings(max_examples=150, deadline=None)
@given(texts)
@example("IBAN GB33 BUKB 2020 1555 5555 55 2 days")
@example("ISO-8859-1\x1dexample.com 4111 1111\x1f1111 1111")
def test_same_findings_as_presidio_without_words(text: str) -> None:
    PLAIN.compare(text)


@settings(max_examples=100, deadline=None)
@given(texts)
@example("My passport is 123456789, driver license 12345678.")
def test_same_findings_as_presidio_with_context_words(text: str) -> None:
    IN_CONTEXT.compare(text)


def test_same_findings_of_words_seen_before_and_of_very_long_words() -> None:
    generator, values = random.Random(3), VALUES.split()
    for _ in range(40):
        text = (
            " ".join(generator.choices(values + WORDS.split(), k=30)) + " " + "".join(generator.choices(values, k=20))
        )
        PLAIN.compare(text)
        PLAIN.compare(text[generator.randrange(40) :])


def python_compiles(expression: str) -> bool:
    try:
        re.compile(expression, re.IGNORECASE)
    except re.error:
        return False  # asserts what stands before at any length
    return True


PATTERNS = [
    (recogniser, pattern)
    for recogniser in stock_recognisers()
    for pattern in getattr(recogniser, "patterns", [])
    if python_compiles(pattern.regex)
]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_every_match_of_a_pattern_has_the_shape_that_is_claimed(data: st.DataObject) -> None:
    """Texts made from the patterns themselves, as Python's parser reads them."""
    recogniser, pattern = data.draw(st.sampled_from(PATTERNS))
    shape = shape_of(pattern.regex, recogniser.global_regex_flags)
    assert shape is not None
    gates = GATES.get(recogniser.name, ())
    text = data.draw(st.from_regex(re.compile(pattern.regex, re.IGNORECASE)))
    for match in regex.finditer(pattern.regex, text, recogniser.global_regex_flags):
        found = match[0]
        assert len(found) >= shape.least_width
        assert all(map(operator.ge, count_signs(found), shape.needs))
        assert not (shape.in_word and regex.search(r"\s", found))
        if shape.between is not None:
            assert all(character.isdecimal() or character in shape.between for character in found)
        assert all(any(gate.search(word) for word in text.split()) for gate in gates)


def test_shape_of_an_expression_worked_out_by_hand() -> None:
    shape = shape_of(r"\b[A-Z]\d{2}(?:-\d{3}|:\d\d)(?!\d)", regex.IGNORECASE)
    assert shape == (True, (4, 1, 0, 0, 0, 0, 0, 1, 0), 6, None, 2)
    assert shape_of(r"\d{3}[- ]\d{4}(?!-|.\d(?=\w))", 0) == (False, (7, *[0] * 8), 8, frozenset("- "), 3)
    for expression, in_word in ((r"a(?=\s)", False), ("^a", False), ("a[^b]", False), (r"a[^\s]", True), ("a.", False)):
        shape = shape_of(expression, 0)
        assert shape is not None
        assert shape.in_word == in_word, expression
    assert shape_of(r"\p{Lu}+", 0) is None
    assert shape_of(r"a\Kb", 0) is None


def test_tree_of_domains_takes_what_the_alternation_takes() -> None:
    for pattern in UrlRecognizer.PATTERNS:
        alternation = ALTERNATIVES.search(pattern.regex)
        assert alternation is not None
        words = re.findall(r"\(\?:([a-z0-9-]+)\)", alternation[0])
        quick, slow = regex.compile(quicken(pattern.regex)), regex.compile(pattern.regex)
        assert ("Quoted" in pattern.name) == (quicken(pattern.regex) == pattern.regex)
        for word in words:
            for text in (f"'http://a.{word}'", f'"a.{word}e/x"', f"https://a.b.{word[:-1]} x.{word}.{word}"):
                assert [match.span() for match in quick.finditer(text)] == [
                    match.span() for match in slow.finditer(text)
                ]
    assert taken(["com", "co", "community", "cool"]) == ["com", "co"]
    assert quicken("no words here") == "no words here"


def test_phones_are_those_of_the_library_region_by_region() -> None:
    draw, digits = random.Random(5), "0123456789"
    prefixes = ["", "0", "00", "1", "44", "49", "+", "011", "0900", "33", "55", "972", "91", "1-", "180020"]
    numbers = [prefix + "".join(draw.choices(digits, k=draw.randint(4, 13))) for prefix in prefixes for _ in range(12)]
    numbers += ["".join(draw.choices(digits * 4 + " -.()/+x", k=draw.randint(5, 40))) for _ in range(200)]
    regions, found = PhoneRecognizer.DEFAULT_SUPPORTED_REGIONS, 0
    for text in numbers:
        expected = {
            (match.start, match.end) for region in regions for match in PhoneNumberMatcher(text, region, leniency=1)
        }
        assert {phone[:2] for phone in find_phones(text, regions, 1)} == expected, text
        found += len(expected)
    assert found > 50


written = st.one_of(
    st.text(alphabet="0123456789", min_size=1, max_size=11),
    st.sampled_from(
        [*" -./x()[]+~#,;：。％", " ext. ", ";ext=", " x", " int ", " доб ", "＋", "（", "\u2060", " anexo "]
    ),
    st.sampled_from(
        ["  ", " - ", " mg ", "a", "€", ":00", "٠١٢", "2012-01-02 08", "720-555-0188", "0490754081", "1640"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(written, max_size=14).map("".join))
@example("1 ext 16401 2 x 3, +1 5 (5 2-3 030 16 40 #5")
@example("(5555 1 mg 20 anexo 5 0800 5555 1")
def test_phones_passed_over_are_none_of_the_library(text: str) -> None:
    regions = PhoneRecognizer.DEFAULT_SUPPORTED_REGIONS
    expected = {
        (match.start, match.end) for region in regions for match in PhoneNumberMatcher(text, region, leniency=1)
    }
    assert {phone[:2] for phone in find_phones(text, regions, 1)} == expected


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_run_that_may_be_a_phone_is_looked_at(data: st.DataObject) -> None:
    """Runs made from the library's own expression. Those passed over are a few digits alone."""
    text = data.draw(st.from_regex(_PATTERN, fullmatch=True))
    if not promising(PhoneRecognizer.DEFAULT_SUPPORTED_REGIONS).search(text):
        assert text.isdecimal()
        assert len(text) < 4


def test_phones_of_a_text_with_too_many_numbers_are_left_to_presidio() -> None:
    text = "1 2 3 4 " * 30 + "call 720-555-0188"
    regions = PhoneRecognizer.DEFAULT_SUPPORTED_REGIONS
    assert (text.index("720"), len(text)) in {phone[:2] for phone in find_phones(text, regions, 1)}
    with pytest.raises(TooManyTriesError):
        list(find_phones(text, regions, 1, 100))
    assert signature(PhoneNumberMatcher).parameters["max_tries"].default == MOST_TRIES


def test_pattern_that_times_out_raises_in_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from presidio_analyzer import pattern_recognizer

    monkeypatch.setattr(pattern_recognizer, "REGEX_TIMEOUT_SECONDS", 0.02)
    search = Search([PatternRecognizer("A", patterns=[Pattern("slow", r"(a|a?)+$", 0.9)])])
    with pytest.raises(TimeoutError):
        search.find("a" * 5000 + "b")


FORMS = {
    "EMAIL_ADDRESS": "tom@example.com",
    "IP_ADDRESS": "203.0.113.7",
    "CREDIT_CARD": "4111-1111-1111-1111",
    "US_SSN": "536-22-8726",
    "IBAN_CODE": "GB33 BUKB 2020 1555 5555 55",
    "MEDICAL_RECORD": "MRN 00482913",
    "PHONE_NUMBER": "720-555-0188",
    "SECRET": "password: hunter2-8x",
    "DATE_OF_BIRTH": "born 1972-03-14",
}
SPELLINGS = {
    "hyphens": {"-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"},
    "spaces": {" ": "\xa0\u202f\u2007"},
    "wide digits": {str(digit): chr(0xFF10 + digit) for digit in range(10)},
}
ANALYSER = Analyser("en", list(FORMS), 0.5, "none")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_no_spelling_hides_a_value(entity: str, data: st.DataObject) -> None:
    value = FORMS[entity]
    written = value
    for signs in SPELLINGS.values():
        for plain, others in signs.items():
            written = written.replace(plain, data.draw(st.sampled_from([plain, *others])))
    for sign in data.draw(st.lists(st.sampled_from("\u200b\u200c\u200d\ufeff\xad"), max_size=3)):
        place = data.draw(st.integers(1, len(written) - 1))
        written = written[:place] + sign + written[place:]
    before = data.draw(st.sampled_from(["", "It is ", "é\u200b "]))
    plain = [item for item in ANALYSER.find(f"{value} ok") if item.entity == entity]
    found = [item for item in ANALYSER.find(f"{before}{written} ok") if item.entity == entity]
    assert (plain[-1].end, any(item.end == len(before) + len(written) for item in found)) == (len(value), True)


@pytest.mark.parametrize(
    ("text", "plain"),
    [("_a.b@gmail.com_", "_a.b@gmail.com "), ("SSN_219-09-9998", "SSN 219-09-9998"), ("ks_c_5601-1987", None)],
)
def test_underscores_beside_a_value(text: str, plain: str | None) -> None:
    assert straighten(text) == (None if plain is None else (plain, None))


def test_plain_signs_and_their_places() -> None:
    assert straighten("plain 720-555") is None
    assert straighten("déjà vu") is None
    assert straighten("５3\u20116\xa0x") == ("53-6 x", None)
    assert straighten("\ufeffa\u200bb") == ("ab", [1, 3])
