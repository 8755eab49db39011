"""The runs of a Kubeflow backend, each in one line: how it stands, what it measured and pushed, why it failed.

The backend says a run's state and nothing of its numbers; those are what our steps left below the pipeline root
(boatyard.running.results, boatyard.running.reasons).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from boatyard.errors import Refused, StorageError
from boatyard.pipelines import outcomes
from boatyard.pipelines.answers import name_in
from boatyard.pipelines.outcomes import RunState
from boatyard.pipelines.submitting import Backend, BackendError
from boatyard.running import results
from boatyard.running.results import RunResult
from boatyard.settings import Settings

MAX_LOOKED_RUNS = 1000  # of a backend that others use too: what older ones are of is not looked up
STATES = {  # what the API calls a state: what `boatyard runs` does, where the two are not one word
    "RUNTIME_STATE_UNSPECIFIED": "pending",
    "CANCELING": "terminating",
    "CANCELED": "terminated",
}


@dataclass(frozen=True)
class RunSummary:
    """A run of a backend. Times are ISO 8601 in UTC, `seconds` from creation to end; empty or None: not known (yet).

    `state` is pending, running, paused, terminating, succeeded, refused (by the gate), failed, terminated or skipped;
    `reason` is why it is one of refused, failed, terminated. `steps` are as the API says them, CACHED and SKIPPED
    included. `result` is what its gate and push left; None where that cannot be read from here.
    """

    run: str
    name: str
    pipeline: str
    state: str
    created: str = ""
    finished: str = ""
    seconds: float | None = None
    reason: str = ""
    result: RunResult | None = None
    steps: Mapping[str, str] | None = None
    page: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it flat, as JSON values; `result_read` is whether what the steps left could be read."""
        own = {key: value for key, value in vars(self).items() if key not in ("result", "steps")}
        result = asdict(self.result or RunResult())
        return {**own, **result, "result_read": self.result is not None, "steps": dict(self.steps or {})}


@dataclass(frozen=True)
class RunList:
    """Runs, the latest first; `notes` say what of them is not shown, and why: once, not once a run."""

    runs: tuple[RunSummary, ...]
    notes: tuple[str, ...]


def summaries(backend: Backend, pipeline: str | None, limit: int, why: Callable[[str], str]) -> RunList:
    """Return the latest runs of the pipeline of that name, or of all; `why` gives the command that explains a run."""
    notes: list[str] = []
    unread: dict[str, str] = {}
    found = itertools.islice(_matching(backend, pipeline, notes), limit)
    runs = tuple(_summary(backend, answer, pipeline or "", why, unread) for answer in found)
    notes += [f"metric, version and reason of runs below {root} are not known: {text}" for root, text in unread.items()]
    return RunList(runs, tuple(notes))


def _matching(backend: Backend, pipeline: str | None, notes: list[str]) -> Iterator[Any]:
    """Yield the runs of a pipeline: those of its versions, and those that were made of a spec of that name."""
    ids = backend.pipeline_ids(pipeline) if pipeline else frozenset()
    for number, run in enumerate(backend.runs()):
        if number == MAX_LOOKED_RUNS:
            notes.append(f"the latest {number} runs of the backend were looked at, older ones were not")
            return
        reference = run.pipeline_version_reference
        made_of = reference.pipeline_id if reference else None
        if pipeline is None or (made_of in ids if made_of else name_in(run.pipeline_spec) == pipeline):
            yield run


def _summary(
    backend: Backend, answer: Any, pipeline: str, why: Callable[[str], str], unread: dict[str, str]
) -> RunSummary:
    state = backend.state_of(_whole(backend, answer))
    state = replace(state, name=state.name or pipeline)  # the version that it was made of may be gone
    result = _result(state, unread)
    shown, reason = _judged(state if result else replace(state, root=""), why)
    created, finished = _time(answer.created_at), _time(answer.finished_at) if state.ended else None
    return RunSummary(
        run=state.run,
        name=_line(answer.display_name),
        pipeline=state.name,
        state=shown,
        created=_iso(created),
        finished=_iso(finished),
        seconds=(finished - created).total_seconds() if finished and created else None,
        reason=reason,
        result=result,
        steps=state.steps,
        page=backend.page(state.run),
    )


def _whole(backend: Backend, answer: Any) -> Any:
    """Return the run with its nodes, which a backend may leave out of a list."""
    if answer.state in (None, "PENDING") or (answer.run_details and answer.run_details.task_details):
        return answer
    try:
        return backend.run(answer.run_id)
    except BackendError:  # it was deleted since
        return answer


def _result(state: RunState, unread: dict[str, str]) -> RunResult | None:
    """Return what a run's steps left; a root that cannot be read is noted, and not asked for the next run."""
    root = state.root or "the backend's own pipeline root"
    if root not in unread and (problem := _unreadable(state.root)):
        unread[root] = problem
    if root in unread:
        return None
    if state.state == "PENDING":
        return RunResult()
    try:
        folder = outcomes.folder_of(state)
        return results.read(folder) if folder else RunResult()
    except StorageError as error:
        unread[root] = str(error)
        return None


def _unreadable(root: str) -> str:
    """Say why nothing below a root can be read from here, as far as one sees without asking; or nothing."""
    if not root.startswith("s3://"):
        return "expected an s3:// URI; kubeflow.root in the project gives its runs one"
    return "" if Settings().credentials else "the store's keys are not set here (AWS_ACCESS_KEY_ID and so on)"


def _judged(state: RunState, why: Callable[[str], str]) -> tuple[str, str]:
    """Return the state in our words, and the reason of one that did not succeed."""
    if not state.ended or state.state in ("SUCCEEDED", "SKIPPED"):
        return STATES.get(state.state, state.state.lower()), ""
    error = outcomes.outcome(state, why(state.run))
    reason = str(error).splitlines()[0] if error else ""
    if isinstance(error, Refused):
        return "refused", reason
    return "terminated" if state.terminated or state.state == "CANCELED" else "failed", reason


def _time(value: Any) -> datetime | None:
    """Return a time of the API's; the year 1970 is none."""
    return value if isinstance(value, datetime) and value.timestamp() > 0 else None


def _iso(time: datetime | None) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds") if time else ""


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())
