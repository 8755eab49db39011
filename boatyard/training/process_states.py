"""The state of a run's processes: the first's whole, and of each other what it holds otherwise.

Weights, optimizer and chance are the same in all of them; what a model keeps of the rows that it saw (a mean in a
buffer, a queue) is each process's own, and a resumed run gives each its own back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boatyard.data import artifacts
from boatyard.training import states
from boatyard.training.distributed import World
from boatyard.training.live_state import Captured, changed
from boatyard.training.loader import Part
from boatyard.training.states import State, prefixed

OWN = ("live", "best_live", "unsaved")  # values of each process; all others are the run's
OTHERS = "processes_own"  # under it, what the other processes hold otherwise, by rank


def gathered(world: World, state: State) -> State:
    """Return the first process's state with what the others hold otherwise in it; every process calls it."""
    if world.part.size == 1:
        return state
    first = states.unpack(world.same(states.pack(State({}, {"digests": _digests(state)})))).values["digests"]
    other = _difference(state, first)
    data = world.gathered(states.pack(other) if other.tensors or other.values else b"")
    others = {str(rank): states.unpack(each) for rank, each in enumerate(data) if each}
    tensors = dict(state.tensors)
    for rank, of in others.items():
        tensors |= prefixed(f"{OTHERS}.{rank}", of.tensors)
    return State(tensors, {**state.values, OTHERS: {rank: of.values for rank, of in others.items()}})


def own(state: State, part: Part) -> State:
    """Return a process's own state of what was gathered; the first's where as many processes do not go on."""
    others = state.values.get(OTHERS, {})
    same_size = state.values.get("processes", 1) == part.size
    return _of(state, str(part.rank) if same_size and str(part.rank) in others else "")


def held_apart(state: State) -> list[str]:
    """Return the names of what some process held otherwise than the first."""
    first, others = _of(state, ""), state.values.get(OTHERS, {})
    return sorted({name for rank in others for name in differing(first, _of(state, rank))})


def differing(one: State, other: State) -> list[str]:
    """Return the names, as messages call them, of what two states of a run hold otherwise."""
    return changed(_captured(one), _captured(other))


def first_of(world: World, weights: dict[str, Tensor], live: Captured) -> tuple[dict[str, Tensor], Captured, list[str]]:
    """Return the first process's weights and live state, and the names of what some process holds otherwise.

    Every process calls it with its own.
    """
    if world.part.size == 1:
        return weights, live, []
    ours = State(prefixed("model", weights) | prefixed("live", live.tensors), {"live": dict(live.nodes)})
    first = states.unpack(world.same(states.pack(ours)))
    names = _named_by_all(world, differing(first, ours))
    return first.part("model"), Captured(first.values["live"], first.part("live")), names


def _named_by_all(world: World, names: list[str]) -> list[str]:
    """Return the names that any process gives; every process calls it."""
    given = b"\n".join(filter(None, world.gathered("\n".join(names).encode())))
    return sorted(set(world.same(given).decode().split("\n")) - {""})


def _captured(state: State) -> Captured:
    """Return what a model and the objects beside it hold, its weights and buffers among them."""
    model = state.part("model")
    kept = {f"model.{name}": {"kind": "tensor", "key": f"state_dict {name}"} for name in model}
    weights = {f"state_dict {name}": value for name, value in model.items()}
    return Captured({**kept, **state.values.get("live", {})}, {**weights, **state.part("live")})


def _of(state: State, rank: str) -> State:
    """Return the state of one process, by the rank that it has among the others; of the first for an empty one."""
    tensors = {name: value for name, value in state.tensors.items() if not name.startswith(f"{OTHERS}.")}
    values: dict[str, Any] = {name: value for name, value in state.values.items() if name != OTHERS}
    if not rank:
        return State(tensors, values)
    apart = dict(state.values[OTHERS][rank])
    for name in apart.pop("gone", ()):
        tensors.pop(name)
    return State(tensors | state.part(f"{OTHERS}.{rank}"), {**values, **apart})


def _difference(state: State, first: Mapping[str, str]) -> State:
    """Return what a process holds otherwise than the first, whose digests are given."""
    ours = _digests(state)
    apart = {name for name, digest in ours.items() if first.get(name) != digest}
    values = {name: state.values[name] for name in OWN if f"={name}" in apart}
    gone = sorted(first.keys() - ours.keys())
    return State({name: state.tensors[name] for name in apart & state.tensors.keys()},
                 {**values, **({"gone": gone} if gone else {})})  # fmt: skip


def _digests(state: State) -> dict[str, str]:
    found = {name: _digest(value) for name, value in state.tensors.items()}
    return found | {f"={name}": artifacts.digest_json(state.values[name]) for name in OWN}


def _digest(value: Tensor) -> str:
    data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return artifacts.digest_bytes(f"{value.dtype} {tuple(value.shape)} ".encode() + data)
