"""The same rows, in the same order, whatever does the work."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from stages.common.engine import Engine, Work, map_batches, slices
from stages.common.errors import InputError

ROOT = Path(__file__).parent.parent
TABLE = pl.DataFrame({"number": range(100), "text": [f"Zeile {number} ü" * (number % 7) for number in range(100)]})


def engine(name: str = "local", workers: int | None = 2, address: str | None = None) -> Engine:
    return Engine(name=name, workers=workers, address=address)  # type: ignore[arg-type]


def add_lengths(unit: int) -> Work:
    """A worker whose output has other rows and columns than its input."""

    def work(batch: pl.DataFrame) -> pl.DataFrame:
        lengths = pl.col("text").str.len_chars() * unit
        return batch.filter(pl.col("number") % 3 > 0).select(
            "number", "text", lengths=lengths, parts=pl.concat_list("text", "text")
        )

    return work


def refuse_batch() -> Work:
    def work(batch: pl.DataFrame) -> pl.DataFrame:
        if 40 in batch["number"]:
            raise InputError("row 40 is broken; mend it")
        return batch

    return work


def refuse_to_start() -> Work:
    raise InputError("a model is missing; fetch it")


def die() -> Work:
    def work(batch: pl.DataFrame) -> pl.DataFrame:
        os.kill(os.getpid(), signal.SIGKILL)
        return batch

    return work


def write_pid_and_wait() -> Work:
    def work(batch: pl.DataFrame) -> pl.DataFrame:
        Path(f"{os.getpid()}.pid").touch()
        time.sleep(120)
        return batch

    return work


def run_code(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=240)


def run(name: str, workers: int, batch_rows: int, build: object = None) -> pl.DataFrame:
    batches, total = slices(TABLE, batch_rows)
    worker = build or partial(add_lengths, 2)
    return pl.concat(map_batches(worker, batches, engine(name, workers), "test", total))  # type: ignore[arg-type]


@pytest.mark.parametrize(("workers", "batch_rows"), [(1, 7), (2, 7), (3, 1), (2, 1000)])
def test_processes_and_batches_do_not_matter(workers: int, batch_rows: int) -> None:
    assert run("local", workers, batch_rows).equals(add_lengths(2)(TABLE))


@pytest.fixture
def local_ray() -> Iterator[None]:
    """Ray is ended with the test: what it says of a dead worker must not come behind pytest's last line."""
    yield
    import ray

    ray.shutdown()


def test_ray_gives_the_same_rows_in_the_same_order(local_ray: None) -> None:
    for batch_rows in (1000, 15):
        assert run("ray", 2, batch_rows).equals(add_lengths(2)(TABLE))
    with pytest.raises(InputError, match="row 40 is broken"):
        run("ray", 2, 10, refuse_batch)
    with pytest.raises(InputError, match="a model is missing"):
        run("ray", 2, 10, refuse_to_start)
    with pytest.raises(InputError, match=r"a worker process died.*engine\.workers"):
        run("ray", 2, 10, die)


def test_a_mistake_in_a_batch_is_told() -> None:
    for workers in (1, 2):
        with pytest.raises(InputError, match="row 40 is broken"):
            run("local", workers, 10, refuse_batch)
        with pytest.raises(InputError, match="a model is missing"):
            run("local", workers, 10, refuse_to_start)


def test_a_dead_worker_is_no_silence() -> None:
    with pytest.raises(InputError, match=r"a worker process died.*engine\.workers"):
        run("local", 2, 10, die)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        from stages.common.engine import map_batches, slices
        from tests.test_engine import TABLE, engine, write_pid_and_wait
        if __name__ == "__main__":
            batches, total = slices(TABLE, 30)
            list(map_batches(write_pid_and_wait, batches, engine(), "test", total))
    """)
    script = tmp_path / "start.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_alive(int(file.stem)) for file in tmp_path.glob("*.pid")))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it took more than 20 seconds")


def test_no_rows() -> None:
    assert list(map_batches(partial(add_lengths, 2), [], engine(), "test")) == []


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:9"])
def test_a_cluster_that_is_not_there(address: str) -> None:
    """In a process of its own, because a test before this one has started a Ray that would be taken."""
    code = textwrap.dedent(f"""
        from functools import partial
        import polars as pl
        from stages.common.engine import Engine, map_batches
        from stages.common.errors import InputError
        from tests.test_engine import add_lengths
        try:
            list(map_batches(partial(add_lengths, 2), [pl.DataFrame({{"number": [1], "text": ["a"]}})],
                             Engine(name="ray", workers=2, address="{address}"), "test"))
        except InputError as error:
            print(error)
    """)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60
    )
    assert f"engine.address: no Ray cluster answers at {address}" in told.stdout, told.stderr[-2000:]


def test_join_a_cluster(tmp_path: Path) -> None:
    """A head node as `ray start` makes it, alone in its process group so that the test ends only its own."""
    port = "26379"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "c0ffee" * 8}  # the cluster and who joins it share one
    start = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--port",
        port,
        "--num-cpus",
        "1",
    ]
    log = (tmp_path / "log").open("w+")
    head = subprocess.Popen(start, env=environment, stdout=log, stderr=log, start_new_session=True)
    code = textwrap.dedent(f"""
        from functools import partial
        from stages.common.engine import Engine, map_batches, slices
        from tests.test_engine import TABLE, add_lengths
        import polars as pl, ray
        batches, total = slices(TABLE, 30)
        engine = Engine(name="ray", workers=1, address="127.0.0.1:{port}")
        result = pl.concat(map_batches(partial(add_lengths, 2), batches, engine, "test", total))
        print(result.equals(add_lengths(2)(TABLE)), len(ray.nodes()))
    """)
    try:
        for _ in range(240):
            time.sleep(0.5)
            if "Ray runtime started" in (tmp_path / "log").read_text():
                break
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=90
        )
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(30)
    assert told.stdout == "True 1\n", told.stderr[-2000:]
