"""Losses by name, and how a model's outputs become answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from boatyard import tasks
from boatyard.data.schema import Schema
from boatyard.errors import ConfigError, DataError
from boatyard.tasks import Head

SMOOTHING = 0.1  # Szegedy et al., Rethinking the Inception Architecture, 2016, section 7


def target(name: str | None, schema: Schema, statistics: Mapping[str, Any]) -> Head:
    """Return how a dataset's targets enter a loss, and outputs become answers."""
    return tasks.of(schema).head(name, schema, statistics)


def named(name: str | None, schema: Schema, statistics: Mapping[str, Any], class_weights: str = "none") -> nn.Module:
    """Return a loss by name, or what suits the task: outputs [N, K], target [N] to the mean over the rows.

    Raises ConfigError for a name that there is not, or not for this task.
    """
    task = tasks.of(schema)
    name = name or task.losses[0]
    if name not in task.losses:
        raise ConfigError(f"train.loss: no loss {name!r} for {task.name}", fix=f"allowed are {', '.join(task.losses)}")
    return task.loss(name, schema, statistics, class_weights)


def of_labels(name: str, weights: Tensor | None) -> nn.Module:
    """Make a loss of label indices: cross entropy, with smoothing or without, or the Brier score (mse)."""
    if name == "mse":
        return _Brier(weights)
    return nn.CrossEntropyLoss(weight=weights, label_smoothing=SMOOTHING if name == "label_smoothing" else 0.0)


def of_values(name: str) -> nn.Module:
    """Make a loss of one number a row."""
    return _ValueLoss(_VALUES[name])


def denominator(loss: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return what gives the sum that a weighted mean divides by, of a batch's target [N]; None for a mean over rows.

    With it the losses of batches add up to that of all their rows. A loss of one's own says it by a method
    `denominator(target)`; torch's with class weights or an ignored label are known.
    """
    if callable(own := getattr(loss, "denominator", None)):
        return own  # type: ignore[no-any-return]
    if type(loss) not in (nn.CrossEntropyLoss, nn.NLLLoss) or loss.reduction != "mean":
        return None
    if loss.weight is None and loss.ignore_index < 0:
        return None
    return partial(_weight_of, loss)


def _weight_of(loss: Any, target: Tensor) -> Tensor:
    counted = target[target != loss.ignore_index] if loss.ignore_index >= 0 else target
    return loss.weight[counted].sum() if loss.weight is not None else torch.tensor(float(len(counted)))


def balanced(schema: Schema, statistics: Mapping[str, Any]) -> Tensor:
    """Weigh classes by rows / (classes · rows of the class), as scikit-learn's `balanced` does."""
    counts = statistics["__target__"]["counts"]
    missing = [label for label in schema.labels if not counts.get(label)]
    if missing:
        raise DataError(
            f"train.class_weights is balanced, but no training row is {', '.join(missing)}", fix="give rows or use none"
        )
    total = sum(counts[label] for label in schema.labels)
    return torch.tensor([total / (len(schema.labels) * counts[label]) for label in schema.labels], dtype=torch.float32)


class _ValueLoss(nn.Module):
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

    def denominator(self, target: Tensor) -> Tensor:
        """Return the sum of the rows' weights."""
        return torch.tensor(float(len(target))) if self.weights is None else self.weights[target].sum()


_VALUES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
    "poisson": functional.poisson_nll_loss,  # the output is the logarithm of the rate
}
