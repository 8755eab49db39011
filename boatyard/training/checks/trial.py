"""A recipe's parts, made to be tried: features, model and loss of its own, and a handful of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boatyard import tasks
from boatyard.data.features import tensors
from boatyard.data.schema import Batch, Schema
from boatyard.errors import RecipeError
from boatyard.project import TrainConfig
from boatyard.recipes import Recipe
from boatyard.recipes.authoring import authored, defined_at, place_of
from boatyard.tasks import Head
from boatyard.training import losses

ROWS = 64  # that are looked at, at most
COMPANY = 13  # rows that are put together, apart and in other orders


@dataclass(frozen=True)
class Trial:
    """A recipe on some rows of its data, on the CPU: `inputs` raw by tensor name, `target` as its loss takes it."""

    recipe: Recipe
    features: nn.Module
    model: nn.Module
    loss: nn.Module
    head: Head
    batch: Batch
    inputs: Mapping[str, Tensor]
    target: Tensor

    @property
    def kind(self) -> type[Recipe]:
        """The recipe's class: where its files are."""
        return type(self.recipe)

    @property
    def schema(self) -> Schema:
        """What a row is."""
        return self.recipe.schema

    def __len__(self) -> int:
        return len(self.batch)

    def at(self, method: str) -> str:
        """Say where a method of the recipe is written."""
        return defined_at(self.kind, getattr(self.kind, method))

    @property
    def at_forward(self) -> str:
        """Where the model's forward() is written, or else model()."""
        return self.place_of(type(self.model).forward, "model")

    def place_of(self, function: Any, method: str) -> str:
        """Say where a function is written if it is the author's, or else a method of the recipe."""
        return place_of(self.kind, function, method)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return the raw inputs of rows by number; they are dealt out again where there are fewer."""
        return {name: value[index % len(self)] for name, value in self.inputs.items()}

    def answer(self, inputs: Mapping[str, Tensor]) -> Any:
        """Return what the model makes of raw inputs in eval mode; RecipeError for what it raises."""
        with authored(self.kind, "forward()"), torch.no_grad():
            return self.model.eval()(self.features.eval()(dict(inputs)))


def trial_of(recipe: Recipe, batch: Batch, features: nn.Module, model: nn.Module, loss: nn.Module) -> Trial:
    """Put parts that are made already on some rows."""
    schema, chosen = recipe.schema, batch.take(slice(0, ROWS))
    head = losses.target(recipe.config.loss, schema, recipe.statistics)
    target = head.encode(torch.from_numpy(np.require(chosen.target, requirements="W")))
    return Trial(recipe, features, model, loss, head, chosen, tensors(schema, chosen.inputs), target)


def fresh(recipe: Recipe, batch: Batch) -> Trial:
    """Make a recipe's features, model and loss with the weights of its seed; RecipeError where one is none."""
    torch.manual_seed(recipe.config.seed)
    return trial_of(recipe, batch, features_of(recipe), model_of(recipe), loss_of(recipe, recipe.config))


def features_of(recipe: Recipe) -> nn.Module:
    """Make a recipe's features; RecipeError for what it raises, and where they are no module."""
    with authored(type(recipe), "features()", "features"):
        return _module(recipe, "features", recipe.features())


def model_of(recipe: Recipe) -> nn.Module:
    """Make a recipe's model; RecipeError for what it raises, and where it is no module."""
    with authored(type(recipe), "model()"):
        return _module(recipe, "model", recipe.model())


def loss_of(recipe: Recipe, config: TrainConfig) -> nn.Module:
    """Make the loss that the project file names, or else the recipe's."""
    if config.loss is not None:
        return losses.named(config.loss, recipe.schema, recipe.statistics, config.class_weights)
    with authored(type(recipe), "loss()", "loss"):
        return _module(recipe, "loss", recipe.loss())


def samples(trial: Trial) -> tuple[Tensor, Tensor]:
    """Return random outputs [N, width] and targets [N] in which every label, or several numbers, are met."""
    width = tasks.of(trial.schema).width(trial.schema)
    rows = min(max(ROWS, 4 * width), 4096)
    random = torch.Generator().manual_seed(0)
    order = torch.randperm(rows, generator=random)
    outputs = torch.randn((rows, width), generator=random)
    if not trial.target.is_floating_point():
        return outputs, (torch.arange(rows) % width)[order].to(trial.target.dtype)
    target = trial.target[torch.arange(rows) % len(trial)]
    if len(target.unique()) < 3:  # a few rows may have one number in common
        target = target + torch.linspace(0, 1, rows)
    return outputs, target[order]


def _module(recipe: Recipe, method: str, made: Any) -> nn.Module:
    if isinstance(made, nn.Module):
        return made
    found = "nothing: is there a return?" if made is None else f"a {type(made).__name__}"
    fix = "wrap the function in a module" if callable(made) and not isinstance(made, type) else ""
    at = defined_at(type(recipe), getattr(type(recipe), method))
    raise RecipeError(f"{at}: {method}()", expected="a torch.nn.Module", found=found, fix=fix)
