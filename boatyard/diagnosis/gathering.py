"""Gather: read an object and all that it depends on. Reads only; what may not be read is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from boatyard.diagnosis.snapshot import (
    Log,
    Object,
    ObjectReference,
    Right,
    Snapshot,
    asked_by_node,
    condition,
    containers,
    owner,
)
from boatyard.errors import ClusterError, Forbidden, MissingKind

MAX_LOG_LINES = 40  # of a log
LABELS = {
    "InferenceService": "serving.kserve.io/inferenceservice",
    "TrainJob": "jobset.sigs.k8s.io/jobset-name",
    "Run": "pipeline/runid",
}
DEPENDS_ON: dict[str, tuple[tuple[str, str], ...]] = {  # kind of what is asked about → kind, label
    "InferenceService": (
        ("Deployment", LABELS["InferenceService"]),
        ("ReplicaSet", LABELS["InferenceService"]),
        ("Pod", LABELS["InferenceService"]),
    ),
    "TrainJob": (("Job", LABELS["TrainJob"]), ("Pod", LABELS["TrainJob"])),
    "Run": (("Pod", LABELS["Run"]),),
    "Pod": (),
}
T = TypeVar("T")


class Reader(Protocol):
    """What is asked of a cluster."""

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object, or None."""

    def list(self, kind: str, namespace: str | None = None, labels: Any = None, fields: Any = None) -> Iterable[Object]:
        """Return the objects of a kind."""

    def events(self, namespace: str | None = None) -> Iterable[Object]:
        """Return the events of a namespace, oldest first."""

    def logs(
        self,
        pod: str,
        namespace: str | None = None,
        container: str | None = None,
        previous: bool = False,
        tail: int | None = None,
    ) -> str:
        """Return the end of a container's log."""


def gather(cluster: Reader, subject: ObjectReference) -> Snapshot:
    """Read what is asked about and what it depends on; raises Unreachable and ConfigError alone."""
    notes = Collector(cluster, subject)
    if subject.kind != "Run":
        notes.one(subject.kind, subject.name)
    for kind, label in DEPENDS_ON[subject.kind]:
        notes.all(kind, labels={label: subject.name})
    if subject.kind == "TrainJob":
        notes.one("JobSet", subject.name)
    if subject.kind == "Pod":
        notes.owners(subject.name)
    if subject.kind == "InferenceService":
        notes.scaling(subject.name)
    notes.around()
    return notes.snapshot()


