"""One run and its steps, and their record: what it says of files is relative to the run's folder.

So a project can be moved and copied: a copy's runs show its own files, never those of the folder it was copied from.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from boatyard.data import artifacts
from boatyard.errors import ArtifactError, BoatyardError, ConfigError
from boatyard.running import places

if TYPE_CHECKING:
    from boatyard.data.datasets import Dataset
    from boatyard.evaluation.report import Report
    from boatyard.gating import Verdict
    from boatyard.packages import Package
    from boatyard.registry import Version

RECORD = "run.json"
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
    """One step of a run: its state, how long it took, where its outputs are; `key` is what a later run finds it by.

    `why` says, of a step that ran though an earlier run has a result of it, what is not as it was then.
    """

    name: str
    state: State
    seconds: float = 0.0
    key: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Run:
    """One run. `error` is a sentence, empty while there is nothing to say; times are ISO 8601 in UTC.

    `number` counts a project's runs, whatever a clock says; it is 0 for those of before there was one.
    """

    path: Path
    project: str
    state: State
    started: str
    ended: str = ""
    process: int = 0
    error: str = ""
    steps: tuple[Step, ...] = ()
    number: int = 0

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
    def root(self) -> Path:
        """The project's folder."""
        return self.path.parent.parent

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
        value["error"] = places.without_root(self.error, self.root)
        value["steps"] = [_portable(step, self) for step in self.steps]
        artifacts.write_json(self.path / RECORD, value)
        return self

    def end(self, state: State, error: str = "") -> Run:
        """Record how the run ended."""
        return replace(self, state=state, error=error, ended=now(), process=0).write()


def read(path: Path) -> Run:
    """Read the record in a run's folder as it stands. Raises ArtifactError."""
    value = artifacts.read_json(path / RECORD)
    if not isinstance(value, dict):
        raise ArtifactError(f"{path / RECORD} is not a run's record: found {type(value).__name__}")
    try:
        return _located(_RECORD.validate_python({**value, "path": path}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{path / RECORD} is not a run's record: {place}: {first['msg'].lower()}") from error


def now() -> str:
    """Return the time as a record says it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class _StepRecord(Step):
    """A step as it is written: `relative` names those of its outputs that are said relative to the run's folder."""

    relative: tuple[str, ...] = ()


@dataclass(frozen=True)
class _RunRecord(Run):
    """A run as it is written."""

    steps: tuple[_StepRecord, ...] = ()


def _portable(step: Step, run: Run) -> dict[str, Any]:
    """Return a step's record with its outputs as seen from the run's folder."""
    below = {name: places.relative(value, run.root, run.path) for name, value in step.outputs.items()}
    relative = {name: path for name, path in below.items() if path is not None}
    return {**asdict(step), "outputs": {**step.outputs, **relative}, "relative": list(relative)}


def _located(record: _RunRecord) -> Run:
    """Return a run whose outputs are where its folder is now; earlier versions wrote where it was then."""
    values = {key: getattr(record, key) for key in Run.__dataclass_fields__}
    former = places.former_root(value for step in record.steps for value in step.outputs.values())
    steps = []
    for step in record.steps:
        outputs = {
            name: places.absolute(value, record.path)
            if name in step.relative and isinstance(value, str)
            else places.moved(value, former, record.root)
            for name, value in step.outputs.items()
        }
        steps.append(Step(step.name, step.state, step.seconds, step.key, outputs, step.why))
    return Run(**{**values, "steps": tuple(steps), "error": places.with_root(record.error, record.root)})


_RECORD = TypeAdapter(_RunRecord)
