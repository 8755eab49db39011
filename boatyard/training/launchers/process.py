"""One process, where the step runs: a laptop, or a step's own pod with at most one GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boatyard.errors import ConfigError
from boatyard.project import TrainConfig
from boatyard.settings import Settings
from boatyard.training.launchers.base import Launch, Launcher

if TYPE_CHECKING:
    from boatyard.data.checkpoints import Training


class InProcess(Launcher):
    """Trains in this very process; what a killed one has saved below BOATYARD_WORK, the next goes on from."""

    def check(self, config: TrainConfig) -> None:
        """Refuse a section that asks for several processes."""
        if config.processes > 1:
            raise ConfigError(
                "train.launcher: process",
                expected="one process",
                found=f"nodes {config.nodes}, gpus {config.gpus}",
                fix="remove train.launcher, or set train.nodes=1 and train.gpus=0",
            )

    def train(self, launch: Launch) -> Training:
        """Train here."""
        from boatyard import training
        from boatyard.data import datasets

        settings = Settings()
        return training.train(
            launch.train,
            launch.preprocess,
            datasets.read(launch.dataset),
            launch.out,
            seal=launch.gate.seal,
            root=settings.project,
            work=settings.work,
        )


LAUNCHER = InProcess()
