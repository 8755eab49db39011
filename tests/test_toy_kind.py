"""A kind that another distribution brings goes all the way: from a CSV file to right answers over every protocol."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient
from ports import free_port

from boatyard import packages, prediction
from boatyard.data import datasets, kinds
from boatyard.errors import ArtifactError

PROJECT = """
name: hours
data: {source: csv, path: hours.csv, target: light, columns: {start: clock}}
preprocess: {unreadable: drop}
train: {recipe: mlp, model: {hidden: [16]}, epochs: 2, learning_rate: 0.05, batch_size: 16}
gate: {rows: 40, minimum: {accuracy: 0.75}}
push: {golden: 5}
"""
ROWS: list[dict[str, Any]] = [
    {"start": "03:15", "load": 1.5},
    {"start": "12:00", "load": -2.0},
    {"start": "23:59", "load": 0.25},
    {"start": None, "load": 3.0},
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installed distribution that registers the kind `clock`, for this process and those that it starts."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copyfile(Path(__file__).with_name("clock.py"), folder / "toy_clock.py")
    about = folder / "toy_clock-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-clock\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[boatyard.kinds]\nclock = toy_clock:KIND\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
        kinds.load.cache_clear()  # type: ignore[attr-defined]
        yield folder
    kinds.load.cache_clear()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def project(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a column of the kind, some of its values missing, one unreadable; run by the command."""
    folder, draw = tmp_path_factory.mktemp("hours"), random.Random(0)
    lines = ["start,load,light"]
    for _ in range(900):
        hour, minute = draw.randrange(24), draw.randrange(60)
        start = f"{hour:02d}:{minute:02d}" if draw.random() > 0.04 else ""
        lines.append(f"{start},{draw.gauss(0, 1):.4f},{'day' if 6 <= hour < 18 else 'night'}")
    lines.insert(100, "25:00,1,day")
    (folder / "hours.csv").write_text("\n".join(lines) + "\n")
    (folder / "boatyard.yaml").write_text(PROJECT)
    done = subprocess.run([sys.executable, "-m", "boatyard", "run", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def package(project: Path) -> packages.Package:
    return packages.verify(project / "registry" / "hours" / "versions" / "1")


@pytest.fixture(scope="module")
def ports(project: Path, package: packages.Package) -> Iterator[tuple[int, int]]:
    """The version in production, served: the ports of HTTP and gRPC."""
    http, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "boatyard", "serve", str(project), "--port", str(http), "--grpc-port", str(rpc)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        assert server.poll() is None, server.stderr.read() if server.stderr else ""
        try:
            if httpx.get(f"http://127.0.0.1:{http}/v2/models/hours/ready").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    yield http, rpc
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)


def expected(package: packages.Package) -> Any:
    """The answers of the engine to the rows, with no server."""
    return prediction.OnnxRuntime(package.graph, package.schema, threads=1).run(prediction.decode(package.schema, ROWS))


def inputs(binary: bool) -> list[InferInput]:
    """The rows as V2 carries them: a missing time is an empty text, a missing number NaN."""
    made = []
    for name, datatype, values in (
        ("start", "BYTES", np.array([(row["start"] or "").encode() for row in ROWS], object)),
        ("load", "FP32", np.array([row["load"] for row in ROWS], np.float32)),
    ):
        tensor = InferInput(name, [len(ROWS)], datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        made.append(tensor)
    return made


def assert_answers(labels: Any, probabilities: Any, package: packages.Package) -> None:
    answers = expected(package)
    assert list(labels) == list(answers["label"])
    np.testing.assert_allclose(np.reshape(probabilities, (len(ROWS), -1)), answers["probabilities"], atol=1e-6)


def test_the_kind_is_found_by_its_entry_point(site: Path) -> None:
    assert "clock" in {point.name for point in entry_points(group="boatyard.kinds")}
    assert kinds.load("clock").name == "clock"


def test_its_rows_are_read_dropped_and_imputed_as_those_of_any_kind(package: packages.Package, project: Path) -> None:
    (dataset,) = (project / "runs").glob("**/dataset/manifest.json")
    data = datasets.read(dataset.parent)
    field = data.schema.field("start")
    assert (field.kind, field.dtype, field.shape, field.nullable) == ("clock", "float32", (2,), True)
    cleaning = {(e["reason"], e["column"], e["action"]): e for e in data.manifest["cleaning"]}
    assert cleaning["unreadable", "start", "dropped"]["count"] == 1
    assert "hours.csv, line 101" in cleaning["unreadable", "start", "dropped"]["examples"][0]
    assert cleaning["missing", "start", "imputed"]["count"] > 10
    start = data.load("train").inputs["start"]
    assert start.shape[1:] == (2,) and np.nanmax(start[:, 0]) <= 23 and np.isnan(start).any()


def test_the_model_learnt_from_it_and_its_reference_outputs_are_in_its_own_words(package: packages.Package) -> None:
    assert package.report["metrics"]["accuracy"]["value"] > 0.75
    assert any(":" in (row["start"] or "") for row in package.golden.instances)
    labels = expected(package)["label"]
    assert labels[0] == "night" and labels[1] == "day"


def test_v1_answers_as_the_engine_does(package: packages.Package, ports: tuple[int, int]) -> None:
    response = httpx.post(f"http://127.0.0.1:{ports[0]}/v1/models/hours:predict", json={"instances": ROWS})
    found = response.json()["predictions"]
    assert_answers([p["label"] for p in found], [p["probabilities"] for p in found], package)


@pytest.mark.parametrize("binary", [False, True])
def test_v2_answers_as_the_engine_does(package: packages.Package, ports: tuple[int, int], binary: bool) -> None:
    body, size = InferRequest("hours", inputs(binary)).to_rest()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"inference-header-content-length": str(size)} if size else {}
    response = httpx.post(f"http://127.0.0.1:{ports[0]}/v2/models/hours/infer", content=data, headers=headers)
    assert response.status_code == 200, response.text
    outputs = {output["name"]: output["data"] for output in response.json()["outputs"]}
    assert_answers(outputs["label"], outputs["probabilities"], package)


@pytest.mark.parametrize("raw", [False, True])
def test_grpc_answers_as_the_engine_does(package: packages.Package, ports: tuple[int, int], raw: bool) -> None:
    async def ask() -> Any:
        async with InferenceGRPCClient(f"127.0.0.1:{ports[1]}") as client:
            return await client.infer(InferRequest("hours", inputs(raw)))

    found = {output.name: output.as_numpy() for output in asyncio.run(ask()).outputs}
    labels = [label.decode() if isinstance(label, bytes) else label for label in found["label"]]
    assert_answers(labels, found["probabilities"], package)


@pytest.mark.parametrize("value", ["25:00", "9:30", 9.5, True, ["09:30"]])
def test_a_wrong_value_is_refused_by_v1_with_its_place(ports: tuple[int, int], value: Any) -> None:
    rows = [ROWS[0], {"start": value, "load": 1.0}]
    response = httpx.post(f"http://127.0.0.1:{ports[0]}/v1/models/hours:predict", json={"instances": rows})
    assert response.status_code == 400
    assert "expected a time of day, HH:MM" in response.text and "instances[1].start" in response.text


def test_a_wrong_value_is_refused_by_v2_with_its_place(ports: tuple[int, int]) -> None:
    tensors = [
        {"name": "start", "datatype": "BYTES", "shape": [2], "data": ["09:30", "24:00"]},
        {"name": "load", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]},
    ]
    response = httpx.post(f"http://127.0.0.1:{ports[0]}/v2/models/hours/infer", json={"inputs": tensors})
    assert response.status_code == 400
    assert "expected a time of day, HH:MM, found '24:00', at input start, row 1" in response.text


def test_where_the_kind_is_not_installed_its_package_is_refused_by_name(package: packages.Package) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    code = f"from boatyard import packages; packages.verify(__import__('pathlib').Path({str(package.path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ArtifactError.__name__ in done.stderr and "no kind 'clock'" in done.stderr
