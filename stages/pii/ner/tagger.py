"""Finds names in a text with the trained CRF: spans with probabilities, the same for the same text always."""

import lzma
from functools import cache
from pathlib import Path

import pycrfsuite

from stages.pii import Finding
from stages.pii.ner.features import Lexicon, features_of, load_lexicon
from stages.pii.ner.text import Token, pieces_of, tokens_of

MODEL = Path(__file__).parent / "model.crfsuite.xz"
LABELS = {"PERSON": "PER", "LOCATION": "LOC", "ORGANIZATION": "ORG", "ADDRESS": "ADR"}
"""Type → its name inside the model's labels (B-PER, I-PER)."""
THRESHOLDS = {"PERSON": 0.5, "LOCATION": 0.5, "ORGANIZATION": 0.5}


class Tagger:
    """A model with its lists. Not for threads: CRFsuite keeps the text that it works on."""

    def __init__(self, model: bytes, lexicon: Lexicon, thresholds: dict[str, float] | None = None) -> None:
        self.model, self.lexicon = pycrfsuite.Tagger(), lexicon
        self.bytes = model  # open_inmemory does not copy them
        self.model.open_inmemory(model)
        self.thresholds = thresholds or THRESHOLDS
        self.kinds = {kind: [f"{part}-{label}" for part in "BI" if f"{part}-{label}" in self.model.labels()] for kind, label in LABELS.items()}

    def find(self, text: str) -> list[Finding]:
        findings: list[Finding] = []
        for piece in pieces_of(tokens_of(text)):
            findings += self.find_in_piece(piece)
        return findings

    def find_in_piece(self, tokens: list[Token]) -> list[Finding]:
        model = self.model
        model.set(pycrfsuite.ItemSequence(features_of(tokens, self.lexicon)))
        marginal = model.marginal
        lowest = 1 - min(self.thresholds.values())
        findings: list[Finding] = []
        last = -2
        for index, token in enumerate(tokens):
            if marginal("O", index) > lowest:
                continue
            shares = {kind: [marginal(label, index) for label in labels] for kind, labels in self.kinds.items()}
            shares["LOCATION"] = [a + b for a, b in zip(shares["LOCATION"], shares.pop("ADDRESS"), strict=True)]
            kind = max(shares, key=lambda kind: sum(shares[kind]))
            share = sum(shares[kind])
            if share < self.thresholds[kind]:
                continue
            begins = shares[kind][0] > shares[kind][1]
            if last == index - 1 and findings and findings[-1].entity == kind and not begins:
                findings[-1] = findings[-1]._replace(end=token.end, score=max(findings[-1].score, share))
            else:
                findings.append(Finding(token.start, token.end, kind, share))
            last = index
        return findings


@cache
def load_tagger() -> Tagger:
    return Tagger(lzma.decompress(MODEL.read_bytes()), load_lexicon())
