"""The server as clients meet it: a real process on loopback, all protocols, every mistake that a client can make."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import graphs
import grpc
import httpx
import numpy as np
import psutil
import pytest
import trustme
import zstandard
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.inference_client import InferenceGRPCClient
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from PIL import Image
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families

from boatyard import packages, prediction
from boatyard.data import artifacts
from boatyard.data.schema import Schema
from boatyard.serving.limits import SMALL

SCHEMAS = {
    "image": graphs.image_schema((6, 5)),
    "colour": graphs.image_schema((4, 4, 3)),
    "mixed": graphs.mixed_schema(),
    "numbers": graphs.numbers_schema(),
}
BODY_LIMIT = 1 << 20
CLIENT = httpx.Client(timeout=30)
DATATYPES = {"uint8": "UINT8", "float32": "FP32", "str": "BYTES"}


@dataclass(frozen=True)
class Running:
    """A server process, and what it should answer."""

    process: subprocess.Popen[str]
    http: int
    grpc: int
    package: packages.Package

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    @property
    def v1(self) -> str:
        return f"{self.url}/v1/models/insects:predict"

    @property
    def v2(self) -> str:
        return f"{self.url}/v2/models/insects/infer"


def launch(package: packages.Package, *more: str, command: tuple[str, ...] = ("-m", "boatyard.serving")) -> Running:
    http, rpc = free_port(), free_port()
    options = ["--package", str(package.path), "--host", "127.0.0.1", "--http-port", str(http), "--grpc-port", str(rpc)]
    words = [sys.executable, *command, *options, "--threads", "1", *more]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return Running(process, http, rpc, package)


def ready(running: Running) -> Running:
    until = time.monotonic() + 120
    while time.monotonic() < until and running.process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{running.url}/v2/health/ready", verify=False).status_code == 200:  # others ask it, too
                return running
        time.sleep(0.05)
    running.process.kill()
    raise AssertionError(running.process.communicate()[0])


@pytest.fixture(scope="module", autouse=True)
def hung_up() -> Iterator[None]:
    """Close the client that the tests share, whichever of them run."""
    yield
    CLIENT.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    folder = tmp_path_factory.mktemp("servers")
    made = {name: graphs.package(folder / name, schema) for name, schema in SCHEMAS.items()}
    running = {name: launch(package, "--body-limit", str(BODY_LIMIT)) for name, package in made.items()}
    for server in running.values():
        ready(server)
    yield running
    CLIENT.close()
    for server in running.values():
        server.process.send_signal(signal.SIGTERM)
    for name, server in running.items():
        output, _ = server.process.communicate(timeout=30)
        assert server.process.returncode == 0, output
        assert "Traceback" not in output and "failed" not in output, (name, output)


@pytest.fixture(params=list(SCHEMAS))
def server(request: pytest.FixtureRequest, servers: dict[str, Running]) -> Running:
    return servers[request.param]


# The same numbers, whatever the protocol


def expected(server: Running, inputs: dict[str, Any]) -> prediction.Answers:
    engine = prediction.OnnxRuntime(server.package.graph, server.package.schema, threads=1)
    return engine.run(inputs)


def assert_same(found: prediction.Answers, wanted: prediction.Answers) -> None:
    if wanted.values is not None:
        np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5)
        return
    assert found.labels is not None and wanted.labels is not None
    assert found.labels.tolist() == wanted.labels.tolist()
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)


def of_v1(values: Any) -> prediction.Answers:
    if not isinstance(values[0], dict):
        return prediction.Answers({"value": np.array(values)})
    labels = np.array([value["label"] for value in values])
    return prediction.Answers(
        {"label": labels, "probabilities": np.array([value["probabilities"] for value in values])}
    )


def of_outputs(outputs: dict[str, Any]) -> prediction.Answers:
    if "value" in outputs:
        return prediction.Answers({"value": outputs["value"]})
    labels = [each.decode() if isinstance(each, bytes) else each for each in outputs["label"].tolist()]
    return prediction.Answers({"label": np.array(labels), "probabilities": outputs["probabilities"]})


def tensors(schema: Schema, inputs: dict[str, Any], *, binary: bool) -> list[InferInput]:
    made = []
    for tensor in schema.tensors():
        each = InferInput(tensor.name, list(inputs[tensor.name].shape), DATATYPES[tensor.dtype])
        each.set_data_from_numpy(inputs[tensor.name], binary_data=binary)
        made.append(each)
    return made


def test_v1_gives_the_engine_s_answers(server: Running) -> None:
    for count in (1, 7, 64):
        inputs = graphs.rows(server.package.schema, count, seed=count)
        response = CLIENT.post(server.v1, json={"instances": prediction.encode(server.package.schema, inputs)})
        assert response.status_code == 200, response.text
        assert_same(of_v1(response.json()["predictions"]), expected(server, inputs))


@pytest.mark.parametrize("binary", [False, True])
def test_v2_over_kserve_s_own_client_gives_the_engine_s_answers(server: Running, binary: bool) -> None:
    inputs = graphs.rows(server.package.schema, 9, seed=1)
    parameters = {"binary_data_output": binary}
    request = InferRequest(
        "insects", tensors(server.package.schema, inputs, binary=binary), request_id="42", parameters=parameters
    )

    async def ask() -> Any:
        client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=10))
        try:
            return await client.infer(server.url, request, model_name="insects")
        finally:
            await client.close()

    response = asyncio.run(ask())
    assert (response.id, response.model_name) == ("42", "insects")
    assert_same(of_outputs({o.name: o.as_numpy() for o in response.outputs}), expected(server, inputs))


@pytest.mark.parametrize("raw", [False, True])
def test_grpc_over_kserve_s_own_client_gives_the_engine_s_answers(server: Running, raw: bool) -> None:
    inputs = graphs.rows(server.package.schema, 9, seed=2)
    request = InferRequest("insects", tensors(server.package.schema, inputs, binary=raw), request_id="42")

    async def ask() -> Any:
        async with InferenceGRPCClient(f"127.0.0.1:{server.grpc}") as client:
            return await client.infer(request)

    response = asyncio.run(ask())
    assert_same(of_outputs({o.name: o.as_numpy() for o in response.outputs}), expected(server, inputs))


def test_the_golden_examples_are_answered_as_they_were_sealed(server: Running) -> None:
    golden = server.package.golden
    response = CLIENT.post(server.v1, json={"instances": golden.instances})
    assert_same(of_v1(response.json()["predictions"]), golden.answers)


def test_an_image_may_be_nested_lists_a_png_or_raw_bytes(servers: dict[str, Running]) -> None:
    for name in ("image", "colour"):
        server = servers[name]
        pixels = graphs.rows(server.package.schema, 1)["image"][0]
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        texts = [base64.b64encode(data).decode() for data in (png.getvalue(), pixels.tobytes())]
        nested = [pixels.tolist(), {"image": pixels.tolist()}, {"image": pixels.astype(float).tolist()}]
        instances = [*nested, *({"image": {"b64": text}} for text in texts), {"b64": texts[0]}]
        answers = CLIENT.post(server.v1, json={"instances": instances}).json()["predictions"]
        assert [answer["label"] for answer in answers] == [answers[0]["label"]] * 6
        np.testing.assert_allclose([a["probabilities"] for a in answers], [answers[0]["probabilities"]] * 6, atol=1e-5)


def test_a_row_may_be_an_object_a_list_or_have_missing_and_unseen_values(servers: dict[str, Running]) -> None:
    instances = [
        {"age": 3, "colour": "red", "city": "Bonn"},
        [3, "red", "Bonn"],
        {"city": "Bonn"},
        [None, None, "never seen"],
    ]
    answers = CLIENT.post(servers["mixed"].v1, json={"instances": instances}).json()["predictions"]
    assert answers[0] == answers[1] != answers[2]
    assert CLIENT.post(servers["numbers"].v1, json={"instances": [[3, None]]}).status_code == 200
    nan = {"name": "features", "shape": [1, 2], "datatype": "FP32", "data": [3, None]}
    assert CLIENT.post(servers["numbers"].v2, json={"inputs": [nan]}).status_code == 200


def test_v2_outputs_come_as_asked_for(servers: dict[str, Running]) -> None:
    server = servers["image"]
    inputs = graphs.rows(server.package.schema, 2)["image"]
    one = {"name": "image", "shape": [2, 6, 5], "datatype": "UINT8", "data": inputs.ravel().tolist()}
    nested = {**one, "data": inputs.tolist()}
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]
    for tensor in (one, nested):
        response = CLIENT.post(server.v2, json={"inputs": [tensor], "outputs": wanted})
        length = int(response.headers["inference-header-content-length"])
        head = json.loads(response.content[:length])
        assert [output["name"] for output in head["outputs"]] == ["probabilities", "label"]
        probabilities = np.frombuffer(response.content[length:], np.float32).reshape(2, 3)
        found = prediction.Answers({"label": np.array(head["outputs"][1]["data"]), "probabilities": probabilities})
        assert_same(found, expected(server, {"image": inputs}))


def test_metadata_is_the_real_schema(servers: dict[str, Running]) -> None:
    found = CLIENT.get(f"{servers['mixed'].url}/v2/models/insects").json()
    assert found["inputs"] == [
        {"name": "age", "datatype": "FP32", "shape": [-1]},
        {"name": "colour", "datatype": "BYTES", "shape": [-1]},
        {"name": "city", "datatype": "BYTES", "shape": [-1]},
    ]
    assert found["outputs"][1] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}
    assert (found["labels"], found["versions"]) == (["ant", "bee", "cat"], [servers["mixed"].package.digest])
    image = CLIENT.get(f"{servers['image'].url}/v2/models/insects").json()
    assert image["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 6, 5]}]


# Mistakes of a client: 4xx, one shape, wanted and found


def refused(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    message: str = response.json()["error"]
    assert not re.search(r"Traceback|Error\b|Exception|\.py\b|object at 0x", message), message
    return message


GREY = [[7] * 5] * 6


def grey(value: Any) -> Any:
    """An image with one pixel that is something else."""
    return [[[value, *[7] * 4], *[[7] * 5] * 5]]


V1_MISTAKES: list[tuple[str, Any, str]] = [
    ("image", None, "expected an object, found null, at the body"),
    ("image", [], "expected an object, found a list of 0, at the body"),
    ("image", "x", "expected an object, found 'x', at the body"),
    ("image", {}, "expected key 'instances', found an empty object"),
    ("image", {"inputs": []}, "expected key 'instances', found an object with 'inputs'"),
    ("image", {"instances": [GREY], "x": 1}, "expected keys instances, parameters, signature_name, found 'x'"),
    ("image", {"instances": None}, "expected a list of one or more instances, found null, at instances"),
    ("image", {"instances": []}, "expected a list of one or more instances, found a list of 0"),
    ("image", {"instances": {}}, "expected a list of one or more instances, found an empty object"),
    ("image", {"instances": [None]}, "expected an image, nested lists [6, 5]"),
    ("image", {"instances": [[]]}, "expected a list of 6, found a list of 0, at instances[0]"),
    ("image", {"instances": [GREY, [[7] * 5] * 5]}, "expected a list of 6, found a list of 5, at instances[1]"),
    ("image", {"instances": [[[7] * 4, *[[7] * 5] * 5]]}, "found a list of 4, at instances[0][0]"),
    ("image", {"instances": grey("7")}, "expected a whole number from 0 to 255, found '7', at instances[0][0][0]"),
    ("image", {"instances": grey(256)}, "found 256, at instances[0][0][0]"),
    ("image", {"instances": grey(-1)}, "found -1, at instances[0][0][0]"),
    ("image", {"instances": grey(1.7)}, "found 1.7, at instances[0][0][0]"),
    ("image", {"instances": grey(None)}, "found null, at instances[0][0][0]"),
    ("image", {"instances": grey(True)}, "found true, at instances[0][0][0]"),
    ("image", {"instances": grey([7])}, "found a list of 1, at instances[0][0][0]"),
    ("image", {"instances": grey(10**30)}, "found 1e+30, at instances[0][0][0]"),
    ("image", {"instances": [{"img": GREY}]}, "found an object with 'img', at instances[0]"),
    ("image", {"instances": [{"image": {"b64": "*"}}]}, "expected base64 text, found '*'"),
    ("image", {"instances": [{"image": {"b64": 7}}]}, "expected base64 text, found 7"),
    ("image", {"instances": [{"image": {"b64": "AAAA"}}]}, "expected a PNG, a JPEG or 30 raw bytes, found 3 bytes"),
    ("image", {"instances": [{"b64": "iVBORw0KGgo="}]}, "expected a PNG or JPEG, found one that cannot be decoded"),
    ("mixed", {"instances": [3]}, "expected an object of columns or a list of 3, found 3, at instances[0]"),
    ("mixed", {"instances": [[1, "red"]]}, "a list of 3, found a list of 2, at instances[0]"),
    ("mixed", {"instances": [{"age": 3}]}, "expected column city, found only age, at instances[0]"),
    ("mixed", {"instances": [{"city": "Bonn", "aeg": 3}]}, "found 'aeg' (did you mean age?), at instances[0]"),
    ("mixed", {"instances": [{"city": None}]}, "expected a category, found null, at instances[0].city"),
    ("mixed", {"instances": [{"city": ""}]}, "expected a category, found an empty string, at instances[0].city"),
    ("mixed", {"instances": [{"city": 3}]}, "expected a category (text), found 3, at instances[0].city"),
    ("mixed", {"instances": [{"city": "B", "age": "3"}]}, "expected a number, found '3', at instances[0].age"),
    ("mixed", {"instances": [{"city": "B", "age": 1e39}]}, "expected a number within float32, found 1e+39"),
    ("mixed", {"instances": [{"city": "B", "age": [1]}]}, "expected a number, found a list of 1"),
    ("numbers", {"instances": [[121, 1]]}, "expected a number from 0 to 120, found 121, at instances[0].age"),
    ("numbers", {"instances": [[1, 1], [None, 1]]}, "expected a number, found null, at instances[1].age"),
]


@pytest.mark.parametrize(("name", "body", "said"), V1_MISTAKES, ids=range(len(V1_MISTAKES)))
def test_a_v1_mistake_is_named(servers: dict[str, Running], name: str, body: Any, said: str) -> None:
    assert said in refused(CLIENT.post(servers[name].v1, content=json.dumps(body)))


@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}"), ('{"a":1,"a":', "}"), ("[[],", "]")])
def test_a_body_that_is_too_deep_is_refused_at_every_depth(
    servers: dict[str, Running], opens: str, closes: str
) -> None:
    server = servers["numbers"]
    for depth in range(940, 1040):  # about as deep as the JSON parser and Python's stack go
        for url, key in ((server.v1, "instances"), (server.v1, "parameters"), (server.v2, "inputs")):
            refused(CLIENT.post(url, content=f'{{"{key}":{opens * depth}1{closes * depth}}}'))


BYTES_MISTAKES = [
    b"",
    b"{",
    b'{"instances": [[1, NaN]]}',
    b'{"instances": [[1, Infinity]]}',
    b'{"instances": [[1, 1e999]]}',
    b"\xff\xfe{}",
    b'{"instances": ["\xff"]}',
    b"[" * 100_000,
    b'{"instances": ' + b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"instances": [[' + b"9" * 10_000 + b", 1]]}",
    b"\x00" * 100,
    b"instances=1",
]


@pytest.mark.parametrize("body", BYTES_MISTAKES, ids=range(len(BYTES_MISTAKES)))
def test_a_body_that_is_not_what_was_agreed_is_refused(servers: dict[str, Running], body: bytes) -> None:
    for url in (servers["numbers"].v1, servers["numbers"].v2):
        refused(CLIENT.post(url, content=body))


def v2_image(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "shape": [1, 6, 5], "datatype": "UINT8", "data": [7] * 30, **changes}
    return {"inputs": [{key: value for key, value in tensor.items() if value != "absent"}]}


TENSOR = v2_image()["inputs"][0]
V2_MISTAKES: list[tuple[Any, str]] = [
    ({}, "expected key 'inputs'"),
    ({"inputs": None}, "expected a list of inputs, found null"),
    ({"inputs": []}, "expected inputs image, found no image, at inputs"),
    ({"inputs": [3]}, "expected an object, found 3, at inputs[0]"),
    ({"inputs": [TENSOR, TENSOR]}, "expected each input once, found 'image' again, at inputs[1].name"),
    (v2_image(name="img"), "expected an input of image, found 'img', at inputs[0].name"),
    (v2_image(name=None), "found null, at inputs[0].name"),
    (v2_image(name=["image"]), "found a list of 1, at inputs[0].name"),
    (v2_image(name="absent"), "expected key 'name'"),
    (v2_image(datatype="FP32"), "expected datatype UINT8, found 'FP32', at inputs[0].datatype"),
    (v2_image(datatype=3), "expected datatype UINT8, found 3"),
    (v2_image(shape=[1, 5, 6]), "expected shape [rows, 6, 5], found [1, 5, 6], at inputs[0].shape"),
    (v2_image(shape=[0, 6, 5], data=[]), "found [0, 6, 5]"),
    (v2_image(shape=[-1, 6, 5]), "found [-1, 6, 5]"),
    (v2_image(shape=[1.0, 6, 5]), "found [1.0, 6, 5]"),
    (v2_image(shape=[True, 6, 5]), "found [true, 6, 5]"),
    (v2_image(shape=[2**62, 6, 5]), "expected a list of"),
    (v2_image(shape=[2**63, 6, 5]), "expected a list of"),
    (v2_image(shape=[]), "found []"),
    (v2_image(shape="1"), "expected a list of sides"),
    (v2_image(shape=[2, 6, 5]), "expected a list of 60, found a list of 30, at inputs[0].data"),
    (v2_image(data=[7] * 29), "expected a list of 30, found a list of 29"),
    (v2_image(data=[300] + [7] * 29), "expected a whole number from 0 to 255, found 300, at inputs[0].data[0]"),
    (v2_image(data=[1.7] + [7] * 29), "found 1.7"),
    (v2_image(data=["7"] * 30), "found '7'"),
    (v2_image(data=[None] * 30), "found null"),
    (v2_image(data=[[7] * 30]), "expected a list of 6"),
    (v2_image(data=None), "expected a list of 30, found null"),
    (v2_image(data="absent"), "expected either data or parameters.binary_data_size, found neither"),
    (v2_image(data="absent", parameters={"binary_data_size": 30}), "a size of at most the 0 bytes left, found 30"),
    (v2_image(data="absent", parameters={"binary_data_size": -1}), "found -1"),
    (v2_image(parameters={"binary_data_size": 0}), "found both"),
    (v2_image(parameters=[1]), "expected an object, found a list of 1, at inputs[0].parameters"),
    ({**v2_image(), "id": 3}, "expected text, found 3, at id"),
    ({**v2_image(), "parameters": [1]}, "expected an object, found a list of 1, at parameters"),
    ({**v2_image(), "parameters": {"binary_data_output": "yes"}}, "expected true or false, found 'yes'"),
    ({**v2_image(), "outputs": 3}, "expected a list of outputs"),
    ({**v2_image(), "outputs": [{}]}, "expected key 'name'"),
    ({**v2_image(), "outputs": [{"name": "x"}]}, "expected an output of label, probabilities, found 'x'"),
    ({**v2_image(), "outputs": [{"name": "label"}] * 2}, "expected each output once"),
    (
        {**v2_image(), "outputs": [{"name": "label", "parameters": {"binary_data": 1}}]},
        "expected true or false, found 1",
    ),
]


@pytest.mark.parametrize(("body", "said"), V2_MISTAKES, ids=range(len(V2_MISTAKES)))
def test_a_v2_mistake_is_named(servers: dict[str, Running], body: Any, said: str) -> None:
    assert said in refused(CLIENT.post(servers["image"].v2, json=body))


def v2_mixed(ages: Any, colours: Any, cities: Any) -> dict[str, Any]:
    values = {"age": ("FP32", ages), "colour": ("BYTES", colours), "city": ("BYTES", cities)}
    entries = [{"name": n, "datatype": d, "shape": [len(v)], "data": v} for n, (d, v) in values.items()]
    return {"inputs": entries}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (v2_mixed([1], ["red"], ["a", "b"]), "expected as many rows in each input, found 1 in age, 1 in colour, 2 in"),
        (v2_mixed([1], [1], ["a"]), "expected text, found 1, at inputs[1].data[0]"),
        (v2_mixed([1], ["red"], [""]), "expected a category, found an empty string, at input city, row 0"),
        (v2_mixed(["1"], ["red"], ["a"]), "expected a number, found '1', at inputs[0].data[0]"),
        (v2_mixed([1e39], ["red"], ["a"]), "expected a number within float32"),
        ({"inputs": v2_mixed([1], ["red"], ["a"])["inputs"][:2]}, "found no city"),
    ],
    ids=range(6),
)
def test_a_v2_mistake_in_a_table_is_named(servers: dict[str, Running], body: Any, said: str) -> None:
    assert said in refused(CLIENT.post(servers["mixed"].v2, json=body))


def binary(url: str, head: Any, tail: bytes, length: str | None = None) -> httpx.Response:
    data = json.dumps(head).encode()
    headers = {"inference-header-content-length": str(len(data)) if length is None else length}
    return CLIENT.post(url, content=data + tail, headers=headers)


def v2_binary(size: Any) -> dict[str, Any]:
    return v2_image(data="absent", parameters={"binary_data_size": size})


def test_a_mistake_in_binary_data_is_named(servers: dict[str, Running]) -> None:
    url = servers["image"].v2
    assert binary(url, v2_binary(30), bytes(30)).status_code == 200
    assert "expected 30 bytes of binary data, found 31" in refused(binary(url, v2_binary(30), bytes(31)))
    assert "at most the 29 bytes left, found 30" in refused(binary(url, v2_binary(30), bytes(29)))
    assert "expected 30 bytes for shape [1, 6, 5], found 29" in refused(binary(url, v2_binary(29), bytes(29)))
    assert "found '3'" in refused(binary(url, v2_binary("3"), bytes(30)))
    assert "found 1e+30" in refused(binary(url, v2_binary(10**30), bytes(30)))
    for length in ("-1", "x", "1e3", "", "9" * 30):
        assert "inference-header-content-length" in refused(binary(url, v2_binary(30), b"", length))
    assert "expected a body of at least" in refused(binary(url, v2_binary(30), b"", "99999"))
    assert "expected JSON" in refused(binary(url, v2_binary(30), b"", "3"))
    assert "expected JSON" in refused(binary(url, v2_binary(30), b"", "0"))


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"", "expected 1 texts, found 0"),
        (b"\1\0", "expected 4 bytes of length"),
        (struct.pack("<I", 2**32 - 1) + b"Bonn", "expected a text of 4294967295 bytes, found 4 bytes left"),
        (struct.pack("<I", 2) + b"\xff\xff", "expected text in UTF-8"),
        (struct.pack("<I", 0) * 1000, "expected 1 texts, found more"),
    ],
    ids=range(5),
)
def test_a_mistake_in_binary_texts_is_named(servers: dict[str, Running], tail: bytes, said: str) -> None:
    head = v2_mixed([1], ["red"], ["x"])
    head["inputs"][2] = {**head["inputs"][2], "parameters": {"binary_data_size": len(tail)}}
    del head["inputs"][2]["data"]
    assert said in refused(binary(servers["mixed"].v2, head, tail))


def test_nan_and_infinity_in_binary_numbers_are_refused(servers: dict[str, Running]) -> None:
    entry = {"name": "features", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    url = servers["numbers"].v2
    assert binary(url, {"inputs": [entry]}, np.array([1, np.nan], np.float32).tobytes()).status_code == 200
    wrong = [([np.nan, 1], "a missing value, at input age, row 0"), ([1, np.inf], "found inf"), ([121, 1], "found 121")]
    for values, said in wrong:
        assert said in refused(binary(url, {"inputs": [entry]}, np.array(values, np.float32).tobytes()))


# Doors


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/v1/models/birds", 404),
        ("POST", "/v1/models/birds:predict", 404),
        ("POST", "/v2/models/birds/infer", 404),
        ("GET", "/v2/models/birds", 404),
        ("GET", "/v2/models/birds/ready", 404),
        ("POST", "/v2/models/insects/versions/7/infer", 404),
        ("GET", "/v2/models/insects/versions/7", 404),
        ("POST", "/v1/models/insects:explain", 404),
        ("POST", "/v1/models/insects%0a:predict", 404),
        ("POST", "/v1/models/..%2finsects:predict", 404),
        ("GET", "/v1/models/insects:predict", 405),
        ("PUT", "/v2/models/insects/infer", 405),
        ("DELETE", "/v2/models/insects", 405),
        ("POST", "/metrics", 405),
        ("POST", "/v2/health/ready", 405),
        ("POST", "/v2/repository/models/insects/unload", 403),
        ("POST", "/v2/repository/models/insects/load", 403),
        ("POST", "/v2/repository/index", 403),
    ],
)
def test_a_closed_wrong_or_unknown_door_says_so(
    servers: dict[str, Running], method: str, path: str, status: int
) -> None:
    response = CLIENT.request(method, servers["image"].url + path)
    refused(response, status)
    assert ("allow" in response.headers) == (status == 405)
    assert CLIENT.get(f"{servers['image'].url}/v1/models/insects").json() == {"name": "insects", "ready": True}


def test_what_kserve_answers_itself_is_still_answered(servers: dict[str, Running]) -> None:
    url = servers["image"].url
    for path in ("/", "/metrics", "/v1/models", "/v2", "/v2/health/live", "/v2/models", "/v2/models/insects/ready"):
        assert CLIENT.get(url + path).status_code == 200, path
    version = servers["image"].package.digest
    assert CLIENT.post(f"{url}/v2/models/insects/versions/{version}/infer", json=v2_image()).status_code == 200


def test_a_content_type_that_clients_get_wrong_is_no_obstacle_another_charset_is(
    servers: dict[str, Running],
) -> None:
    server, body = servers["image"], json.dumps({"instances": [GREY]})
    for kind in ("application/json; charset=utf-8", "text/plain", "", "application/x-www-form-urlencoded", ";;=\xe9"):
        headers = [(b"content-type", kind.encode("latin-1"))]
        assert CLIENT.post(server.v1, content=body, headers=headers).status_code == 200, kind
    for coding in ("keep-alive", "application/json"):
        assert coding in refused(CLIENT.post(server.v1, content=body, headers={"content-encoding": coding}), 415)
    utf16 = CLIENT.post(server.v1, content=body, headers={"content-type": "application/json; charset=UTF-16"})
    assert "expected charset utf-8, found 'UTF-16'" in refused(utf16, 415)
    for kind in ("text/xml", "application/octet-stream", "multipart/form-data; boundary=x", "image/gif", "keep-alive"):
        other = CLIENT.post(server.v1, content=body, headers={"content-type": kind})
        assert f"found '{kind.split(';')[0]}'" in refused(other, 415)


def test_a_compressed_body_is_read_as_what_it_holds(servers: dict[str, Running]) -> None:
    server, body = servers["image"], json.dumps({"instances": [GREY]}).encode()
    plain = CLIENT.post(server.v1, content=body).json()
    for coding, pack in (("gzip", gzip.compress), ("zstd", zstandard.compress)):
        packed = CLIENT.post(server.v1, content=pack(body), headers={"content-encoding": coding})
        assert packed.json() == plain, coding
        bomb = CLIENT.post(server.v1, content=pack(b"[" * (BODY_LIMIT + 1)), headers={"content-encoding": coding})
        assert "after decompression" in refused(bomb, 413), coding
        for bad in (body, b"", pack(body)[:-1], pack(body)[:20], pack(body) + b"x"):
            answer = CLIENT.post(server.v1, content=bad, headers={"content-encoding": coding})
            assert coding in refused(answer), (coding, bad)
    other = CLIENT.post(server.v1, content=body, headers={"content-encoding": "br"})
    assert "identity, gzip, zstd, found 'br'" in refused(other, 415)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_a_request_of_one_image(servers: dict[str, Running], kind: str) -> None:
    server, pixels = servers["image"], np.array(GREY, np.uint8)
    content, data = f"image/{kind.lower()}", io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **({"quality": 100} if kind == "JPEG" else {}))
    answer = CLIENT.post(server.v1, content=data.getvalue(), headers={"content-type": content}).json()
    seen = np.asarray(Image.open(io.BytesIO(data.getvalue())))
    assert_same(of_v1(answer["predictions"]), expected(server, {"image": seen[None]}))
    for bad in (b"", data.getvalue()[:40], b"{}"):
        refused(CLIENT.post(server.v1, content=bad, headers={"content-type": content}))
    table = CLIENT.post(servers["mixed"].v1, content=data.getvalue(), headers={"content-type": content})
    refused(table, 415)


def test_a_key_that_comes_twice_is_refused_and_a_colon_in_a_text_is_none(servers: dict[str, Running]) -> None:
    twice = f'{{"instances": [{json.dumps(GREY)}], "instances": [{json.dumps(GREY)}]}}'
    assert "each key once, found 'instances' again" in refused(CLIENT.post(servers["image"].v1, content=twice))
    tensor = json.dumps(v2_image()).replace('"datatype"', '"name": "image", "datatype"')
    assert "each key once, found 'name' again" in refused(CLIENT.post(servers["image"].v2, content=tensor))
    named = {**v2_image(), "id": 'a:"b":\\'}
    assert CLIENT.post(servers["image"].v2, json=named).json()["id"] == 'a:"b":\\'


def test_a_deadline_that_passed_is_told_and_a_wrong_one_refused(servers: dict[str, Running]) -> None:
    server, body = servers["image"], {"instances": [GREY]}
    for header in ("x-request-timeout-ms", "x-envoy-expected-rq-timeout-ms"):
        assert CLIENT.post(server.v1, json=body, headers={header: "30000"}).status_code == 200
        for bad in ("0", "-1", "1.5", "soon", ""):
            assert f"header {header}" in refused(CLIENT.post(server.v1, json=body, headers={header: bad}))


def test_numbers_of_the_server_are_there_for_prometheus(servers: dict[str, Running]) -> None:
    server = servers["image"]
    before = CLIENT.get(f"{server.url}/metrics").text
    CLIENT.post(server.v1, json={"instances": [GREY, GREY]})
    CLIENT.post(server.v1, json={})
    found = list(text_string_to_metric_families(CLIENT.get(f"{server.url}/metrics").text))
    values = {(s.name, s.labels.get("protocol"), s.labels.get("code")): s.value for f in found for s in f.samples}
    earlier = {
        (s.name, s.labels.get("protocol"), s.labels.get("code")): s.value
        for f in text_string_to_metric_families(before)
        for s in f.samples
    }

    def more(*key: str | None) -> float:
        return values[key] - earlier.get(key, 0)  # type: ignore[index, arg-type, call-overload]

    assert more("boatyard_requests_total", "v1", "200") == 1
    assert more("boatyard_requests_total", "v1", "400") == 1
    assert more("boatyard_rows_total", None, None) == 2
    assert values["boatyard_queue_rows", None, None] == 0
    assert more("request_predict_seconds_count", None, None) == 2  # as KServe counts: requests
    assert {"process_resident_memory_bytes", "boatyard_model_info"} <= {name for name, _, _ in values}


START = b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\n"
LONG = b"X-Request-Timeout-Ms: 9000"  # a header that takes a request the long way
TOKEN = "open-sesame"


def test_models_come_and_go_for_whoever_has_the_token(tmp_path: Path) -> None:
    first = graphs.package(tmp_path / "first", SCHEMAS["image"])
    shelf = tmp_path / "shelf"
    shutil.copytree(graphs.package(tmp_path / "second", SCHEMAS["numbers"]).path, shelf / "numbers")
    shutil.copytree(graphs.package(tmp_path / "third", SCHEMAS["colour"]).path, shelf / "insects" / "2")
    (shelf / "broken").mkdir()
    (shelf / "broken" / "package.json").write_text("{}")
    with admin(first, shelf) as server:
        repository, key = f"{server.url}/v2/repository", {"authorization": f"Bearer {TOKEN}"}

        def post(path: str, headers: dict[str, str] = key) -> httpx.Response:
            return CLIENT.post(f"{repository}/{path}", headers=headers)

        for path in ("index", "models/numbers/load", "models/insects/unload"):
            assert "token" in refused(post(path, {}), 401)
            assert "token" in refused(post(path, {"authorization": "Bearer guess"}), 401)
        assert [model["name"] for model in post("index").json()] == ["insects"]
        assert post("models/numbers/load").status_code == 200
        row = {"instances": [[1.0] * len(SCHEMAS["numbers"].fields)]}
        assert CLIENT.post(f"{server.url}/v1/models/numbers:predict", json=row).status_code == 200
        assert post("models/insects/2/load").status_code == 200
        versions = CLIENT.get(f"{server.url}/v2/models/insects").json()["versions"]
        assert len(versions) == 2
        old = f"{server.url}/v2/models/insects/versions/{first.digest}/infer"
        assert CLIENT.post(old, json=v2_image()).status_code == 200
        refused(CLIENT.post(server.v1, json={"instances": [GREY]}))  # the newest, of another shape, answers this
        assert post(f"models/insects/{versions[1]}/unload").status_code == 200
        assert CLIENT.post(server.v1, json={"instances": [GREY]}).status_code == 200
        assert "verifies" in refused(post("models/broken/load"), 422)
        for name, status in (("nothing", 404), ("..%2Ffirst", 400), ("../first", 404), ("a%00b", 400)):
            refused(post(f"models/{name}/load"), status)
        with socket.create_connection(("127.0.0.1", server.http)) as client:
            body, path = json.dumps(row).encode(), "/v1/models/numbers:predict"
            for status in (200, 200, 404):  # the very same bytes: what was learned of the first does not outlive it
                if status == 404:
                    assert post("models/numbers/unload").status_code == 200
                client.sendall(raw_request(server, body, path=path))
                assert responses(client, 1)[0][0] == status
        refused(post("models/numbers/unload"), 404)
        refused(CLIENT.post(f"{server.url}/v1/models/numbers:predict", json=row), 404)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            request = pb.RepositoryModelLoadRequest(model_name="numbers")
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                stub.RepositoryModelLoad(request, timeout=10)
            stub.RepositoryModelLoad(request, timeout=20, metadata=[("authorization", f"Bearer {TOKEN}")])
        assert CLIENT.post(f"{server.url}/v1/models/numbers:predict", json=row).status_code == 200


@contextlib.contextmanager
def admin(package: packages.Package, shelf: Path) -> Iterator[Running]:
    os.environ["BOATYARD_ADMIN_TOKEN"] = TOKEN
    try:
        server = ready(launch(package, "--repository", str(shelf)))
    finally:
        del os.environ["BOATYARD_ADMIN_TOKEN"]
    yield server
    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=30)
    assert server.process.returncode == 0 and "Traceback" not in output, output


def test_a_models_counters_neither_fall_nor_jump_when_a_version_comes_or_goes(tmp_path: Path) -> None:
    """An autoscaler reads them as requests: an unloaded version's past is not new, nor is it forgotten."""
    first = graphs.package(tmp_path / "first", SCHEMAS["image"])
    shelf = tmp_path / "shelf"
    for version in ("2", "3"):
        shutil.copytree(
            graphs.package(tmp_path / version, SCHEMAS["image"], seed=int(version)).path, shelf / "insects" / version
        )
    with admin(first, shelf) as server:
        asked = 0

        def counted() -> float:
            families = text_string_to_metric_families(CLIENT.get(f"{server.url}/metrics").text)
            samples = [sample for family in families for sample in family.samples]
            requests = [s.value for s in samples if s.name == "boatyard_requests_total" and s.labels["model"]]
            (seconds,) = (s.value for s in samples if s.name == "request_predict_seconds_count")
            assert sum(requests) == seconds
            return seconds

        def post(path: str) -> None:
            nonlocal asked
            headers = {"authorization": f"Bearer {TOKEN}"}
            assert CLIENT.post(f"{server.url}/v2/repository/models/{path}", headers=headers).status_code == 200
            assert counted() == asked
            for _ in range(3):
                assert CLIENT.post(server.v1, json={"instances": [GREY]}).status_code == 200
            asked += 3
            assert counted() == asked

        def newest() -> str:
            nonlocal asked
            asked += 1
            versions: list[str] = CLIENT.get(f"{server.url}/v2/models/insects").json()["versions"]
            return versions[-1]

        post("insects/2/load")
        second = newest()
        post("insects/3/load")
        post(f"insects/{newest()}/unload")
        post(f"insects/{second}/unload")
        post("insects/2/load")  # the same version once more


