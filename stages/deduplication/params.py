"""The block `dedup` of params.yaml, and the S-curve that its bands and rows make."""

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.common.params import Params, PositiveInt, Seed


class Dedup(Params):
    """Which rows repeat another one."""

    mode: Literal["careful", "jaccard"]
    """`careful` also looks at what differs: other numbers, names, negations keep rows apart. `jaccard`: the threshold
    alone."""
    threshold: Annotated[float, Field(gt=0, le=1)]
    """Jaccard similarity in (0, 1] of word n-grams from which two rows are duplicates."""
    ngram: PositiveInt
    """Words per n-gram (characters in scripts without spaces)."""
    bands: PositiveInt
    """LSH bands; a pair of similarity s is a candidate with probability 1 - (1 - s^rows)^bands."""
    rows: PositiveInt
    """Signature values per band; bands x rows hashes are computed for a row."""
    swapped_labels: Literal["drop_both", "keep_first"]
    """What becomes of rows that say the same with exchanged replies or the other label: all of them go, or the best
    ranked stays."""
    seed: Seed
    """Of the hash functions."""


def candidate_probability(similarity: npt.ArrayLike, params: Dedup) -> npt.NDArray[np.float64]:
    """The S-curve of the LSH: 1 - (1 - s^rows)^bands."""
    return 1 - (1 - np.asarray(similarity, np.float64) ** params.rows) ** params.bands


def even_similarity(params: Dedup) -> float:
    """The similarity at which a pair is a candidate as often as not."""
    return float((1 - 0.5 ** (1 / params.bands)) ** (1 / params.rows))
