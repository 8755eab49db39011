"""A step's process: started in a session of its own, watched, and ended with all that it started."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping

from boatyard import stages

LOOK_INTERVAL_S = 0.1
STOP_GRACE_S = 60.0  # that a step has to save after SIGTERM


def run(
    command: list[str],
    environment: Mapping[str, str],
    log: io.BufferedWriter,
    limit: int | None,
    look: Callable[[], None],
    held_open: tuple[int, ...] = (),
) -> int:
    """Run a command in a session of its own; end it and all that it started when this process is told to stop.

    Two pipes tie the lives together: the step holds `ended` open to its very end, shell and interpreter alike, and
    sees `parent` close when this process dies without a word.
    """
    ended, held = os.pipe()
    parent, alive = os.pipe()
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment, stages.PARENT: str(parent)},
            pass_fds=(held, parent, *held_open),
            start_new_session=True,
        )
        os.close(held)
        held = -1
        try:
            while process.poll() is None:
                select.select([ended], [], [], LOOK_INTERVAL_S)  # wakes at once when the step ends
                look()
                if limit and time.monotonic() - started > limit:
                    log.write(f"stopped: its timeout of {limit} s passed\n".encode())
                    _stop(process, ended)
        except KeyboardInterrupt:
            _stop(process, ended)
            raise
        return process.returncode
    finally:
        for descriptor in (ended, held, parent, alive):
            if descriptor >= 0:
                os.close(descriptor)


def _stop(process: subprocess.Popen[bytes], ended: int) -> None:
    """Ask a step's session to save and end, wait for the last of it, and kill what is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(KeyboardInterrupt):  # a second signal ends the wait
        select.select([ended], [], [], STOP_GRACE_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
