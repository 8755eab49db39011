"""A TrainJob applied and watched to its end: what each pod says, why one waits, what ended the training."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boatyard import waiting
from boatyard.errors import (
    ArtifactError,
    BoatyardError,
    ClusterError,
    ConfigError,
    DataError,
    Interrupted,
    RecipeError,
    StorageError,
    Unreachable,
)
from boatyard.training.trainjobs.manifest import INDEX_LABEL, NODE, PODS_LABEL

if TYPE_CHECKING:
    from boatyard.kubernetes.cluster import Cluster

LOOK_INTERVAL_S = 2.0
UNREACHABLE_TIMEOUT_S = 300.0  # seconds that the API server may not answer
Object = dict[str, Any]


def follow(cluster: Cluster, trainjob: Object, *, say: Callable[[str], None], own: bool = False) -> None:
    """Apply a TrainJob and follow it to its end; raises the error that ended it, Interrupted after a signal.

    One that is complete is not run again, unless its recipe is the project's `own`: only its pods see whether the
    recipe's files are what they were.
    """
    name, namespace = trainjob["metadata"]["name"], trainjob["metadata"]["namespace"]
    if there := cluster.get("TrainJob", name, namespace):
        failed = _condition(there, "Failed")
        if failed or (own and _condition(there, "Complete")):
            before = "failed before" if failed else "is complete, its recipe may be another"
            say(f"trainjob/{name} {before}; it goes on from its last state")
            remove(cluster, name, namespace)
    cluster.apply(trainjob)
    say(f"trainjob/{name} in namespace {namespace}: {trainjob['spec']['trainer']['numNodes']} nodes")
    with _told_to_stop() as stop:
        follower = TrainJobFollower(cluster, name, namespace, say)
        while not follower.ended():
            if stop.wait(LOOK_INTERVAL_S):
                remove(cluster, name, namespace, wait=False)
                raise Interrupted(f"trainjob/{name} was removed", fix="its states are kept, run again to go on")
    follower.finish()


def remove(cluster: Cluster, name: str, namespace: str, *, wait: bool = True) -> None:
    """Delete a TrainJob, and wait until its pods are gone."""
    cluster.delete("TrainJob", name, namespace)

    def gone() -> bool:
        pods = {PODS_LABEL: name}
        return not (cluster.get("TrainJob", name, namespace) or cluster.list("Pod", namespace, labels=pods))

    if wait:
        waiting.poll(gone, timeout_s=UNREACHABLE_TIMEOUT_S, every_s=LOOK_INTERVAL_S)


@dataclass
class TrainJobFollower:
    """One TrainJob being watched: what each pod says, why one waits, what ended the training."""

    cluster: Cluster
    name: str
    namespace: str
    say: Callable[[str], None]
    restarts: int = 0
    reason: str = ""
    job: Object = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    threads: dict[str, threading.Thread] = field(default_factory=dict)
    silent_since: float | None = None

    def ended(self) -> bool:
        """Look once; return whether the TrainJob is at its end. An API server that is away is waited for."""
        try:
            self.job = self.cluster.get("TrainJob", self.name, self.namespace) or {}
            self.look()
            self.silent_since = None
        except Unreachable as error:
            self.silent_since = self.silent_since or time.monotonic()
            if time.monotonic() - self.silent_since > UNREACHABLE_TIMEOUT_S:
                raise
            self.once(f"{error}; waiting")
            return False
        if not self.job:
            raise ConfigError(
                f"trainjob/{self.name} was deleted by another", fix="its states are kept, run again to go on"
            )
        return bool(_condition(self.job, "Complete") or _condition(self.job, "Failed"))

    def look(self) -> None:
        """Follow the pods that have started, say why others wait, note how one failed."""
        jobset = self.cluster.get("JobSet", self.name, self.namespace) or {}
        restarts = int(jobset.get("status", {}).get("restarts", 0))
        for pod in self.cluster.list("Pod", self.namespace, labels={PODS_LABEL: self.name}):
            self.look_at(pod)
        if restarts > self.restarts:
            self.say(f"trainjob/{self.name}: start {restarts + 1}" + (f" ({self.reason})" if self.reason else ""))
            self.restarts, self.reason = restarts, ""

    def look_at(self, pod: Object) -> None:
        """Look at one pod."""
        uid, node = pod["metadata"]["uid"], pod["metadata"].get("labels", {}).get(INDEX_LABEL, "?")
        state: Object = next((s["state"] for s in pod.get("status", {}).get("containerStatuses", [])), {})
        if ended := state.get("terminated"):
            if ended["exitCode"]:
                words = (ended.get("message") or ended.get("reason") or "").strip()
                self.reason = self.reason or f"node {node} ended with {ended['exitCode']}: {words}"
        elif "waiting" in state and state["waiting"].get("message"):
            self.once(f"node {node} waits: {state['waiting']['reason']}: {state['waiting']['message']}")
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                self.once(f"node {node} waits: {condition.get('message', condition.get('reason', ''))}")
        if uid not in self.threads and ("running" in state or "terminated" in state):
            self.threads[uid] = threading.Thread(target=self.follow, args=(pod["metadata"]["name"], node), daemon=True)
            self.threads[uid].start()

    def follow(self, pod: str, node: str) -> None:
        """Hand on what a pod says, line by line, until it ends or is gone."""
        with suppress(BoatyardError):
            for line in self.cluster.follow(pod, self.namespace, NODE):
                self.say(f"node {node} | {line.rstrip()}")

    def once(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            self.say(text)

    def finish(self) -> None:
        """Let the last lines arrive; raise the error that ended the training, if one did."""
        for thread in self.threads.values():
            thread.join(timeout=LOOK_INTERVAL_S)
        if failed := _condition(self.job, "Failed"):
            raise error_of(self.name, self.reason or failed.get("message", ""))


def error_of(name: str, reason: str) -> BoatyardError:
    """Return the error that a pod's last words name; all else is the cluster's."""
    for kind in (RecipeError, ConfigError, DataError, ArtifactError, StorageError):
        _, named, message = reason.partition(f"{kind.__name__}: ")
        if named:
            return kind(message)
    return ClusterError(
        f"trainjob/{name} failed: {reason or 'no pod says why'}", fix=f"see boatyard why trainjob/{name}"
    )


def _condition(job: Object, kind: str) -> Object | None:
    conditions = job.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Within the block a signal sets the event, where signals can be set."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
