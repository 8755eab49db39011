"""The models that are served: packages of this library, trained for one epoch on few rows; how well is not the matter.

Every server gets the `model.onnx` of the same package. They are made once and kept in the build folder.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boatyard import evaluation, gating, packages, preprocessing, training
from boatyard.data import artifacts, datasets
from boatyard.data.schema import Array
from boatyard.project import DataConfig, EvaluateConfig, GateConfig, PreprocessConfig, SplitConfig, TrainConfig

HERE = Path(__file__).parent
FASHION = Path("data/fashion-mnist/train-images-idx3-ubyte")
HEAD = 16  # bytes of an IDX file of images before its pixels


@dataclass(frozen=True)
class Model:
    """A recipe and its dials on images of one shape and type."""

    name: str
    about: str
    recipe: str
    dials: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (28, 28)
    dtype: str = "uint8"
    rows: int = 1000
    normalise: str = "standard"


def _tensor(side: int) -> Model:
    about = f"{side}×{side}×3 FP32, {side * side * 12 / 1e6:.2g} MB"
    shape, rows = (side, side, 3), 400 if side < 100 else 250
    return Model(f"tensor-{side}", about, "pooled:Pooled", {}, shape, "float32", rows, "none")


EXAMPLE = Model("cnn", "the CNN of examples/fashion-cnn", "cnn", {"blocks": [32, 64], "dense": [128]})
SIZES = (
    Model("linear", "one linear layer", "linear"),
    Model("cnn-small", "a CNN of 8 and 16 channels", "cnn", {"blocks": [8, 16], "dense": [64]}),
    EXAMPLE,
    Model("cnn-large", "a CNN of 64 and 128 channels, two convolutions a block", "cnn",
          {"blocks": [64, 128], "convolutions": 2, "dense": [256]}, rows=250),
)  # fmt: skip
HEADLINE = SIZES[1]  # what is compared unless the model is what varies; its own time is a part of every rate
BODIES = tuple(_tensor(side) for side in (28, 64, 128, 224))
TENSOR = BODIES[-1]  # 0.6 MB


def package(model: Model, folder: Path) -> packages.Package:
    """Return the model's package, made by the library's own stages unless it is there."""
    found = folder / f"{model.name}-{artifacts.digest_json(vars(model) | {'shape': list(model.shape)})[:12]}"
    if not (found / "package" / "package.json").exists():
        _make(model, found)
    return packages.verify(found / "package")


def images(model: Model, count: int, seed: int = 1) -> Array:
    """Return images as a client may send them, [N, *shape]: Fashion-MNIST where it is and fits, else noise."""
    if model.shape == (28, 28) and FASHION.exists():
        pixels = np.fromfile(FASHION, np.uint8, count * 28 * 28, offset=HEAD)
        return pixels.reshape(count, 28, 28)
    values = np.random.default_rng(seed).integers(0, 256, (count, *model.shape)).astype(model.dtype)
    return values / np.float32(255) if model.dtype == "float32" else values


def _make(model: Model, folder: Path) -> None:
    """Preprocess, train, evaluate, gate and pack: the stages of a run, in this process."""
    print(f"making package {model.name}: {model.about}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "images.npz"
    labels = np.array([f"label {n}" for n in range(10)])
    np.savez(source, image=images(model, model.rows), label=labels[np.arange(model.rows) % 10])
    data = DataConfig(source="npz", path=str(source), features=("image",), target="label")
    how = PreprocessConfig.model_validate(
        {"split": SplitConfig(train=0.4, validation=0.1, test=0.5), "normalise": model.normalise, "duplicates": "keep"}
    )
    rules = GateConfig(rows=50)
    config = TrainConfig(recipe=model.recipe, model=model.dials, epochs=1, batch_size=50, device="cpu").completed()
    dataset = preprocessing.preprocess(data, how, folder / "dataset", root=Path(), task="classification")
    recipes = HERE / "recipes"
    training.train(config, how, dataset, folder / "checkpoint", seal=rules.seal, root=recipes)
    evaluation.evaluate(EvaluateConfig(bootstrap=100, worst=0), dataset, folder / "checkpoint", folder / "report")
    verdict = gating.gate(rules, folder / "report", folder / "checkpoint", dataset, production=None)
    verdict.write(folder / "verdict.json")
    packages.pack(
        name="fashion",
        checkpoint=folder / "checkpoint",
        report=folder / "report",
        verdict=folder / "verdict.json",
        dataset=datasets.read(folder / "dataset"),
        out=folder / "package",
        golden=2,
        lineage={"dataset": dataset.digest, "source": {}, "environment": {}},
    )
    source.unlink()
    for made in ("dataset", "checkpoint", "report"):  # some hundred megabytes
        shutil.rmtree(folder / made)
