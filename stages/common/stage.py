"""Run a stage: quiet libraries, patient threads, one clear line for bad input, its cost in metrics/timing (not in git).

A stage is alone in its folder and does not outlive the dvc that started it: an orphan would write into the outputs of
the next run.

Imported first by every stage, before any library that reads its environment on import.
"""

import errno
import fcntl
import os
import resource
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "WANDB_DISABLED": "true",
    "ACCELERATE_DISABLE_RICH": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Waiting threads spin for about 0.1 ms, then sleep. Spinning on, the default, makes training 4 times
    # slower beside other programs on the same cores; sleeping at once, 20 % slower alone. See docs/log.md.
    "GOMP_SPINCOUNT": "20000",
    # oneDNN compiles a matrix product for each shape: about 29 a step, for each of the 61 lengths that the batches of
    # the default recipe have. It keeps 1,024 unless told; compiling anew takes a tenth of the training (docs/log.md).
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16384",
}
if "LOCAL_RANK" not in os.environ:
    ENVIRONMENT["CUDA_VISIBLE_DEVICES"] = "0"  # without a launcher a trainer would split each batch over all GPUs
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
warnings.filterwarnings("ignore")

from stages.common.errors import InputError  # noqa: E402
from stages.common.files import write_json  # noqa: E402


def say(stage: str, text: str) -> None:
    """One line on the terminal, led by the stage's name."""
    print(f"{stage}: {text}", flush=True)


LOCKS = Path(".pedigree/locks")
NOTHING_FREE = 2**20  # bytes
WAIT_SECONDS = 10  # for an orphan to notice that its dvc is gone


@contextmanager
def alone(stage: str) -> Iterator[None]:
    """Hold the stage's lock, which ends with the process. Raises InputError where another process keeps it."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / stage).open("a") as file:
        for attempt in range(4 * WAIT_SECONDS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 0:
                    say(stage, "waiting for an earlier run of this stage to end")
                time.sleep(0.25)
        else:
            raise InputError("another process runs this stage in this folder; wait for it or end it, then run again")
        yield


def end_with_parent() -> None:
    """Watch the process that started this one, and end when it is gone, as after a SIGKILL."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()


def bytes_of(paths: list[str]) -> int:
    """Bytes of the files at or below `paths`."""
    files = [file for path in paths for file in ([Path(path)] if Path(path).is_file() else Path(path).rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())


def is_disk_full(error: BaseException) -> bool:
    """safetensors and Polars only quote the system's error, `torch.save` hides it: then the free space tells."""
    text = os.strerror(errno.ENOSPC)
    told = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or text in str(error)
    return told or (isinstance(error, RuntimeError) and shutil.disk_usage(".").free < NOTHING_FREE)


def run(stage: str, main: Callable[[], None], outputs: list[str]) -> None:
    """Run `main` of a stage and exit: 0, or 1 with one line on bad input.

    Writes metrics/timing/<stage>.json: wall seconds, peak resident memory of the process and its children, bytes of
    `outputs` (files or folders).
    """
    start = time.perf_counter()
    if "DVC_STAGE" in os.environ:  # dvc started it
        end_with_parent()
    try:
        with alone(stage):
            main()
    except InputError as error:
        print(f"{stage}: error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{stage}: stopped; `dvc repro` goes on from here", file=sys.stderr, flush=True)
        sys.exit(130)
    except Exception as error:
        if not is_disk_full(error):
            raise
        print(f"{stage}: error: the disk is full; free some space, then `dvc repro`", file=sys.stderr, flush=True)
        sys.exit(1)
    kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    wall_seconds = time.perf_counter() - start
    cost = {"wall_seconds": wall_seconds, "peak_memory_bytes": kib * unit, "output_bytes": bytes_of(outputs)}
    write_json(Path("metrics/timing") / f"{stage}.json", cost)
