"""Runs of a project on this machine: one folder each, with spec, logs by step, artifacts, timings and the end.

runs/20261122-204500-3f2a/
    run.json        state, steps, error
    .lock           held by the process that executes the run
    pipeline.yaml   the spec that was run
    logs/           one file a step, and the runner's own
    artifacts/      one folder a step, as KFP lays them out
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from boatyard import locks
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, BoatyardError, ConfigError

if TYPE_CHECKING:
    from boatyard.data.datasets import Dataset
    from boatyard.evaluation.report import Report
    from boatyard.gating import Verdict
    from boatyard.packages import Package
    from boatyard.registry import Version

FOLDER = "runs"
RECORD = "run.json"
LOCK = ".lock"
LOCK_TIMEOUT_S = 1.0  # whoever asks whether a run is alive holds its lock for an instant
State = Literal["running", "cached", "succeeded", "refused", "failed", "interrupted", "skipped"]
GOOD: tuple[State, ...] = ("succeeded", "cached")
MADE_BY = {  # artifact → the step that makes it
    "dataset": "preprocess",
    "checkpoint": "train",
    "report": "evaluate",
    "verdict": "gate",
    "package": "push",
}


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

    def __repr__(self) -> str:
        """Say what a cell of a notebook should show: not every path of every step."""
        seconds = sum(step.seconds for step in self.steps)
        steps = ", ".join(f"{step.name} {step.state}" for step in self.steps)
        return f"Run({self.project}, {self.id}: {self.state} in {seconds:.1f} s; {self.error or steps})"

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

    @property
    def dataset(self) -> Dataset:
        """What preprocess made."""
        from boatyard.data import datasets

        return datasets.read(self._made("dataset"))

    @property
    def checkpoint(self) -> Path:
        """The folder that train made."""
        return self._made("checkpoint")

    @property
    def report(self) -> Report:
        """What evaluate measured."""
        from boatyard.evaluation.report import Report

        return Report.read(self._made("report"))

    @property
    def verdict(self) -> Verdict:
        """What the gate said."""
        from boatyard.gating import Verdict

        return Verdict.read(self._made("verdict"))

    @property
    def package(self) -> Package:
        """What was pushed, verified."""
        from boatyard import packages

        return packages.verify(self._made("package"))

    @property
    def version(self) -> Version:
        """What the registry calls the package, and where it has it."""
        from boatyard.registry import Version

        package, step = self.package, self.step("push")
        uri = str(step.outputs.get("Output", "")) if step else ""
        return Version(package.name, int(uri.rstrip("/").rpartition("/")[2]), package.digest, uri)

    def _made(self, name: str) -> Path:
        """Return where a step's artifact is; raises ConfigError when there is none."""
        step = MADE_BY[name]
        if path := self.output(step, name):
            return path
        raise ConfigError(f"run {self.id} has no {name}: its {step} did not succeed, the run {self.state}")

    def headline(self) -> str:
        """Say what one wants to know of a run: its accuracy or error, or why it ended; nothing before it is known."""
        if self.error:
            return self.error.splitlines()[0]
        numbers = self.output("evaluate", "numbers")
        with contextlib.suppress(BoatyardError, OSError):  # gone or damaged: evaluate makes them again
            values = artifacts.read_json(numbers) if numbers else {}
            for name in ("accuracy", "rmse"):
                if isinstance(values, dict) and isinstance(values.get(name), float):
                    return f"{name} {values[name]:.4f}"
        return ""

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
    with forgotten_on_error(path):
        return Run(path, project, "running", _now(), process=os.getpid()).write()


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
    value = artifacts.read_json(path / RECORD)
    if not isinstance(value, dict):
        raise ArtifactError(f"{path / RECORD} is not a run's record: found {type(value).__name__}")
    try:
        run = _RUN.validate_python({**value, "path": path})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{path / RECORD} is not a run's record: {place}: {first['msg'].lower()}") from error
    if run.state == "running" and not _alive(run):
        return replace(run, state="interrupted", error="its process ended without a word")
    return run


def all_of(folder: Path) -> tuple[Run, ...]:
    """Return a project's runs, the latest first; a folder without a readable record is left out."""
    runs_read = []
    for path in sorted((folder / FOLDER).glob("[0-9]*"), reverse=True):
        with contextlib.suppress(ArtifactError, OSError):
            runs_read.append(read(path))
    return tuple(runs_read)


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_RUN = TypeAdapter(Run)
