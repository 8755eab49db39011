"""The InferenceService is made by a pure function, and KServe's own models take it without losing a key."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graphs
import kserve
import kserve.models
import kubernetes.client.models
import pytest
import yaml

from boatyard import deployment, packages
from boatyard.errors import ConfigError
from boatyard.project import AutoscalingConfig, ServeConfig
from boatyard.settings import Settings
from serving.__main__ import _options

SETTINGS = Settings(serve_image="registry.example/serve:1", prometheus="http://prometheus:9090")
URI = "s3://models/insects/3"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> packages.Package:
    return graphs.package(tmp_path_factory.mktemp("package"), graphs.image_schema())


def rendered(package: packages.Package, config: ServeConfig, storage: str | None = URI) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(deployment.render(package, config, storage, SETTINGS))
    return value


def test_it_is_standard_mode_with_the_package_the_resources_and_the_bounds(package: packages.Package) -> None:
    manifest = rendered(package, ServeConfig(namespace="models", cpu="2", memory="3Gi"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert (manifest["metadata"]["name"], manifest["metadata"]["namespace"]) == ("insects", "models")
    assert manifest["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    predictor = manifest["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (1, 3)
    (container,) = predictor["containers"]
    assert (container["name"], container["image"]) == ("kserve-container", "registry.example/serve:1")
    assert {"name": "STORAGE_URI", "value": URI} in container["env"]
    assert container["resources"] == {key: {"cpu": "2", "memory": "3Gi"} for key in ("requests", "limits")}
    assert [port["containerPort"] for port in container["ports"]] == [8080, 8081]


def test_its_arguments_are_the_server_s_and_pin_the_digest(package: packages.Package) -> None:
    (container,) = rendered(package, ServeConfig())["spec"]["predictor"]["containers"]
    options = _options(container["args"])
    assert (options.package, options.name, options.digest) == ("/mnt/models", "insects", package.digest)
    assert (options.host, options.http_port, options.grpc_port, options.drain) == ("0.0.0.0", 8080, 8081, 10)


def test_it_asks_for_no_rights(package: packages.Package) -> None:
    predictor = rendered(package, ServeConfig())["spec"]["predictor"]
    assert predictor["securityContext"]["runAsNonRoot"] is True
    assert predictor["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_cpu_is_scaled_by_hpa_and_concurrency_by_keda(package: packages.Package) -> None:
    by_cpu = rendered(package, ServeConfig())
    assert by_cpu["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "hpa"
    assert (by_cpu["spec"]["predictor"]["scaleMetric"], by_cpu["spec"]["predictor"]["scaleTarget"]) == ("cpu", 70)
    scaling = AutoscalingConfig(metric="concurrency", target=4, minimum=0)
    by_requests = rendered(package, ServeConfig(autoscaling=scaling))
    assert by_requests["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    (metric,) = by_requests["spec"]["predictor"]["autoScaling"]["metrics"]
    assert metric["external"]["metric"]["query"] == 'sum(rate(request_predict_seconds_sum{model_name="insects"}[1m]))'
    assert metric["external"]["target"] == {"type": "Value", "value": "4"}
    assert "scaleMetric" not in by_requests["spec"]["predictor"]


def test_kserve_s_own_models_lose_no_key_of_it(package: packages.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in dir(kubernetes.client.models):  # kserve's client looks for Kubernetes' models among its own
        if name.startswith("V1"):
            monkeypatch.setattr(kserve.models, name, getattr(kubernetes.client.models, name), raising=False)
    manifest = rendered(package, ServeConfig())
    client = kserve.ApiClient()
    response = SimpleNamespace(data=json.dumps(manifest))
    taken = client.sanitize_for_serialization(client.deserialize(response, "V1beta1InferenceService"))
    assert taken == manifest


def test_the_same_package_is_rendered_the_same(package: packages.Package, tmp_path: Path) -> None:
    texts = {deployment.render(package, ServeConfig(), URI, SETTINGS) for _ in range(3)}
    assert len(texts) == 1
    assert rendered(package, ServeConfig(storage=URI), None) == yaml.safe_load(texts.pop())


@pytest.mark.parametrize("storage", [None, "", "registry/insects", "file:///registry/insects", "s3://", "ftp://x"])
def test_what_a_cluster_cannot_read_is_refused(package: packages.Package, storage: str | None) -> None:
    with pytest.raises(ConfigError, match=r"serve\.storage: wanted the URI that the cluster finds the package at"):
        deployment.render(package, ServeConfig(), storage, SETTINGS)


def test_more_than_all_of_a_cpu_is_refused(package: packages.Package) -> None:
    config = ServeConfig(autoscaling=AutoscalingConfig(target=170))
    with pytest.raises(ConfigError, match="wanted 1 to 100 percent of cpu, found 170"):
        deployment.render(package, config, URI, SETTINGS)
