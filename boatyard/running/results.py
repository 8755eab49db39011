"""What a run came to, left where a person finds it: a Kubeflow backend's API gives neither metrics nor outputs.

The gate leaves the metric that its report opens with and its verdict, the push leaves the version that it made; these
two steps are never cached, so each run has its own. As a reason does (boatyard.running.reasons), a result lies as
`results/STEP.json` below the run's folder (ROOT/PIPELINE/RUN) where the step's pod has the store's keys, and is one
line of the step's log, which ends up in the task's `executor-logs-0`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from boatyard import storage
from boatyard.running import reasons

logger = logging.getLogger(__name__)
FOLDER = "results"
MARK = "boatyard-result: "
STEPS = ("gate", "push")


@dataclass(frozen=True)
class RunResult:
    """What a run measured and pushed; a field is None or empty while no step has said it.

    `value`, `low` and `high` are in the metric's own unit, `confidence` is a share (0.95); `verdict` is the gate's
    sentence; `version` is the number in the registry, at `uri`, `digest` the sha256 of its package.json.
    """

    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    passed: bool | None = None
    verdict: str = ""
    version: int | None = None
    uri: str = ""
    digest: str = ""

    def headline(self) -> str:
        """Say the metric with its interval; nothing before it is known."""
        if not self.metric or self.value is None:
            return ""
        interval = "" if self.low is None or self.high is None else f" [{self.low:.4f}, {self.high:.4f}]"
        return f"{self.metric} {self.value:.4f}{interval}"


def record(step: str, result: RunResult, path: str) -> None:
    """Leave what a step came to where its run is one on Kubeflow; `path` is one of the step's artifacts."""
    if reasons.run_of(path) is None:
        return
    values = {key: value for key, value in asdict(result).items() if value not in (None, "")}
    print(MARK + json.dumps(values, ensure_ascii=False), file=sys.stderr, flush=True)
    reasons.leave(f"{FOLDER}/{step}.json", values, path)


def read(run: str) -> RunResult:
    """Return what the steps of a run left in its folder s3://BUCKET/ROOT/PIPELINE/RUN. Raises StorageError."""
    found: dict[str, Any] = {}
    for step in STEPS:
        written = storage.open(run).find(f"{FOLDER}/{step}.json")
        found |= _parsed(written.data if written else _logged(run, step), f"{run}/{FOLDER}/{step}.json")
    return RunResult(**found)


def _logged(run: str, step: str) -> str:
    """Return the line that a step printed, from its task's log; empty where there is none."""
    bucket = storage.open(f"{run}/{step}")
    for key in sorted(bucket.list(), reverse=True):
        if key.rsplit("/", 1)[-1] == reasons.LOG:
            for line in reversed(bucket.read(key).decode(errors="replace").splitlines()):
                if MARK in line:
                    return line.partition(MARK)[2]
    return ""


def _parsed(text: bytes | str, at: str) -> Mapping[str, Any]:
    """Take the fields that we know, of this version or of a later one; nothing of what is no result."""
    if not text:
        return {}
    known = {field.name for field in fields(RunResult)}
    try:
        given = {key: value for key, value in json.loads(text, parse_constant=_refuse).items() if key in known}
        result = _RESULT.validate_python(given)
    except (ValueError, AttributeError, ValidationError) as error:
        logger.warning("%s is no result of a step: %s", at, str(error).splitlines()[0])
        return {}
    return {key: getattr(result, key) for key, value in given.items() if value not in (None, "")}


def _refuse(constant: str) -> None:
    """Refuse NaN and infinity, which Python's JSON alone knows."""
    raise ValueError(f"{constant} is no number")


_RESULT = TypeAdapter(RunResult)
