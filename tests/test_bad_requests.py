"""What a client gets wrong, generated: refused in one shape, no failure of the server, in nobody's way."""

from __future__ import annotations

import signal
from pathlib import Path

import graphs
import pytest
from test_serving import SCHEMAS, launch, ready

from benchmarks import bad_requests


def attack(folder: Path, name: str, count: int) -> bad_requests.Findings:
    server = ready(launch(graphs.package(folder / "p", SCHEMAS[name])))
    try:
        found = bad_requests.attack(server.package, server.http, server.grpc, count, seed=1)
    finally:
        server.process.send_signal(signal.SIGTERM)
        output, _ = server.process.communicate(timeout=30)
    assert server.process.returncode == 0 and "Traceback" not in output, output
    return found


@pytest.mark.parametrize("name", ["image", "mixed", "numbers"])
def test_a_mistake_is_refused_and_what_is_right_is_answered(tmp_path: Path, name: str) -> None:
    found = attack(tmp_path, name, 1000)
    assert not found.wrong, "\n".join(found.wrong[:5])
    assert len(found.seen) > 15, found.table()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SCHEMAS))
def test_so_it_is_with_very_many(tmp_path: Path, name: str) -> None:
    found = attack(tmp_path, name, 5_000)
    assert not found.wrong, "\n".join(found.wrong[:5])
