"""Losses by name, and how a model's outputs become answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from boatyard.data.schema import Schema
from boatyard.errors import ConfigError, DataError

SMOOTHING = 0.1  # Szegedy et al., Rethinking the Inception Architecture, 2016, section 7
CLASSIFICATION = ("cross_entropy", "label_smoothing", "mse")
REGRESSION = ("mse", "mae", "huber", "poisson")


@dataclass(frozen=True)
class Target:
    """How targets enter a loss and outputs leave the graph.

    Labels go in as they are and come out as probabilities. Values go in as (value - shift) / scale and come out the
    other way round; with `log` the model gives the logarithm of the value (a Poisson rate).
    """

    labels: bool
    shift: float = 0.0
    scale: float = 1.0
    log: bool = False

    def encode(self, target: Tensor) -> Tensor:
        """Turn raw targets [N] into what the loss takes."""
        return target if self.labels else ((target.double() - self.shift) / self.scale).float()

    def decode(self, target: Tensor) -> Tensor:
        """Turn what the loss takes back into raw targets."""
        return target if self.labels else target * self.scale + self.shift

    def answer(self, outputs: Tensor) -> Tensor:
        """Turn outputs [N, K] into probabilities [N, K], or [N, 1] into values [N]."""
        if self.labels:
            return torch.softmax(outputs.float(), dim=1)
        values = outputs.float().reshape(-1)
        return torch.exp(values) if self.log else values * self.scale + self.shift


def target(name: str | None, schema: Schema, statistics: Mapping[str, Any]) -> Target:
    """Return how a dataset's targets are encoded for a loss."""
    if schema.task == "classification":
        return Target(labels=True)
    found = statistics["__target__"]
    if name == "poisson":
        if found["min"] < 0:
            raise DataError(
                f"train.loss is poisson, which counts from 0; the least {schema.target} is {found['min']:g}"
            )
        return Target(labels=False, log=True)
    return Target(labels=False, shift=float(found["mean"]), scale=float(found["std"]) or 1.0)


def named(name: str | None, schema: Schema, statistics: Mapping[str, Any], class_weights: str = "none") -> nn.Module:
    """Return a loss by name, or what suits the task: outputs [N, K], target [N] to the mean over the rows.

    Raises ConfigError for a name that there is not, or not for this task.
    """
    classification = schema.task == "classification"
    name = name or ("cross_entropy" if classification else "mse")
    allowed = CLASSIFICATION if classification else REGRESSION
    if name not in allowed:
        raise ConfigError(f"train.loss: no loss {name!r} for {schema.task}; allowed are {', '.join(allowed)}")
    if not classification:
        return _Values(_VALUES[name])
    weights = _balanced(schema, statistics) if class_weights == "balanced" else None
    if name == "mse":
        return _Brier(weights)
    return nn.CrossEntropyLoss(weight=weights, label_smoothing=SMOOTHING if name == "label_smoothing" else 0.0)


def _balanced(schema: Schema, statistics: Mapping[str, Any]) -> Tensor:
    """Weigh classes by rows / (classes · rows of the class), as scikit-learn's `balanced` does."""
    counts = statistics["__target__"]["counts"]
    missing = [label for label in schema.labels if not counts.get(label)]
    if missing:
        raise DataError(
            f"train.class_weights is balanced, but no training row is {', '.join(missing)}; give rows or use none"
        )
    total = sum(counts[label] for label in schema.labels)
    return torch.tensor([total / (len(schema.labels) * counts[label]) for label in schema.labels], dtype=torch.float32)


class _Values(nn.Module):
    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return self.loss(outputs.reshape(-1), target)


class _Brier(nn.Module):
    """Squared distance between the probabilities and the label, summed over the labels (Brier, 1950)."""

    weights: Tensor | None

    def __init__(self, weights: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        wanted = functional.one_hot(target, outputs.shape[1]).to(outputs.dtype)
        rows = (torch.softmax(outputs, dim=1) - wanted).square().sum(dim=1)
        if self.weights is None:
            return rows.mean()
        weights = self.weights.to(outputs.dtype)[target]
        return (rows * weights).sum() / weights.sum()


_VALUES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
    "poisson": functional.poisson_nll_loss,  # the output is the logarithm of the rate
}
