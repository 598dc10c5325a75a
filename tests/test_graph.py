"""dvc.yaml says what the code says: each stage's code, parameters and packages are derived from its imports."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
GRAPH = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
# What `python -c` must be able to import under another name than the package's.
PACKAGE_OF = {
    "ruamel": "ruamel.yaml", "huggingface_hub": "huggingface-hub", "lm_eval": "lm-eval", "presidio_analyzer":
    "presidio-analyzer", "compressed_tensors": "compressed-tensors", "pycrfsuite": "python-crfsuite",
}  # fmt: skip
# Modules that a stage runs: its own, and each that can stand at its place.
MODULES = {"sft": ["sft", "sft_dp"], "align": ["dpo"]}
NOT_CODE = ("data/", "models/", "metrics/")
# How the lists and the model beside it were made and measured.
NOT_RUN = {"stages/pii/lists/compile_lists.py", "stages/pii/ner/evaluate.py"} | {
    str(path.relative_to(ROOT)) for path in (ROOT / "stages/pii/ner/train").glob("*.py")
}


def modules_of(stage: str) -> list[str]:
    return [f"stages/{name}.py" for name in MODULES.get(stage, [stage])]


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


def closure(path: Path, seen: set[Path] | None = None) -> set[Path]:
    """The files of ours that a file needs, itself included; empty `__init__` files left out."""
    seen = set() if seen is None else seen
    if path in seen:
        return seen
    seen.add(path)
    for name in imports_of(path):
        if name.startswith("stages.") and (found := file_of(name)):
            closure(found, seen)
    return seen


def code_of(path: str) -> set[str]:
    return {file.relative_to(ROOT).as_posix() for file in closure(ROOT / path) if not says_nothing(file)}


def says_nothing(path: Path) -> bool:
    """Whether a file is a docstring alone, as most `__init__.py` are."""
    return path.name == "__init__.py" and len(ast.parse(path.read_text()).body) < 2


def body(stage: str) -> dict:
    return GRAPH[stage].get("do", GRAPH[stage])


def declared_code(stage: str, module: str) -> set[str]:
    """Python files among the deps; a folder counts as the files in it."""
    deps = [re.sub(r"\$\{pipeline\.\w+\}", Path(module).stem, dep) for dep in body(stage)["deps"]]
    found: set[str] = set()
    for dep in deps:
        if not dep.startswith(NOT_CODE):
            files = (ROOT / dep).glob("**/*.py") if (ROOT / dep).is_dir() else [ROOT / dep]
            found |= {
                file.relative_to(ROOT).as_posix() for file in files if file.suffix == ".py" and not says_nothing(file)
            }
    return found - NOT_RUN


def declared_groups(stage: str, module: str) -> set[str]:
    for entry in body(stage)["params"]:
        if isinstance(entry, dict) and "pyproject.toml" in entry:
            return {
                re.sub(r"\$\{.*\}", Path(module).stem, key).removeprefix("dependency-groups.")
                for key in entry["pyproject.toml"]
            }
    return set()


CASES = [(stage, module) for stage in GRAPH for module in modules_of(stage)]


@pytest.mark.parametrize(("stage", "module"), CASES)
def test_code_deps_equal_imports(stage: str, module: str) -> None:
    if stage == "card":  # it states the digest of all code
        assert "stages" in body(stage)["deps"]
    else:
        assert declared_code(stage, module) == code_of(module)


def test_the_card_depends_on_everything_whose_digest_it_states() -> None:
    outs = {name for stage in GRAPH for out in body(stage)["outs"] if isinstance(name := out, str)}
    outs |= {name for stage in GRAPH for out in body(stage)["outs"] if isinstance(out, dict) for name in out}
    folders = {name.replace("${key}", model) for name in outs for model in GRAPH["eval"]["foreach"]}
    stated = {name for name in folders if name.startswith(("data/", "models/"))}
    assert stated - set(GRAPH["card"]["deps"]) == {"data/pool", "data/dedup"}  # metrics name their digests


@pytest.mark.parametrize(("stage", "module"), [case for case in CASES if case[0] != "card"])
def test_package_groups_equal_imports(stage: str, module: str) -> None:
    used = {
        PACKAGE_OF.get(name.split(".")[0], name.split(".")[0])
        for file in code_of(module)
        for name in imports_of(ROOT / file)
    }
    used -= set(sys.stdlib_module_names) | {"stages", "__future__"}
    groups = {
        name: {re.split(r"\[|==", requirement)[0] for requirement in group if isinstance(requirement, str)}
        for name, group in GROUPS.items()
    }
    declared = declared_groups(stage, module)
    offered = set().union(*(groups[name] for name in declared))
    assert used - offered - {"pydantic_core"} == set(), "imported but not in a declared group"
    idle = {name for name in declared if not groups[name] & used}
    assert idle == set(), "declared groups of which nothing is imported"


@pytest.mark.parametrize("stage", GRAPH)
def test_stages_import_no_other_stage(stage: str) -> None:
    mains = {f"stages/{path.name}" for path in (ROOT / "stages").glob("*.py") if "def main" in path.read_text()}
    for module in modules_of(stage):
        assert code_of(module) & mains == {module}


def test_raw_personal_data_is_never_pushed() -> None:
    for stage in ("pool", "dedup"):
        assert GRAPH[stage]["outs"][0] == {f"data/{stage}": {"push": False}}


def test_packages_are_pinned_once() -> None:
    pins: dict[str, str] = {}
    for group in GROUPS.values():
        for requirement in group:
            if isinstance(requirement, str):
                name, equals, version = requirement.partition("==")
                assert equals, f"{requirement} is not pinned with =="
                assert pins.setdefault(name, version) == version
    constraints = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in constraints.items()}
    for name, version in pins.items():
        assert normal[re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()] == version
    assert "://" not in (ROOT / "constraints.txt").read_text()
    assert "+" not in "".join(constraints.values())
