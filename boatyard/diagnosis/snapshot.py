"""What was read of an object and of all that it depends on, frozen: a diagnosis looks at this and at nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from boatyard.project.fields import UNITS, quantity

Object = dict[str, Any]
SHORT = {"InferenceService": "isvc", "TrainJob": "trainjob", "Pod": "pod", "Run": "run"}
INITIALIZER = "storage-initializer"  # the init container of KServe that fetches the model
RECENT_S = 600  # seconds that an end of a container is news, when it runs again
REVISION = "deployment.kubernetes.io/revision"
ENDED = ("Succeeded", "Failed")  # phases of a pod that asks its node for nothing any more


@dataclass(frozen=True)
class ObjectReference:
    """What is asked about; `kind` is Kubernetes' own, or Run."""

    kind: str
    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{SHORT[self.kind]}/{self.name}"


@dataclass(frozen=True)
class Log:
    """The last lines of a container; `previous`: of the one before its last restart."""

    pod: str
    container: str
    previous: bool
    text: str


@dataclass(frozen=True)
class Right:
    """A read that was refused: what it would have read, and the API server's sentence."""

    verb: str
    kind: str
    said: str


@dataclass(frozen=True)
class Container:
    """A container of a pod: what was asked for and what became of it."""

    pod: str
    init: bool
    spec: Object
    status: Object

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.spec["name"])

    @property
    def waiting(self) -> Object:
        """Why it does not run yet: reason and message; empty when it runs or has ended."""
        return dict(self.status.get("state", {}).get("waiting", {}))

    @property
    def ended(self) -> Object:
        """How it ended last: reason, exitCode, message, finishedAt; empty when it never did."""
        states = (self.status.get("state", {}), self.status.get("lastState", {}))
        return dict(next((state["terminated"] for state in states if state.get("terminated")), {}))

    @property
    def ended_where(self) -> str:
        """Where `ended` was read."""
        now = bool(self.status.get("state", {}).get("terminated"))
        return self.where("state.terminated" if now else "lastState.terminated")

    @property
    def running(self) -> str:
        """Since when it runs, or nothing."""
        return str(self.status.get("state", {}).get("running", {}).get("startedAt", ""))

    @property
    def ready(self) -> bool:
        """Whether it does what it is there for: an init container has ended well, another answers."""
        return bool(self.status.get("ready"))

    @property
    def failed(self) -> bool:
        """Whether it ended with an error, by itself or not."""
        return bool(self.ended) and (self.ended.get("exitCode", 0) != 0 or self.ended.get("reason") == "OOMKilled")

    def where(self, field: str = "") -> str:
        """Return the place in the pod's status that a field of it is read from."""
        statuses = "initContainerStatuses" if self.init else "containerStatuses"
        return f"pod/{self.pod} status.{statuses}[{self.name}]" + (f".{field}" if field else "")


