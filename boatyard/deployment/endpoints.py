"""The status of an endpoint: which pods of which version answer, and what keeps others from it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from boatyard.deployment.leases import FORMER, PROVED, lease_name, remembered
from boatyard.deployment.rendering import RENDERED
from boatyard.errors import BoatyardError, ClusterError, Forbidden, MissingKind
from boatyard.kubernetes.cluster import Cluster

CONTAINER = "kserve-container"
MAX_RESTARTS = 2  # restarts after which a pod is taken for broken
STUCK_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
STUCK_REASONS |= {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
Object = dict[str, Any]


@dataclass(frozen=True)
class RolloutProgress:
    """How far a rollout is. `broken` is why it cannot end well, `waits` what it waits for now; neither: it is done."""

    ready: int = 0
    wanted: int = 0
    waits: str = ""
    broken: str = ""
    stuck: str = ""  # broken, unless it passes


@dataclass(frozen=True)
class Endpoint:
    """What a person wants to know of an endpoint."""

    name: str
    namespace: str
    url: str
    ready: bool
    replicas: int
    wanted: int
    version: str
    digest: str
    storage: str
    created: str
    deployed: str
    former: str
    deploying: str
    scaling: str
    traffic: dict[str, int] = field(default_factory=dict)  # digest → pods that answer
    problems: tuple[str, ...] = ()


def progress(cluster: Cluster, service: Object) -> RolloutProgress:
    """Look how far the InferenceService that was applied is; only pods made of it count."""
    meta, notes = service["metadata"], service["metadata"]["annotations"]
    name, namespace = meta["name"], meta["namespace"]
    live = cluster.get("InferenceService", name, namespace)
    if live is None:
        return RolloutProgress(broken=f"the InferenceService {name} was deleted by another")
    if notes.get("serving.kserve.io/deploymentMode") == "Knative":
        return _revision(live)
    mark = notes.get(RENDERED) or live["metadata"].get("annotations", {}).get(RENDERED)
    deployment = cluster.get("Deployment", f"{name}-predictor", namespace)
    pods = [pod for pod in pods_of(cluster, name, namespace) if _mark(pod) == mark]
    broken, stuck = _broken(pods)
    if deployment is None or _mark(deployment["spec"]["template"]) != mark:
        stuck = stuck or _condition_text(live)
        return RolloutProgress(waits="KServe makes its Deployment", stuck=stuck)
    stuck = stuck or _failed_create(deployment)
    asked, status = deployment["spec"].get("replicas", 1), deployment.get("status", {})
    ready = min(status.get("updatedReplicas", 0), sum(_answers(pod) for pod in pods))
    waits = _awaited(live, deployment, asked, ready) or _former_targets(cluster, name, namespace, pods)
    return RolloutProgress(ready, asked, waits, broken, stuck)


def _awaited(live: Object, deployment: Object, asked: int, ready: int) -> str:
    """Say what a rollout still waits for, nothing when the new generation alone serves.

    The mark on the Deployment's template says that KServe has seen the change; its own status.observedGeneration stays
    behind when nothing else of the status changes (0.20, seen).
    """
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return "the Deployment's controller sees the change"
    if ready < asked or status.get("availableReplicas", 0) < asked:
        return f"{ready} of {asked} new pods are ready"
    if status.get("replicas", 0) > status.get("updatedReplicas", 0):
        return "pods of the former version are being removed"
    return "" if condition(live, "Ready") == "True" else "KServe says Ready"


def _former_targets(cluster: Cluster, name: str, namespace: str, pods: list[Object]) -> str:
    """Say whether the Service still sends to other pods."""
    ours = {pod["metadata"]["name"] for pod in pods}
    targets = set()
    for endpoints in cluster.list(
        "EndpointSlice", namespace, labels={"kubernetes.io/service-name": f"{name}-predictor"}
    ):
        for endpoint in endpoints.get("endpoints") or []:
            if endpoint.get("conditions", {}).get("ready") is not False:
                targets.add((endpoint.get("targetRef") or {}).get("name"))
    return "the Service drops the former pods" if targets - ours else ""


def _revision(live: Object) -> RolloutProgress:
    """How far a Knative revision is."""
    predictor = live.get("status", {}).get("components", {}).get("predictor", {})
    seen = live.get("status", {}).get("observedGeneration", 0) >= live["metadata"]["generation"]
    latest = predictor.get("latestCreatedRevision")
    done = seen and latest and latest == predictor.get("latestReadyRevision") and condition(live, "Ready") == "True"
    return RolloutProgress(
        waits="" if done else "Knative's revision is ready", stuck="" if done else _condition_text(live)
    )


def _broken(pods: list[Object]) -> tuple[str, str]:
    """Return what has broken new pods for good, and what may pass."""
    stuck = ""
    for pod in pods:
        status, name = pod.get("status", {}), pod["metadata"]["name"]
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            waiting = container.get("state", {}).get("waiting") or {}
            last = (
                container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated") or {}
            )
            if container.get("restartCount", 0) >= MAX_RESTARTS and not container.get("ready"):
                words = " ".join((last.get("message") or last.get("reason") or "").split())
                return f"pod/{name} ends again and again with exit code {last.get('exitCode', '?')}: {words}", ""
            if waiting.get("reason") in STUCK_REASONS:
                stuck = f"pod/{name}: {waiting['reason']}: {waiting.get('message', '')}"
    return "", stuck


def _failed_create(deployment: Object) -> str:
    conditions = deployment.get("status", {}).get("conditions", [])
    return next((c["message"] for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), "")


def _condition_text(live: Object) -> str:
    """Return what KServe says is wrong, such as a runtime that is not there."""
    failure = live.get("status", {}).get("modelStatus", {}).get("lastFailureInfo") or {}
    return str(failure.get("message") or "")


def condition(value: Object, kind: str) -> str:
    """Return the status of a condition, "Unknown" without one."""
    conditions = value.get("status", {}).get("conditions", [])
    return str(next((c["status"] for c in conditions if c["type"] == kind), "Unknown"))


def pods_of(cluster: Cluster, name: str, namespace: str) -> list[Object]:
    """Return an endpoint's pods that were not told to stop, the oldest first."""
    pods = cluster.list("Pod", namespace, labels={"serving.kserve.io/inferenceservice": name})
    pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def _mark(value: Object) -> str | None:
    mark: str | None = (value.get("metadata", {}).get("annotations") or {}).get(RENDERED)
    return mark


