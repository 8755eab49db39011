"""Who starts a training's processes: one class each, and a plug-in is one file and an entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from boatyard import plugins, project, stages
from boatyard.data import checkpoints
from boatyard.errors import ConfigError, Refused
from boatyard.pipelines import training as pipeline
from boatyard.project import TrainConfig
from boatyard.training import launchers
from boatyard.training.launchers import Launch, Launcher, conformance

DATASET = Path(__file__).parent / "kept" / "prices" / "dataset"
PROJECT: dict[str, Any] = {
    "name": "prices",
    "data": {"source": "csv", "path": "prices.csv", "target": "price"},
    "train": {"recipe": "linear"},
}


@pytest.mark.parametrize(
    ("train", "name"), [({}, "process"), ({"nodes": 2}, "trainjob"), ({"launcher": "batch"}, "batch")]
)
def test_the_launcher_follows_from_the_processes_unless_it_is_named(train: dict[str, Any], name: str) -> None:
    config = TrainConfig().model_copy(update=train)  # unchecked: batch is a plug-in that is not installed here
    assert launchers.named(config) == name
    assert launchers.named(config.alone()) == "process"


def test_those_are_all() -> None:
    assert plugins.builtin("launchers") == ("process", "trainjob")
    assert not launchers.launcher(TrainConfig()).elsewhere and launchers.launcher(TrainConfig(nodes=2)).elsewhere


def test_one_process_keeps_the_rules(tmp_path: Path) -> None:
    conformance.check(launchers.launcher(TrainConfig()), DATASET, tmp_path)


def test_one_process_refuses_several() -> None:
    with pytest.raises(ConfigError) as raised:
        launchers.launcher(TrainConfig(nodes=2, launcher="process"))
    fix = "remove train.launcher, or set train.nodes=1 and train.gpus=0"
    assert str(raised.value) == f"train.launcher: process: expected one process, found nodes 2, gpus 0; {fix}"


def test_an_unknown_launcher_says_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="launcher: no launcher 'proces'; did you mean process"):
        stages.train({"launcher": "proces"}, {}, {}, str(DATASET), str(tmp_path / "out"), str(tmp_path / "numbers"))


BATCH = """
import subprocess
from boatyard.training.launchers import Launcher
from boatyard.training.launchers.process import LAUNCHER as HERE

class Batch(Launcher):
    elsewhere = True

    def check(self, config):
        pass

    def train(self, launch):
        (launch.out.parent / "queued").write_text(launch.name)
        return HERE.train(launch)

batch = Batch()
"""


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that brings the launcher `batch`."""
    (tmp_path / "batch_launcher.py").write_text(BATCH)
    about = tmp_path / "batch_launcher-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: batch-launcher\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[boatyard.launchers]\nbatch = batch_launcher:batch\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("batch")
def test_a_plug_in_trains_a_steps_section_without_an_edit_here(tmp_path: Path) -> None:
    config = {"recipe": "linear", "epochs": 1, "launcher": "batch"}
    out = tmp_path / "checkpoint"
    numbers = stages.train(config, {}, {}, str(DATASET), str(out), str(tmp_path / "numbers"), "prices")
    assert numbers == checkpoints.Training.read(out).numbers()
    assert (tmp_path / "queued").read_text() == "prices"
    (tmp_path / "rules").mkdir()
    conformance.check(plugins.load("launchers", "batch"), DATASET, tmp_path / "rules")


@pytest.mark.usefixtures("batch")
def test_the_step_of_a_launcher_that_trains_elsewhere_asks_for_little(tmp_path: Path) -> None:
    named = {**PROJECT, "train": {"recipe": "linear", "launcher": "batch"}}
    memory = {}
    for key, value in {"here": PROJECT, "elsewhere": named}.items():
        pipeline.compile(project.check(value, "here"), tmp_path / f"{key}.yaml")
        spec = next(yaml.safe_load_all((tmp_path / f"{key}.yaml").read_text()))
        container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
        memory[key] = container["resources"]["resourceMemoryLimit"]
    assert memory == {"here": "4Gi", "elsewhere": "1Gi"}


class Deaf(Launcher):
    """Breaks a rule: it swallows the error that ended the training."""

    def check(self, config: TrainConfig) -> None:
        pass

    def train(self, launch: Launch) -> checkpoints.Training:
        try:
            return launchers.launcher(TrainConfig()).train(launch)
        except ConfigError:
            return self.last

    last: checkpoints.Training


def test_one_that_breaks_a_rule_is_told_which(tmp_path: Path) -> None:
    deaf = Deaf()
    deaf.last = checkpoints.Training.read(DATASET.parent / "checkpoint")
    with pytest.raises(Refused, match="breaks a rule: it raises the error that ended the training"):
        conformance.check(deaf, DATASET, tmp_path)
