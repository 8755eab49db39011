"""Training on the cluster: two nodes come to what one comes to, and however often a pod is killed to the same bits."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import killing as kills
import pytest
from backend import IMAGE
from kube import STORE

from boatyard import training
from boatyard.data import datasets
from boatyard.errors import ConfigError
from boatyard.kubernetes import cluster
from boatyard.project import GateConfig, PreprocessConfig, TrainConfig
from boatyard.training import trainjobs

pytestmark = pytest.mark.cluster
HOW, GATE = PreprocessConfig(), GateConfig()
KILLS = int(os.environ.get("KILLS", "5"))
CLOSE = 1e-3  # of the losses, relative
SHORT: dict[str, Any] = {"recipe": "cnn", "model": {"blocks": [8, 16], "dropout": 0.2, "batch_norm": True}, "epochs": 3}


@pytest.fixture(scope="module")
def space(namespaces: Any) -> Iterator[str]:
    """A namespace for the tests of this file: Pod Security restricted."""
    with namespaces("training") as name:
        kills.install_recipes(name)
        yield name


@pytest.fixture(scope="module")
def where() -> cluster.Cluster:
    return cluster.connect()


@pytest.fixture(scope="module")
def dataset(project: Path) -> Path:
    return next((project / "runs").glob("*/artifacts/preprocess/dataset"))


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reads and writes the store, too; the pods take the image of the tests."""
    for name, value in STORE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BOATYARD_IMAGE", IMAGE)


def together(space: str, **dials: Any) -> TrainConfig:
    return TrainConfig(**{"nodes": 2, "storage": f"s3://boatyard/{space}", **dials})


def test_two_nodes_come_to_the_loss_of_one(space: str, where: Any, dataset: Path, tmp_path: Path, gpus: bool) -> None:
    config = together(space, gpus=1, **SHORT)
    said = kills.train("two", config, dataset, tmp_path / "two", where, space, None)
    found = training.Training.read(tmp_path / "two")
    one = training.train(
        TrainConfig(**SHORT), HOW, datasets.read(dataset), tmp_path / "one", seal=GATE.seal, root=tmp_path
    )
    for ours, theirs in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=CLOSE)
        assert theirs["validation_loss"] == pytest.approx(ours["validation_loss"], rel=CLOSE)
    assert found.derived["processes"] == 2 and found.derived["backend"] == "gloo" and found.steps == one.steps
    for node in (0, 1):
        assert any(f"node {node} | " in line and "train done" in line for line in said), said
    pods = where.list("Pod", space, labels=trainjobs.PODS_LABEL)
    limits = [pod["spec"]["containers"][0]["resources"]["limits"] for pod in pods]
    assert [limit["nvidia.com/gpu"] for limit in limits] == ["1", "1"]


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / training.METRICS).read_text().splitlines()]


def test_a_training_killed_again_and_again_ends_with_the_same_bits(
    space: str, where: Any, dataset: Path, tmp_path: Path
) -> None:
    """With state of every sort beside the weights, much of it of each node's own rows."""
    config = kills.long(KILLS, f"s3://boatyard/{space}")
    told = kills.train("whole", config, dataset, tmp_path / "whole", where, space, None)
    killer = kills.Killer(where, space, KILLS, random.Random(0))
    said = kills.train("cut", config, dataset, tmp_path / "cut", where, space, killer)
    resumes = sum("going on from epoch" in line and "node 0" in line for line in said)
    ways = ", ".join(f"{way} {killer.done.count(way)}" for way in kills.WAYS)
    same = kills.result(tmp_path / "cut") == kills.result(tmp_path / "whole")
    print(f"killed {len(killer.done)} times ({ways}), went on from a state {resumes} times, same bits: {same}")
    assert len(killer.done) == KILLS and resumes and same, said
    assert training.Training.read(tmp_path / "cut").validation["accuracy"] > 0.9
    (apart,) = [line for line in told if "differs between the processes, each of which keeps its own" in line]
    assert "model.beside.mean" in apart and not any("may differ" in line for line in (*told, *said))


def test_a_loss_that_is_not_a_number_ends_it_at_once_with_the_pods_words(
    space: str, where: Any, dataset: Path, tmp_path: Path
) -> None:
    config = together(space, recipe="cnn", optimizer="sgd", learning_rate=1e20, warmup=0, epochs=3)
    with pytest.raises(ConfigError, match=r"train: the loss is (nan|inf) at step \d+ .*; try train\.learning_rate"):
        kills.train("nan", config, dataset, tmp_path / "nan", where, space, None)
    jobsets = [each for each in where.list("JobSet", space) if each["metadata"]["name"].startswith("nan-")]
    assert [each["status"].get("restarts", 0) for each in jobsets] == [0]
    assert not (tmp_path / "nan").exists()
