"""What every stage does around its work: it is alone, ends with its dvc, and says in one line that the disk is full."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from stages.common import stage
from stages.common.errors import InputError
from stages.common.files import write_bytes
from stages.common.stage import LOCKS, alone, is_disk_full, run

FULL = Path("/dev/full")  # every write to it fails as on a full disk


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


def test_a_stage_that_runs_already_is_waited_for_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "WAIT_SECONDS", 1)
    with alone("sft"):
        with alone("mix"):
            pass
        with pytest.raises(InputError, match="another process runs this stage"), alone("sft"):
            pytest.fail("two processes in one stage")
    with alone("sft"):
        pass


def test_the_lock_of_a_killed_process_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "WAIT_SECONDS", 5)
    code = (
        "import time; from stages.common.stage import alone\nwith alone('sft'): print('held', flush=1); time.sleep(9)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with (LOCKS / "sft").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder.kill()
    with alone("sft"):
        pass
    holder.communicate()


@pytest.mark.parametrize("started_by_dvc", [True, False])
def test_a_stage_ends_with_the_dvc_that_started_it(folder: Path, started_by_dvc: bool) -> None:
    """The parent is killed while the stage works; only a stage by hand goes on to write its output."""
    work = "import time; time.sleep(2); open('output', 'w').close()"
    child = f"from stages.common.stage import run\nrun('sft', lambda: exec({work!r}), outputs=[])"
    parent = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True); input()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    if started_by_dvc:
        environment["DVC_STAGE"] = "sft"
    dvc = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert dvc.stdout is not None
    pid = int(dvc.stdout.readline())
    until(lambda: (LOCKS / "sft").exists())
    dvc.send_signal(signal.SIGKILL)
    dvc.wait()
    until(lambda: not is_running(pid))
    assert (folder / "output").exists() == (not started_by_dvc)


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def polars_writes(file) -> None:
    pl.DataFrame({"a": range(1_000_000)}).write_parquet(file)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("write", [lambda file: file.write(b"x" * 100_000), polars_writes], ids=["bytes", "polars"])
def test_a_full_disk_is_one_line(write, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        with FULL.open("wb") as file:
            write(file)

    with pytest.raises(SystemExit) as stopped:
        run("sft", main, outputs=[])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "sft: error: the disk is full; free some space, then `dvc repro`\n"


def test_an_error_that_hides_the_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    assert not is_disk_full(error)
    monkeypatch.setattr(stage, "NOTHING_FREE", 2**60)
    assert is_disk_full(error)


def test_other_errors_keep_their_traceback() -> None:
    assert not is_disk_full(OSError(5, "Input/output error"))
    with pytest.raises(ZeroDivisionError):
        run("sft", lambda: print(1 / 0), outputs=[])


def test_a_file_that_cannot_be_written_leaves_nothing_behind(folder: Path) -> None:
    (folder / "taken").mkdir()
    with pytest.raises(InputError, match="taken"):
        write_bytes("taken", b"content")
    assert [path.name for path in folder.iterdir()] == ["taken"]
