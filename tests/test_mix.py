"""mix: every share, count and group is worked out here."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import make_row, make_rows
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.common.chat import encode, encode_reply
from stages.common.errors import InputError
from stages.common.mixture_contracts import MIXTURE
from stages.common.models import load_tokenizer
from stages.common.params import Source, check_shares
from stages.common.row_contracts import ALIKE, CLUSTERS
from stages.common.rows import message
from stages.mix import (
    Budget,
    Heldout,
    Mix,
    check_window,
    describe_mixture,
    left_out,
    plan_sources,
    prepare_rows,
    sample_mixture,
)
from stages.mixing.sample import divide_shares
from stages.mixing.split import add_split, group_rows, read_links
from stages.mixing.supply import find_limiting, list_warnings
from stages.mixing.tokens import count_tokens

LINKS = {"row_id": pl.String, "other_id": pl.String}
NO_LINKS = pl.DataFrame(schema=LINKS)


def params(
    budget: int | None = None, repeat_cap: int = 1, heldout: float = 0.0, total: int | None = None, **rest: Any
) -> Mix:
    values = {
        "unit": "tokens", "budget": Budget(sft=budget, preference=None, unpaired=None, total=total), "temperature": 1.0,
        "repeat_cap": repeat_cap, "heldout_share": Heldout(sft=heldout, preference=0.0, unpaired=0.0),
        "max_length_tokens": 100, "order": "shuffle", "seed": 1,
    }  # fmt: skip
    return Mix(**values | rest)


def source(name: str, share: float | None, **rest: Any) -> Source:
    return Source(name=name, path="x", licence="x", consent="x", share=share, **{"format": "alpaca"} | rest)


def counted(n: int, name: str, tokens: int, start: int = 0, rejected: str | None = None) -> pl.DataFrame:
    rows = make_rows([make_row(start + i, f"{name} {i}", "yes", rejected, source=name) for i in range(n)])
    return rows.with_columns(
        pl.lit(tokens, pl.Int64).alias("tokens"), pl.lit(tokens, pl.Int64).alias("longest_tokens"),
        pl.lit("train").alias("split"),
    )  # fmt: skip


def mix(rows: pl.DataFrame, sources: list[Source], settings: Mix) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The mixture, what came of the plan, and the ledger."""
    prepared = prepare_rows(rows, sources, settings)
    plan = plan_sources(prepared, sources, settings)
    mixture = sample_mixture(prepared, plan, sources, settings)
    return mixture, describe_mixture(mixture, plan), left_out(prepared, mixture)


def split_rows(rows: pl.DataFrame, links: pl.DataFrame = NO_LINKS, **shares: float) -> pl.DataFrame:
    wanted = {"sft": 0.0, "preference": 0.0, "unpaired": 0.0} | shares
    return add_split(rows, group_rows(rows, links, 1), wanted, 1)


def torn(rows: pl.DataFrame, links: pl.DataFrame = NO_LINKS) -> list[str]:
    """The rules on what must stand on one side that rows with `split` break."""
    rules = ("one side a subject", "no held-out prompt", "linked rows together")
    needed = {"linked rows together": {"links": links.lazy()}}
    broken = (each for each in MIXTURE.invariants if each.name in rules)
    return [each.name for each in broken if each.find(rows.lazy(), **needed.get(each.name, {})).collect().height]


def heldout_of(rows: pl.DataFrame) -> set[str]:
    return set(rows.filter(split="heldout")["row_id"])


def test_shares_are_met_in_tokens_or_rows() -> None:
    rows = pl.concat([counted(100, "a", 10), counted(100, "b", 40, 100)])
    sources = [source("a", 0.5), source("b", 0.5)]
    mixture, _, _ = mix(rows, sources, params(budget=1600))
    assert dict(mixture.group_by("source").len().iter_rows()) == {"a": 80, "b": 20}  # 800 tokens each
    mixture, described, _ = mix(rows, sources, params(budget=60, unit="rows"))
    assert dict(mixture.group_by("source").len().iter_rows()) == {"a": 30, "b": 30}
    assert described["tokens"].to_list() == [300, 1200]
    assert described["realised"].to_list() == [0.5, 0.5]


