"""Whether a loss compares each row's output with that row's own target.

An output [N, 1] minus a target [N] is [N, N] by broadcasting: every output against every target. Its mean has a
gradient and falls, towards a model that predicts the mean for every row.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from boatyard.errors import RecipeError
from boatyard.recipes.authoring import is_own
from boatyard.training.checks.losing import at_loss, broadcasts, loss_of_rows
from boatyard.training.checks.trial import Trial, samples

ORDERS = 3  # of the targets, at random
SAME = 1e-5  # of the loss: sums of float32 in another order differ by less, other pairs by far more
WEIGHTS = ("weight", "weights", "class_weight", "class_weights", "pos_weight")


def check_pairing(trial: Trial) -> None:
    """Refuse a loss that broadcasts, that does not change with the order of the targets, or not with them at all."""
    outputs, target = samples(trial)
    outputs = outputs.squeeze(1) if _flat(trial) else outputs
    with _Broadcast(trial, len(target)) as broadcast:
        loss = _loss(trial, outputs, target)
    if broadcast.place:
        raise broadcasts(broadcast.place, len(target))
    _check_class_weights(trial)
    if _differs(loss, _loss(trial, outputs, target)):  # it draws at random: no other comparison would say a thing
        return
    random = torch.Generator().manual_seed(1)
    orders = [torch.randperm(len(target), generator=random) for _ in range(ORDERS)]
    if any(_differs(loss, _loss(trial, outputs, target[order])) for order in orders):
        return
    if _differs(loss, _loss(trial, outputs, _others(trial, target))):
        shapes = f"outputs {list(outputs.shape)}, targets {list(target.shape)}"
        squeeze = "; write outputs.squeeze(1)" if trial.recipe.outputs == 1 else ""
        raise RecipeError(
            f"{at_loss(trial)}: the loss is the same whichever row a target is of",
            expected="each output compared with its own target",
            fix=f"mind the shapes, {shapes}{squeeze}",
        )
    raise RecipeError(f"{at_loss(trial)}: the loss does not depend on the targets", fix="compare outputs with them")


def _loss(trial: Trial, outputs: Tensor, target: Tensor) -> float:
    return float(loss_of_rows(trial, outputs.clone().requires_grad_(), target).detach())  # as a step takes it


def _differs(loss: float, other: float) -> bool:
    return not abs(loss - other) <= SAME * max(abs(loss), abs(other))


def _flat(trial: Trial) -> bool:
    """Say whether the model gives [N] where [N, 1] is as good."""
    return bool(trial.answer(trial.take(torch.arange(2))).ndim == 1)


def _others(trial: Trial, target: Tensor) -> Tensor:
    return target * 2 + 1 if target.is_floating_point() else (target + 1) % trial.recipe.outputs


def _check_class_weights(trial: Trial) -> None:
    """Refuse a weight for each label of which there are more or fewer than labels; torch alone finds too few."""
    if not trial.schema.labels:
        return
    for module in trial.loss.modules():
        for name in WEIGHTS:
            value = getattr(module, name, None)
            if not isinstance(value, Tensor) or isinstance(value, nn.Parameter) or value.ndim != 1:
                continue
            if len(value) not in (1, trial.recipe.outputs):
                raise RecipeError(
                    f"{at_loss(trial)}: {name} of the loss",
                    expected=f"{trial.recipe.outputs} numbers, one for each label",
                    found=f"{len(value)}",
                )


class _Broadcast(TorchFunctionMode):
    """Notes where a function of torch makes [N, N] of [N, 1] and [N]."""

    def __init__(self, trial: Trial, rows: int) -> None:
        super().__init__()
        self.trial, self.rows, self.place = trial, rows, ""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        shapes = {tuple(value.shape) for value in args if isinstance(value, Tensor)}
        n = self.rows
        if isinstance(made, Tensor) and made.shape == (n, n) and shapes == {(n, 1), (n,)} and not self.place:
            self.place = self._line()
        return made

    def _line(self) -> str:
        frame = sys._getframe(2)
        while frame is not None and not is_own(self.trial.kind, frame.f_code.co_filename):
            frame = frame.f_back  # type: ignore[assignment]
        return f"{frame.f_code.co_filename}, line {frame.f_lineno}" if frame is not None else at_loss(self.trial)
