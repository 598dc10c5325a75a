"""The evaluation sets: what lm-eval would ask, and clear errors where a file is wrong."""

import json
import sys
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.common.evalsets import data_files, load_items
from stages.common.params import Task

CLINIC = """
task: clinic
dataset_path: json
dataset_kwargs:
  data_files:
    test: data/raw/eval/clinic.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - metric: acc
"""
SUBJECTS_TEMPLATE = """
dataset_path: csv
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}\\nA. {{A}}\\nB. {{B}}\\nAnswer:"
doc_to_choice: [A, B]
doc_to_target: answer
process_docs: !function prepare.keep
metric_list:
  - metric: acc
"""


def task(name: str, limit: int | None = None, path: str | None = None) -> Task:
    return Task(name=name, path=path or f"data/raw/eval/{name}.yaml", chat=False, limit=limit)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/raw/eval of an empty project with the task clinic, three items."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = Path("data/raw/eval")
    folder.mkdir(parents=True)
    folder.joinpath("clinic.yaml").write_text(CLINIC)
    items = [
        {"question": "When does it open?", "choices": ["At noon.", "At 7:30."], "label": 1},
        {"question": "Who leads?", "choices": ["Dr. Okafor.", "Nobody."], "label": 0},
        {"question": "Is parking free?", "choices": ["No.", "For two hours."], "label": 1},
    ]
    folder.joinpath("clinic.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def write_group(folder: Path) -> None:
    """A group of two subjects that include one template, each with a CSV without header."""
    folder.joinpath("_template.yaml").write_text(SUBJECTS_TEMPLATE)
    folder.joinpath("prepare.py").write_text("def keep(documents):\n    return documents\n")
    for subject, answer in (("anatomy", "B"), ("virology", "A")):
        folder.joinpath(f"{subject}.csv").write_text(f'"What, {subject}?",one,two,{answer}\n')
        folder.joinpath(f"subjects_{subject}.yaml").write_text(
            f"include: _template.yaml\ntask: subjects_{subject}\ntag: all_subjects\ndataset_kwargs:\n"
            f"  column_names: [question, A, B, answer]\n  data_files: {{test: data/raw/eval/{subject}.csv}}\n"
        )


def test_items_are_rendered_as_lm_eval_asks_them() -> None:
    items = load_items([task("clinic")])
    assert items.columns == ["task", "subtask", "split", "item", "question", "choices", "answer"]
    assert items.row(0) == ("clinic", "clinic", "test", 0, "When does it open?", ["At noon.", "At 7:30."], "At 7:30.")
    assert items["item"].to_list() == [0, 1, 2]
    assert items["answer"].to_list() == ["At 7:30.", "Dr. Okafor.", "For two hours."]


def test_limit_takes_the_first_items() -> None:
    assert load_items([task("clinic", limit=2)])["question"].to_list() == ["When does it open?", "Who leads?"]


@pytest.mark.parametrize(
    ("sampler", "examples"),
    [("first_n", ["Is it open?", "Is it far?"]), ("default", ["Is it open?", "Is it far?", "Is it new?"])],
)
def test_worked_examples_are_those_that_may_be_shown(folder: Path, sampler: str, examples: list[str]) -> None:
    lines = [json.dumps({"question": q, "choices": ["Yes.", "No."], "label": 0}) + "\n"
             for q in ("Is it open?", "Is it far?", "Is it new?")]  # fmt: skip
    folder.joinpath("dev.jsonl").write_text("".join(lines))
    config = CLINIC.replace("clinic.jsonl", "clinic.jsonl\n    dev: data/raw/eval/dev.jsonl")
    shots = f"num_fewshot: 2\nfewshot_config: {{sampler: {sampler}, split: dev}}\n"
    folder.joinpath("clinic.yaml").write_text(config + shots)
    items = load_items([task("clinic", limit=1)])
    assert items["split"].to_list() == ["test"] + ["fewshot"] * len(examples)
    assert items["question"].to_list() == ["When does it open?", *examples]
    assert items["item"].to_list() == [0, *range(len(examples))]
    assert set(items["answer"][1:]) == {"Yes."}


@pytest.mark.parametrize("members", ["[subjects_anatomy, subjects_virology]", "[all_subjects]"])
def test_group_gives_the_items_of_its_members(folder: Path, members: str) -> None:
    write_group(folder)
    folder.joinpath("subjects.yaml").write_text(f"group: subjects\ntask: {members}\n")
    items = load_items([task("clinic", limit=1), task("subjects")])
    assert items["task"].to_list() == ["clinic", "subjects", "subjects"]
    assert items["subtask"].to_list() == ["clinic", "subjects_anatomy", "subjects_virology"]
    assert items["question"].to_list()[1] == "What, anatomy?\nA. one\nB. two\nAnswer:"
    assert items["choices"].to_list()[1] == ["A", "B"]
    assert items["answer"].to_list()[1:] == ["B", "A"]


def test_free_text_answer_has_no_choices(folder: Path) -> None:
    folder.joinpath("sums.yaml").write_text(
        "task: sums\ndataset_path: json\ndataset_kwargs: {data_files: {test: data/raw/eval/sums.jsonl}}\n"
        'test_split: test\noutput_type: generate_until\ndoc_to_text: "Q: {{question}}"\ndoc_to_target: answer\n'
        "generation_kwargs: {until: ['.']}\nmetric_list: [{metric: exact_match, aggregation: mean}]\n"
    )
    folder.joinpath("sums.jsonl").write_text('{"question": "2 + 2", "answer": "4"}\n')
    assert load_items([task("sums")]).row(0) == ("sums", "sums", "test", 0, "Q: 2 + 2", [], "4")


def test_data_files_come_without_lm_eval(folder: Path) -> None:
    write_group(folder)
    folder.joinpath("subjects.yaml").write_text("group: subjects\ntask: [all_subjects]\n")
    before = set(sys.modules)
    assert data_files([task("clinic"), task("subjects")]) == [
        folder / "clinic.jsonl",
        folder / "anatomy.csv",
        folder / "virology.csv",
    ]
    assert not [name for name in set(sys.modules) - before if name.startswith(("lm_eval", "datasets", "torch"))]


def test_pattern_stands_for_the_files_that_it_finds(folder: Path) -> None:
    folder.joinpath("clinic.yaml").write_text(CLINIC.replace("clinic.jsonl", "clinic*.jsonl"))
    assert data_files([task("clinic")]) == [folder / "clinic.jsonl"]
    folder.joinpath("clinic.jsonl").unlink()
    assert data_files([task("clinic")]) == [folder / "clinic*.jsonl"]


def broken_yaml(folder: Path) -> None:
    folder.joinpath("clinic.yaml").write_text("task: [clinic\n")


def no_yaml(folder: Path) -> None:
    folder.joinpath("clinic.yaml").unlink()


def yaml_is_a_folder(folder: Path) -> None:
    folder.joinpath("clinic.yaml").unlink()
    folder.joinpath("clinic.yaml").mkdir()


def other_name(folder: Path) -> None:
    folder.joinpath("clinic.yaml").write_text(CLINIC.replace("task: clinic", "task: surgery"))


def no_items(folder: Path) -> None:
    folder.joinpath("clinic.jsonl").unlink()


def from_the_hub(folder: Path) -> None:
    folder.joinpath("clinic.yaml").write_text(CLINIC.replace("dataset_path: json", "dataset_path: org/clinic"))


def two_files_of_one_name(folder: Path) -> None:
    folder.joinpath("again.yaml").write_text(CLINIC)


def unknown_member(folder: Path) -> None:
    folder.joinpath("clinic.yaml").write_text("group: clinic\ntask: [clinic_hours]\n")


def empty_group(folder: Path) -> None:
    folder.joinpath("clinic.yaml").write_text("group: clinic\ntask: []\n")


def missing_field(folder: Path) -> None:
    folder.joinpath("clinic.yaml").write_text(CLINIC.replace("{{question}}", "{{query}}"))


def missing_include(folder: Path) -> None:
    folder.joinpath("clinic.yaml").write_text("include: base.yaml\n" + CLINIC)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (broken_yaml, r"clinic\.yaml, line 2: not valid YAML"),
        (no_yaml, r"clinic\.yaml: there is no such file"),
        (yaml_is_a_folder, r"clinic\.yaml: is a folder; give the task's YAML file in it"),
        (other_name, r"clinic\.yaml: calls its task surgery, params\.yaml says clinic; make the two names equal"),
        (no_items, r"clinic\.jsonl: there is no such file; data/raw/eval/clinic\.yaml reads its items from it"),
        (from_the_hub, r"clinic\.yaml: its items are not local files; put `dataset_path: json`"),
        (two_files_of_one_name, r"clinic\.yaml: data/raw/eval/again\.yaml has a task clinic too; rename one"),
        (unknown_member, r"clinic\.yaml: its member clinic_hours is not a task in data/raw/eval"),
        (empty_group, r"clinic\.yaml: the group clinic has no tasks"),
        (missing_field, r"clinic\.yaml: lm-eval cannot build the task clinic \(UndefinedError: 'query' is undefined\)"),
        (missing_include, r"base\.yaml: there is no such file"),
    ],
)
def test_wrong_files_are_named_with_the_remedy(folder: Path, spoil: object, message: str) -> None:
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        load_items([task("clinic")])


def test_item_that_cannot_be_rendered_is_named_without_its_text(folder: Path) -> None:
    first, second, _ = folder.joinpath("clinic.jsonl").read_text().splitlines()
    broken = json.loads(second) | {"label": 7}
    folder.joinpath("clinic.jsonl").write_text(f"{first}\n{json.dumps(broken)}\n")
    with pytest.raises(InputError, match=r"clinic, item 1 of test: cannot be rendered \(IndexError\)") as caught:
        load_items([task("clinic")])
    assert "Okafor" not in str(caught.value)
