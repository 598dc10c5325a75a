"""pedigree recipe: what it writes into params.yaml, what it leaves alone, what it refuses."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pedigree.blocks import validate_blocks
from pedigree.cli import main
from pedigree.recipe import describe_recipe, read_recipes, recipe_names
from pedigree.values import leaves_of, read_leaves, set_values
from stages.common.errors import InputError
from stages.common.params import read_yaml

ROOT = Path(__file__).parent.parent
SHIPPED = ["default", "dp", "hub_7b", "tiny"]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipes as shipped, and the default one in force."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    _, _, body = (tmp_path / "recipes/default.yaml").read_text().partition("\n\n")
    (tmp_path / "params.yaml").write_text("# a header of my own\n\n" + body)
    return tmp_path


def params() -> Any:
    return read_yaml(Path("params.yaml"))


def put(key: str, value: str) -> None:
    """Edit one value of params.yaml by hand, as a user does."""
    path = Path("params.yaml")
    text, leaf = path.read_text(), read_leaves(path)[tuple(key.split("."))]
    path.write_text(text[: leaf.start] + value + text[leaf.end :])


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that must fail says on stderr."""
    with pytest.raises(SystemExit) as failure:
        main(arguments)
    assert failure.value.code == 1
    return capsys.readouterr().err


def test_default_is_params_yaml_as_committed() -> None:
    default = read_yaml(ROOT / "recipes/default.yaml")
    if default == read_yaml(ROOT / "params.yaml"):
        return  # an experiment of the user's may have changed params.yaml since: then the commit counts
    committed = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=ROOT, capture_output=True, text=True).stdout
    assert YAML(typ="safe", pure=True).load(committed) == default, (
        "recipes/default.yaml must hold the values of params.yaml: keep its opening comment and put the text of "
        "params.yaml from the first empty line on behind it"
    )


def test_shipped_recipes(clone: Path) -> None:
    assert recipe_names() == SHIPPED
    for name in SHIPPED:
        assert 20 < len(describe_recipe(name)) < 100
        first = Path(f"recipes/{name}.yaml").read_text().splitlines()[0]
        assert first == f"# {describe_recipe(name)}"  # one sentence, one line


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_is_valid_and_goes_back_to_the_same_bytes(name: str, clone: Path) -> None:
    before = Path("params.yaml").read_bytes()
    main(["recipe", "use", name])
    assert validate_blocks(params())[1] == []
    assert {key: leaf.value for key, leaf in read_leaves(Path("params.yaml")).items()} == {
        key: leaf.value for key, leaf in read_recipes()[name].items()
    }
    main(["recipe", "use", "default"])
    assert Path("params.yaml").read_bytes() == before


def test_what_the_recipes_are_for(clone: Path) -> None:
    main(["recipe", "use", "dp"])
    assert params()["pipeline"] == {"sft": "sft_dp", "align": "dpo", "final": "sft"}
    assert params()["train"]["lora_rank"] == 4
    assert params()["mix"]["repeat_cap"] == 1
    main(["recipe", "use", "tiny"])
    assert params()["base"]["model"] == "random:llama"
    assert params()["base"]["digest"] is None
    assert [task["limit"] for task in params()["tasks"]] == [20, 20]
    assert params()["pipeline"]["sft"] == "sft", "recipes do not pile up: dp is gone"
    main(["recipe", "use", "hub_7b"])
    organisation, _, revision = params()["base"]["model"].partition("@")
    assert organisation == "hub:Qwen/Qwen2.5-7B-Instruct"
    assert len(revision) == 40
    assert 3584 % params()["quantize"]["group_size"] == 0
    assert 18944 % params()["quantize"]["group_size"] == 0


