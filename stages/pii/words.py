"""The words of a text without a language model: what Presidio's search for context words needs."""

from collections.abc import Iterator
from typing import Any

import regex
import spacy
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

from stages.common.errors import InputError

WORD = regex.compile(r"\w+|[^\w\s]")


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
