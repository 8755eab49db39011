"""Why a step failed, left where a person finds it: a Kubeflow backend's own answer is `FAILED` and no word more.

A failing step prints its reason as one line of JSON, which ends up in the task's `executor-logs-0`, and writes it as
`reasons/STEP.json` below its run's folder in the bucket (ROOT/PIPELINE/RUN) where its pod has the store's keys.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

from boatyard import storage
from boatyard.data import artifacts
from boatyard.errors import BoatyardError, StorageError, kind_of

logger = logging.getLogger(__name__)
FOLDER = "reasons"
MARK = "boatyard-reason: "
LOG = "executor-logs-0"
MOUNT = PurePosixPath("/s3")  # where a step of Kubeflow finds its artifacts: /s3/BUCKET/KEY
MOUNTS = (MOUNT, PurePosixPath("/gcs"), PurePosixPath("/minio"))  # of every kind of store
MAX_SENTENCE_CHARS = 2000
FORMER_KEYS = {"expected": "wanted", "fix": "do"}  # what images before fields of errors called them


@dataclass(frozen=True)
class Reason:
    """Why a step failed; `expected`, `found` and `fix` are the parts of the sentence that say so, or empty."""

    step: str
    error: str
    sentence: str
    expected: str = ""
    found: str = ""
    fix: str = ""
    log: str = ""

    @classmethod
    def of(cls, step: str, error: BaseException) -> Self:
        """Take an error's sentence and fields; a foreign error has its kind and its text alone."""
        text = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, BoatyardError):
            return cls(step, type(error).__name__, f"{type(error).__name__}: {text}"[:MAX_SENTENCE_CHARS])
        fields = (" ".join(field.split())[:MAX_SENTENCE_CHARS] for field in (error.expected, error.found, error.fix))
        return cls(step, kind_of(error), text[:MAX_SENTENCE_CHARS], *fields)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Take what `asdict` gave, or an image of before; raises TypeError or KeyError for anything else."""
        texts = {key: str(value.get(key, value.get(FORMER_KEYS.get(key, key), ""))) for key in cls.__dataclass_fields__}
        return cls(**{**texts, "step": str(value["step"]), "sentence": str(value["sentence"])})

    @property
    def refused(self) -> bool:
        """Whether a gate or check did its work and said no."""
        return self.error == "Refused"

    def line(self) -> str:
        """Return the reason as the line of a log that `read` looks for."""
        return MARK + json.dumps(asdict(self), ensure_ascii=False)


@contextmanager
def recording(step: str, path: str) -> Iterator[None]:
    """Write the reason down when the block raises, whatever it raises; `path` is one of the step's artifacts."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, SystemExit | KeyboardInterrupt):
            record(Reason.of(step, error), path)
        raise


def record(reason: Reason, path: str) -> None:
    """Print a reason, and write it below the run's folder in its bucket where there is one and its keys are known."""
    print(reason.line(), file=sys.stderr, flush=True)
    leave(f"{FOLDER}/{reason.step}.json", asdict(reason), path)


def leave(key: str, value: Mapping[str, Any], path: str) -> None:
    """Write a small JSON object below the run's folder in its bucket; no error of the store is the step's.

    Nothing is written where there is no such folder, as outside Kubeflow, or the store's keys are not known.
    """
    from boatyard.settings import Settings

    run = run_of(path)
    if run is None or not Settings().credentials:
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            artifacts.write_json(Path(folder) / "value.json", value)
            storage.open(run).put(key, Path(folder) / "value.json")
    except BoatyardError as error:
        logger.warning("%s is in this log alone: %s", key, error)


def run_of(path: str) -> str | None:
    """Return the URI of the run that an artifact is of, from where a step finds it: /s3/BUCKET/…/RUN/TASK/ID/NAME."""
    place = PurePosixPath(path)
    if not place.is_relative_to(MOUNT) or len(place.parts) < 7:
        return None
    return "s3://" + str(place.parents[2].relative_to(MOUNT))


def in_kubeflow(path: Path) -> bool:
    """Say whether an artifact lies where a step of Kubeflow finds one."""
    return any(PurePosixPath(path).is_relative_to(mount) for mount in MOUNTS)


def read(run: str) -> tuple[Reason, ...]:
    """Return why the steps of a run failed, from its folder s3://BUCKET/ROOT/PIPELINE/RUN; none when none said so.

    Each says the URI of its task's log, where there is one. Raises StorageError.
    """
    bucket = storage.open(run)
    keys = sorted(bucket.list())
    logs = {_task(key): key for key in keys if key.rsplit("/", 1)[-1] == LOG}
    written = [_parsed(bucket.read(key)) for key in keys if key.startswith(f"{FOLDER}/") and key.endswith(".json")]
    reasons = {reason.step: reason for reason in written if reason}
    for task, key in logs.items():
        lines = bucket.read(key).decode(errors="replace").splitlines()
        for line in lines:
            if MARK in line and (reason := _parsed(line.partition(MARK)[2])):
                reasons.setdefault(reason.step, reason)
        if task in reasons and not reasons[task].log:
            reasons[task] = replace(reasons[task], log=f"{run}/{key}")
    return tuple(reasons.values())


def last_lines(run: str, task: str, count: int = 5) -> tuple[str, ...]:
    """Return the last lines of a task's log in its run's folder; none where there is no log. Raises StorageError."""
    bucket = storage.open(run)
    keys = [key for key in sorted(bucket.list()) if key.startswith(f"{task}/") and key.endswith(f"/{LOG}")]
    lines = bucket.read(keys[-1]).decode(errors="replace").splitlines() if keys else []
    return tuple(line.strip() for line in lines if line.strip())[-count:]


def find(root: str, run: str) -> str:
    """Return the folder of a run below a pipeline root: ROOT/PIPELINE/RUN. Raises StorageError."""
    for key in storage.open(root).list():
        parts = key.split("/")
        if run in parts[:-1]:
            return "/".join([root.rstrip("/"), *parts[: parts.index(run) + 1]])
    raise StorageError(
        f"{root}", expected=f"objects of run {run}", found="none", fix="is this the run's pipeline root?"
    )


def _task(key: str) -> str:
    return key.split("/", 1)[0]


def _parsed(text: bytes | str) -> Reason | None:
    try:
        return Reason.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