def test_without_a_budget_the_scarcest_source_decides() -> None:
    # b has 10 x 40 = 400 tokens for its half, so the whole is 800 and a gives 400 tokens = 40 rows.
    rows = pl.concat([counted(100, "a", 10), counted(10, "b", 40, 100)])
    mixture, described, _ = mix(rows, [source("a", 0.5), source("b", 0.5)], params())
    assert dict(mixture.group_by("source").len().iter_rows()) == {"a": 40, "b": 10}
    assert described["epochs"].to_list() == [0.4, 1.0]


def test_a_total_shrinks_all_kinds_by_one_factor() -> None:
    rows = pl.concat([counted(100, "a", 10), counted(50, "b", 10, 100, rejected="no")])
    sources = [source("a", 1.0), source("b", 1.0, format="pairs")]
    mixture, _, _ = mix(rows, sources, params(total=600))  # 1,000 + 500 tokens are there: a factor of 0.4
    assert dict(mixture.group_by("kind").len().iter_rows()) == {"sft": 40, "preference": 20}
    mixture, _, _ = mix(rows, sources, params(total=5000))
    assert mixture.height == 150
    assert mixture.group_by("kind").agg((pl.col("position").max() + 1 == pl.len()).all())["position"].all()


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, {"a": 0.5, "b": 0.4, "c": 0.1}), (2.0, {"a": 0.5, "b": 1 / 3, "c": 1 / 6}), (1e9, {"b": 0.25, "c": 0.25})],
)
def test_sources_without_a_share_divide_the_rest_by_size(temperature: float, expected: dict[str, float]) -> None:
    # sizes 400 and 100: 4 to 1; their square roots 2 to 1; in the limit equal
    sources = [source("a", 0.5), source("b", None), source("c", None)]
    shares = divide_shares(sources, {"a": 10, "b": 400, "c": 100}, temperature)
    assert {name: shares[name] for name in expected} == pytest.approx(expected)


def test_shares_that_cannot_be() -> None:
    assert check_shares([source("a", 0.5), source("b", None)]) == []
    assert check_shares([source("a", 0.5), source("b", 0.4)]) == [
        "the shares of kind sft sum to 0.9, not 1 (a 0.5, b 0.4)"
    ]
    assert check_shares([source("a", 1.0), source("b", None)]) == [
        "the shares of kind sft sum to 1 and leave nothing for b (a 1)"
    ]


@pytest.mark.parametrize("share", [0.5, None])
def test_a_source_that_is_to_give_and_has_nothing_is_refused_with_what_became_of_its_rows(share: float | None) -> None:
    rows = pl.concat([counted(5, "a", 10), counted(3, "b", 101, 50), counted(2, "b", 10, 60)])
    rows = rows.with_columns(split=pl.when(pl.col("row_id") == f"{60:016x}").then(pl.lit("heldout")).otherwise("split"))
    sources = [source("a", 0.5), source("b", share, max_tokens=9)]
    lost = "b: rows that came 5, too long for mix.max_length_tokens 3, held out 1, beyond its cap 1"
    with pytest.raises(InputError, match=rf"no sft row to train on is left \({lost}\); .* its share to the others"):
        mix(rows, sources, params())
    with pytest.raises(InputError, match=r"\(a: rows that came 0; b: rows that came 5, .* take the kind sft out"):
        mix(rows.filter(source="b"), [source("a", 0.5), source("b", 0.5, max_tokens=9)], params())
    with pytest.raises(InputError, match=r"\(a: rows that came 0\)"):
        mix(rows.clear(), [source("a", 1.0)], params())


