"""Which endpoints stand on a package: those that serve it, and those that would go back to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from boatyard.deployment.leases import CURRENT, FORMER, lease_name, remembered
from boatyard.errors import Forbidden, MissingKind
from boatyard.kubernetes.cluster import Cluster

DIGEST = "boatyard/digest"


def endpoints_on(cluster: Cluster, digest: str, namespace: str | None = None) -> tuple[str, ...]:
    """Return the endpoints (namespace/name) that serve a package or remember it as what a rollback goes to.

    All namespaces are looked through, or those that one may look into. Raises ClusterError.
    """
    try:
        services = cluster.list("InferenceService", "*")
    except Forbidden:
        services = cluster.list("InferenceService", namespace or cluster.namespace)
    except MissingKind:  # no KServe, so no endpoint
        return ()
    return tuple(
        f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        for service in services
        if digest in _digests(cluster, service)
    )


def _digests(cluster: Cluster, service: dict[str, Any]) -> Iterator[str]:
    yield _digest(service)
    meta = service["metadata"]
    lease = cluster.get("Lease", lease_name(meta["name"]), meta["namespace"])
    for what in (CURRENT, FORMER):
        yield from map(_digest, remembered(lease, what) or [])


def _digest(value: dict[str, Any]) -> str:
    return str((value["metadata"].get("annotations") or {}).get(DIGEST, ""))
