import polars as pl
import pytest
from conftest import make_row, make_rows

from stages.common.errors import InputError
from stages.common.params import Source
from stages.mix import Budget, Heldout, Mix, add_split, check_window, left_out, sample_mixture, sample_source


def params(budget: int | None = None, repeat_cap: int = 1, heldout: float = 0.0) -> Mix:
    return Mix(
        budget_tokens=Budget(sft=budget, preference=None, unpaired=None), repeat_cap=repeat_cap,
        heldout_share=Heldout(sft=heldout, preference=0.0, unpaired=0.0), max_length_tokens=100, seed=1,
    )  # fmt: skip


def source(name: str, share: float) -> Source:
    return Source(name=name, path="x", format="alpaca", licence="x", consent="x", share=share)


def counted(n: int, name: str, tokens: int, start: int = 0) -> pl.DataFrame:
    rows = make_rows([make_row(start + i, f"{name} {i}", "yes", source=name) for i in range(n)])
    return rows.with_columns(
        pl.lit(tokens, pl.Int64).alias("tokens"), pl.lit(tokens, pl.Int64).alias("longest_tokens"),
        pl.lit("train").alias("split"),
    )  # fmt: skip


def test_shares_are_met_in_tokens_not_rows() -> None:
    rows = pl.concat([counted(100, "a", 10), counted(100, "b", 40, 100)])
    mixture = sample_mixture(rows, [source("a", 0.5), source("b", 0.5)], params(budget=1600), "sft")
    tokens = dict(mixture.group_by("source").agg(pl.col("tokens").sum()).iter_rows())
    assert tokens == {"a": 800, "b": 800}  # 80 rows of 10 tokens, 20 rows of 40


def test_without_a_budget_the_scarcest_source_decides() -> None:
    # b has 10 x 40 = 400 tokens for its half, so the whole is 800 and a gives 400 tokens = 40 rows.
    rows = pl.concat([counted(100, "a", 10), counted(10, "b", 40, 100)])
    mixture = sample_mixture(rows, [source("a", 0.5), source("b", 0.5)], params(), "sft")
    assert dict(mixture.group_by("source").len().iter_rows()) == {"a": 40, "b": 10}


def test_repeats_stop_at_the_cap() -> None:
    sample = sample_source(counted(4, "a", 10), target_tokens=1000, repeat_cap=3, seed=1)
    assert sample.height == 12
    assert sorted(sample["repeat"].to_list()) == [0] * 4 + [1] * 4 + [2] * 4


def test_no_row_repeats_before_every_row_was_taken() -> None:
    sample = sample_source(counted(4, "a", 10), target_tokens=50, repeat_cap=3, seed=1)
    assert sample.filter(pl.col("repeat") == 0)["row_id"].n_unique() == 4
    assert sample.height == 5


def test_a_row_keeps_its_side_when_others_come() -> None:
    few = make_rows([make_row(i, f"question {i}", "yes") for i in range(50)])
    many = make_rows([make_row(i, f"question {i}", "yes") for i in range(200)])
    sides = dict(add_split(few, params(heldout=0.3)).select("row_id", "split").iter_rows())
    more = dict(add_split(many, params(heldout=0.3)).select("row_id", "split").iter_rows())
    assert all(more[row_id] == side for row_id, side in sides.items())
    share = sum(side == "heldout" for side in more.values()) / 200
    assert 0.2 < share < 0.4  # binomial, standard deviation 0.03


def test_same_question_and_same_subject_stand_on_one_side() -> None:
    rows = [make_row(i, "When do you OPEN? ", f"answer {i}") for i in range(10)]
    rows += [make_row(100 + i, f"other {i}", "yes", subject="ab12") for i in range(10)]
    split = add_split(make_rows(rows), params(heldout=0.5))
    assert split.filter(pl.col("subject").is_null())["split"].n_unique() == 1
    assert split.filter(pl.col("subject") == "ab12")["split"].n_unique() == 1


def test_position_orders_each_split_from_zero() -> None:
    rows = counted(20, "a", 10).with_columns(
        pl.when(pl.int_range(20) < 5).then(pl.lit("heldout")).otherwise(pl.lit("train")).alias("split")
    )
    mixture = sample_mixture(rows, [source("a", 1.0)], params(budget=150, heldout=0.25), "sft")
    for split, count in (("train", 15), ("heldout", 5)):
        assert mixture.filter(split=split)["position"].to_list() == list(range(count))


def test_what_is_left_out_has_a_reason() -> None:
    rows = pl.concat([counted(3, "a", 10), counted(1, "a", 500, 50)])
    taken = rows.head(2)
    ledger = left_out(rows, taken, params())
    assert dict(ledger.select("reason", "detail").iter_rows()) == {"over_budget": "tokens=10", "too_long": "tokens=500"}
    assert set(ledger["action"]) == {"drop"}


def test_a_source_with_a_share_but_no_row_is_an_error() -> None:
    with pytest.raises(InputError, match=r"b has a share of 0\.5 but no sft row"):
        sample_mixture(counted(5, "a", 10), [source("a", 0.5), source("b", 0.5)], params(), "sft")


def test_a_prompt_held_out_of_one_kind_is_trained_on_in_none() -> None:
    rows = make_rows(
        [make_row(i, f"question {i}", "yes") for i in range(60)]
        + [make_row(100 + i, f"Question {i} ", "yes", "no") for i in range(60)]
    )
    settings = params(heldout=0.05)
    settings = settings.model_copy(update={"heldout_share": Heldout(sft=0.05, preference=0.4, unpaired=0.0)})
    split = add_split(rows, settings)
    sides = (
        split.with_columns((pl.col("record") % 100).alias("asked")).group_by("asked").agg(pl.col("split").n_unique())
    )
    assert set(sides["split"]) == {1}
    assert 0.2 < (split["split"] == "heldout").mean() < 0.6


def test_a_length_beyond_the_models_window_is_refused() -> None:
    longest = params().max_length_tokens
    check_window(params(), longest)
    check_window(params(), None)  # a model without a fixed window
    with pytest.raises(InputError, match=rf"mix.max_length_tokens: {longest} is more than .* {longest - 1} tokens"):
        check_window(params(), longest - 1)
