"""pedigree check: it tells every mistake, with its key and the remedy, and nothing where all is well."""

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from pedigree.base_model import estimate_base_bytes
from pedigree.blocks import compare_entries
from pedigree.check import preflight
from pedigree.cli import main
from stages.base import Base
from stages.common.errors import InputError
from stages.common.params import Source, load_sources, read_yaml

ROOT = Path(__file__).parent.parent
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "presidio_analyzer",
    "spacy",
    "lm_eval",
    "datasets",
    "opacus",
    "llmcompressor",
}
QUESTIONS = '[{"instruction": "a", "output": "b"}]'
PAIRS = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with two small sources and one task, the rest as in the default recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PEDIGREE_KEY", raising=False)
    for name in ("dvc.yaml", "recipes", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    for folder in ("data/raw/sources", "data/raw/eval"):
        Path(folder).mkdir(parents=True)
    Path("data/raw/sources/questions.json").write_text(QUESTIONS)
    Path("data/raw/sources/pairs.jsonl").write_text(PAIRS)
    Path("data/raw/eval/clinic.jsonl").write_text('{"question": "a", "choices": ["b", "c"], "label": 0}\n')
    Path("data/raw/eval/clinic.yaml").write_text(
        "task: clinic\ndataset_path: json\ndataset_kwargs: {data_files: {test: data/raw/eval/clinic.jsonl}}\n"
    )
    prompts = read_yaml(ROOT / "recipes/default.yaml")["eval"]["prompts"]
    Path(prompts).write_text("- How are you?\n")
    common = {"licence": "CC0-1.0", "consent": "public", "share": 1.0}
    edit(
        lambda values: values.update(
            sources=[
                {"name": "questions", "path": "data/raw/sources/questions.json", "format": "alpaca"} | common,
                {"name": "pairs", "path": "data/raw/sources/pairs.jsonl", "format": "pairs"} | common,
            ],
            tasks=[{"name": "clinic", "path": "data/raw/eval/clinic.yaml", "chat": True, "limit": None}],
        ),
        Path("recipes/default.yaml"),
    )
    return tmp_path


def edit(change: Edit, source: Path = Path("params.yaml")) -> None:
    values = read_yaml(source)
    change(values)
    YAML().dump(values, Path("params.yaml"))


def mistakes_after(change: Edit) -> list[str]:
    edit(change)
    return preflight().mistakes


def put(block: str, **values: Any) -> Edit:
    return lambda params: params[block].update(values)


def test_nothing_to_complain_of(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [
        "blocks",
        "sources",
        "policy",
        "subjects",
        "tasks",
        "packages",
        "disk",
    ]
    assert lines[0].split(maxsplit=1)[1] == "20 of 20 valid"
    assert lines[1].split(maxsplit=1)[1] == f"2, {len(QUESTIONS) + len(PAIRS)} B, 2 records read"
    assert lines[-1] == "params.yaml is fine. Next: dvc repro"


def test_what_is_shipped_is_fine() -> None:
    """The preflight of the clone itself; a user's own params.yaml may be in the middle of an edit."""
    found = subprocess.run([sys.executable, "-m", "pedigree", "check"], cwd=ROOT, capture_output=True, text=True)
    if read_yaml(ROOT / "params.yaml") == read_yaml(ROOT / "recipes/default.yaml"):
        assert found.returncode == 0, found.stderr


def test_every_mistake_is_told_at_once(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(values: dict[str, Any]) -> None:
        values["train"].update(lr=-1.0, batch_size=12, micro_batch_size=8)
        values["dedup"] = {key: value for key, value in values["dedup"].items() if key != "seed"} | {"sed": 1}
        values["dpoo"] = values.pop("dpo")
        values["sources"].append(values["sources"][0] | {"share": 0.5})
        values["tasks"][0]["path"] = "data/raw/eval/clinics.yaml"

    edit(change)
    with pytest.raises(SystemExit) as failure:
        main(["check"])
    assert failure.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("pedigree: error: ") for line in said)
    lines = [line.removeprefix("pedigree: error: ") for line in said]
    assert [line.split(": ")[0] for line in lines] == [
        "params.yaml, dpoo",
        "params.yaml, sources",
        "params.yaml, sources",
        "params.yaml, dedup.seed",
        "params.yaml, dedup.sed",
        "params.yaml, train.lr",
        "params.yaml, dpo",
        "params.yaml, tasks.clinic.path",
    ]
    assert "unknown block; did you mean `dpo`?" in lines[0]
    assert "the name questions stands twice" in lines[1]
    assert "the shares of kind sft sum to 1.5, not 1 (questions 1, questions 0.5)" in lines[2]
    assert "did you mean `seed`?" in lines[4]
    assert "greater than 0, got -1.0" in lines[5]
    assert "there is no such file" in lines[7]


def test_a_rule_between_two_keys(clone: Path) -> None:
    (line,) = mistakes_after(put("train", batch_size=12, micro_batch_size=8))
    assert line.startswith("params.yaml, train: batch_size 12 is not a multiple of micro_batch_size 8")


@pytest.mark.parametrize(
    ("name", "content", "path", "expected"),
    [
        ("x.json", "", "data/raw/sources/x.json", "data/raw/sources/x.json is empty"),
        ("x.json", "[]", "data/raw/sources/y.json", "no file data/raw/sources/y.json"),
        ("x.json", "[]", "data/raw/sources/y*.json", "no file data/raw/sources/y*.json"),
        ("x.txt", "a", "data/raw/sources/x.txt", "the type is unknown; name it .json, .jsonl"),
        ("x.json", "[]", f"data/raw/sources/{'y' * 300}.json", "; put it there, or mend the path"),
    ],
)
def test_source_files(name: str, content: str, path: str, expected: str, clone: Path) -> None:
    Path("data/raw/sources", name).write_text(content)
    (line,) = mistakes_after(lambda values: values["sources"][0].update(path=path))
    assert expected in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "content", "form", "expected"),
    [
        ("x.jsonl.gz", gzip.compress(PAIRS.encode() * 100)[:40], "pairs", "; copy or export the file again"),
        ("x.jsonl", PAIRS.encode("utf-16"), "pairs", "not UTF-8 at byte 0; save the file as UTF-8"),
        ("x.jsonl", QUESTIONS.encode(), "alpaca", "holds a JSON array, not one object a line; name it .json"),
        ("x.json", PAIRS.encode(), "pairs", "one record a line is .jsonl"),
        ("x.json", b"[]", "pairs", "holds no record"),
        ("x.csv", b"ask,reply\na,b\n", "qa", "no column question, answer"),
        ("x.json", b'[{"instruction": "a"}, 1]', "alpaca", "none of 2 records fits: 1 x 'output' is missing"),
    ],
)
def test_what_source_files_hold(name: str, content: bytes, form: str, expected: str, clone: Path) -> None:
    Path("data/raw/sources", name).write_bytes(content)
    source = {"name": "x", "path": f"data/raw/sources/{name}", "format": form, "share": 0.0}
    (line,) = mistakes_after(lambda values: values["sources"].append(values["sources"][0] | source))
    assert expected in line
    assert "\n" not in line


