"""A checkpoint: what training leaves. The names of its files, what it says of itself, and its one reader and writer.

A checkpoint folder (kind "checkpoint") holds the ONNX model, the weights of the best epoch, `checkpoint.json` (how they
were made), the schema, and for people: the metrics of every epoch, the same as TensorBoard events, and `run.json` (how
long it took). What is made of a checkpoint pins the former alone, so that the same training makes the same package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from boatyard.data import artifacts
from boatyard.errors import ArtifactError
from boatyard.project import PreprocessConfig, TrainConfig

CHECKPOINT_KIND = "checkpoint"
GRAPH = "model.onnx"
WEIGHTS = "weights.safetensors"
RECORD = "checkpoint.json"
SCHEMA = "schema.json"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
RUN = "run.json"  # how the training went on this machine: what the same training need not come to elsewhere
OF_THE_RUN = ("rows_per_second", "seconds", "rows_in_memory")
TIMED = ("images_per_second", "seconds")  # numbers of an epoch that are the machine's, not the model's


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
        training = _record(checkpoint).training
        if training is None:
            raise ArtifactError(f"{checkpoint / RECORD} is not a checkpoint of ours: it says nothing of its training")
        return training


@dataclass(frozen=True, kw_only=True)
class Record:
    """What checkpoint.json says: how the weights were made, section by section.

    `model` holds the recipe's own settings; `seal` is the digest of the gate's rules, written down before the first
    step; `dataset`, `schema` and `graph` are digests; `best` the validation numbers at `epoch`, which was kept.
    """

    recipe: str
    model: dict[str, Any] = field(default_factory=dict)
    train: TrainConfig | None = None
    preprocess: PreprocessConfig | None = None
    seal: str = ""
    dataset: str
    schema: str = ""
    epoch: int | None = None
    step: int | None = None
    best: dict[str, float | None] = field(default_factory=dict)
    graph: str = ""
    rows_per_second: float | None = None
    derived: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    training: Training | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values: dict[str, Any] = _RECORD.dump_python(self, mode="json")
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder, the digest of its manifest, and what it says of itself.

    `lasting` is the digest of what the training came to: the same training has the same, whenever and wherever it ran.
    """

    path: Path
    digest: str
    record: Record
    lasting: str = ""

    @property
    def graph(self) -> Path:
        """The ONNX model."""
        return self.path / GRAPH

    @property
    def weights(self) -> Path:
        """The weights of the best epoch."""
        return self.path / WEIGHTS

    @property
    def metrics(self) -> Path:
        """The numbers of every epoch, a JSON object a line; a checkpoint need not have them."""
        return self.path / METRICS


def read(path: Path) -> Checkpoint:
    """Return a checkpoint once every file of it is as its manifest says; raises ArtifactError."""
    manifest = artifacts.verify(path, CHECKPOINT_KIND)
    return Checkpoint(path, artifacts.digest_file(path / artifacts.MANIFEST), _record(path), lasting(manifest))


def lasting(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a verified checkpoint's files but those that say how long the training took, and when."""
    files = [(str(file["path"]), str(file["sha256"])) for file in manifest["files"]]
    kept = [each for each in files if each[0] not in (RUN, METRICS) and not each[0].startswith(f"{TENSORBOARD}/")]
    return artifacts.digest_json(sorted(kept))


@contextlib.contextmanager
def write(
    path: Path,
    record: Record,
    *,
    graph: bytes,
    weights: bytes,
    schema: Mapping[str, Any],
    seal: Mapping[str, Any],
    external: Mapping[str, bytes] | None = None,
) -> Iterator[Path]:
    """Write a checkpoint, whole or not at all; what else belongs in its folder is written in the block.

    `seal` is what its manifest says beside the files; `external` are files that the ONNX model keeps weights in.
    Raises StorageError on a full disk.
    """
    with artifacts.new_folder(path) as folder:
        artifacts.write_bytes(folder / GRAPH, graph)
        for name, data in (external or {}).items():
            artifacts.write_bytes(folder / name, data)
        artifacts.write_bytes(folder / WEIGHTS, weights)
        values, run = _parted(record.to_dict())
        artifacts.write_json(folder / RECORD, values)
        artifacts.write_json(folder / RUN, run)
        artifacts.write_json(folder / SCHEMA, schema)
        yield folder
        artifacts.seal(folder, CHECKPOINT_KIND, seal)


def _record(checkpoint: Path) -> Record:
    value = artifacts.read_json(checkpoint / RECORD)
    if (checkpoint / RUN).is_file():  # earlier checkpoints have it all in one file
        value = _joined(value, artifacts.read_json(checkpoint / RUN))
    try:
        return _RECORD.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            f"{checkpoint / RECORD} is not a checkpoint of ours: {place + ': ' if place else ''}{first['msg'].lower()}"
        ) from error


def _parted(value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what the training came to from how it went on this machine, section by section."""
    kept, run = {}, {}
    for key, each in value.items():
        if key in OF_THE_RUN:
            run[key] = each
        elif key in ("training", "derived") and isinstance(each, dict):
            kept[key], run[key] = _parted(each)
        else:
            kept[key] = each
    return kept, run


def _joined(value: Any, run: Any) -> Any:
    """Put together what `_parted` parted."""
    if not (isinstance(value, dict) and isinstance(run, dict)):
        return value
    return {**value, **{key: _joined(value[key], each) if key in value else each for key, each in run.items()}}


_RECORD: TypeAdapter[Record] = TypeAdapter(Record)
