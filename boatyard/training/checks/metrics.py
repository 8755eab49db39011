"""A recipe's metrics: finite numbers by name, of nothing that has weights of its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from boatyard.errors import ConfigError, RecipeError
from boatyard.recipes import Recipe
from boatyard.recipes.authoring import authored, defined_at
from boatyard.training import logged_metrics
from boatyard.training.checks.trial import Trial, samples


def check_metrics(trial: Trial) -> None:
    """Refuse metrics that are no numbers on random outputs and targets of every label, and weights that they use."""
    outputs, target = samples(trial)
    used = _Weights()
    with used:
        metrics(trial.recipe, outputs, target)
    trained = {id(weight) for weight in trial.model.parameters()}
    if any(key not in trained for key in used.found):
        raise RecipeError(
            f"{trial.at('metrics')}: metrics() uses weights that are in no optimizer",
            fix="put them into the model, or call requires_grad_(False) on them",
        )


def metrics(recipe: Recipe, outputs: Tensor, target: Tensor) -> dict[str, float]:
    """Return a recipe's metrics; RecipeError for what it raises, and for a value that is no finite number."""
    with authored(type(recipe), "metrics()", "metrics"):
        found = recipe.metrics(outputs, target)
    at = f"{defined_at(type(recipe), type(recipe).metrics)}: metrics()"
    try:
        numbers = logged_metrics.checked(found, recipe.config.recipe)
    except ConfigError as error:
        raise RecipeError(f"{at}: {error}") from error
    for name, value in numbers.items():
        if not math.isfinite(value):
            fix = "divide by no zero, and leave out what is not defined"
            raise RecipeError(f"{at}: {name} is {value}", expected="a finite number", fix=fix)
    return numbers


class _Weights(TorchFunctionMode):
    """Notes the tensors that want a gradient and are given to a function of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, Tensor] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_grad_enabled():
            for value in args:
                if isinstance(value, Tensor) and value.is_leaf and value.requires_grad:
                    self.found[id(value)] = value
        return function(*args, **(kwargs or {}))