def test_an_answer_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    package = graphs.package(tmp_path / "package", SCHEMAS["image"])
    code = (
        "import sys\nfrom boatyard.serving import __main__ as server, v1\nwritten = v1.encode\n"
        "def encode(*given):\n"
        "    if broken.exists(): raise UnicodeEncodeError('utf-8', 'x', 0, 1, 'surrogates not allowed')\n"
        "    return written(*given)\n"
        f"from pathlib import Path\nbroken, v1.encode = Path({str(tmp_path / 'broken')!r}), encode\n"
        "sys.exit(server.main())\n"
    )
    server = ready(launch(package, command=("-c", code)))
    for status in (200, 500, 200):  # the same connection goes on
        (tmp_path / "broken").touch() if status == 500 else (tmp_path / "broken").unlink(missing_ok=True)
        assert CLIENT.post(server.v1, json={"instances": [GREY]}, timeout=10).status_code == status
    server.process.send_signal(signal.SIGTERM)
    server.process.communicate(timeout=30)


def test_a_full_queue_is_told_and_a_deadline_that_passed(tmp_path: Path) -> None:
    package = graphs.package(tmp_path / "p", SCHEMAS["image"])
    server = ready(launch(package, "--queue", "1", "--batch", "1"))
    large = json.dumps({"instances": [GREY] * 30_000})
    found: list[httpx.Response] = []
    with httpx.Client(timeout=30) as client:

        def until_taken() -> None:  # a small request may be before it
            while not found or found[-1].status_code == 429:
                found.append(client.post(server.v1, content=large))

        worker = threading.Thread(target=until_taken)
        worker.start()
        seen: set[int] = set()
        while worker.is_alive():
            answer = client.post(server.v1, json={"instances": [GREY]}, headers={"x-request-timeout-ms": "20000"})
            seen.add(answer.status_code)
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert "come again in" in refused(answer, 429)
        worker.join()
        slow = client.post(server.v1, content=large, headers={"x-request-timeout-ms": "1"})
        assert "deadline" in refused(slow, 504)
        assert client.post(server.v1, json={"instances": [GREY]}).status_code == 200
    server.process.send_signal(signal.SIGTERM)
    server.process.communicate(timeout=30)
    assert (found[-1].status_code, seen) == (200, {200, 429})