def _answers(pod: Object) -> bool:
    return condition(pod, "Ready") == "True"


def status(cluster: Cluster, name: str, namespace: str | None = None) -> Endpoint:
    """Return the status of an endpoint; raises ClusterError when there is none."""
    space = namespace or cluster.namespace
    live = cluster.get("InferenceService", name, space)
    if live is None:
        raise ClusterError(f"no InferenceService {name} in namespace {space}{_others(cluster, space)}")
    notes = live["metadata"].get("annotations", {})
    pods, lease = pods_of(cluster, name, space), _lease(cluster, name, space)
    deployment = cluster.get("Deployment", f"{name}-predictor", space) or {}
    predictor = live["spec"]["predictor"]
    how = _state(cluster, live)
    return Endpoint(
        name=name,
        namespace=space,
        url=live.get("status", {}).get("address", {}).get("url")
        or f"http://{name}-predictor.{space}.svc.cluster.local",
        ready=condition(live, "Ready") == "True" and not (how.waits or how.broken),
        replicas=sum(map(_answers, pods)),
        wanted=deployment.get("spec", {}).get("replicas", len(pods)),
        version=notes.get("boatyard/version", ""),
        digest=notes.get("boatyard/digest", ""),
        storage=predictor.get("model", {}).get("storageUri", ""),
        created=live["metadata"]["creationTimestamp"],
        deployed=(lease.get("metadata", {}).get("annotations") or {}).get(PROVED, ""),
        former=_named(remembered(lease, FORMER)),
        deploying=lease.get("spec", {}).get("holderIdentity") or "",
        scaling=f"{predictor.get('minReplicas', 1)} to {predictor.get('maxReplicas', 1)}, "
        f"{notes.get('serving.kserve.io/autoscalerClass', 'knative')}",
        traffic=_traffic(pods),
        problems=tuple(problem for problem in (how.waits, how.broken, how.stuck) if problem),
    )


def _state(cluster: Cluster, live: Object) -> RolloutProgress:
    live = {**live, "metadata": {"annotations": {}, **live["metadata"]}}
    return progress(cluster, live)


def _others(cluster: Cluster, namespace: str) -> str:
    names = ", ".join(service["metadata"]["name"] for service in cluster.list("InferenceService", namespace))
    return f"; it has {names}" if names else "; it has none"


def _lease(cluster: Cluster, name: str, namespace: str) -> Object:
    """Return what deploys remember; nothing where one may not look, as status is for viewers."""
    try:
        return cluster.get("Lease", lease_name(name), namespace) or {}
    except (Forbidden, MissingKind):
        return {}


def _named(objects: list[Object] | None) -> str:
    """Return the version, or the digest, of what is remembered."""
    for value in objects or []:
        if value["kind"] == "InferenceService":
            notes = value["metadata"].get("annotations", {})
            return str(notes.get("boatyard/version") or notes.get("boatyard/digest", "")[:12])
    return ""


def _traffic(pods: list[Object]) -> dict[str, int]:
    """Count the pods that answer by the digest of their package; a Service sends to each alike."""
    pods_by_digest: dict[str, int] = {}
    for pod in filter(_answers, pods):
        digest = pod["metadata"].get("annotations", {}).get("boatyard/digest", "unknown")
        pods_by_digest[digest] = pods_by_digest.get(digest, 0) + 1
    return pods_by_digest


def age(moment: str) -> str:
    """Return how long ago a moment of Kubernetes is, for people: 3 d, 2 h, 5 min, 20 s."""
    if not moment:
        return "unknown"
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def logs(
    cluster: Cluster, name: str, namespace: str | None = None, follow: bool = False, tail: int | None = None
) -> Iterator[str]:
    """Give what an endpoint's pods write, each line after its pod's name; raises ClusterError when there is no pod."""
    space = namespace or cluster.namespace
    pods = [pod["metadata"]["name"] for pod in pods_of(cluster, name, space)]
    if not pods:
        status(cluster, name, space)
        raise ClusterError(f"{name} has no pod", fix=f"boatyard status {name} shows its state")
    if follow:
        yield from _followed(cluster, pods, space, tail)
        return
    for pod in pods:
        for line in cluster.logs(pod, space, CONTAINER, tail=tail).splitlines():
            yield f"{pod} | {line}"


def _followed(cluster: Cluster, pods: list[str], namespace: str, tail: int | None) -> Iterator[str]:
    """Give the lines of several pods as they come, until all have ended."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read(pod: str) -> None:
        try:
            for line in cluster.follow(pod, namespace, CONTAINER, tail=tail):
                lines.put(f"{pod} | {line}")
        except BoatyardError as error:
            lines.put(f"{pod} | {error}")
        lines.put(None)

    for pod in pods:
        threading.Thread(target=read, args=(pod,), daemon=True).start()
    left = len(pods)
    while left:
        line = lines.get()
        if line is None:
            left -= 1
        else:
            yield line
