"""One run in a process of its own: KFP's local runner patches globals and wants the main thread and its signals.

`execute` starts the process and follows it; `python -m boatyard.pipelines.process` is the process. So runs of one
kernel, server or tuner do not meet, whichever thread starts them.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from boatyard import project
from boatyard.errors import BoatyardError, Interrupted, StepFailed
from boatyard.project import Project
from boatyard.running import relay, runs
from boatyard.running.display import Display
from boatyard.running.progress import Event, ProgressWriter
from boatyard.running.step import PARENT, follow_parent

MODULE = "boatyard.pipelines.process"


def execute(record: runs.Run, compiled_from: Project | None, root: Path, display: Display) -> runs.Run:
    """Run a record's spec, compiled from a project first where one is given, and return the record at its end.

    Raises what ended the run: Refused, Interrupted after a signal or Ctrl-C, StepFailed, ConfigError, StorageError.
    """
    ours, theirs = os.pipe()
    parent, alive = os.pipe()
    try:
        process = _start(record, compiled_from, root, theirs, parent)
    finally:
        os.close(theirs)
        os.close(parent)
    try:
        ended = _follow(process, relay.Pipe(ours), display)
    finally:
        os.close(alive)  # tells it to stop, if it has not
        os.close(ours)
        process.wait()
        display.close()
    if ended is None:
        raise _gone(record, process.returncode)
    if error := relay.error_of(ended):
        raise error
    return runs.read(record.path)


def _start(
    record: runs.Run, compiled_from: Project | None, root: Path, theirs: int, parent: int
) -> subprocess.Popen[bytes]:
    """Start the process; a session of its own, so that Ctrl-C at the terminal reaches it by us alone."""
    about = {
        "run": str(record.path),
        "root": str(root),
        "project": compiled_from.values() if compiled_from else None,
        "events": theirs,
        "level": logging.getLogger().getEffectiveLevel(),
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, PARENT: str(parent)},
        pass_fds=(theirs, parent),
        start_new_session=True,
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(json.dumps(about).encode())
    return process


def _follow(process: subprocess.Popen[bytes], pipe: relay.Pipe, display: Display) -> Event | None:
    """Draw a run to its end and return its last event, None where it died without; Ctrl-C is handed on to it."""
    while True:
        try:
            for event in pipe.read():
                if "ended" in event:
                    return event
                relay.replay(event, display)
            return None
        except KeyboardInterrupt:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)


def _gone(record: runs.Run, code: int) -> BoatyardError:
    """Return the error of a run whose process ended without a word, and record it where nobody else did."""
    run = runs.read(record.path)
    if code == -signal.SIGINT or code == 130:
        run.end("interrupted", "stopped by a signal")
        return _stopped(record)
    if run.state in ("running", "interrupted"):
        run = run.end("failed", f"the run's process ended with {code} and without a word")
    return StepFailed(f"run {record.id} failed: {run.error}")


def _stopped(record: runs.Run) -> Interrupted:
    return Interrupted(f"run {record.id} was stopped", fix="`boatyard run --resume` goes on from there")


def main() -> None:
    """Execute what standard input says; end with an event that says how."""
    follow_parent()
    about = json.load(sys.stdin)
    logging.basicConfig(level=about["level"], format="%(message)s", stream=sys.stderr)
    os.set_inheritable(about["events"], False)  # the steps' processes have it not
    writer = ProgressWriter(about["events"])
    record = runs.read(Path(about["run"]))
    try:
        _execute(record, about, relay.Relay(writer))
    except BoatyardError as error:
        writer(relay.ended(error))
    except KeyboardInterrupt:
        runs.read(record.path).end("interrupted", "stopped by a signal")
        writer(relay.ended(_stopped(record)))
    except BaseException as error:
        runs.read(record.path).end("failed", f"{type(error).__name__}: {error}")
        raise
    else:
        writer(relay.ended(None))


def _execute(record: runs.Run, about: Mapping[str, Any], display: Display) -> None:
    from boatyard.pipelines import local, training

    root = Path(about["root"])
    if about["project"] is not None:
        with runs.forgotten_on_error(record.path):
            training.compile(project.check(about["project"], "project").at(root).here(), record.spec)
    local.execute(record, root, display)


if __name__ == "__main__":
    main()
