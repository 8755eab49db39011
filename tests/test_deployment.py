"""The InferenceService is made by a pure function, and KServe's own models take it without losing a key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import graphs
import kserve
import kserve.models
import kubernetes.client.models
import pytest
import yaml

from boatyard import __version__, deployment, packages
from boatyard.deployment import proving
from boatyard.deployment.autoscalers.base import PREDICTOR_FIELDS
from boatyard.errors import ClusterError, ConfigError
from boatyard.kubernetes.cluster import Cluster
from boatyard.project import AutoscalingConfig, ServeConfig
from boatyard.settings import Settings
from serving.__main__ import _options

SETTINGS = Settings(serve_image="registry.example/serve:1", prometheus="http://prometheus:9090")
URI = "s3://models/insects/3"
BOUND = f"s3://models/insects/sha256-{'0' * 64}"
ROOT = Path(__file__).parent.parent
CLASS = "serving.kserve.io/autoscalerClass"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> packages.Package:
    return graphs.package(tmp_path_factory.mktemp("package"), graphs.image_schema())


def rendered(package: packages.Package, config: ServeConfig, storage: str | None = URI) -> dict[str, Any]:
    budget, service = yaml.safe_load_all(deployment.render(package, config, storage, SETTINGS))
    assert budget["kind"] == "PodDisruptionBudget"
    found: dict[str, Any] = service
    return found


def test_the_endpoint_is_these_objects(package: packages.Package) -> None:
    config = ServeConfig(namespace="models", cpu="2", memory="3Gi")
    budget, service = deployment.manifests(package, config, BOUND, SETTINGS, version=3)
    labels = {"app.kubernetes.io/name": "insects", "app.kubernetes.io/managed-by": "boatyard"}
    labels["app.kubernetes.io/version"] = __version__
    chosen = {"matchLabels": {"serving.kserve.io/inferenceservice": "insects"}}
    assert budget == {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "insects-predictor", "namespace": "models", "labels": labels},
        "spec": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": chosen},
    }
    mark = service["metadata"]["annotations"].pop("boatyard/rendered")
    assert len(mark) == 16
    assert service == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "insects",
            "namespace": "models",
            "labels": labels,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/autoscalerClass": "hpa",
                "boatyard/digest": package.digest,
                "boatyard/version": "3",
                "prometheus.io/scrape": "true",
                "prometheus.io/port": "8080",
                "prometheus.io/path": "/metrics",
            },
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 3,
                "scaleMetric": "cpu",
                "scaleTarget": 70,
                "serviceAccountName": "boatyard-serving",
                "storageContainerName": "boatyard",
                "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "terminationGracePeriodSeconds": 60,
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": chosen,
                    }
                ],
                "model": {
                    "modelFormat": {"name": "boatyard", "version": "1"},
                    "runtime": "boatyard",
                    "protocolVersion": "v2",
                    "storageUri": BOUND,
                    "args": [f"--digest={package.digest}"],
                    "resources": {key: {"cpu": "2", "memory": "3Gi"} for key in ("requests", "limits")},
                    "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
                },
            }
        },
    }


def test_a_uri_without_a_digest_is_fetched_by_kserve_s_own_initializer(package: packages.Package) -> None:
    for uri in (URI, "pvc://models/insects", "oci://registry.example/insects:3"):
        assert "storageContainerName" not in rendered(package, ServeConfig(), uri)["spec"]["predictor"]


def test_the_servers_arguments_are_taken_by_the_server(package: packages.Package) -> None:
    (server,) = deployment.runtime("boatyard/serve", "boatyard")["spec"]["containers"]
    model = rendered(package, ServeConfig())["spec"]["predictor"]["model"]
    options = _options([each.replace("{{.Name}}", "insects") for each in server["args"]] + model["args"])
    assert (options.package, options.name, options.digest) == ("/mnt/models", "insects", package.digest)
    assert (options.host, options.http_port, options.grpc_port, options.drain) == ("0.0.0.0", 8080, 8081, 10)


def test_the_manifests_hold_the_runtime_that_is_rendered() -> None:
    written = yaml.safe_load((ROOT / "manifests" / "base" / "serving.yaml").read_text())
    made = deployment.runtime("boatyard/serve", "boatyard")
    del made["metadata"]["namespace"]  # kustomize puts it in
    assert written == made


def test_a_pod_drains_within_its_grace(package: packages.Package) -> None:
    predictor = rendered(package, ServeConfig())["spec"]["predictor"]
    pause = predictor["model"]["lifecycle"]["preStop"]["sleep"]["seconds"]
    (server,) = deployment.runtime("boatyard/serve", "boatyard")["spec"]["containers"]
    drain = int(server["args"][-1].removeprefix("--drain="))
    assert pause + drain + 30 < predictor["terminationGracePeriodSeconds"]  # 30 s: requests at work


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask Services through the API server, without a pause."""
    monkeypatch.setattr(proving, "_resolves", lambda host: False)
    monkeypatch.setattr(proving, "RETRY_PAUSE_S", 0.0)


