"""Training: a dataset in, a checkpoint out that ends with the executable graph.

A checkpoint folder (kind "checkpoint") holds `model.onnx`, `weights.safetensors` of the best epoch, `checkpoint.json`,
`schema.json`, `metrics.jsonl` and `tensorboard/`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from boatyard.data import artifacts
from boatyard.data.datasets import Dataset
from boatyard.errors import ArtifactError
from boatyard.project import PreprocessConfig, TrainConfig

KIND = "checkpoint"
GRAPH = "model.onnx"
WEIGHTS = "weights.safetensors"
ABOUT = "checkpoint.json"
SCHEMA = "schema.json"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Training:
    """What a training run came to.

    `validation` holds the recipe's metrics and `validation_loss` the loss at `best_epoch` (counted from 1), whose
    weights were kept. `rows_per_second` counts the training steps alone. `derived` is what was not given in the
    project file.
    """

    recipe: str
    parameters: int
    epochs: int
    steps: int
    best_epoch: int
    train_loss: float
    validation_loss: float
    validation: dict[str, float]
    rows_per_second: float
    seconds: float
    stopped_early: bool
    graph: str
    derived: dict[str, Any] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Return the run's numbers, flat, for a UI."""
        measured = {f"validation_{name}": value for name, value in self.validation.items()}
        return {
            "train_loss": self.train_loss,
            "validation_loss": self.validation_loss,
            **measured,
            "best_epoch": float(self.best_epoch),
            "rows_per_second": self.rows_per_second,
            "parameters": float(self.parameters),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, checkpoint: Path) -> Training:
        """Read what a checkpoint says of its training; raises ArtifactError."""
        value = artifacts.read_json(checkpoint / ABOUT)
        try:
            return cls(**value["training"])
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{checkpoint / ABOUT} is not a checkpoint of ours: {error}") from error


def train(
    config: TrainConfig,
    how: PreprocessConfig,
    dataset: Dataset,
    out: Path,
    *,
    seal: str,
    root: Path,
    work: Path | None = None,
) -> Training:
    """Train a recipe on a dataset and write the checkpoint of its best epoch, whole or not at all.

    `seal` is the digest of the gate's rules, written down before the first step. `root` is the folder that own
    recipes are imported from. `work` outlives a killed run: the next call goes on from what it holds, and ends with
    the same weights, bit for bit, as a run that was never interrupted. Raises ConfigError for what cannot be trained
    (NaN loss included), DataError, StorageError on a full disk, Interrupted after a signal.
    """
    from boatyard.training.loop import run  # torch takes seconds to import: reading a checkpoint does not need it

    return run(config, how, dataset, out, seal=seal, root=root, work=work)
