"""A closed loop over gRPC in a process of its own: a plan as JSON on stdin, what was found as JSON on stdout.

The requests are serialized before, and answers are not parsed: what is spent here is gRPC's own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import uvloop

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CHANNELS = 4


async def load(plan: dict[str, Any]) -> dict[str, Any]:
    """Keep `calls` calls in flight for `warm` + `seconds` and return the numbers of the latter."""
    bodies = itertools.cycle([Path(path).read_bytes() for path in plan["bodies"]])
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{plan['port']}", options) for _ in range(CHANNELS)]
    methods = [channel.unary_unary(METHOD) for channel in channels]
    taken: list[float] = []
    errors = 0
    begin = time.perf_counter() + plan["warm"]
    end = begin + plan["seconds"]

    async def call(method: Any) -> None:
        nonlocal errors
        while (sent := time.perf_counter()) < end:
            try:
                await method(next(bodies), timeout=30)
            except grpc.aio.AioRpcError:
                errors += 1
            else:
                if sent >= begin:
                    taken.append(time.perf_counter() - sent)

    worked = time.process_time()
    await asyncio.gather(*(call(methods[index % CHANNELS]) for index in range(plan["calls"])))
    worked = time.process_time() - worked
    for channel in channels:
        await channel.close()
    return numbers(taken, plan["seconds"]) | {
        "errors": errors,
        "generator": worked / (plan["seconds"] + plan["warm"]),
    }


def numbers(taken: list[float], seconds: float) -> dict[str, Any]:
    """Return rate and latencies in milliseconds of the seconds that each answer took."""
    ordered = sorted(taken) or [0.0]

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000

    return {
        "rate": len(taken) / seconds,
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "greatest": ordered[-1] * 1000,
        "answers": len(taken),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(load(json.load(sys.stdin)))))
