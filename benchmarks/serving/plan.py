"""How much is measured, and what is wanted of it: all of it for the record, a little of it in CI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Plan:
    """Seconds of a cell, repetitions, and what `wanted` of each ratio's median."""

    name: str
    peers: bool
    sweeps: bool
    seconds: int
    repeats: int
    overload: int
    wanted: Mapping[str, float] = field(default_factory=dict)


TARGETS = {
    "rate at 16": 8,
    "rate at 64": 10,
    "p99 at 16": 1 / 5,
    "bare at 16": 0.5,
    "bare at 64": 0.5,
    "infer": 8,
    "tensor": 25,
    "grpc": 3,
    "start": 1.5,
    "memory": 1.3,
    "goodput": 0.9,
    "bounded": 1.5,
}
FLOORS = {  # what no change may break, with room for a machine that others use too
    "rate at 16": 5,
    "rate at 64": 5,
    "p99 at 16": 0.4,
    "bare at 16": 0.2,
    "bare at 64": 0.2,
    "infer": 4,
    "tensor": 10,
    "grpc": 1.2,
    "start": 2.5,
    "memory": 2.5,
    "goodput": 0.6,
    "bounded": 2,
}
FULL = Plan("full", peers=True, sweeps=True, seconds=3, repeats=5, overload=3, wanted=TARGETS)
SMALL = Plan("small", peers=False, sweeps=False, seconds=2, repeats=2, overload=1, wanted=FLOORS)
