"""Whether a launcher keeps the rules: what a plug-in's author runs, by hand or from pytest.

from boatyard.training.launchers import conformance

conformance.check(MyLauncher(), Path("dataset"), tmp_path, train={"nodes": 2})
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from boatyard.data import artifacts, checkpoints
from boatyard.errors import BoatyardError, Refused
from boatyard.project import GateConfig, PreprocessConfig, TrainConfig, section
from boatyard.training.launchers.base import Launch, Launcher

SMALL: Mapping[str, Any] = {"recipe": "linear", "epochs": 1, "batch_size": 16}


def check(launcher: Launcher, dataset: Path, folder: Path, train: Mapping[str, Any] | None = None) -> None:
    """Raise Refused, naming the rule, unless the launcher trains a small recipe on a dataset as every launcher does.

    `train` holds settings that the launcher is made for; `folder` is an empty one that checkpoints are written to.
    """
    config = section(TrainConfig, {**SMALL, **(train or {})})
    launcher.check(config)
    launch = Launch(config, PreprocessConfig(), GateConfig(), dataset, folder / "checkpoint", "conformance")
    trained = launcher.train(launch)
    artifacts.verify(launch.out, checkpoints.CHECKPOINT_KIND)
    _hold(trained == checkpoints.Training.read(launch.out), "it returns what the checkpoint says")
    _hold(trained.epochs == config.epochs, "it trains the section that it is given")
    wrong = config.model_copy(update={"recipe": "no-such-recipe"})
    failed = replace(launch, train=wrong, out=folder / "failed")
    try:
        launcher.train(failed)
    except BoatyardError:
        _hold(not failed.out.exists(), "a training that failed leaves no checkpoint")
        return
    _hold(False, "it raises the error that ended the training")


def _hold(true: bool, rule: str) -> None:
    if not true:
        raise Refused(f"the launcher breaks a rule: {rule}")
