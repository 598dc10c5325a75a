"""dedup: every similarity is worked out here by counting 3-grams."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages import dedup
from stages.common.errors import InputError
from stages.common.params import validate
from stages.common.probes import make_table
from stages.common.rows import ROW_SCHEMA, message
from stages.common.shingles import hash_ngrams, hash_tokens, ngram_sets, split_tokens
from stages.dedup import list_clusters, mark_duplicates, measure
from stages.deduplication import buckets
from stages.deduplication.params import Dedup, candidate_probability, even_similarity
from stages.deduplication.signatures import sign_sets

PARAMS = Dedup(mode="jaccard", threshold=0.8, ngram=3, bands=32, rows=4, swapped_labels="keep_first", seed=1)
CAREFUL = PARAMS.model_copy(update={"mode": "careful", "swapped_labels": "drop_both"})
SOURCES = ["first", "second"]


def row(row_id: str, text: str, source: str = "first", kind: str = "sft", **rest: Any) -> dict[str, Any]:
    empty = dict.fromkeys(ROW_SCHEMA)
    given = {"row_id": row_id, "source": source, "kind": kind, "messages": [message("user", text)]}
    return empty | {"file": "f", "record": 0, "licence": "CC0-1.0"} | given | rest


def ask(row_id: str, text: str, source: str = "first") -> dict[str, Any]:
    """A whole conversation: the reply adds one word at the end."""
    return row(row_id, text, source, messages=[message("user", text), message("assistant", "Noted")])


def pair(row_id: str, prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    replies: dict[str, Any] = {"chosen": [message("assistant", chosen)], "rejected": [message("assistant", rejected)]}
    return row(row_id, prompt, kind="preference", **replies)


def words(changes: dict[int, str] | None = None, count: int = 30) -> str:
    """`count` different words, some replaced by position. 30 words are 28 3-grams; a word in the middle is in 3."""
    return " ".join((changes or {}).get(position, f"word{position}") for position in range(count))


def marks_of(*rows: dict[str, Any], params: Dedup = PARAMS) -> dict[str, tuple[str | None, str, float]]:
    """row_id → reason, the row that it speaks of, similarity."""
    marks = mark_duplicates(pl.DataFrame(list(rows), ROW_SCHEMA), SOURCES, params)[0]
    return {line["row_id"]: (line["reason"], line["other_id"], line["similarity"]) for line in marks.to_dicts()}


def alike_of(*rows: dict[str, Any], params: Dedup = CAREFUL) -> list[tuple[Any, ...]]:
    """Lines of alike.parquet: row_id, other_id, similarity, why."""
    return mark_duplicates(pl.DataFrame(list(rows), ROW_SCHEMA), SOURCES, params)[1].rows()


def test_similarity_is_exact_and_the_threshold_is_reached() -> None:
    # b: a word in the middle changes 3 of 28 n-grams: 25 common, 31 in all. c: two of them: 22 of 34, below 0.8.
    marks = marks_of(row("a", words()), row("b", words({14: "other"})), row("c", words({9: "more", 20: "less"})))
    assert marks["a"] == (None, "a", 1.0)
    assert marks["b"] == ("near_duplicate", "a", pytest.approx(25 / 31))
    assert marks["c"] == (None, "c", 1.0)


def test_similarity_equal_to_the_threshold_is_a_duplicate() -> None:
    # 12 words are 10 n-grams; a new last word changes 1: 9 common, 11 in all.
    rows = row("a", words(count=12)), row("b", words({11: "other"}, count=12))
    assert marks_of(*rows, params=PARAMS.model_copy(update={"threshold": 9 / 11}))["b"][0] == "near_duplicate"
    assert marks_of(*rows, params=PARAMS.model_copy(update={"threshold": 9 / 11 + 1e-9}))["b"][0] is None


def test_a_dropped_row_is_never_a_reason() -> None:
    # a-b and b-c: 25/31; a-c: 22/34. b goes for a, and c, which is like b alone, stays.
    marks = marks_of(row("a", words()), row("b", words({5: "other"})), row("c", words({5: "other", 20: "third"})))
    assert [marks[name][:2] for name in "abc"] == [(None, "a"), ("near_duplicate", "a"), (None, "c")]


def test_the_most_similar_kept_row_is_named() -> None:
    # c to a: 25/31 (one word in the middle); c to b: 27/29 (its last word). a and b differ in both: 24/32, both stay.
    marks = marks_of(
        row("a", words({29: "end"})), row("b", words({5: "other"})), row("c", words({5: "other", 29: "end"}))
    )
    assert marks["c"] == ("near_duplicate", "b", pytest.approx(27 / 29))


@pytest.mark.parametrize("turn", [1, -1])
def test_who_survives_depends_on_source_then_length_then_id_never_on_order(turn: int) -> None:
    rows = [
        row("a", "Hello there", source="second"),
        row("b", "hello  THERE"),  # the earlier source
        row("d", words()),
        row("c", words() + " tail"),  # longer: 29 n-grams, 28 common
        row("f", words(count=40).upper()),
        row("e", words(count=40)),  # equal but for case: the smaller id
    ]
    marks = marks_of(*rows[::turn])
    assert marks["a"] == ("exact_duplicate", "b", 1.0)
    assert marks["d"] == ("near_duplicate", "c", pytest.approx(28 / 29))
    assert marks["f"] == ("exact_duplicate", "e", 1.0)
    assert {name for name in marks if marks[name][0] is None} == {"b", "c", "e"}


def test_exact_means_equal_after_normalisation() -> None:
    marks = marks_of(row("a", "Take ﬁve tablets."), row("b", "take five\n tablets."), row("c", "take five tablets!"))
    assert marks["b"][0] == "exact_duplicate"
    assert marks["c"] == ("near_duplicate", "a", 1.0)  # the same words, another sign


def test_kinds_are_not_compared() -> None:
    marks = marks_of(row("a", words()), row("b", words(), kind="unpaired", label=True))
    assert marks["a"][0] is None
    assert marks["b"][0] is None


def said(row_id: str, *turns: tuple[str, str], tools: str | None = None) -> dict[str, Any]:
    return row(row_id, "", messages=[message(role, text) for role, text in turns], tools=tools)


@pytest.mark.parametrize("params", [PARAMS, CAREFUL])
def test_other_tools_and_other_speakers_keep_rows_apart(params: Dedup) -> None:
    asked, answered = ("user", "What is it?"), ("assistant", words())
    weather, files = '[{"name":"get_weather"}]', '[{"name":"delete_files"}]'
    rows = [
        said("a", asked, answered, tools=weather),
        said("b", asked, answered, tools=files),
        said("c", asked, answered),
        said("d", ("user", "what is it?"), answered),
        said("e", ("system", "What is it?"), ("user", words())),
    ]
    marks = marks_of(*rows, params=params)
    assert {name: reason for name, (reason, _, _) in marks.items()} == {
        "a": None, "b": None, "c": None, "d": "exact_duplicate", "e": None
    }  # fmt: skip
    assert {(one, other): why for one, other, _, why in alike_of(*rows, params=params)} == {
        ("b", "a"): "tools", ("c", "a"): "tools", ("e", "a"): "tools"
    }  # fmt: skip
    assert alike_of(rows[2], rows[4], params=params) == [("e", "c", 1.0, "roles")]


@pytest.mark.parametrize("params", [PARAMS, CAREFUL])
def test_a_conversation_that_goes_on_repeats_the_one_that_ends(params: Dedup) -> None:
    turns = ("user", "What is it?"), ("assistant", words())
    more = ("user", "Thank you very much."), ("assistant", "You are welcome.")
    # 33 words are 31 3-grams, 40 are 38, with all of those
    marks = marks_of(said("a", *turns), said("b", *turns, *more), params=params)
    assert marks["a"] == ("near_duplicate", "b", pytest.approx(31 / 38))
    # the same words as one message: nobody goes on
    one = ("user", "What is it?\n" + words() + "\nThank you very much."), ("assistant", "You are welcome.")
    assert marks_of(said("b", *turns, *more), said("c", *one), params=params)["c"][0] is None


def test_exchanged_replies_contradict() -> None:
    marks = marks_of(
        pair("a", "How much?", "It is free.", "Pay $20."),
        pair("b", "how much?", "Pay $20.", "It is free."),
        pair("c", "How much?", "IT is free.", "Pay $20."),
        pair("d", "How many?", "Pay $20.", "It is free."),
    )
    assert marks["b"] == ("swapped_labels", "a", 1.0)
    assert marks["c"] == ("exact_duplicate", "a", 1.0)
    assert marks["d"][0] is None


def test_a_contradicted_cluster_goes_as_a_whole() -> None:
    rows = [
        pair("a", "How much?", "It is free.", "Pay $20."),
        pair("b", "how much?", "Pay $20.", "It is free."),
        pair("c", "How much?", "IT is free.", "Pay $20."),
        pair("d", "How many?", "Pay $20.", "It is free."),
    ]
    marks = marks_of(*rows, params=CAREFUL)
    assert marks["a"] == marks["c"] == ("swapped_labels", "b", 1.0)  # a witness against the first of the cluster
    assert marks["b"] == ("swapped_labels", "a", 1.0)
    assert marks["d"][0] is None


@pytest.mark.parametrize("params", [PARAMS, CAREFUL])
def test_replies_exchanged_between_nearly_equal_pairs(params: Dedup) -> None:
    # prompt and replies of 10 words each are 8 3-grams; the prompt's last word differs: 23 common, 25 in all
    better, worse = words(count=10).replace("word", "good"), words(count=10).replace("word", "poor")
    asked, again = words(count=9) + " tablet", words(count=9) + " tablets"
    marks = marks_of(pair("a", again, better, worse), pair("b", asked, worse, better), params=params)
    assert marks["b"] == ("swapped_labels", "a", pytest.approx(23 / 25))
    assert marks["a"][0] == (None if params is PARAMS else "swapped_labels")
    assert marks_of(pair("a", again, better, worse), pair("b", asked, better, worse), params=params)["a"][0] is None


def test_the_other_label_contradicts_but_a_similar_text_with_it_stays() -> None:
    rows = [
        row("a", words(), kind="unpaired", label=True),
        row("b", words(), kind="unpaired", label=False),
        row("c", words({14: "not"}), kind="unpaired", label=False),
        row("d", words({14: "so"}), kind="unpaired", label=True),
    ]
    marks = marks_of(*rows)
    assert marks["b"] == ("swapped_labels", "a", 1.0)
    assert marks["c"][0] is None
    assert marks["d"] == ("near_duplicate", "a", pytest.approx(25 / 31))
    assert alike_of(*rows, params=PARAMS) == [("c", "a", pytest.approx(25 / 31), "label")]


def test_the_other_label_on_nearly_the_same_text() -> None:
    # 31 words are 29 n-grams, of which 28 are also in the 30 words; a plural is no other word
    marks = marks_of(
        row("a", words() + " tablets", kind="unpaired", label=True),
        row("b", words() + " tablet", kind="unpaired", label=False),
        params=CAREFUL,
    )
    assert marks["a"] == ("swapped_labels", "b", pytest.approx(28 / 30))
    assert marks["b"] == ("swapped_labels", "a", pytest.approx(28 / 30))


def test_a_copy_of_a_near_duplicate_names_the_row_that_stays() -> None:
    marks = marks_of(row("a", words()), row("b", words({14: "other"})), row("c", words({14: "OTHER"})))
    assert marks["b"][:2] == marks["c"][:2] == ("near_duplicate", "a")
    assert marks["c"][2] == pytest.approx(25 / 31)


def test_rows_without_words_or_with_few() -> None:
    marks = marks_of(
        row("a", "+++"), row("b", "---"), row("c", "thank you"), row("d", "Thank you!"), row("e", "you thank")
    )
    assert marks["a"][0] is None
    assert marks["b"][0] is None
    assert marks["c"] == ("near_duplicate", "d", 1.0)  # d is longer by a sign
    assert marks["e"][0] is None


def test_scripts_without_spaces_go_by_characters() -> None:
    # 11 characters are 9 n-grams; the last character changed: 8 common, 10 in all
    marks = marks_of(row("a", "头痛超过三天请来看医生"), row("b", "头痛超过三天请来看医师"))
    assert marks["b"] == ("near_duplicate", "a", 8 / 10)
    assert split_tokens(pl.Series(["5mg, カー 두 통 ก่อน"])).to_list() == [
        ["5mg", "カ", "ー", "두", "통", "ก่", "อ", "น"]
    ]


def test_ngrams() -> None:
    tokens = hash_tokens(pl.Series([["a", "b", "a", "b"], [], ["b"], ["a", "b"]]))
    assert hash_ngrams(tokens, 2).counts().tolist() == [3, 0, 0, 1]
    sets = ngram_sets(tokens, 2)
    assert sets.counts().tolist() == [2, 0, 1, 1]  # ab, ba; nothing; b alone; ab
    assert sets.values[3] in sets.values[:2]
    assert hash_ngrams(tokens, 1).values[0] == hash_ngrams(tokens, 1).values[2]


def test_s_curve() -> None:
    small = PARAMS.model_copy(update={"bands": 2, "rows": 2})
    assert candidate_probability([0.0, 0.5, 1.0], small).tolist() == [0.0, 0.4375, 1.0]  # 1 - (1 - 1/4)^2
    assert candidate_probability(even_similarity(PARAMS), PARAMS) == pytest.approx(0.5)


def test_signatures_estimate_the_similarity() -> None:
    # 400 and 400 words, the first 300 the same: 298 common n-grams, 498 in all; 4 sigma of 512 hashes are 0.09
    text = [
        words(count=400).split(),
        words({position: f"other{position}" for position in range(300, 400)}, 400).split(),
    ]
    sets = ngram_sets(hash_tokens(pl.Series(text)), 3)
    signatures = sign_sets(sets, PARAMS.model_copy(update={"bands": 128}))
    assert signatures.shape == (512, 2)
    assert signatures.dtype == np.uint32
    assert (signatures[:, 0] == signatures[:, 1]).mean() == pytest.approx(298 / 498, abs=0.09)


def test_full_buckets_keep_what_they_cannot_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET_LIMIT", 1)
    monkeypatch.setattr(buckets, "BLOCK", 1)
    # b shares buckets with a, which fills them (22/34: both stay); c is near b alone (25/31), and meets it in others
    rows = [ask("a", words()), ask("b", words({5: "x", 20: "y"})), ask("c", words({5: "x", 12: "z", 20: "y"}))]
    marks, _, near = mark_duplicates(pl.DataFrame(rows, ROW_SCHEMA), SOURCES, PARAMS)
    assert near.full_buckets > 0
    assert marks.filter(pl.col("reason").is_not_null()).select("row_id", "other_id").rows() == [("c", "b")]


def test_clusters_and_metrics() -> None:
    rows = [
        row("a", words()),
        row("b", words({14: "other"}), source="second"),
        row("c", words().upper(), source="second"),
        row("d", "alone"),
    ]
    marks, alike, near = mark_duplicates(pl.DataFrame(rows, ROW_SCHEMA), SOURCES, PARAMS)
    clusters = list_clusters(marks)
    assert clusters.rows() == [("a", "a", 1.0, True), ("a", "b", pytest.approx(25 / 31), False), ("a", "c", 1.0, False)]
    assert measure(marks, clusters, alike, near, PARAMS) == {
        "rows_in": 4,
        "rows_out": 2,
        "exact_duplicates": 1,
        "near_duplicates": 1,
        "swapped_labels": 0,
        "dropped_by_source": {"second": {"exact_duplicate": 1, "near_duplicate": 1}},
        "clusters": 1,
        "largest_cluster": 3,
        "alike": dict.fromkeys(["number", "sign", "polarity", "word", "tools", "roles", "label"], 0),
        "candidates": 1,
        "verified": 1,
        "full_buckets": 0,
        "cross_source": 2,
        "near_recall_at_threshold": pytest.approx(1 - (1 - 0.8**4) ** 32),
    }


def test_no_rows() -> None:
    for params in (PARAMS, CAREFUL):
        marks, alike, near = mark_duplicates(pl.DataFrame([], ROW_SCHEMA), SOURCES, params)
        assert measure(marks, list_clusters(marks), alike, near, params)["rows_out"] == 0


def test_an_unknown_source_and_a_wrong_threshold_are_refused() -> None:
    with pytest.raises(InputError, match="source third is not in"):
        marks_of(row("a", "x", source="third"))
    with pytest.raises(InputError, match=r"dedup\.threshold"):
        validate(Dedup, "dedup", PARAMS.model_dump() | {"threshold": 0.0})


PARAMS_YAML = """
engine: {name: local, workers: 2, address: null}
dedup: {mode: jaccard, threshold: 0.8, ngram: 3, bands: 32, rows: 4, swapped_labels: drop_both, seed: 1}
sources:
  - {name: first, path: a.json, format: alpaca, licence: CC0-1.0, consent: public, share: 0.5}
  - {name: second, path: b.json, format: alpaca, licence: CC0-1.0, consent: public, share: 0.5}
