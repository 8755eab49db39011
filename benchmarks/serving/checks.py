"""Do all answer alike? Each server's answers against those of the graph itself, run here, before any load."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import grpc
import numpy as np
import onnxruntime

from boatyard.data.schema import Array
from boatyard.packages import Package

from . import protocols
from .environments import Unequal
from .protocols import METHOD, Answer
from .servers import Running, alone

TOLERANCE = 1e-5


def reference(package: Package, images: Array) -> Answer:
    """Answer images by the package's graph, one row at a time."""
    session = onnxruntime.InferenceSession(package.graph, providers=["CPUExecutionProvider"])
    rows = [session.run(["label", "probabilities"], {"image": images[i : i + 1]}) for i in range(len(images))]
    return Answer([str(row[0][0]) for row in rows], np.concatenate([row[1] for row in rows]).astype(np.float64))


def alike(
    running: Mapping[str, Running], package: Package, images: Array, kinds: Sequence[str] = ("own",)
) -> dict[str, float]:
    """Return by server the greatest difference from the graph's answers; raises Unequal above 1e-5.

    `own` is the server's own way to be asked over HTTP, one image a request and all in one; `v2_binary` and `grpc` are
    for the servers that have them.
    """
    wanted, found = reference(package, images), {}
    for name, server in running.items():
        with alone(server):
            given = [answer for kind in kinds for answer in _answers(server, images, kind)]
        found[name] = max(wanted.difference(answer) for answer in given)
        if not found[name] <= TOLERANCE:
            raise Unequal(f"{server.server.title} answers otherwise than the graph: off by {found[name]:.2g}")
    return found


def _answers(server: Running, images: Array, kind: str) -> list[Answer]:
    if kind == "grpc":
        return [asyncio.run(_call(server.grpc, protocols.grpc_request(images)))]
    protocol, path = (server.server.protocol, server.server.path) if kind == "own" else (kind, "")
    path = path or "/v2/models/fashion/infer"
    parts = [_ask(server, images[i : i + 1], protocol, path) for i in range(len(images))]
    one_by_one = Answer([part.labels[0] for part in parts], np.concatenate([part.probabilities for part in parts]))
    return [one_by_one, _ask(server, images, protocol, path)]


def _ask(server: Running, images: Array, protocol: str, path: str) -> Answer:
    status, body, _ = server.ask(protocols.ask(protocol, images, path))
    if status != 200:
        raise Unequal(f"{server.server.title} answers {status} to {path}: {body[:300].decode(errors='replace')}")
    return protocols.read(body)


async def _call(port: int, request: bytes) -> Answer:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        return protocols.read_grpc(await channel.unary_unary(METHOD)(request, timeout=30))
