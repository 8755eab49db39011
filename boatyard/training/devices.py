"""Which device a training here has, said before it starts where a project asks for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boatyard.errors import ConfigError

if TYPE_CHECKING:
    from boatyard.project import Project


def shortfall_of(project: Project) -> str:
    """Say what a training of the project on this machine does without; see `shortfall`."""
    gpu = project.here().resources.train.gpu
    return shortfall(gpu.count, gpu.type, project.train.device, "resources.train.gpu") if gpu else ""


def shortfall(count: int, resource: str, device: str, setting: str) -> str:
    """Say what a step does without on this machine, "" when it has the GPUs that it asks for.

    `count` and `resource` are what it asks a cluster for, by `setting`; `device` is train.device, "" for a step that
    uses no GPU itself. Raises ConfigError where train.device is cuda and torch finds no GPU.
    """
    asks = f"{setting} asks for {count} {resource}"
    if not device:
        return f"{asks}: only a pod of a cluster gets it, here the step runs on the CPU"
    if device == "cpu":
        return f"{asks}, and train.device is cpu: it trains on the CPU"
    return _without(asks, count, device)


def _without(asks: str, count: int, device: str) -> str:
    import torch  # only where a GPU is asked for: it takes a second and more

    if torch.cuda.is_available():
        here = torch.cuda.device_count()
        return "" if here >= count else f"{asks}, this machine has {here}: it trains with that"
    if device == "cuda":
        raise ConfigError(f"{asks} and train.device is cuda, but torch finds no GPU here", fix="use auto or cpu")
    return f"{asks}, and torch finds no GPU here: it trains on the CPU"
