"""Run a pure function over batches of rows: in processes of this machine, or on Ray Data.

The function gets a batch and gives a table, and knows nothing of other batches; results come back in the order of the
batches. So the bytes of an output are the same in one process, in many, and on a cluster of any size, and `engine` is
no dependency of a stage in dvc.yaml: changing it reruns nothing.

`build` makes the function, once in each worker process; it is a module-level function or a `functools.partial` of one,
in a module that is not run as a stage (a worker cannot import `__main__`).
"""

import io
import logging
import multiprocessing
import os
import re
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import polars as pl
from tqdm import tqdm

from stages.common.errors import InputError
from stages.common.params import Params, PositiveInt
from stages.common.stage import end_with_parent

Work = Callable[[pl.DataFrame], pl.DataFrame]
DIED = (
    "a worker process died, most likely for want of memory; set engine.workers in params.yaml to a smaller number, "
    "then run again"
)
CONNECT_SECONDS = 10
RAY_BYTES = 2**30
RESTARTS = 2  # of a worker of a cluster, whose node may be gone; Ray would try for ever what kills every worker
WAITING = 2  # batches a worker has waiting, so that it never idles and memory stays bounded


class Engine(Params):
    """Where the work of pool, dedup, scrub and decontaminate is done; it changes no output."""

    name: Literal["local", "ray"]
    """`local`: processes of this machine; `ray`: Ray Data."""
    workers: PositiveInt | None
    """Processes that work side by side, threads in local dedup; null: one per CPU core (of the cluster, with Ray)."""
    address: str | None
    """Of a Ray cluster to join (`auto`, `ray://HOST:10001`, `HOST:6379`); null: a Ray of its own on this machine."""


LOCAL = Engine(name="local", workers=None, address=None)


def map_batches(
    build: Callable[[], Work], batches: Iterable[pl.DataFrame], engine: Engine, title: str, total: int | None = None
) -> Iterator[pl.DataFrame]:
    """build()(batch) of each batch, in order. What a batch raises is raised here; InputError where a worker dies.

    `title` and `total` (batches) are the progress bar's. A single batch is done in this process: to start another one
    costs seconds of imports.
    """
    source = iter(batches)
    head = list(islice(source, 2))
    everything: Iterable[pl.DataFrame] = (batch for part in (head, source) for batch in part)
    workers = engine.workers or os.cpu_count() or 1
    if engine.name == "ray":
        results = _on_ray(build, everything, engine)
    elif workers == 1 or len(head) < 2:
        work = build() if head else None
        results = (work(batch) for batch in everything) if work else iter(())
    else:
        results = _in_processes(build, everything, min(workers, total or workers))
    yield from tqdm(results, desc=title, unit="batch", total=total)


def slices(table: pl.DataFrame, batch_rows: int) -> tuple[Iterator[pl.DataFrame], int]:
    """The table in batches of `batch_rows`, and how many they are."""
    return table.iter_slices(batch_rows), -(-table.height // batch_rows)


_get_work: Callable[[], Work]  # of a worker process


def _start(build: Callable[[], Work]) -> None:
    global _get_work
    end_with_parent()
    _get_work = cache(build)  # built at the first batch: what is raised here would read like a dead worker


def _do(batch: pl.DataFrame) -> pl.DataFrame:
    return _get_work()(batch)


def _in_processes(build: Callable[[], Work], batches: Iterable[pl.DataFrame], workers: int) -> Iterator[pl.DataFrame]:
    """Spawned, never forked: the threads of Polars do not survive a fork."""
    spawn = multiprocessing.get_context("spawn")
    waiting: deque[Future[pl.DataFrame]] = deque()
    with ProcessPoolExecutor(workers, spawn, _start, (build,)) as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(_do, batch))
                if len(waiting) >= workers * WAITING:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError(DIED) from None
        finally:
            pool.shutdown(cancel_futures=True)


class _Actor:
    """A worker of Ray Data. A batch travels as one cell of Arrow's stream format, with its number."""

    def __init__(self, build: Callable[[], Work]) -> None:
        self.get_work = cache(build)  # as in `_start`

    def __call__(self, cell: dict[str, Any]) -> dict[str, Any]:
        number, batch = cell["number"][0], cell["batch"][0]
        try:
            result, error = pack(self.get_work()(unpack(batch))), ""
        except InputError as mistake:
            result, error = b"", str(mistake)
        return {"number": [number], "batch": [result], "error": [error]}


def pack(table: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    table.write_ipc_stream(stream, compat_level=pl.CompatLevel.newest())
    return stream.getvalue()


def unpack(stream: bytes) -> pl.DataFrame:
    return pl.read_ipc_stream(stream)


def _on_ray(build: Callable[[], Work], batches: Iterable[pl.DataFrame], engine: Engine) -> Iterator[pl.DataFrame]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import pyarrow as pa
    import ray.data

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it logs the tracebacks of what is raised below
    join(ray, engine)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    numbered = enumerate(batches)
    restarts = RESTARTS if engine.address else 0
    while cells := take(numbered):
        tables = [pa.table({"number": [number], "batch": [batch]}) for number, batch in cells]
        workers = min(engine.workers or int(ray.cluster_resources().get("CPU", 1)), len(cells))
        results = ray.data.from_arrow(tables).map_batches(
            _Actor,
            fn_constructor_args=(build,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            max_restarts=restarts,
            max_task_retries=restarts,
        )
        try:
            for (number, _), result in zip(cells, results.iter_rows(), strict=True):
                if result["error"]:
                    raise InputError(result["error"])
                if result["number"] != number:
                    raise RuntimeError(f"Ray gave batch {result['number']} in the place of {number}")
                yield unpack(result["batch"])
        except ray.exceptions.RayActorError:
            raise InputError(DIED) from None


def take(batches: Iterator[tuple[int, pl.DataFrame]]) -> list[tuple[int, bytes]]:
    """The next batches, packed, up to RAY_BYTES: a data set of Ray's, which its driver holds whole."""
    taken: list[tuple[int, bytes]] = []
    size = 0
    for number, batch in batches:
        taken.append((number, pack(batch)))
        size += len(taken[-1][1])
        if size >= RAY_BYTES:
            break
    return taken


def join(ray: Any, engine: Engine) -> None:
    """Start a Ray of this machine or join a cluster. Raises InputError where there is none at the address."""
    if ray.is_initialized():
        return
    packages = Path(__file__).parents[2]
    path = os.pathsep.join([str(packages), *filter(None, sys.path)])
    try:
        if engine.address is None:
            ray.init(
                address="local",
                num_cpus=engine.workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                runtime_env={"env_vars": {"PYTHONPATH": path}},
            )
        else:
            if found := re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", engine.address):  # Ray waits for ever
                socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()
            ray.init(engine.address, logging_level="error", runtime_env={"py_modules": [str(packages / "stages")]})
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"params.yaml, engine.address: no Ray cluster answers at {engine.address} ({type(error).__name__}); start "
            "one with `ray start --head`, mend the address, give the cluster's token in RAY_AUTH_TOKEN, or leave the "
            "address empty for a Ray of this machine"
        ) from None
