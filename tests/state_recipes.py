"""Recipes whose training depends on state that no state_dict holds: one of each sort, and one with all of them."""

from __future__ import annotations

import collections
import copy
import itertools
import math
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from boatyard.recipes import Recipe
from boatyard.recipes.cnn import Cnn

STEPS = 0
RECENT: list[float] = []


class Scaled(nn.Module):
    """A linear model whose outputs in training are scaled by `scale`, which every sort derives from its own state."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.build()

    def build(self) -> None:
        pass

    def scale(self, x: Tensor) -> Any:
        return 1.0

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.linear(functional.dropout(x, 0.1, self.training))
        return made / (1 + 0.05 * self.scale(x)) if self.training else made


class Attribute(Scaled):
    def build(self) -> None:
        self.steps = 0

    def scale(self, x: Tensor) -> Any:
        self.steps += 1
        return self.steps


class LateAttribute(Scaled):
    def scale(self, x: Tensor) -> Any:
        self.mean = 0.9 * getattr(self, "mean", 0.0) + 0.1 * x.mean()
        return self.mean


class UnsavedBuffer(Scaled):
    def build(self) -> None:
        self.register_buffer("mean", torch.zeros(4), persistent=False)

    def scale(self, x: Tensor) -> Any:
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return self.mean.sum()


class SavedBuffer(Scaled):
    """Its mean is in the state_dict; of several processes each has that of its own rows."""

    def build(self) -> None:
        self.register_buffer("mean", torch.zeros(4))

    def scale(self, x: Tensor) -> Any:
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return self.mean.sum()


class LateBuffer(Scaled):
    def build(self) -> None:
        self.register_buffer("mean", None)

    def scale(self, x: Tensor) -> Any:
        self.mean = x.mean() if self.mean is None else 0.9 * self.mean + 0.1 * x.mean()
        return self.mean


class Containers(Scaled):
    def build(self) -> None:
        self.queue: collections.deque[float] = collections.deque(maxlen=3)
        self.counts: dict[str, Any] = {"steps": [0], "seen": set()}
        self.shadow = [copy.deepcopy(self.linear)]  # a list: no child, its weights are in no state_dict

    def scale(self, x: Tensor) -> Any:
        self.queue.append(float(x.mean()))
        self.counts["steps"][0] += 1
        self.counts["seen"].add(len(x))
        with torch.no_grad():
            self.shadow[0].weight.lerp_(self.linear.weight, 0.1)
        return sum(self.queue) + self.counts["steps"][0] + self.shadow[0].weight.detach().sum()


class Generators(Scaled):
    def build(self) -> None:
        self.numpy, self.python = np.random.default_rng(1), random.Random(1)
        self.torch = torch.Generator().manual_seed(1)
        self.number = itertools.count(1)

    def scale(self, x: Tensor) -> Any:
        drawn = self.numpy.normal() + self.python.random() + float(torch.rand((), generator=self.torch))
        return abs(drawn) + next(self.number)


class GlobalGenerators(Scaled):
    def scale(self, x: Tensor) -> Any:
        return np.random.rand() + random.random()


class Globals(Scaled):
    made = 0

    def build(self) -> None:
        self.counted = _counter()

    def scale(self, x: Tensor) -> Any:
        global STEPS
        STEPS += 1
        type(self).made += 1
        RECENT[:] = [*RECENT[-2:], float(x.mean())]
        return STEPS + type(self).made + sum(RECENT) + self.counted()


class ExtraState(Scaled):
    def build(self) -> None:
        self.calls = [0]

    def get_extra_state(self) -> Any:
        return torch.tensor(self.calls)

    def set_extra_state(self, state: Any) -> None:
        self.calls = state.tolist()

    def scale(self, x: Tensor) -> Any:
        self.calls[0] += 1
        return self.calls[0]


class OwnOptimizer(Scaled):
    """A weight outside the model's, moved by an optimizer of its own with a schedule."""

    def build(self) -> None:
        self.weight = [torch.ones((), requires_grad=True)]
        self.moves = torch.optim.Adam(self.weight, lr=0.1)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.moves, 3)

    def scale(self, x: Tensor) -> Any:
        with torch.enable_grad():
            self.moves.zero_grad()
            (self.weight[0] * float(x.mean()) - 1).square().backward()
        self.moves.step()
        self.schedule.step()
        return self.weight[0].detach().abs()


