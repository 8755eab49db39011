"""Names of what differs between two captured states, and of what a later process cannot be given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from boatyard.training.live_state.encode import Captured, Node

STANDING = {"object", "function", "generator", "constant", "enum", "state_dict", "known"}  # put back only where one is


def changed(before: Captured, after: Captured) -> list[str]:
    """Return the names whose values are others in one than in the other."""
    ours, theirs = dict(_leaves(before)), dict(_leaves(after))
    return [name for name in {**ours, **theirs} if not _same(ours.get(name), theirs.get(name))]


def unsaved(start: Captured, now: Captured) -> list[str]:
    """Return the names of state that was captured but cannot be put back, each with what it is.

    `start` is what a process begins with, into which a state is put back: an object of a foreign class that was made
    since then is not there to be filled.
    """
    return [line for name, node in now.nodes.items() for line in _unsaved(start.nodes.get(name), node, name)]


def _unsaved(start: Node, now: Node, name: str) -> Iterator[str]:
    if not isinstance(now, dict):
        return
    was = start if isinstance(start, dict) and start["kind"] == now["kind"] else {}
    if now["kind"] == "opaque":
        if not now["print"] or now["print"] != was.get("print"):
            yield f"{name} ({_short(now['is'])})"
        return
    if now["kind"] in STANDING and (not was or (now["kind"] != "enum" and was["is"] != now["is"])):
        yield f"{name} ({_short(now['is'])}, set in training)"
        return
    before = dict(was.get("parts", ()))
    for label, part in now.get("parts", ()):
        yield from _unsaved(before.get(label), part, name + label)


def _short(text: str) -> str:
    return text.rpartition(".<locals>.")[2].removeprefix("builtins.")[:60]


def _leaves(captured: Captured) -> Iterator[tuple[str, Any]]:
    for name, node in captured.nodes.items():
        yield from _below(captured, node, name)


def _below(captured: Captured, node: Node, name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield name, node
    elif "key" in node:
        yield name, captured.tensors[node["key"]]
    elif "parts" in node:
        if "keys" in node or node["kind"] in ("list", "deque", "set"):
            yield f"{name} (length)", len(node["parts"])
        for label, part in node["parts"]:
            yield from _below(captured, part, name + label)
    else:
        yield name, {key: value for key, value in node.items() if key not in ("id", "grad")}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return torch.equal(one, other) or one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes()
    return type(one) is type(other) and one == other
