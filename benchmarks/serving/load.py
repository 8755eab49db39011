"""The generators, each in a process of its own beside the server: wrk (closed loop), open_loop.py, grpc_load.py.

A closed loop sends the next request when the last one is answered: it finds the greatest rate, and its latencies are
those at that rate. What a client sees at a rate that it does not choose by the server's answers is the open loop's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environments import Unequal
from .protocols import Question
from .servers import Running

HERE = Path(__file__).parent
WARM = 1  # seconds of load before a cell that are not counted: the server was stopped


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


def need_wrk() -> str:
    """Return wrk's path, or end with what to do."""
    found = shutil.which("wrk")
    if not found:
        raise SystemExit("no wrk on the PATH: apt-get install wrk (Debian, Ubuntu) or brew install wrk")
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
    out = subprocess.run([need_wrk(), *options, "--", *map(str, bodies.files)], check=True, capture_output=True).stdout
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


def rpc(server: Running, bodies: Bodies, calls: int, seconds: float) -> Cell:
    """Load a server over gRPC with so many calls at a time; the first second is not counted."""
    before = server.seconds()
    found = _generate("grpc_load.py", {"port": server.grpc, "calls": calls, "warm": WARM}, bodies, seconds)
    used = server.seconds() - before
    return Cell(server=used / (seconds + WARM), **found)


def _generate(script: str, plan: dict[str, Any], bodies: Bodies, seconds: float) -> dict[str, Any]:
    plan = {**plan, "seconds": seconds, "bodies": [str(file) for file in bodies.files]}
    command = [sys.executable, str(HERE / script)]
    done = subprocess.run(command, input=json.dumps(plan), check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
