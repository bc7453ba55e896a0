"""Says which recipe runs, which block, how long so far and how long last time: one living line, or plain lines."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Reports the runs of one build to a stream."""

    def __init__(self, count: int, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.count, self.number = count, 0
        self._live = self.stream.isatty()
        self._line = ""

    @contextmanager
    def recipe(self, name: str, last_s: float | None) -> Iterator[Progress]:
        """Report one recipe, from its start to its end."""
        self.number += 1
        self._head = f"[{self.number}/{self.count}] {name}"
        self._tail = f", last time {last_s:.0f} s" if last_s is not None else ", first run"
        self._block, self._start = "starting", time.monotonic()
        over = threading.Event()
        if self._live:
            ticker = threading.Thread(target=self._tick, args=(over,), daemon=True)
            ticker.start()
        else:
            self._print(f"{self._head}: starts{self._tail}")
        try:
            yield self
        finally:
            over.set()
            if self._live:
                ticker.join()

    def waits(self) -> None:
        """Another process runs a recipe on this machine."""
        self._print("another recipe runs on this machine: waiting for its end", end=True)

    def block(self, number: int, count: int) -> None:
        """A block starts."""
        self._block = f"block {number} of {count}"
        if not self._live:
            self._print(f"{self._head}: {self._block} after {time.monotonic() - self._start:.0f} s")

    def done(self, status: str, seconds: float) -> None:
        """A recipe has ended."""
        self._print(f"{self._head}: {status} after {seconds:.1f} s", end=True)

    def _tick(self, over: threading.Event) -> None:
        while not over.wait(0.5):
            self._print(f"{self._head}: {self._block}, {time.monotonic() - self._start:.0f} s{self._tail}")

    def _print(self, line: str, *, end: bool = False) -> None:
        if self._live:
            self.stream.write(f"\r{line.ljust(len(self._line))}" + ("\n" if end else ""))
            self._line = "" if end else line
        else:
            self.stream.write(f"{line}\n")
        self.stream.flush()
