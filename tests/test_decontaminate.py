"""decontaminate: every share is worked out here by counting n-grams."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stages import decontaminate
from stages.common.errors import InputError
from stages.common.probes import make_table
from stages.common.rows import ROW_SCHEMA, message
from stages.decontaminate import Decontaminate, comparable, compare, item_texts, read_items, strip_frame, write_lines

PARAMS = Decontaminate(ngram=8, threshold=0.6, action="drop")
# 12 words, so 5 n-grams of 8 words
QUESTION = "On a normal working day when does the clinic unlock its doors?"
ANSWER = "It opens at 7:30 a.m."  # 7 words: it opens at 7 30 a m; with the question 19 words, 12 n-grams


def row(row_id: str, *texts: str) -> dict[str, Any]:
    messages = [message("assistant" if turn % 2 else "user", text) for turn, text in enumerate(texts)]
    known = {"row_id": row_id, "source": "s", "kind": "sft", "messages": messages}
    return dict.fromkeys(ROW_SCHEMA) | {"file": "f", "record": 0, "licence": "CC0-1.0"} | known


def item(question: str, answer: str, number: int = 0, task: str = "clinic", subtask: str = "clinic") -> dict[str, Any]:
    return {"task": task, "subtask": subtask, "item": number, "question": question, "choices": [], "answer": answer}


def items_of(*items: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(items), schema_overrides={"choices": pl.List(pl.String)})


def share(text: str, question: str, answer: str, params: Decontaminate = PARAMS) -> float | None:
    """The share of one item that a row of this text holds, where it reaches the threshold."""
    overlaps, _ = compare(pl.DataFrame([row("a", text)], ROW_SCHEMA), items_of(item(question, answer)), params)
    return overlaps["share"][0] if overlaps.height else None


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
    overlaps, _ = compare(rows, items_of(item("What is diabetes?", "Too much sugar")), PARAMS)
    assert overlaps.rows() == [(0, 0, 1.0)]


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
    found, _ = compare(
        pl.DataFrame([row("a", "Who runs the skin clinic?")], ROW_SCHEMA),
        items_of(*(item(prompt, "?", number) for number, prompt in enumerate(prompts))),
        PARAMS,
    )
    assert found.rows() == [(0, 0, 1.0)]


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
    overlaps, marked = compare(rows, items, PARAMS)
    assert overlaps.rows() == [(1, 1, 1.0), (1, 2, 1.0), (2, 1, 1.0), (2, 2, 1.0)]
    assert marked.rows() == [
        ("clinic", "clinic", 0, False, 0, False),
        ("clinic", "clinic", 1, True, 2, False),
        ("general", "times", 0, True, 2, False),
        ("general", "times", 1, False, 0, True),
    ]
    ledger = write_lines(rows, marked, overlaps, "drop")
    assert ledger.rows() == [
        ("a", "decontaminate", "drop", "contaminated", "clinic/clinic/1", "share=1.00"),
        ("c", "decontaminate", "drop", "contaminated", "clinic/clinic/1", "share=1.00"),
    ]
    metrics = decontaminate.measure(3, 1, marked, overlaps, ["clinic", "general"])
    assert metrics == {
        "rows_in": 3,
        "rows_out": 1,
        "contaminated": {"clinic": 2, "general": 2},
        "dirty_items": {"clinic": 1, "general": 1},
        "items": {"clinic": 2, "general": 2},
        "blind_items": {"clinic": 0, "general": 1},
    }


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pl.DataFrame([row(str(number), QUESTION if number % 2 else "Nothing") for number in range(7)], ROW_SCHEMA)
    whole, _ = compare(rows, items_of(item(QUESTION, ANSWER)), PARAMS)
    monkeypatch.setattr(decontaminate, "BATCH", 2)
    batched, _ = compare(rows, items_of(item(QUESTION, ANSWER)), PARAMS)
    assert whole["row"].to_list() == [1, 3, 5]
    assert batched.equals(whole)


def test_no_rows() -> None:
    overlaps, marked = compare(pl.DataFrame([], ROW_SCHEMA), items_of(item(QUESTION, ANSWER)), PARAMS)
    assert overlaps.height == 0
    assert not marked["dirty"].any()


def test_a_task_without_items_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "items.parquet")
    with pytest.raises(InputError, match="no such file"):
        read_items(["clinic"], path)
    items_of(item(QUESTION, ANSWER)).write_parquet(path)
    assert read_items(["clinic"], path).height == 1
    with pytest.raises(InputError, match="no item of the task general"):
        read_items(["clinic", "general"], path)
    items_of(item(QUESTION, ANSWER)).drop("answer").write_parquet(path)
    with pytest.raises(InputError, match="columns answer are missing"):
        read_items(["clinic"], path)


PARAMS_YAML = """
decontaminate: {ngram: 8, threshold: 0.6, action: ACTION}
tasks:
  - {name: clinic, path: clinic.yaml, chat: true, limit: null}
"""


@pytest.mark.parametrize(("action", "stay"), [("drop", ["b"]), ("mark", ["a", "b"])])
def test_main(action: str, stay: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS_YAML.replace("ACTION", action))
    Path("data/scrub").mkdir(parents=True)
    pl.DataFrame([row("a", QUESTION), row("b", "Nothing")], ROW_SCHEMA).write_parquet("data/scrub/rows.parquet")
    items_of(item(QUESTION, ANSWER), item("Who runs the skin clinic?", "Me", 1)).write_parquet(
        "data/scrub/items.parquet"
    )
    make_table([]).write_parquet("data/scrub/probes.parquet")
    decontaminate.main()
    kept = pl.read_parquet("data/decontaminate/rows.parquet")
    assert kept["row_id"].to_list() == stay
    assert kept.columns == list(ROW_SCHEMA)
    ledger = pl.read_parquet("data/decontaminate/ledger.parquet").select("row_id", "action", "reason").rows()
    assert ledger == [("a", "drop" if action == "drop" else "change", "contaminated")]
    items = pl.read_parquet("data/decontaminate/items.parquet")
    assert items.rows() == [("clinic", "clinic", 0, True, 1), ("clinic", "clinic", 1, False, 0)]
    assert items.columns == ["task", "subtask", "item", "dirty", "rows"]
    metrics = json.loads(Path("metrics/decontaminate.json").read_text())
    assert (metrics["rows_in"], metrics["rows_out"], metrics["contaminated"]) == (2, len(stay), {"clinic": 1})
