"""Names from a model of the user's own: spaCy, transformers or GLiNER, each through Presidio's own part for it.

`spacy:MODEL` an installed model or a folder; `transformers:NAME` a token classifier; `gliner:NAME` a GLiNER model; the
names of the last two are folders or names on the hub that are already in its cache. Nothing is downloaded. Each model
says which of Presidio's entities its labels stand for.
"""

import importlib.util
from pathlib import Path
from typing import Any

import spacy
from presidio_analyzer import EntityRecognizer
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine, SpacyNlpEngine, TransformersNlpEngine
from presidio_analyzer.nlp_engine.huggingface_token_pipe import FACTORY_NAME
from presidio_analyzer.predefined_recognizers import GLiNERRecognizer, SpacyRecognizer, TransformersRecognizer

from stages.common.errors import InputError
from stages.pii.words import WordEngine, Words

ENTITIES = ("PERSON", "LOCATION", "ORGANIZATION", "NRP")
"""What no pattern finds: a model does, and for PERSON our lists."""


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


class TransformersEngine(TransformersNlpEngine):
    """Entities of a token classifier over a blank spaCy pipeline; context words as in WordEngine."""

    def __init__(self, language: str, model: str) -> None:
        stay_offline()
        super().__init__(models=[{"lang_code": language, "model_name": {"spacy": "", "transformers": model}}])
        self.words = WordEngine(language)
        settings = self.ner_model_configuration
        pipeline = spacy.blank(language)  # in the place of a spaCy model, which Presidio would download
        options = {
            "model": model,
            "stride": settings.stride,
            "alignment_mode": settings.alignment_mode,
            "aggregation_strategy": settings.aggregation_strategy,
            "spans_key": self.entity_key,
        }
        try:
            self.classifier: Any = pipeline.add_pipe(FACTORY_NAME, config=options)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise cannot_load(f"transformers:{model}", error) from None
        self.nlp = {language: pipeline}  # type: ignore[assignment]
        self.language = language

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        found = super().process_text(text, language)
        return Words(text, self.words.stop_words, found.entities, found.scores)

    def get_supported_languages(self) -> list[str]:
        return [self.language]

    def detects(self) -> set[str]:
        """The entities that the model's labels stand for."""
        mapping = self.ner_model_configuration.model_to_presidio_entity_mapping or {}
        labels = {label.split("-")[-1] for label in self.classifier.pipeline.model.config.id2label.values()}
        return {mapping.get(label, label) for label in labels}


def stay_offline() -> None:
    """What is not in the hub's cache is not there: without this a name that is none costs a minute of tries."""
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = True


def cannot_load(names: str, error: Exception) -> InputError:
    return InputError(
        f"params.yaml, scrub.names: {names} cannot be loaded ({type(error).__name__}); give a folder, or fetch it first"
    )


def need_package(module: str, package: str, names: str) -> None:
    """Raises InputError where a package that `names` needs is not installed."""
    if importlib.util.find_spec(module) is None:
        raise InputError(
            f"params.yaml, scrub.names: {names} needs the package {package}; `pip install {package}`, or take lists"
        )


def gliner_recogniser(language: str, model: str, entities: list[str]) -> EntityRecognizer:
    """Presidio's recogniser for GLiNER, asked for `entities`. Raises InputError."""
    need_package("gliner", "gliner", f"gliner:{model}")
    labels = {entity.lower().replace("_", " "): entity for entity in entities}
    stay_offline()
    try:
        return GLiNERRecognizer(entity_mapping=labels, model_name=model, supported_language=language)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise cannot_load(f"gliner:{model}", error) from None


def model_of(names: str, language: str, entities: list[str]) -> tuple[NlpEngine, list[EntityRecognizer]]:
    """What gives words and the model's entities to the recognisers, and the recognisers of `entities` that the model
    knows. Raises InputError where the model is not there."""
    kind, _, model = names.partition(":")
    if kind == "gliner":
        wanted = [entity for entity in entities if entity in ENTITIES]
        return WordEngine(language), [gliner_recogniser(language, model, wanted)] if wanted else []
    if kind == "model":
        from stages.pii.ner.recogniser import LEARNED, LearnedNames

        wanted = [entity for entity in entities if entity in LEARNED]
        return WordEngine(language), [LearnedNames(wanted, language)] if wanted else []
    if kind not in ("spacy", "transformers"):
        return WordEngine(language), []
    engine = ModelEngine(language, model) if kind == "spacy" else TransformersEngine(language, model)
    wanted = [entity for entity in entities if entity in engine.detects()]
    reader = SpacyRecognizer if kind == "spacy" else TransformersRecognizer
    return engine, [reader(supported_language=language, supported_entities=wanted)] if wanted else []
