"""One deploy at a time: a Lease for each endpoint, which also remembers what served last and what did before it."""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from boatyard.errors import ClusterError, Conflict
from boatyard.kubernetes.cluster import Cluster

LEASE_DURATION_S = 15  # without a sign of life, and another may take it
RENEW_INTERVAL_S = 4.0
CURRENT, FORMER, PROVED = "boatyard/current", "boatyard/former", "boatyard/proved"
Object = dict[str, Any]


@dataclass
class HeldLease:
    """A Lease that is ours. `lost` says that another has taken it, because we were silent for too long."""

    cluster: Cluster
    name: str
    namespace: str
    holder: str
    lease: Object
    lost: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def remembered(self, what: str) -> list[Object] | None:
        """Return the objects that served last (CURRENT) or before (FORMER), None when nothing is known."""
        return remembered(self.lease, what)

    def check(self) -> None:
        """Raise Conflict when another has taken the endpoint."""
        if self.lost:
            raise Conflict(f"another deploy has taken {self.name} over, as this one could not be seen at work")

    def write(self, body: Object) -> None:
        """Merge into the Lease, if it is still ours; raises Conflict, ClusterError."""
        with self.lock:
            for attempt in (1, 2):
                meta = {**body.get("metadata", {}), "resourceVersion": self.lease["metadata"]["resourceVersion"]}
                try:
                    named = {**body, "metadata": meta}
                    self.lease = self.cluster.patch("Lease", lease_name(self.name), named, self.namespace)
                    return
                except Conflict:  # our own word, whose answer was lost, or another's
                    self.lease = self.cluster.get("Lease", lease_name(self.name), self.namespace) or {}
                    self.lost = self.lease.get("spec", {}).get("holderIdentity") != self.holder
                    if self.lost or attempt == 2:
                        raise

    def remember(self, current: list[Object], former: list[Object] | None) -> None:
        """Keep what serves now and what did before."""
        texts = {CURRENT: json.dumps(current), FORMER: json.dumps(former) if former else None, PROVED: _now()}
        self.write({"metadata": {"annotations": texts}})

    def pulse(self, ended: threading.Event) -> None:
        """Show that we are at work until the end; an API server that is away is tried again."""
        while not ended.wait(RENEW_INTERVAL_S) and not self.lost:
            with suppress(ClusterError):
                self.write({"spec": {"renewTime": _now()}})


def lease_name(name: str) -> str:
    """Return the name of an endpoint's Lease."""
    return f"boatyard-{name}"


def remembered(lease: Object | None, what: str) -> list[Object] | None:
    """Return what a Lease remembers."""
    text = ((lease or {}).get("metadata", {}).get("annotations") or {}).get(what)
    return json.loads(text) if text else None


@contextmanager
def hold(cluster: Cluster, name: str, namespace: str) -> Iterator[HeldLease]:
    """Be the only one who changes an endpoint; raises Conflict naming the other when there is one at work."""
    user = _user()
    holder = f"{user}@{socket.gethostname()}/{os.getpid()}-{threading.get_ident() % 10000}"
    held = HeldLease(cluster, name, namespace, holder, _taken(cluster, name, namespace, holder))
    ended = threading.Event()
    beating = threading.Thread(target=held.pulse, args=(ended,), daemon=True)
    beating.start()
    try:
        yield held
    finally:
        ended.set()
        beating.join()
        if not held.lost:
            with suppress(ClusterError):  # it runs out by itself
                held.write({"spec": {"holderIdentity": ""}})


def _taken(cluster: Cluster, name: str, namespace: str, holder: str) -> Object:
    """Return the Lease once it is ours: a new one, a free one, or one whose holder gives no sign of life."""
    seen, since, where = "", time.monotonic(), lease_name(name)
    while True:
        lease = cluster.get("Lease", where, namespace)
        spec = (lease or {}).get("spec", {})
        other = spec.get("holderIdentity")
        if other and seen and spec.get("renewTime") != seen:
            raise Conflict(
                f"{name} is being deployed by {other}, which is at work", fix="wait for its end and try again"
            )
        if other and time.monotonic() - since < LEASE_DURATION_S:
            seen = spec.get("renewTime") or "never"
            time.sleep(0.5)
            continue
        try:
            return _take(cluster, where, namespace, holder, lease)
        except Conflict:
            time.sleep(0.1)


def _take(cluster: Cluster, name: str, namespace: str, holder: str, lease: Object | None) -> Object:
    spec = {
        "holderIdentity": holder,
        "leaseDurationSeconds": LEASE_DURATION_S,
        "acquireTime": _now(),
        "renewTime": _now(),
    }
    if lease is None:
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        labels = {"app.kubernetes.io/managed-by": "boatyard"}
        return cluster.create(
            {**kind, "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}
        )
    version = {"resourceVersion": lease["metadata"]["resourceVersion"]}
    return cluster.patch("Lease", name, {"metadata": version, "spec": spec}, namespace)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid that the machine has no name for, as in many pods
        return str(os.getuid())
