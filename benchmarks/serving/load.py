"""The generators, each in a process of its own beside the server: wrk and h2load (closed loops), open_loop.py.

A closed loop sends the next request when the last one is answered: it finds the greatest rate, and its latencies are
those at that rate. What a client sees at a rate that it does not choose by the server's answers is the open loop's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environments import Unequal
from .protocols import METHOD, Question
from .servers import Running

HERE = Path(__file__).parent
CHANNELS = 4  # connections of the calls at a time
ANSWER = 50  # bytes that a right answer over gRPC has at least
WARM = 1  # seconds of load before a cell that are not counted: the server was stopped


GROWN = 5  # seconds of load after which a server has the processes that it starts for it


@dataclass(frozen=True)
class Cell:
    """What one server did under one load. `rate` is right answers a second; latencies in milliseconds.

    `generator` and `server` are the CPU seconds a second that either used: at 1, one thread's worth is used up.
    """

    rate: float
    p50: float
    p90: float
    p99: float
    greatest: float
    errors: int
    generator: float
    server: float
    answers: int

    def __post_init__(self) -> None:
        if self.errors or not self.answers:
            raise Unequal(f"{self.errors} errors in {self.answers} requests: a cell with an error does not count")


def need(program: str) -> str:
    """Return the path of wrk or h2load, or end with what to do."""
    found = shutil.which(program)
    if not found:
        package = {"h2load": "nghttp2-client"}.get(program, program)
        raise SystemExit(f"no {program} on the PATH: apt-get install {package} (Debian, Ubuntu)")
    return found


class Bodies:
    """Questions of one kind as files, for generators to send in turn."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.path, self.headers = questions[0].path, questions[0].headers
        self.folder = tempfile.TemporaryDirectory(prefix="bodies-")
        self.files = [Path(self.folder.name) / str(index) for index in range(len(questions))]
        for file, question in zip(self.files, questions, strict=True):
            file.write_bytes(question.body)


def closed(server: Running, bodies: Bodies, connections: int, seconds: int) -> Cell:
    """Load a server over HTTP by wrk with one thread and so many connections; a short load before is not counted."""
    _wrk(server, bodies, connections, WARM)
    server.settle()
    before = server.seconds()
    found, generator = _wrk(server, bodies, connections, seconds)
    used = server.seconds() - before
    server.settle()
    return Cell(
        rate=(found["requests"] - found["status"]) / found["seconds"],
        p50=found["p50"] / 1000,
        p90=found["p90"] / 1000,
        p99=found["p99"] / 1000,
        greatest=found["max"] / 1000,
        errors=found["status"] + found["socket"],
        generator=generator / found["seconds"],
        server=used / found["seconds"],
        answers=found["requests"],
    )


def warm(server: Running, bodies: Bodies) -> None:
    """Load a server until it is as large as it gets; what comes of it is not looked at."""
    _wrk(server, bodies, CHANNELS**2, GROWN)
    server.settle()


def _wrk(server: Running, bodies: Bodies, connections: int, seconds: int) -> tuple[dict[str, Any], float]:
    """Return wrk's numbers and its CPU seconds; wrk takes whole seconds only."""
    headers = [part for name, value in bodies.headers.items() for part in ("-H", f"{name}: {value}")]
    url = f"http://127.0.0.1:{server.port}{bodies.path}"
    options = [
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "-s",
        str(HERE / "post.lua"),
        *headers,
        url,
    ]
    before = os.times()
    out = subprocess.run([need("wrk"), *options, "--", *map(str, bodies.files)], check=True, capture_output=True).stdout
    after = os.times()
    lines = [line for line in out.decode().splitlines() if line.startswith("JSON ")]
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(lines[-1][5:]), used


def opened(server: Running, bodies: Bodies, rate: float, seconds: float, **more: Any) -> dict[str, Any]:
    """Load a server at a rate that it has no say in; see open_loop.py for what goes in and comes back."""
    plan = {"port": server.port, "path": bodies.path, "headers": dict(bodies.headers), "rate": rate, **more}
    found = _generate("open_loop.py", plan, bodies, seconds)
    server.settle()
    return found


def rpc(server: Running, bodies: Bodies, calls: int, seconds: int) -> Cell:
    """Load a server over gRPC by h2load, which asks one question again and again, with so many calls at a time.

    gRPC is a POST over HTTP/2 whose body has its length before it; the first second is not counted.
    """
    message = bodies.files[0].read_bytes()
    body, log = Path(bodies.folder.name) / "message", Path(bodies.folder.name) / "log"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    log.unlink(missing_ok=True)  # h2load appends
    before, spent = server.seconds(), os.times()
    out = subprocess.run(
        [need("h2load"), f"-c{CHANNELS}", f"-m{calls // CHANNELS}", f"-D{seconds}", f"--warm-up-time={WARM}",
         f"-d{body}", f"--log-file={log}", "-Hcontent-type: application/grpc", "-Hte: trailers",
         f"http://127.0.0.1:{server.grpc}{METHOD}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    used, after = server.seconds() - before, os.times()
    generator = after.children_user + after.children_system - spent.children_user - spent.children_system
    taken = sorted(int(line.split()[2]) for line in log.read_text().splitlines())
    return Cell(
        rate=len(taken) / seconds,
        **_latencies(taken),
        errors=_rpc_errors(out, len(taken)),
        generator=generator / (seconds + WARM),
        server=used / (seconds + WARM),
        answers=len(taken),
    )


def _latencies(taken: Sequence[int]) -> dict[str, float]:
    """Return percentiles in milliseconds of sorted microseconds."""
    if not taken:
        return dict.fromkeys(("p50", "p90", "p99", "greatest"), 0.0)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "greatest": 1.0}
    return {name: taken[min(len(taken) - 1, int(share * len(taken)))] / 1000 for name, share in shares.items()}


def _rpc_errors(out: str, answers: int) -> int:
    """Return how many calls h2load says failed; a refusal of gRPC has status 200 like an answer, but no data."""
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (failed|errored|timeout|2xx)", out)}
    found = re.search(r"\((\d+)\) data", out)
    if not found or counts["2xx"] < answers or int(found[1]) < ANSWER * answers:
        return answers or 1
    return counts["failed"] + counts["errored"] + counts["timeout"]


def _generate(script: str, plan: dict[str, Any], bodies: Bodies, seconds: float) -> dict[str, Any]:
    plan = {**plan, "seconds": seconds, "bodies": [str(file) for file in bodies.files]}
    command = [sys.executable, str(HERE / script)]
    done = subprocess.run(command, input=json.dumps(plan), check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
