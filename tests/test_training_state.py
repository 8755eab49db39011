"""Training: what was chosen is what ships, a resumed run is the unbroken one, and what cannot be so is said by name."""

from __future__ import annotations

import json
import math
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import rows
import state_recipes
import torch
from google.protobuf.struct_pb2 import Struct
from torch import nn
from trainings import result, train

from boatyard import recipes, training
from boatyard.errors import ConfigError
from boatyard.training import Training, logged_metrics, loop
from boatyard.training.live_state import LiveState, changed

HEAD = "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\nfrom boatyard.recipes import Recipe\n"
LINEAR = "class R(Recipe):\n    def model(self): return nn.Linear(self.shape[0], self.outputs)\n"


class Cut(Exception):
    """The process ends here."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(state_recipes.__file__, tmp_path / "sorts.py")
    return tmp_path


def own(folder: Path, code: str) -> str:
    (folder / "own.py").write_text(HEAD + code)
    return "own:R"


def saved_and_cut(monkeypatch: Any, step: int) -> None:
    """Let a run save its state after a step, and end."""
    take = loop.Trainer.step

    def taken(self: Any, *arguments: Any) -> Any:
        if self.run.step == step:
            self.save()
            raise Cut
        return take(self, *arguments)

    monkeypatch.setattr(loop.Trainer, "step", taken)


def cut(train_once: Callable[[], Any], step: int) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        saved_and_cut(patch, step)
        train_once()


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / training.METRICS).read_text().splitlines()]


# a resumed run is the unbroken one


@pytest.mark.parametrize("name", state_recipes.NAMES)
def test_a_resumed_run_has_the_state_of_the_unbroken_one(folder: Path, name: str, caplog: Any) -> None:
    dials: dict[str, Any] = {"recipe": f"sorts:{name}", "epochs": 3, "learning_rate": 0.05}
    data = rows.numbers(200)
    train(data, folder / "whole", **dials)
    for step in (7, 11) if name == "OfEverything" else (7,):
        cut(lambda: train(data, folder / "cut", folder / "work", **dials), step)
    train(data, folder / "cut", folder / "work", **dials)
    assert result(folder / "cut") == result(folder / "whole")
    ours, theirs = lines(folder / "cut"), lines(folder / "whole")
    measured = {"images_per_second", "seconds"}
    assert [line.items() - {(k, line[k]) for k in measured} for line in ours] == [
        line.items() - {(k, line[k]) for k in measured} for line in theirs
    ]
    assert "may differ" not in caplog.text


def test_the_sorts_of_state_matter(folder: Path, monkeypatch: Any) -> None:
    """Without the state the resumed run differs: the test above can fail."""
    from boatyard.training.live_state import LiveState

    dials: dict[str, Any] = {"recipe": "sorts:OfEverything", "epochs": 2, "learning_rate": 0.05}
    train(rows.numbers(200), folder / "whole", **dials)
    cut(lambda: train(rows.numbers(200), folder / "cut", folder / "work", **dials), 7)
    monkeypatch.setattr(LiveState, "restore", lambda self, captured: [])
    monkeypatch.setattr(loop.Trainer, "restore_best", lambda self: self.put_back(self.best, self.best_live))
    train(rows.numbers(200), folder / "cut", folder / "work", **dials)
    assert result(folder / "cut") != result(folder / "whole")


def test_what_cannot_be_saved_is_said_at_the_start_and_at_resume(tmp_path: Path, caplog: Any) -> None:
    code = """
class M(nn.Linear):
    def __init__(self, i, o):
        super().__init__(i, o); self.noise = (0.01 * n for n in range(1000000)); self.made = None
    def forward(self, x):
        if self.training:
            self.made = torch.distributions.Normal(0.0, next(self.noise) + 1)
        return super().forward(x)
class R(Recipe):
    def model(self): return M(self.shape[0], self.outputs)
