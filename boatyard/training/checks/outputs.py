"""What a model is and gives: real numbers, one float32 score for each output of a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from boatyard.data.features import empty
from boatyard.errors import RecipeError
from boatyard.recipes import Recipe
from boatyard.recipes.authoring import authored, place_of
from boatyard.training.checks.trial import Trial


def check_state(trial: Trial) -> None:
    """Refuse complex numbers, which ONNX has not."""
    for name, value in trial.model.state_dict().items():
        if isinstance(value, Tensor) and value.is_complex():  # what is no tensor is saved apart
            raise RecipeError(
                f"{trial.at_forward}: {name} is {_dtype(value)}", fix="use two real tensors: ONNX has no complex ones"
            )


def check_norms(trial: Trial) -> None:
    """Refuse a batch norm that keeps no statistics: in eval mode it would normalise by the rows that come together."""
    for name, module in trial.model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise RecipeError(
                f"{trial.at('model')}: {name or 'the model'} is a {type(module).__name__} without running statistics: "
                "a row's scores would depend on the rows around it",
                fix="leave out track_running_stats=False, or use nn.LayerNorm or nn.GroupNorm",
            )


def check_outputs(trial: Trial) -> None:
    """Refuse a model that does not give float32 [N, outputs], for one row and for several."""
    for rows in (2, 1):
        found = trial.answer(trial.take(torch.arange(rows)))
        _check_output(trial.recipe, trial.model, found, rows)


def check_on(device: torch.device, recipe: Recipe, features: nn.Module, model: nn.Module) -> None:
    """Refuse a model that does not give its outputs on the device that trains it; fills layers that are lazy."""
    kind, inputs = type(recipe), {name: value.to(device) for name, value in empty(recipe.schema, 2).items()}
    with authored(kind, f"forward() on {device}"), torch.no_grad():
        found = model.eval()(features.eval()(inputs))
    model.train()
    _check_output(recipe, model, found, 2)


def _check_output(recipe: Recipe, model: nn.Module, found: Any, rows: int) -> None:
    outputs = recipe.outputs
    score = "one score for each label" if recipe.schema.labels else "one number for each row"
    expected = f"a float32 tensor [{rows}, {outputs}] for {rows} row{'s' * (rows > 1)}: {score}"

    def refuse(what: str, fix: str = "") -> None:
        place = place_of(type(recipe), type(model).forward, "model")
        raise RecipeError(f"{place}: the model gives {what}", expected=expected, fix=fix)

    if not isinstance(found, Tensor):
        refuse(_worded(found), "return that tensor alone")
    shapes = ((rows, outputs), (rows,)) if outputs == 1 else ((rows, outputs),)
    if found.is_complex() or found.dtype != torch.float32:
        refuse(f"{_dtype(found)} {list(found.shape)}", "return it .float(), of real numbers")
    if tuple(found.shape) not in shapes:
        squeezed = rows == 1 and found.ndim < 2
        refuse(f"{list(found.shape)} for {rows} row{'s' * (rows > 1)}", "name the dimension: squeeze(1)" * squeezed)


def _worded(found: Any) -> str:
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of {len(found)}"
    if isinstance(found, dict):
        return f"a dict of {', '.join(map(str, found))}"
    return "nothing" if found is None else f"a {type(found).__name__}"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