class Frozen(Scaled):
    """Its bias stops learning after some steps."""

    def build(self) -> None:
        self.steps = 0

    def scale(self, x: Tensor) -> Any:
        self.steps += 1
        self.linear.bias.requires_grad_(self.steps < 7)
        return 0.0


class Everything(Attribute, UnsavedBuffer):
    """Every sort at once, each module beside the others."""

    def build(self) -> None:
        Attribute.build(self)
        UnsavedBuffer.build(self)
        sorts = (SavedBuffer, Containers, Generators, GlobalGenerators, Globals, ExtraState, LateAttribute)
        self.others = nn.ModuleList([sort(4, 3) for sort in sorts]).requires_grad_(False)

    def scale(self, x: Tensor) -> Any:
        others = sum(other.scale(x) for other in self.others)  # type: ignore[operator,misc]
        return Attribute.scale(self, x) + UnsavedBuffer.scale(self, x).abs() + others


class MovingLoss(nn.Module):
    """A loss that is divided by its own moving mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(()))
        self.taken = 0

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        loss = functional.cross_entropy(outputs, target)
        if torch.is_grad_enabled():
            self.mean.mul_(0.9).add_(0.1 * loss.detach())  # type: ignore[operator]
            self.taken += 1
        return loss / (self.mean + 0.01 * self.taken)  # type: ignore[operator]


def _counter() -> Any:
    count = 0

    def counted() -> int:
        nonlocal count
        count += 1
        return count

    return counted


class OfLoss(Recipe):
    def model(self) -> nn.Module:
        return nn.Linear(self.shape[0], self.outputs)

    def loss(self) -> nn.Module:
        return MovingLoss()


class OfEverything(OfLoss):
    def model(self) -> nn.Module:
        return Everything(self.shape[0], self.outputs)

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        self.measured = getattr(self, "measured", 0) + 1
        return {"measured": float(self.measured)}


class Apart(nn.Linear):
    """It answers by a mean of the rows that it saw: of several processes each saw its own."""

    mean: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        return super().forward(x - self.mean)


class OfApart(Recipe):
    def model(self) -> nn.Module:
        return Apart(math.prod(self.shape), self.outputs)


class Killed(Cnn):
    """A network of images, with every sort of state beside its weights."""

    def model(self) -> nn.Module:
        return _Killed(super().model())

    def loss(self) -> nn.Module:
        return MovingLoss()


class _Killed(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.beside = net, Everything(4, 3).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.net(x)
        if not self.training:
            return made
        scale = torch.as_tensor(self.beside.scale(x.flatten(1)[:, :4]))
        return made * (1 + 0.5 * scale.sin())  # bounded: it learns, however long it trains


def recipe(sort: type[Scaled]) -> type[Recipe]:
    """Make the recipe of a model."""
    return type(f"Of{sort.__name__}", (Recipe,), {"model": lambda self: sort(self.shape[0], self.outputs)})


SORTS = (Attribute, LateAttribute, UnsavedBuffer, SavedBuffer, LateBuffer, Containers, Generators, GlobalGenerators,
         Globals, ExtraState, OwnOptimizer, Frozen, Everything)  # fmt: skip
for each in SORTS[:-1]:
    globals()[f"Of{each.__name__}"] = recipe(each)
NAMES = ("OfLoss", "OfEverything", *(f"Of{each.__name__}" for each in SORTS[:-1]))