"""
    dials: dict[str, Any] = {"recipe": own(tmp_path, code), "epochs": 2}
    cut(lambda: train(rows.numbers(200), tmp_path / "cut", tmp_path / "work", **dials), 2)
    said = [record.getMessage() for record in caplog.records]
    assert any("cannot be saved" in line and "model.noise (generator)" in line for line in said)
    assert any("cannot be saved" in line and "model.made" in line and "set in training" in line for line in said)
    caplog.clear()
    train(rows.numbers(200), tmp_path / "cut", tmp_path / "work", **dials)
    assert "not as it was when the run was cut" in caplog.text and "model.noise (generator)" in caplog.text


@pytest.mark.parametrize("changed", ["layers/__init__.py", "layers/more/__init__.py", "layers/widths.json"])
def test_a_changed_file_of_the_recipe_is_named_and_not_gone_on_from(tmp_path: Path, caplog: Any, changed: str) -> None:
    package = tmp_path / "layers"
    (package / "more").mkdir(parents=True)
    for file in ("__init__.py", "more/__init__.py"):
        (package / file).write_text("")
    (package / "widths.json").write_text("[4]")
    (package / "net.py").write_text(HEAD + "import layers.more\n" + LINEAR)
    dials: dict[str, Any] = {"recipe": "layers.net:R", "epochs": 2}
    cut(lambda: train(rows.numbers(200), tmp_path / "out", tmp_path / "work", **dials), 2)
    (tmp_path / changed).write_text("# new\n")
    train(rows.numbers(200), tmp_path / "out", tmp_path / "work", **dials)
    assert f"starting anew (code: {changed} changed)" in caplog.text


def test_a_changed_setting_is_named(tmp_path: Path, caplog: Any) -> None:
    train(rows.numbers(), tmp_path / "out", tmp_path / "work", recipe="linear", epochs=1)
    train(rows.numbers(), tmp_path / "out", tmp_path / "work", recipe="linear", epochs=1, batch_size=16, seed=3)
    assert "starting anew (train.batch_size 32 → 16, train.seed 0 → 3)" in caplog.text


# what ships is what was chosen


def shipped_loss(out: Path, data: rows.Made) -> float:
    """Return the cross entropy of the validation rows' answers that the exported graph gives."""
    batch = data.load("validation")
    session = onnxruntime.InferenceSession(out / training.GRAPH, providers=["CPUExecutionProvider"])
    (given,) = session.run(["probabilities"], dict(batch.inputs))
    return float(-np.log(given[np.arange(len(batch)), batch.target]).mean())


@pytest.mark.parametrize(
    ("init", "grow", "value"),
    [
        ("self.register_buffer('n', torch.zeros(()), persistent=False)", "self.n += 1", "self.n"),
        ("self.n = 0", "self.n += 1", "self.n"),
        ("self.n = [0]", "self.n[0] += 1", "self.n[0]"),
        ("self.n = {'a': torch.zeros(())}", "self.n['a'] = self.n['a'] + 1", "self.n['a']"),
        ("pass", "global N; N += 1", "N"),
        ("pass", "M.c += 1", "M.c"),
    ],
)
def test_the_state_of_the_best_epoch_ships_with_its_weights(tmp_path: Path, init: str, grow: str, value: str) -> None:
    code = f"""
N = 0
class M(nn.Module):
    c = 0
    def __init__(self, i, o):
        super().__init__(); self.l = nn.Linear(i, o); {init}
    def forward(self, x):
        if self.training:
            {grow}
        return self.l(x) + torch.tensor([1.0, -1.0, 0.5]) * {value} * 0.05
class R(Recipe):
    def model(self): return M(self.shape[0], self.outputs)
"""
    data = rows.numbers(300)
    found = train(data, tmp_path / "out", recipe=own(tmp_path, code), epochs=5, learning_rate=0.05)
    assert found.best_epoch < 5
    assert shipped_loss(tmp_path / "out", data) == pytest.approx(found.validation_loss, abs=1e-5)


