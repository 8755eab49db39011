"""A project that asks for GPUs: what a machine without them does is said before it starts, whichever way it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import boatyard
from boatyard import project
from boatyard.errors import ConfigError
from boatyard.pipelines import demands, training
from boatyard.project import Project, templates
from boatyard.training import devices

CPU = "resources.train.gpu asks for {} nvidia.com/gpu, and torch finds no GPU here: it trains on the CPU"


def asking(tmp_path: Path, **sections: Any) -> Project:
    """Return the sample project, with its data in a folder, that asks for what is given."""
    if not (tmp_path / project.FILE).exists():
        templates.write(tmp_path)
    return project.check({**project.load(tmp_path).values(), **sections}, "the test").at(tmp_path)


def said_of_the_spec(wanted: Project, tmp_path: Path) -> list[str]:
    """Return what a run of the project says, from the spec that it runs."""
    training.compile(wanted.here(), tmp_path / "pipeline.yaml")
    return demands.shortfalls(demands.read_demands(tmp_path / "pipeline.yaml"))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("sections", "count"),
    [
        ({"resources": {"train": {"gpu": {}}}}, 1),
        ({"resources": {"train": {"gpu": {"count": 4}}}}, 4),
        ({"train": {"nodes": 2, "gpus": 2, "storage": "s3://boatyard/t"}}, 2),
    ],
    ids=["one", "several", "those of nodes"],
)
def test_check_train_and_a_run_say_that_the_cpu_trains(tmp_path: Path, sections: dict[str, Any], count: int) -> None:
    wanted = asking(tmp_path, **sections)
    assert said_of_the_spec(wanted, tmp_path) == [CPU.format(count)]
    assert devices.shortfall_of(wanted) == CPU.format(count)
    assert boatyard.check(wanted).derived["device"] == CPU.format(count)


def test_a_project_that_asks_for_none_says_nothing(tmp_path: Path) -> None:
    wanted = asking(tmp_path)
    assert said_of_the_spec(wanted, tmp_path) == [] and "device" not in boatyard.check(wanted).derived


def test_cuda_that_is_not_there_ends_a_run_before_its_first_step_and_check_says_so(tmp_path: Path) -> None:
    wanted = asking(tmp_path, train={"device": "cuda"}, resources={"train": {"gpu": {}}})
    with pytest.raises(ConfigError, match=r"train\.device is cuda, but torch finds no GPU here; use auto or cpu"):
        said_of_the_spec(wanted, tmp_path)
    assert "torch finds no GPU here" in boatyard.check(wanted).derived["device"]


def test_a_machine_with_gpus_says_only_that_they_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    two = asking(tmp_path, resources={"train": {"gpu": {"count": 2}}})
    four = asking(tmp_path, resources={"train": {"gpu": {"count": 4}}})
    assert said_of_the_spec(two, tmp_path) == []
    assert said_of_the_spec(four, tmp_path) == [
        "resources.train.gpu asks for 4 nvidia.com/gpu, this machine has 2: it trains with that"
    ]
    idle = asking(tmp_path, train={"device": "cpu"}, resources={"train": {"gpu": {}}})
    assert said_of_the_spec(idle, tmp_path)[0].endswith("and train.device is cpu: it trains on the CPU")