def test_warnings_of_what_the_mixture_lacks() -> None:
    rows = pl.concat([counted(30, "a", 10), counted(1, "b", 90, 50), counted(1, "c", 101, 60), counted(4, "d", 10, 70)])
    sources = [source("a", 0.5), source("b", 0.1), source("c", 0.0), source("d", 0.4)]
    sources.append(source("e", None, format="pairs"))
    rows = pl.concat([rows, counted(1, "e", 101, 80, "no"), counted(1, "f", 50, 90, "no")])
    sources.append(source("f", None, format="pairs"))
    wanted = params(budget=200, heldout=0.1)
    is_held = pl.col("row_id") == f"{0:016x}"
    rows = rows.with_columns(
        split=pl.when(is_held).then(pl.lit("heldout")).otherwise("split"),
        group=pl.when(pl.col("source") == "d").then(pl.lit("one")).otherwise("row_id"),
    )
    prepared = prepare_rows(rows, sources, wanted)
    plan = plan_sources(prepared, sources, wanted)
    described = describe_mixture(sample_mixture(prepared, plan, sources, wanted), plan)
    held = "and its groups of one subject, prompt or cluster have"
    assert list_warnings(prepared, described, sources, wanted.heldout_share.model_dump(), "tokens") == [
        "b gives no row: 20 tokens are less than half of its first row",
        f"b holds nothing out: 10% of its 1 rows is 0.1, {held} 1 to 1 rows",
        "d ran out: it gives 28.6% of the tokens instead of 40.0%",  # 40 of 100 + 40
        f"d holds nothing out: 10% of its 4 rows is 0.4, {held} 4 to 4 rows",
        "e gives no row to train on (rows that came 1, too long for mix.max_length_tokens 1)",
    ]


@pytest.mark.parametrize("budget", [{"budget": 4}, {"total": 4}])
def test_a_budget_that_buys_no_row_is_refused(budget: dict[str, int]) -> None:
    rows = pl.concat([counted(5, "a", 10), counted(5, "b", 10, 50)])
    with pytest.raises(InputError, match=r"mix\.budget: 4 tokens for the kind sft .* raise mix\.budget\.sft or mix"):
        mix(rows, [source("a", 0.5), source("b", 0.5)], params(**budget))
    assert mix(rows, [source("a", 1.0), source("b", 0.0)], params(budget=5))[0].height == 1


def test_the_source_that_limits_the_others_is_named() -> None:
    rows = pl.concat([counted(100, "a", 10), counted(10, "b", 40, 100)])
    sources = [source("a", 0.5), source("b", 0.5)]
    assert find_limiting(mix(rows, sources, params())[1]) == "b"
    assert find_limiting(mix(rows, sources, params(budget=100))[1]) is None  # the budget does
    assert find_limiting(mix(rows, [source("a", None), source("b", None)], params())[1]) is None  # both give all


@settings(max_examples=60, deadline=None)
@given(
    given=st.lists(st.floats(0, 1), min_size=0, max_size=4),
    sizes=st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
    temperature=st.floats(1, 100),
)
def test_shares_sum_to_one(given: list[float], sizes: list[int], temperature: float) -> None:
    given = [share / (sum(given) + 1) for share in given]  # they leave something
    sources = [source(f"g{i}", share) for i, share in enumerate(given)]
    sources += [source(f"n{i}", None) for i in range(len(sizes))]
    available = {f"g{i}": 1 for i in range(len(given))} | {f"n{i}": size for i, size in enumerate(sizes)}
    if not any(sizes):
        return
    shares = divide_shares(sources, available, temperature)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(shares[f"n{i}"] == 0 for i, size in enumerate(sizes) if size == 0)


def test_a_cap_on_repeats_that_is_never_reached_costs_nothing() -> None:
    mixture, described, _ = mix(counted(4, "a", 10), [source("a", 1.0)], params(budget=84, repeat_cap=10**9))
    assert sorted(mixture["repeat"].to_list()) == [0] * 4 + [1] * 4  # 80 is nearer to 84 than 90 is
    assert described["unmet"].to_list() == [0]