def test_state_that_cannot_be_put_back_is_refused_by_name(tmp_path: Path) -> None:
    code = """
class M(nn.Module):
    def __init__(self, i, o):
        super().__init__(); self.l = nn.Linear(i, o); self.ticks = iter(range(10**6)); self.n = None
    def forward(self, x):
        if self.training: self.n = next(self.ticks)
        return self.l(x) + torch.tensor([1.0, -1.0, 0.5]) * (self.ticks.__length_hint__() - 10**6) * 0.05
class R(Recipe):
    def model(self): return M(self.shape[0], self.outputs)
"""
    with pytest.raises(ConfigError, match=r"put back, has the validation loss .* was recorded.*model\.ticks"):
        train(rows.numbers(300), tmp_path / "out", recipe=own(tmp_path, code), epochs=5, learning_rate=0.05)
    assert not (tmp_path / "out").exists()


def test_a_model_that_changes_while_it_answers_is_refused_by_name(tmp_path: Path) -> None:
    code = """
class M(nn.Linear):
    calls = 0
    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls * torch.tensor([0.01, 0, 0])
class R(Recipe):
    def model(self): return M(self.shape[0], self.outputs)
"""
    with pytest.raises(ConfigError, match=r"other scores the second time, in eval mode.*model\.calls"):
        train(rows.numbers(), tmp_path / "out", recipe=own(tmp_path, code), epochs=1)


TAKEN = ["loss", "Loss", " loss ", "val_loss", "validation loss", "Train-Loss", "trainLoss", "epoch", "step",
         "learning_rate", "Learning Rate", "seconds", "images_per_second", "best_epoch", ""]  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_a_metric_with_a_name_of_ours_is_refused_before_any_step(tmp_path: Path, monkeypatch: Any, name: str) -> None:
    monkeypatch.setattr(loop.Trainer, "step", lambda *arguments: pytest.fail("it trained"))
    code = f"{LINEAR}    def metrics(self, o, t): return {{{name!r}: float((o.argmax(1) == t).double().mean())}}\n"
    with pytest.raises(ConfigError, match=r"has a metric named .*; rename the metric"):
        train(rows.numbers(), tmp_path / "out", recipe=own(tmp_path, code), epochs=1)


def test_other_names_and_numbers_of_other_types_are_metrics() -> None:
    given = {"cross_entropy": np.float32(0.5), "loss_at_k": torch.tensor(1), "Accuracy": 1}
    assert logged_metrics.checked(given, "r") == {"cross_entropy": 0.5, "loss_at_k": 1.0, "Accuracy": 1.0}
    with pytest.raises(ConfigError, match="'acc' is nan in epoch 2: expected a finite number"):
        logged_metrics.checked({"acc": math.nan}, "r", 2)


def test_after_a_nan_the_best_epoch_is_exported_and_it_is_said(tmp_path: Path, caplog: Any) -> None:
    code = """
class L(nn.Module):
    def __init__(self): super().__init__(); self.n = 0
    def forward(self, o, t):
        self.n += torch.is_grad_enabled()
        return F.cross_entropy(o, t) * (float("nan") if self.n > 25 else 1)
""" + LINEAR + "    def loss(self): return L()\n"  # fmt: skip
    data = rows.numbers()
    dials: dict[str, Any] = {"recipe": own(tmp_path, code), "epochs": 4}
    found = train(data, tmp_path / "out", tmp_path / "work", **dials)
    assert found.epochs == found.best_epoch == 2 and "the loss is nan at step 26" in found.derived["diverged"]
    assert "the model of epoch 2, the best before, is exported" in caplog.text
    assert shipped_loss(tmp_path / "out", data) == pytest.approx(found.validation_loss, abs=1e-5)
    again = train(data, tmp_path / "again", tmp_path / "work", **dials)
    assert again.derived["diverged"] == found.derived["diverged"]


