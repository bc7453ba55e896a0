"""What a cluster costs and saves, with a scheduler and workers on this machine, each worker with its own ``TMPDIR``.

``make bench-cluster`` times, on recipes that only sleep: runs through a cluster of one worker beside the same runs
without a cluster; and the same runs on one worker and on two.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
COUNT = 8
RECIPE = '''# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""
Sleep
=====

It sleeps.
"""

import time

time.sleep({seconds})
'''


def project(folder: Path, seconds: float) -> Path:
    """A folder of recipes that sleep."""
    gallery = folder / "recipes_source"
    gallery.mkdir(parents=True)
    for number in range(COUNT):
        (gallery / f"sleep_{number}.py").write_text(RECIPE.format(seconds=seconds))
    return folder


def seconds_of_run(folder: Path, *arguments: str) -> float:
    """Seconds that a run of all recipes takes."""
    command = [sys.executable, "-m", "recipe_runner", "run", "--rerun", *arguments]
    start = time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MACHINE": "local"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} failed:\n{done.stdout[-3000:]}")
    return time.monotonic() - start


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """A scheduler with some workers, all there; gives its address."""
    from distributed import Client

    processes = []

    def start(what: str, *arguments: str, **environment: str) -> None:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments, "--no-dashboard"],
                cwd=folder,
                env=os.environ | environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as folder:
        try:
            file = Path(folder) / "scheduler.json"
            start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
            while not (file.exists() and file.read_text()):
                time.sleep(0.1)
            address = json.loads(file.read_text())["address"]
            for number in range(workers):
                temporary = Path(folder) / str(number)
                temporary.mkdir()
                own = {"TMPDIR": str(temporary), "MACHINE": f"machine {number}", "PYTHONPATH": str(ROOT)}
                start("worker", address, "--no-nanny", "--nthreads", "1", **own)
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=60)
            yield address
        finally:
            for process in reversed(processes):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def main() -> None:
    """Measure, and print one table."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        short, long = project(Path(name) / "short", 2), project(Path(name) / "long", 6)
        local_s = seconds_of_run(short)
        with cluster(1) as address:
            through_s = seconds_of_run(short, "--cluster", address)
            one_s = seconds_of_run(long, "--cluster", address)
        with cluster(2) as address:
            two_s = seconds_of_run(long, "--cluster", address)
    rows = [
        [f"{COUNT} recipes of 2 s, without a cluster, s", local_s, ""],
        [f"{COUNT} recipes of 2 s, one worker, s", through_s, ""],
        ["overhead of the cluster, s a recipe", (through_s - local_s) / COUNT, "≤ 1"],
        [f"{COUNT} recipes of 6 s, one worker, s", one_s, ""],
        [f"{COUNT} recipes of 6 s, two workers, s", two_s, ""],
        ["two workers / one worker", two_s / one_s, "≤ 0.6"],
    ]
    print(tabulate(rows, headers=["what", "measured", "goal"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
