"""Runs of a project on this machine: one folder each, with spec, logs by step, artifacts, timings and the end.

runs/20261122-204500-3f2a/
    run.json        state, steps, error
    .lock           held by the process that executes the run
    pipeline.yaml   the spec that was run
    logs/           one file a step, and the runner's own
    artifacts/      one folder a step, as KFP lays them out

Runs have numbers, and the latest is the one with the greatest: of names with seconds two may be of one second, and a
clock may be set back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from boatyard import locks
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, BoatyardError, ConfigError
from boatyard.running import record
from boatyard.running.record import GOOD, RECORD, Run, State, Step, now

__all__ = [
    "GOOD",
    "RECORD",
    "Run",
    "State",
    "Step",
    "again",
    "all_of",
    "find",
    "forgotten_on_error",
    "hold",
    "new",
    "read",
]

FOLDER = "runs"
RUNS = "[0-9]*"  # what the folders of runs are called
LOCK = ".lock"
LOCK_TIMEOUT_S = 1.0  # whoever asks whether a run is alive holds its lock for an instant


def new(project: str, folder: Path) -> Run:
    """Make the folder of a new run below a project's `runs/`; its number is greater than that of any run there."""
    where = folder / FOLDER
    where.mkdir(parents=True, exist_ok=True)
    with locks.locked(where / LOCK):  # two that begin at once get two numbers
        number = 1 + max((_number(path) for path in where.glob(RUNS)), default=0)
        path = _make_folder(where)
        with forgotten_on_error(path):
            return Run(path, project, "running", now(), process=os.getpid(), number=number).write()


def _make_folder(where: Path) -> Path:
    while True:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = where / f"{stamp}-{secrets.token_hex(2)}"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            (path / "logs").mkdir()
            return path


def _number(path: Path) -> int:
    """Return the number in a run's record, 0 where there is none that can be read."""
    with contextlib.suppress(ArtifactError, OSError):
        value = artifacts.read_json(path / RECORD)
        number = value.get("number") if isinstance(value, dict) else None
        return number if type(number) is int else 0
    return 0


@contextlib.contextmanager
def forgotten_on_error(path: Path) -> Iterator[None]:
    """Remove a run's folder when it cannot even begin: there would be nothing to resume."""
    try:
        yield
    except (BoatyardError, OSError):
        shutil.rmtree(path, ignore_errors=True)
        raise


def again(run: Run) -> Run:
    """Take up a run that did not end well: its folder and its spec."""
    return replace(run, state="running", ended="", error="", process=os.getpid(), steps=()).write()


@contextlib.contextmanager
def hold(run: Run) -> Iterator[None]:
    """Hold a run while it is executed; raises ConfigError when another process does.

    A process's number says little: another process may have it by now, or one in another container has the same.
    """
    try:
        with locks.locked(run.path / LOCK, wait_s=LOCK_TIMEOUT_S):
            yield
    except BlockingIOError as error:
        raise ConfigError(f"run {run.id} is at work in another process", fix="wait for it, or stop that one") from error


def read(path: Path) -> Run:
    """Read a run; one whose process is gone without a word was interrupted. Raises ArtifactError."""
    run = record.read(path)
    if run.state == "running" and not _alive(run):
        return replace(run, state="interrupted", error="its process ended without a word")
    return run


def all_of(folder: Path) -> tuple[Run, ...]:
    """Return a project's runs, the latest first: by number, and those of before there was one by name.

    A folder without a readable record is left out.
    """
    runs_read = []
    for path in (folder / FOLDER).glob(RUNS):
        with contextlib.suppress(ArtifactError, OSError):
            runs_read.append(read(path))
    return tuple(sorted(runs_read, key=lambda run: (run.number, run.id), reverse=True))


def find(folder: Path, name: str | None = None) -> Run:
    """Return a run by its id or the beginning of it, the latest without one; raises ConfigError."""
    runs = all_of(folder)
    matching = [run for run in runs if run.id.startswith(name or "")]
    if name and len(matching) != 1:
        known = ", ".join(run.id for run in runs[:5]) or "none"
        matches = f"{len(matching)} runs begin with it" if matching else "no run has it"
        raise ConfigError(f"run {name}: {matches}", fix=f"the latest are {known}")
    if not matching:
        raise ConfigError(f"no run in {folder / FOLDER}", fix="`boatyard run` makes one")
    return matching[0]


def _alive(run: Run) -> bool:
    """Say whether a run's process is at work: it holds the lock, or has just begun and is to take it."""
    with contextlib.suppress(FileNotFoundError):
        return locks.is_held(run.path / LOCK)
    try:
        os.kill(run.process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return run.process > 0
