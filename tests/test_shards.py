"""The data stages give the same bytes whatever does the work, in how many parts, and whatever Python hashes by."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
STAGES = ("pool", "dedup", "scrub", "decontaminate")
RUN = """
import importlib, sys
from stages.common import engine
import stages.decontaminate, stages.dedup, stages.scrub
import stages.common.batches, stages.contamination.overlaps, stages.deduplication.signatures
rows = int(sys.argv[1])
stages.scrub.BATCH_ROWS = stages.decontaminate.BATCH = stages.contamination.overlaps.BATCH = rows
stages.dedup.RAY_ROWS = rows
for name in sys.argv[2:]:
    importlib.import_module(f"stages.{name}").main()
"""


def run_stages(folder: Path, name: str, workers: int, batch_rows: int, hash_seed: str) -> dict[str, bytes]:
    """What pool, dedup, scrub and decontaminate write from a twentieth of the embedded data."""
    (folder / "data").mkdir(parents=True)
    shutil.copytree(ROOT / "data/raw", folder / "data/raw")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["engine"] = {"name": name, "workers": workers, "address": None}
    params["probes"] |= {"duplicates": 2, "personal_data": 2, "leaks": 2}
    params["sources"] = [source for source in params["sources"] if source["name"] in ("clinic_faq", "reviewed_replies")]
    for source in params["sources"]:
        source["share"] = 1.0
    yaml.dump(params, folder / "params.yaml")
    command = [sys.executable, "-c", RUN, str(batch_rows), *STAGES]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    written = [path for path in sorted(folder.rglob("*")) if path.is_file() and "raw" not in path.parts]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in written
        if path.parent.name != "timing" and path.name != "params.yaml" and ".pedigree" not in path.parts
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return run_stages(tmp_path_factory.mktemp("reference") / "run", "local", 1, 10_000, "0")


@pytest.mark.parametrize(("name", "workers", "batch_rows"), [("local", 2, 120), ("ray", 2, 120)])
def test_the_bytes_are_the_same(
    name: str, workers: int, batch_rows: int, reference: dict[str, bytes], tmp_path: Path
) -> None:
    """Of 841 rows and about 700 items: 7 shards of each, or one."""
    written = run_stages(tmp_path / "run", name, workers, batch_rows, "1")
    assert set(written) == set(reference)
    assert [file for file in written if written[file] != reference[file]] == []
    tables = {f"data/{stage}/rows.parquet" for stage in STAGES}
    assert tables | {f"metrics/{stage}.json" for stage in STAGES} <= set(written)
