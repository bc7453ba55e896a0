"""The folder of one run, and all that is in it: made before its kernel starts, removed when the run ends.

A run whose process was killed could not do that. The next run does it, and ends the kernel that was left, which would
disturb what it measures.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from recipe_runner import processes

_PREFIX, _LOCK = "recipe-run-", "run.lock"
_RUN_ID = re.compile(rb"[0-9a-f]{32}")
#: Unix sockets have paths of at most 107 bytes, and a user's TMPDIR may be long.
_LONGEST, _SHORT_PARENT = 70, Path("/tmp")


@contextlib.contextmanager
def new_room() -> Iterator[tuple[Path, str]]:
    """Make an empty folder and the id of a run, which its processes carry; clear first what dead runs left."""
    for parent in {Path(tempfile.gettempdir()), _SHORT_PARENT}:
        _clear(parent)
    room, run_id = Path(tempfile.mkdtemp(prefix=_PREFIX)), uuid.uuid4().hex
    if len(str(room)) > _LONGEST:
        room.rmdir()
        room = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_SHORT_PARENT))
    try:
        with (room / _LOCK).open("w") as lock:
            # Held as long as this process lives. The kernel does not inherit it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(run_id)
            lock.flush()
            yield room, run_id
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _clear(parent: Path) -> None:
    """Remove this user's folders whose run's process is gone, and end the processes of those runs."""
    for file in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        # Gone meanwhile, or still held, or a process of it cannot be ended: then it stays.
        with contextlib.suppress(OSError, RuntimeError), _opened(file) as lock:
            facts = os.fstat(lock)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid():
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            run_id = os.read(lock, 64)
            if _RUN_ID.fullmatch(run_id):  # Empty until its owner holds it.
                processes.end_all(run_id.decode(), None)
                shutil.rmtree(file.parent, ignore_errors=True)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    """Open a file that another user may have made: no link is followed, no pipe is waited for."""
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)
