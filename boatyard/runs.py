"""Runs of a project on this machine: one folder each, with spec, logs by step, artifacts, timings and the end.

runs/20261122-204500-3f2a/
    run.json        state, steps, error
    pipeline.yaml   the spec that was run
    logs/           one file a step, and the runner's own
    artifacts/      one folder a step, as KFP lays them out
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from boatyard import artifacts
from boatyard.errors import ArtifactError, ConfigError

FOLDER = "runs"
RECORD = "run.json"
State = Literal["running", "cached", "succeeded", "refused", "failed", "interrupted", "skipped"]
GOOD: tuple[State, ...] = ("succeeded", "cached")


@dataclass(frozen=True)
class Step:
    """One step of a run: its state, how long it took, where its outputs are; `key` is what a later run finds it by."""

    name: str
    state: State
    seconds: float = 0.0
    key: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run. `error` is a sentence, empty while there is nothing to say; times are ISO 8601 in UTC."""

    path: Path
    project: str
    state: State
    started: str
    ended: str = ""
    process: int = 0
    error: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def spec(self) -> Path:
        """The compiled pipeline that this run executes."""
        return self.path / "pipeline.yaml"

    def step(self, name: str) -> Step | None:
        """Return a step's record, or None when it did not get that far."""
        return next((step for step in self.steps if step.name == name), None)

    def log(self, step: str) -> Path:
        """Return the file that a step's output goes to."""
        return self.path / "logs" / f"{step}.log"

    def output(self, step: str, name: str) -> Path | None:
        """Return the folder or file of a step's artifact, or None when the step did not finish."""
        record = self.step(step)
        value = record.outputs.get(name) if record and record.state in GOOD else None
        return Path(value) if isinstance(value, str) else None

    def with_step(self, step: Step) -> Run:
        """Return the run with a step's record added or replaced."""
        others = tuple(other for other in self.steps if other.name != step.name)
        return replace(self, steps=(*others, step))

    def write(self) -> Run:
        """Write run.json whole, and return the run."""
        value = {key: value for key, value in asdict(self).items() if key != "path"}
        artifacts.write_json(self.path / RECORD, value)
        return self

    def end(self, state: State, error: str = "") -> Run:
        """Record how the run ended."""
        return replace(self, state=state, error=error, ended=_now(), process=0).write()


def new(project: str, folder: Path) -> Run:
    """Make the folder of a new run below a project's `runs/`."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = folder / FOLDER / f"{stamp}-{secrets.token_hex(2)}"
    (path / "logs").mkdir(parents=True)
    return Run(path, project, "running", _now(), process=os.getpid()).write()


def again(run: Run) -> Run:
    """Take up a run that did not end well: its folder and its spec."""
    return replace(run, state="running", ended="", error="", process=os.getpid(), steps=()).write()


def read(path: Path) -> Run:
    """Read a run; one whose process is gone without a word was interrupted. Raises ArtifactError."""
    value = artifacts.read_json(path / RECORD)
    try:
        steps = tuple(Step(**step) for step in value.pop("steps"))
        run = Run(path, steps=steps, **value)
        gone = run.state == "running" and not _alive(run.process)
    except (TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path / RECORD} is not a run's record: {error}") from error
    if gone:
        return replace(run, state="interrupted", error="its process ended without a word")
    return run


def all_of(folder: Path) -> tuple[Run, ...]:
    """Return a project's runs, the latest first; a folder without a readable record is left out."""
    found = []
    for path in sorted((folder / FOLDER).glob("[0-9]*"), reverse=True):
        with contextlib.suppress(ArtifactError):
            found.append(read(path))
    return tuple(found)


def find(folder: Path, name: str | None = None) -> Run:
    """Return a run by its id or the beginning of it, the latest without one; raises ConfigError."""
    runs = all_of(folder)
    matching = [run for run in runs if run.id.startswith(name or "")]
    if name and len(matching) != 1:
        known = ", ".join(run.id for run in runs[:5]) or "none"
        found = f"{len(matching)} runs begin with it" if matching else "no run has it"
        raise ConfigError(f"run {name}: {found}; the latest are {known}")
    if not matching:
        raise ConfigError(f"no run in {folder / FOLDER}; `boatyard run` makes one")
    return matching[0]


def _alive(process: int) -> bool:
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
