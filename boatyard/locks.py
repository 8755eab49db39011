"""Locks between processes: advisory locks of the operating system (`flock`, by filelock) that end with their holder.

A lock's file stays where it is: to remove one that others wait on would give each of them a lock of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

FOREVER = -1.0
POLL_S = 0.05  # filelock asks again this often; a wait is over so much after the holder's end


@contextlib.contextmanager
def locked(path: Path, *, wait_s: float = FOREVER, remove: bool = False) -> Iterator[None]:
    """Hold the lock of a file while the block runs; the file is made where there is none.

    With `remove` the file goes when the block ends, by the one who holds it: whoever got hold of it in that moment
    finds that it has no name any more, and begins anew. Raises BlockingIOError when another has it for longer than
    `wait_s`, OSError where no file can be written.
    """
    lock = FileLock(path, timeout=wait_s, thread_local=False, poll_interval=POLL_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(f"{path} is locked by another process") from error
    try:
        yield
    finally:
        if remove:
            path.unlink(missing_ok=True)
        lock.release()


def lock_open(descriptor: int) -> bool:
    """Take the lock of an open file or folder, or return False where another has it; it ends when that is closed."""
    return lock_descriptor(descriptor, blocking=False)


def lock_folder(path: Path) -> int:
    """Lock a folder for as long as this process lives, or until what is returned is closed.

    Raises BlockingIOError when another has it.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    if not lock_open(handle):
        os.close(handle)
        raise BlockingIOError(f"{path} is locked by another process")
    return handle


def is_held(path: Path) -> bool:
    """Say whether a process holds the lock of a file; raises FileNotFoundError where there is no such file.

    It asks by a shared lock, which filelock has not: many may ask at once, of a file that they may only read, and none
    of them takes another for the holder.
    """
    import fcntl

    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