def test_a_text_keeps_its_comments_quotes_and_numbers() -> None:
    text = (
        "# top\n"
        "a:\n"
        "  rate: 1.0e-4   # of learning\n"
        "  name: 'one'\n"
        "  empty:\n"
        "  pair: {x: 1, y: null}  # both\n"
        "  list:\n"
        "  - k: 1  # first\n"
        "    l: 2\n"
        "\n"
        "# the second block\n"
        "b:\n"
        "  last: true\n"
    )
    wanted = leaves_of(
        "a:\n  rate: 2.5e-5\n  empty: 'now'\n  pair:\n    y: 3\n  list:\n    - k: 7\n    - k: 8  # eighth\n"
    )
    assert set_values(text, wanted) == (
        "# top\n"
        "a:\n"
        "  rate: 2.5e-5   # of learning\n"
        "  name: 'one'\n"
        "  empty: 'now'\n"
        "  pair: {x: 1, y: 3}  # both\n"
        "  list:\n"
        "  - k: 7\n"
        "  - k: 8  # eighth\n"
        "\n"
        "# the second block\n"
        "b:\n"
        "  last: true\n"
    )
    assert set_values(text, leaves_of("a: {rate: 0.0001}")) == text  # the same number: its own spelling stays


def test_a_value_through_an_anchor_is_refused() -> None:
    with pytest.raises(InputError, match=r"a\.x: its form"):
        set_values("a: {x: &one 1}\nb: {y: *one}\n", leaves_of("a: {x: 2}\nb: {y: 1}\n"))


def test_comments_in_params_survive_a_recipe(clone: Path) -> None:
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("\ndpo:\n", "\n# about dpo\ndpo:\n  # in dpo\n"))
    comments = [line.split("#", 1)[1] for line in path.read_text().splitlines() if "#" in line]
    main(["recipe", "use", "tiny"])
    after = [line.split("#", 1)[1] for line in path.read_text().splitlines() if "#" in line]
    assert after == comments
    assert " in dpo" in after
    assert "lr: 1.0e-2  " in path.read_text()


