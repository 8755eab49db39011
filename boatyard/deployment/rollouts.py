"""Rolling out: apply, wait for the new pods alone, ask them; what does not serve is taken back, while the old serves.

A deploy that was killed leaves a Lease that runs out; the next one goes on from what it finds, and goes back, if it
must, to what was last seen to serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from boatyard.deployment.endpoints import RolloutProgress, progress
from boatyard.deployment.leases import CURRENT, FORMER, HeldLease, hold, lease_name
from boatyard.deployment.proving import Proof, prove
from boatyard.deployment.rendering import RENDERED
from boatyard.errors import BoatyardError, ClusterError, Conflict, Forbidden, RolledBack, Unreachable
from boatyard.kubernetes.cluster import Cluster

ROLLOUT_TIMEOUT_S = 600.0  # for a new version to serve: a node may have to come, an image to be pulled
UNREACHABLE_TIMEOUT_S = 120.0  # that the API server may be away
LOOK_INTERVAL_S = 1.0
STUCK_GRACE_S = 20.0  # in which what is stuck may come loose: a registry, a quota
DELETION_TIMEOUT_S = 120.0
Object = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Deployed:
    """What a deploy came to: how many pods are ready, how many golden examples were answered right, in what time."""

    name: str
    namespace: str
    digest: str
    version: str
    replicas: int
    proven: int
    seconds: float
    former: str


def deploy(
    cluster: Cluster,
    objects: list[Object],
    evidence: Proof | None,
    *,
    patience: float = ROLLOUT_TIMEOUT_S,
    say: Say = lambda _: None,
) -> Deployed:
    """Roll out what was rendered, and prove it; return what serves now.

    Raises RolledBack when it did not serve and the former version does, whatever went wrong; Conflict when another
    deploys and Unreachable when the API server is gone, which leave things as they are; ClusterError.
    """
    service = _service(objects)
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    _check(cluster, objects)
    with hold(cluster, name, namespace) as held:
        return _deploy(held, objects, evidence, patience, say)


def rollback(
    cluster: Cluster,
    name: str,
    namespace: str,
    evidence: Callable[[Object], Proof | None],
    *,
    patience: float = ROLLOUT_TIMEOUT_S,
    say: Say = lambda _: None,
) -> Deployed:
    """Roll out what served before the version that serves now; `evidence` finds its golden examples."""
    with hold(cluster, name, namespace) as held:
        former = held.remembered(FORMER)
        if former is None:
            raise ClusterError(f"{name} has no former version to go back to: boatyard has deployed but one")
        say(f"going back to {_label(_service(former))}")
        return _deploy(held, former, evidence(_service(former)), patience, say)


def delete(cluster: Cluster, name: str, namespace: str) -> bool:
    """Remove an endpoint and all that belongs to it; return whether there was one. Raises ClusterError."""
    with hold(cluster, name, namespace):
        was = cluster.delete("InferenceService", name, namespace)
        cluster.delete("PodDisruptionBudget", f"{name}-predictor", namespace)
        gone = cluster.poll(lambda: cluster.get("InferenceService", name, namespace) is None, DELETION_TIMEOUT_S)
    cluster.delete("Lease", lease_name(name), namespace)
    if not gone:
        raise ClusterError(
            f"the InferenceService {name} is being deleted, but was still there after {DELETION_TIMEOUT_S:.0f} s"
        )
    return was


def _deploy(held: HeldLease, objects: list[Object], evidence: Proof | None, patience: float, say: Say) -> Deployed:
    began, cluster, service = time.monotonic(), held.cluster, _service(objects)
    served, former = held.remembered(CURRENT) or _live(cluster, service), held.remembered(FORMER)
    say(f"{service['metadata']['name']}: {_label(service)} rolls out")
    _apply(held, objects)
    try:
        ready = _wait(held, service, patience, say)
        proven = _proven(cluster, service, evidence, ready)
    except (Conflict, Unreachable):
        raise
    except Exception as error:  # ours too: a version that is not proven must not stay in front of users
        raise _back(held, objects, served, _reason(error), patience, say) from error
    before = former if served and _same(served, objects) else served
    held.remember(objects, before)
    notes, meta = service["metadata"]["annotations"], service["metadata"]
    return Deployed(
        name=meta["name"],
        namespace=meta["namespace"],
        digest=notes["boatyard/digest"],
        version=notes.get("boatyard/version", ""),
        replicas=ready,
        proven=proven,
        seconds=round(time.monotonic() - began, 1),
        former=_label(_service(before)) if before else "",
    )


def _proven(cluster: Cluster, service: Object, evidence: Proof | None, ready: int) -> int:
    if evidence is None or not ready:
        return 0
    return prove(cluster, service["metadata"]["name"], service["metadata"]["namespace"], evidence)


def _check(cluster: Cluster, objects: list[Object]) -> None:
    """Find what would refuse the objects before anything is changed: rights, kinds, namespace, webhooks, runtime."""
    for manifest in objects:
        cluster.apply(manifest, dry_run=True, force=True)
    service = _service(objects)
    namespace, name = service["metadata"]["namespace"], service["spec"]["predictor"]["model"]["runtime"]
    if not (cluster.get("ServingRuntime", name, namespace) or _for_all(cluster, name)):
        raise ClusterError(
            f"no ServingRuntime {name} in namespace {namespace}",
            fix=(
                "kubectl apply -k manifests/overlays/… brings it, serve.runtime and serve.namespace say which is used"
            ),
        )


def _for_all(cluster: Cluster, name: str) -> Object | None:
    """Return the runtime that the whole cluster has, if one may look."""
    with suppress(Forbidden):
        return cluster.get("ClusterServingRuntime", name)
    return None


def _apply(held: HeldLease, objects: list[Object]) -> None:
    """Apply every object; an API server that is away is waited for."""
    for manifest in objects:
        held.check()
        held.cluster.poll(lambda manifest=manifest: held.cluster.apply(manifest, force=True), UNREACHABLE_TIMEOUT_S)  # type: ignore[misc]


def _wait(held: HeldLease, service: Object, patience: float, say: Say) -> int:
    """Wait until the pods made of this InferenceService, and no others, serve; return how many there are."""
    end, stuck, told = time.monotonic() + patience, 0.0, ""
    while True:
        held.check()
        state = held.cluster.poll(lambda: progress(held.cluster, service), UNREACHABLE_TIMEOUT_S) or RolloutProgress()
        if not (state.waits or state.broken):
            return state.ready
        stuck = (stuck or time.monotonic()) if state.stuck else 0.0
        reason = state.broken or (state.stuck if stuck and time.monotonic() - stuck > STUCK_GRACE_S else "")
        if reason:
            raise ClusterError(reason)
        if time.monotonic() > end:
            raise ClusterError(f"not ready within {patience:.0f} s: {state.stuck or state.waits}")
        if state.waits != told:
            told = state.waits
            say(told)
        time.sleep(LOOK_INTERVAL_S)


def _back(
    held: HeldLease, objects: list[Object], served: list[Object] | None, reason: str, patience: float, say: Say
) -> ClusterError:
    """Put the former version back and return the error that says so."""
    service = _service(objects)
    name, label = service["metadata"]["name"], _label(service)
    why = f"boatyard why isvc/{name}"
    if served is None or _same(served, objects):
        return ClusterError(f"{name}: {label} does not serve: {reason}", fix=f"nothing served before it; see {why}")
    say(f"{label} does not serve: {reason}; going back")
    former = _label(_service(served))
    _apply(held, served)
    try:
        _wait(held, _service(served), patience, say)
    except ClusterError as error:
        return ClusterError(
            f"{name}: {label} does not serve: {reason}", fix=f"{former} was put back and is not ready: {error}"
        )
    return RolledBack(f"{name}: {label} does not serve: {reason}", fix=f"{former} was put back and serves")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, BoatyardError) else f"{type(error).__name__}: {error}"


def _live(cluster: Cluster, service: Object) -> list[Object] | None:
    """Return the InferenceService that another has made, as it can be put back; None when it does not serve."""
    meta = service["metadata"]
    live = cluster.get("InferenceService", meta["name"], meta["namespace"])
    if live is None or live["metadata"].get("annotations", {}).get(RENDERED) == meta["annotations"][RENDERED]:
        return None
    kept = {part: live["metadata"].get(part, {}) for part in ("labels", "annotations")}
    kept["annotations"].pop("kubectl.kubernetes.io/last-applied-configuration", None)
    named = {"name": meta["name"], "namespace": meta["namespace"], **kept}
    return [{"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": named, "spec": live["spec"]}]


def _service(objects: list[Object]) -> Object:
    return next(value for value in objects if value["kind"] == "InferenceService")


def _same(objects: list[Object], others: list[Object]) -> bool:
    return _service(objects) == _service(others)


def _label(service: Object) -> str:
    """Return what people call a version: its number, else the beginning of its digest."""
    notes = service["metadata"].get("annotations", {})
    if version := notes.get("boatyard/version"):
        return f"version {version}"
    return f"package {notes['boatyard/digest'][:12]}" if "boatyard/digest" in notes else "what was there"