"""


def test_main_writes_the_same_bytes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS_YAML)
    Path("data/pool").mkdir(parents=True)
    rows = [ask("b", words(), source="second"), ask("c", "alone"), ask("a", words({14: "other"}))]
    pl.DataFrame(rows, ROW_SCHEMA).write_parquet("data/pool/rows.parquet")
    make_table([]).write_parquet("data/pool/probes.parquet")
    written = []
    for _ in range(2):
        dedup.main()
        files = [path for path in sorted(Path().rglob("*")) if path.is_file() and path.parts[:2] != ("data", "pool")]
        written.append({path.as_posix(): path.read_bytes() for path in files})
    assert written[0] == written[1]
    assert pl.read_parquet("data/dedup/rows.parquet")["row_id"].to_list() == ["c", "a"]
    ledger = pl.read_parquet("data/dedup/ledger.parquet").rows()
    assert ledger == [("b", "dedup", "drop", "near_duplicate", "a", "similarity=0.81")]
    assert json.loads(written[0]["metrics/dedup.json"])["cross_source"] == 1
    assert pl.read_parquet("data/clusters/alike.parquet").height == 0
    assert "32 bands of 4 rows compare 100.00% of the pairs at the threshold 0.8" in capsys.readouterr().out
    curve = pl.read_csv("metrics/plots/dedup_scurve.csv")
    assert curve.columns == ["similarity", "probability"]
    assert curve["probability"].is_sorted()


def test_main_warns_of_full_buckets_and_keeps_to_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(buckets, "BUCKET_LIMIT", 1)
    monkeypatch.setattr(buckets, "BLOCK", 1)
    asked: list[int | None] = []
    monkeypatch.setattr(dedup, "limit_threads", asked.append)
    Path("params.yaml").write_text(PARAMS_YAML)
    Path("data/pool").mkdir(parents=True)
    rows = [ask("a", words()), ask("b", words({5: "x", 20: "y"})), ask("c", words({5: "x", 12: "z", 20: "y"}))]
    pl.DataFrame(rows, ROW_SCHEMA).write_parquet("data/pool/rows.parquet")
    make_table([]).write_parquet("data/pool/probes.parquet")
    dedup.main()
    assert "buckets are full" in capsys.readouterr().out
    assert asked == [2]
