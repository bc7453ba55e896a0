"""The folder of one run, and all that is in it: made before its kernel starts, removed when the run ends.

A run whose process was killed could not do that. The next run does it, and ends the kernel that was left, which would
disturb what it measures.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from recipe_runner import processes

_PREFIX, _LOCK = "recipe-", "run.lock"
#: Unix sockets have paths of at most 107 bytes, and a user's TMPDIR may be long.
_LONGEST, _SHORT_PARENT = 70, Path("/tmp")


@contextlib.contextmanager
def new_room() -> Iterator[tuple[Path, str]]:
    """Make an empty folder and the id of a run, which its processes carry; clear first what dead runs left."""
    parents = {Path(tempfile.gettempdir()), _SHORT_PARENT}
    for parent in parents:
        _clear(parent)
    room = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if len(str(room)) > _LONGEST:
        room.rmdir()
        room = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_SHORT_PARENT))
    run_id = uuid.uuid4().hex
    with (room / _LOCK).open("w") as lock:
        # Held as long as this process lives. The kernel does not inherit it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(run_id)
        lock.flush()
        try:
            yield room, run_id
        finally:
            shutil.rmtree(room, ignore_errors=True)


def _clear(parent: Path) -> None:
    """Remove this user's folders whose run's process is gone, and end the processes of those runs."""
    for file in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), file.open() as lock:  # Gone meanwhile, or still held: not ours to touch.
            if os.fstat(lock.fileno()).st_uid != os.getuid():
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if run_id := lock.read():  # Empty until its owner holds it.
                processes.end_all(run_id, None)
                shutil.rmtree(file.parent, ignore_errors=True)
