"""The parts of the serving benchmark that a wrong number could come from."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.serving import load, protocols
from benchmarks.serving.environments import Unequal
from benchmarks.serving.load import Cell
from benchmarks.serving.ratios import Ratio, against_best, interleaved

SCRIPT = Path(load.__file__).parent / "open_loop.py"


class Stalling(BaseHTTPRequestHandler):
    """Answers at once, but nobody for half a second in the middle of a second."""

    protocol_version = "HTTP/1.1"
    begun = 0.0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        begun = Stalling.begun = Stalling.begun or time.monotonic()
        time.sleep(max(0.0, begun + 0.8 - time.monotonic()) if time.monotonic() > begun + 0.3 else 0)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stalling() -> Iterator[int]:
    Stalling.begun = 0.0
    with ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def opened(tmp_path: Path, port: int, **more: Any) -> dict[str, Any]:
    (tmp_path / "body").write_bytes(b"{}")
    plan = {"port": port, "path": "/", "headers": {}, "rate": 100, "seconds": 1, "bodies": [str(tmp_path / "body")]}
    done = subprocess.run([sys.executable, SCRIPT], input=json.dumps(plan | more), capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_open_loop_charges_a_stall_to_all_that_was_due_in_it(stalling: int, tmp_path: Path) -> None:
    found = opened(tmp_path, stalling)
    assert found["ends"] == {"200": round(found["offered"])}
    assert found["p50"] < found["p90"]
    assert found["p90"] > 250  # half of the second stood still: the unlucky tenth waited most of it


def test_an_open_loop_gives_up_what_comes_too_late(stalling: int, tmp_path: Path) -> None:
    found = opened(tmp_path, stalling, patience=0.1)
    assert found["ends"]["given up"] > 10
    assert found["good"] < 90
    assert sum(found["ends"].values()) == round(found["offered"])


def test_an_open_loop_says_that_nobody_listens(tmp_path: Path) -> None:
    found = opened(tmp_path, 9, seconds=0.2)
    assert set(found["ends"]) == {"refused"}
    assert found["p50"] is None


def test_every_server_is_measured_as_often_and_at_every_place() -> None:
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return len(order)

    found = interleaved(["a", "b", "c"], 3, measure)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert found["a"] == [1, 6, 8]


def test_the_best_peer_is_the_best_of_each_repetition() -> None:
    assert against_best([10, 10], {"a": [1, 5], "b": [2, 4]}) == (5, 2)
    assert against_best([1, 1], {"a": [2, 5], "b": [4, 4]}, min) == (0.5, 0.25)


def test_a_ratio_is_kept_by_its_median() -> None:
    assert Ratio("rate", "peer", (7, 8, 9), 8).kept
    assert not Ratio("p99", "peer", (0.1, 0.3, 0.5), 0.2, low=True).kept


def test_a_cell_with_an_error_does_not_count() -> None:
    with pytest.raises(Unequal, match="1 errors in 100 requests"):
        Cell(rate=1, p50=1, p90=1, p99=1, greatest=1, errors=1, generator=0, server=0, answers=100)


def test_answers_of_all_protocols_are_read_alike() -> None:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    rows = [{"label": "a", "probabilities": [0.75, 0.25]}, {"label": "é", "probabilities": [0.5, 0.5]}]
    outputs = [{"name": "label", "data": ["a", "é"]}, {"name": "probabilities", "data": [0.75, 0.25, 0.5, 0.5]}]
    texts, numbers = b"\x01\0\0\0a\x02\0\0\0\xc3\xa9", np.array([0.75, 0.25, 0.5, 0.5], "<f4").tobytes()
    names = [pb.ModelInferResponse.InferOutputTensor(name=name) for name in ("label", "probabilities")]
    found = [
        protocols.read(json.dumps({"predictions": rows}).encode()),
        protocols.read(json.dumps(rows).encode()),
        protocols.read(json.dumps({"outputs": outputs}).encode()),
        protocols.read_grpc(
            pb.ModelInferResponse(outputs=names, raw_output_contents=[texts, numbers]).SerializeToString()
        ),
    ]
    assert [each.difference(found[0]) for each in found] == [0, 0, 0, 0]
    assert found[0].difference(protocols.read(json.dumps(rows[:1]).encode())) == float("inf")


def test_a_refusal_over_grpc_counts_as_an_error() -> None:
    said = "requests: 9 total, 9 started, 9 done, 9 succeeded, {} failed, 0 errored, 0 timeout\n"
    said += "status codes: 9 2xx, 0 3xx, 0 4xx, 0 5xx\ntraffic: 3KB (3000) total, 1KB (1000) headers, 3KB ({}) data\n"
    assert load._rpc_errors(said.format(0, 9 * 300), 9) == 0
    assert load._rpc_errors(said.format(2, 9 * 300), 9) == 2
    assert load._rpc_errors(said.format(0, 0), 9) == 9  # trailers alone: a status that is no answer
