"""Chance that depends on names alone."""

from collections.abc import Iterable

import polars as pl

from stages.common.files import digest_text


def fraction_of(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: the same on every machine and whatever rows stand beside."""
    return int(digest_text("\x1f".join(map(str, parts)), 13), 16) / 16**13


def draw_fractions(names: Iterable[object], seed: int, purpose: str) -> pl.Series:
    """`fraction_of` for each name."""
    return pl.Series("fraction", [fraction_of(seed, purpose, name) for name in names], pl.Float64)
