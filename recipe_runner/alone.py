"""Locks. In a clone one build at a time; on a machine one recipe at a time, because recipes time things."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from recipe_runner.recipe import RecipeError


@contextlib.contextmanager
def alone_in_clone(folder: Path) -> Iterator[None]:
    """Hold this clone for one build: recipes time things, and two builds would write the same files.

    Raises
    ------
    RecipeError
        If another build holds it, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        cause = f"cannot be written ({error.strerror})"
        raise RecipeError(folder.name, cause, "Make the folder writable, then run make again") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(folder.name, "another build is running in this clone", "Wait for its end") from None
        yield


@contextlib.contextmanager
def alone_on_machine(on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until no other process on this machine runs a recipe: another clone, another user, a cluster's worker.

    `on_wait` is called first, if there is one.
    """
    while True:
        handle = _open_lock()
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_in_place(handle):
                yield
                return
        finally:
            os.close(handle)  # Frees the lock, as does the end of the process.


def _is_in_place(handle: int) -> bool:
    """Whether others find this lock: a cleaner of the temporary folder may have removed the file during the wait."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), _lock_file().stat())
    return False


def place() -> str:
    """The same text for all processes that wait for each other: those that share the lock's file."""
    handle = _open_lock()
    found = os.fstat(handle)
    os.close(handle)
    return f"{socket.gethostname()} {found.st_dev} {found.st_ino}"


def _lock_file() -> Path:
    return Path(tempfile.gettempdir()) / "recipe-runner.lock"


def _open_lock() -> int:
    """Open the machine's lock. In a sticky folder a file of another user may be read, and not be made anew."""
    file = _lock_file()
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.suppress(FileExistsError):  # Another process was faster.
            handle = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.fchmod(handle, 0o644)  # Whatever this user's umask is.
            return handle
