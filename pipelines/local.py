"""A compiled spec, run on this machine by KFP's own local runner, with what that runner leaves out.

What is added, each at a seam of `kfp.local` (pinned; a test holds every seam):
logs by step and progress (its subprocess call), results kept by content instead of by URI (its cache), plain folder
names (its time stamp). What it drops in silence is supplied (secrets from the environment, timeouts) or refused
(volumes, GPUs that are not there).
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import io
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import yaml
from kfp import components, dsl, local
from kfp.dsl import executor
from kfp.local import cache as kfp_cache
from kfp.local import executor_input_utils, subprocess_task_handler

from boatyard import stages
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, BoatyardError, ConfigError, Interrupted, Refused, StorageError
from boatyard.project import DataConfig, section
from boatyard.running import progress, runs
from boatyard.running.display import Display
from boatyard.running.progress import Follower

logger = logging.getLogger(__name__)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one where PyYAML was built with it
POLL = 0.1  # seconds between looks at a step
EXECUTOR_OUTPUT = "executor_output.json"
WITHOUT_RECIPE = ("preprocess", "evaluate")  # steps that import nothing of the project's own
GRACE = 60.0  # seconds that a step has to save after SIGTERM


class StepFailed(BoatyardError):
    """A step of a run ended with an error; the message says which, why and where its log is."""


def execute(run: runs.Run, folder: Path, display: Display) -> runs.Run:
    """Run the run's spec to its end and return the record.

    Raises Refused when the gate said no, Interrupted after a signal, StepFailed for a step's error, ConfigError
    when the spec asks for what this machine has not got or another process executes the run, StorageError when what
    the runner itself keeps cannot be written.
    """
    with runs.hold(run):
        try:
            demands = read_demands(run.spec)
            _refuse_missing(demands)
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
        raise Interrupted(f"run {run.id} was stopped; `boatyard run --resume` goes on from there") from None
    except RuntimeError as error:
        raise runner.failure(error) from None
    except OSError as error:
        raise runner.broken(artifacts.storage_error(Path(error.filename or run.path), error)) from error
    except BoatyardError as error:
        raise runner.broken(error) from error
    finally:
        runner.unlock(*runner.locks)
        display.close()
    runner.run = runner.run.end("succeeded")
    return runner.run


@dataclass(frozen=True)
class Demands:
    """A spec's pipeline, and what it asks of a cluster, by step: variables of secrets, volumes, GPUs, seconds."""

    pipeline: Any
    secrets: Mapping[str, tuple[tuple[str, str], ...]]
    volumes: Mapping[str, tuple[str, ...]]
    gpus: Mapping[str, int]
    timeouts: Mapping[str, int]


def read_demands(spec: Path) -> Demands:
    """Read both documents of a spec, of which the local runner reads the first; raises ConfigError."""
    try:
        text = spec.read_text()
        documents = [document for document in yaml.load_all(text, Loader=_LOADER) if document]
        pipeline = components.load_component_from_text(text)
    except Exception as error:  # KFP's own are of many kinds
        reason = " ".join(str(error).split())
        raise ConfigError(f"{spec} is not a compiled pipeline: {reason}; start a new run: boatyard run") from error
    executors = documents[0].get("deploymentSpec", {}).get("executors", {})
    platform: dict[str, Any] = {}
    for document in documents[1:]:
        platform |= document.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    return Demands(
        pipeline,
        secrets={_bare(n): tuple(_variables(s)) for n, s in platform.items()},
        volumes={_bare(n): tuple(_volumes(s)) for n, s in platform.items()},
        gpus={_bare(n): _gpus(e) for n, e in executors.items()},
        timeouts={
            _bare(n): int(s["activeDeadlineSeconds"]) for n, s in platform.items() if "activeDeadlineSeconds" in s
        },
    )


def _bare(name: str) -> str:
    return name.removeprefix("exec-").removeprefix("comp-")


