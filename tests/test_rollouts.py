"""A version that does not serve is taken back, whatever went wrong; asked of a small API server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apiserver
import graphs
import pytest

from boatyard import deployment, packages
from boatyard.components.deploy import deploy
from boatyard.deployment import proving, rollouts
from boatyard.errors import Conflict, RolledBack, Unreachable
from boatyard.kubernetes.cluster import Cluster
from boatyard.project import ServeConfig

URI = "s3://models/insects/{}"
CONFIG = ServeConfig(namespace="models")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> packages.Package:
    return graphs.package(tmp_path_factory.mktemp("package"), graphs.image_schema())


@pytest.fixture
def there(package: packages.Package, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[apiserver.ApiServer, Cluster]]:
    """A cluster with our runtime, whose endpoints give the answers of the package."""
    for module, name in ((rollouts, "LOOK_INTERVAL_S"), (proving, "RETRY_PAUSE_S")):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(proving, "_resolves", lambda host: False)
    right = deployment.proof(package).predictions.to_v1()
    with apiserver.api_server(lambda digest, body: right[: len(body["instances"])]) as (server, cluster):
        server.put("/apis/serving.kserve.io/v1alpha1/namespaces/models/servingruntimes/boatyard",
                   {"kind": "ServingRuntime", "metadata": {"name": "boatyard"}})  # fmt: skip
        yield server, cluster


def objects(package: packages.Package, version: int) -> list[dict[str, Any]]:
    return deployment.manifests(package, CONFIG, URI.format(version), version=version)


def test_a_version_that_answers_right_serves(
    there: tuple[apiserver.ApiServer, Cluster], package: packages.Package
) -> None:
    served = deployment.deploy(there[1], objects(package, 1), deployment.proof(package))
    assert (served.version, served.replicas, served.former) == ("1", 1, "")
    assert served.proven == len(deployment.proof(package).instances)


@pytest.mark.parametrize("probabilities", [None, ["high", 0, 0], 0.5])
def test_an_answer_of_another_shape_is_taken_back(
    probabilities: Any, there: tuple[apiserver.ApiServer, Cluster], package: packages.Package
) -> None:
    server, cluster = there
    proof = deployment.proof(package)
    deployment.deploy(cluster, objects(package, 1), proof)
    server.answer = lambda digest, body: [
        {**prediction, "probabilities": probabilities}
        for prediction in proof.predictions.to_v1()[: len(body["instances"])]
    ]
    with pytest.raises(RolledBack, match=r"version 2 does not serve: .+; version 1 was put back and serves"):
        deployment.deploy(cluster, objects(package, 2), proof)
    assert version(cluster) == "1"


def test_any_other_error_while_a_version_is_proven_takes_it_back(
    there: tuple[apiserver.ApiServer, Cluster], package: packages.Package
) -> None:
    _, cluster = there
    deployment.deploy(cluster, objects(package, 1), deployment.proof(package))
    proof = deployment.proof(package)
    broken = replace(proof, instances=[object()] * len(proof.instances))  # no JSON: an error of ours
    with pytest.raises(RolledBack, match=r"version 2 does not serve: \w+Error: .+; version 1 was put back"):
        deployment.deploy(cluster, objects(package, 2), broken)
    assert version(cluster) == "1"


@pytest.mark.parametrize("error", [Conflict("another has it"), Unreachable("no answer")])
def test_a_conflict_and_a_silent_api_server_change_nothing_more(
    error: Exception,
    there: tuple[apiserver.ApiServer, Cluster],
    package: packages.Package,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, cluster = there
    deployment.deploy(cluster, objects(package, 1), deployment.proof(package))

    def fail(*arguments: Any) -> int:
        raise error

    monkeypatch.setattr(rollouts, "prove", fail)
    with pytest.raises(type(error)):
        deployment.deploy(cluster, objects(package, 2), deployment.proof(package))
    assert version(cluster) == "2"


def test_going_back_serves_the_version_before(
    there: tuple[apiserver.ApiServer, Cluster], package: packages.Package
) -> None:
    _, cluster = there
    for number in (1, 2):
        deployment.deploy(cluster, objects(package, number), deployment.proof(package))
    served = deployment.rollback(cluster, "insects", "models", lambda service: deployment.proof(package))
    assert (served.version, served.former, version(cluster)) == ("1", "version 2", "1")


@pytest.mark.parametrize(
    ("registered", "left", "expected"),
    [
        (f"s3://models/insects/sha256-{'0' * 64}", {"version": 3.0}, "3"),  # a bucket's URI holds no number
        ("s3://models/insects/versions/4", {}, "4"),  # as a spec of before: nothing is handed on but the URI
        ("/registry/insects/versions/5", {"version": 5}, "5"),
    ],
)
def test_the_deploy_step_says_the_version_that_push_registered(
    registered: str,
    left: dict[str, Any],
    expected: str,
    there: tuple[apiserver.ApiServer, Cluster],
    package: packages.Package,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, cluster = there
    monkeypatch.setattr("boatyard.kubernetes.cluster.connect", lambda: cluster)
    pushed = SimpleNamespace(uri="s3://runs/package", path=str(package.path), metadata=left)
    endpoint = SimpleNamespace(path=str(tmp_path / "endpoint"))
    assert deploy.python_func(CONFIG.values(), registered, pushed, endpoint) == package.digest
    assert version(cluster) == expected
    assert json.loads((tmp_path / "endpoint").read_text())["version"] == expected


def version(cluster: Cluster) -> str:
    live = cluster.get("InferenceService", "insects", "models")
    return str(live and live["metadata"]["annotations"]["boatyard/version"])
