"""Whether everything that should learn does: each weight has a gradient, and each that has one is in the optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from boatyard.errors import RecipeError
from boatyard.recipes.authoring import authored
from boatyard.spelling import listed
from boatyard.training.checks.losing import at_loss, loss_of_rows
from boatyard.training.checks.trial import Trial

PASSES = 3  # a layer may be left out of one at random
MAX_NAMES = 5
MAX_SEARCHED = 10_000  # objects, for the name of a tensor that is registered nowhere


def check_learning(trial: Trial) -> None:
    """Refuse weights that would not learn, by name, and a loss without a gradient."""
    learning = {name: weight for name, weight in trial.model.named_parameters() if weight.requires_grad}
    _check_some(trial, learning)
    _check_elsewhere(trial, "features", trial.features)
    _check_elsewhere(trial, "loss", trial.loss)
    reached: set[int] = set()
    for number in range(PASSES):
        leaves = _leaves(trial, number < PASSES - 1)
        _check_registered(trial, leaves, {id(weight) for weight in trial.model.parameters()})
        reached |= leaves.keys()
        if number and all(id(weight) in reached for weight in learning.values()):
            return
    idle = [name for name, weight in learning.items() if id(weight) not in reached]
    if idle:
        raise RecipeError(
            f"{trial.at_forward}: the loss does not depend on {listed(idle, MAX_NAMES)}",
            fix="use them in forward() without detach() or no_grad(), remove them, or set requires_grad=False",
        )


def _check_some(trial: Trial, learning: dict[str, nn.Parameter]) -> None:
    names = [name for name, _ in trial.model.named_parameters()]
    if learning:
        return
    if not names:
        raise RecipeError(
            f"{trial.at('model')}: the model has no weights to learn",
            fix="keep layers as attributes or in nn.ModuleList: those in a plain list are not found",
        )
    raise RecipeError(
        f"{trial.at('model')}: all weights of the model are frozen ({listed(names, MAX_NAMES)})",
        fix="leave requires_grad on for those that should learn",
    )


def _check_elsewhere(trial: Trial, method: str, module: nn.Module) -> None:
    names = [name for name, weight in module.named_parameters() if weight.requires_grad]
    trained = {id(weight) for weight in trial.model.parameters()}
    if names and any(id(weight) not in trained for weight in module.parameters() if weight.requires_grad):
        raise RecipeError(
            f"{trial.at(method)}: {method}() has weights that are in no optimizer: {listed(names, MAX_NAMES)}",
            fix="put them into the model, or call requires_grad_(False) on them",
        )


def _leaves(trial: Trial, training: bool) -> dict[int, Tensor]:
    """Take a step without an optimizer; return the tensors that its gradient reaches."""
    rows = torch.arange(min(trial.recipe.config.batch_size, len(trial)))
    model, features = trial.model.train(training), trial.features
    with authored(trial.kind, "forward() in training"):
        with torch.no_grad():
            inputs = features(trial.take(rows))
        outputs = model(inputs)
    loss = loss_of_rows(trial, outputs, trial.target[rows])
    if not loss.requires_grad:
        cut = "the scores depend on no weight" if not outputs.requires_grad else "the loss has no gradient"
        place = trial.at_forward if not outputs.requires_grad else at_loss(trial)
        raise RecipeError(f"{place}: {cut}", fix="leave out argmax, comparisons, detach(), no_grad() and item()")
    found = {id(weight): weight for weight in _reached(loss)}
    with authored(trial.kind, "backward()"):
        loss.backward()
    return found


def _reached(loss: Tensor) -> Iterator[Tensor]:
    """Give the leaves that a gradient flows to."""
    waiting: list[Any] = [loss.grad_fn]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):
            yield node.variable
        fresh = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= fresh
        waiting += fresh


def _check_registered(trial: Trial, leaves: dict[int, Tensor], registered: set[int]) -> None:
    strangers = [weight for key, weight in leaves.items() if key not in registered]
    if strangers:
        roots = {"model": trial.model, "loss": trial.loss, "recipe": trial.recipe}
        names = [_name_of(weight, roots) or f"a tensor {list(weight.shape)}" for weight in strangers]
        raise RecipeError(
            f"{trial.at_forward}: weights that are in no optimizer: {listed(sorted(names), MAX_NAMES)}",
            fix="make them nn.Parameter attributes of the model, or keep layers in nn.ModuleList or nn.ModuleDict",
        )


def _name_of(weight: Tensor, roots: dict[str, Any]) -> str:
    """Return the path to a tensor through attributes, lists and dicts."""
    waiting, seen = list(roots.items()), set[int]()
    for path, value in waiting:  # grows on the way
        if value is weight:
            return path
        if id(value) in seen or len(seen) > MAX_SEARCHED:
            continue
        seen.add(id(value))
        waiting += _within(path, value)
    return ""


def _within(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        yield from ((f"{path}[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, dict):
        yield from ((f"{path}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, nn.Module):
        parts = {**value._modules, **value._parameters, **value._buffers}
        yield from ((f"{path}.{key}", item) for key, item in parts.items())
        yield from ((f"{path}.{key}", item) for key, item in vars(value).items() if not key.startswith("_"))
    elif path == "recipe":
        yield from ((f"{path}.{key}", item) for key, item in vars(value).items())
