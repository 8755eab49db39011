"""A compiled spec, run on this machine by KFP's own local runner, with what that runner leaves out.

What is added, each at a seam of `kfp.local` (pinned; a test holds every seam):
logs by step and progress (its subprocess call), results kept by content instead of by URI (its cache), plain folder
names (its time stamp). What it drops in silence is supplied (secrets from the environment, timeouts), refused
(volumes) or done without and said (GPUs that are not there).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from kfp import dsl, local
from kfp.local import cache as kfp_cache
from kfp.local import executor_input_utils, subprocess_task_handler

from boatyard.data import artifacts
from boatyard.errors import BoatyardError, ConfigError, Interrupted, Refused, StepFailed, StorageError
from boatyard.pipelines import subprocesses
from boatyard.pipelines.cache import ContentCache
from boatyard.pipelines.demands import Demands, read_demands, refuse_missing, shortfalls
from boatyard.running import places, progress, runs
from boatyard.running.display import Display
from boatyard.running.progress import ProgressFollower

logger = logging.getLogger(__name__)
EXECUTOR_OUTPUT = "executor_output.json"


def execute(run: runs.Run, folder: Path, display: Display) -> runs.Run:
    """Run the run's spec to its end and return the record.

    Raises Refused when the gate said no, Interrupted after a signal, StepFailed for a step's error, ConfigError
    when the spec asks for what this machine has not got or another process executes the run, StorageError when what
    the runner itself keeps cannot be written.
    """
    with runs.hold(run):
        try:
            demands = read_demands(run.spec)
            refuse_missing(demands)
            for sentence in shortfalls(demands):
                display.say(sentence)
        except ConfigError as error:
            run.end("failed", str(error))
            raise
        return _execute(_Runner(replace(run, process=os.getpid()).write(), folder, display, demands))


def _execute(runner: _Runner) -> runs.Run:
    run, display = runner.run, runner.display
    try:
        with runner.hooks(), _signals():
            runner.demands.pipeline()
    except KeyboardInterrupt:
        runner.run = runner.run.end("interrupted", "stopped by a signal")
        raise Interrupted(f"run {run.id} was stopped", fix="`boatyard run --resume` goes on from there") from None
    except RuntimeError as error:
        raise runner.failure(error) from None
    except OSError as error:
        raise runner.broken(artifacts.storage_error(Path(error.filename or run.path), error)) from error
    except BoatyardError as error:
        raise runner.broken(error) from error
    finally:
        runner.unlock(*runner.locks)
        runner.make_movable()
        display.close()
    runner.run = runner.run.end("succeeded")
    return runner.run


@dataclass
class _Runner:
    """One execution: the record so far, and the hooks that keep it."""

    run: runs.Run
    folder: Path
    display: Display
    demands: Demands
    keys: dict[str, str] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)
    locks: dict[str, IO[bytes]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def work(self, name: str) -> Path:
        """Return the folder that a step goes on from after it was killed."""
        return self.folder / runs.FOLDER / ".work" / self.keys.get(name, name)[:16]

    def observed(self, name: str) -> Path:
        """Return the file that a step leaves what it read in."""
        return self.run.path / "logs" / f".{name}.observed"

    def unlock(self, *names: str) -> None:
        """Let other runs have a step."""
        for name in names:
            if file := self.locks.pop(name, None):
                file.close()

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Set the seams of `kfp.local` for the time of one run, its talk going to a log of its own."""
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(self.run.path),
            enable_caching=True,
            cache_root=str(self.folder / runs.FOLDER / ".cache"),
        )
        cache = ContentCache(self)
        with (
            _replaced(subprocess_task_handler, "run_local_subprocess", self.step),
            _replaced(kfp_cache, "get_local_cache", lambda: cache),
            _replaced(executor_input_utils, "get_local_pipeline_resource_name", lambda name: "artifacts"),
            open(self.run.log("runner"), "a") as log,
            contextlib.redirect_stdout(log),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="You may be attemping to run a task")
            warnings.filterwarnings("ignore", message=".*have no effect in the current local runner")
            yield

    def step(self, full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        """Run one step: its output to its log, its progress to the display; return its exit code."""
        name = _step_name(full_command)
        self.display.start(name)
        why = self.reasons.get(name, "")
        self.note(runs.Step(name, "running", why=why))
        started = time.monotonic()
        work = self.work(name)
        _sweep(self.run.path / "artifacts" / name)
        events = ProgressFollower(self.run.path / "logs" / f".{name}.progress")
        for left in (events.path, self.observed(name)):
            left.unlink(missing_ok=True)
        environment = {
            **os.environ,
            **(env_vars or {}),
            progress.VARIABLE: str(events.path),
            "BOATYARD_PROJECT": str(self.folder),
            "BOATYARD_WORK": str(work),
            "BOATYARD_OBSERVED": str(self.observed(name)),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": tempfile.gettempdir(),  # one that can be written: KFP's shell takes what is set as it is
        }
        with open(self.run.log(name), "ab") as log:
            code = subprocesses.run(
                full_command,
                environment,
                log,
                self.demands.timeouts.get(name),
                lambda: self.follow(name, events),
                tuple(lock.fileno() for lock in self.locks.values()),
            )
        self.follow(name, events)
        state = self._state(name, code)
        if state == "succeeded":
            shutil.rmtree(work, ignore_errors=True)
        took = time.monotonic() - started
        self.note(runs.Step(name, state, round(took, 3), self.keys.get(name, ""), self.outputs_of(name), why))
        self.display.end(name, state, took)
        return code

    def _state(self, name: str, code: int) -> runs.State:
        if code == 0:
            return "succeeded"
        return "refused" if self.errors.get(name, {}).get("error") == "Refused" else "failed"

    def outputs_of(self, name: str) -> dict[str, Any]:
        """Return what a step left: its artifacts' paths and its parameters' values, by name."""
        folder = self.run.path / "artifacts" / name
        output = folder / EXECUTOR_OUTPUT
        parameters = json.loads(output.read_text()).get("parameterValues", {}) if output.is_file() else {}
        return parameters | {entry.name: str(entry) for entry in sorted(folder.glob("[!.]*")) if entry != output}

    def make_movable(self) -> None:
        """Say in what KFP's runner leaves beside the outputs where they are from there, not where the project was."""
        for path in self.run.path.glob(f"artifacts/*/{EXECUTOR_OUTPUT}"):
            with contextlib.suppress(BoatyardError, OSError, ValueError):  # half written by a step that was killed
                artifacts.write_json(path, places.all_relative(artifacts.read_json(path), self.folder, path.parent))

    def cached(self, name: str, outputs: Mapping[str, Any]) -> None:
        """Note a step whose result was kept from an earlier run."""
        values = {key: value.uri if isinstance(value, dsl.Artifact) else value for key, value in outputs.items()}
        self.note(runs.Step(name, "cached", 0.0, self.keys.get(name, ""), values))
        self.display.end(name, "cached", 0.0)

    def note(self, step: runs.Step) -> None:
        self.run = self.run.with_step(step).write()

    def follow(self, name: str, events: ProgressFollower) -> None:
        """Hand on the events that a step wrote since the last look."""
        for event in events.read():
            if "error" in event:
                self.errors[name] = event
            else:
                self.display.event(name, event)

    def broken(self, error: BoatyardError) -> BoatyardError:
        """Record, where that can be written, that the runner itself could not go on, and return the error to raise."""
        with contextlib.suppress(StorageError):
            self.run = self.run.end("failed", str(error))
        return error

    def failure(self, error: RuntimeError) -> BoatyardError:
        """Record how the run failed, and return the error to raise."""
        broken = next((s for s in self.run.steps if s.state in ("failed", "refused")), None)
        if broken is None:
            self.run = self.run.end("failed", str(error))
            return StepFailed(f"run {self.run.id} failed: {error}; see {self.run.log('runner')}")
        told = self.errors.get(broken.name)
        if broken.state == "refused" and told:
            self.run = self.run.end("refused", told["message"])
            return Refused(**_fields(told))
        reason = told["message"] if told else _last_line(self.run.log(broken.name))
        self.run = self.run.end("failed", f"{broken.name}: {reason}")
        return StepFailed(f"{broken.name} failed: {reason}\n  its log: {self.run.log(broken.name)}")


def _fields(event: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a step's error from the event that says it."""
    return {key: event[key] for key in ("about", "expected", "found", "fix")}


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C, where signals can be set."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _sweep(folder: Path) -> None:
    """Remove what a step that was killed had half written beside its outputs."""
    for path in (*folder.glob(".*.part"), *folder.glob(".*.old")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _step_name(command: list[str]) -> str:
    """Return which step a command is, from where its executor input sends the outputs."""
    value = json.loads(command[command.index("--executor_input") + 1])
    return Path(value["outputs"]["outputFile"]).parent.name


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
