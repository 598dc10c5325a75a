"""decontaminate: every share is worked out here by counting n-grams."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import decontaminate
from stages.common.errors import InputError
from stages.common.probes import make_table
from stages.common.rows import ROW_SCHEMA, message
from stages.contamination import overlaps as overlapping
from stages.contamination.items import comparable, item_texts, read_items, strip_frame
from stages.contamination.report import match_runs
from stages.decontaminate import Decontaminate, TaskRules, compare, find_wording, rules_of, write_lines
from stages.quality.filters import JUDGED, REASONS

PARAMS = Decontaminate(ngram=8, threshold=0.6, run=None, common=10, action="drop", examples="mark", tasks={})
NOTHING_FILTERED = pl.DataFrame(schema=JUDGED)
# 12 words, so 5 n-grams of 8 words
QUESTION = "On a normal working day when does the clinic unlock its doors?"
ANSWER = "It opens at 7:30 a.m."  # 7 words: it opens at 7 30 a m; with the question 19 words, 12 n-grams


def row(row_id: str, *texts: str) -> dict[str, Any]:
    messages = [message("assistant" if turn % 2 else "user", text) for turn, text in enumerate(texts)]
    known = {"row_id": row_id, "source": "s", "kind": "sft", "messages": messages}
    return dict.fromkeys(ROW_SCHEMA) | {"file": "f", "record": 0, "licence": "CC0-1.0"} | known


def item(
    question: str, answer: str, number: int = 0, task: str = "clinic", subtask: str = "clinic", split: str = "test"
) -> dict[str, Any]:
    place = {"task": task, "subtask": subtask, "split": split, "item": number}
    return place | {"question": question, "choices": [], "answer": answer}


def items_of(*items: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(items), schema_overrides={"choices": pl.List(pl.String)})


def share(text: str, question: str, answer: str, params: Decontaminate = PARAMS) -> float | None:
    """The share of one item that a row of this text holds, where it reaches the threshold."""
    overlaps = overlaps_of(pl.DataFrame([row("a", text)], ROW_SCHEMA), items_of(item(question, answer)), params)
    return overlaps["share"][0] if overlaps.height else None


def overlaps_of(rows: pl.DataFrame, items: pl.DataFrame, params: Decontaminate = PARAMS) -> pl.DataFrame:
    """row_id, item, share, run of every overlap."""
    return compare(rows, items, params, items["task"].unique().sort().to_list())[0].drop("text")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi! " + QUESTION.upper() + " Thanks.", 5 / 5),  # the question alone, other case and signs
        (f"{QUESTION} {ANSWER}", 12 / 12),
        ("On a normal working day, when does the clinic unlock?", 3 / 5),  # its first 10 words
        ("On a normal working day, when does the clinic open?", None),  # its first 9 words: 2 of 5
        ("When does the clinic unlock its doors on a normal working day?", None),  # no run of 8 words in common
        (ANSWER, None),  # the answer alone is no leak
    ],
)
def test_share_of_a_question(text: str, expected: float | None) -> None:
    assert share(text, QUESTION, ANSWER) == expected


def test_the_answered_question_may_be_the_larger_share() -> None:
    # the last 8 words of the question: 1 of its 5 n-grams; with the answer 15 words: 8 of 12
    text = f"... day, when does the clinic unlock its doors? {ANSWER}"
    assert share(text, QUESTION, ANSWER) == pytest.approx(8 / 12)


def test_questions_of_few_words_need_their_answer() -> None:
    assert share("What is diabetes? It is an illness.", "What is diabetes?", "Too much sugar in the blood") is None
    # 9 words, 2 n-grams of 8
    assert (
        share("What is diabetes? Too much sugar in the blood.", "What is diabetes?", "Too much sugar in the blood")
        == 1.0
    )
    # 5 words count by themselves, as one run
    assert share("Tell me: who runs the skin clinic?", "Who runs the skin clinic?", "Dr. Ramanathan") == 1.0
    assert share("Who runs the clinic for skin?", "Who runs the skin clinic?", "Dr. Ramanathan") is None
    # 3 words with the answer: no text of this item can be compared
    assert share("1, 2, 2, 4", "2 + 2 =", "4") is None
    assert share("The capital of France is Paris", "Capital of France?", "Paris") is None  # "is" breaks the run of 4
    assert share("Capital of France: Paris", "Capital of France?", "Paris") == 1.0


def test_question_and_answer_run_over_turns_of_a_conversation() -> None:
    rows = pl.DataFrame([row("a", "Good morning.", "Hello!", "What is diabetes?", "Too much sugar.")], ROW_SCHEMA)
    overlaps = overlaps_of(rows, items_of(item("What is diabetes?", "Too much sugar")))
    assert overlaps.rows() == [("a", 0, 1.0, False)]


def test_scripts_without_spaces_go_by_characters() -> None:
    # 10 characters count as 5 words and have 3 n-grams
    assert share("请问,诊所周末几点开始呢", "诊所周末几点开始营业", "九点") is None  # its first 8: 1 of 3
    assert share("请问,诊所周末几点开始营呢", "诊所周末几点开始营业", "九点") == pytest.approx(2 / 3)
    assert share("什么是糖尿病", "什么是糖尿病", "病") is None  # 6 characters are 3 words


def test_the_frame_of_a_subtask_is_no_part_of_its_questions() -> None:
    primer = "Q: Is water wet?\nA: Yes.\n\nQ: "
    prompts = [f"{primer}Who runs the skin clinic?\nA:", f"{primer}Where is the skin clinic?\nA:"]
    assert strip_frame(prompts) == ["Who runs the skin clinic?", "Where is the skin clinic?"]
    assert strip_frame(["What is it? A:", "What is that? A:"]) == ["What is it?", "What is that?"]  # no label: it stays
    assert strip_frame(["Question: one?"] * 2) == ["Question: one?"] * 2
    found = overlaps_of(
        pl.DataFrame([row("a", "Who runs the skin clinic?")], ROW_SCHEMA),
        items_of(*(item(prompt, "?", number) for number, prompt in enumerate(prompts))),
    )
    assert found.rows() == [("a", 0, 1.0, False)]


def test_options_listed_in_the_prompt() -> None:
    prompt = "Which vitamin is missing in scurvy?\nA. Vitamin A\nB. Vitamin C\nC. Vitamin D\nD. Zinc\nAnswer:"
    texts = item_texts(items_of(item(prompt, "B")))
    assert texts["text"].to_list()[1:] == [
        "which vitamin is missing in scurvy?",
        "which vitamin is missing in scurvy? vitamin c",
    ]
    # the question is 6 words of a prompt of 16: a row that repeats it without the options overlaps all the same
    assert share("Which vitamin is missing in scurvy? Vitamin C, of course.", prompt, "B") == 1.0
    assert comparable(item_texts(items_of(item("Scurvy:\n(A) Zinc\n(B) Vitamin C", "(B)"))))["text"].to_list() == [
        "scurvy: (a) zinc (b) vitamin c"
    ]  # scurvy vitamin c are 3 words, the question 1


def test_every_item_and_the_most_overlapped_one() -> None:
    items = items_of(
        item("An unrelated question about the opening of something else entirely", "No", 0),
        item(QUESTION, ANSWER, 1),
        item(QUESTION, "At noon", 0, task="general", subtask="times"),
        item("No", "No", 1, task="general", subtask="times"),
    )
    rows = pl.DataFrame([row("b", "Nothing"), row("a", QUESTION), row("c", QUESTION, "No")], ROW_SCHEMA)
    tasks = ["clinic", "general"]
    overlaps, marked, _ = compare(rows, items, PARAMS, tasks)
    assert overlaps.drop("text").rows() == [
        ("a", 1, 1.0, False), ("a", 2, 1.0, False), ("c", 1, 1.0, False), ("c", 2, 1.0, False)
    ]  # fmt: skip
    asked = "on a normal working day when does the clinic unlock its doors"
    unrelated = "an unrelated question about the opening of something else entirely"
    assert marked["asked"].to_list() == [[unrelated], [asked], [asked], []]
    assert marked.drop("split", "action", "asked").rows() == [
        ("clinic", "clinic", 0, False, 0, False),
        ("clinic", "clinic", 1, True, 2, False),
        ("general", "times", 0, True, 2, False),
        ("general", "times", 1, False, 0, True),
    ]
    ledger = write_lines(NOTHING_FILTERED, marked, overlaps)
    assert ledger.rows() == [
        ("a", "decontaminate", "drop", "contaminated", "clinic/clinic/1", "share=1.00"),
        ("c", "decontaminate", "drop", "contaminated", "clinic/clinic/1", "share=1.00"),
    ]
    metrics = decontaminate.measure(rows, marked, overlaps, ledger, tasks)
    assert metrics == {
        "rows_in": 3,
        "rows_out": 1,
        "dropped": 2,
        "marked": 0,
        "contaminated": {"clinic": 2, "general": 2},
        "by_run": {"clinic": 0, "general": 0},
        "like_examples": {"clinic": 0, "general": 0},
        "dirty_items": {"clinic": 1, "general": 1},
        "items": {"clinic": 2, "general": 2},
        "blind_items": {"clinic": 0, "general": 1},
        "filtered": dict.fromkeys(REASONS, 0),
        "filtered_by_source": {},
    }


def test_a_run_of_an_item_is_enough_unless_it_is_common_wording() -> None:
    # 30 words: 23 n-grams of 8, and one run of 13 in common with the row, which is 6 of these 23
    words = [f"w{number}" for number in range(30)]
    leak = "Yes: " + " ".join(words[10:23]) + " indeed"
    params = PARAMS.model_copy(update={"run": 13, "common": 2})
    question = item(" ".join(words), "No")
    assert share(leak, question["question"], "No", PARAMS) is None
    assert share(leak, question["question"], "No", params) == pytest.approx(6 / 23)
    assert share(" ".join(words[10:22]), question["question"], "No", params) is None  # a run of 12
    rows = pl.DataFrame([row(name, f"{name} {leak}") for name in "abc"], ROW_SCHEMA)
    # however often a leak was copied, all copies go
    overlaps, marked, _ = compare(rows, items_of(question), params, ["clinic"])
    assert overlaps["row_id"].to_list() == ["a", "b", "c"]
    rules = rules_of(params, ["clinic"])
    assert find_wording(overlaps, marked, rules, 2) == [("clinic/clinic/0", 3)]
    assert find_wording(overlaps, marked, rules, 3) == []
    assert find_wording(overlaps, marked, rules.with_columns(threshold=6 / 23), 2) == []  # the share is enough
    # an item that several subtasks have is no common wording
    subtasks = [item(question["question"], "No", 0, subtask=name) for name in "abc"]
    assert overlaps_of(rows[:1], items_of(*subtasks), params)["item"].to_list() == [0, 1, 2]
    others = [item(" ".join([*words[10:23], f"other{number}"]), "No", number) for number in range(1, 3)]
    assert overlaps_of(rows[:1], items_of(question, others[0]), params)["item"].to_list() == [0, 1]
    # three items hold it: only the two whose n-grams are 6 of 7 in the row overlap by the share rule
    assert overlaps_of(rows[:1], items_of(question, *others), params).rows() == [
        ("a", 1, 6 / 7, False), ("a", 2, 6 / 7, False)
    ]  # fmt: skip


def test_wording_of_all_items_and_rows_hides_no_share() -> None:
    # the rarest n-grams make the candidates: the common half of each item is in every row
    common = " ".join(f"c{number}" for number in range(20))
    items = items_of(*(item(f"{common} {own} " + " ".join(f"{own}{n}" for n in range(15)), "?", place)
                       for place, own in enumerate(("x", "y", "z"))))  # fmt: skip
    rows = pl.DataFrame([row("a", common), row("b", f"{common} y " + " ".join(f"y{n}" for n in range(9)))], ROW_SCHEMA)
    # 36 words, 29 n-grams; row b holds 20 + 1 + 9 words of item 1: 23 of them; row a 13 of each
    assert overlaps_of(rows, items).rows() == [("b", 1, 23 / 29, False)]


def test_rules_differ_by_task_and_split() -> None:
    items = items_of(
        item(QUESTION, "?", 0), item(QUESTION, "?", 0, "general"),
        item("Who of the people here runs the skin clinic?", "?", 0, "general", split="fewshot"),
    )  # fmt: skip
    nine = " ".join(QUESTION.split()[:9])  # 2 of the 5 n-grams
    rows = pl.DataFrame(
        [row("a", nine), row("b", QUESTION), row("c", "Who of the people here runs the skin clinic?")], ROW_SCHEMA
    )
    tasks = ["clinic", "general"]
    params = PARAMS.model_copy(update={"tasks": {"general": TaskRules(threshold=0.4, action="mark")}})
    overlaps, marked, _ = compare(rows, items, params, tasks)
    assert overlaps.select("row_id", "item").rows() == [("a", 1), ("b", 0), ("b", 1), ("c", 2)]
    ledger = write_lines(NOTHING_FILTERED, marked, overlaps)
    assert ledger.select("row_id", "action", "other_id", "detail").rows() == [
        ("a", "change", "general/clinic/0", "share=0.40"),
        ("b", "drop", "clinic/clinic/0", "share=1.00"),
        ("c", "change", "general/clinic/fewshot/0", "share=1.00"),
    ]
    metrics = decontaminate.measure(rows, marked, overlaps, ledger, tasks)
    assert (metrics["dropped"], metrics["marked"], metrics["rows_out"]) == (1, 2, 2)
    assert metrics["contaminated"] == {"clinic": 1, "general": 2}
    assert metrics["like_examples"] == {"clinic": 0, "general": 1}
    ignoring = params.model_copy(update={"examples": "ignore"})
    assert "c" not in compare(rows, items, ignoring, tasks)[0]["row_id"]
    with pytest.raises(InputError, match=r"decontaminate\.tasks\.mmlu: no such task; there are clinic"):
        compare(rows, items, PARAMS.model_copy(update={"tasks": {"mmlu": TaskRules()}}), ["clinic"])


def test_a_task_may_have_no_rule_for_runs() -> None:
    params = PARAMS.model_copy(
        update={"run": 13, "tasks": {"a": TaskRules(run=None, ngram=None), "b": TaskRules(run=9)}}
    )
    assert rules_of(params, ["a", "b", "c"]).select("ngram", "run").rows() == [(8, None), (8, 9), (8, 13)]


def test_pairs_are_compared_with_both_replies() -> None:
    pair = row("a", "When?") | {"kind": "preference", "chosen": [message("assistant", "At noon.")]}
    pair["rejected"] = [message("assistant", QUESTION)]
    assert overlaps_of(pl.DataFrame([pair], ROW_SCHEMA), items_of(item(QUESTION, ANSWER)))["row_id"].to_list() == ["a"]


def test_the_report_shows_the_items_words_alone() -> None:
    text = "Private: on a normal working day, when does the clinic unlock? Secret, its doors on a normal working day"
    rows = pl.DataFrame([row("a", text), row("b", QUESTION)], ROW_SCHEMA)
    items = items_of(item("Who runs the skin clinic?", "?"), item(QUESTION, "?", 1))
    assert compare(rows[:1], items, PARAMS, ["clinic"])[2].rows(named=True) == [
        {
            "task": "clinic", "subtask": "clinic", "split": "test", "item": 1, "row_id": "a", "source": "s",
            "share": 0.6, "run": False, "words": 10,
            "matched": ["on a normal working day when does the clinic unlock"],
        }
    ]  # fmt: skip
    assert compare(rows, items, PARAMS, ["clinic"])[2].select("row_id", "words").rows() == [("b", 12)]
    by_run = PARAMS.model_copy(update={"run": 4})  # shorter than the n-grams
    five = pl.DataFrame([row("a", "On a normal working day.")], ROW_SCHEMA)
    assert compare(five, items, by_run, ["clinic"])[2]["matched"].to_list() == [["on a normal working day"]]


def test_matched_words_stand_together_in_the_row() -> None:
    assert match_runs(list("abcdef"), list("xbcdydef"), 2) == [list("bcd"), list("def")]
    assert match_runs(list("ababc"), list("abcabab"), 2) == [list("abab"), list("bc")]
    assert match_runs(list("ab"), list("ba"), 2) == []


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pl.DataFrame([row(str(number), QUESTION if number % 2 else "Nothing") for number in range(7)], ROW_SCHEMA)
    whole = overlaps_of(rows, items_of(item(QUESTION, ANSWER)))
    monkeypatch.setattr(overlapping, "BATCH", 2)
    batched = overlaps_of(rows, items_of(item(QUESTION, ANSWER)))
    assert whole["row_id"].to_list() == ["1", "3", "5"]
    assert batched.equals(whole)


def test_no_rows() -> None:
    items = items_of(item(QUESTION, ANSWER))
    overlaps, marked, report = compare(pl.DataFrame([], ROW_SCHEMA), items, PARAMS, ["clinic"])
    assert overlaps.height == report.height == 0
    assert not marked["dirty"].any()


WORDS = st.sampled_from([f"w{number}" for number in range(6)])


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.lists(WORDS, min_size=0, max_size=30).map(" ".join), min_size=1, max_size=6),
    questions=st.lists(st.lists(WORDS, min_size=1, max_size=20).map(" ".join), min_size=1, max_size=6),
    threshold=st.sampled_from([0.3, 0.6, 1.0]),
    run=st.sampled_from([None, 6]),
)
def test_the_same_as_counting_sets_of_words(
    texts: list[str], questions: list[str], threshold: float, run: int | None
) -> None:
    ngram, common = 3, 2
    params = PARAMS.model_copy(update={"ngram": ngram, "threshold": threshold, "run": run, "common": common})
    rows = pl.DataFrame([row(str(number), text) for number, text in enumerate(texts)], ROW_SCHEMA)
    items = items_of(*(item(question, "", number) for number, question in enumerate(questions)))
    found = {(row_id, place): share for row_id, place, share, _ in overlaps_of(rows, items, params).iter_rows()}

    def runs_of(text: str, length: int) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}

    compared = dict(comparable(item_texts(items)).select("item", "text").iter_rows())
    expected = {}
    for number, text in enumerate(texts):
        for place, question in compared.items():
            length = min(ngram, len(question.split()))
            sought = runs_of(question, length)
            held = len(sought & runs_of(text, length)) / len(sought)
            telling = [
                part
                for part in (runs_of(text, run) & runs_of(question, run) if run else ())
                if sum(part in runs_of(other, run) for other in compared.values()) <= common
            ]
            if held >= threshold or telling:
                expected[str(number), place] = held
    assert found == pytest.approx(expected)


def test_a_task_without_items_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/scrub").mkdir(parents=True)
    path = "data/scrub/items.parquet"
    with pytest.raises(InputError, match="no such file"):
        read_items(["clinic"])
    items_of(item(QUESTION, ANSWER)).write_parquet(path)
    assert read_items(["clinic"]).height == 1
    with pytest.raises(InputError, match="no item of the task general"):
        read_items(["clinic", "general"])
    items_of(item(QUESTION, ANSWER)).drop("answer").write_parquet(path)
    with pytest.raises(InputError, match=r"columns: answer missing; .*`dvc repro --force --single-item scrub`"):
        read_items(["clinic"])


PARAMS_YAML = """
engine: {name: local, workers: 2, address: null}
filters: {echoes: true, min_reply_words: null, max_reply_words: null, languages: null, language_probability: 0.8,
  max_repeated_lines: null, max_repeated_words: null, truncated: false, refusals: false}
