"""Kill a cold `dvc repro` at random moments, run it again, and compare with a run that nobody disturbed.

    python bench/kill.py --times 30 --jobs 2   about two minutes each; the recipe tiny, on clones of HEAD

Every other time the signal (SIGKILL) goes to dvc alone, else to dvc and its stage. Prints a line for each: the moment,
the stage that was running, the seconds of the run that follows, and what differs from the undisturbed run: data files
byte for byte, the loss of every step, and the model digests of dvc.lock. Exits 1 where anything does.
"""

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
DVC = [sys.executable, "-m", "dvc"]
ENVIRONMENT = os.environ | {"VIRTUAL_ENV": sys.prefix, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": ""}
CURVES = ("metrics/plots/sft.csv", "metrics/plots/align.csv")


def clone(folder: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    command = [sys.executable, "-m", "pedigree", "recipe", "use", "tiny"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=ENVIRONMENT)
    (folder / "dvc.lock").unlink()


def start(folder: Path) -> "subprocess.Popen[bytes]":
    log = (folder / "repro.log").open("ab")
    return subprocess.Popen(
        [*DVC, "repro"], cwd=folder, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True
    )


def results(folder: Path) -> dict[str, str]:
    """Digests of the data files, of the loss curves and of the models as dvc.lock knows them."""
    files = [*sorted(folder.glob("data/*/*.parquet")), *(folder / curve for curve in CURVES)]
    found = {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}
    lock = (folder / "dvc.lock").read_text()
    return found | dict(re.findall(r"- path: (models/\w+)\n\s+hash: md5\n\s+md5: (\S+)", lock))


def last_stage(folder: Path) -> str:
    started = re.findall(r"Running stage '([^']+)'", (folder / "repro.log").read_text(errors="replace"))
    return started[-1] if started else "-"


def run_undisturbed(folder: Path) -> tuple[float, dict[str, str]]:
    """Seconds and results of a run that nobody kills. Exits where it fails."""
    clone(folder)
    begin = time.monotonic()
    if start(folder).wait() != 0:
        sys.exit((folder / "repro.log").read_text(errors="replace")[-2000:])
    return time.monotonic() - begin, results(folder)


def kill_and_repeat(folder: Path, seconds: float, with_stage: bool, expected: dict[str, str]) -> tuple[str, bool]:
    clone(folder)
    dvc = start(folder)
    try:
        dvc.wait(seconds)
        stage = "had ended"
    except subprocess.TimeoutExpired:
        stage = last_stage(folder)
        (os.killpg if with_stage else os.kill)(dvc.pid, signal.SIGKILL)
        dvc.wait()
    begin = time.monotonic()
    status = start(folder).wait()
    again = time.monotonic() - begin
    found = results(folder) if status == 0 else {}
    differing = [name for name, digest in expected.items() if found.get(name) != digest]
    whom = "dvc and stage" if with_stage else "dvc alone"
    tail = (folder / "repro.log").read_text(errors="replace")[-600:]
    outcome = "equal" if not differing else f"differs: {', '.join(differing)}" if status == 0 else f"failed\n{tail}"
    return f"{seconds:5.1f} s   {stage:14}   {whom:13}   again {again:5.1f} s   {outcome}", not differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each in a clone of its own")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(arguments.jobs) as pool:
        # As many at once as later, so that the moments to kill at lie within every run.
        whole = list(pool.map(run_undisturbed, [Path(name) / f"undisturbed{job}" for job in range(arguments.jobs)]))
        shortest, expected = min(seconds for seconds, _ in whole), whole[0][1]
        if any(found != expected for _, found in whole):
            sys.exit("undisturbed runs differ from each other")
        print(f"undisturbed: {shortest:.1f} s, {len(expected)} results to compare", flush=True)
        moments = [generator.uniform(0.5, shortest) for _ in range(arguments.times)]

        def kill_one(index: int) -> bool:
            with tempfile.TemporaryDirectory(dir=name) as place:
                line, same = kill_and_repeat(Path(place) / "clone", moments[index], index % 2 == 1, expected)
            print(f"{index + 1:3}   {line}", flush=True)
            return same

        equal = sum(pool.map(kill_one, range(arguments.times)))
    print(f"{equal} of {arguments.times} equal to the undisturbed run")
    sys.exit(equal != arguments.times)


if __name__ == "__main__":
    main()
