"""Puts captured state back into the objects that stand where it was captured; says by name what it could not."""

from __future__ import annotations

import collections
import enum
import itertools
import math
import random
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boatyard.training.live_state.encode import (
    CONTAINERS,
    GENERATORS,
    Captured,
    Node,
    captures,
    literal,
    own_dict,
    text_of,
)

ABSENT: Any = object()


def restore(captured: Captured, roots: dict[str, Any]) -> list[str]:
    """Set each root to what was captured under its name; return the names of what could not be set."""
    reader = _Reader(captured)
    for name, current in roots.items():
        if name in captured.nodes:
            reader.read(captured.nodes[name], current, name)
    return reader.lost


@dataclass
class _Reader:
    captured: Captured
    lost: list[str] = field(default_factory=list)
    objects: dict[int, Any] = field(default_factory=dict)
    claimed: dict[int, Any] = field(default_factory=dict)  # an object that stands for one node stands for no other

    def read(self, node: Node, current: Any, name: str) -> Any:
        """Return a node's value: the current object, changed in place, where it can be the one."""
        if not isinstance(node, dict):
            return node
        if node["kind"] == "same":
            return self.objects.get(node["of"], current)
        if id(current) in self.claimed and "id" in node:
            current = ABSENT
        value = getattr(self, f"_{node['kind'].lower()}")(node, current, name)
        self._meet(node, value)
        return value

    def _meet(self, node: Node, value: Any) -> Any:
        """Note an object before its parts are read: they may lead back to it."""
        if "id" in node and value is not ABSENT:
            self.objects[node["id"]] = self.claimed[id(value)] = value
        return value

    def _lose(self, name: str, current: Any) -> Any:
        self.lost.append(name)
        return current

    def _float(self, node: Node, current: Any, name: str) -> Any:
        return math.nan if node["is"] == "nan" else float(node["is"])

    def _literal(self, node: Node, current: Any, name: str) -> Any:
        value = literal(node["is"])
        return bytearray(value) if isinstance(current, bytearray) else value

    def _scalar(self, node: Node, current: Any, name: str) -> Any:
        return np.frombuffer(bytes.fromhex(node["bytes"]), np.dtype(node["is"]))[0]

    def _enum(self, node: Node, current: Any, name: str) -> Any:
        return type(current)[node["is"]] if isinstance(current, enum.Enum) else self._lose(name, current)

    def _torch(self, node: Node, current: Any, name: str) -> Any:
        kind, _, dtype = node["is"].rpartition(".")
        return getattr(torch, dtype) if kind == "torch" else torch.device(node["is"])

    def _constant(self, node: Node, current: Any, name: str) -> Any:
        return current if node["is"] in (text_of(current), text_of(type(current))) else self._lose(name, current)

    def _opaque(self, node: Node, current: Any, name: str) -> Any:
        return current  # it was said when it was captured, where it is state

    def _count(self, node: Node, current: Any, name: str) -> Any:
        value = literal(node["is"].removeprefix("count"))
        return itertools.count(*value) if isinstance(value, tuple) else itertools.count(value)

    def _known(self, node: Node, current: Any, name: str) -> Any:
        return _graded(current, node) if isinstance(current, Tensor) else self._lose(name, current)

    def _tensor(self, node: Node, current: Any, name: str) -> Any:
        saved = self.captured.tensors[node["key"]]
        value = torch.view_as_complex(saved) if "complex" in node["is"] else saved
        alike = isinstance(current, Tensor) and current.shape == value.shape and current.dtype == value.dtype
        if alike and _overwritten(current, value):
            return _graded(current, node)
        made = value.clone().to("cuda" if node["device"] == "cuda" and torch.cuda.is_available() else "cpu")
        return nn.Parameter(made, node["grad"]) if node["parameter"] else made.requires_grad_(node["grad"])

    def _array(self, node: Node, current: Any, name: str) -> Any:
        data = self.captured.tensors[node["key"]].numpy().tobytes()
        value = np.frombuffer(data, np.dtype(node["is"])).reshape(node["shape"]).copy()
        alike = isinstance(current, np.ndarray) and current.shape == value.shape and current.dtype == value.dtype
        if alike and current.flags.writeable:
            current[...] = value
            return current
        return value

    def _generator(self, node: Node, current: Any, name: str) -> Any:
        if not isinstance(current, GENERATORS) or text_of(type(current)) != node["is"]:
            return self._lose(name, current)
        at = self.read(node["parts"][0][1], ABSENT, name)
        if isinstance(current, random.Random):
            current.setstate((at[0], tuple(at[1].tolist()), at[2]))
        elif isinstance(current, np.random.Generator):
            current.bit_generator.state = at
        else:
            current.set_state(at)
        return current

    def _state_dict(self, node: Node, current: Any, name: str) -> Any:
        if text_of(type(current)) != node["is"]:
            return self._lose(name, current)
        current.load_state_dict(self.read(node["parts"][0][1], ABSENT, name))
        return current

    def _function(self, node: Node, current: Any, name: str) -> Any:
        if not callable(current) or text_of(current) != node["is"]:
            return self._lose(name, current)
        there = {label: (item, put) for label, item, put in captures(current)}
        for label, part in node["parts"]:
            item, put = there.get(label, (ABSENT, None))
            value = self.read(part, item, name + label)
            if value is not item and put:
                put(value)
            elif value is not item and value != item:
                self._lose(name + label, None)
        return current

    def _object(self, node: Node, current: Any, name: str) -> Any:
        if current is ABSENT or text_of(type(current)) != node["is"]:
            return self._lose(name, current)
        self._meet(node, current)
        kept = set()
        for label, part in node["parts"]:
            key = label[1:]
            kept.add(key)
            item = _member(current, key)
            value = self.read(part, item, name + label)
            if value is not item and value is not ABSENT:
                _set_member(current, key, value, key in node.get("buffers", ()))
        for key in [key for key in _plain(current) if key not in kept]:
            vars(current).pop(key)
        return current

    def _class(self, node: Node, current: Any, name: str) -> Any:
        for label, part in node["parts"]:
            item = vars(current).get(label[1:], ABSENT)
            value = self.read(part, item, name + label)
            if value is not item and value is not ABSENT:
                setattr(current, label[1:], value)
        return current

    def _module(self, node: Node, current: Any, name: str) -> Any:
        return self._class(node, current, name)

    # containers

    def _items(self, node: Node, current: list[Any], name: str) -> Iterator[Any]:
        for index, (label, part) in enumerate(node["parts"]):
            yield self.read(part, current[index] if index < len(current) else ABSENT, name + label)

    def _made(self, node: Node, current: Any, name: str) -> Any:
        """Return the container to fill: the current one if it is of the class, else a new one of Python's own."""
        if current is not ABSENT and text_of(type(current)) == node["is"]:
            return self._meet(node, current)
        kind = CONTAINERS[node["kind"]]
        if node["is"] != text_of(kind):
            self._lose(name, None)
        return self._meet(node, kind(maxlen=node["most"]) if kind is collections.deque else kind())

    def _list(self, node: Node, current: Any, name: str) -> Any:
        made = self._made(node, current, name)
        made[:] = list(self._items(node, list(made), name))
        return made

    def _deque(self, node: Node, current: Any, name: str) -> Any:
        made = self._made(node, current, name)
        items = list(self._items(node, list(made), name))
        made.clear()
        made.extend(items)
        return made

    def _set(self, node: Node, current: Any, name: str) -> Any:
        made = self._made(node, current, name)
        items = list(self._items(node, sorted(made, key=repr), name))
        made.clear()
        made.update(items)
        return made

    def _frozenset(self, node: Node, current: Any, name: str) -> Any:
        return frozenset(self._items(node, [], name))

    def _tuple(self, node: Node, current: Any, name: str) -> Any:
        before = list(current) if isinstance(current, tuple) else []
        items = list(self._items(node, before, name))
        if len(before) == len(items) and all(one is other for one, other in zip(items, before, strict=True)):
            return current
        if hasattr(current, "_make"):
            return current._make(items)
        return torch.Size(items) if isinstance(current, torch.Size) else tuple(items)

    def _dict(self, node: Node, current: Any, name: str) -> Any:
        made = self._made(node, current, name)
        before, items = dict(made), {}
        for key, (label, part) in zip(node["keys"], node["parts"], strict=True):
            at = self.read(key, ABSENT, f"{name} key")
            items[at] = self.read(part, before.get(at, ABSENT), name + label)
        made.clear()
        made.update(items)
        return made

    _ordereddict = _dict