@dataclass(frozen=True)
class Snapshot:
    """The objects, events and logs that were read; `absent` are kinds that the API server does not know."""

    subject: ObjectReference
    taken: str
    objects: tuple[Object, ...]
    logs: tuple[Log, ...] = ()
    absent: tuple[str, ...] = ()
    rights: tuple[Right, ...] = ()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Take what `to_dict` gave."""
        return cls(
            ObjectReference(**value["subject"]),
            value["taken"],
            tuple(value["objects"]),
            tuple(Log(**each) for each in value["logs"]),
            tuple(value["absent"]),
            tuple(Right(**each) for each in value["rights"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    def of(self, kind: str) -> tuple[Object, ...]:
        """Return the objects of a kind."""
        return tuple(value for value in self.objects if value["kind"] == kind)

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None when it was not read."""
        return next((value for value in self.of(kind) if value["metadata"]["name"] == name), None)

    @property
    def asked(self) -> Object | None:
        """The object that is asked about."""
        return self.get(self.subject.kind, self.subject.name)

    @property
    def pods(self) -> tuple[Object, ...]:
        """The pods that count: not those on their way out, and none of a training that is complete."""
        if condition(self.asked or {}, "Complete") == "True":
            return ()
        return tuple(pod for pod in self.of("Pod") if not pod["metadata"].get("deletionTimestamp"))

    def containers(self, *, init: bool | None = None) -> Iterator[Container]:
        """Yield the containers of all pods that count, a pod's init containers first."""
        for pod in self.pods:
            for container in containers(pod):
                if init is None or container.init == init:
                    yield container

    def failing(self, *, init: bool | None = None) -> Iterator[Container]:
        """Yield the containers that ended with an error and have not got over it."""
        for container in self.containers(init=init):
            fresh = self.age(container.ended.get("finishedAt", "")) < RECENT_S
            if container.failed and (not container.ready or (fresh and container.status.get("restartCount"))):
                yield container

    def events(self, kind: str, name: str, *reasons: str) -> tuple[Object, ...]:
        """Return the events of an object, oldest first, of these reasons or of all."""
        return tuple(
            event
            for event in self.of("Event")
            if (event["involvedObject"].get("kind"), event["involvedObject"].get("name")) == (kind, name)
            and (not reasons or event.get("reason") in reasons)
        )

    def log(self, container: Container) -> tuple[str, ...]:
        """Return the last lines of a container's log: of the one that ended, where it was restarted."""
        ended_before = "terminated" in container.status.get(
            "lastState", {}
        ) and "terminated" not in container.status.get("state", {})
        logs = [
            log for log in self.logs if (log.pod, log.container) == (container.pod, container.name) and log.text.strip()
        ]
        logs.sort(key=lambda log: log.previous != ended_before)
        return tuple(line for line in logs[0].text.splitlines() if line.strip()) if logs else ()

    def age(self, moment: str) -> float:
        """Return the seconds from a moment to when this was read; endless for no moment."""
        if not moment:
            return float("inf")
        return (datetime.fromisoformat(self.taken) - datetime.fromisoformat(moment)).total_seconds()

    def former(self) -> int:
        """Return how many pods of the former revision answer while the newest has none that does."""
        count = 0
        for deployment in self.of("Deployment"):
            sets = [
                replica_set
                for replica_set in self.of("ReplicaSet")
                if owner(replica_set) == ("Deployment", deployment["metadata"]["name"])
            ]
            sets.sort(key=lambda replica_set: int(replica_set["metadata"].get("annotations", {}).get(REVISION, 0)))
            if sets and not sets[-1].get("status", {}).get("readyReplicas"):
                count += sum(replica_set.get("status", {}).get("readyReplicas", 0) for replica_set in sets[:-1])
        return count

    def refused(self, kind: str) -> bool:
        """Whether a kind was not to be read."""
        return any(right.kind == kind for right in self.rights)


def containers(pod: Object) -> Iterator[Container]:
    """Yield the containers of a pod, its init containers first."""
    for field, init in (("initContainer", True), ("container", False)):
        known = {status["name"]: status for status in pod.get("status", {}).get(f"{field}Statuses", [])}
        for spec in pod["spec"].get(f"{field}s", []):
            yield Container(pod["metadata"]["name"], init, spec, known.get(spec["name"], {}))


def condition(value: Object, kind: str, field: str = "status") -> str:
    """Return a condition's status, or another field of it; nothing when it is not there."""
    conditions = value.get("status", {}).get("conditions", [])
    return str(next((entry.get(field, "") for entry in conditions if entry["type"] == kind), ""))


def moment(event: Object) -> str:
    """Return when an event was seen last, by the old API or the new."""
    series = (event.get("series") or {}).get("lastObservedTime")
    created = event["metadata"].get("creationTimestamp")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or created or "")


def owner(value: Object) -> tuple[str, str]:
    """Return kind and name of what an object belongs to."""
    owners = value["metadata"].get("ownerReferences", [])
    return (owners[0]["kind"], owners[0]["name"]) if owners else ("", "")


def asked_of(pod: Object, resource: str) -> float:
    """Return how much of a resource a pod asks its node for."""
    spec = pod["spec"]

    def of(value: Object) -> float:
        resources = value.get("resources", {})
        return quantity(resources.get("requests", {}).get(resource, resources.get("limits", {}).get(resource, 0)))

    return max([sum(map(of, spec["containers"])), *map(of, spec.get("initContainers", []))])


def asked_by_node(pods: Iterable[Object]) -> dict[str, dict[str, float]]:
    """Return how much the pods on each node ask it for, by node and resource; a pod that has ended asks for nothing."""
    asked: dict[str, dict[str, float]] = {}
    for pod in pods:
        if pod.get("status", {}).get("phase") in ENDED or not (node := pod["spec"].get("nodeName")):
            continue
        mine = asked.setdefault(node, {"pods": 0.0})
        mine["pods"] += 1
        requests = (each.get("resources", {}).get("requests", {}) for each in pod["spec"]["containers"])
        for name in {name for each in requests for name in each}:
            mine[name] = mine.get(name, 0.0) + asked_of(pod, name)
    return asked


def shown(amount: float, resource: str) -> str:
    """Return an amount as people write it: 2, 250m, 1.5Gi."""
    if resource not in ("memory", "ephemeral-storage"):
        return f"{amount:g}" if amount >= 1 or amount == 0 or resource != "cpu" else f"{amount * 1000:g}m"
    unit = next((unit for unit in ("Gi", "Mi", "Ki") if amount >= UNITS[unit]), "")
    return f"{amount / UNITS.get(unit, 1):.4g}{unit}"