def test_repeats_stop_at_the_cap_and_come_after_every_row_was_taken() -> None:
    rows = pl.concat([counted(4, "a", 10), counted(4, "b", 10, 50)])
    sources = [source("a", 0.5), source("b", 0.5, repeat_cap=1)]
    mixture, described, _ = mix(rows, sources, params(budget=2000, repeat_cap=3))
    assert sorted(mixture.filter(source="a")["repeat"].to_list()) == [0] * 4 + [1] * 4 + [2] * 4
    assert mixture.filter(source="b")["repeat"].to_list() == [0] * 4
    assert described["unmet"].to_list() == [1000 - 120, 1000 - 40]
    assert described["epochs"].to_list() == [3, 1]
    mixture, described, _ = mix(rows, sources, params(budget=100, repeat_cap=3))
    assert mixture.filter(pl.col("source") == "a", pl.col("repeat") == 0).height == 4
    assert mixture.filter(source="a").height == 5
    assert described["unmet"].to_list() == [0, 50 - 40]


def test_a_source_gives_no_more_than_its_caps() -> None:
    rows = pl.concat([counted(30, "a", 10), counted(30, "b", 10, 50), counted(30, "c", 10, 100)])
    sources = [source("a", None, max_rows=7), source("b", None, max_tokens=105), source("c", None)]
    _, described, ledger = mix(rows, sources, params())
    assert described["rows"].to_list() == [7, 10, 30]
    assert described["planned"].to_list() == pytest.approx([7 / 47, 10 / 47, 30 / 47])
    assert ledger["reason"].value_counts().rows() == [("over_cap", 43)]


def test_position_orders_each_split_from_zero() -> None:
    rows = counted(20, "a", 10).with_columns(
        pl.when(pl.int_range(20) < 5).then(pl.lit("heldout")).otherwise(pl.lit("train")).alias("split")
    )
    mixture, _, _ = mix(rows, [source("a", 1.0)], params(budget=150, heldout=0.25))
    for split, count in (("train", 15), ("heldout", 5)):
        assert mixture.filter(split=split)["position"].to_list() == list(range(count))


def test_orders() -> None:
    rows = pl.concat([counted(3, "a", 30), counted(3, "b", 10, 50), counted(3, "a", 20, 80)])
    sources = [source("a", None), source("b", None)]

    def ordered(order: str) -> list[tuple[str, int, int]]:
        mixture, _, _ = mix(rows, sources, params(order=order, repeat_cap=2))
        return mixture.sort("position").select("source", "tokens", "repeat").rows()

    once = [("b", 10), ("a", 20), ("a", 30)]
    assert ordered("length") == [(*key, repeat) for repeat in (0, 1) for key in once for _ in range(3)]
    assert [name for name, _, _ in ordered("source")] == (["a"] * 6 + ["b"] * 3) * 2
    assert [key[:2] for key in ordered("curriculum")[:9]] == [("a", 20)] * 3 + [("a", 30)] * 3 + [("b", 10)] * 3
    assert sorted(ordered("shuffle")) == sorted(ordered("length"))


def test_what_is_left_out_has_a_reason() -> None:
    rows = pl.concat([counted(3, "a", 10), counted(1, "a", 500, 50)])
    _, _, ledger = mix(rows, [source("a", 1.0)], params(budget=20))
    assert dict(ledger.select("reason", "detail").iter_rows()) == {"over_budget": "tokens=10", "too_long": "tokens=500"}
    assert set(ledger["action"]) == {"drop"}