def test_after_a_nan_in_the_first_epoch_nothing_is_promised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        train(rows.numbers(task="regression"), tmp_path / "out", recipe="linear", optimizer="sgd",
              learning_rate=1e20, warmup=0, loss="mse", epochs=3)  # fmt: skip
    assert "kept" not in str(raised.value)


@pytest.mark.parametrize(
    "place",
    [
        "def features(self): return Spoil()",
        "def loss(self): return SpoilLoss()",
        "def metrics(self, o, t): o.zero_(); t.zero_(); return {}",
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_work_in_place_changes_no_row(tmp_path: Path, monkeypatch: Any, place: str, streamed: bool) -> None:
    """Epochs and the loss come out as where a copy is worked on."""
    code = """
class Spoil(nn.Module):
    def forward(self, inputs): return WHAT(inputs["features"]).mul_(0.5).sub_(1)
class SpoilLoss(nn.Module):
    def forward(self, o, t):
        o, t = WHAT(o), WHAT(t)
        t.add_(1).remainder_(3)
        return F.cross_entropy(o * 1.0, t)
"""
    from boatyard.training import loader

    if streamed:
        monkeypatch.setattr(loader, "available_memory", lambda: 1000)
    data = rows.numbers(300)
    before = {split: data.load(split).inputs["features"].copy() for split in ("train", "validation")}
    recorded = []
    for name, what in (("copy", "torch.clone"), ("place", "(lambda x: x)")):
        (tmp_path / name).mkdir()
        recipe = own(tmp_path / name, code.replace("WHAT", what) + LINEAR + f"    {place}\n")
        train(data, tmp_path / name / "out", recipe=recipe, epochs=3, learning_rate=0.05)
        recorded.append([(line["train_loss"], line["validation_loss"]) for line in lines(tmp_path / name / "out")])
    assert recorded[0] == recorded[1]
    for split, values in before.items():
        np.testing.assert_array_equal(data.load(split).inputs["features"], values)


# losses of epochs and of steps


def uneven(count: int) -> rows.Made:
    """Labels of which one is rare, so that weights differ much from batch to batch."""
    data = rows.images(count, side=6)
    keep = (data.load("train").target != 0) | (np.arange(len(data.load("train"))) % 9 == 0)
    batch = data.load("train").take(keep)
    made = rows.Made(data.path, data.digest, data.schema, dict(data.manifest), {**data.splits, "train": batch})
    made.manifest["rows"] = {**data.manifest["rows"], "train": len(batch)}
    made.manifest["statistics"] = rows.statistics(data.schema, batch)
    return made


def weights(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(out / training.WEIGHTS)


@pytest.mark.parametrize("loss", [None, "label_smoothing", "mse"])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_train_loss_is_that_of_all_rows_of_the_epoch(tmp_path: Path, loss: Any, class_weights: Any) -> None:
    """At a rate of nearly 0 the weights stand still: the epoch's loss is that of one batch of all rows."""
    data = uneven(250)
    dials: dict[str, Any] = {"recipe": "linear", "loss": loss, "class_weights": class_weights, "epochs": 1}
    dials |= {"optimizer": "sgd", "learning_rate": 1e-12, "warmup": 0}
    whole = train(data, tmp_path / "whole", batch_size=10_000, **dials)
    parts = train(data, tmp_path / "parts", batch_size=7, **dials)
    assert parts.train_loss == pytest.approx(whole.train_loss, rel=1e-6)
    assert parts.validation_loss == pytest.approx(whole.validation_loss, rel=1e-9)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_a_step_of_several_batches_is_the_step_of_one(
    tmp_path: Path, monkeypatch: Any, class_weights: Any, streamed: bool
) -> None:
    """Ragged: the last step has fewer batches, the last batch fewer rows, and each batch other weights."""
    from boatyard.training import loader

    if streamed:
        monkeypatch.setattr(loader, "available_memory", lambda: 1000)
    data = uneven(260)
    dials: dict[str, Any] = {"recipe": "mlp", "model": {"hidden": [8]}, "epochs": 2, "class_weights": class_weights}
    dials |= {"optimizer": "sgd", "learning_rate": 0.1}
    one = train(data, tmp_path / "one", batch_size=24, **dials)
    several = train(data, tmp_path / "several", batch_size=8, accumulate=3, **dials)
    assert data.rows("train") % 24 and data.rows("train") % 24 % 8
    assert several.steps == one.steps
    assert several.train_loss == pytest.approx(one.train_loss, rel=1e-6)
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "several")[name], value, rtol=1e-5, atol=1e-6)


def test_a_run_of_several_batches_a_step_resumes(tmp_path: Path) -> None:
    dials: dict[str, Any] = {"recipe": "mlp", "model": {"dropout": 0.2}, "epochs": 2, "batch_size": 16, "accumulate": 3}
    train(rows.numbers(), tmp_path / "whole", **dials)
    cut(lambda: train(rows.numbers(), tmp_path / "cut", tmp_path / "work", **dials), 4)
    train(rows.numbers(), tmp_path / "cut", tmp_path / "work", **dials)
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


def test_the_first_of_equally_good_epochs_is_kept(tmp_path: Path) -> None:
    code = LINEAR + "    def loss(self): return L()\n" + """
class L(nn.Module):
    def forward(self, o, t): return F.cross_entropy(o, t) if torch.is_grad_enabled() else o.sum() * 0 + 1
"""  # fmt: skip
    found = train(rows.numbers(), tmp_path / "out", recipe=own(tmp_path, code), epochs=3)
    assert (found.best_epoch, found.epochs) == (1, 3) and Training.read(tmp_path / "out").best_epoch == 1


class Stubborn:
    """An object with an attribute that its class refuses to set."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        object.__setattr__(self, "kept", 1)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


def test_what_keeps_its_state_in_c_is_seen_to_change_and_named_and_breaks_nothing() -> None:
    module = types.ModuleType("own")
    module.message, module.count = Struct(), 0  # type: ignore[attr-defined]
    module.message["a"] = 1  # of a protobuf vars() shows the class's attributes
    live = LiveState(nn.Linear(1, 1), {"recipe": SimpleNamespace()}, {"own": module})
    before = live.capture()
    module.message["a"], module.count = 2, 5  # type: ignore[attr-defined]
    assert {"own.py:count", "own.py:message"} <= set(changed(before, live.capture()))
    live.restore(before)
    assert module.count == 0 and module.message["a"] == 2


def test_an_attribute_that_its_class_refuses_to_set_comes_back_all_the_same() -> None:
    model = nn.Linear(1, 1)
    model.held = Stubborn()  # type: ignore[assignment]
    live = LiveState(model, {"recipe": SimpleNamespace()}, {})
    before = live.capture()
    object.__setattr__(model.held, "kept", 2)
    assert live.restore(before) == [] and model.held.kept == 1


def test_a_word_of_a_recipe_that_is_some_modules_name_makes_it_none_of_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("elsewhere", "project"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere/counted.py").write_text("SEEN = 0\n")
    source = "from boatyard.recipes.mlp import Mlp\nimport beside\nclass Own(Mlp):\n    name = 'counted'\n"
    (tmp_path / "project/own_words.py").write_text(source)
    (tmp_path / "project/beside.py").write_text("SEEN = 0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    __import__("counted")
    try:
        kind = recipes.load("own_words:Own", tmp_path / "project")
        found = loop.own_modules(kind.__new__(kind) if isinstance(kind, type) else kind, tmp_path / "project")
        assert set(found) == {"own_words", "beside"}
    finally:
        for name in ("counted", "own_words", "beside"):
            sys.modules.pop(name, None)
