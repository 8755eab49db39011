"""How a run on Kubeflow stands, and why it ended as it did.

The backend says of a failed step that it failed and no more; the reason is what the step itself left
(boatyard.running.reasons).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from boatyard.errors import BoatyardError, Refused, StorageError
from boatyard.running import reasons, results
from boatyard.running.reasons import Reason
from boatyard.running.results import RunResult
from boatyard.settings import Settings

logger = logging.getLogger(__name__)
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


class RunFailed(BoatyardError):
    """A run on Kubeflow ended and did not succeed; the message says which step and why, as far as anybody knows."""


@dataclass(frozen=True)
class RunState:
    """The state of a run and of its steps, as the API calls them; CACHED is a step kept from an earlier run.

    `name` is the pipeline's, which a run's folder below `root` is called by; `terminated`: somebody ended the run,
    which Kubeflow calls FAILED.
    """

    run: str
    name: str
    state: str
    steps: Mapping[str, str]
    root: str = ""
    terminated: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED

    @property
    def failed(self) -> tuple[str, ...]:
        """The steps that failed."""
        return tuple(step for step, state in self.steps.items() if state == "FAILED")


def outcome(state: RunState, why: str = "") -> BoatyardError | None:
    """Return the error of a run that ended: Refused by the gate, RunFailed; None of one that succeeded.

    `why` is the command that looks for what no step has left.
    """
    if state.state == "SUCCEEDED":
        return None
    folder = folder_of(state)
    left = _reasons(folder)
    for reason in left:
        if reason.refused:
            return Refused(reason.sentence)
    if state.terminated or state.state == "CANCELED":
        at = f", while {' and '.join(state.failed)} ran" if state.failed else ""
        return RunFailed(f"run {state.run} was terminated{at}")
    if left:
        where = f"\n  its log: {left[0].log}" if left[0].log else ""
        return RunFailed(f"{left[0].step} failed: {left[0].sentence}{where}")
    if state.failed == ("verdict",) and (refusal := _refusal(folder)):  # that step does nothing but this
        return refusal
    return RunFailed(_unsaid(state, folder, why or f"boatyard why run/{state.run}"))


def _refusal(folder: str) -> Refused | None:
    """Return the gate's no, in its words where they can be read; None where it said yes, and another thing failed."""
    result = RunResult()
    if folder.startswith("s3://") and Settings().credentials:
        with contextlib.suppress(StorageError):
            result = results.read(folder)
    if result.passed:
        return None
    where = f"its verdict is at {folder or 'the run’s root'}/gate/"
    return Refused(result.verdict) if result.verdict else Refused("the gate refused", fix=where)


def folder_of(state: RunState) -> str:
    """Return the folder that a run's steps leave things in; empty where it is not known, or not to be read here."""
    if state.root and state.name:
        return f"{state.root.rstrip('/')}/{state.name}/{state.run}"
    if state.root.startswith("s3://") and Settings().credentials:
        with contextlib.suppress(StorageError):  # the version that it was made of is gone
            return reasons.find(state.root, state.run)
    return ""


def _reasons(folder: str) -> tuple[Reason, ...]:
    """Return what the steps of a run left, if this machine has the store's keys."""
    if not folder.startswith("s3://") or not Settings().credentials:
        return ()
    try:
        return reasons.read(folder)
    except StorageError as error:
        logger.warning("%s", error)
        return ()


def _unsaid(state: RunState, folder: str, why: str) -> str:
    """Say where to look for what no step has said: a pod that never ran, was killed, or keys that are not here."""
    which = " and ".join(state.failed) or f"run {state.run}"
    task = state.failed[0] if state.failed else ""
    if task and folder.startswith("s3://") and Settings().credentials:
        with contextlib.suppress(StorageError):
            if lines := reasons.last_lines(folder, task, 1):
                return f"{which} failed: {lines[0]}; its log: {folder}/{task}/"
    where = f" or {folder}/{task}/…/{reasons.LOG}" if folder else ""
    return f"{which} failed and left no reason that can be read from here; look at: {why}{where}"