def test_same_question_subject_or_link_stand_on_one_side() -> None:
    rows = [make_row(i, "When do you OPEN? ", f"answer {i}") for i in range(3)]
    rows += [make_row(10 + i, f"other {i}", "yes", subject="ab12") for i in range(3)]
    rows += [make_row(20, "when do you open?", "at noon", subject="cd34"), make_row(21, "alone", "yes", subject="cd34")]
    rows += [make_row(30, "first wording", "yes"), make_row(31, "second wording", "yes"), make_row(32, "third", "yes")]
    rows += [make_row(40 + i, f"filler {i}", "yes") for i in range(40)]
    gone = f"{99:016x}"  # dropped since: what it was linked to stays together all the same
    links = pl.DataFrame([(f"{30:016x}", gone), (gone, f"{31:016x}")], LINKS, orient="row")
    groups = dict(group_rows(make_rows(rows), links, 1).iter_rows())
    named: dict[str, set[int]] = {}
    for row_id, group in groups.items():
        named.setdefault(group, set()).add(int(row_id, 16))
    assert [members for members in named.values() if len(members) > 1] == [{0, 1, 2, 20, 21}, {10, 11, 12}, {30, 31}]
    assert {"cd34", "ab12"} < set(named)  # a subject names its group
    assert torn(split_rows(make_rows(rows), links, sft=0.5), links) == []


def groups_of(*conversations: list[str]) -> list[list[int]]:
    """The rows of each group, for the user's messages of each row."""
    turns = [
        [turn for text in said for turn in (message("user", text), message("assistant", "Yes."))]
        for said in conversations
    ]
    groups = group_rows(make_rows([make_row(i, "", "", messages=said) for i, said in enumerate(turns)]), NO_LINKS, 1)
    numbered = groups.with_columns(pl.col("row_id").str.to_integer(base=16)).sort("row_id")
    return sorted(numbered.group_by("group").agg("row_id")["row_id"].to_list())


def test_a_prompt_is_its_words_and_a_greeting_is_none() -> None:
    assert groups_of(["Is it open?"], ["is it OPEN"], ["Is it  open ?"], ["Is it closed?"]) == [[0, 1, 2], [3]]
    assert groups_of(["Hello"], ["Hello"], ["Thank you!"], ["Thank you!"]) == [[0], [1], [2], [3]]
    assert groups_of(["Hello", "Is it open?"], ["Hello", "Is it closed?"], ["Hello!", "is it open"]) == [[0, 2], [1]]
    assert groups_of(["今天开门吗？"], ["今天开门吗"], ["明天开门吗？"]) == [[0, 1], [2]]
    assert groups_of([], ["?"], ["👍"]) == [[0], [1], [2]]


def test_rows_of_one_template_give_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = make_rows(
        [make_row(i, f"What is the treatment of {i}?", f"The treatment of {i} is rest.") for i in range(400)]
    )
    ids = rows["row_id"]
    write_links([], [(one, other, 0.9, "number") for one, other in zip(ids[1:], ids[:-1], strict=True)])
    assert len(heldout_of(split_rows(rows, read_links(), sft=0.05))) == 20


def test_rows_that_are_torn_apart_are_found() -> None:
    def rules(links: pl.DataFrame = NO_LINKS, **rest: str) -> list[str]:
        prompts = ("the same prompt",) * 2 if rest.get("prompt") else ("one", "other")
        rows = make_rows([make_row(i, prompt, "yes", subject=rest.get("subject")) for i, prompt in enumerate(prompts)])
        return torn(rows.with_columns(split=pl.Series(["train", "heldout"])), links)

    assert rules() == []
    assert rules(prompt="same") == ["no held-out prompt"]
    assert rules(subject="ab12") == ["one side a subject"]
    assert rules(pl.DataFrame([(f"{0:016x}", f"{1:016x}")], LINKS, orient="row")) == ["linked rows together"]


def test_each_source_holds_out_its_share() -> None:
    rows = pl.concat(
        [counted(200, "a", 10), counted(30, "b", 10, 300), counted(4, "c", 10, 400), counted(50, "d", 10, 500, "no")]
    )
    held = split_rows(rows, sft=0.1, preference=0.4).filter(split="heldout")
    # of 4 rows 0.4 are to be held out: none is nearer than one
    assert dict(held.group_by("source").len().iter_rows()) == {"a": 20, "b": 3, "d": 20}


