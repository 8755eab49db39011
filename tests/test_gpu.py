"""Training on a GPU: as exact, as resumable, and the same checkpoint as on a CPU. Run with `pytest -m gpu`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import rows
import torch
from trainings import answers, result, train

from boatyard.errors import ConfigError, Interrupted
from boatyard.project import AugmentConfig, PreprocessConfig, TrainConfig
from boatyard.training import loop, losses
from boatyard.training.loader import InMemory, open_split

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
AUGMENT = PreprocessConfig(augment=AugmentConfig(flip=True, shift=1, noise=0.05, erase=2))
CNN: dict[str, Any] = {
    "recipe": "cnn",
    "model": {"blocks": [8, 16], "dropout": 0.2, "batch_norm": True},
    "epochs": 4,
    "learning_rate": 0.01,
    "device": "cuda",
}


@pytest.mark.parametrize("recipe", ["linear", "mlp", "cnn"])
def test_it_learns_and_the_graph_on_the_cpu_answers_as_the_model(tmp_path: Path, recipe: str) -> None:
    found = train(rows.images(), tmp_path / "out", recipe=recipe, device="auto", epochs=6, learning_rate=0.01)
    assert found.derived["device"] == "cuda" and found.derived["graph_difference"] <= 1e-5
    assert found.validation["accuracy"] > 0.9


def test_a_seed_decides_every_bit_on_a_gpu(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(rows.images(), tmp_path / name, how=AUGMENT, **CNN)
    assert result(tmp_path / "one") == result(tmp_path / "two")


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad"])
def test_a_run_stopped_on_a_gpu_ends_with_the_same_bits(tmp_path: Path, monkeypatch: Any, optimizer: str) -> None:
    dials = {**CNN, "optimizer": optimizer}
    train(rows.images(), tmp_path / "whole", how=AUGMENT, **dials)
    step = loop.Trainer.step
    for at in (4, 10, 25):

        def signalled(self: Any, batch: Any, rate: float, at: int = at) -> Any:
            if self.run.step == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, batch, rate)

        monkeypatch.setattr(loop.Trainer, "step", signalled)
        with pytest.raises(Interrupted, match=f"step {at + 1}; run again"):
            train(rows.images(), tmp_path / "cut", tmp_path / "work", how=AUGMENT, **dials)
    monkeypatch.setattr(loop.Trainer, "step", step)
    train(rows.images(), tmp_path / "cut", tmp_path / "work", how=AUGMENT, **dials)
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


def test_bfloat16_learns_and_the_graph_is_float32(tmp_path: Path) -> None:
    found = train(rows.images(), tmp_path / "out", precision="bfloat16", **CNN)
    assert found.validation["accuracy"] > 0.9
    assert answers(tmp_path / "out", rows.images())["probabilities"].dtype == "float32"


def test_rows_live_on_the_gpu_as_bytes() -> None:
    dataset = rows.images()
    target = losses.target(None, dataset.schema, dataset.statistics)
    source = open_split(dataset, "train", target, torch.device("cuda"), size=32, seed=0)
    assert isinstance(source, InMemory)
    assert source.rows.inputs["image"].is_cuda and source.rows.inputs["image"].dtype == torch.uint8


def test_a_loss_that_is_not_a_number_still_names_its_step(tmp_path: Path) -> None:
    dataset = rows.numbers(task="regression")
    dials: dict[str, Any] = {
        "recipe": "linear",
        "optimizer": "sgd",
        "learning_rate": 1e20,
        "warmup": 0,
        "device": "cuda",
    }
    with pytest.raises(ConfigError, match=r"the loss is (nan|inf) at step \d+ "):
        train(dataset, tmp_path / "out", **dials)


def test_a_table_with_strings_trains_on_a_gpu(tmp_path: Path) -> None:
    found = train(rows.mixed(), tmp_path / "out", recipe="mlp", device="cuda", epochs=8, learning_rate=0.01)
    assert found.validation["accuracy"] > 0.7


def test_a_gpu_and_a_cpu_come_to_nearly_the_same_model(tmp_path: Path) -> None:
    dials: dict[str, Any] = {"recipe": "mlp", "epochs": 4, "learning_rate": 0.01}
    on_cpu = train(rows.images(), tmp_path / "cpu", device="cpu", **dials)
    on_gpu = train(rows.images(), tmp_path / "gpu", device="cuda", **dials)
    assert on_gpu.validation_loss == pytest.approx(on_cpu.validation_loss, rel=0.02)


def test_steps_are_not_held_up_by_looking_at_the_loss() -> None:
    """60 000 images in a second or two: hundreds of times what one image at a time allows."""
    dataset = rows.images(60000, side=28)
    config = TrainConfig(recipe="cnn", batch_size=512, device="cuda").completed()
    trainer = loop.Trainer(config, PreprocessConfig(), dataset, seal="", root=Path(), work=None)
    from boatyard.running.progress import Progress

    with loop.reproducible():
        trainer.train_epoch(Progress("train", 10**6, "row"))
        trainer.run.batch = trainer.run.seen = 0
        started = time.perf_counter()
        trainer.train_epoch(Progress("train", 10**6, "row"))
        torch.cuda.synchronize()
    assert dataset.rows("train") / (time.perf_counter() - started) > 50_000
