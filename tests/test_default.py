"""The default recipe as a newcomer runs it, on the real base model: slow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import DVC, call, copy_project


@pytest.mark.slow
def test_the_default_recipe_makes_the_model_better(tmp_path: Path) -> None:
    copy_project(tmp_path)
    call(tmp_path, sys.executable, "-m", "pedigree", "recipe", "use", "default")
    call(tmp_path, *DVC, "repro")
    scores = {
        model: json.loads((tmp_path / f"metrics/eval/{model}.json").read_text())
        for model in ("base", "sft", "quantized")
    }
    assert scores["sft"]["clinic"]["clean_acc"] > scores["base"]["clinic"]["clean_acc"] + 0.1
    assert scores["quantized"]["clinic"]["acc"] > scores["base"]["clinic"]["acc"] + 0.1
    align = json.loads((tmp_path / "metrics/align.json").read_text())
    assert abs(align["loss_at_start"] - 0.693147) < 1e-3
    assert align["heldout_accuracy"] > 0.6
    shutil.rmtree(tmp_path)


@pytest.mark.gpu
def test_the_tiny_recipe_runs_on_a_gpu(tmp_path: Path) -> None:
    import torch

    assert torch.cuda.is_available(), "no GPU here"
    copy_project(tmp_path)
    call(tmp_path, *DVC, "repro")
    assert json.loads((tmp_path / "metrics/align.json").read_text())["steps"] > 0
    assert subprocess.run([*DVC, "status"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