class Pods:
    """A Service that leads to pods in turn: what they say of their version, and what they answer."""

    def __init__(self, *pods: tuple[str, Any], gone: int = 0) -> None:
        """The last pod is alone after `gone` requests."""
        self.pods, self.gone, self.asked = pods, gone, 0

    def ask(self, service: str, path: str, body: Any = None, namespace: str | None = None) -> Any:
        self.asked += 1
        digest, predictions = self.pods[self.asked % len(self.pods) if self.asked <= self.gone else -1]
        return {"versions": [digest]} if body is None else {"predictions": predictions}


@pytest.mark.usefixtures("outside")
def test_an_answer_of_a_former_pod_is_not_held_against_the_new_ones(package: packages.Package) -> None:
    wanted = deployment.proof(package)
    former = [{"label": "cat", "probabilities": [0.1, 0.1, 0.8]}] * len(wanted.predictions)
    right = (wanted.digest, wanted.predictions.to_v1())
    for gone in range(12):  # requests until the former pod is out of the way: it gets the fourth
        pods = Pods(("former", former), right, right, right, gone=gone)
        assert proving.prove(cast(Cluster, pods), "insects", "models", wanted) == len(wanted.predictions)


@pytest.mark.usefixtures("outside")
def test_a_wrong_answer_that_comes_again_is_held_against_the_version(package: packages.Package) -> None:
    wanted = deployment.proof(package)
    wrong = [{"label": "cat", "probabilities": [0.1, 0.1, 0.8]}] * len(wanted.predictions)
    with pytest.raises(ClusterError, match="reference row 0 is answered wrong through the Service"):
        proving.prove(cast(Cluster, Pods((wanted.digest, wrong))), "insects", "models", wanted)


def test_memory_is_that_of_the_package_unless_the_project_says_it(package: packages.Package) -> None:
    limits = rendered(package, ServeConfig())["spec"]["predictor"]["model"]["resources"]["limits"]
    assert limits == {"cpu": "1", "memory": "512Mi"}
    sizes = {"graph": 100 << 20}
    files = tuple(dataclasses.replace(file, bytes=sizes.get(file.role, file.bytes)) for file in package.files)
    heavy = dataclasses.replace(package, files=files)
    limits = rendered(heavy, ServeConfig())["spec"]["predictor"]["model"]["resources"]["limits"]
    assert limits == {"cpu": "1", "memory": "896Mi"}  # 384 + 4 x 100, in steps of 128