def test_an_unknown_key_is_refused_with_the_nearest_name(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("params.yaml").read_bytes()
    Path("recipes/own.yaml").write_text(
        "# Mine.\ntrain:\n  epoch: 3\nquantise: {seed: 2}\nmix: {seed: {x: 1}}\ndpo: 3\n"
    )
    lines = refused(["recipe", "use", "own"], capsys).splitlines()
    assert lines[0] == "pedigree: error: recipes/own.yaml, train.epoch: unknown key; did you mean `epochs`?"
    assert lines[1] == "pedigree: error: recipes/own.yaml, quantise.seed: unknown key; did you mean `quantize`?"
    assert lines[2] == "pedigree: error: recipes/own.yaml, mix.seed.x: unknown key; `mix.seed` is a single value"
    assert lines[3].startswith(
        "pedigree: error: recipes/own.yaml, dpo: has keys of its own, set them one by one (beta, "
    )
    assert Path("params.yaml").read_bytes() == before


def test_an_invalid_value_is_refused(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("params.yaml").read_bytes()
    Path("recipes/own.yaml").write_text("# Mine.\ntrain:\n  lr: fast\n  batch_size: 12\n")
    said = refused(["recipe", "use", "own"], capsys)
    assert "params.yaml, train.lr: " in said
    assert "got 'fast'" in said
    assert "nothing was written: mend recipes/own.yaml first" in said
    assert Path("params.yaml").read_bytes() == before


def test_values_of_ones_own_are_not_overwritten_unsaid(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("params.yaml")
    text, beta = path.read_text(), params()["dpo"]["beta"]
    put("dpo.beta", "0.37")
    path.write_text(path.read_text().replace("- name: clinic_faq\n  path: data/", "- name: clinic_faq\n  path: d/"))
    edited, faq = path.read_text(), params()["sources"][0]["path"]
    with pytest.raises(SystemExit):
        main(["recipe", "use", "dp"])
    said = capsys.readouterr()
    assert path.read_text() == edited
    rows = [line.split() for line in said.out.splitlines() if line.startswith("  ")]
    assert rows == [
        ["key", "yours", "dp"],
        ["sources.clinic_faq.path", faq, faq.replace("d/", "data/", 1)],
        ["dpo.beta", "0.37", str(beta)],
    ]
    assert said.err.startswith("pedigree: error: nothing was written; `pedigree recipe use dp --keep` keeps them")

    main(["recipe", "use", "dp", "--keep"])
    assert "is `dp` now with 2 values of your own" in capsys.readouterr().out
    assert (params()["pipeline"]["sft"], params()["dpo"]["beta"], params()["sources"][0]["path"]) == (
        "sft_dp",
        0.37,
        faq,
    )
    main(["recipe", "use", "default", "--keep"])
    assert path.read_text() == edited
    main(["recipe", "use", "default", "--force"])
    assert path.read_text() == text


def test_keep_gives_way_to_what_the_recipe_sets(clone: Path) -> None:
    put("train.lora_rank", "5")
    put("dpo.lora_rank", "5")
    main(["recipe", "use", "dp", "--keep"])
    assert (params()["train"]["lora_rank"], params()["dpo"]["lora_rank"]) == (4, 5)


@pytest.mark.parametrize("name", ["default", "tiny"])
def test_an_experiment_keeps_the_comments_of_params(name: str, clone: Path) -> None:
    """`dvc exp run -S` writes params.yaml anew: lists as plain values, so that no comment may stand inside one."""
    from dvc.utils.hydra import apply_overrides

    main(["recipe", "use", name])
    before = Path("params.yaml").read_text()
    apply_overrides("params.yaml", ["train.lr=2e-5"])
    after = Path("params.yaml").read_text()
    assert read_yaml(Path("params.yaml"))["train"]["lr"] == 2e-5
    lost = [line for line in before.splitlines() if line.strip() and line not in after.splitlines()]
    assert [line.split(":")[0].strip() for line in lost if "digest" not in line] == ["lr"]
    assert [line.partition("#")[2] for line in lost if "#" in line and "lr:" not in line] == []


def test_params_as_dvc_writes_them(clone: Path) -> None:
    """`dvc exp run -S` moves lists to the left, breaks long lines and leaves out `null`."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml("params.yaml") as values:
        values["train"]["lr"] = 2e-5
    assert "\n- name: clinic_faq\n" in Path("params.yaml").read_text()
    main(["recipe", "use", "tiny", "--force"])
    main(["recipe", "use", "default"])
    assert params() == read_yaml(Path("recipes/default.yaml"))


def test_missing_or_extra_keys_are_mended_from_the_default(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("\nquantize:\n", "\nquantise:\n"))
    assert "unknown block; did you mean `quantize`?" in refused(["recipe", "use", "tiny", "--keep"], capsys)
    main(["recipe", "use", "tiny", "--force"])
    assert "quantise" not in params()
    assert params()["quantize"]["group_size"] == 16
    path.unlink()
    main(["recipe", "use", "default"])
    assert params() == read_yaml(Path("recipes/default.yaml"))
    assert path.read_text().startswith("# yaml-language-server: $schema=params.schema.json\n")


def test_list_show_and_diff(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["*", "default"], ["dp", "Supervised"]]
    assert lines[-1] == "params.yaml is `default`"
    assert max(map(len, lines)) <= 100

    main(["recipe", "show", "tiny"])
    assert capsys.readouterr().out == Path("recipes/tiny.yaml").read_text()

    seed = params()["train"]["seed"]
    put("train.seed", "77")
    main(["recipe", "diff"])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["key", "here", "default"],
        ["train.seed", "77", str(seed)],
    ]
    main(["recipe", "diff", "dp"])
    assert ["pipeline.final", "align", "sft"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    main(["recipe", "list"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("params.yaml is `default` with 1 value of your own")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["recipe", "use", "tinny"],
            "there is no recipe `tinny`; did you mean `tiny`? (there are: default, dp, hub_7b, tiny)",
        ),
        (["recipe", "show", "../params"], "there is no recipe `../params`"),
        (["recipe", "use"], "the following arguments are required: name"),
        (["recpie"], "invalid choice: 'recpie'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], expected: str, clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(arguments, capsys)
    assert said.startswith("pedigree: error: ")
    assert expected in said
    assert said.count("\n") == 1


def test_broken_params_and_no_clone(
    clone: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("params.yaml").write_text("train:\n  lr: [1\nmix: 2\n")
    assert "pedigree: error: params.yaml, line 3: not valid YAML" in refused(["recipe", "use", "dp", "--force"], capsys)
    (clone / "below").mkdir()
    monkeypatch.chdir(clone / "below")
    main(["recipe", "show", "dp"])  # works in any folder of the clone
    assert capsys.readouterr().out.startswith("# Supervised")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert "there is no dvc.yaml here or above" in refused(["recipe", "list"], capsys)
