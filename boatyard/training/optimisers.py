"""How weights move: optimizers by name, the learning rate of every step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from boatyard.project import TrainConfig

ONECYCLE_RISE, ONECYCLE_START, ONECYCLE_END = 0.3, 1 / 25, 1 / 250000  # as in torch's OneCycleLR
STEP_AT, STEP_FACTOR = (0.5, 0.75), 0.1


def optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer of a configuration that is `completed`.

    Matrices and kernels decay, vectors (biases, norms) do not. `fused` updates all weights in one pass over memory.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [w for w in trained if w.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = config.learning_rate
    assert rate is not None and config.weight_decay is not None, "call completed() first"
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum or 0.0, fused=True)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    return torch.optim.Adagrad(groups, lr=rate)


def rate(config: TrainConfig, step: int, total: int) -> float:
    """Return the learning rate of a step (from 0) of `total`: it follows from the step alone."""
    assert config.learning_rate is not None, "call completed() first"
    if config.schedule == "onecycle":
        return config.learning_rate * _onecycle(step, total)
    warmup = math.ceil(config.warmup * total) if total > 1 else 0
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    return config.learning_rate * _fall(config.schedule, (step - warmup) / max(total - warmup, 1))


def _fall(schedule: str, done: float) -> float:
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "step":
        return STEP_FACTOR ** sum(done >= at for at in STEP_AT)
    return 1.0


def _onecycle(step: int, total: int) -> float:
    """Rise from 1/25 to 1 in the first 30 % of the steps, then fall to almost 0, each half a cosine (Smith, 2018)."""
    top = max(ONECYCLE_RISE * total - 1, 1)
    if step <= top:
        return _between(ONECYCLE_START, 1.0, step / top)
    return _between(1.0, ONECYCLE_END, (step - top) / max(total - 1 - top, 1))


def _between(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
