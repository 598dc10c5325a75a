"""One Presidio AnalyzerEngine for the entities that params.yaml names, and what makes it fast and safe.

- Context words come from a plain split into words instead of a language model, made only where a finding asks for them.
- An entity is looked for only where a cheap expression says that it can be there (POSSIBLE).
- A pattern that times out, which Presidio logs and then passes over, is a failure here. Its log is never shown: it
  quotes values.
- Nothing reaches for a network: no model is fetched, and the list of top-level domains is the one in the package.
"""

import difflib
import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import regex
import spacy
import tldextract
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, predefined_recognizers
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import SpacyRecognizer

from stages.common.errors import InputError
from stages.pii import Finding, patterns

MODEL_ENTITIES = ("PERSON", "LOCATION", "ORGANIZATION", "NRP")
"""What no pattern finds: a language model does, and for PERSON our lists."""

CONTEXT_AFTER = 2  # words after a finding that are context too: 082 490 1693 (office)
OUR_ENTITIES = ("MEDICAL_RECORD", "DATE_OF_BIRTH", "STREET_ADDRESS")

POSSIBLE = {
    "CREDIT_CARD": regex.compile(r"(?:\d[- ]?){12}"),
    "CRYPTO": regex.compile(r"\w{26}"),
    "DATE_OF_BIRTH": regex.compile(r"\d[/.-]\d|(?:19|20)\d{2}"),
    "EMAIL_ADDRESS": regex.compile("@"),
    "IBAN_CODE": regex.compile(r"(?<=[^\W\d_]{2})\d{2}"),
    # Two dots between digits; or two colons, as every form of IPv6 has, with at most four digits between.
    "IP_ADDRESS": regex.compile(r"\d\.\d{1,3}\.\d|:\w{0,4}:"),
    "MEDICAL_RECORD": regex.compile(r"\d{4}"),
    # Seven digits with at most four signs between two of them; x and the sign ー stand in some numbers.
    "PHONE_NUMBER": regex.compile(r"\d(?:[\WxXー]{0,4}\d){6}"),
    "STREET_ADDRESS": regex.compile(r"\d[A-Za-z]? [A-Z0-9]"),
    # Every top-level domain begins with two letters.
    "URL": regex.compile(r"[\w.-]\.[^\W\d_]{2}"),
    "US_BANK_NUMBER": regex.compile(r"\d{8}"),
    "US_SSN": regex.compile(r"(?:\d[-. ]?){9}"),
}
"""Entity → an expression that matches somewhere in every text where a recogniser of that entity can find anything."""

WORD = regex.compile(r"\w+|[^\w\s]")


class PatternTimeoutError(RuntimeError):
    """A regular expression took longer than Presidio's REGEX_TIMEOUT_SECONDS."""


class _Timeouts(logging.Handler):
    """Turns the warning with which Presidio passes over a slow pattern into an exception; shows nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], TimeoutError):
            raise PatternTimeoutError("a pattern timed out")


class Words(NlpArtifacts):
    """What a recogniser or the search for context words asks of a text, made when first asked for."""

    def __init__(
        self, text: str, stop_words: frozenset[str], doc: Any = None, scores: list[float] | None = None
    ) -> None:
        self.text, self.stop_words = text, stop_words
        self.entities = doc or []
        self.scores = scores or []

    def __getattr__(self, name: str) -> Any:
        if name not in ("tokens", "tokens_indices", "lemmas", "keywords"):
            raise AttributeError(name)
        found = list(WORD.finditer(self.text))
        values: dict[str, Any] = {
            "tokens": [match[0] for match in found],
            "tokens_indices": [match.start() for match in found],
            "lemmas": [singular(match[0].lower()) for match in found],
        }
        values["keywords"] = {word for word in values["lemmas"] if word.isalpha() and word not in self.stop_words}
        self.__dict__.update(values)
        return values[name]


def singular(word: str) -> str:
    """cards → card: all the grammar that context words need."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


class WordEngine(NlpEngine):
    """No language model: words only."""

    def __init__(self, language: str) -> None:
        self.language = language
        try:
            stop_words = spacy.util.get_lang_class(language).Defaults.stop_words
        except ImportError:
            raise InputError(f"params.yaml, scrub.language: spaCy knows no language {language}; take en") from None
        self.stop_words = frozenset(singular(word) for word in stop_words) - {"call"}  # "call 303 555 0142"

    def load(self) -> None:
        pass

    def is_loaded(self) -> bool:
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        return Words(text, self.stop_words)

    def process_batch(
        self, texts: Any, language: str, batch_size: int = 1, n_process: int = 1, **rest: Any
    ) -> Iterator[tuple[str, NlpArtifacts]]:
        yield from ((text, self.process_text(text, language)) for text in texts)

    def is_stopword(self, word: str, language: str) -> bool:
        return word.lower() in self.stop_words

    def is_punct(self, word: str, language: str) -> bool:
        return not word[:1].isalnum()

    def get_supported_entities(self) -> list[str]:
        return []

    def get_supported_languages(self) -> list[str]:
        return [self.language]


