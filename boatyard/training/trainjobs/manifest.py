"""The TrainJob of a job, made by a pure function: fields and rules are those of Kubeflow Trainer 2.3, v1alpha1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boatyard import __version__
from boatyard.kubernetes.kinds import RUN_LABEL
from boatyard.project import StepConfig, TrainConfig, seconds
from boatyard.project.fields import quantity
from boatyard.settings import Settings
from boatyard.training.trainjobs.job import TrainingJob

RUNTIME = "boatyard"
SERVICE_ACCOUNT = "boatyard-training"
NODE = "node"  # the name that Trainer gives the job, and wants of the container
PODS_LABEL = "jobset.sigs.k8s.io/jobset-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
GPU = "nvidia.com/gpu"
CPU_REQUEST = "2"  # unless the project says another: as many threads compute
CLAIMS = Path("/mnt/pvc")  # where a pod mounts claims, by name
Object = dict[str, Any]


def manifest(
    name: str,
    job: TrainingJob,
    config: TrainConfig,
    pod: StepConfig,
    *,
    namespace: str,
    settings: Settings,
    run: str = "",
) -> Object:
    """Return the TrainJob of a job; `run` is the one on Kubeflow whose step follows it."""
    labels = {
        **({RUN_LABEL: run} if run else {}),
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/managed-by": "boatyard",
        "app.kubernetes.io/version": __version__,
    }
    limit = {"activeDeadlineSeconds": seconds(pod.timeout)} if pod.timeout else {}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": RUNTIME,
            },
            **limit,
            "trainer": {
                "image": settings.image,
                "command": ["tini", "--", "python", "-m", "boatyard.training.node"],
                "args": [job.to_json()],
                "numNodes": config.nodes,
                "numProcPerNode": max(config.gpus, 1),  # without it: one for each CPU
                "resourcesPerNode": _resources(config, pod),
                "env": [*_environment(config, pod, settings)],
            },
            "runtimePatches": [{"manager": "boatyard/trainjob", "trainingRuntimeSpec": _patch(config, pod)}],
        },
    }


def _resources(config: TrainConfig, pod: StepConfig) -> Object:
    """CPU may be exceeded, memory and GPUs not; a GPU stands among the limits."""
    memory = {"memory": pod.most_memory} if pod.most_memory else {}
    gpus = {_gpu(pod): config.gpus} if config.gpus else {}
    return {"requests": {"cpu": pod.cpu or CPU_REQUEST, **memory}, "limits": {**memory, **gpus}}


def _gpu(pod: StepConfig) -> str:
    return pod.gpu.type if pod.gpu else GPU


def _environment(config: TrainConfig, pod: StepConfig, settings: Settings) -> Iterator[Object]:
    """As many threads as the request has CPUs, wherever the pod lands: the bits of a sum depend on their number."""
    threads = math.ceil(quantity(pod.cpu or CPU_REQUEST)) // max(config.gpus, 1)
    yield {"name": "BOATYARD_THREADS", "value": str(max(threads, 1))}
    yield {"name": "BOATYARD_IMAGE", "value": settings.image}
    yield {"name": "BOATYARD_CLAIMS", "value": str(CLAIMS)}
    yield {"name": "BOATYARD_PATIENCE", "value": str(settings.patience)}
    if settings.project.is_absolute():
        yield {"name": "BOATYARD_PROJECT", "value": str(settings.project)}
    if settings.endpoint and "AWS_ENDPOINT_URL" not in pod.secrets:
        yield {"name": "AWS_ENDPOINT_URL", "value": settings.endpoint}
    for variable, secret in pod.secrets.items():
        secret_name, key = secret.split("/")
        yield {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret_name, "key": key}}}


def _patch(config: TrainConfig, pod: StepConfig) -> Object:
    """Return what a pod has beyond the runtime's: the claim, an account without rights, what it tolerates."""
    tolerations = [toleration.model_dump(exclude_none=True) for toleration in pod.tolerations]
    if config.gpus:
        tolerations.append({"key": _gpu(pod), "operator": "Exists", "effect": "NoSchedule"})
    mounts = {**pod.volumes, str(CLAIMS / config.claim): config.claim}
    claims = {claim: f"claim-{number}" for number, claim in enumerate(sorted(set(mounts.values())))}
    spec = {
        "serviceAccountName": SERVICE_ACCOUNT,
        **({"nodeSelector": dict(pod.node_selector)} if pod.node_selector else {}),
        **({"tolerations": tolerations} if tolerations else {}),
        "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": claim}} for claim, name in claims.items()],
        "containers": [
            {"name": NODE, "volumeMounts": [{"name": claims[c], "mountPath": path} for path, c in mounts.items()]}
        ],
    }
    return {
        "template": {"spec": {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": {"spec": spec}}}}]}}
    }
