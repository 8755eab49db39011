"""ONNX models whose weights lie in a file of their own: packed, verified, served; attacked, refused by name."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import httpx
import numpy as np
import onnx
import pytest
from test_serving import launch, ready

from boatyard import packages, prediction
from boatyard.data import artifacts
from boatyard.errors import ArtifactError
from boatyard.packages import manifest
from boatyard.prediction.onnx_model import DATA, OnnxModel
from boatyard.training import external_data

SCHEMA = graphs.image_schema((24, 24))  # 576 times 3 weights: more than stay in the model


def checkpoint(path: Path) -> Path:
    """Write a checkpoint whose model is over a limit of 1 kB."""
    model = external_data.split(graphs.graph(SCHEMA), most=1000)
    graphs.checkpoint(path, SCHEMA)
    artifacts.write_bytes(path / "model.onnx", model.data)
    for name, data in model.external.items():
        artifacts.write_bytes(path / name, data)
    artifacts.seal(path, "checkpoint", {"seal": "0" * 64})
    return path


def pack(path: Path) -> packages.Package:
    made = checkpoint(path / "checkpoint")
    return packages.pack(
        name="insects",
        checkpoint=made,
        report=graphs.report(path / "report", made),
        verdict=graphs.verdict(path / "verdict.json", made),
        dataset=graphs.Rows(path, "0" * 64, SCHEMA, {}),
        out=path / "package",
        golden=8,
        lineage={"dataset": "0" * 64},
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("good")).path


@pytest.fixture
def package(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy"))


def test_a_small_model_stays_in_one_file() -> None:
    data = graphs.graph(SCHEMA)
    assert external_data.split(data) == OnnxModel(data)


def test_a_large_model_answers_as_it_did_in_one_file(good: Path) -> None:
    inputs = graphs.rows(SCHEMA, 20)
    whole = prediction.OnnxRuntime(graphs.graph(SCHEMA), SCHEMA).run(inputs)
    predictor = prediction.load(good)
    assert np.array_equal(predictor.run(inputs).outputs()[1], whole.outputs()[1])
    assert [file.path for file in predictor.package.of("weights")] == [DATA, "weights.safetensors"]
    sizes = {file.path: file.bytes for file in predictor.package.files}
    assert predictor.package.model_bytes == sizes["model.onnx"] + sizes[DATA]
    assert sizes["model.onnx"] < sizes[DATA]


def test_a_large_model_is_served(good: Path) -> None:
    verified = packages.verify(good)
    running = ready(launch(verified))
    try:
        response = httpx.post(running.v1, json={"instances": verified.golden.instances}, timeout=60)
        labels = [answer["label"] for answer in response.json()["predictions"]]
    finally:
        running.process.send_signal(signal.SIGTERM)
        output, _ = running.process.communicate(timeout=30)
    assert labels == verified.golden.answers.outputs()[0].tolist(), output


def test_the_digest_of_a_model_covers_the_weights_beside_it(tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "checkpoint")
    data = bytearray((made / DATA).read_bytes())
    data[0] ^= 1
    (made / DATA).write_bytes(data)
    artifacts.seal(made, "checkpoint", {"seal": "0" * 64})
    with pytest.raises(ArtifactError, match=f"sha256:{DATA}"):
        packages.pack(
            name="insects",
            checkpoint=made,
            report=graphs.report(tmp_path / "report", made),
            verdict=graphs.verdict(tmp_path / "verdict.json", made),
            dataset=graphs.Rows(tmp_path, "0" * 64, SCHEMA, {}),
            out=tmp_path / "package",
            golden=8,
            lineage={},
        )


def test_openvino_says_that_it_takes_one_file(good: Path) -> None:
    with pytest.raises(ArtifactError, match="onnxruntime runs it"):
        prediction.load(good, by="openvino")


# Attacks


def entries(package: Path, change: Callable[[Any], object]) -> None:
    """Change what the model says of its first external tensor, and bind the package again."""
    model = onnx.load_model_from_string((package / "model.onnx").read_bytes())
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    change(tensor)
    (package / "model.onnx").write_bytes(model.SerializeToString())
    relist(package)


def put(key: str, value: str) -> Callable[[Any], object]:
    def change(tensor: Any) -> None:
        entry = next((entry for entry in tensor.external_data if entry.key == key), None)
        if entry is None:
            tensor.external_data.add(key=key, value=value)
        else:
            entry.value = value

    return change


def relist(package: Path, **roles: str) -> None:
    manifest.write(package, "insects", "classification", {DATA: "weights", **roles})


def inside_a_node(package: Path) -> None:
    model = onnx.load_model_from_string((package / "model.onnx").read_bytes())
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    model.graph.initializer.remove(tensor)
    (package / "model.onnx").write_bytes(model.SerializeToString())
    relist(package)


def twice(tensor: Any) -> None:
    tensor.external_data.add(key="location", value="schema.json")


def cut(package: Path) -> None:
    os.truncate(package / DATA, 100)
    relist(package)


def another_role(package: Path) -> None:
    manifest.write(package, "insects", "classification", {DATA: "document"})


def linked(package: Path) -> None:
    shutil.move(package / DATA, package.parent / "elsewhere")
    (package / DATA).symlink_to(package.parent / "elsewhere")


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an absolute path": (lambda p: entries(p, put("location", "/etc/passwd")), "found '/etc/passwd'"),
    "a path upwards": (lambda p: entries(p, put("location", f"../copy/{DATA}")), "files of role weights"),
    "the same by a detour": (lambda p: entries(p, put("location", f"./{DATA}")), "files of role weights"),
    "a file that is not there": (lambda p: entries(p, put("location", "none.data")), "found 'none.data'"),
    "a file of another role": (lambda p: entries(p, put("location", "schema.json")), "found 'schema.json'"),
    "its own file": (lambda p: entries(p, put("location", "model.onnx")), "found 'model.onnx'"),
    "no location": (lambda p: entries(p, put("location", "")), "files of role weights"),
    "weights of another role": (another_role, f"found '{DATA}'"),
    "an offset beyond the end": (lambda p: entries(p, put("offset", "999999")), "which has"),
    "a length beyond the end": (lambda p: entries(p, put("length", "999999999999")), "which has"),
    "an offset before the start": (lambda p: entries(p, put("offset", "-4096")), "a tensor at '-4096'"),
    "an offset that wraps": (lambda p: entries(p, put("offset", str(2**64))), "a tensor at '1844674407370955"),
    "another length than the tensor's": (lambda p: entries(p, put("length", "8")), "ONNX Runtime refuses"),
    "a key more": (lambda p: entries(p, put("basepath", "/etc")), "a tensor that names"),
    "a location twice": (lambda p: entries(p, twice), "a tensor that names"),
    "a constant inside a node": (inside_a_node, "a constant of a node"),
    "a file that was cut": (cut, "which has 100"),
    "a link": (linked, f"{DATA} is not a plain file"),
    "a file that was removed": (lambda p: (p / DATA).unlink(), f"{DATA} is missing"),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_a_model_that_points_elsewhere_is_refused_by_name(package: Path, what: str) -> None:
    attack, refusal = ATTACKS[what]
    attack(package)
    with pytest.raises(ArtifactError) as refused:
        prediction.load(package)
    assert refusal in str(refused.value)


def test_weights_that_are_changed_after_they_were_verified_are_not_used(package: Path) -> None:
    verified = packages.verify(package)
    data = bytearray((package / DATA).read_bytes())
    data[100] ^= 1
    (package / DATA).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{DATA} was changed after it was verified"):
        _ = verified.model


@pytest.mark.parametrize("location", ["../x.data", "/etc/passwd", "..", "a/b.data"])
def test_a_model_read_from_a_folder_names_files_of_that_folder_alone(tmp_path: Path, location: str) -> None:
    made = checkpoint(tmp_path / "checkpoint")
    model = onnx.load_model_from_string((made / "model.onnx").read_bytes())
    put("location", location)(next(tensor for tensor in model.graph.initializer if tensor.external_data))
    (made / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="whose other files lie beside it, found one that names"):
        OnnxModel.of(made / "model.onnx")


def test_package_json_names_the_weights_and_their_role(good: Path) -> None:
    files = {entry["path"]: entry for entry in json.loads((good / packages.MANIFEST).read_bytes())["files"]}
    assert files[DATA]["role"] == "weights" and files[DATA]["sha256"] == artifacts.digest_file(good / DATA)
