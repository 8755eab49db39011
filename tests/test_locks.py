"""Locks: one holder at a time, none after its death; whoever asks or removes a lock's file takes it from nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from boatyard import locks

HOLD = """
import sys
from pathlib import Path
from boatyard import locks
with locks.locked(Path(sys.argv[1]), remove=len(sys.argv) > 2):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(path), *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_held_by_one_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = hold(path)
    assert locks.is_held(path)
    with pytest.raises(BlockingIOError, match="locked by another process"), locks.locked(path, wait_s=0.1):
        pass
    holder.kill()
    holder.communicate()
    assert not locks.is_held(path)
    with locks.locked(path, wait_s=5):
        assert locks.is_held(path)


def test_many_may_ask_and_none_is_taken_for_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(0o444)
    with open(path, "rb") as file:  # another that asks, in that instant
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH)
        assert not locks.is_held(path)
    with pytest.raises(FileNotFoundError):
        locks.is_held(tmp_path / "none")


def test_a_lock_whose_file_is_removed_at_its_end_is_never_held_by_two(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "lock", [0], [0]

    def work() -> None:
        for _ in range(20):
            with locks.locked(path, remove=True):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and not path.exists()


def test_a_folder_is_locked_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    handle = locks.lock_folder(tmp_path)
    with pytest.raises(BlockingIOError):
        locks.lock_folder(tmp_path)
    os.close(handle)
    os.close(locks.lock_folder(tmp_path))
