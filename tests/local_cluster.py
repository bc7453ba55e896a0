"""A real scheduler and real workers for tests: each worker has its own TMPDIR, and so is a machine of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conftest import ROOT, Site


class LocalCluster:
    """A scheduler and workers as processes of their own, all ended with it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="c-"))  # Not pytest's: a socket's path must be short.
        self.processes: list[subprocess.Popen] = []
        file = self.folder / "scheduler.json"
        arguments = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"]
        self.scheduler = self._start("scheduler", *arguments)
        self.address = json.loads(self._wait(lambda: file.exists() and file.read_text()))["address"]

    def _start(self, what: str, *arguments: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / f"log-{len(self.processes)}").open("wb"),
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    @staticmethod
    def _wait(look) -> object:
        for _ in range(300):
            if found := look():
                return found
            time.sleep(0.1)
        raise TimeoutError

    def worker(self, name: str, *, place: str | None = None, path: str = str(ROOT), threads: int = 1):
        """Start a worker of a kind, on a machine of its own or on one that exists."""
        temporary = self.folder / (place or name)
        temporary.mkdir(exist_ok=True)
        more = ["--no-dashboard", "--no-nanny", "--nthreads", str(threads), "--memory-limit", "0"]
        return self._start(
            "worker", self.address, *more, TMPDIR=str(temporary), MACHINE=name, PYTHONPATH=path, DASK_LOGGING="{}"
        )

    def wait(self, count: int) -> LocalCluster:
        """Wait until this number of workers is there."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            self._wait(lambda: len(client.nthreads()) == count)
        return self

    def kill(self, process: subprocess.Popen) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)
        shutil.rmtree(self.folder, ignore_errors=True)


class Building:
    """A command that runs in the background."""

    def __init__(self, site: Site, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recipe_runner", *arguments],
            cwd=site.root,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.output = ""

    def until(self, pattern: str) -> str:
        for line in self.process.stdout:
            self.output += line
            if found := re.search(pattern, line):
                return found[found.re.groups]
        raise AssertionError(self.output)

    def end(self) -> int:
        self.output += self.process.communicate(timeout=60)[0]
        return self.process.returncode