def test_the_mark_changes_with_what_makes_a_pod_and_only_with_that(package: packages.Package) -> None:
    def mark(config: ServeConfig, storage: str = URI) -> str:
        return str(rendered(package, config, storage)["metadata"]["annotations"]["boatyard/rendered"])

    plain = mark(ServeConfig())
    assert plain == mark(ServeConfig(autoscaling=AutoscalingConfig(maximum=9)))
    assert plain != mark(ServeConfig(cpu="2"))
    assert plain != mark(ServeConfig(), "s3://models/insects/4")


def test_one_block_is_hpa_keda_or_knative(package: packages.Package) -> None:
    def scaled(**serve: Any) -> tuple[Any, dict[str, Any]]:
        made = rendered(package, ServeConfig(**serve))
        annotations = made["metadata"]["annotations"]
        kept = {key: value for key, value in made["spec"]["predictor"].items() if key in PREDICTOR_FIELDS}
        return (annotations["serving.kserve.io/deploymentMode"], annotations.get(CLASS)), kept

    assert scaled() == (
        ("Standard", "hpa"),
        {"minReplicas": 1, "maxReplicas": 3, "scaleMetric": "cpu", "scaleTarget": 70},
    )
    flight = AutoscalingConfig(metric="concurrency", target=4)
    query = 'sum(rate(boatyard_request_duration_seconds_sum{model="insects",namespace="default"}[1m]))'
    metric = {"backend": "prometheus", "serverAddress": "http://prometheus:9090", "query": query}
    external = {"metric": metric, "target": {"type": "Value", "value": "4"}}
    metrics = [{"type": "External", "external": external}]
    assert scaled(autoscaling=flight) == (
        ("Standard", "keda"),
        {"minReplicas": 1, "maxReplicas": 3, "autoScaling": {"metrics": metrics}},
    )
    asleep = flight.model_copy(update={"minimum": 0})
    assert scaled(autoscaling=asleep, mode="Knative") == (
        ("Knative", None),
        {"minReplicas": 0, "maxReplicas": 3, "scaleMetric": "concurrency", "scaleTarget": 4},
    )
    with pytest.raises(ConfigError, match=r"expected concurrency with serve\.mode Knative, found cpu"):
        scaled(mode="Knative")


def test_kserve_s_own_models_lose_no_key_of_it(package: packages.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in dir(kubernetes.client.models):  # kserve's client looks for Kubernetes' models among its own
        if name.startswith("V1"):
            found = getattr(kubernetes.client.models, name)
            for prefix in ("", "K8sIoApiCore", "K8sIoApiApps"):
                monkeypatch.setattr(kserve.models, prefix + name, found, raising=False)
    manifest = rendered(package, ServeConfig())
    client = kserve.ApiClient()
    response = SimpleNamespace(data=json.dumps(manifest))
    taken = client.sanitize_for_serialization(client.deserialize(response, "V1beta1InferenceService"))
    assert taken["spec"]["predictor"]["model"].pop("name") == ""  # what a container must have: KServe gives it
    assert taken == manifest


def test_the_same_package_is_rendered_the_same(package: packages.Package, tmp_path: Path) -> None:
    texts = {deployment.render(package, ServeConfig(), URI, SETTINGS) for _ in range(3)}
    assert len(texts) == 1
    assert rendered(package, ServeConfig(storage=URI), None) == list(yaml.safe_load_all(texts.pop()))[1]


@pytest.mark.parametrize("storage", [None, "", "registry/insects", "file:///registry/insects", "s3://", "ftp://x"])
def test_what_a_cluster_cannot_read_is_refused(package: packages.Package, storage: str | None) -> None:
    with pytest.raises(ConfigError, match=r"serve\.storage: expected the URI that the cluster finds the package at"):
        deployment.render(package, ServeConfig(), storage, SETTINGS)


def test_more_than_all_of_a_cpu_is_refused(package: packages.Package) -> None:
    config = ServeConfig(autoscaling=AutoscalingConfig(target=170))
    with pytest.raises(ConfigError, match="expected 1 to 100 percent of cpu, found 170"):
        deployment.render(package, config, URI, SETTINGS)
