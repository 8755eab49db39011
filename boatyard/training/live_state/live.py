"""The state of a run beside weights and optimizer: of model, features, loss, recipe and its modules, and of chance."""

from __future__ import annotations

import random
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import nn

from boatyard.training.live_state.encode import Captured, Encoder, Node, text_of
from boatyard.training.live_state.restore import restore

GIVEN = {"config", "how", "schema", "statistics", "dials"}  # attributes of a recipe that are settings or data


class LiveState:
    """What a run's objects hold beyond `state_dict`, to be captured and put back at any step.

    `objects` by the name that messages call them; `modules` are the recipe's own, whose globals, classes and functions
    are walked too. Tensors in the model's `state_dict` are left out: they are saved beside it.
    """

    def __init__(self, model: nn.Module, objects: Mapping[str, Any], modules: Mapping[str, types.ModuleType]) -> None:
        self.model, self.own = model, set(modules)
        self.modules = {f"{name.replace('.', '/')}.py": module for name, module in modules.items()}
        self.roots: dict[str, Any] = {"model": model, **objects}
        self.roots |= {"random": random._inst, "numpy.random": np.random.mtrand._rand}
        self.saved = set(model.state_dict(keep_vars=True))
        self.start = self.capture()

    def capture(self) -> Captured:
        """Return a copy of all of it."""
        weights = self.model.state_dict(keep_vars=True)
        encoder = Encoder({id(weights[key]) for key in weights.keys() & self.saved}, self.own)
        encoder.held.append(weights)
        nodes = {name: encoder.encode(value, name) for name, value in self.roots.items() if name != "recipe"}
        nodes["recipe"] = _object(encoder, self.roots["recipe"])
        nodes |= {name: _module(encoder, module, name) for name, module in self.modules.items()}
        return Captured(nodes, encoder.tensors)

    def restore(self, captured: Captured) -> list[str]:
        """Put back what was captured; return the names of what could not be."""
        return restore(captured, {**self.roots, **self.modules})


def _object(encoder: Encoder, recipe: Any) -> Node:
    parts = [
        [f".{key}", encoder.encode(item, f"recipe.{key}")] for key, item in vars(recipe).items() if key not in GIVEN
    ]
    return {"kind": "class", "is": text_of(type(recipe)), "parts": parts}


def _module(encoder: Encoder, module: types.ModuleType, name: str) -> Node:
    """Encode a module's globals and, of the classes defined there, what they hold themselves."""
    parts = []
    for key, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__ and not issubclass(value, BaseModel):
            parts.append([f":{key}", _class(encoder, value, f"{name}:{key}")])
        elif not key.startswith("__") and not isinstance(value, type | types.ModuleType):
            parts.append([f":{key}", encoder.encode(value, f"{name}:{key}")])
    return {"kind": "module", "is": name, "parts": parts}


def _class(encoder: Encoder, kind: type, name: str) -> Node:
    own = {key: value for key, value in vars(kind).items() if not (key.startswith("__") and key.endswith("__"))}
    kept = {
        key: value for key, value in own.items() if not isinstance(value, type | property | classmethod | staticmethod)
    }
    kept = {key: value for key, value in kept.items() if not hasattr(type(value), "__get__") or callable(value)}
    parts = [[f".{key}", encoder.encode(value, f"{name}.{key}")] for key, value in kept.items()]
    return {"kind": "class", "is": text_of(kind), "parts": parts}
