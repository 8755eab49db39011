"""What a launcher is asked: to train a dataset and bring the checkpoint, or to say why it cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from boatyard import plugins
from boatyard.project import GateConfig, PreprocessConfig, StepConfig, TrainConfig

if TYPE_CHECKING:
    from boatyard.data.checkpoints import Training


@dataclass(frozen=True)
class Launch:
    """One training: its sections, the dataset's folder, where the checkpoint goes; `pod` is for pods of its own."""

    train: TrainConfig
    preprocess: PreprocessConfig
    gate: GateConfig
    dataset: Path
    out: Path
    name: str = "train"
    pod: StepConfig = field(default_factory=StepConfig)


class Launcher(ABC):
    """One way to start the processes of a training.

    `elsewhere` says that they run in pods of their own: the pipeline's step, which only follows them, then asks for
    little itself, and hands on what the project gives its training (`Launch.pod`).
    """

    elsewhere: bool = False

    @abstractmethod
    def check(self, config: TrainConfig) -> None:
        """Raise ConfigError, which says the setting, for a section that this launcher cannot train."""

    @abstractmethod
    def train(self, launch: Launch) -> Training:
        """Train, and return the checkpoint once it is whole at `out`; raises the error that ended the training."""


def named(config: TrainConfig) -> str:
    """Return the name of a section's launcher: the one that it gives, else what suits its number of processes."""
    return config.launcher or ("trainjob" if config.processes > 1 else "process")


def launcher(config: TrainConfig) -> Launcher:
    """Return a section's launcher; raises ConfigError when it is not there or cannot train such a section."""
    found: Launcher = plugins.load("launchers", named(config), "train.launcher")
    found.check(config)
    return found
