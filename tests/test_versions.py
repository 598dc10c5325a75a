"""Which rows of two versions are taken for the same, changed, added and removed."""

import hashlib

import polars as pl
from conftest import make_row, make_rows

from pedigree.versions import compare_rows

KEPT = [f"Where does door {number} lead?" for number in range(6)]


def make_version(*texts: str) -> pl.LazyFrame:
    """Rows of one file in this order; equal texts have equal ids."""
    rows = [make_row(number, text, "Ask at the desk.") for number, text in enumerate(texts)]
    ids = {text: hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts}
    return make_rows([row | {"row_id": ids[text]} for row, text in zip(rows, texts, strict=True)]).lazy()


def told(before: list[str], after: list[str]) -> list[tuple[str, int]]:
    return sorted(compare_rows(make_version(*before), make_version(*after)).select("change", "record").iter_rows())


def test_a_new_record_above_moves_none() -> None:
    assert told(KEPT, ["May I park here?", *KEPT]) == [("added", 0)]


def test_a_rewritten_record_is_changed_where_it_stands_between_the_same_rows() -> None:
    """Though its number has moved, and not a word is left."""
    before = [*KEPT[:3], "Which bus stops outside?", *KEPT[3:]]
    after = ["May I park here?", *KEPT[:3], "Cats must stay in baskets.", *KEPT[3:]]
    assert told(before, after) == [("added", 0), ("changed", 4)]


def test_strangers_with_the_same_number_are_no_change() -> None:
    before = ["Which bus stops outside?", *KEPT]
    after = [KEPT[0], "Cats must stay in baskets.", *KEPT[1:]]
    assert told(before, after) == [("added", 1), ("removed", 0)]


def test_a_likely_row_is_the_same_wherever_it_went() -> None:
    long = "On Mondays the front door opens at nine and the side door at ten for those with a pass"
    changes = compare_rows(make_version(long, *KEPT), make_version(*KEPT, f"{long} card"))
    assert changes.select("change", "record").rows() == [("changed", 6)]
    assert 0.5 <= changes["similarity"].item() < 1


def test_of_rows_that_all_changed_each_keeps_its_place() -> None:
    changes = compare_rows(make_version(KEPT[0], "one", "two"), make_version(KEPT[0], "three", "four"))
    assert changes.select("change", "record").rows() == [("changed", 1), ("changed", 2)]
