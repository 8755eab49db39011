"""The whole road: one image, from the bytes of an IDX file to the answer over HTTP."""

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ports import free_port

from boatyard.running import runs

TESTS = 300
PROJECT = """
name: road
data: {source: idx, path: images, labels: [zero, one, two, three, four, five, six, seven, eight, nine]}
train: {recipe: cnn, model: {blocks: [16]}, epochs: 6, learning_rate: 0.003}
gate: {minimum: {accuracy: 0.7}}
"""


def idx(values: Any) -> bytes:
    """Return uint8 values as an IDX file."""
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data are IDX files, one of them gzipped, run by the command."""
    folder = tmp_path_factory.mktemp("road")
    with resources.as_file(resources.files("boatyard.project") / "samples" / "digits.npz") as file:
        sample = np.load(file)
        images, labels = sample["image"], sample["label"]
    (folder / "images").mkdir()
    (folder / "boatyard.yaml").write_text(PROJECT)
    for name, part in (("train", slice(TESTS, None)), ("t10k", slice(0, TESTS))):
        (folder / "images" / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images[part])))
        (folder / "images" / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels[part]))
    subprocess.run([sys.executable, "-m", "boatyard", "run", str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    """The version in production, served."""
    ports = [free_port(), free_port()]
    command = ["serve", str(project), "--port", str(ports[0]), "--grpc-port", str(ports[1])]
    server = subprocess.Popen(
        [sys.executable, "-m", "boatyard", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    at = f"http://127.0.0.1:{ports[0]}"
    try:
        wait_until_ready(f"{at}/v2/models/road/ready", server)
        yield at
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)


def wait_until_ready(url: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert server.poll() is None, server.stderr.read().decode() if server.stderr else ""
        try:
            if urllib.request.urlopen(url, timeout=5).status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server never became ready")


def ask(at: str, instances: Any) -> Any:
    body = json.dumps({"instances": instances}).encode()
    request = urllib.request.Request(f"{at}/v1/models/road:predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


def image_of_file(project: Path, number: int) -> Any:
    """Read one image by its offset in the IDX file, as a foreign reader would."""
    data = gzip.decompress((project / "images" / "t10k-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(data, np.uint8, 64, 16 + 64 * number).reshape(8, 8).tolist()


def test_one_image_from_the_idx_file_to_the_http_answer(project: Path, address: str) -> None:
    report = runs.find(project).output("evaluate", "report")
    assert report is not None
    measured = pq.read_table(report / "predictions.parquet").to_pylist()[7]
    (answer,) = ask(address, [image_of_file(project, 7)])
    assert measured["row"] == 7
    assert answer["label"] == measured["label"]
    assert np.allclose(answer["probabilities"], measured["probabilities"], atol=1e-5)


def test_every_answer_equals_the_reports_prediction(project: Path, address: str) -> None:
    report = runs.find(project).output("evaluate", "report")
    assert report is not None
    measured = pq.read_table(report / "predictions.parquet")
    answers = ask(address, [image_of_file(project, number) for number in range(TESTS)])
    assert measured["row"].to_pylist() == list(range(TESTS))
    assert [answer["label"] for answer in answers] == measured["label"].to_pylist()
    given = np.array([answer["probabilities"] for answer in answers])
    assert np.abs(given - np.array(measured["probabilities"].to_pylist())).max() <= 1e-5


def test_nothing_is_left_to_resume_after_a_run_that_succeeded(project: Path) -> None:
    left = project / "runs" / ".work"
    assert [name for name in os.listdir(left) if not name.endswith(".lock")] == []