def test_records_that_do_not_fit_are_counted(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/raw/sources/pairs.jsonl").write_text(PAIRS + '{"chosen": "a"}\n')
    main(["check"])
    assert "3 records read, 1 to be refused" in capsys.readouterr().out


def test_of_a_large_source_the_first_records_are_read(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pedigree.source_files.WHOLE_BYTES", 1000)
    Path("data/raw/sources/questions.json").write_text(f"[{', '.join([QUESTIONS[1:-1]] * 150)}]")
    main(["check"])
    assert "101 records read; only the first 100 of questions" in capsys.readouterr().out


def test_nothing_is_fetched(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Port 9 answers nobody, so a look would be a mistake."""
    address = {"path": "http://127.0.0.1:9/a.json", "digest": "unknown"}
    edit(lambda values: values["sources"][0].update(address))
    main(["check"])
    assert "1 records read; not looked into: questions" in capsys.readouterr().out
    (line,) = mistakes_after(lambda values: values["sources"][0].pop("digest"))
    assert line.startswith("params.yaml, sources.questions.digest: missing")


def test_a_source_that_dvc_does_not_watch_is_refused(clone: Path) -> None:
    Path("elsewhere.json").write_text(QUESTIONS)
    edit(lambda values: values["sources"][0].update(path="elsewhere.json"))
    (line,) = preflight().mistakes
    assert "elsewhere.json is not below data/raw/sources" in line


def test_what_scrub_needs_beside_params(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = mistakes_after(put("scrub", deny_file="deny.txt", deny_fingerprint="0" * 12))
    assert line.startswith("deny.txt: cannot be read")
    Path("deny.txt").write_text("Helen Novak\n")
    (line,) = preflight().mistakes
    assert line.startswith("deny.txt: has the fingerprint ")
    assert "Novak" not in line
    right = hashlib.sha256(b"Helen Novak\n").hexdigest()[:12]
    assert mistakes_after(put("scrub", deny_fingerprint=right)) == []
    secret = "a long secret of a test"
    key = {"key_fingerprint": hashlib.sha256(secret.encode()).hexdigest()[:12]}
    (line,) = mistakes_after(put("scrub", **key))
    assert "scrub.key_fingerprint asks for the key" in line
    monkeypatch.setenv("PEDIGREE_KEY", secret)
    assert mistakes_after(put("scrub", **key)) == []


@pytest.mark.parametrize(
    ("block", "values"),
    [
        ("scrub", {"deny": "Helen Novak"}),
        ("scrub", {"deny": ["Helen Novak", 4471123]}),
        ("scrub", {"key_fingerprint": "Helen Novak 4471123"}),
        ("pool", {"subject_key": "Helen Novak 4471123"}),
    ],
)
def test_no_message_quotes_what_may_be_personal_or_a_key(block: str, values: dict[str, Any], clone: Path) -> None:
    (line,) = mistakes_after(put(block, **values))
    assert line.startswith(f"params.yaml, {block}.{next(iter(values))}")
    assert "Novak" not in line
    assert "4471123" not in line


def test_a_key_that_stands_twice_shows_neither_value(clone: Path) -> None:
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("  subject_key: public", "  subject_key: aNovak1\n  subject_key: public"))
    with pytest.raises(InputError, match='found duplicate key "subject_key"') as error:
        preflight()
    assert "Novak" not in str(error.value)


def test_item_files_of_a_task(clone: Path) -> None:
    Path("data/raw/eval/clinic.jsonl").rename("data/raw/eval/other.jsonl")
    (line,) = preflight().mistakes
    assert line.startswith("params.yaml, tasks.clinic.path: data/raw/eval/clinic.yaml reads data/raw/eval/clinic.jsonl")
    Path("data/raw/eval/clinic.jsonl").touch()
    (line,) = preflight().mistakes
    assert "data/raw/eval/clinic.jsonl is empty" in line
    Path("data/raw/eval/clinic.jsonl").write_bytes(b'{"question": "a"}\n\n{"question": "\xe9"}\n')
    (line,) = preflight().mistakes
    assert "data/raw/eval/clinic.jsonl, line 3: is no JSON object in UTF-8" in line


def test_a_task_that_is_a_folder(clone: Path) -> None:
    (line,) = mistakes_after(lambda values: values["tasks"][0].update(path="data/raw/eval"))
    assert line == "params.yaml, tasks.clinic.path: data/raw/eval is a folder; name the task's YAML file in it"


def test_prompts_of_the_card(clone: Path) -> None:
    (line,) = mistakes_after(put("eval", prompts="data/raw/eval/gone.yaml", answer_tokens=8))
    assert line.startswith("params.yaml, eval.prompts: data/raw/eval/gone.yaml is not there")
    assert mistakes_after(put("eval", prompts=read_yaml(ROOT / "recipes/default.yaml")["eval"]["prompts"])) == []


def test_kinds_that_the_graph_needs(clone: Path) -> None:
    (line,) = mistakes_after(lambda values: values["sources"].pop())
    assert line == (
        "params.yaml, sources: no source of kind preference, which the graph needs; add one in the format hh or pairs"
    )


def test_no_row_held_out(clone: Path) -> None:
    shares = {"sft": 0.0, "preference": 0.1, "unpaired": 0.0}
    (line,) = mistakes_after(put("mix", heldout_share=shares))
    assert line.startswith("params.yaml, mix.heldout_share.sft: 0 leaves no row to measure on")


def test_rules_for_what_is_not_there(clone: Path) -> None:
    (line,) = mistakes_after(put("decontaminate", tasks={"mmlu": {"threshold": 0.5}}))
    assert line == "params.yaml, decontaminate.tasks.mmlu: no such task; there are clinic"
    edit(put("decontaminate", tasks={}))
    (line,) = mistakes_after(put("filters", languages=["en", "qq"]))
    assert line.startswith("params.yaml, filters.languages: qq is not known; known are ")


def test_what_differential_privacy_asks(clone: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        values["pipeline"]["sft"] = "sft_dp"
        values["train"].update(method="full", lora_dropout=0.1, lr=1e-3)
        values["mix"]["repeat_cap"] = 2
        values["sources"][0]["repeat_cap"] = 3

    edit(change)
    report = preflight()
    assert [line.split(": ")[0] for line in report.mistakes] == [
        f"params.yaml, {key}"
        for key in (
            "train.method",
            "train.lora_dropout",
            "mix.repeat_cap",
            "sources.questions.repeat_cap",
            "quantize.calibration",
        )
    ]
    assert [note.split(": ")[0] for note in report.notes] == ["params.yaml, train.lr", "params.yaml, pipeline.final"]


def test_a_rate_that_trains_nothing_is_noted(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(put("train", lr=2e-5))
    main(["check"])
    assert "note: params.yaml, train.lr: 2e-05 is a rate for full fine-tuning" in capsys.readouterr().out


CONFIG = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "max_position_embeddings": 1024}


def test_lengths_and_groups_fit_the_base_model(clone: Path) -> None:
    Path("mine").mkdir()
    Path("mine/config.json").write_text(json.dumps(CONFIG))

    def change(values: dict[str, Any]) -> None:
        values["base"].update(model="path:mine", digest="sha256:" + "0" * 64)
        values["mix"]["max_length_tokens"] = 2048
        values["quantize"]["group_size"] = 128

    assert mistakes_after(change) == [
        "params.yaml, mix.max_length_tokens: 2048 is more than the base model's window of 1024 tokens; "
        "set it to 1024 or less",
        # 576 = 4.5 x 128 = 9 x 64; 1536 = 12 x 128
        "params.yaml, quantize.group_size: 128 does not divide the 576 inputs of the attention; set it to 64",
        "params.yaml, quantize.group_size: 128 does not divide the 576 inputs of the attention's output; set it to 64",
    ]
    (line,) = mistakes_after(lambda values: values.update(base=values["base"] | {"model": "path:gone"}))
    assert line == "params.yaml, base.model: there is no folder gone; put the model there, or mend the path"


def test_a_base_model_of_other_parameters_does_not_count(clone: Path) -> None:
    Path("models/base").mkdir(parents=True)
    Path("models/base/config.json").write_text(json.dumps(CONFIG))
    assert len(mistakes_after(put("quantize", group_size=128))) == 2
    base = read_yaml(Path("params.yaml"))["base"]
    lock = {"stages": {"base": {"params": {"params.yaml": {"base": base}}}}}
    YAML().dump(lock, Path("dvc.lock"))
    assert len(preflight().mistakes) == 2
    assert mistakes_after(put("base", dtype="float32")) == []


def test_a_hub_model_wants_its_commit(clone: Path) -> None:
    (line,) = mistakes_after(put("base", model="hub:org/name@main"))
    assert line.startswith("params.yaml, base.model: @main is no commit; give its 40 hex digits")
    assert preflight().notes == []
    edit(put("base", model="hub:org/name@" + "a" * 40, digest="unknown"))
    assert preflight().mistakes == []
    assert "not pinned yet" in preflight().notes[0]


def test_packages_are_the_pinned_ones(clone: Path) -> None:
    Path("dvc.yaml").write_text(
        'params: [pyproject.toml: [dependency-groups.core, "dependency-groups.${pipeline.sft}"]]\n'
    )
    Path("pyproject.toml").write_text(
        "[dependency-groups]\n"
        "core = ['polars==0.0.1', 'no-such-package==1.0', 'pytest>=1', {include-group = 'more'}]\n"
        "more = ['numpy==0.0.1', \"none-either==1.0; sys_platform == 'never'\"]\n"
        "sft = ['tqdm==0.0.1']\n"
        "sft_dp = ['pydantic==0.0.1']\n"  # not the choice of pipeline.sft
    )
    lines = preflight().mistakes
    assert [line.split(": ")[0].removeprefix("pyproject.toml, ") for line in lines] == [
        "polars==0.0.1",
        "no-such-package==1.0",
        "numpy==0.0.1",
        "tqdm==0.0.1",
    ]
    assert lines[0].endswith(" is installed; `make test` mends it")
    assert lines[1] == "pyproject.toml, no-such-package==1.0: is not installed; `make test` installs it"


def test_disk(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000_000_000))
    assert preflight().mistakes == []  # 6 x 135 M parameters x 2 bytes + 2 GB = 3.62 GB
    assert preflight().facts[-1] == ("disk", "needs about 3.62 GB, 10 GB free")
    model = "hub:Qwen/Qwen2.5-7B-Instruct@" + "a" * 40
    (line,) = mistakes_after(put("base", model=model))  # 6 x 7 G x 2 + 2 = 86 GB
    assert line.startswith("disk: needs about 86 GB, 10 GB free; make room")


@pytest.mark.parametrize(
    ("model", "dtype", "expected"),
    [
        ("hub:org/tiny-1.5b@abc", "bfloat16", 3e9),
        ("hub:org/smol-360M@abc", "float32", 1.44e9),
        ("hub:org/model3@7bc", "bfloat16", 270e6),
        ("random:llama", "float32", 1e6),
    ],
)
def test_size_of_a_model_from_its_name(model: str, dtype: str, expected: float, clone: Path) -> None:
    base = Base.model_construct(model=model, dtype=dtype)
    assert estimate_base_bytes(base) == expected


def test_fingerprint_of_the_key(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fingerprint = "2bb80d537b1d"  # printf secret | sha256sum
    (line,) = mistakes_after(put("pool", subject_key=fingerprint))
    assert line.startswith("PEDIGREE_KEY is not set")
    monkeypatch.setenv("PEDIGREE_KEY", "secret")
    main(["check"])
    said = capsys.readouterr().out
    assert f"PEDIGREE_KEY has the fingerprint {fingerprint}" in said
    assert "secret" not in said
    monkeypatch.setenv("PEDIGREE_KEY", "another")
    (line,) = preflight().mistakes
    assert line.startswith(
        "PEDIGREE_KEY has the fingerprint ae448ac86c4e, params.yaml, pool.subject_key asks for 2bb80d"
    )


def test_shares_and_names_are_judged_as_the_stages_do(clone: Path) -> None:
    """The preflight tells all of it at once, load_sources the first; they must agree on what is wrong."""
    values = read_yaml(Path("params.yaml"))
    for name in ("pairs", "questions"):
        for shares in ((1.0, 1.0), (0.5, 1.0), (1.0, 1 - 1e-7), (1.0, 0.99), (0.2, 0.2)):
            values["sources"][1]["name"] = name
            values["sources"][0]["share"], values["sources"][1]["share"] = shares
            YAML().dump(values, Path("params.yaml"))
            found = compare_entries("sources", [Source(**source) for source in values["sources"]])
            with pytest.raises(InputError) if found else nullcontext() as failure:
                load_sources()
            assert not found or str(failure.value) == found[0]


def test_missing_and_broken_params(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text("- 1\n")
    with pytest.raises(SystemExit):
        main(["check"])
    assert "params.yaml: holds no blocks" in capsys.readouterr().err
    Path("params.yaml").unlink()
    with pytest.raises(SystemExit):
        main(["check"])
    assert capsys.readouterr().err.startswith("pedigree: error: params.yaml: there is no such file")


@pytest.mark.parametrize(
    ("arguments", "absent"), [(["check"], HEAVY), (["--help"], {"pydantic", "polars", "ruamel", "numpy", "pyarrow"})]
)
def test_it_imports_nothing_heavy(arguments: list[str], absent: set[str], clone: Path) -> None:
    code = (
        "import sys\nfrom pedigree.cli import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
        "print('loaded', *{name.partition('.')[0] for name in sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    loaded = set(found.stdout.splitlines()[-1].split())
    assert "argparse" in loaded
    assert not loaded & absent
