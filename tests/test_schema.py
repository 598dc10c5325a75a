"""params.schema.json: current, complete, and with the words of the classes."""

import json
from pathlib import Path
from typing import Any

import pytest

from pedigree.blocks import BLOCKS
from pedigree.cli import main
from pedigree.schema import SCHEMA_FILE, build_schema, schema_text
from stages.common.params import read_yaml

ROOT = Path(__file__).parent.parent
SCHEMA = build_schema()


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference stands for."""
    return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def test_the_committed_file_is_current() -> None:
    assert (ROOT / SCHEMA_FILE).read_text() == schema_text(), "run `pedigree schema`"


def test_it_knows_every_block_of_params_and_no_other() -> None:
    default = read_yaml(ROOT / "recipes/default.yaml")
    assert set(default) == set(BLOCKS) == set(SCHEMA["properties"]) == set(SCHEMA["required"])
    assert SCHEMA["additionalProperties"] is False
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", BLOCKS)
def test_each_key_of_a_block_is_described(name: str) -> None:
    values = read_yaml(ROOT / "recipes/default.yaml")[name]
    block = SCHEMA["properties"][name]
    if isinstance(values, list):
        block, values = block["items"], values[0]
    block = resolve(block)
    assert block["additionalProperties"] is False
    assert set(values) <= set(block["properties"])
    for key, schema in block["properties"].items():
        assert schema.get("description", "").strip(), f"{name}.{key} has no docstring"


def test_ranges_and_choices() -> None:
    train = resolve(SCHEMA["properties"]["train"])
    lr = train["properties"]["lr"]
    assert (lr["type"], lr["exclusiveMinimum"], lr["maximum"]) == ("number", 0, 1)
    assert lr["description"].startswith("Peak learning rate.")
    assert train["properties"]["schedule"]["enum"] == ["constant", "linear", "cosine"]
    assert "lr" in train["required"]
    source = resolve(SCHEMA["properties"]["sources"]["items"])
    assert "share" in source["required"]
    assert "subject" not in source["required"]


def test_params_yaml_names_it() -> None:
    assert f"# yaml-language-server: $schema={SCHEMA_FILE}" in (ROOT / "params.yaml").read_text().splitlines()[:3]


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").touch()
    with pytest.raises(SystemExit) as failure:
        main(["schema", "--check"])
    assert failure.value.code == 1
    assert not SCHEMA_FILE.exists()
    assert (
        capsys.readouterr().err
        == "pedigree: error: params.schema.json: is out of date; `pedigree schema` writes it anew\n"
    )
    main(["schema"])
    assert json.loads(SCHEMA_FILE.read_text()) == SCHEMA
    main(["schema", "--check"])
    assert capsys.readouterr().out.splitlines()[-1] == "params.schema.json is up to date"
