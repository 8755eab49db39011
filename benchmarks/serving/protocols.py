"""Requests and answers: the same images in the words of each protocol, and answers as arrays, whoever gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from boatyard.data.schema import Array

METHOD = "/inference.GRPCInferenceService/ModelInfer"

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
ID = "1"  # KServe 0.21 answers 500 to a V2 request over REST that has none
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Question:
    """One request: where, what, and the headers that say how to read it."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


@dataclass(frozen=True)
class Answer:
    """Labels [N] and probabilities float64 [N, K]."""

    labels: list[str]
    probabilities: Array

    def difference(self, other: Answer) -> float:
        """Return the greatest difference of a probability; infinite when a label or the shape is another."""
        if self.labels != other.labels or self.probabilities.shape != other.probabilities.shape:
            return float("inf")
        return float(np.max(np.abs(self.probabilities - other.probabilities)))


def v1(images: Array, path: str) -> Question:
    """Ask as nested lists."""
    return Question(path, orjson.dumps({"instances": images}, option=orjson.OPT_SERIALIZE_NUMPY))


def v2(images: Array, path: str) -> Question:
    """Ask as a tensor whose data is a flat list."""
    entry = {**_about(images), "data": images.ravel()}
    return Question(path, orjson.dumps({"id": ID, "inputs": [entry]}, option=orjson.OPT_SERIALIZE_NUMPY))


def v2_binary(images: Array, path: str) -> Question:
    """Ask as a tensor whose bytes follow the JSON."""
    entry = {**_about(images), "parameters": {"binary_data_size": images.nbytes}}
    head = orjson.dumps({"id": ID, "inputs": [entry]})
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return Question(path, head + images.tobytes(), headers)


def ask(protocol: str, images: Array, path: str) -> Question:
    """Return the question in a server's protocol: v1, v2 or v2_binary."""
    return {"v1": v1, "v2": v2, "v2_binary": v2_binary}[protocol](images, path)


def grpc_request(images: Array) -> bytes:
    """Return a serialized ModelInferRequest with raw contents."""
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    request = pb.ModelInferRequest(model_name="fashion", inputs=[_about(images)], raw_input_contents=[images.tobytes()])
    data: bytes = request.SerializeToString()
    return data


def read(body: bytes) -> Answer:
    """Read an answer of V1, of V2 as JSON, or a bare list of predictions."""
    value: Any = orjson.loads(body)
    if isinstance(value, dict) and "outputs" in value:
        outputs = {output["name"]: output for output in value["outputs"]}
        labels = outputs["label"]["data"]
        probabilities = np.array(outputs["probabilities"]["data"], np.float64).reshape(len(labels), -1)
        return Answer(list(labels), probabilities)
    rows = value["predictions"] if isinstance(value, dict) else value
    return Answer([row["label"] for row in rows], np.array([row["probabilities"] for row in rows], np.float64))


def read_grpc(data: bytes) -> Answer:
    """Read a serialized ModelInferResponse with raw or typed contents."""
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    response = pb.ModelInferResponse.FromString(data)
    names = [output.name for output in response.outputs]
    raw = dict(zip(names, response.raw_output_contents, strict=False))
    typed = {output.name: output.contents for output in response.outputs}
    texts = _texts(raw["label"]) if raw else [text.decode() for text in typed["label"].bytes_contents]
    numbers = np.frombuffer(raw["probabilities"], "<f4") if raw else np.array(typed["probabilities"].fp32_contents)
    return Answer(texts, numbers.astype(np.float64).reshape(len(texts), -1))


def _about(images: Array) -> dict[str, Any]:
    return {"name": "image", "shape": list(images.shape), "datatype": DATATYPES[images.dtype.name]}


def _texts(data: bytes) -> list[str]:
    texts = []
    while data:
        size = int.from_bytes(data[:4], "little")
        texts.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return texts