def _overwritten(current: Tensor, value: Tensor) -> bool:
    try:
        with torch.no_grad():
            current.detach().copy_(value)
    except RuntimeError:  # memory that overlaps, or that inference mode owns
        return False
    return True


def _graded(current: Tensor, node: Node) -> Tensor:
    if current.is_leaf and current.requires_grad != node["grad"]:
        current.requires_grad_(node["grad"])
    return current


def _plain(value: Any) -> list[str]:
    """Return the attributes that may go when they were not captured: not those that a module keeps for itself."""
    own = own_dict(value) or {}
    return [key for key in own if not (isinstance(value, nn.Module) and key.startswith("_"))]


def _member(value: Any, key: str) -> Any:
    if isinstance(value, nn.Module):
        for group in (value._parameters, value._buffers, value._modules):
            if key in group:
                return group[key]
    own = own_dict(value) or {}
    return own[key] if key in own else getattr(value, key, ABSENT)


def _set_member(value: Any, key: str, item: Any, buffer: bool) -> None:
    if isinstance(value, nn.Module):
        for group in (value._parameters, value._buffers, value._modules):
            if key in group:
                group[key] = item
                return
        if buffer:
            value._buffers[key] = item
            return
    own = own_dict(value)
    if own is not None and not isinstance(value, types.ModuleType):
        own[key] = item
    else:
        object.__setattr__(value, key, item)
