"""Ports for servers of tests, of which none takes another's."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
GIVEN: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens at, below those that clients are given: none takes it before the server.

    Test runners side by side each have their own: port numbers are dealt out among them.
    """
    clients = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32_768
    last = clients if clients > 20_000 else 65_536  # where clients are given nearly all, there is no such place
    while True:
        port = random.SystemRandom().randrange(10_000 + WORKER, last, WORKERS)
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            if port not in GIVEN:
                GIVEN.add(port)
                return port
