"""Are the served answers those of the report? Every test row, by every protocol, against predictions.parquet.

    python benchmarks/answers.py PACKAGE DATASET [ROWS A REQUEST]

Serves the package on loopback in a process of its own and prints, by protocol, the rows whose label differs and the
greatest difference of a probability (or of a value, relative). Exits 1 when a label differs or a number by more than
1e-5.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pyarrow.parquet as pq
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from boatyard import packages, prediction
from boatyard.data import datasets
from boatyard.prediction import Answers
from boatyard.serving import v2

TOLERANCE = 1e-5


def main(package: Path, dataset: Path, size: int = 250) -> int:
    found, test = packages.verify(package), datasets.read(dataset).load("test")
    report = pq.read_table(package / "report" / "predictions.parquet")
    assert report["row"].to_pylist() == test.rows.tolist(), "the dataset is not the one that the report is on"
    good = True
    with server(found) as (url, address):
        for protocol, ask in protocols(found, url, address).items():
            started = time.monotonic()
            answers = [ask(part.inputs) for part in test.split(size)]
            seconds = time.monotonic() - started
            labels, off = compare(answers, report)
            good &= not labels and off <= TOLERANCE
            said = f"{labels} labels differ, greatest difference {off:.2g}, {seconds:.1f} s"
            print(f"{protocol:<10} {len(test)} rows, {size} a request: {said}")
    return 0 if good else 1


def compare(parts: list[Answers], report: Any) -> tuple[int, float]:
    """Return how many labels differ and by how much a number at most."""
    if parts[0].values is not None:
        wanted = np.array(report["value"].to_pylist(), np.float64)
        found = np.concatenate([part.values for part in parts if part.values is not None])
        return 0, float(np.max(np.abs(found - wanted) / np.maximum(1, np.abs(wanted))))
    labels = [label for part in parts if part.labels is not None for label in part.labels]
    probabilities = np.concatenate([part.probabilities for part in parts if part.probabilities is not None])
    differ = sum(a != b for a, b in zip(labels, report["label"].to_pylist(), strict=True))
    return differ, float(np.max(np.abs(probabilities - np.array(report["probabilities"].to_pylist()))))


def protocols(package: packages.Package, url: str, address: str) -> dict[str, Any]:
    """Return, by protocol, a function from graph inputs to answers."""
    schema, name = package.schema, package.name
    client = httpx.Client(timeout=60)
    stub = GRPCInferenceServiceStub(grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]))

    def v1(inputs: Any) -> Answers:
        field = schema.fields[0].name
        instances = inputs[field].tolist() if schema.alone else prediction.encode(schema, inputs)
        response = client.post(f"{url}/v1/models/{name}:predict", json={"instances": instances}).raise_for_status()
        values = response.json()["predictions"]
        if not isinstance(values[0], dict):
            return Answers({"value": np.array(values)})
        return Answers({name: np.array([v[name] for v in values]) for name in ("label", "probabilities")})

    def v2_json(inputs: Any) -> Answers:
        entries = [{**about(tensor, inputs), "data": plain(inputs[tensor.name])} for tensor in schema.tensors()]
        outputs = (
            client.post(f"{url}/v2/models/{name}/infer", json={"inputs": entries}).raise_for_status().json()["outputs"]
        )
        return answers({o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in outputs})

    def v2_binary(inputs: Any) -> Answers:
        tails = [v2.to_bytes(inputs[tensor.name]) for tensor in schema.tensors()]
        sized = zip(schema.tensors(), tails, strict=True)
        entries = [{**about(t, inputs), "parameters": {"binary_data_size": len(tail)}} for t, tail in sized]
        head = json.dumps({"inputs": entries, "parameters": {"binary_data_output": True}}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        response = client.post(f"{url}/v2/models/{name}/infer", content=head + b"".join(tails), headers=headers)
        length = int(response.raise_for_status().headers["inference-header-content-length"])
        described, place, found = json.loads(response.content[:length])["outputs"], length, {}
        for output in described:
            size = output["parameters"]["binary_data_size"]
            found[output["name"]] = raw(output, response.content[place : place + size])
            place += size
        return answers(found)

    def v2_grpc(inputs: Any) -> Answers:
        entries = [about(tensor, inputs) for tensor in schema.tensors()]
        tails = [v2.to_bytes(inputs[tensor.name]) for tensor in schema.tensors()]
        response = stub.ModelInfer(pb.ModelInferRequest(model_name=name, inputs=entries, raw_input_contents=tails))
        pairs = zip(response.outputs, response.raw_output_contents, strict=True)
        return answers({o.name: raw({"datatype": o.datatype, "shape": list(o.shape)}, data) for o, data in pairs})

    return {"V1": v1, "V2 JSON": v2_json, "V2 binary": v2_binary, "gRPC": v2_grpc}


def about(tensor: Any, inputs: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": v2.DATATYPES[tensor.dtype], "shape": list(inputs[tensor.name].shape)}


def plain(array: Any) -> list[Any]:
    """Return a flat list; NaN, which JSON has not, as null."""
    return [None if value != value else value for value in array.ravel().tolist()]


def raw(output: dict[str, Any], data: bytes) -> Any:
    if output["datatype"] == "FP32":
        return np.frombuffer(data, np.float32).reshape(output["shape"])
    texts = []
    while data:
        size = int.from_bytes(data[:4], "little")
        texts.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return np.array(texts)


def answers(outputs: dict[str, Any]) -> Answers:
    if "value" in outputs:
        return Answers({"value": outputs["value"]})
    return Answers({name: outputs[name] for name in ("label", "probabilities")})


@contextlib.contextmanager
def server(package: packages.Package, *more: str) -> Iterator[tuple[str, str]]:
    """Serve a package on free ports; give its URL and its gRPC address."""
    http, rpc = (port() for _ in range(2))
    options = ["--package", str(package.path), "--host", "127.0.0.1", "--http-port", str(http), "--grpc-port", str(rpc)]
    options += more
    process = subprocess.Popen([sys.executable, "-m", "boatyard.serving", *options], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{http}/v2/health/ready").raise_for_status()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{http}", f"127.0.0.1:{rpc}"
    finally:
        process.terminate()
        process.wait(30)


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        number: int = found.getsockname()[1]
        return number


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])))
