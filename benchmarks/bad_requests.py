"""Does the server refuse what is wrong, and only that? Generated requests, most of them wrong, over HTTP and gRPC.

    python benchmarks/bad_requests.py PACKAGE [COUNT] [SEED]      # 100 000 by default; CI's are fewer

Each request is a right one with a few changes: to its JSON value, its text, its bytes, its headers, its path. What the
V1 protocol should say of it is worked out here again, by a slow and plain reading of the schema, and held against the
answer: a right one is answered as the engine does, a wrong one gets a 4xx in the one shape. Nowhere a status of 500 or
more, a connection that hangs, or words of an exception; every fiftieth request is right and must get its answer.
Prints what came of each kind of change; exits 1 and prints the request (seed and bytes) when one fails.
"""

from __future__ import annotations

import copy
import json
import math
import random
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from boatyard import packages, prediction
from boatyard.data.schema import Field, Schema

GREATEST = float(np.finfo(np.float32).max)
PATIENCE = 10  # seconds without an answer are a hang
WORDS = re.compile(rb"Traceback|Error\b|Exception|site-packages|\.py\b|0x[0-9a-f]{8}")
JUNK: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    255,
    256,
    300,
    1.0,
    1.7,
    -0.0,
    1e39,
    -1e300,
    2**63,
    10**40,
    "",
    "x",
    "7",
]
JUNK += [[], {}, [[]], [1], {"b64": "AAAA"}, {"b64": 3}, {"image": []}, [[[1]]], "NaN", "é\U0001f600", "\0"]
RAW = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "01",
    "+1",
    ".5",
    "1.",
    "0x10",
    "--1",
    "tru",
    "'a'",
    "[" * 2000,
    "{" * 500,
]
RAW += ['{"a":' * 600, "1" * 5000, "\ufeff", "\x00", '"\\ud800"', "]", "}", ",", ":"]
KEYS = {"instances", "parameters", "signature_name"}
FINE = {grpc.StatusCode[name] for name in ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")}


@dataclass(frozen=True)
class Request:
    """A request's bytes; `rows` are the graph inputs that it is right with, None when it is wrong.

    `known` says whether that is worked out at all. `whole` is false where the client stops halfway.
    """

    kind: str
    data: bytes
    known: bool = True
    rows: dict[str, Any] | None = None
    whole: bool = True


@dataclass
class Findings:
    """What came of the requests so far."""

    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return a line a kind: how many, with which statuses."""
        kinds = sorted({kind for kind, _ in self.seen})
        lines = []
        for kind in kinds:
            of = {status: count for (name, status), count in sorted(self.seen.items()) if name == kind}
            lines.append(f"{kind:<18} {sum(of.values()):>7}   " + ", ".join(f"{n} {s}" for s, n in of.items()))
        return "\n".join(lines)


# What is right: the schema, read plainly


class Wrong(Exception):
    pass


def reading(schema: Schema, body: bytes) -> dict[str, Any] | None:
    """Return the graph inputs of a V1 body, None when it is wrong."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse)
        if not isinstance(value, dict) or not {"instances"} <= set(value) <= {
            "instances",
            "parameters",
            "signature_name",
        }:
            raise Wrong
        instances = value["instances"]
        if not isinstance(instances, list) or not instances:
            raise Wrong
        rows = [row_of(schema, instance) for instance in instances]
    except (Wrong, ValueError, RecursionError, OverflowError):
        return None
    columns = list(zip(*rows, strict=True))
    if schema.alone:
        return {schema.fields[0].name: np.array(columns[0])}
    tensors = {}
    for tensor in schema.tensors():
        of = [columns[[f.name for f in schema.fields].index(name)] for name in tensor.fields]
        array = np.array(of, object if tensor.dtype == "str" else np.float32)
        tensors[tensor.name] = array.T if tensor.shape else array[0]
    return tensors


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise Wrong
    return dict(pairs)


def refuse(text: str) -> None:
    raise Wrong


def row_of(schema: Schema, instance: Any) -> list[Any]:
    fields = schema.fields
    if schema.alone:
        return [image_of(fields[0], instance)]
    if isinstance(instance, dict):
        if not set(instance) <= {f.name for f in fields}:
            raise Wrong
        if any(f.name not in instance and not f.nullable for f in fields):
            raise Wrong
        instance = [instance.get(f.name) for f in fields]
    if not isinstance(instance, list) or len(instance) != len(fields):
        raise Wrong
    return [cell_of(f, value) for f, value in zip(fields, instance, strict=True)]


def image_of(f: Field, value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {f.name}:
        value = value[f.name]
    if isinstance(value, dict):
        raise Wrong if set(value) != {"b64"} or not isinstance(value["b64"], str) else Unknown
    for side, depth in zip(f.shape, range(len(f.shape)), strict=True):
        level = [value]
        for _ in range(depth):
            level = [inner for each in level for inner in each]
        if any(not isinstance(each, list) or len(each) != side for each in level):
            raise Wrong
    flat = np.array(value, object).ravel().tolist()
    for number in flat:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise Wrong
        if not 0 <= number <= 255 or number != int(number):
            raise Wrong
    return np.array(flat, np.uint8).reshape(f.shape)


def cell_of(f: Field, value: Any) -> Any:
    if value is None:
        if not f.nullable:
            raise Wrong
        return math.nan if f.kind == "number" else ""
    if f.kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= GREATEST:
            raise Wrong
        number = np.float32(value)
        low, high = f.minimum, f.maximum
        if (low is not None and number < np.float32(low)) or (high is not None and number > np.float32(high)):
            raise Wrong
        return number
    if not isinstance(value, str) or (value == "" and not f.nullable):
        raise Wrong
    return value


class Unknown(Exception):
    """Base64: whether it is a picture is not worked out here."""


# Requests


class Maker:
    """Makes requests for one package; the same ones from the same seed."""

    def __init__(self, package: packages.Package, seed: int) -> None:
        self.package, self.schema, self.chance = package, package.schema, random.Random(seed)
        self.instances = [_lists(package, index) for index in range(len(package.golden))]
        self.kinds: list[Callable[[], Request]] = [
            self.values, self.values, self.texts, self.octets, self.tensors, self.binary, self.heads, self.paths,
            self.lines, self.depths,
        ]  # fmt: skip

    def next(self, number: int) -> Request:
        return self.right() if number % 50 == 0 else self.chance.choice(self.kinds)()

    def right(self) -> Request:
        return self._v1("right", json.dumps(self._good()).encode())

    def values(self) -> Request:
        """Change the JSON value."""
        value = self._good()
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            value = changed(value, self.chance)
        return self._v1("JSON value", json.dumps(value, allow_nan=True).encode())

    def texts(self) -> Request:
        """Change the JSON text."""
        text = json.dumps(self._good())
        at = self.chance.randrange(len(text))
        cut = at + self.chance.choice((0, 1, 1, 5, 100))
        text = text[:at] + self.chance.choice((*RAW, "", '"instances":[],')) + text[cut:]
        return self._v1("JSON text", text.encode("utf-8", "surrogatepass"))

    def depths(self) -> Request:
        """Nest a value as deep as parsers and stacks still go, or just not."""
        depth = self.chance.choice((self.chance.randrange(1, 1100), self.chance.randrange(950, 1030)))
        opens, closes = self.chance.choice((("[", "]"), ('{"a":', "}"), ('{"a":1,"a":', "}"), ("[[],", "]")))
        key = self.chance.choice(("instances", "inputs", "parameters", "id"))
        path = self.chance.choice((self._predict(), f"/v2/models/{self.package.name}/infer"))
        body = f'{{"{key}":{opens * depth}1{closes * depth}}}'
        return Request("deep JSON", self._post(path, body.encode()), known=False)

    def octets(self) -> Request:
        """Change the bytes of a body."""
        body = bytearray(json.dumps(self._good()).encode())
        for _ in range(self.chance.choice((1, 1, 4))):
            body[self.chance.randrange(len(body))] = self.chance.randrange(256)
        body = body[: self.chance.choice((len(body), len(body), self.chance.randrange(len(body))))]
        return self._v1("bytes", bytes(body))

    def tensors(self) -> Request:
        """Change a V2 JSON request."""
        value = changed(self._v2(), self.chance)
        body = json.dumps(value if self.chance.random() < 0.7 else changed(value, self.chance)).encode()
        return Request("V2 JSON", self._post(f"/v2/models/{self.package.name}/infer", body), known=False)

    def binary(self) -> Request:
        """Change a V2 request with binary tensors: its sizes, its header, its bytes."""
        value, tails = self._v2(), b""
        for entry in value["inputs"]:
            tail = self.chance.randbytes(self.chance.choice((0, 1, 4, 29, 30, 31, 784)))
            del entry["data"]
            entry["parameters"] = {
                "binary_data_size": self.chance.choice((len(tail), len(tail), 0, -1, 2**40, "4", None))
            }
            tails += tail
        if self.chance.random() < 0.5:
            value = changed(value, self.chance)
        head = json.dumps(value).encode()
        length = self.chance.choice(
            (len(head), len(head), len(head) - 1, 0, -1, 10**12, "x", len(head) + len(tails) + 1)
        )
        data = self._post(
            f"/v2/models/{self.package.name}/infer", head + tails, f"Inference-Header-Content-Length: {length}"
        )
        return Request("V2 binary", data, known=False)

    def heads(self) -> Request:
        """Change the headers of a right request."""
        body = json.dumps(self._good()).encode()
        wrong = self.chance.choice(
            (
                "Content-Type: text/xml", "Content-Type: application/json; charset=utf-16", "Content-Encoding: br",
                "Content-Encoding: gzip", "Content-Encoding: zstd", "X-Request-Timeout-Ms: soon",
                "X-Request-Timeout-Ms: -1", "X-Envoy-Expected-Rq-Timeout-Ms: 1e3", "Content-Type: image/gif",
            )
        )  # fmt: skip
        return Request("headers", self._post(self._predict(), body, wrong))

    def paths(self) -> Request:
        """Ask another path or by another method."""
        name = self.package.name
        paths = (f"/v1/models/{name}", f"/v1/models/{name}:explain", "/v1/models/none:predict", "/v2/models/none/infer")
        paths += (f"/v2/models/{name}/versions/9/infer", "/v2/repository/index", f"/v2/repository/models/{name}/unload")
        paths += (
            "/v3",
            "/%00",
            "/..%2f..%2fetc/passwd",
            "//",
            "/v1/models/%ff:predict",
            "/" + "a" * 3000,
            "/openapi.json",
        )
        body = json.dumps(self._good()).encode()
        method = self.chance.choice(("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"))
        return Request("paths", self._post(self.chance.choice(paths), body, method=method))

    def lines(self) -> Request:
        """Send what is no HTTP, or only a part of it, or two lengths at once."""
        body = json.dumps(self._good()).encode()
        whole = self._post(self._predict(), body)
        start = f"POST {self._predict()} HTTP/1.1\r\nHost: x\r\n".encode()
        made = self.chance.choice(
            (
                whole[: self.chance.randrange(1, len(whole))],
                self.chance.randbytes(60) + b"\r\n\r\n",
                start + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
                start + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
                start + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
                start + b"Content-Length: -1\r\n\r\n",
                start + b"Content-Length: 1e3\r\n\r\n",
                start + b"Content-Length: 99999999999999999999999\r\n\r\n",
                start + b"Content-Length : 5\r\n\r\nabcde",
                start + b" folded\r\nContent-Length: 2\r\n\r\n{}",
                start + b"X-\0: 1\r\n\r\n",
                start + b"X-Big: " + b"a" * 70_000 + b"\r\n\r\n",
                start + b"A: 1\r\n" * 200 + b"\r\n",
                start.replace(b"HTTP/1.1", b"HTTP/3.7") + b"\r\n",
                start.replace(b"POST", b"BREW") + b"\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET http://x:bad/ HTTP/1.1\r\nHost: x\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            )
        )  # fmt: skip
        return Request("no HTTP", made, known=False, whole=False)

    def call(self) -> bytes:
        """Return a changed gRPC ModelInfer request, as bytes."""
        request = pb.ModelInferRequest(model_name=self.chance.choice((self.package.name,) * 4 + ("", "none")))
        for tensor in self.schema.tensors():
            shape = self.chance.choice(([1, *tensor.shape],) * 3 + ([], [-1, *tensor.shape], [0], [2**62, 4], [1, 1]))
            kinds = ("UINT8", "FP32", "BYTES", "FP32", "INT8", "", "fp32")
            entry = request.inputs.add(name=self.chance.choice((tensor.name,) * 4 + ("", "other")), shape=shape)
            entry.datatype = self.chance.choice(kinds)
            size = self.chance.choice((0, 1, math.prod(tensor.shape), math.prod(tensor.shape) * 4, 7))
            if self.chance.random() < 0.5:
                request.raw_input_contents.append(self.chance.randbytes(size))
            elif entry.datatype == "FP32":
                entry.contents.fp32_contents.extend([self.chance.choice((1.0, math.nan, math.inf, -1e38))] * size)
            else:
                entry.contents.uint_contents.extend([self.chance.choice((1, 300, 2**32 - 1))] * size)
        if self.chance.random() < 0.2:
            request.outputs.add(name=self.chance.choice(("label", "value", "none", "")))
        data = bytearray(request.SerializeToString())
        if data and self.chance.random() < 0.3:
            data[self.chance.randrange(len(data))] = self.chance.randrange(256)
        return bytes(data)

    def _good(self) -> dict[str, Any]:
        rows = self.chance.choices(self.instances, k=self.chance.choice((1, 1, 1, 2, 5)))
        return {"instances": copy.deepcopy(rows)}

    def _v2(self) -> dict[str, Any]:
        names = {"uint8": "UINT8", "float32": "FP32", "str": "BYTES"}
        entries = []
        for tensor in self.schema.tensors():
            data = self.package.golden.inputs[tensor.name][:1]
            values = [None if value != value else value for value in data.ravel().tolist()]
            entries.append(
                {"name": tensor.name, "datatype": names[tensor.dtype], "shape": [1, *tensor.shape], "data": values}
            )
        return {"id": "a", "inputs": entries, "outputs": []}

    def _v1(self, kind: str, body: bytes) -> Request:
        data = self._post(self._predict(), body, *self.chance.choice(([], ["Content-Type: application/json"])))
        try:
            return Request(kind, data, rows=reading(self.schema, body))
        except Unknown:
            return Request(kind, data, known=False)

    def _predict(self) -> str:
        return f"/v1/models/{self.package.name}:predict"

    def _post(self, path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode("latin-1") + body


def changed(value: Any, chance: random.Random) -> Any:
    """Return a JSON value with one place changed, put elsewhere, added or taken away."""
    places = [(None, None)]
    _places(value, places)
    parent, key = chance.choice(places[-2000:] if chance.random() < 0.5 else places[:6])
    junk = copy.deepcopy(chance.choice(JUNK))
    if parent is None:
        return junk if chance.random() < 0.3 else value
    way = chance.randrange(4)
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, list):
        parent.insert(key, junk)
    elif way == 1:
        parent[chance.choice(("extra", "Instances", "name ", ""))] = junk
    elif way == 2:
        parent[key] = [parent[key]]
    else:
        parent[key] = junk
    return value


def _places(value: Any, found: list[Any]) -> None:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        _places(value[key], found)


def _lists(package: packages.Package, index: int) -> Any:
    """Return a golden row as nested lists or as an object of columns."""
    if package.schema.alone:
        return package.golden.inputs[package.schema.fields[0].name][index].tolist()
    return prediction.encode(package.schema, {k: v[index : index + 1] for k, v in package.golden.inputs.items()})[0]


# Sending


class Client:
    """One connection, opened again when the server closed it."""

    def __init__(self, port: int) -> None:
        self.port, self.socket = port, None

    def ask(self, request: Request) -> tuple[int, bytes]:
        """Return the status and body of the answer; (0, b"") when the connection was closed without one."""
        for attempt in (1, 2):
            fresh = self.socket is None
            if self.socket is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.socket.sendall(request.data)
                if not request.whole:
                    with suppress(OSError):  # refused and closed before all of it was sent: its answer is still there
                        self.socket.shutdown(socket.SHUT_WR)
                found = self._answer()
            except (BrokenPipeError, ConnectionResetError):
                found = None
            if found is None or not request.whole:
                self.close()
            if found or fresh or attempt == 2:
                return found or (0, b"")
        raise AssertionError

    def close(self) -> None:
        if self.socket:
            self.socket.close()
        self.socket = None

    def _answer(self) -> tuple[int, bytes] | None:
        assert self.socket
        data = b""
        while True:
            head, split, rest = data.partition(b"\r\n\r\n")
            size = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            if split and size and len(rest) >= int(size[1]):
                if re.search(rb"\r\nconnection: close", head, re.IGNORECASE):
                    self.close()
                return int(head.split()[1]), rest[: int(size[1])]
            more = self.socket.recv(1 << 20)
            if not more:
                return None
            data += more


def judge(request: Request, status: int, body: bytes, engine: prediction.Engine) -> str | None:
    """Return what is wrong with an answer, None when nothing is."""
    if status >= 500:
        return f"status {status}"
    if status == 0:
        return None if not request.whole else "closed without an answer"
    if status >= 400:
        if request.known and request.rows is not None:
            return f"a right request was refused: {body[:200]!r}"
        shape = json.loads(body)
        if set(shape) != {"error"} or not isinstance(shape["error"], str) or WORDS.search(body):
            return f"another shape: {body[:200]!r}"
        return None
    if not request.known or request.kind == "paths":
        return None
    if request.rows is None:
        return f"a wrong request was answered: {body[:200]!r}"
    wanted, found = engine.run(request.rows).to_v1(), json.loads(body)["predictions"]
    return None if same(wanted, found) else f"expected {wanted}, found {found}"


def same(wanted: list[Any], found: list[Any]) -> bool:
    if len(wanted) != len(found):
        return False
    for a, b in zip(wanted, found, strict=True):
        if isinstance(a, dict):
            if a["label"] != b["label"] or not np.allclose(a["probabilities"], b["probabilities"], atol=1e-5):
                return False
        elif not np.isclose(a, b, rtol=1e-5, atol=1e-5):
            return False
    return True


def over_http(package: packages.Package, port: int, count: int, seed: int, findings: Findings) -> None:
    """Send so many requests over one connection at a time."""
    maker, client = Maker(package, seed), Client(port)
    engine = prediction.OnnxRuntime(package.graph, package.schema, threads=1)
    for number in range(count):
        request = maker.next(number)
        try:
            status, body = client.ask(request)
            said = judge(request, status, body, engine)
        except (OSError, json.JSONDecodeError) as error:  # of these, most likely: no answer in time
            status, said = -1, f"{type(error).__name__}: {error}"
            client.close()
        findings.seen[request.kind, str(status or "closed")] += 1
        if said:
            findings.wrong.append(f"seed {seed}, request {number}, {request.kind}: {said}\n  {request.data[:3000]!r}")
    client.close()


def over_grpc(package: packages.Package, port: int, count: int, seed: int, findings: Findings) -> None:
    """Call ModelInfer so often with what may be wrong; nothing but a client's codes may come."""
    maker = Maker(package, seed)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for number in range(count):
            data = maker.call()
            try:
                call(data, timeout=PATIENCE)
                code, said = grpc.StatusCode.OK, ""
            except grpc.RpcError as error:
                code, said = error.code(), error.details() or ""
            findings.seen["gRPC", code.name] += 1
            if code is not grpc.StatusCode.OK and (code not in FINE or WORDS.search(said.encode())):
                findings.wrong.append(f"seed {seed}, call {number}, gRPC: {code} {said[:200]}\n  {data[:3000]!r}")
            elif code is grpc.StatusCode.OK and not _reads(data):
                findings.wrong.append(
                    f"seed {seed}, call {number}, gRPC: answered what is no request\n  {data[:3000]!r}"
                )


def _reads(data: bytes) -> bool:
    try:
        pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return False
    return True


def attack(package: packages.Package, http: int, rpc: int, count: int, seed: int, clients: int = 4) -> Findings:
    """Send `count` requests, an eighth of them over gRPC, by several clients at once."""
    findings, calls = Findings(), count // 8
    share = (count - calls) // clients
    works = [threading.Thread(target=over_grpc, args=(package, rpc, calls, seed, findings))]
    for number in range(clients):
        works.append(threading.Thread(target=over_http, args=(package, http, share, seed * 1000 + number, findings)))
    for work in works:
        work.start()
    for work in works:
        work.join()
    return findings


def main(folder: Path, count: int = 100_000, seed: int = 0) -> int:
    from answers import server

    package = packages.verify(folder)
    with server(package) as (url, address):
        found = attack(package, int(url.rpartition(":")[2]), int(address.rpartition(":")[2]), count, seed)
    print(found.table())
    print("\n".join(found.wrong[:20]) or "nothing wrong")
    print(f"{sum(found.seen.values())} requests, {len(found.wrong)} wrong answers")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
