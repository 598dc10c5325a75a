"""The tagger as a Presidio recogniser: PERSON, LOCATION (places and whole addresses) and ORGANIZATION."""

from presidio_analyzer import AnalysisExplanation, EntityRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts

from stages.pii.ner.tagger import load_tagger

LEARNED = ("PERSON", "LOCATION", "ORGANIZATION")
"""The entities that the model knows."""


class LearnedNames(EntityRecognizer):
    """Finds `supported_entities`, some of LEARNED, in English text; what it finds depends on the text alone.

    The score is the probability of being a name of any type, so scrub.threshold can only be raised from the tagger's.
    """

    def __init__(self, supported_entities: list[str], supported_language: str = "en") -> None:
        super().__init__(list(supported_entities), name="LearnedNames", supported_language=supported_language)

    def load(self) -> None:
        self.tagger = load_tagger()

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        wanted = set(entities) & set(self.supported_entities)
        why = AnalysisExplanation(recognizer="LearnedNames", original_score=0.0, textual_explanation="linear-chain CRF")
        return [
            RecognizerResult(found.entity, found.start, found.end, found.score, why)
            for found in self.tagger.find(text)
            if found.entity in wanted
        ]
