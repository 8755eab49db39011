"""An open loop over HTTP in a process of its own: requests are due at random times, whether or not answers come.

A latency counts from when its request was due, not from when it could be sent: a server that stalls is charged with all
that was due meanwhile (no coordinated omission). A request without an answer in `patience` seconds is given up and its
connection closed, as a client does. Plan as JSON on stdin, what was found as JSON on stdout.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import resource
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools
import uvloop

PATIENCE = 10.0  # seconds, unless the plan says otherwise
LATE = 0.01  # seconds behind its plan at which the generator itself is slow


@dataclass
class Tally:
    """What came back: seconds by answer of status 200, those of them before `end`, and how many of each end."""

    end: float = float("inf")
    inside: int = 0
    taken: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    idle: deque[Connection] = field(default_factory=deque)


class Connection(asyncio.Protocol):
    """One connection, kept alive, with one request at a time."""

    def __init__(self, tally: Tally) -> None:
        self.tally, self.due, self.busy = tally, 0.0, False
        self.transport: Any = None
        self.parser = httptools.HttpResponseParser(self)

    def send(self, due: float, request: bytes) -> None:
        self.due, self.busy = due, True
        self.transport.write(request)

    def give_up(self, due: float) -> None:
        """End the request that was due then, unless it is over."""
        if self.busy and self.due == due:
            self._over("given up")
            self.transport.abort()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if not self.busy:
            return
        if status == 200:
            now = time.perf_counter()
            self.tally.taken.append(now - self.due)
            self.tally.inside += now <= self.tally.end
        self._over(str(status))
        if self.parser.should_keep_alive():
            self.parser = httptools.HttpResponseParser(self)
            self.tally.idle.append(self)
        else:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if self.busy:
            self._over("lost")
        if self in self.tally.idle:
            self.tally.idle.remove(self)

    def _over(self, how: str) -> None:
        self.busy = False
        self.tally.ends[how] += 1


async def load(plan: dict[str, Any]) -> dict[str, Any]:
    """Send at `rate` a second for `seconds`, then wait for what is in flight."""
    loop, tally = asyncio.get_running_loop(), Tally()
    requests = itertools.cycle([_request(plan, Path(path).read_bytes()) for path in plan["bodies"]])
    patience = plan.get("patience", PATIENCE)
    waiting: deque[tuple[float, Connection]] = deque()
    behind = 0.0
    sending: set[asyncio.Task[None]] = set()

    async def fresh(due: float, request: bytes) -> None:
        try:
            _, connection = await loop.create_connection(lambda: Connection(tally), "127.0.0.1", plan["port"])
        except OSError:
            tally.ends["refused"] += 1
            return
        connection.send(due, request)
        waiting.append((due, connection))

    def expire(now: float) -> None:
        while waiting and waiting[0][0] + patience < now:
            due, connection = waiting.popleft()
            connection.give_up(due)

    times, begun = iter(_times(plan)), time.perf_counter()
    tally.end = begun + plan["seconds"]
    worked = time.process_time()
    due, sent = next(times, None), 0
    while due is not None:
        now = time.perf_counter() - begun
        if due > now:
            await asyncio.sleep(min(due - now, 0.05))
            expire(time.perf_counter())
            continue
        behind = max(behind, now - due)
        request, sent = next(requests), sent + 1
        if tally.idle:
            connection = tally.idle.pop()
            connection.send(begun + due, request)
            waiting.append((begun + due, connection))
        else:
            task = asyncio.ensure_future(fresh(begun + due, request))
            sending.add(task)
            task.add_done_callback(sending.discard)
        if sent % 16 == 0:  # a loop that is behind must still read answers
            await asyncio.sleep(0)
        due = next(times, None)
    worked = time.process_time() - worked
    until = time.perf_counter() + patience + 0.1
    while sum(tally.ends.values()) < sent and time.perf_counter() < until:
        await asyncio.sleep(0.02)
        expire(time.perf_counter())
    if left := sent - sum(tally.ends.values()):  # not even connected
        tally.ends["given up"] += left
    return _numbers(plan, tally, sent, behind, worked)


def _times(plan: dict[str, Any]) -> list[float]:
    """Return when requests are due, in seconds from the start: independent clients, so exponential gaps."""
    gaps, at, times = random.Random(0), 0.0, []
    while (at := at + gaps.expovariate(plan["rate"])) < plan["seconds"]:
        times.append(at)
    return times


def _request(plan: dict[str, Any], body: bytes) -> bytes:
    headers = {"host": "127.0.0.1", **plan["headers"], "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {plan['path']} HTTP/1.1\r\n{lines}\r\n".encode() + body


def _numbers(plan: dict[str, Any], tally: Tally, sent: int, behind: float, worked: float) -> dict[str, Any]:
    """Return counts and latencies in milliseconds; what was not answered well counts as endless.

    `good` is right answers a second that came while requests were sent: what a backlog yields later does not count.
    """
    endless = [float("inf")] * (sent - len(tally.taken))
    ordered = sorted(tally.taken) + endless

    def at(share: float) -> float | None:
        value = ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")
        return None if value == float("inf") else value * 1000

    return {
        "offered": sent / plan["seconds"],
        "good": tally.inside / plan["seconds"],
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "ends": dict(tally.ends),
        "behind": behind * 1000,
        "slow": behind > LATE,
        "generator": worked / plan["seconds"],
    }


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(uvloop.run(load(json.load(sys.stdin)))))