def test_a_full_server_says_the_same_on_every_way_and_counts_and_logs_it(tmp_path: Path) -> None:
    """The refusals that follow the first on a connection take a shorter way."""
    package = graphs.package(tmp_path / "p", SCHEMAS["image"])
    server = ready(launch(package, "--queue", "1", "--batch", "1", "--workers", "1", "--access-log", "1"))
    large = json.dumps({"instances": [GREY] * 60_000}).encode()
    small = json.dumps({"instances": [GREY]}).encode()
    head = b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n"
    asked, timed = head % (b"", len(small)) + small, head % (b"x-request-timeout-ms: 20000\r\n", len(small)) + small
    with socket.create_connection(("127.0.0.1", server.http)) as other, httpx.Client() as client:
        other.sendall(head % (b"", len(large)) + large)
        until(lambda: waiting(server) > 0)
        answers = []
        with socket.create_connection(("127.0.0.1", server.http)) as again, again.makefile("rb") as reader:
            for request in (asked,) * 4 + (timed,) * 3 + (asked,) * 3:
                again.sendall(request)
                answers.append(one_answer(reader))
        long = client.post(server.v1, content=small, headers={"content-encoding": "identity"})
        assert other.recv(12) == b"HTTP/1.1 200"
    assert long.status_code == 429
    wanted = set(long.headers)
    for status, headers, body in answers:
        assert status == b"HTTP/1.1 429 Too Many Requests\r\n"
        assert set(headers) == wanted and headers["content-length"] == str(len(body))
        assert re.sub(r"\d+", "N", json.loads(body)["error"]) == re.sub(r"\d+", "N", long.json()["error"])
        assert int(headers["retry-after"]) >= 1
    said = [json.loads(body)["error"] for _, _, body in answers]
    assert ["within 20 s" in each for each in said] == [False] * 4 + [True] * 3 + [False] * 3
    assert counts(server)["v1", "429"] == len(answers) + 1
    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=30)
    logged = [json.loads(line) for line in re.findall(r"\{.*\}", output)]
    refusals = [line for line in logged if line["status"] == 429]
    assert len(refusals) == len(answers) + 1
    assert all(line["path"] == "/v1/models/insects:predict" and line["milliseconds"] < 1000 for line in refusals)


