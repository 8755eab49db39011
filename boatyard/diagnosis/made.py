"""What a run on Kubeflow is waiting for: the pods of its steps, and the TrainJob or endpoint that a step has made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from boatyard.diagnosis.diagnose import Answer, diagnose
from boatyard.diagnosis.gathering import LABELS, Reader, gather
from boatyard.diagnosis.snapshot import ENDED, Object, ObjectReference, Snapshot
from boatyard.errors import Forbidden, MissingKind
from boatyard.kubernetes.kinds import KUBEFLOW, RUN_LABEL

OURS = {"app.kubernetes.io/managed-by": "boatyard"}


def namespace_of(cluster: Reader, run: str, fallback: str) -> str:
    """Return the namespace that a run's pods are in; `fallback` where none is found that may be read."""
    for namespace in ("*", fallback, KUBEFLOW):
        with suppress(Forbidden):
            for pod in cluster.list("Pod", namespace, {LABELS["Run"]: run}):
                return str(pod["metadata"]["namespace"])
    return fallback


def diagnose_run(cluster: Reader, subject: ObjectReference) -> Answer:
    """Return why a run hangs or failed: by its pods, or by what a step of it waits for, whatever lies deeper."""
    snapshot = gather(cluster, subject)
    answer = diagnose(snapshot)
    for made in _made(cluster, subject, snapshot):
        deeper = diagnose(gather(cluster, made))
        if not deeper.healthy:
            first, *rest = deeper.diagnoses
            sentence = f"{subject} waits for {made} in {made.namespace}: {first.sentence}"
            diagnoses = (replace(first, sentence=sentence), *rest, *answer.diagnoses)
            looked = (*answer.looked, *(f"{each} of {made}" for each in deeper.looked))
            return Answer(subject, diagnoses, looked, (*answer.rights, *deeper.rights))
    return answer


def _made(cluster: Reader, subject: ObjectReference, snapshot: Snapshot) -> Iterator[ObjectReference]:
    """Find the TrainJobs that carry the run's label, and the endpoints whose Lease a running pod of the run holds."""
    for job in _all(cluster, "TrainJob", subject.namespace, {RUN_LABEL: subject.name}):
        yield ObjectReference("TrainJob", job["metadata"]["name"], job["metadata"]["namespace"])
    running = {pod["metadata"]["name"] for pod in snapshot.pods if pod.get("status", {}).get("phase") not in ENDED}
    for lease in _all(cluster, "Lease", subject.namespace, OURS) if running else ():
        if _host(lease) in {name[:63].rstrip("-.") for name in running}:  # a host's name is cut
            meta = lease["metadata"]
            yield ObjectReference("InferenceService", meta["name"].removeprefix("boatyard-"), meta["namespace"])


def _all(cluster: Reader, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
    """Return the objects of a kind in every namespace, or in the one where that may be read."""
    for where in ("*", namespace):
        with suppress(Forbidden, MissingKind):
            return list(cluster.list(kind, where, labels))
    return []


def _host(lease: Object) -> str:
    """Return the host of a Lease's holder, USER@HOST/PROCESS."""
    holder = str(lease.get("spec", {}).get("holderIdentity") or "")
    return holder.partition("@")[2].partition("/")[0]
