"""Training: losses, gradients and optimizers against independent references; runs that are cut, resumed and refused."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rows
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from torch import nn
from trainings import HOW, answers, child, result, train, wait_for

from boatyard import machine, recipes, training
from boatyard.data import artifacts
from boatyard.errors import ConfigError, DataError, Interrupted
from boatyard.machine import available_memory
from boatyard.project import AugmentConfig, PreprocessConfig, TrainConfig
from boatyard.running import progress
from boatyard.training import Training, augmentation, loader, losses, optimisers, states

# losses, against formulas written out in NumPy


@pytest.fixture
def scores() -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.normal(0, 2, (20, 3))), torch.from_numpy(random.integers(0, 3, 20))


def test_cross_entropy_is_the_mean_log_probability_of_the_label(scores: Any) -> None:
    dataset = rows.images(60)
    outputs, target = scores
    wanted = -np.log(softmax(outputs.numpy(), axis=1)[np.arange(20), target]).mean()
    assert float(losses.named("cross_entropy", dataset.schema, dataset.statistics)(outputs, target)) == pytest.approx(
        wanted
    )


def test_label_smoothing_mixes_in_the_mean_over_all_labels(scores: Any) -> None:
    dataset = rows.images(60)
    outputs, target = scores
    log = np.log(softmax(outputs.numpy(), axis=1))
    wanted = -(0.9 * log[np.arange(20), target] + 0.1 * log.mean(axis=1)).mean()
    assert float(losses.named("label_smoothing", dataset.schema, {})(outputs, target)) == pytest.approx(wanted)


def test_squared_error_of_labels_is_briers_score(scores: Any) -> None:
    outputs, target = scores
    wanted = ((softmax(outputs.numpy(), axis=1) - np.eye(3)[target]) ** 2).sum(axis=1).mean()
    assert float(losses.named("mse", rows.images(60).schema, {})(outputs, target)) == pytest.approx(wanted)


def test_balanced_weights_are_those_of_scikit_learn(scores: Any) -> None:
    dataset = rows.images(60)
    outputs, target = scores
    dataset.statistics["__target__"]["counts"] = {"left": 10, "middle": 30, "right": 20}
    weights = (60 / (3 * np.array([10, 30, 20])))[target]
    rowwise = -np.log(softmax(outputs.numpy(), axis=1)[np.arange(20), target])
    found = losses.named(None, dataset.schema, dataset.statistics, "balanced").double()(outputs, target)
    assert float(found) == pytest.approx((weights * rowwise).sum() / weights.sum(), rel=1e-6)


REGRESSION = {
    "mse": lambda o, t: ((o - t) ** 2).mean(),
    "mae": lambda o, t: np.abs(o - t).mean(),
    "huber": lambda o, t: np.where(np.abs(o - t) < 1, 0.5 * (o - t) ** 2, np.abs(o - t) - 0.5).mean(),
    "poisson": lambda o, t: (np.exp(o) - t * o).mean(),
}


@pytest.mark.parametrize("name", REGRESSION)
def test_losses_of_numbers_are_their_formulas(name: str) -> None:
    dataset = rows.numbers(60, task="regression")
    random = np.random.default_rng(0)
    outputs, target = random.normal(0, 2, (20, 1)), random.poisson(2, 20).astype(float)
    found = losses.named(name, dataset.schema, dataset.statistics)(torch.from_numpy(outputs), torch.from_numpy(target))
    assert float(found) == pytest.approx(REGRESSION[name](outputs[:, 0], target))


def test_a_loss_for_the_other_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train.loss: no loss 'mae' for classification; allowed are cross_entropy"):
        losses.named("mae", rows.images(60).schema, {})


def test_poisson_refuses_targets_below_0(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.loss is poisson, which counts from 0; the least y is -"):
        train(rows.numbers(task="regression", seed=3, columns=1), tmp_path / "out", loss="poisson")


# gradients, against finite differences and scikit-learn


@pytest.mark.parametrize(
    ("recipe", "dials", "dataset"),
    [
        ("linear", {}, rows.numbers(60)),
        ("linear", {}, rows.mixed(60, "regression")),
        ("mlp", {"hidden": [5], "activation": "tanh"}, rows.mixed(60)),
        ("mlp", {"hidden": [5, 4]}, rows.numbers(60)),
        ("cnn", {"blocks": [2, 3], "dense": [5]}, rows.images(60)),
        ("cnn", {"blocks": [2], "dense": [], "batch_norm": True, "convolutions": 2}, rows.images(60)),
    ],
)
def test_gradients_are_those_of_finite_differences(recipe: str, dials: dict[str, Any], dataset: rows.Made) -> None:
    """Central differences in float64, on up to 12 entries of every weight, drawn at random."""
    torch.manual_seed(0)
    made = recipes.make(TrainConfig(recipe=recipe, model=dials), HOW, dataset.schema, dataset.statistics, root=Path())
    held = loader.read(dataset, "train", losses.target(None, dataset.schema, dataset.statistics)).slice(0, 12)
    features = made.features()(held.inputs).double().detach()
    target = held.target if held.target.dtype == torch.int64 else held.target.double()
    model, loss = made.model().double().to(memory_format=torch.contiguous_format), made.loss()
    loss(model(features), target).backward()
    chosen, step = np.random.default_rng(0), 1e-6
    for weight in model.parameters():
        flat = weight.data.view(-1)
        for index in chosen.choice(len(flat), min(len(flat), 12), replace=False):
            kept = float(flat[index])
            ends = []
            for at in (kept + step, kept - step):
                flat[index] = at
                ends.append(float(loss(model(features), target).detach()))
            flat[index] = kept
            assert float(weight.grad.view(-1)[index]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-6)


def test_linear_comes_to_where_scikit_learns_logistic_regression_comes(tmp_path: Path) -> None:
    """Two labels, no regularisation on our side, next to none on theirs: one optimum, found by two methods."""
    dataset = rows.numbers(500, columns=3)
    dials = {"batch_size": 400, "epochs": 400, "optimizer": "adam", "learning_rate": 0.1, "schedule": "cosine"}
    train(dataset, tmp_path / "out", recipe="linear", **dials)
    batch = dataset.load("train")
    mean, deviation = batch.inputs["features"].mean(0), batch.inputs["features"].std(0)
    theirs = LogisticRegression(C=np.inf, max_iter=1000).fit(
        (batch.inputs["features"] - mean) / deviation, batch.target
    )
    wanted = theirs.predict_proba((dataset.load("test").inputs["features"] - mean) / deviation)
    last = json.loads((tmp_path / "out" / training.METRICS).read_text().splitlines()[-1])
    reached = -np.log(
        theirs.predict_proba((batch.inputs["features"] - mean) / deviation)[range(400), batch.target]
    ).mean()
    assert last["train_loss"] == pytest.approx(reached, rel=0.01)
    found = answers(tmp_path / "out", dataset)["probabilities"]
    assert np.abs(found - wanted).mean() < 0.02


def test_mlp_takes_the_gradient_step_that_scikit_learns_mlp_takes() -> None:
    dataset = rows.numbers(60)
    batch = dataset.load("train")
    scaled = ((batch.inputs["features"] - batch.inputs["features"].mean(0)) / batch.inputs["features"].std(0)).astype(
        float
    )
    theirs = MLPClassifier(
        (7,), solver="sgd", alpha=0, batch_size=48, learning_rate_init=0.1, momentum=0, random_state=0
    )
    theirs.partial_fit(scaled, batch.target, classes=[0, 1, 2])
    config = TrainConfig(recipe="mlp", model={"hidden": [7]}, optimizer="sgd", momentum=0, learning_rate=0.1)
    config = config.completed()
    made = recipes.make(config, HOW, dataset.schema, dataset.statistics, root=Path())
    model = made.model().double()
    for layer, weight, bias in zip((model[1], model[3]), theirs.coefs_, theirs.intercepts_, strict=True):
        layer.weight.data, layer.bias.data = torch.tensor(weight.T.copy()), torch.tensor(bias.copy())
    theirs.partial_fit(scaled, batch.target)
    optimizer = optimisers.optimizer(config, model)
    made.loss()(model(torch.from_numpy(scaled)), torch.from_numpy(batch.target)).backward()
    optimizer.step()
    for layer, weight, bias in zip((model[1], model[3]), theirs.coefs_, theirs.intercepts_, strict=True):
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight.T, atol=1e-9)
        np.testing.assert_allclose(layer.bias.detach().numpy(), bias, atol=1e-9)


# optimizers, against their papers' formulas in NumPy


def reference(name: str, weight: Any, gradients: list[Any], rate: float, decay: float, momentum: float) -> Any:
    """Move a weight by each gradient: SGD (Polyak), Adam (Kingma), AdamW (Loshchilov), Adagrad (Duchi)."""
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        if name == "adamw":
            weight = weight - rate * decay * weight
        else:
            gradient = gradient + decay * weight
        if name == "sgd":
            first = momentum * first + gradient
            weight = weight - rate * first
        if name in ("adam", "adamw"):
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            weight = weight - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        if name == "adagrad":
            second = second + gradient**2
            weight = weight - rate * gradient / (np.sqrt(second) + 1e-10)
    return weight


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_optimizers_move_weights_as_their_papers_say(name: Any, decay: float) -> None:
    random = np.random.default_rng(0)
    layer = nn.Linear(3, 2).double()
    momentum = {"momentum": 0.8} if name == "sgd" else {}
    config = TrainConfig(optimizer=name, weight_decay=decay, **momentum).completed()
    optimizer = optimisers.optimizer(config, layer)
    start = [layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()]
    gradients = [(random.normal(size=(2, 3)), random.normal(size=2)) for _ in range(5)]
    for weight, bias in gradients:
        layer.weight.grad, layer.bias.grad = torch.from_numpy(weight), torch.from_numpy(bias)
        optimizer.step()
    matrix = reference(name, start[0], [g[0] for g in gradients], config.learning_rate or 0, decay, 0.8)
    vector = reference(name, start[1], [g[1] for g in gradients], config.learning_rate or 0, 0.0, 0.8)  # never decays
    np.testing.assert_allclose(layer.weight.detach().numpy(), matrix, rtol=1e-7)
    np.testing.assert_allclose(layer.bias.detach().numpy(), vector, rtol=1e-7)


@pytest.mark.parametrize(("name", "rate"), [("sgd", 0.05), ("adam", 0.001), ("adamw", 0.001), ("adagrad", 0.01)])
def test_a_rate_that_is_not_given_suits_the_optimizer(name: Any, rate: float) -> None:
    assert TrainConfig(optimizer=name).completed().learning_rate == rate


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "onecycle"])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_a_rate_is_positive_and_never_above_what_was_asked(schedule: Any, total: int) -> None:
    config = TrainConfig(schedule=schedule, learning_rate=0.5)
    rates = [optimisers.rate(config, step, total) for step in range(total)]
    assert all(0 < rate <= 0.5 for rate in rates)


def test_schedules_rise_and_fall_as_named() -> None:
    def rates(schedule: Any, warmup: float = 0.0) -> list[float]:
        config = TrainConfig(schedule=schedule, learning_rate=1.0, warmup=warmup)
        return [optimisers.rate(config, step, 100) for step in range(100)]

    assert rates("constant") == [1.0] * 100
    assert rates("constant", 0.1)[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates("cosine")[50] == pytest.approx(0.5) and rates("cosine")[0] == 1.0
    assert [rates("step")[at] for at in (49, 50, 74, 75)] == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_onecycle_is_torchs() -> None:
    config = TrainConfig(schedule="onecycle", learning_rate=0.5)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=40, cycle_momentum=False)
    for step in range(40):
        assert optimisers.rate(config, step, 40) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        if step < 39:
            theirs.step()


# what a run leaves


@pytest.fixture(scope="module")
def trained(tmp_path_factory: Any) -> tuple[Path, Training]:
    out = tmp_path_factory.mktemp("trained") / "out"
    return out, train(rows.images(), out, recipe="cnn", model={"blocks": [4, 8]}, epochs=4, learning_rate=0.01)


def test_a_checkpoint_holds_graph_weights_numbers_and_schema(trained: Any) -> None:
    out, found = trained
    manifest = artifacts.verify(out, training.CHECKPOINT_KIND)
    names = {entry["path"] for entry in manifest["files"]}
    assert {"model.onnx", "weights.safetensors", "checkpoint.json", "schema.json", "metrics.jsonl"} <= names
    about = artifacts.read_json(out / training.ABOUT)
    assert about["seal"] == "seal" and about["dataset"] == rows.images().digest
    assert about["graph"] == artifacts.digest_file(out / training.GRAPH) == manifest["graph"] == found.graph
    assert about["derived"]["weight_decay"] == 0.01 and about["derived"]["steps_per_epoch"] == 10
    assert Training.read(out) == found


def test_it_learns(trained: Any) -> None:
    _, found = trained
    assert found.validation["accuracy"] > 0.9 and found.validation_loss < 0.5
    assert found.epochs == 4 and found.steps == 40 and not found.stopped_early


def test_metrics_are_json_lines_and_the_same_scalars_in_tensorboard(trained: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, _ = trained
    lines = [json.loads(line) for line in (out / training.METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert {"step", "train_loss", "validation_loss", "validation_accuracy", "learning_rate"} <= set(lines[0])
    assert {"images_per_second", "seconds"} <= set(lines[0])
    events = EventAccumulator(str(out / training.TENSORBOARD))
    events.Reload()
    for name in ("train_loss", "validation_accuracy", "images_per_second"):
        wanted = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]
        assert [(event.step, event.value) for event in events.Scalars(name)] == wanted


def test_the_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    dials: dict[str, Any] = {"recipe": "mlp", "model": {"hidden": [64]}, "learning_rate": 0.03, "schedule": "constant"}
    found = train(rows.numbers(120), tmp_path / "long", epochs=30, **dials)
    assert found.best_epoch < 30
    lines = [json.loads(line) for line in (tmp_path / "long" / training.METRICS).read_text().splitlines()]
    assert found.validation_loss == min(line["validation_loss"] for line in lines)
    train(rows.numbers(120), tmp_path / "short", epochs=found.best_epoch, warmup=0, **dials)
    again = train(rows.numbers(120), tmp_path / "again", epochs=30, warmup=0, **dials)
    if again.best_epoch == found.best_epoch:
        assert result(tmp_path / "short") == result(tmp_path / "again")


def test_patience_stops_a_run_that_gets_no_better(tmp_path: Path) -> None:
    dials: dict[str, Any] = {"recipe": "mlp", "learning_rate": 0.05, "schedule": "constant", "epochs": 60}
    found = train(rows.numbers(120), tmp_path / "out", patience=3, **dials)
    assert found.stopped_early and found.epochs == found.best_epoch + 3 < 60


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad"])
def test_every_optimizer_learns(tmp_path: Path, optimizer: str) -> None:
    rate = {"sgd": 0.1, "adagrad": 0.1}.get(optimizer, 0.02)
    found = train(rows.numbers(), tmp_path / "out", recipe="mlp", optimizer=optimizer, learning_rate=rate, epochs=8)
    assert found.validation["accuracy"] > 0.6


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "poisson"])
def test_every_loss_of_numbers_learns(tmp_path: Path, loss: str) -> None:
    dataset = rows.mixed(task="regression")
    found = train(dataset, tmp_path / "out", recipe="mlp", loss=loss, learning_rate=0.01, epochs=15)
    assert found.validation["rmse"] < 0.7 * dataset.statistics["__target__"]["std"]


def test_progress_says_loss_epoch_and_rate(tmp_path: Path) -> None:
    events: list[Any] = []
    with progress.sent_to(events.append):
        train(rows.numbers(), tmp_path / "out", recipe="linear", epochs=2)
    last = events[-1]
    assert last["stage"] == "train" and last["done"] == last["total"] == 640
    assert last["epoch"] == 2 and {"loss", "rate"} <= set(last)


def test_what_was_derived_is_said(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    train(rows.numbers(), tmp_path / "out", recipe="linear", epochs=1)
    assert "learning_rate 0.001, weight_decay 0.01, steps_per_epoch 10, steps 10, parameters 15" in caplog.text


@pytest.mark.parametrize(
    "how",
    [
        HOW,
        PreprocessConfig(augment=AugmentConfig(flip=True, shift=2, noise=0.1, erase=3)),
    ],
)
def test_a_seed_decides_every_bit(tmp_path: Path, how: PreprocessConfig) -> None:
    dials: dict[str, Any] = {"recipe": "cnn", "model": {"blocks": [4], "dropout": 0.2}, "epochs": 2}
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        torch.rand(7)  # what was drawn before must not matter
        train(rows.images(), tmp_path / name, how=how, seed=seed, **dials)
    assert result(tmp_path / "one") == result(tmp_path / "two") != result(tmp_path / "other")


def test_torchs_settings_are_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), signal.getsignal(signal.SIGTERM)
    train(rows.numbers(), tmp_path / "out", recipe="linear", epochs=1)
    assert torch.equal(torch.get_rng_state(), before[0]) and signal.getsignal(signal.SIGTERM) is before[1]
    assert not torch.are_deterministic_algorithms_enabled()


def test_it_runs_in_a_thread_where_no_handler_can_be_set(tmp_path: Path) -> None:
    found: list[Training] = []
    thread = threading.Thread(
        target=lambda: found.append(train(rows.numbers(), tmp_path / "out", recipe="linear", epochs=1))
    )
    thread.start()
    thread.join()
    assert found[0].epochs == 1


# bad input


def test_a_loss_that_is_not_a_number_names_step_rate_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"the loss is (nan|inf) at step \d+ \(epoch 1\) with learning rate .*; try train"
    ):
        train(rows.numbers(task="regression"), tmp_path / "out", tmp_path / "work", recipe="linear", optimizer="sgd",
              learning_rate=1e20, warmup=0, loss="mse", epochs=5)  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_label_without_training_rows_is_said(tmp_path: Path, caplog: Any) -> None:
    dataset = rows.images()
    more = rows.Schema("classification", dataset.schema.fields, "label", (*dataset.schema.labels, "never"))
    batch = dataset.load("train")
    train(rows.made(more, batch.inputs, batch.target), tmp_path / "out", recipe="linear", epochs=1)
    assert "no training row is never: the model will not learn to say so" in caplog.text


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the validation split has no rows"):
        train(rows.numbers(4), tmp_path / "out", recipe="linear")


def test_a_model_of_the_wrong_width_is_refused_before_any_step(tmp_path: Path) -> None:
    (tmp_path / "narrow.py").write_text(
        "from torch import nn\nfrom boatyard.recipes import Recipe\n"
        "class Net(Recipe):\n    def model(self): return nn.Sequential(nn.Flatten(), nn.Linear(144, 2))\n"
    )
    with pytest.raises(
        ConfigError,
        match=r"narrow\.py, line 4: the model gives \[2, 2\] for 2 rows: expected a .* \[2, 3\]",
    ):
        train(rows.images(), tmp_path / "out", recipe="narrow:Net")


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match=r"train\.device is cuda, but torch finds no GPU here"):
        train(rows.images(), tmp_path / "out", device="cuda")


def test_augmentation_of_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a table, remove it"):
        train(rows.numbers(), tmp_path / "out", how=PreprocessConfig(augment=AugmentConfig(flip=True)))


# augmentation


def augmented(dataset: rows.Made, **dials: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    raw = torch.from_numpy(dataset.load("train").inputs["image"])
    change = augmentation.Augmentation(AugmentConfig(**dials), dataset.schema, dataset.statistics)
    return raw.numpy(), change({"image": raw}, len(raw))["image"].numpy()


@pytest.mark.parametrize("channels", [0, 3])
def test_a_flip_mirrors_about_half_of_the_images(channels: int) -> None:
    raw, made = augmented(rows.images(channels=channels), flip=True)
    same = np.array([np.array_equal(a, b) for a, b in zip(raw, made, strict=True)])
    mirrored = np.array([np.array_equal(a[:, ::-1], b) for a, b in zip(raw, made, strict=True)])
    assert (same ^ mirrored).all() and 0.4 < mirrored.mean() < 0.6


def test_a_shift_moves_by_at_most_so_many_pixels_and_repeats_the_border() -> None:
    raw, made = augmented(rows.images(), shift=2)
    seen = set()
    for before, after in zip(raw, made, strict=True):
        padded = np.pad(before, 2, mode="edge")
        moves = [(d, a) for d in range(5) for a in range(5) if np.array_equal(padded[d : d + 12, a : a + 12], after)]
        assert moves
        seen.add(moves[0])
    assert len(seen) == 25


def test_an_erased_square_has_the_mean_colour() -> None:
    raw, made = augmented(rows.images(), erase=4)
    for before, after in zip(raw, made, strict=True):
        assert (before != after).sum() <= 16
        assert set(after[before != after].tolist()) <= {int(np.mean(rows.images().statistics["image"]["mean"]))}


# loading


def test_batches_cover_every_row_once_and_none_has_one_row() -> None:
    for count in range(1, 70):
        cuts = loader.cuts(count, 8)
        assert [row for begin, end in cuts for row in range(begin, end)] == list(range(count))
        assert count == 1 or all(end - begin > 1 for begin, end in cuts)


def numbered(count: int, of_shard: int) -> Any:
    """A dataset whose rows are their own numbers, in shards of so many rows."""
    return rows.made(
        rows.Schema("regression", (rows.Field("a", "number", "float32"),), "y"),
        {"features": np.arange(count, dtype=np.float32)[:, None]},
        np.arange(count, dtype=np.float32),
        of_shard=of_shard,
    )


def epoch_of(source: loader.BatchSource, epoch: int, start: int = 0) -> list[list[float]]:
    return [batch.inputs["features"][:, 0].tolist() for batch in source.shuffled(epoch, start)]


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(20, 300),
    size=st.integers(1, 64),
    chunk=st.integers(1, 50),
    of_shard=st.integers(5, 300),
    epoch=st.integers(0, 3),
)
def test_an_epoch_is_one_permutation_streamed_or_in_memory_and_resumes_exactly(
    count: int, size: int, chunk: int, of_shard: int, epoch: int
) -> None:
    dataset = numbered(count, of_shard)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "CHUNK", chunk)
        patch.setattr(loader, "BUFFER", 12 * 40)
        target = losses.target(None, dataset.schema, dataset.statistics)
        open_with = partial(loader.open_split, dataset, "train", target, torch.device("cpu"), size=size, seed=0)
        stream, memory = open_with(share=0), open_with()
        assert isinstance(stream, loader.Streamed) and isinstance(memory, loader.InMemory)
        whole = epoch_of(stream, epoch)
        assert epoch_of(memory, epoch) == whole
        assert sorted(row for batch in whole for row in batch) == list(range(dataset.rows("train")))
        assert [len(batch) for batch in whole] == [
            end - begin for begin, end in loader.cuts(dataset.rows("train"), size)
        ]
        for start in {0, 1, len(whole) // 2, len(whole) - 1}:
            assert epoch_of(stream, epoch, start) == epoch_of(memory, epoch, start) == whole[start:]


def test_rows_sorted_by_their_target_are_learnt_from_in_no_such_order(monkeypatch: Any) -> None:
    monkeypatch.setattr(loader, "CHUNK", 50)
    monkeypatch.setattr(loader, "BUFFER", 12 * 500)  # an eighth of the rows
    dataset = numbered(4000, of_shard=100)
    target = losses.target(None, dataset.schema, dataset.statistics)
    source = loader.open_split(dataset, "train", target, torch.device("cpu"), size=100, seed=0)
    order = np.concatenate(epoch_of(source, 0))
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.3


def test_a_dataset_larger_than_memory_is_streamed_and_learnt(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(loader, "available_memory", lambda: 1000)
    found = train(rows.images(), tmp_path / "out", recipe="linear", epochs=6, learning_rate=0.01)
    assert found.derived["rows_in_memory"] is False
    assert found.validation["accuracy"] > 0.9


def test_a_containers_limit_bounds_what_counts_as_available(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "max").write_text("5000\n")
    (tmp_path / "current").write_text("4000\n")
    (tmp_path / "stat").write_text("anon 1000\nfile 3000\ninactive_file 2500\nactive_file 500\n")
    group = machine.MemoryCgroup(tmp_path / "max", tmp_path / "current", tmp_path / "stat", "inactive_file")
    monkeypatch.setattr(machine, "MEMORY_CGROUPS", (group,))
    assert available_memory() == 5000 - (4000 - 2500)  # pages of files read once are given back when needed
    (tmp_path / "stat").unlink()
    assert available_memory() == 1000
    (tmp_path / "max").write_text("max\n")
    assert available_memory() > 1 << 20


# runs that are cut


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    dials: dict[str, Any] = {"recipe": "mlp", "epochs": 3}
    train(rows.numbers(), tmp_path / "one", tmp_path / "work", **dials)
    train(rows.numbers(), tmp_path / "two", tmp_path / "work", **dials)
    assert result(tmp_path / "one") == result(tmp_path / "two")


def test_two_states_are_kept(tmp_path: Path) -> None:
    train(rows.numbers(), tmp_path / "out", tmp_path / "work", recipe="linear", epochs=4)
    kept = sorted(path.name for path in (tmp_path / "work" / states.FOLDER).iterdir())
    assert kept == ["step-000000000030", "step-000000000040"]


def test_a_step_saved_twice_is_never_without_a_whole_state(tmp_path: Path, monkeypatch: Any) -> None:
    """A run that is killed within the second save of a step goes on from the first one."""
    state = states.State({"a": torch.ones(2)}, {"best": 1})
    states.save(tmp_path, state, key="k", step=7)
    renamed: list[tuple[str, str]] = []
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: (renamed.append((str(old), str(new))), rename(old, new)))
    states.save(tmp_path, replace(state, values={"best": 2}), key="k", step=7)
    assert not [new for old, new in renamed if old.endswith("step-000000000007")], "the first was moved away"
    found = states.load(tmp_path, key="k")
    assert found and found.values == {"best": 2}


def test_a_torn_state_falls_back_to_the_one_before(tmp_path: Path, caplog: Any) -> None:
    dials: dict[str, Any] = {"recipe": "mlp", "epochs": 4, "model": {"dropout": 0.2}}
    train(rows.numbers(), tmp_path / "one", tmp_path / "work", **dials)
    newest = max((tmp_path / "work" / states.FOLDER).iterdir()) / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    train(rows.numbers(), tmp_path / "two", tmp_path / "work", **dials)
    assert "cannot be used" in caplog.text and "going back to the state before" in caplog.text
    assert result(tmp_path / "one") == result(tmp_path / "two")


@pytest.mark.parametrize("change", [{"learning_rate": 0.5}, {"seed": 1}, {"model": {"hidden": [7]}}, {"epochs": 5}])
def test_a_state_of_another_configuration_is_not_gone_on_from(tmp_path: Path, caplog: Any, change: Any) -> None:
    dials: dict[str, Any] = {"recipe": "mlp", "epochs": 2}
    train(rows.numbers(), tmp_path / "one", tmp_path / "work", **dials)
    train(rows.numbers(), tmp_path / "two", tmp_path / "work", **{**dials, **change})
    assert "belongs to another configuration, dataset or recipe; starting anew" in caplog.text
    train(rows.numbers(), tmp_path / "three", **{**dials, **change})
    assert result(tmp_path / "two") == result(tmp_path / "three")


def test_a_full_disk_is_said_and_the_states_so_far_stay(tmp_path: Path) -> None:
    """A file system of 1 MB, in a mount namespace of its own."""
    code = (
        "from pathlib import Path\nimport rows, trainings as t\nfrom boatyard.errors import StorageError\n"
        f"work = Path({str(tmp_path / 'disk')!r})\n"
        "try:\n"
        "    t.train(rows.numbers(), work.parent / 'out', work, recipe='mlp', model={'hidden': [8]}, epochs=1)\n"
        "    (work / 'ballast').write_bytes(bytes(8 << 20))\n"
        "except OSError: pass\n"
        "before = t.kept(work)\n"
        "try:\n"
        "    t.train(rows.numbers(), work.parent / 'out', work, recipe='mlp', model={'hidden': [256, 256]}, epochs=1)\n"
        "except StorageError as error: print(error)\n"
        "from boatyard.data import artifacts\n"
        "print('LEFT', [p.name for p in work.rglob('*.part')], before)\n"
    )
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=1m tmpfs {tmp_path / "disk"} && exec {sys.executable} -c "$CODE"'
    probe = f"mount -t tmpfs -o size=1m tmpfs {tmp_path / 'disk'}"
    shell = ["unshare", "-rm", "sh", "-c"]
    if subprocess.run([*shell, probe], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "CODE": code}
    done = subprocess.run([*shell, mount], capture_output=True, text=True, env=env, check=False)
    assert "the disk is full: could not write" in done.stdout, done.stdout + done.stderr
    assert "LEFT [] 1" in done.stdout


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: Any) -> list[str]:
    folder = tmp_path_factory.mktemp("unbroken")
    process = child(folder)
    process.communicate()
    assert process.returncode == 0
    return result(folder / "out")


def test_sigterm_saves_says_so_and_the_next_run_ends_with_the_same_bits(tmp_path: Path, unbroken: list[str]) -> None:
    process = child(tmp_path)
    wait_for(tmp_path / "work" / states.FOLDER, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 1
    assert "SIGTERM: saved at epoch" in said and "run again to go on" in said
    assert not (tmp_path / "out").exists()
    said, _ = child(tmp_path).communicate()
    assert "going on from epoch" in said
    assert result(tmp_path / "out") == unbroken


def killed_until_done(folder: Path, seed: int) -> int:
    """Kill -9 at random moments until a run gets through; return how often."""
    chance, kills = random.Random(seed), 0
    while True:
        process = child(folder)
        wait_for(folder / "work" / states.FOLDER, process)
        try:
            process.wait(chance.uniform(0, 1.0) if kills < 6 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        process.communicate()
        assert process.returncode == 0
        return kills


def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, unbroken: list[str]) -> None:
    process = child(tmp_path)
    wait_for(tmp_path / "work" / states.FOLDER, process)
    time.sleep(0.15)
    process.kill()
    process.communicate()
    child(tmp_path).communicate()
    assert result(tmp_path / "out") == unbroken


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_run_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path, unbroken: list[str], seed: int) -> None:
    assert killed_until_done(tmp_path, seed) >= 0
    assert result(tmp_path / "out") == unbroken


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_stopped_at_any_step_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: Any, optimizer: str, streamed: bool
) -> None:
    """A signal at each of these steps, in one process; 10 steps an epoch, so 10 and 20 fall on an epoch's end."""
    if streamed:
        monkeypatch.setattr(loader, "available_memory", lambda: 1000)
        monkeypatch.setattr(loader, "CHUNK", 50)
    dials: dict[str, Any] = {
        "recipe": "mlp",
        "model": {"hidden": [8], "dropout": 0.3},
        "epochs": 3,
        "optimizer": optimizer,
    }
    train(rows.numbers(), tmp_path / "whole", **dials)
    from boatyard.training import loop

    step = loop.Trainer.step
    for at in (0, 9, 14, 19, 23):

        def signalled(self: Any, batch: Any, rate: float, at: int = at) -> Any:
            if self.run.step == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, batch, rate)

        monkeypatch.setattr(loop.Trainer, "step", signalled)
        with pytest.raises(Interrupted, match=rf"saved at epoch {at // 10 + 1} step {at + 1}; run again to go on"):
            train(rows.numbers(), tmp_path / "cut", tmp_path / "work", **dials)
    monkeypatch.setattr(loop.Trainer, "step", step)
    train(rows.numbers(), tmp_path / "cut", tmp_path / "work", **dials)
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


def test_states_hold_no_pickle(tmp_path: Path) -> None:
    train(rows.numbers(), tmp_path / "out", tmp_path / "work", recipe="linear", epochs=1)
    files = {path.suffix for path in (tmp_path / "work" / states.FOLDER).rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors"}
    assert load_file(tmp_path / "out" / training.WEIGHTS).keys() == {"1.weight", "1.bias"}
    assert math.isfinite(Training.read(tmp_path / "out").validation_loss)
