"""Deploy: the InferenceService of a package, made in a pure function; plain YAML that `kubectl apply` takes without us.

Fields and rules are KServe 0.20's (v1beta1, Standard mode): a custom predictor whose container is kserve-container,
STORAGE_URI for the storage initializer, scaleMetric for HPA, autoScaling for KEDA.
"""

from __future__ import annotations

from typing import Any

import yaml

from boatyard.errors import ConfigError
from boatyard.packages import Package
from boatyard.project import ServeConfig
from boatyard.settings import Settings

MOUNT = "/mnt/models"  # where the storage initializer puts the package
HTTP, GRPC = 8080, 8081
DRAIN = 10  # seconds between not ready and closed: endpoints need some to forget a pod
GRACE = 60  # seconds until the kubelet kills: the drain, and 30 s for requests at work
SCHEMES = ("s3", "gs", "pvc", "oci", "https", "http", "hf", "hdfs", "webhdfs")


def render(package: Package, config: ServeConfig, storage: str | None = None, settings: Settings | None = None) -> str:
    """Return the InferenceService of a package as YAML; raises ConfigError without a URI that the cluster can read."""
    manifest = service(package, config, storage or config.storage, settings or Settings())
    text: str = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120)
    return text


def service(package: Package, config: ServeConfig, storage: str | None, settings: Settings) -> dict[str, Any]:
    """Return the InferenceService of a package at a storage URI: s3://, gs://, pvc:// or oci://."""
    if not storage or storage.partition("://")[0] not in SCHEMES or not storage.partition("://")[2]:
        raise ConfigError(
            "serve.storage: wanted the URI that the cluster finds the package at (s3://, gs://, pvc://, oci:// …), "
            f"found {storage!r}; give it there or as --storage"
        )
    scaling, annotations = _scaling(package.name, config, settings)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": package.name,
            "namespace": config.namespace,
            "labels": {"app.kubernetes.io/name": package.name, "app.kubernetes.io/managed-by": "boatyard"},
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                **annotations,
                "boatyard/digest": package.digest,
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(HTTP),
                "prometheus.io/path": "/metrics",
            },
        },
        "spec": {
            "predictor": {
                **scaling,
                "terminationGracePeriodSeconds": GRACE,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [_container(package, config, storage, settings)],
            }
        },
    }


def _container(package: Package, config: ServeConfig, storage: str, settings: Settings) -> dict[str, Any]:
    resources = {"cpu": config.cpu, "memory": config.memory}
    return {
        "name": "kserve-container",
        "image": settings.serve_image,
        "imagePullPolicy": "IfNotPresent",
        "args": [f"--package={MOUNT}", f"--name={package.name}", f"--digest={package.digest}", f"--drain={DRAIN}"],
        "env": [{"name": "STORAGE_URI", "value": storage}],
        "ports": [
            {"name": "http1", "containerPort": HTTP, "protocol": "TCP"},
            {"name": "grpc", "containerPort": GRPC, "protocol": "TCP"},
        ],
        "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "startupProbe": _probe("/v2/health/ready", period=2, failures=150),
        "readinessProbe": _probe("/v2/health/ready", period=5, failures=2),
        "livenessProbe": _probe("/v2/health/live", period=10, failures=6),
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    get = {"path": path, "port": HTTP}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}


def _scaling(name: str, config: ServeConfig, settings: Settings) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the predictor's scaling fields and the annotation of the autoscaler that reads them."""
    wanted = config.autoscaling
    bounds: dict[str, Any] = {"minReplicas": wanted.minimum, "maxReplicas": wanted.maximum}
    if wanted.metric == "cpu":
        if wanted.target > 100:
            raise ConfigError(f"serve.autoscaling.target: wanted 1 to 100 percent of cpu, found {wanted.target}")
        autoscaler = {"serving.kserve.io/autoscalerClass": "hpa"}
        return {**bounds, "scaleMetric": "cpu", "scaleTarget": wanted.target}, autoscaler
    # seconds spent on requests a second is how many are at work at once (Little's law)
    query = f'sum(rate(request_predict_seconds_sum{{model_name="{name}"}}[1m]))'
    metric = {"backend": "prometheus", "serverAddress": settings.prometheus, "query": query}
    external = {"metric": metric, "target": {"type": "Value", "value": str(wanted.target)}}
    metrics = [{"type": "External", "external": external}]
    return {**bounds, "autoScaling": {"metrics": metrics}}, {"serving.kserve.io/autoscalerClass": "keda"}
