"""Whether a namespace can train: the right to make a TrainJob, the runtime, the claim, before anything is copied."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from boatyard.errors import ClusterError, Forbidden
from boatyard.project import TrainConfig
from boatyard.training.trainjobs.manifest import RUNTIME

if TYPE_CHECKING:
    from boatyard.kubernetes.cluster import Cluster

GROUP, RESOURCE = "trainer.kubeflow.org", "trainjobs"
APPLY = "kubectl apply -k manifests/overlays/kubeflow brings it into namespace kubeflow; change that there for another"


def check(cluster: Cluster, namespace: str, config: TrainConfig, account: str | None = None) -> None:
    """Raise ClusterError for all that is missing there; `account` is whose rights count, ours by default.

    What may not be looked at is taken to be there: the TrainJob itself will say.
    """
    lacks = [
        *_right(cluster, namespace, account),
        *_object(cluster, "ClusterTrainingRuntime", RUNTIME, None, "manifests/base brings it"),
        *_object(cluster, "PersistentVolumeClaim", config.claim, namespace, f"train.claim names it; {APPLY}"),
    ]
    if lacks:
        raise ClusterError(f"namespace {namespace} cannot train yet: {'; '.join(lacks)}")


def _right(cluster: Cluster, namespace: str, account: str | None) -> list[str]:
    try:
        if cluster.allowed("create", RESOURCE, GROUP, namespace, account=account):
            return []
    except Forbidden:  # to ask for another's rights is itself a right
        return []
    who = f"service account {account}" if account else "this step's service account"
    return [f"{who} may not create trainjobs: bind the Role boatyard-trainer to it ({APPLY})"]


def _object(cluster: Cluster, kind: str, name: str, namespace: str | None, fix: str) -> list[str]:
    with suppress(Forbidden):
        if cluster.get(kind, name, namespace) is None:
            return [f"there is no {kind} {name}: {fix}"]
    return []