def test_a_group_of_more_than_twice_the_share_stays_in_training() -> None:
    rows = make_rows([make_row(i, "asked by all", str(i)) for i in range(30)])
    rows = pl.concat([rows, make_rows([make_row(100 + i, f"question {i}", "yes") for i in range(70)])])
    held = heldout_of(split_rows(rows, sft=0.1))  # 10 rows; the group has 30
    assert len(held) == 10
    assert all(int(row_id, 16) >= 100 for row_id in held)


def test_a_prompt_held_out_of_one_kind_is_trained_on_in_none() -> None:
    rows = make_rows(
        [make_row(i, f"Is it {i}?", "yes") for i in range(60)]
        + [make_row(100 + i, f"is it {i} ", "yes", "no", source="pairs") for i in range(60)]
    )
    split = split_rows(rows, sft=0.05, preference=0.4)
    assert {int(row_id, 16) % 100 for row_id in heldout_of(split.filter(kind="sft"))} == {
        int(row_id, 16) % 100 for row_id in heldout_of(split.filter(kind="preference"))
    }
    assert len(heldout_of(split)) == 48  # the larger share: 24 prompts


ROWS = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.sampled_from([None, None, "s1", "s2"])),
    min_size=1,
    max_size=40,
)


def rows_of(entries: list[tuple[int, str, str | None]]) -> pl.DataFrame:
    """A row for each (prompt, source, subject)."""
    return make_rows(
        [make_row(i, f"the prompt {p}", "yes", source=s, subject=subject) for i, (p, s, subject) in enumerate(entries)]
    )


@settings(max_examples=60, deadline=None)
@given(
    entries=ROWS, pairs=st.lists(st.tuples(st.integers(0, 45), st.integers(0, 45)), max_size=6), share=st.floats(0, 0.9)
)
def test_no_group_is_separated(
    entries: list[tuple[int, str, str | None]], pairs: list[tuple[int, int]], share: float
) -> None:
    rows = rows_of(entries)
    links = pl.DataFrame([(f"{one:016x}", f"{other:016x}") for one, other in pairs], LINKS, orient="row")
    split = split_rows(rows, links, sft=share)
    assert torn(split, links) == []
    assert heldout_of(split_rows(rows.reverse(), links, sft=share)) == heldout_of(split)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 8), min_size=10, max_size=30), share=st.floats(0.05, 0.5))
@example(sizes=[1, 1, 1, 1, 1, 2, 3, 3, 3, 3], share=0.05078125)
@example(sizes=[*[1] * 13, 8, *[1] * 11], share=0.1226)  # once the row has come, 8 rows are no longer twice the share
def test_a_new_row_moves_one_group_at_the_edge_and_no_other_source(sizes: list[int], share: float) -> None:
    grouped = [(group, "a", None) for group, size in enumerate(sizes) for _ in range(size)]
    other = [(100 + i, "b", None) for i in range(30)]
    rows = rows_of(grouped + other)
    new = make_rows([make_row(10_000, "a new prompt", "yes", source="a")])
    before, after = (split_rows(table, sft=share) for table in (rows, pl.concat([rows, new])))
    held_before, held_after = heldout_of(before), heldout_of(after) - {f"{10_000:016x}"}
    moved = [
        [grouped[int(row_id, 16)][0] if int(row_id, 16) < len(grouped) else "other" for row_id in rows_moved]
        for rows_moved in (held_before - held_after, held_after - held_before)
    ]
    at_the_edge, in_its_place = sorted(moved, key=len, reverse=True)
    assert len(set(at_the_edge)) <= 1
    assert "other" not in at_the_edge + in_its_place
    assert len(in_its_place) < max(1, len(at_the_edge))
    held = before.filter(source="a", split="heldout").height
    assert abs(held - share * len(grouped)) <= max(sizes) / 2 + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.lists(st.integers(1, 60), min_size=5, max_size=40),
    budget=st.integers(50, 3000),
    unit=st.sampled_from(["tokens", "rows"]),
)
def test_a_new_row_moves_only_the_edge_of_its_sources_sample(tokens: list[int], budget: int, unit: str) -> None:
    rows = counted(len(tokens), "a", 1).with_columns(tokens=pl.Series(tokens), longest_tokens=pl.Series(tokens))
    rows = pl.concat([rows, counted(20, "b", 10, 100)])
    new = counted(1, "a", 25, 10_000)
    sources, wanted = [source("a", 0.6), source("b", 0.4)], params(budget=budget, unit=unit)
    before, after = (mix(table, sources, wanted)[0] for table in (rows, pl.concat([rows, new])))
    assert before.filter(source="b").drop("position").equals(after.filter(source="b").drop("position"))
    order = [row_id for row_id in after.sort("position")["row_id"] if row_id != f"{10_000:016x}"]
    assert [row_id for row_id in before.sort("position")["row_id"] if row_id in set(order)] == order  # nobody came
    lost = before.join(after, on=["row_id", "repeat"], how="anti")
    drawn = prepare_rows(pl.concat([rows, new]), sources, wanted).filter(source="a").select("row_id", "draw", "amount")
    kept = drawn.join(after, on="row_id", how="semi")
    assert all(drawn.filter(row_id=row_id)["draw"][0] > (kept["draw"].max() or 0) for row_id in lost["row_id"])
    reversed_rows = mix(rows.reverse(), sources, wanted)[0]
    assert reversed_rows.equals(before)