def _variables(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for secret in settings.get("secretAsEnv", []):
        for key in secret["keyToEnv"]:
            yield key["envVar"], f"{secret.get('secretName', '?')}/{key['secretKey']}"


def _volumes(settings: Mapping[str, Any]) -> Iterator[str]:
    kinds = ("pvcMount", "secretAsVolume", "configMapAsVolume", "genericEphemeralVolume")
    for kind in kinds:
        for volume in settings.get(kind, []):
            yield f"{kind} at {volume.get('mountPath', '?')}"


def _gpus(spec: Mapping[str, Any]) -> int:
    accelerator = spec.get("container", {}).get("resources", {}).get("accelerator", {})
    return int(accelerator.get("resourceCount") or accelerator.get("count") or 0)


def _refuse_missing(demands: Demands) -> None:
    """Refuse a spec whose steps would run without something that they ask for."""
    for step, variables in demands.secrets.items():
        for variable, secret in variables:
            if variable not in os.environ:
                raise ConfigError(
                    f"resources.{step}.secrets: {variable} comes from the secret {secret} on a cluster; here, export it"
                )
    for step, volumes in demands.volumes.items():
        if volumes:
            raise ConfigError(f"{step} mounts {', '.join(volumes)}, which this machine cannot; run it on a cluster")
    here = len(glob.glob("/dev/nvidia[0-9]*"))
    for step, count in demands.gpus.items():
        if count > here:
            raise ConfigError(
                f"resources.{step}.gpu asks for {count}, this machine has {here}; "
                f"run without: --set resources.{step}.gpu=null"
            )


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

    def work(self, name: str) -> Path:
        """Return the folder that a step goes on from after it was killed."""
        return self.folder / runs.FOLDER / ".work" / self.keys.get(name, name)[:16]

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
        self.note(runs.Step(name, "running"))
        started = time.monotonic()
        work = self.work(name)
        _sweep(self.run.path / "artifacts" / name)
        events = Follower(self.run.path / "logs" / f".{name}.progress")
        events.path.unlink(missing_ok=True)
        environment = {
            **os.environ,
            **(env_vars or {}),
            progress.VARIABLE: str(events.path),
            "BOATYARD_PROJECT": str(self.folder),
            "BOATYARD_WORK": str(work),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": tempfile.gettempdir(),  # one that can be written: KFP's shell takes what is set as it is
        }
        with open(self.run.log(name), "ab") as log:
            code = _run(
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
        self.note(runs.Step(name, state, round(took, 3), self.keys.get(name, ""), self.outputs_of(name)))
        self.display.end(name, state, took)
        return code

    def _state(self, name: str, code: int) -> runs.State:
        if code == 0:
            return "succeeded"
        return "refused" if self.errors.get(name, {}).get("error") == "Refused" else "failed"

    def outputs_of(self, name: str) -> dict[str, Any]:
        """Return what a step left: its artifacts' paths and its parameters' values, by name."""
        folder = self.run.path / "artifacts" / name
        said = folder / EXECUTOR_OUTPUT
        parameters = json.loads(said.read_text()).get("parameterValues", {}) if said.is_file() else {}
        return parameters | {entry.name: str(entry) for entry in sorted(folder.glob("[!.]*")) if entry != said}

    def cached(self, name: str, outputs: Mapping[str, Any]) -> None:
        """Note a step whose result was kept from an earlier run."""
        found = {key: value.uri if isinstance(value, dsl.Artifact) else value for key, value in outputs.items()}
        self.note(runs.Step(name, "cached", 0.0, self.keys.get(name, ""), found))
        self.display.end(name, "cached", 0.0)

    def note(self, step: runs.Step) -> None:
        self.run = self.run.with_step(step).write()

    def follow(self, name: str, events: Follower) -> None:
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


class ContentCache(kfp_cache.LocalCache):  # type: ignore[misc]
    """Results kept by content: a step's key is its settings, its inputs' bytes and the code that runs it.

    KFP's own looks at URIs, and sees neither changed bytes nor a changed library.
    """

    def __init__(self, runner: _Runner) -> None:
        super().__init__(str(runner.folder / runs.FOLDER / ".cache"))
        self.runner = runner
        self.library, self.code = stages.code_digest(), stages.code_digest(runner.folder)
        self.environment = stages.environment()
        self.name = ""

    def compute_key(
        self,
        component_name: str,
        image: str,
        full_command: list[str],
        arguments: dict[str, Any],
        env_vars: dict[str, str] | None = None,
        custom_cache_key: str | None = None,
    ) -> str:
        """Return the digest of all that a step's result depends on."""
        self.name = _bare(component_name)
        self.runner.display.start(self.name)
        about = {
            "step": component_name,
            "command": full_command,
            "arguments": {name: _content(value) for name, value in arguments.items()},
            "variables": env_vars or {},
            "code": self.library if self.name in WITHOUT_RECIPE else self.code,
            "environment": self.environment,
        }
        if self.name == "preprocess":
            about["sources"] = self._sources(arguments["data"])
        key = artifacts.digest_json(about)
        self.runner.keys[self.name] = key
        return key

    def _sources(self, data: Mapping[str, Any]) -> Any:
        from boatyard import preprocessing

        return preprocessing.source_digests(section(DataConfig, data), self.runner.folder)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a step's outputs if they are still there, byte for byte; None otherwise, and then the step is locked.

        A run that finds the step at work in another run of the project waits for what that one makes of it.
        """
        outputs = self._kept(key)
        if outputs is None and self._reserve(key):
            outputs = self._kept(key)
        if outputs is not None:
            self.runner.unlock(self.name)
            self.runner.cached(self.name, outputs)
        return outputs

    def _reserve(self, key: str) -> bool:
        """Take the step's lock, which its process holds too; return whether another run had it."""
        path = self.runner.work(self.name).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = self.runner.locks.setdefault(self.name, open(path, "ab"))  # noqa: SIM115 - closed by unlock
        waited = False
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return waited
            if not waited:
                self.runner.display.say(f"{self.name} is at work in another run of this project; waiting for it")
            waited = True
            time.sleep(POLL)

    def _kept(self, key: str) -> dict[str, Any] | None:
        path = Path(self._entry_path(key))
        if not path.is_file():
            return None
        try:
            return {name: _revive(entry) for name, entry in artifacts.read_json(path).items()}
        except (BoatyardError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            logger.info("%s is run again: %s", self.name, error)
            return None

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Keep a step's outputs: where they are, and the digest of their bytes."""
        artifacts.write_json(Path(self._entry_path(key)), {name: _pin(value) for name, value in outputs.items()})
        self.runner.unlock(self.name)


def _content(value: Any) -> Any:
    """Return what a key says of an argument: an artifact's bytes, not where they lie."""
    return _digest(Path(value.path)) if isinstance(value, dsl.Artifact) else value


def _digest(path: Path) -> str:
    """Return the digest of a file or folder; metrics that live in metadata have none, and count as empty."""
    if path.is_dir():
        return artifacts.digest_folder(path)
    return artifacts.digest_file(path) if path.exists() else ""


def _pin(value: Any) -> dict[str, Any]:
    if not isinstance(value, dsl.Artifact):
        return {"value": value}
    return {
        "digest": _digest(Path(value.path)),
        "artifact": {
            "name": value.name,
            "uri": value.uri,
            "metadata": value.metadata,
            "type": {"schemaTitle": value.schema_title, "schemaVersion": value.schema_version},
        },
    }


def _revive(entry: Mapping[str, Any]) -> Any:
    """Return an output as it was kept; raises ArtifactError when its bytes are gone or changed."""
    if "artifact" not in entry:
        return entry["value"]
    path = Path(entry["artifact"]["uri"])
    if _digest(path) != entry["digest"]:
        raise ArtifactError(f"{path} is not what was kept")
    return executor.create_artifact_instance(dict(entry["artifact"]))


def _run(
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
                select.select([ended], [], [], POLL)  # wakes at once when the step ends
                look()
                if limit and time.monotonic() - started > limit:
                    log.write(f"stopped: its timeout of {limit} s passed\n".encode())
                    _end(process, ended)
        except KeyboardInterrupt:
            _end(process, ended)
            raise
        return process.returncode
    finally:
        for descriptor in (ended, held, parent, alive):
            if descriptor >= 0:
                os.close(descriptor)


def _end(process: subprocess.Popen[bytes], ended: int) -> None:
    """Ask a step's session to save and end, wait for the last of it, and kill what is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(KeyboardInterrupt):  # a second signal ends the wait
        select.select([ended], [], [], GRACE)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