class Collector:
    """What was read so far, and what could not be."""

    def __init__(self, cluster: Reader, subject: ObjectReference) -> None:
        self.cluster, self.subject = cluster, subject
        self.found: dict[tuple[str, str], Object] = {}
        self.logs: list[Log] = []
        self.absent: dict[str, None] = {}
        self.rights: dict[tuple[str, str], Right] = {}
        self.events: list[Object] = []

    def snapshot(self) -> Snapshot:
        """Return all of it, frozen."""
        taken = datetime.now(UTC).isoformat(timespec="seconds")
        objects = (*map(trimmed, self.found.values()), *map(trimmed, self.events))
        return Snapshot(self.subject, taken, objects, tuple(self.logs), tuple(self.absent), tuple(self.rights.values()))

    def one(self, kind: str, name: str) -> Object | None:
        """Read an object."""
        read = lambda: self.cluster.get(kind, name, self.subject.namespace)  # noqa: E731
        value = self._try("get", kind, read, None)
        self._keep(kind, [value] if value else [])
        return value

    def all(self, kind: str, *, labels: dict[str, str] | None = None, namespace: str | None = None) -> list[Object]:
        """Read the objects of a kind."""
        read = lambda: list(self.cluster.list(kind, namespace or self.subject.namespace, labels))  # noqa: E731
        nothing: list[Object] = []
        values = self._try("list", kind, read, nothing)
        self._keep(kind, values)
        return values

    def owners(self, pod: str) -> None:
        """Read what a pod belongs to: a ReplicaSet and its Deployment, a Job."""
        value = self.found.get(("Pod", pod))
        while value and (kind := owner(value)[0]) in ("ReplicaSet", "Deployment", "Job", "StatefulSet"):
            value = self.one(kind, owner(value)[1])

    def scaling(self, name: str) -> None:
        """Read the autoscaler of an InferenceService."""
        notes = ((self.found.get(("InferenceService", name)) or {}).get("metadata") or {}).get("annotations") or {}
        autoscaler = notes.get("serving.kserve.io/autoscalerClass", "hpa")
        if autoscaler != "none":
            self.one("HorizontalPodAutoscaler", f"{name}-predictor")
        if autoscaler == "keda":
            self.one("ScaledObject", f"{name}-predictor")

    def around(self) -> None:
        """Read what the pods need, as far as something is amiss with it: events, logs, claims, nodes, limits."""
        self._events()
        pods = [value for (kind, _), value in self.found.items() if kind == "Pod"]
        for pod in pods:
            self._logs(pod)
            self._measured(pod)
        self._claims(pods)
        if any(condition(pod, "PodScheduled") == "False" for pod in pods):
            self._nodes()
        if not pods:
            self.all("ResourceQuota")
            self.all("LimitRange")
        asked = self.found.get((self.subject.kind, self.subject.name), {})
        if asked.get("status", {}).get("modelStatus", {}).get("transitionStatus") == "InvalidSpec":
            self.all("ServingRuntime")
            self.all("ClusterServingRuntime")

    def _events(self) -> None:
        nothing: list[Object] = []
        events = self._try("list", "Event", lambda: list(self.cluster.events(self.subject.namespace)), nothing)
        names = {name for _, name in self.found} | {self.subject.name}
        names |= {claim for _, pod in self.found.items() for claim in claims(pod)}
        self.events = [event for event in events if event["involvedObject"].get("name") in names]

    def _logs(self, pod: Object) -> None:
        for container in containers(pod):
            restarted = bool(container.status.get("lastState", {}).get("terminated"))
            begun = container.ended or container.running
            if not begun or (container.ready and not restarted) or (container.init and container.ready):
                continue
            for previous in (False, True) if restarted else (False,):
                self._log(container.pod, container.name, previous)

    def _log(self, pod: str, container: str, previous: bool) -> None:
        read = lambda: self.cluster.logs(pod, self.subject.namespace, container, previous, MAX_LOG_LINES)  # noqa: E731
        self.logs.append(Log(pod, container, previous, self._try("get", "pods/log", read, "")))

    def _measured(self, pod: Object) -> None:
        if any(container.failed and container.running for container in containers(pod)):
            self.one("PodMetrics", pod["metadata"]["name"])

    def _claims(self, pods: list[Object]) -> None:
        names = {name for pod in pods for name in claims(pod)}
        read = [self.one("PersistentVolumeClaim", name) for name in sorted(names)]
        if any(claim is None or claim.get("status", {}).get("phase") != "Bound" for claim in read):
            self.all("StorageClass")

    def _nodes(self) -> None:
        nothing: list[Object] = []
        nodes = self.all("Node")
        asked = asked_by_node(self._try("list", "Pod", lambda: list(self.cluster.list("Pod", "*")), nothing))
        for node in nodes:
            node["asked"] = asked.get(node["metadata"]["name"], {})

    def _try(self, verb: str, kind: str, read: Callable[[], T], otherwise: T) -> T:
        """Read, and note when it may not be or when the API server does not know the kind."""
        try:
            return read()
        except Forbidden as error:
            self.rights[verb, kind] = Right(verb, kind, str(error))
        except MissingKind:
            self.absent[kind] = None
        except ClusterError:
            if kind != "pods/log":  # a log that is gone with its container is no news
                raise
        return otherwise

    def _keep(self, kind: str, values: Iterable[Object]) -> None:
        for value in values:
            value["kind"] = kind
            self.found[kind, value["metadata"]["name"]] = value


def claims(pod: Object) -> list[str]:
    """Return the claims that a pod mounts."""
    volumes = pod.get("spec", {}).get("volumes") or [] if pod.get("kind") == "Pod" else []
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]


KEEP = ("name", "namespace", "annotations", "labels", "creationTimestamp", "deletionTimestamp", "generation")
NODE = ("taints", "unschedulable")


def trimmed(value: Object) -> Object:
    """Return an object without bookkeeping, and without the values of environments, which may be secret."""
    meta = {key: value["metadata"][key] for key in KEEP if key in value["metadata"]}
    meta["annotations"] = {k: v for k, v in meta.get("annotations", {}).items() if "last-applied" not in k}
    if owners := value["metadata"].get("ownerReferences"):
        meta["ownerReferences"] = [{"kind": part["kind"], "name": part["name"]} for part in owners]
    rest = {key: part for key, part in value.items() if key not in ("metadata", "data", "stringData")}
    if value["kind"] == "Node":
        status = {key: part for key, part in rest.get("status", {}).items() if key in ("allocatable", "conditions")}
        rest |= {"spec": {k: v for k, v in rest.get("spec", {}).items() if k in NODE}, "status": status}
    return {**_without_values(rest), "metadata": meta}


def _without_values(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_values(part) for part in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _without_values(part) for key, part in value.items() if key not in ("managedFields", "uid")}
    if isinstance(kept.get("env"), list):
        kept["env"] = [{k: v for k, v in part.items() if k != "value"} for part in kept["env"]]
    return kept
