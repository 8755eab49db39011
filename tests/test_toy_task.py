"""A task that tests/ alone defines goes from data to a server's answers without an edit of the library."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest
import toy_range
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from test_serving import Running, launch, ready

from boatyard import packages, plugins, prediction, project, stages, tasks
from boatyard.deployment import proving
from boatyard.evaluation.report import Report
from boatyard.gating import Verdict
from boatyard.registry import Version

DATATYPES = {"value": "FP32", "bounds": "FP32", "rounded": "INT64", "side": "BYTES"}


@dataclass(frozen=True)
class Road:
    """What each stage of a project left."""

    report: Report
    verdict: Verdict
    version: Version
    package: packages.Package


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The distribution on the path of this process and of those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        made = toy_range.installed(tmp_path_factory.mktemp("site"))
        patch.syspath_prepend(made)
        patch.setenv("PYTHONPATH", str(made))
        yield made


def rows(path: Path, count: int = 500, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    x, noise = random.normal(size=(2, count))
    lines = [f"{a:.4f},{b:.4f},{3 * a + 0.3 * b:.4f}" for a, b in zip(x, noise, strict=True)]
    path.write_text("\n".join(["a,b,y", *lines]) + "\n")


def run(folder: Path, out: str, seed: int = 0, epochs: int = 12, **gate: Any) -> Road:
    """Take a project through the stages that the pipeline runs."""
    rows(folder / "rows.csv", seed=seed)
    values = {
        "name": "ranges",
        "task": "range",
        "data": {"source": "csv", "path": "rows.csv", "target": "y"},
        "train": {"recipe": "mlp", "epochs": epochs, "learning_rate": 0.01, "model": {"hidden": [16]}},
        "evaluate": {"bootstrap": 100},
        "gate": {"minimum": {"coverage": 0.5}, "rows": 20, **gate},
        "push": {"registry": str(folder / "registry"), "alias": "production", "golden": 8},
    }
    sections = project.check(values, "boatyard.yaml").values()
    at = {
        name: str(folder / out / name) for name in ("dataset", "checkpoint", "report", "verdict", "package", "numbers")
    }
    get = {name: sections.get(name, {}) for name in ("data", "preprocess", "train", "evaluate", "gate", "push")}
    stages.preprocess(get["data"], get["preprocess"], "range", at["dataset"], at["numbers"])
    stages.train(get["train"], get["preprocess"], get["gate"], at["dataset"], at["checkpoint"], at["numbers"])
    report = stages.evaluate(get["evaluate"], at["dataset"], at["checkpoint"], at["report"], at["numbers"])
    verdict = stages.gate(
        get["gate"], get["push"], "ranges", at["dataset"], at["checkpoint"], at["report"], at["verdict"]
    )
    version = stages.push(
        get["push"], sections, at["dataset"], at["checkpoint"], at["report"], at["verdict"], at["package"]
    )
    return Road(report, verdict, version, packages.verify(Path(at["package"])))


@pytest.fixture(scope="module")
def folder(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        made = tmp_path_factory.mktemp("ranges")
        patch.setenv("BOATYARD_PROJECT", str(made))
        yield made


@pytest.fixture(scope="module")
def road(folder: Path) -> Road:
    return run(folder, "first")


@pytest.fixture(scope="module")
def server(road: Road) -> Iterator[Running]:
    running = ready(launch(road.package))
    yield running
    running.process.send_signal(signal.SIGTERM)
    output, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0, output


def inputs(count: int) -> dict[str, Any]:
    return {"features": np.random.default_rng(count).normal(size=(count, 2)).astype(np.float32)}


def expected(road: Road, asked: dict[str, Any]) -> prediction.Answers:
    return prediction.load(road.package.path, threads=1).run(asked)


def assert_same(found: dict[str, Any], answers: prediction.Answers) -> None:
    assert list(found) == [name for name, _ in answers.items()]
    for name, column in answers.items():
        if column.dtype == object:
            texts = [text.decode() if isinstance(text, bytes) else text for text in np.asarray(found[name]).tolist()]
            assert texts == column.tolist()
        else:
            np.testing.assert_allclose(np.asarray(found[name]), column, atol=1e-4)


def test_the_report_and_the_gate_speak_of_its_measure(road: Road) -> None:
    coverage = road.report.metrics["coverage"]
    assert coverage.method == "Clopper-Pearson" and coverage.value is not None and 0.5 < coverage.value <= 1
    assert (road.report.main, road.report.slice_metric) == ("coverage", "coverage")
    assert road.verdict.passed and "coverage is at least" in road.verdict.sentence
    page = (road.report.path / "report.html").read_text()
    assert "range of y" in page and "share of the rows inside" in page and "Worst examples" in page
    assert all(" to " in example.predicted for example in road.report.worst)


def test_a_second_model_is_compared_with_production_by_its_outcome(road: Road, folder: Path) -> None:
    second = run(folder, "second", epochs=13, not_worse={"margin": 0.2, "alias": "production"})
    (rule,) = (rule for rule in second.verdict.rules if rule.name == "not_worse")
    assert rule.passed and rule.sentence.startswith("not_worse: coverage minus production's is at least")


def test_v1_gives_an_object_of_its_outputs(server: Running, road: Road) -> None:
    for count in (1, 5):
        asked = inputs(count)
        body = {"instances": prediction.encode(road.package.schema, asked)}
        response = httpx.post(f"{server.url}/v1/models/ranges:predict", json=body)
        assert response.status_code == 200, response.text
        answers = expected(road, asked)
        found = response.json()["predictions"]
        assert_same({name: [row[name] for row in found] for name in found[0]}, answers)
        assert isinstance(found[0]["rounded"], int) and found[0]["side"] in toy_range.SIDES


@pytest.mark.parametrize("binary", [False, True])
def test_v2_gives_its_outputs_with_their_types_and_shapes(server: Running, road: Road, binary: bool) -> None:
    asked = inputs(6)
    tensor = InferInput("features", [6, 2], "FP32")
    tensor.set_data_from_numpy(asked["features"], binary_data=binary)
    request = InferRequest("ranges", [tensor], request_id="1", parameters={"binary_data_output": binary})

    async def ask() -> Any:
        client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=10))
        try:
            return await client.infer(server.url, request, model_name="ranges")
        finally:
            await client.close()

    outputs = asyncio.run(ask()).outputs
    assert {output.name: output.datatype for output in outputs} == DATATYPES
    assert_same({output.name: output.as_numpy() for output in outputs}, expected(road, asked))


@pytest.mark.parametrize("raw", [False, True])
def test_grpc_gives_the_same(server: Running, road: Road, raw: bool) -> None:
    asked = inputs(6)
    tensor = InferInput("features", [6, 2], "FP32")
    tensor.set_data_from_numpy(asked["features"], binary_data=raw)

    async def ask() -> Any:
        async with InferenceGRPCClient(f"127.0.0.1:{server.grpc}") as client:
            return await client.infer(InferRequest("ranges", [tensor], request_id="1"))

    outputs = asyncio.run(ask()).outputs
    assert {output.name: output.datatype for output in outputs} == DATATYPES
    assert_same({output.name: output.as_numpy() for output in outputs}, expected(road, asked))


def test_openvino_answers_it_too(road: Road) -> None:
    asked = inputs(6)
    assert_same(dict(prediction.load(road.package.path, by="openvino").run(asked).items()), expected(road, asked))


def test_a_deployment_is_proven_by_its_comparison(road: Road) -> None:
    proof = proving.proof(road.package)
    predictions = tasks.of(road.package.schema).to_v1(road.package.golden.answers)

    def cluster(changed: dict[str, Any]) -> Any:
        def ask(service: str, path: str, body: Any, namespace: str) -> dict[str, Any]:
            if body is None:
                return {"versions": [proof.digest]}
            return {"predictions": [{**row, **changed} for row in predictions[: len(body["instances"])]]}

        return cast(Any, SimpleNamespace(ask=ask))

    assert proving.prove(cluster({}), "ranges", "models", proof) == len(predictions)
    for changed, said in (
        ({"value": 1e3}, "expected .* found 1000"),
        ({"side": "elsewhere"}, "found 'elsewhere'"),
        ({"bounds": [0.0]}, r"a list \[2\] of finite numbers"),
        ({"more": 1}, "expected an object of value, bounds, rounded, side"),
    ):
        with pytest.raises(proving.Wrong, match=said):
            proving._ask_all(cluster(changed), "ranges", "models", proof)


def test_its_names_are_known_to_the_plugins_and_the_project_file(site: Path) -> None:
    assert "range" in plugins.names("tasks")
    assert plugins.Plugin("tasks", "range", "toy-range 1.0") in plugins.installed()
