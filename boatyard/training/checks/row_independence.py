"""Whether a row's scores are its own: the same alone, in batches of other sizes, in another order, and again.

A server puts rows of different clients together; a model that looks at a row's neighbours is measured in one company
and answers in another.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from boatyard.errors import RecipeError
from boatyard.training.checks.trial import COMPANY, Trial
from boatyard.training.live_state import LiveState, changed

# Kernels sum in another order for another number of rows: float32 keeps 7 digits, of which sums over some thousand
# terms lose 2. What mixes rows moves scores by a share of their size; so a ten thousandth of the greatest is the line.
TOLERANCE = 1e-4
ALONE = 8
REPEATED = "other scores the second time, in eval mode"
MAX_NAMES = 8
NOISE = 0.3  # of a weight's spread


def check_rows(trial: Trial) -> None:
    """Refuse a model whose scores of a row depend on the other rows, with fresh weights and with others.

    Fresh weights may hide it, as a gate that begins at 0 does.
    """
    chosen = torch.linspace(0, len(trial) - 1, COMPANY).long()
    check_rows_of(trial, chosen)
    before = [weight.detach().clone() for weight in trial.model.parameters()]
    perturb(trial.model)
    check_rows_of(trial, chosen)
    if not bool(torch.isfinite(trial.answer(trial.take(chosen))).all()):  # such weights say nothing
        _restore(trial.model, before)


def check_rows_of(trial: Trial, chosen: Tensor) -> None:
    """Refuse a model whose scores of the rows chosen differ with the company that they are in."""
    whole = trial.answer(trial.take(chosen))
    if not bool(torch.isfinite(whole).all()):
        return
    allowed = TOLERANCE * float(whole.abs().max())
    for company, index, rows in _companies(len(chosen)):
        found = trial.answer(trial.take(chosen[index]))
        if found.shape != whole[rows].shape:
            raise RecipeError(
                f"{trial.at_forward}: the model gives {list(found.shape)} {company}",
                expected=f"{list(whole[rows].shape)}",
                fix="name the dimension of squeeze(), and reduce over other dimensions than the first",
            )
        difference = float((found - whole[rows]).abs().max())
        if not difference <= allowed:
            raise _mixes(trial, company, difference, float(whole.abs().max()))


def perturb(model: nn.Module) -> None:
    """Move every weight that learns by a part of its spread, and those that are all alike off their value."""
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad and weight.is_floating_point():
                spread = float(weight.std()) if weight.numel() > 1 else 0.0
                noise = torch.randn(weight.shape, generator=random, dtype=torch.float32) * spread
                if not spread > 0:
                    noise = torch.rand(weight.shape, generator=random) + 0.5
                weight.add_(NOISE * noise.to(weight))


def _restore(model: nn.Module, before: list[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(model.parameters(), before, strict=True):
            weight.copy_(value)


def _companies(count: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Give ways to ask for rows: in words, the rows to put together, and which of them are compared with the whole."""
    every = torch.arange(count)
    yield REPEATED, every, every
    for row in range(min(ALONE, count)):
        yield "for a row alone", every[row : row + 1], every[row : row + 1]
    for size in (2, 5):
        for start in range(0, count, size):
            part = every[start : start + size]
            yield f"in batches of {size}", part, part
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    yield "in another order", order, order
    yield REPEATED, every, every


def _mixes(trial: Trial, company: str, difference: float, greatest: float) -> RecipeError:
    again = company == REPEATED
    what = "the same rows get" if again else "a row's scores depend on the rows around it:"
    found = f"a difference of {difference:.2g} where the greatest score is {greatest:.2g}"
    if again and (names := _changed(trial)):
        found += f"; changed while it answered: {', '.join(names[:MAX_NAMES])}"
    return RecipeError(f"{trial.at_forward}: {what} {company}", found=found, fix=_cause(trial.model, again))


def _changed(trial: Trial) -> list[str]:
    """Return the names of what the model changes beside its outputs when it is asked."""
    live = LiveState(trial.model, {"recipe": trial.recipe}, {})
    trial.answer(trial.take(torch.arange(2)))
    return [name for name in changed(live.start, live.capture()) if name.startswith(("model", "recipe"))]


def _cause(model: nn.Module, again: bool) -> str:
    """Say what is likely to be the reason."""
    training = [name or "the model" for name, module in model.named_modules() if module.training]
    if training:
        return f"{training[0]} stays in training mode after eval(): let train() and eval() reach it"
    if again:
        return "nothing may be random or remembered in eval mode: F.dropout wants training=self.training"
    return "take no mean, rank, softmax or attention over the first dimension in eval mode"