def one_answer(reader: BinaryIO) -> tuple[bytes, dict[str, str], bytes]:
    """Read one response: its first line, headers in lower case, body."""
    status, headers = reader.readline(), {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value.strip()
    return status, headers, reader.read(int(headers["content-length"]))


def counts(server: Running) -> dict[tuple[str, str], float]:
    """Return how many requests ended how, by protocol and code, and how many rows were answered."""
    text = CLIENT.get(f"{server.url}/metrics").text
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    found = {(each.labels["protocol"], each.labels["code"]): each.value for each in families["boatyard_requests"]}
    return {**found, ("rows", ""): sum(each.value for each in families["boatyard_rows"])}


@pytest.mark.alone
def test_a_client_that_hangs_up_is_not_worked_for(tmp_path: Path) -> None:
    """Its request stops at the next batch, over every protocol, and a connection that stays is not touched."""
    rows, size = 60_000, 6 * 5
    server = ready(launch(graphs.package(tmp_path / "p", SCHEMAS["image"]), "--batch", "1", "--workers", "1"))
    raw = np.zeros((rows, 6, 5), np.uint8)
    head = json.dumps({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [rows, 6, 5],
                                   "parameters": {"binary_data_size": rows * size}}]}).encode()  # fmt: skip
    v1 = json.dumps({"instances": [GREY] * rows}).encode()
    bodies = [
        ("/v1/models/insects:predict", b"", v1),
        ("/v2/models/insects/infer", b"Inference-Header-Content-Length: %d\r\n" % len(head), head + raw.tobytes()),
    ]
    for path, more, body in bodies:
        with socket.create_connection(("127.0.0.1", server.http)) as client:
            client.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (
                path.encode(), more, len(body), body))  # fmt: skip
            until(lambda: waiting(server) == rows)
        until(lambda: waiting(server) == 0, 0.5)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        request = pb.ModelInferRequest(model_name="insects", raw_input_contents=[raw.tobytes()])
        request.inputs.add(name="image", datatype="UINT8", shape=raw.shape)
        call = GRPCInferenceServiceStub(channel).ModelInfer.future(request)
        until(lambda: waiting(server) == rows)
        call.cancel()
        until(lambda: waiting(server) == 0, 0.5)
    assert CLIENT.post(server.v1, json={"instances": [GREY]}).status_code == 200
    found = counts(server)
    assert (found["v1", "499"], found["v1", "200"], found["v2", "499"], found["grpc", "1"]) == (1, 1, 1, 1)
    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=30)
    assert server.process.returncode == 0 and "Traceback" not in output, output


