"""Finding personal data: Presidio with our own recognisers, and lists of names (see analyser.py)."""

from typing import NamedTuple


class Finding(NamedTuple):
    """Characters `start` to `end` of a text are of the type `entity`, with Presidio's score in [0, 1]."""

    start: int
    end: int
    entity: str
    score: float
