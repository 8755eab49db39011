"""Why a run ended badly: here by its record and logs, on Kubeflow by what its steps left in the store."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boatyard.diagnosis.causes import Diagnosis, Evidence, one_line
from boatyard.diagnosis.snapshot import ObjectReference
from boatyard.running import reasons, runs
from boatyard.running.reasons import Reason
from boatyard.running.runs import Run

SHOWN_LOG_LINES = 5  # lines of a log
REFUSED = "refused: "  # how the sentence of a verdict begins
ENDS = {
    "run-refused": ("a gate or a check did its work and said no", "the record and logs of the run, its steps' reasons"),
    "run-failed": (
        "a step failed",
        "the record and logs of the run; on Kubeflow reasons/ and executor-logs-0 in the store",
    ),
    "run-interrupted": ("the run was stopped, or its process was killed", "the record of the run"),
}


@dataclass(frozen=True)
class RunAnswer:
    """What became of a run: the reason, deepest first, or nothing."""

    subject: ObjectReference
    diagnoses: tuple[Diagnosis, ...]
    looked: tuple[str, ...]
    well: str


def of_local(run: Run, folder: Path) -> RunAnswer:
    """Return why a run on this machine ended as it did; `folder` is its project's."""
    subject = ObjectReference("Run", run.id, str(folder))
    looked = (
        str(run.path / runs.RECORD),
        *(str(run.log(step.name)) for step in run.steps if run.log(step.name).exists()),
    )
    diagnosis = _local(run, folder)
    done = sum(step.state in runs.GOOD for step in run.steps)
    return RunAnswer(
        subject, (diagnosis,) if diagnosis else (), looked, f"run {run.id} is {run.state}, {done} steps are done"
    )


def _local(run: Run, folder: Path) -> Diagnosis | None:
    again = f"boatyard run {shlex.quote(str(folder))} --resume --run {run.id}"
    record = Evidence(f"{run.path / runs.RECORD} state, error", one_line(f"{run.state}: {run.error}"))
    if run.state == "interrupted":
        sentence = f"run {run.id} was interrupted: {one_line(run.error) or 'a signal stopped it'}"
        return Diagnosis("run-interrupted", sentence, (record,), f"{again} goes on where it was")
    if run.state not in ("failed", "refused"):
        return None
    step = next((each for each in run.steps if each.state in ("failed", "refused")), None)
    name = step.name if step else "runner"
    lines = _lines(run.log(name))
    reason = next((each for each in map(_reason, reversed(lines)) if each), None)
    sentence_of = reason.sentence if reason else one_line(run.error.removeprefix(f"{name}: "))
    evidence = (record, *(Evidence(f"{run.log(name)}", one_line(each)) for each in _last(lines)))
    if run.state == "refused":
        sentence = f"step {name} of run {run.id} refused: {sentence_of.removeprefix(REFUSED)}"
        cure = "train better, or change the rule (gate: in boatyard.yaml), and run again: boatyard run"
        return Diagnosis("run-refused", sentence, evidence, (reason and reason.fix) or cure)
    cure = (
        f"{reason.fix}, then {again}"
        if reason and reason.fix
        else f"fix what the log says ({run.log(name)}), then {again}"
    )
    return Diagnosis("run-failed", f"step {name} of run {run.id} failed: {sentence_of}", evidence, cure)


def of_kubeflow(subject: ObjectReference, folder: str) -> RunAnswer:
    """Return why a run on Kubeflow failed, from its folder in the store (s3://…/PIPELINE/RUN); raises StorageError."""
    left = reasons.read(folder)
    diagnoses = tuple(_left(subject, folder, each) for each in sorted(left, key=lambda each: each.refused))
    where = tuple(each.log for each in left if each.log)
    return RunAnswer(
        subject, diagnoses, (folder, *where), f"no step of {subject} has left a reason for failing in {folder}"
    )


def _left(subject: ObjectReference, folder: str, reason: Reason) -> Diagnosis:
    evidence = [Evidence(reason.log or f"{folder}/{reasons.FOLDER}/{reason.step}.json", one_line(reason.sentence))]
    if reason.log:
        evidence += [
            Evidence(reason.log, one_line(each)) for each in reasons.last_lines(folder, reason.step, SHOWN_LOG_LINES)
        ]
    word, cause = ("refused", "run-refused") if reason.refused else ("failed", "run-failed")
    cure = reason.fix or "fix what the log says, then submit again: steps that succeeded are not run again"
    sentence = one_line(reason.sentence).removeprefix(REFUSED)
    return Diagnosis(cause, f"step {reason.step} of {subject} {word}: {sentence}", tuple(evidence), cure)


def _lines(log: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return []


def _last(lines: list[str]) -> list[str]:
    return [line for line in lines if reasons.MARK not in line][-SHOWN_LOG_LINES:]


def _reason(line: str) -> Reason | None:
    value: Any = None
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        value = json.loads(line.partition(reasons.MARK)[2]) if reasons.MARK in line else None
        return Reason.from_dict(value) if value else None
    return None