class ModelEngine(SpacyNlpEngine):
    """Entities of a spaCy model that is installed or in a folder; context words as in WordEngine."""

    def __init__(self, language: str, model: str) -> None:
        super().__init__(models=[{"lang_code": language, "model_name": model}])
        self.words = WordEngine(language)
        if not (spacy.util.is_package(model) or Path(model).is_dir()):
            raise InputError(
                f"params.yaml, scrub.names: the spaCy model {model} is not installed and is no folder; "
                "install it beside the other packages, or take lists"
            )
        try:
            self.model = spacy.load(model)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"params.yaml, scrub.names: {model} cannot be loaded ({type(error).__name__})") from None
        self.nlp = {language: self.model}  # type: ignore[assignment]

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        doc = self.model(text)
        entities, scores = self._get_updated_entities(self._get_entities(doc), self._get_scores_for_entities(doc))
        return Words(text, self.words.stop_words, entities, scores)

    def detects(self) -> set[str]:
        """The entities that the model's labels stand for."""
        mapping = self.ner_model_configuration.model_to_presidio_entity_mapping or {}
        return {mapping.get(label, label) for labels in self.model.pipe_labels.values() for label in labels}


def presidio_kinds() -> dict[str, list[Any]]:
    """Entity → Presidio's recognisers of it that need no model, of every country."""
    kinds: dict[str, list[Any]] = {}
    for name in sorted(predefined_recognizers.__all__):
        kind = getattr(predefined_recognizers, name)
        arguments = inspect.signature(kind.__init__).parameters if inspect.isclass(kind) else {}
        if "supported_entity" in arguments:
            kinds.setdefault(arguments["supported_entity"].default, []).append(kind)
    return kinds


def presidio_recognisers(entity: str, language: str) -> list[EntityRecognizer]:
    return [kind(supported_language=language) for kind in presidio_kinds().get(entity, [])]


def recognisers_of(entity: str, language: str, names: str) -> list[EntityRecognizer]:
    """The recognisers of one entity; none where only a language model would find it."""
    match entity:
        case "PERSON":
            return [patterns.listed_names(language)] if names == "lists" else []
        case "PHONE_NUMBER":
            return [patterns.PhoneNumbers(supported_language=language), patterns.written_phones(language)]
        case "CREDIT_CARD":
            return [*presidio_recognisers(entity, language), patterns.written_cards(language)]
        case "IBAN_CODE":
            return [patterns.ibans(language)]
        case "MEDICAL_RECORD":
            return [patterns.medical_records(language)]
        case "DATE_OF_BIRTH":
            return [patterns.dates_of_birth(language)]
        case "STREET_ADDRESS":
            return [patterns.street_addresses(language)]
        case _:
            return presidio_recognisers(entity, language)


class Analyser:
    """Finds the given entities in texts.

    names: `lists`, `none` or `spacy:MODEL`. Raises InputError on entities that nobody knows and models that are not
    there; what its `find` raises is a recogniser's failure.
    """

    def __init__(self, language: str, entities: list[str], threshold: float, names: str) -> None:
        known = sorted({*MODEL_ENTITIES, *OUR_ENTITIES, *presidio_kinds()})
        for entity in entities:
            if entity not in known:
                near = " or ".join(difflib.get_close_matches(entity, known, cutoff=0.4)) or "PERSON"
                raise InputError(f"params.yaml, scrub.entities: nothing finds {entity}; did you mean {near}?")
        logger = logging.getLogger("presidio-analyzer")
        logger.handlers, logger.propagate = [_Timeouts()], False
        logger.setLevel(logging.WARNING)
        tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        model = names.removeprefix("spacy:") if names.startswith("spacy:") else None
        nlp: NlpEngine = ModelEngine(language, model) if model else WordEngine(language)
        recognisers = [found for entity in entities for found in recognisers_of(entity, language, names)]
        if isinstance(nlp, ModelEngine):
            modelled = [entity for entity in entities if entity in nlp.detects()]
            recognisers += [SpacyRecognizer(language, modelled)] if modelled else []
        covered = {entity for recogniser in recognisers for entity in recogniser.get_supported_entities()}
        self.language, self.threshold = language, threshold
        self.entities = [entity for entity in entities if entity in covered]
        self.not_covered = [entity for entity in MODEL_ENTITIES if entity not in covered]
        self.engine = AnalyzerEngine(
            registry=RecognizerRegistry(recognisers, supported_languages=[language]),
            nlp_engine=nlp,
            supported_languages=[language],
            context_aware_enhancer=LemmaContextAwareEnhancer(
                context_matching_mode="whole_word", context_suffix_count=CONTEXT_AFTER
            ),
        )

    def find(self, text: str) -> list[Finding]:
        """What Presidio finds in `text` from the threshold on, by position; findings may overlap."""
        possible = [entity for entity in self.entities if entity not in POSSIBLE or POSSIBLE[entity].search(text)]
        return self.find_of(possible, text) if possible else []

    def find_of(self, entities: list[str], text: str) -> list[Finding]:
        """As `find`, for some of the entities and without asking what is possible."""
        results = self.engine.analyze(text, self.language, entities, score_threshold=self.threshold)
        return sorted(Finding(found.start, found.end, found.entity_type, found.score) for found in results)