def waiting(server: Running) -> float:
    text = CLIENT.get(f"{server.url}/metrics").text
    return float(re.findall(r"^boatyard_queue_rows\S* (\S+)$", text, re.M)[0])


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def test_bodies_that_are_being_sent_are_bounded_over_all_connections(servers: dict[str, Running]) -> None:
    """Of sixteen of the largest, begun and not ended, the next one is refused; a small one never is."""
    server, half = servers["image"], b"[" * (BODY_LIMIT - 100)
    head = b"POST /v2/models/insects/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % BODY_LIMIT
    held = [socket.create_connection(("127.0.0.1", server.http)) for _ in range(18)]
    for client in held:
        client.sendall(head)
        client.sendall(half)
    time.sleep(0.5)
    for client in held:
        client.setblocking(False)
    refusals = []
    for client in held:
        with contextlib.suppress(BlockingIOError):
            refusals.append(client.recv(1 << 16))
    assert 1 <= len(refusals) <= 3 and all(each.startswith(b"HTTP/1.1 429") for each in refusals)
    assert b"retry-after: 1" in refusals[0]
    assert CLIENT.post(server.v1, json={"instances": [GREY]}).status_code == 200
    few = json.dumps({"instances": [GREY] * 1000}).encode()
    assert SMALL < len(few) < 256 << 10 and "room" in refused(CLIENT.post(server.v1, content=few), 429)
    packed = gzip.compress(few)
    assert len(packed) < 1000
    assert "room" in refused(CLIENT.post(server.v1, content=packed, headers={"content-encoding": "gzip"}), 429)
    for client in held:
        client.close()
    big = json.dumps({"instances": [GREY] * 4000})
    until(lambda: CLIENT.post(server.v1, content=big).status_code == 200)


