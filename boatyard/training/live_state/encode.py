"""Python objects as JSON values and tensors: what training may change, by the name that its author would give it.

A node is {"kind", "is", "parts"}: `is` names the class, `parts` are [label, node] pairs whose labels make up a name
(`model` + `.queue` + `[3]`). Nothing here can make an object run code when it is read, as a pickle can: what is no
plain value, container, tensor or generator is walked where it stands, and put back into the object that stands there.
"""

from __future__ import annotations

import ast
import collections
import enum
import functools
import hashlib
import io
import itertools
import math
import pickle
import random
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MAX_NODES = 200_000  # more is no state of a model but data, which would be written with every state
PLAIN = (bool, int, float, str, type(None))
CONTAINERS: dict[str, type] = {
    kind.__name__: kind for kind in (dict, collections.OrderedDict, list, tuple, set, frozenset, collections.deque)
}
CONSTANTS = (
    types.ModuleType, types.BuiltinFunctionType, type, torch.memory_format, torch.layout, re.Pattern, range, slice,
    functools._lru_cache_wrapper,
)  # fmt: skip
# whose objects hold nothing that a model learns by
FOREIGN = {"__future__", "_thread", "abc", "asyncio", "boatyard", "concurrent", "importlib", "logging",
           "multiprocessing", "pathlib", "pydantic", "threading", "typing", "weakref"}  # fmt: skip
INTERNAL = re.compile(r"_.*(hooks|hooks_with_kwargs|hooks_always_called|_set|_backward_hook)$")  # of nn.Module
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
Node = Any


@dataclass(frozen=True)
class Captured:
    """The state of some objects at one moment: a node by name, and the tensors that the nodes name."""

    nodes: Mapping[str, Node]
    tensors: Mapping[str, Tensor]


@dataclass
class Encoder:
    """Walks objects once, each at its first name. `known` are tensors saved elsewhere, `own` modules walked into."""

    known: set[int] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    met: dict[int, int] = field(default_factory=dict)
    held: list[Any] = field(default_factory=list)  # an id is unique only while its object lives
    count: int = 0

    def encode(self, value: Any, name: str) -> Node:
        """Return a value as a node."""
        self.count += 1
        if type(value) in PLAIN:
            finite = not isinstance(value, float) or math.isfinite(value)
            return value if finite else {"kind": "float", "is": repr(value)}
        if self.count > MAX_NODES:
            return _opaque(value, "")
        if isinstance(value, enum.Enum):
            return {"kind": "enum", "is": value.name}
        if isinstance(value, bytes | bytearray | complex):
            return {"kind": "literal", "is": repr(bytes(value) if isinstance(value, bytearray) else value)}
        if isinstance(value, np.generic):
            return {"kind": "scalar", "is": str(value.dtype), "bytes": value.tobytes().hex()}
        if isinstance(value, torch.dtype | torch.device):
            return {"kind": "torch", "is": str(value)}
        if isinstance(value, CONSTANTS):
            return {"kind": "constant", "is": text_of(value)}
        return self._object(value, name)

    def _object(self, value: Any, name: str) -> Node:
        """Encode what can be at several places: the second place names the first."""
        if id(value) in self.met:
            return {"kind": "same", "of": self.met[id(value)]}
        number = self.met[id(value)] = len(self.met)
        self.held.append(value)
        node = self._encoded(value, name)
        return node if node["kind"] in ("constant", "opaque") else {**node, "id": number}

    def _encoded(self, value: Any, name: str) -> Node:
        if isinstance(value, Tensor):
            return self._tensor(value, name)
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        if isinstance(value, GENERATORS):
            return {"kind": "generator", "is": text_of(type(value)), "parts": [["", self.encode(drawn(value), name)]]}
        if isinstance(value, itertools.count):
            return {"kind": "count", "is": repr(value)}
        if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
            return self._callable(value, name)
        if container := _container(value):
            plain = not getattr(value, "__dict__", None)  # a container that has attributes, too, is not taken apart
            return self._container(value, name, container) if plain else _opaque(value, _print(value))
        if not isinstance(value, nn.Module) and _has_state_dict(value):
            return {
                "kind": "state_dict",
                "is": text_of(type(value)),
                "parts": [["", self.encode(value.state_dict(), name)]],
            }
        if isinstance(value, nn.Module) or (_is_walked(value) and not _is_foreign(value)):
            node = {"kind": "object", "is": text_of(type(value)), "parts": self._parts(value, name)}
            return {**node, "buffers": [*value._buffers]} if isinstance(value, nn.Module) else node
        return {"kind": "constant", "is": text_of(type(value))} if _is_foreign(value) else _opaque(value, _print(value))

    def _tensor(self, value: Tensor, name: str) -> Node:
        node = {"is": str(value.dtype), "grad": value.requires_grad, "parameter": isinstance(value, nn.Parameter)}
        if id(value) in self.known:
            return {"kind": "known", **node}
        if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
            return _opaque(value, "")
        copy = value.detach().to("cpu", copy=True).contiguous()
        key = self._keep(torch.view_as_real(copy).clone() if copy.is_complex() else copy, name)
        return {"kind": "tensor", "key": key, "device": value.device.type, **node}

    def _array(self, value: Any, name: str) -> Node:
        if value.dtype.hasobject:
            return _opaque(value, _print(value))
        data = np.frombuffer(value.tobytes(), np.uint8).copy()
        key = self._keep(torch.from_numpy(data), name)
        return {"kind": "array", "is": value.dtype.str, "shape": list(value.shape), "key": key}

    def _keep(self, value: Tensor, name: str) -> str:
        key = name if name not in self.tensors else f"{name}#{len(self.tensors)}"
        self.tensors[key] = value
        return key

    def _container(self, value: Any, name: str, kind: str) -> Node:
        node: dict[str, Any] = {"kind": kind, "is": text_of(type(value))}
        if isinstance(value, collections.deque):
            node |= {"most": value.maxlen}
        if isinstance(value, dict):
            keys = [self.encode(key, f"{name} key") for key in value]
            parts = [[f"[{key!r:.60}]", self.encode(item, f"{name}[{key!r:.60}]")] for key, item in value.items()]
            node |= {"keys": keys, "parts": parts}
        else:
            items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            node |= {"parts": [[f"[{i}]", self.encode(item, f"{name}[{i}]")] for i, item in enumerate(items)]}
        return node

    def _parts(self, value: Any, name: str) -> list[list[Any]]:
        return [[label, self.encode(item, name + label)] for label, item in members(value)]

    def _callable(self, value: Any, name: str) -> Node:
        """A function is walked for what it closes over and its defaults: it is state where an object would be."""
        if isinstance(value, types.FunctionType) and value.__module__ not in self.own:
            return {"kind": "constant", "is": text_of(value)}
        parts = [[label, self.encode(item, name + label)] for label, item, _ in captures(value)]
        return {"kind": "function", "is": text_of(value), "parts": parts}


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """Give an object's attributes by label; a module's children, buffers and parameters as if they were attributes."""
    for key, item in _attributes(value).items():
        if isinstance(value, nn.Module) and key in ("_parameters", "_buffers", "_modules"):
            yield from ((f".{name}", child) for name, child in item.items())
        elif not (isinstance(value, nn.Module) and INTERNAL.match(key) and not item):
            yield f".{key}", item