decontaminate: {ngram: 8, threshold: 0.6, run: 13, common: 10, action: ACTION, examples: mark, tasks: {}}
tasks:
  - {name: clinic, path: clinic.yaml, chat: true, limit: null}
"""


@pytest.mark.parametrize(("action", "stay"), [("drop", ["b"]), ("mark", ["a", "b"])])
def test_main(action: str, stay: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS_YAML.replace("ACTION", action))
    Path("data/scrub").mkdir(parents=True)
    rows = [row("a", QUESTION, "At noon."), row("b", "Nothing", "Ever"), row("c", "Hello", " hello")]
    pl.DataFrame(rows, ROW_SCHEMA).write_parquet("data/scrub/rows.parquet")
    items_of(item(QUESTION, ANSWER), item("Who runs the skin clinic?", "Me", 1)).write_parquet(
        "data/scrub/items.parquet"
    )
    make_table([]).write_parquet("data/scrub/probes.parquet")
    decontaminate.main()
    kept = pl.read_parquet("data/decontaminate/rows.parquet")
    assert kept["row_id"].to_list() == stay
    assert kept.columns == list(ROW_SCHEMA)
    ledger = pl.read_parquet("data/decontaminate/ledger.parquet").select("row_id", "action", "reason").rows()
    assert ledger == [("a", "drop" if action == "drop" else "change", "contaminated"), ("c", "drop", "echo")]
    assert pl.read_parquet("data/decontaminate/report.parquet").select("row_id", "words").rows() == [("a", 12)]
    items = pl.read_parquet("data/decontaminate/items.parquet")
    assert items.columns == ["task", "subtask", "item", "dirty", "rows", "action", "asked"]
    assert items.rows() == [
        ("clinic", "clinic", 0, True, 1, action, ["on a normal working day when does the clinic unlock its doors"]),
        ("clinic", "clinic", 1, False, 0, action, ["who runs the skin clinic"]),
    ]
    metrics = json.loads(Path("metrics/decontaminate.json").read_text())
    assert (metrics["rows_in"], metrics["rows_out"], metrics["contaminated"]) == (3, len(stay), {"clinic": 1})
    assert metrics["filtered_by_source"] == {"s": {"echo": 1}}


def test_nothing_overlaps() -> None:
    rows = pl.DataFrame([row("a", "Nothing of the kind")], ROW_SCHEMA)
    overlaps, marked, report = compare(rows, items_of(item("2 + 2 =", "4")), PARAMS, ["clinic"])
    ledger = write_lines(NOTHING_FILTERED, marked, overlaps)
    assert ledger.height == report.height == 0
    metrics = decontaminate.measure(rows, marked, overlaps, ledger, ["clinic"])
    assert (metrics["rows_out"], metrics["contaminated"], metrics["blind_items"]) == (1, {"clinic": 0}, {"clinic": 1})