def issue(authority: trustme.CA, folder: Path) -> None:
    made = authority.issue_cert("localhost", "127.0.0.1")
    made.private_key_pem.write_to_path(folder / "key.pem")
    made.cert_chain_pems[0].write_to_path(folder / "certificate.pem")


def test_both_protocols_speak_tls_and_see_a_renewed_certificate(tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    issue(first, tmp_path)
    files = ["--tls-certificate", str(tmp_path / "certificate.pem"), "--tls-key", str(tmp_path / "key.pem")]
    server = launch(graphs.package(tmp_path / "p", SCHEMAS["image"]), *files)

    def answers(authority: trustme.CA) -> bool:
        trusted = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        try:
            body = {"instances": [GREY]}
            asked = httpx.post(server.v1.replace("http:", "https:"), json=body, verify=trusted)
        except httpx.TransportError:
            return False
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(f"127.0.0.1:{server.grpc}", credentials) as channel:
            try:
                live = GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=5).live
            except grpc.RpcError:
                return False
        return bool(asked.status_code == 200 and live)

    def waited(authority: trustme.CA) -> bool:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if answers(authority):
                return True
            time.sleep(0.2)
        return False

    try:
        assert waited(first)
        issue(second, tmp_path)
        assert waited(second)
        assert not answers(first)
    finally:
        server.process.send_signal(signal.SIGTERM)
        output, _ = server.process.communicate(timeout=30)
    assert server.process.returncode == 0 and "Traceback" not in output, output


@pytest.mark.parametrize("broken", ["none", "other"])
def test_a_certificate_without_its_key_is_refused_before_anything_loads(tmp_path: Path, broken: str) -> None:
    issue(trustme.CA(), tmp_path)
    if broken == "none":
        (tmp_path / "key.pem").unlink()
    else:
        trustme.CA().issue_cert("x").private_key_pem.write_to_path(tmp_path / "key.pem")
    files = ["--tls-certificate", str(tmp_path / "certificate.pem"), "--tls-key", str(tmp_path / "key.pem")]
    server = launch(graphs.package(tmp_path / "p", SCHEMAS["image"]), *files)
    output, _ = server.process.communicate(timeout=30)
    assert server.process.returncode == 1
    assert "expected a certificate and its key" in output and "Traceback" not in output


