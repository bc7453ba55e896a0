"""A run's processes: find them all, measure them, end them all."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import psutil

#: Every process of a run inherits this variable, also one that left the kernel's process group and session.
MARKER = "RECIPE_RUNNER_RUN"


def of_run(
    run_id: str, kernel: psutil.Process | None, others: set[psutil.Process] | None = None
) -> set[psutil.Process]:
    """All living processes of one run: the kernel, its descendants, and whoever else inherited the marker.

    `kernel` is the process as it was when it started: psutil knows another one that got its number later. `others`
    keeps, from call to call, the processes that were found to be none of the run: they are not read again.
    """
    others = set() if others is None else others
    found = set()
    with contextlib.suppress(psutil.Error):
        if kernel is not None:
            found |= {kernel, *kernel.children(recursive=True)}
    for process in psutil.process_iter():
        # Other users' processes cannot be read, and are not ours.
        with contextlib.suppress(psutil.Error):
            if process not in found and process not in others:
                (found if process.environ().get(MARKER) == run_id else others).add(process)
    return {process for process in found if _lives(process)}


def _lives(process: psutil.Process) -> bool:
    """Whether a process runs, also if it ends just now."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def end_all(run_id: str, kernel: psutil.Process | None) -> list[str]:
    """Kill all processes of a run, and those they start meanwhile. Returns the names of those besides the kernel.

    Raises
    ------
    RuntimeError
        If a process survives SIGKILL for 10 seconds.
    """
    names: set[tuple[int, str]] = set()
    deadline = time.monotonic() + 10
    while living := of_run(run_id, kernel):
        for process in living:
            with contextlib.suppress(psutil.Error):
                if process != kernel:
                    names.add((process.pid, process.name()))
                process.kill()
        psutil.wait_procs(living, timeout=1)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes of the run are still alive: {sorted(p.pid for p in living)}")
    return sorted(name for _, name in names)


def kill_kernels() -> None:
    """Kill the kernels that this process started; whoever waits for one then ends what else belongs to its run."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if MARKER in child.environ():
                child.kill()


class MemoryWatch:
    """The highest memory, in bytes, that a run's processes held together, sampled every half second; and its limit.

    Resident sizes are added up, so that a page which two processes share counts twice.
    """

    INTERVAL_S = 0.5

    def __init__(self, run_id: str, kernel: psutil.Process, limit_bytes: float) -> None:
        self.bytes = 0
        self.exceeded = False
        self._run_id, self._kernel, self._limit_bytes = run_id, kernel, limit_bytes
        self._over = threading.Event()
        self._others: set[psutil.Process] = set()  # A recipe is timed meanwhile: a sample must cost little.

    def _sample(self) -> None:
        total = 0
        for process in of_run(self._run_id, self._kernel, self._others):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        self.bytes = max(self.bytes, total)
        if total > self._limit_bytes:
            # Ended here and not by the system, which would choose among all processes of the machine.
            self.exceeded = True
            end_all(self._run_id, self._kernel)

    def _watch(self) -> None:
        while not self._over.wait(self.INTERVAL_S) and not self.exceeded:
            self._sample()

    @classmethod
    @contextlib.contextmanager
    def of(cls, run_id: str, kernel: psutil.Process, limit_bytes: float) -> Iterator[MemoryWatch]:
        """Watch a run for as long as the context lasts; above the limit, end it."""
        watch = cls(run_id, kernel, limit_bytes)
        watch._sample()
        thread = threading.Thread(target=watch._watch, daemon=True)
        thread.start()
        try:
            yield watch
        finally:
            watch._over.set()
            thread.join()
