"""Why: the root cause of what is wrong with an object, in one sentence, with the evidence and the fix.

`gather` reads, `diagnose` thinks: pure functions over a frozen snapshot, one for a cause, in the order of depth.
The deepest cause that is found is the answer; a container that was killed for memory also crashes, is not ready and
keeps a rollout from ending, and none of these is why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from boatyard.diagnosis import admission, asking, placing, running, scaling, starting
from boatyard.diagnosis.causes import Cause, Diagnosis
from boatyard.diagnosis.causes import Evidence as Evidence
from boatyard.diagnosis.gathering import gather as gather
from boatyard.diagnosis.snapshot import SHORT, Right, Snapshot, condition
from boatyard.diagnosis.snapshot import ObjectReference as ObjectReference

if TYPE_CHECKING:
    from boatyard.diagnosis.runs import RunAnswer

VAGUE = ("starting", "failed", "rollout", "controller-error")  # said only when nothing else is found


def no_rights(s: Snapshot) -> Iterator[Diagnosis]:
    """What would have to be read may not be."""
    hidden = [right for right in s.rights if right.kind in (s.subject.kind, "Pod")]
    if hidden and (s.asked is None or not s.of("Pod")):
        yield Diagnosis(
            "no-rights",
            f"whoever asks may not read what would say why: {hidden[0].said}",
            tuple(Evidence(f"API server, {right.verb} {right.kind}", right.said) for right in hidden),
            f"kubectl create rolebinding boatyard-viewer -n {s.subject.namespace} --clusterrole boatyard-viewer "
            "--user NAME (or --serviceaccount NAMESPACE:NAME)",
        )


ADMISSION = "conditions of the ReplicaSet, events of the Job; quotas and limits"
SCHEDULER = "the scheduler's message; what each node has, and what is asked of it; taints"
STATUS = "the container's status; the pod's events"
FETCHING = "the storage initializer's termination message and log"
OBJECT = "the object, its conditions and events"
CAUSES: tuple[Cause, ...] = (
    Cause("missing-kind", OBJECT, asking.missing_kind),
    Cause("not-found", "the API server's answer", asking.not_found),
    Cause("suspended", OBJECT, asking.stopped),
    Cause("no-controller", OBJECT, asking.no_controller),
    Cause("no-runtime", "`status.modelStatus`; the serving runtimes", asking.no_runtime),
    Cause("quota", ADMISSION, admission.quota),
    Cause("limit-range", ADMISSION, admission.limit_range),
    Cause("pod-security", ADMISSION, admission.pod_security),
    Cause("service-account", ADMISSION, admission.service_account),
    Cause("webhook", ADMISSION, admission.webhook),
    Cause("refused", ADMISSION, admission.refused),
    Cause("pvc-pending", "the scheduler's message; the claim, its events, the storage classes", placing.pvc_pending),
    Cause("gpu-name", SCHEDULER, placing.gpu_name),
    Cause("taint", SCHEDULER, placing.taint),
    Cause("unschedulable", SCHEDULER, placing.unschedulable),
    Cause("image-pull", STATUS, starting.image_pull),
    Cause("missing-reference", STATUS, starting.missing_reference),
    Cause("start", STATUS, starting.start),
    Cause("oom-killed", "the container's status and limit; metrics-server", running.oom_killed),
    Cause("storage-credentials", FETCHING, starting.storage_credentials),
    Cause("storage-digest", FETCHING, starting.storage_digest),
    Cause("storage-missing", FETCHING, starting.storage_missing),
    Cause("storage-failed", FETCHING, starting.storage_failed),
    Cause("evicted", "the pod's status", running.evicted),
    Cause("model-refused", "the container's log and status", running.model_refused),
    Cause("crash-loop", "the container's status; the last lines of its log", running.crash_loop),
    Cause("probe", "the pod's events; the probe; the log", running.probe),
    Cause("hpa-metrics", "conditions of the HorizontalPodAutoscaler, or of the ScaledObject", scaling.hpa_metrics),
    Cause("restarting", "`status.restarts` of the JobSet; events of JobSet and Job", running.restarting),
    Cause("failed", OBJECT, running.pod_failed),
    Cause("controller-error", OBJECT, asking.controller_error),
    Cause("rollout", "conditions of the Deployment", running.rollout),
    Cause("starting", "the pods", running.not_ready),
    Cause("no-rights", "the API server's answer", no_rights),
)


@dataclass(frozen=True)
class Answer:
    """What is wrong, the deepest cause first, or nothing; what was looked at, and what was not to be read."""

    subject: ObjectReference
    diagnoses: tuple[Diagnosis, ...]
    looked: tuple[str, ...]
    rights: tuple[Right, ...] = ()
    well: str = ""

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.diagnoses

    @property
    def sentence(self) -> str:
        """The root cause, or that there is none."""
        return self.diagnoses[0].sentence if self.diagnoses else f"nothing is wrong: {self.well}"

    def values(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        first = asdict(self.diagnoses[0]) if self.diagnoses else {"cause": None, "sentence": self.sentence}
        return {
            "subject": str(self.subject),
            "namespace": self.subject.namespace,
            "healthy": self.healthy,
            **first,
            "also": [asdict(diagnosis) for diagnosis in self.diagnoses[1:]],
            "looked": list(self.looked),
            "missing_rights": [right.said for right in self.rights],
        }


def from_run(run: RunAnswer) -> Answer:
    """Return what became of a run as any other answer."""
    return Answer(run.subject, run.diagnoses, run.looked, (), run.well)


def diagnose(s: Snapshot) -> Answer:
    """Return why; the same snapshot gives the same answer."""
    by_cause: dict[str, Diagnosis] = {}
    for cause in CAUSES:
        for diagnosis in cause.find(s):
            if diagnosis.cause not in VAGUE or not by_cause:
                by_cause.setdefault(diagnosis.cause, diagnosis)
    former = s.former()
    pods = "1 pod" if former == 1 else f"{former} pods"
    still = f"; meanwhile the former revision still serves ({pods} ready)" if former else ""
    diagnoses = tuple(replace(diagnosis, sentence=diagnosis.sentence + still) for diagnosis in by_cause.values())
    return Answer(s.subject, diagnoses, _looked(s), s.rights, _well(s))


def _looked(s: Snapshot) -> tuple[str, ...]:
    counts = Counter(value["kind"] for value in s.objects)
    return (*(f"{count} {kind}" for kind, count in counts.items()), *([f"{len(s.logs)} logs"] if s.logs else []))


def _well(s: Snapshot) -> str:
    """Say what is well."""
    if condition(s.asked or {}, "Complete") == "True":
        return f"{s.subject} is complete"
    ready = [
        pod for pod in s.pods if condition(pod, "Ready") == "True" or pod.get("status", {}).get("phase") == "Succeeded"
    ]
    state = f"{SHORT[s.subject.kind]} {s.subject.name}"
    return f"{state} has {len(ready)} of {len(s.pods)} pods ready"