def raw_request(server: Running, body: bytes, *headers: str, path: str | None = None) -> bytes:
    lines = [f"POST {path or '/v1/models/insects:predict'} HTTP/1.1", "Host: x", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def responses(client: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Read so many responses, each with a content-length."""
    client.settimeout(20)
    data, found = b"", []
    while len(found) < count:
        head, split, rest = data.partition(b"\r\n\r\n")
        size = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if split and size and len(rest) >= int(size[1]):
            found.append((int(head.split()[1]), rest[: int(size[1])]))
            data = rest[int(size[1]) :]
            continue
        more = client.recv(65536)
        if not more:
            break
        data += more
    return found


def test_requests_sent_at_once_are_answered_in_their_order(servers: dict[str, Running]) -> None:
    server = servers["image"]
    bodies = [json.dumps({"instances": [GREY] * (index % 3 + 1)}).encode() for index in range(9)]
    ways = [
        lambda body: raw_request(server, body, "Content-Type: application/json"),  # the short way
        lambda body: raw_request(server, body, "X-Request-Timeout-Ms: 20000"),  # the long one
        lambda body: raw_request(server, body, "Content-Type: application/json", path="/v1/models/other:predict"),
    ]
    with socket.create_connection(("127.0.0.1", server.http)) as client:
        client.sendall(b"".join(ways[index % 2 if index != 4 else 2](body) for index, body in enumerate(bodies)))
        found = responses(client, 9)
    assert [status for status, _ in found] == [200, 200, 200, 200, 404, 200, 200, 200, 200]
    rows = [len(json.loads(body).get("predictions", [])) for _, body in found]
    assert rows == [1, 2, 3, 1, 0, 3, 1, 2, 3]


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_is_answered_alike_whatever_came_before(servers: dict[str, Running], data: st.DataObject) -> None:
    server = servers["image"]
    bodies = [json.dumps({"instances": rows}).encode() for rows in ([GREY], [GREY] * 3, [[[9] * 5] * 6], [[300]], [])]
    asked = [v2_image(shape=[n, 6, 5], data=data) for n, data in ((1, [7] * 30), (3, [GREY] * 3), (1, [300]))]
    bodies += [json.dumps({"id": "7", **value}).encode() for value in asked]
    heads = ["Content-Type: application/json", "X-Request-Timeout-Ms: 20000", "X-Request-Timeout-Ms: 0", "X-A: b"]
    heads += ["Inference-Header-Content-Length: 9"]
    paths = [None, None, "/v1/models/other:predict", "/v2/models/insects/infer", "/v2/models/insects/infer"]
    ways = st.tuples(st.sampled_from([*bodies, b"{", b""]), st.sampled_from(heads), st.sampled_from(paths))
    sent = [raw_request(server, body, head, path=path) for body, head, path in data.draw(st.lists(ways, max_size=12))]
    often = data.draw(st.lists(st.integers(1, 3), min_size=len(sent), max_size=len(sent)))
    with socket.create_connection(("127.0.0.1", server.http)) as client:
        for request, times in zip(sent, often, strict=True):
            with socket.create_connection(("127.0.0.1", server.http)) as other:
                other.sendall(request)
                wanted = responses(other, 1)
            for _ in range(times):
                client.sendall(request)
                assert responses(client, 1) == wanted


def test_a_request_in_any_pieces_is_the_same_request(servers: dict[str, Running]) -> None:
    server, body = servers["image"], json.dumps({"instances": [GREY]}).encode()
    whole = raw_request(server, body, "Content-Type: application/json")
    chunked = b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
    wanted = CLIENT.post(server.v1, content=body).content
    with socket.create_connection(("127.0.0.1", server.http)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for request in (whole, chunked):
            for size in (1, 7, 100, 10_000):
                for at in range(0, len(request), size):
                    client.sendall(request[at : at + size])
                assert responses(client, 1) == [(200, wanted)]


def test_a_request_before_a_broken_one_is_answered(servers: dict[str, Running]) -> None:
    server, body = servers["image"], json.dumps({"instances": [GREY] * 200}).encode()
    for more in ("Content-Type: application/json", "X-Request-Timeout-Ms: 9000"):
        with socket.create_connection(("127.0.0.1", server.http)) as client:
            client.sendall(raw_request(server, body, more) + b"\0\0\r\n\r\n")
            assert [status for status, _ in responses(client, 2)] == [200]


@pytest.mark.alone
def test_a_client_that_sent_several_requests_may_leave_or_break_off(tmp_path: Path) -> None:
    """Each is answered, logged and given up as if it had come alone."""
    rows = 60_000
    server = ready(launch(graphs.package(tmp_path / "p", SCHEMAS["image"]), "--batch", "1", "--access-log", "1"))
    one = json.dumps({"instances": [GREY]}).encode()
    short, other = raw_request(server, one), raw_request(server, one, "Content-Type: text/plain")
    for first in (other, short) * 10:
        with socket.create_connection(("127.0.0.1", server.http)) as client:
            client.sendall(first + other + short)
    with socket.create_connection(("127.0.0.1", server.http)) as client:
        client.sendall(raw_request(server, json.dumps({"instances": [GREY] * rows}).encode()))
        until(lambda: waiting(server) == rows)
        client.sendall(short)
        time.sleep(0.1)
    until(lambda: waiting(server) == 0, 0.5)
    broken = b"POST /v2/models/insects/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    for first, status in ((short, 200), (raw_request(server, one, "X-Request-Timeout-Ms: 9000", "X: y"), 200)):
        with socket.create_connection(("127.0.0.1", server.http)) as client:
            client.sendall(first + broken)
            assert [found for found, _ in responses(client, 2)] == [status]
    with socket.create_connection(("127.0.0.1", server.http)) as client:  # answered before it broke: once
        client.sendall(broken.replace(b"Host: x", b"Content-Type: text/xml").removesuffix(b"zz\r\n") + b"1\r\na\r\n")
        assert [found for found, _ in responses(client, 1)] == [415]
        client.sendall(b"zz\r\n")
        assert client.recv(1000) == b""
    with socket.create_connection(("127.0.0.1", server.http)) as client:
        named = raw_request(server, one, "X-Request-Id: second", path="/v2/models/insects/infer")
        client.sendall(raw_request(server, one, "X-Request-Id: first") + named)
        assert [status for status, _ in responses(client, 2)] == [200, 400]
    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=30)
    assert server.process.returncode == 0 and "Traceback" not in output and "ERROR" not in output, output
    logged = [json.loads(line[line.index("{") :]) for line in output.splitlines() if "boatyard.access" in line]
    paths = {line["request_id"]: line["path"] for line in logged if "request_id" in line}
    assert paths == {"first": "/v1/models/insects:predict", "second": "/v2/models/insects/infer"}


def test_a_client_that_does_not_read_is_not_written_to_for_ever(servers: dict[str, Running]) -> None:
    with socket.socket() as client:
        stuck(servers["image"], client)


@pytest.mark.slow
def test_a_client_that_does_not_read_is_let_go(servers: dict[str, Running]) -> None:
    server = servers["image"]
    with socket.socket() as client:
        stuck(server, client)
        process, mine = psutil.Process(server.process.pid), client.getsockname()[1]

        def there() -> bool:
            return any(each.raddr and each.raddr.port == mine for each in process.connections("tcp"))

        assert there()
        until(lambda: not there(), 40)


def stuck(server: Running, client: socket.socket) -> None:
    """Ask without reading until the server reads no more; the answer is much larger than what asks for it."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.http))
    request = raw_request(server, json.dumps({"instances": [[[0] * 5] * 6] * 900}).encode())
    for _ in range(400):
        before = counts(server)["rows", ""]
        client.sendall(request)
        try:
            until(lambda before=before: counts(server)["rows", ""] > before, 1)
        except AssertionError:
            return
    raise AssertionError("the server kept all answers")


def test_a_body_over_the_limit_is_refused_however_it_comes(tmp_path: Path) -> None:
    server = ready(launch(graphs.package(tmp_path / "p", SCHEMAS["image"]), "--body-limit", "10000"))
    body = json.dumps({"instances": [GREY] * 300}).encode()
    packed = gzip.compress(body)
    head = b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    with socket.create_connection(("127.0.0.1", server.http)) as client:
        client.sendall(b"%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body))
        assert responses(client, 1)[0][0] == 413
    with socket.create_connection(("127.0.0.1", server.http)) as client:
        client.sendall(b"%bContent-Encoding: gzip\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (head, len(packed), packed))
        assert responses(client, 1)[0][0] == 413
    server.process.terminate()
    server.process.communicate(timeout=30)


def test_a_client_that_asks_to_close_is_answered_and_closed(servers: dict[str, Running]) -> None:
    server, body = servers["image"], json.dumps({"instances": [GREY]}).encode()
    with socket.create_connection(("127.0.0.1", server.http)) as client:
        client.sendall(raw_request(server, body, "Connection: close"))
        assert responses(client, 2)[0][0] == 200
        assert client.recv(1) == b""


def test_headers_without_end_are_refused(servers: dict[str, Running]) -> None:
    for lines in (b"X-Long: " + b"a" * 100_000, b"\r\n".join(b"X-%d: a" % index for index in range(500))):
        with socket.create_connection(("127.0.0.1", servers["image"].http)) as client:
            client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + lines)
            assert responses(client, 1)[0][0] == 431


def test_headers_that_come_at_once_are_held_to_the_same_limit(servers: dict[str, Running]) -> None:
    for bytes_, status in ((60_000, 200), (70_000, 431), (200_000, 431)):
        for request in (
            f"GET /v2 HTTP/1.1\r\nX-Long: {'a' * bytes_}\r\n\r\n",
            f"GET /v2?{'a' * bytes_} HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", servers["image"].http)) as client:
                client.sendall(request.encode())
                assert responses(client, 1)[0][0] == status


@pytest.mark.slow
def test_clients_that_stop_halfway_are_told_and_let_go(servers: dict[str, Running]) -> None:
    """In the first request, or in a second, sent later or with the first; all at once, for each waits long."""
    server = servers["image"]
    asked = raw_request(server, json.dumps({"instances": [GREY]}).encode())
    short, long = b"Content-Length: 9\r\n\r\n{", b"Content-Length: 9\r\n" + LONG + b"\r\n\r\n{"
    first, second = (START, b"P", START + short, START + long), b"POST /v1/mod"
    with contextlib.ExitStack() as stack:

        def client(sends: bytes) -> socket.socket:
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", server.http), timeout=45))
            opened.sendall(sends)
            return opened

        clients = {sends: client(sends) for sends in (*first, asked, asked + second)}
        for sends in (asked, asked + second):
            assert responses(clients[sends], 1)[0][0] == 200
        clients[asked].sendall(second)
        for sends, each in clients.items():
            assert each.recv(1000).startswith(b"HTTP/1.1 408 "), sends
            assert each.recv(1) == b"", sends


def test_a_name_that_no_url_takes_is_refused_at_once(tmp_path: Path) -> None:
    server = launch(graphs.package(tmp_path / "p", SCHEMAS["image"]), "--name", "a/b c")
    output, _ = server.process.communicate(timeout=30)
    assert server.process.returncode == 1
    assert "found 'a/b c'" in output and "Traceback" not in output


def test_health_and_reflection_answer_over_grpc(servers: dict[str, Running]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{servers['image'].grpc}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        listed = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert {"grpc.health.v1.Health", "inference.GRPCInferenceService"} <= set(listed)


def test_a_body_over_the_limit_is_refused_before_it_is_read(servers: dict[str, Running]) -> None:
    server = servers["image"]
    with socket.create_connection(("127.0.0.1", server.http)) as client:
        client.sendall(b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
    chunks = (b"[" * 100_000 for _ in range(20))
    with contextlib.suppress(httpx.TransportError):  # refused while this side was still writing
        assert "at most 1048576 bytes" in refused(CLIENT.post(server.v1, content=chunks), 413)
    assert CLIENT.post(server.v1, json={"instances": [GREY]}).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\0\1\2\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{",
        b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/models/\xff\xfe:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"GET /v1/models/insects HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"A" * 200_000,
    ],
    ids=range(9),
)
def test_a_broken_connection_breaks_nothing_else(servers: dict[str, Running], data: bytes) -> None:
    server = servers["image"]
    address = ("127.0.0.1", server.http)
    with socket.create_connection(address, timeout=2) as client, contextlib.suppress(OSError):  # may hang up on us
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert not client.recv(1000).startswith(b"HTTP/1.1 5")
    assert CLIENT.post(server.v1, json={"instances": [GREY]}).status_code == 200


KEYS = ["instances", "inputs", "image", "b64", "name", "shape", "data", "parameters", "outputs", "id"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["image", 7])
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=ANYTHING, key=st.sampled_from(["instances", "inputs", "outputs", "shape", "data", "parameters", None]))
def test_no_json_makes_the_server_fail(servers: dict[str, Running], value: Any, key: str | None) -> None:
    bodies: list[Any] = [value]
    if key in ("instances", "inputs"):
        bodies = [{key: value}, {key: [value]}]
    elif key == "outputs":
        bodies = [{**v2_image(), key: value}]
    elif key is not None:
        bodies = [v2_image(**{key: value})]
    for body in bodies:
        for url in (servers["image"].v1, servers["image"].v2):
            response = CLIENT.post(url, content=json.dumps(body).encode())
            if response.status_code != 200:
                refused(response)


# gRPC


@pytest.fixture
def stub(servers: dict[str, Running]) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{servers['image'].grpc}") as channel:
        yield GRPCInferenceServiceStub(channel)


def infer(*, model: str = "insects", raw: list[bytes] | None = None, outputs: Any = (), **changes: Any) -> Any:
    entry = {"name": "image", "datatype": "UINT8", "shape": [1, 6, 5], **changes}
    if raw is None and "contents" not in entry:
        entry["contents"] = {"uint_contents": [7] * 30}
    return pb.ModelInferRequest(model_name=model, inputs=[entry], raw_input_contents=raw, outputs=outputs)


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (infer(model="birds"), "NOT_FOUND", "expected model insects, found 'birds'"),
        (infer(name="img"), "INVALID_ARGUMENT", "expected an input of image, found 'img'"),
        (infer(datatype="FP32"), "INVALID_ARGUMENT", "expected datatype UINT8, found 'FP32'"),
        (infer(shape=[-1, 6, 5]), "INVALID_ARGUMENT", "expected shape [rows, 6, 5], found [-1, 6, 5]"),
        (infer(shape=[2, 6, 5]), "INVALID_ARGUMENT", "expected a list of 60, found a list of 30"),
        (infer(contents={"uint_contents": [300] * 30}), "INVALID_ARGUMENT", "found 300"),
        (
            infer(contents={"fp32_contents": [3] * 30}),
            "INVALID_ARGUMENT",
            "expected uint_contents, found fp32_contents",
        ),
        (infer(contents={}), "INVALID_ARGUMENT", "expected a list of 30, found a list of 0"),
        (infer(raw=[bytes(29)]), "INVALID_ARGUMENT", "expected 30 bytes for shape [1, 6, 5], found 29"),
        (infer(raw=[bytes(30)] * 2), "INVALID_ARGUMENT", "expected raw_input_contents of 1 inputs, found 2"),
        (infer(raw=[bytes(30)], contents={"uint_contents": [7]}), "INVALID_ARGUMENT", "found both"),
        (infer(outputs=[{"name": "x"}]), "INVALID_ARGUMENT", "expected outputs of label, probabilities"),
        (pb.ModelInferRequest(model_name="insects"), "INVALID_ARGUMENT", "found no image"),
        (pb.ModelInferRequest(model_name="insects", model_version="7"), "NOT_FOUND", "expected version"),
        (infer(raw=[bytes(2 << 20)]), "RESOURCE_EXHAUSTED", "expected a message of at most"),
    ],
    ids=range(15),
)
def test_a_grpc_mistake_is_named(stub: Any, request_: Any, code: str, said: str) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(request_)
    assert (refusal.value.code().name, said in refusal.value.details()) == (code, True), refusal.value.details()


