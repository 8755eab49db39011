"""The objects of an endpoint, made of package and project by pure functions: an InferenceService and its budget.

Fields and rules are KServe 0.20's (v1beta1): predictor.model of our own format over a ServingRuntime of the manifests,
what scales it is rendered by its autoscaler.
"""

from __future__ import annotations

import math
from typing import Any

import yaml

from boatyard import __version__, storage
from boatyard.data import artifacts
from boatyard.deployment import autoscalers
from boatyard.errors import ConfigError
from boatyard.packages import Package
from boatyard.project import ServeConfig
from boatyard.settings import Settings

MODEL_FORMAT = "boatyard"  # modelFormat, and the name of the ServingRuntime and of the storage container
HTTP_PORT = 8080
PRE_STOP_PAUSE_S = 5  # that a pod is kept as it is when it is to end: endpoints forget it within one or two
TERMINATION_GRACE_S = (
    60  # until the kubelet kills: the pause, the server's own drain of 10 s, 30 s for requests at work
)
SCHEMES = ("s3", "gs", "pvc", "oci", "https", "http", "hf", "hdfs", "webhdfs")
SERVER_MIB, MEMORY_PER_GRAPH_BYTE = 384, 4  # of a server with a small model; bytes for each of a graph
RENDERED = "boatyard/rendered"  # on every pod: what it was made of, so that none is taken for another
Object = dict[str, Any]


def render(
    package: Package,
    config: ServeConfig,
    storage: str | None = None,
    settings: Settings | None = None,
    version: int | None = None,
) -> str:
    """Return an endpoint's objects as YAML; raises ConfigError without a URI that the cluster can read."""
    return dump(manifests(package, config, storage, settings, version))


def dump(objects: list[Object]) -> str:
    """Return objects as the YAML of one file."""
    text: str = yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True, width=120)
    return text


def manifests(
    package: Package,
    config: ServeConfig,
    storage: str | None = None,
    settings: Settings | None = None,
    version: int | None = None,
) -> list[Object]:
    """Return an endpoint's objects: what its pods may lose at once, then the InferenceService."""
    place = _place(storage or config.storage)
    return [
        disruption(package.name, config.namespace),
        service(package, config, place, settings or Settings(), version),
    ]


def service(
    package: Package, config: ServeConfig, place: str, settings: Settings, version: int | None = None
) -> Object:
    """Return the InferenceService of a package at a storage URI: s3://, gs://, pvc:// or oci://."""
    scaling = autoscalers.scaling(package.name, config, settings)
    pods = _pods(package, config, place)
    notes = {
        "serving.kserve.io/deploymentMode": config.mode,
        **scaling.annotations,
        "boatyard/digest": package.digest,
        **({"boatyard/version": str(version)} if version is not None else {}),
        RENDERED: artifacts.digest_json({"pods": pods, "digest": package.digest})[:16],
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(HTTP_PORT),
        "prometheus.io/path": "/metrics",
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": package.name,
            "namespace": config.namespace,
            "labels": _labels(package.name),
            "annotations": notes,
        },
        "spec": {"predictor": {**scaling.fields, **pods}},
    }


def disruption(name: str, namespace: str) -> Object:
    """Return the PodDisruptionBudget: a node that is drained takes one pod of the endpoint at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": f"{name}-predictor", "namespace": namespace, "labels": _labels(name)},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {"serving.kserve.io/inferenceservice": name}},
        },
    }


def memory(package: Package) -> str:
    """Return the memory of a server of the package: 384 MiB, and four bytes for each of the graph's.

    A server with a small model was seen to peak at 205 MB in a pod; requests take the rest. Four bytes a byte of graph
    are an estimate: the file, the engine's weights and what it packs of them. A project that has measured says more.
    """
    needed = SERVER_MIB + MEMORY_PER_GRAPH_BYTE * package.model_bytes / 2**20
    return f"{math.ceil(needed / 128) * 128}Mi"


def _place(place: str | None) -> str:
    if not place or place.partition("://")[0] not in SCHEMES or not place.partition("://")[2]:
        raise ConfigError(
            "serve.storage",
            expected="the URI that the cluster finds the package at (s3://, gs://, pvc://, oci:// …)",
            found=f"{place!r}",
            fix="give it there or as --storage",
        )
    return place


def _labels(name: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/managed-by": "boatyard",
        "app.kubernetes.io/version": __version__,
    }


def _pods(package: Package, config: ServeConfig, place: str) -> Object:
    """Return what of the predictor makes its pods what they are; a change of it replaces them."""
    fetched = {"storageContainerName": MODEL_FORMAT} if storage.in_bucket(place) and storage.bound(place) else {}
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    rolling = {"deploymentStrategy": strategy} if config.mode == "Standard" else {}
    return {
        "serviceAccountName": config.service_account,
        **fetched,
        **rolling,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_S,
        "topologySpreadConstraints": [_spread(package.name, "kubernetes.io/hostname")],
        "model": _model(package, config, place),
    }


def _spread(name: str, domain: str) -> Object:
    """Return the wish that replicas lie on different nodes; a cluster of one node grants what it can."""
    return {
        "maxSkew": 1,
        "topologyKey": domain,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": name}},
    }


def _model(package: Package, config: ServeConfig, place: str) -> Object:
    resources = {"cpu": config.cpu, "memory": config.memory or memory(package)}
    return {
        "modelFormat": {"name": MODEL_FORMAT, "version": "1"},
        "runtime": config.runtime,
        "protocolVersion": "v2",
        "storageUri": place,
        "args": [f"--digest={package.digest}"],
        "resources": {"requests": resources, "limits": dict(resources)},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_PAUSE_S}}},
    }


def runtime(image: str, namespace: str) -> Object:
    """Return the ServingRuntime that carries the server; the manifests hold the same, and a test that they do."""
    probe = {"path": "/v2/models/{{.Name}}/ready", "port": HTTP_PORT}
    alive = {"path": "/v2/health/live", "port": HTTP_PORT}
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": MODEL_FORMAT, "namespace": namespace},
        "spec": {
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(HTTP_PORT),
                "prometheus.io/path": "/metrics",
            },
            "supportedModelFormats": [{"name": MODEL_FORMAT, "version": "1", "autoSelect": True, "priority": 1}],
            "protocolVersions": ["v1", "v2", "grpc-v2"],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "containers": [
                {
                    "name": "kserve-container",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["tini", "--", "python", "-m", "boatyard.serving"],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "args": ["--package=/mnt/models", "--name={{.Name}}", "--drain=10"],
                    "ports": [
                        {"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"},
                        {"name": "grpc", "containerPort": HTTP_PORT + 1, "protocol": "TCP"},
                    ],
                    "resources": {
                        "requests": {"cpu": "250m", "memory": "512Mi"},
                        "limits": {"cpu": "1", "memory": "1Gi"},
                    },
                    "startupProbe": _probe(probe, period=1, failures=300),
                    "readinessProbe": _probe(probe, period=5, failures=2),
                    "livenessProbe": _probe(alive, period=10, failures=6),
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    "securityContext": {
                        "runAsNonRoot": True,
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
        },
    }


def _probe(get: Object, *, period: int, failures: int) -> Object:
    return {"httpGet": dict(get), "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}
