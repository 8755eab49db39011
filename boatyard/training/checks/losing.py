"""The loss of some rows: one real number, of each output and its own target."""

from __future__ import annotations

import warnings

from torch import Tensor

from boatyard.errors import RecipeError
from boatyard.recipes.authoring import authored
from boatyard.training.checks.trial import Trial


def loss_of_rows(trial: Trial, outputs: Tensor, target: Tensor) -> Tensor:
    """Return the loss of some rows; RecipeError for what it raises, and where it is not one number."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        with authored(trial.kind, "the loss", "loss"):
            loss = trial.loss(outputs.float(), target)
    if any("Using a target size" in str(warning.message) for warning in noted):  # torch's own word for it
        raise broadcasts(at_loss(trial), len(target))
    if isinstance(loss, Tensor) and loss.ndim == 0 and loss.is_floating_point():
        return loss
    fix = ""
    found = f"a {type(loss).__name__}" if loss is not None else "nothing"
    if isinstance(loss, Tensor):
        found = f"{str(loss.dtype).removeprefix('torch.')} {list(loss.shape)}"
        fix = "take the mean over the rows" if loss.ndim else ""
    about = f"{at_loss(trial)}: the loss of {len(target)} rows"
    raise RecipeError(about, expected="one real number: a tensor of no dimension", found=found, fix=fix)


def at_loss(trial: Trial) -> str:
    """Say where the loss is written: its forward(), or else the recipe's loss()."""
    return trial.place_of(type(trial.loss).forward, "loss")


def broadcasts(place: str, rows: int) -> RecipeError:
    """Return what is said of outputs [N, 1] against targets [N]."""
    return RecipeError(
        f"{place}: the loss compares outputs [{rows}, 1] with targets [{rows}]",
        found=f"[{rows}, {rows}]: every output against every target",
        fix="write outputs.squeeze(1)",
    )