def test_grpc_metadata_and_readiness_are_real_and_its_repository_is_closed(stub: Any) -> None:
    found = stub.ModelMetadata(pb.ModelMetadataRequest(name="insects"))
    assert [(i.name, i.datatype, list(i.shape)) for i in found.inputs] == [("image", "UINT8", [-1, 6, 5])]
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="insects")).ready
    for act, request in (
        (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name="insects")),
        (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="insects")),
    ):
        with pytest.raises(grpc.RpcError) as refusal:
            act(request)
        assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert len(stub.ModelInfer(infer()).outputs) == 2


# Starting and stopping


def run(package: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving", "--package", str(package), "--host", "127.0.0.1", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_changed_package_is_not_served_and_the_file_is_named(servers: dict[str, Running], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(servers["image"].package.path, tmp_path / "copy"))
    data = bytearray((copy / "model.onnx").read_bytes())
    data[-1] ^= 1
    (copy / "model.onnx").write_bytes(data)
    result = run(copy)
    assert result.returncode == 1
    assert "model.onnx was changed" in result.stderr and "Traceback" not in result.stderr


def test_a_package_that_answers_a_golden_example_otherwise_is_not_served(
    servers: dict[str, Running], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(servers["image"].package.path, tmp_path / "copy"))
    golden = artifacts.read_json(copy / "golden.json")
    golden["predictions"][3]["probabilities"][0] += 2e-5
    artifacts.write_json(copy / "golden.json", golden)
    graphs.reseal(copy)
    result = run(copy)
    assert (result.returncode, "reference row 3: a probability is off by" in result.stderr) == (1, True)


def test_a_port_that_is_taken_is_said(servers: dict[str, Running]) -> None:
    server = servers["image"]
    http, rpc = str(server.http), str(server.grpc)
    for ports in (("--http-port", http), ("--http-port", str(free_port()), "--grpc-port", rpc)):
        result = run(server.package.path, *ports)
        assert (result.returncode, "cannot listen at" in result.stderr) == (1, True), result.stderr


def test_no_package_is_said(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "no package at" in result.stderr


def test_a_signal_flips_readiness_then_drains_then_ends_with_0(tmp_path: Path) -> None:
    server = ready(launch(graphs.package(tmp_path, graphs.image_schema((6, 5))), "--drain", "1"))
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert CLIENT.get(f"{server.url}/v2/health/ready").status_code == 503
    assert CLIENT.get(f"{server.url}/v2/models/insects/ready").status_code == 503
    assert CLIENT.get(f"{server.url}/v2/health/live").status_code == 200
    assert CLIENT.post(server.v1, json={"instances": [GREY]}).status_code == 200
    output, _ = server.process.communicate(timeout=20)
    assert (server.process.returncode, "stopped" in output) == (0, True)


def test_many_clients_at_once_all_get_their_own_answers(servers: dict[str, Running]) -> None:
    server, wrong = servers["image"], []

    def ask(seed: int) -> None:
        with httpx.Client() as client:
            for step in range(20):
                inputs = graphs.rows(server.package.schema, 1 + step % 5, seed=seed * 100 + step)
                body = {"instances": prediction.encode(server.package.schema, inputs)}
                found = of_v1(client.post(server.v1, json=body).json()["predictions"])
                try:
                    assert_same(found, expected(server, inputs))
                except AssertionError as error:
                    wrong.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_readiness_is_told_of_a_version_too_and_a_query_changes_nothing(servers: dict[str, Running]) -> None:
    server = servers["image"]
    name, version = server.package.name, server.package.digest
    for path in (f"v1/models/{name}", f"v2/models/{name}/ready", f"v2/models/{name}/versions/{version}/ready"):
        for query in ("", "?model_version=7"):  # KServe's own server fails at it
            found = CLIENT.get(f"{server.url}/{path}{query}")
            assert (found.status_code, found.json()) == (200, {"name": name, "ready": True})
    refused(CLIENT.get(f"{server.url}/v2/models/{name}/versions/7/ready"), 404)
    refused(CLIENT.post(f"{server.url}/v2/models/{name}/ready"), 405)