def test_counting_in_batches_gives_what_the_trainers_count(toy_base: Path) -> None:
    call = '[{"name": "look_up", "arguments": {"name": "Ann"}}]'
    long = [message("system", "Be kind."), message("user", "Hi"), message("assistant", None, tool_calls=call)]
    long += [
        message("tool", "{}"),
        message("assistant", "Done "),
        message("user", "é 头痛"),
        message("assistant", "ok"),
    ]
    rows = make_rows(
        [
            make_row(0, "When?", "At noon. "),
            make_row(1, "x", "x", messages=long, tools='[{"type": "function", "function": {"name": "look_up"}}]'),
            make_row(2, "Why?", "Because.", "No\n"),
            make_row(3, "Why?", "Because.", "x") | {"kind": "unpaired", "rejected": None, "label": True},
        ]
    )
    tokenizer = load_tokenizer(toy_base)
    expected = []
    for row in rows.iter_rows(named=True):
        if row["kind"] == "sft":
            lengths = [len(encode(tokenizer, row["messages"], row["tools"]).input_ids)]
        else:
            replies = [reply for reply in (row["chosen"], row["rejected"]) if reply]
            pairs = [encode_reply(tokenizer, row["messages"], reply, row["tools"]) for reply in replies]
            lengths = [len(prompt) + len(reply) for prompt, reply in pairs]
        expected.append((sum(lengths), max(lengths)))
    assert count_tokens(rows, toy_base).select("tokens", "longest_tokens").rows() == expected


def write_links(cluster: list[tuple[str, str, float, bool]], alike: list[tuple[str, str, float, str]]) -> None:
    Path("data/clusters").mkdir(parents=True)
    pl.DataFrame(cluster, CLUSTERS.columns, orient="row").write_parquet(CLUSTERS.path)
    pl.DataFrame(alike, ALIKE.columns, orient="row").write_parquet(ALIKE.path)


def test_links_of_dedup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"clusters\.parquet: there is no such file"):
        read_links()
    cluster = [("r1", "r1", 1.0, True), ("r1", "r2", 0.9, False)]
    write_links(cluster, [("r3", "r1", 0.9, "label"), ("r4", "r1", 0.99, "word")])
    assert read_links().rows() == [("r1", "r1"), ("r2", "r1"), ("r3", "r1")]


def test_a_length_beyond_the_models_window_is_refused() -> None:
    longest = params().max_length_tokens
    check_window(params(), longest)
    check_window(params(), None)  # a model without a fixed window
    with pytest.raises(InputError, match=rf"mix.max_length_tokens: {longest} is more than .* {longest - 1} tokens"):
        check_window(params(), longest - 1)