def captures(value: Any) -> Iterator[tuple[str, Any, Callable[[Any], None] | None]]:
    """Give what a callable holds: label, value and, where it can be set, how."""
    if isinstance(value, types.MethodType):
        yield ".__self__", value.__self__, None
        return
    if isinstance(value, functools.partial):
        yield ".func", value.func, None
        yield ".args", value.args, None
        yield ".keywords", value.keywords, None
        return
    for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        try:
            yield f"'s {variable}", cell.cell_contents, functools.partial(setattr, cell, "cell_contents")
        except ValueError:  # not bound yet
            continue
    for number, item in enumerate(value.__defaults__ or ()):
        yield f"'s default {number}", item, None
    if value.__dict__:
        yield "'s attributes", value.__dict__, None


def drawn(generator: Any) -> Any:
    """Return where a generator stands."""
    if isinstance(generator, random.Random):
        version, numbers, gauss = generator.getstate()
        return [version, np.array(numbers, np.uint64), gauss]
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if isinstance(generator, torch.Generator) else generator.get_state(legacy=False)


def own_dict(value: Any) -> dict[str, Any] | None:
    """Return where an object keeps its attributes; None where it keeps none, or shows its class's (a protobuf's)."""
    found = getattr(value, "__dict__", None)
    return found if isinstance(found, dict) else None


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(own_dict(value) or {})
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _is_walked(value: Any) -> bool:
    return not isinstance(value, io.IOBase) and (own_dict(value) is not None or bool(_attributes(value)))


def _container(value: Any) -> str:
    """Return the kind of a container that is one of Python's, or of a class derived from one."""
    if isinstance(value, tuple) and type(value) not in (tuple, torch.Size) and not hasattr(value, "_make"):
        return ""
    return next((name for name, kind in reversed(CONTAINERS.items()) if isinstance(value, kind)), "")


def _has_state_dict(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _is_foreign(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in FOREIGN


def _opaque(value: Any, digest: str) -> Node:
    return {"kind": "opaque", "is": text_of(type(value)), "print": digest}


def _print(value: Any) -> str:
    """Return a digest of what cannot be saved, to see whether training changes it; empty where that cannot be seen."""
    if isinstance(value, Iterator) or (isinstance(value, io.IOBase) and not value.closed and value.readable()):
        return ""
    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()  # to compare only: nothing ever loads it
    except Exception:  # whatever a foreign object raises when it is pickled
        return ""


def text_of(value: Any) -> str:
    """Return what names a class, a function or a constant in its module."""
    if isinstance(value, functools.partial):
        return "functools.partial"
    named = getattr(value, "__qualname__", None)
    return f"{getattr(value, '__module__', '')}.{named}" if isinstance(named, str) else repr(value)


def literal(text: str) -> Any:
    """Read a value that was written as a Python literal."""
    return ast.literal_eval(text)
