"""A checkpoint: written whole or not at all, read back as it was, refused when it is not one."""

from pathlib import Path

import pytest

from boatyard.data import artifacts, checkpoints
from boatyard.errors import ArtifactError
from boatyard.project import PreprocessConfig, TrainConfig

RECORD = checkpoints.Record(
    recipe="mlp",
    model={"hidden": [8]},
    train=TrainConfig(recipe="mlp", epochs=3),
    preprocess=PreprocessConfig(),
    seal="0" * 64,
    dataset="1" * 64,
    epoch=2,
    best={"validation_loss": 0.5},
)


def write(path: Path) -> Path:
    with checkpoints.write(path, RECORD, graph=b"graph", weights=b"weights", schema={}, seal={"seal": "0" * 64}) as new:
        (new / checkpoints.METRICS).write_text("{}\n")
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    checkpoint = checkpoints.read(write(tmp_path / "out"))
    assert checkpoint.record == RECORD
    assert checkpoint.graph.read_bytes() == b"graph" and checkpoint.weights.read_bytes() == b"weights"
    assert checkpoint.digest == artifacts.digest_file(tmp_path / "out" / artifacts.MANIFEST)


def test_a_checkpoint_whose_writing_failed_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError),
        checkpoints.write(tmp_path / "out", RECORD, graph=b"", weights=b"", schema={}, seal={}),
    ):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_is_refused_by_name(tmp_path: Path) -> None:
    (write(tmp_path / "out") / checkpoints.METRICS).write_text("[]\n")
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl was changed"):
        checkpoints.read(tmp_path / "out")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "not a checkpoint of ours"),
        ({"recipe": "mlp"}, "dataset: field required"),
        ({"recipe": "mlp", "dataset": "x", "train": {"epochs": 0}}, r"train\.epochs"),
        ({"recipe": "mlp", "dataset": "x", "training": {"recipe": "mlp"}}, r"training\."),
    ],
    ids=range(4),
)
def test_a_record_of_another_kind_is_refused_by_its_key(tmp_path: Path, record: object, message: str) -> None:
    artifacts.write_json(tmp_path / checkpoints.RECORD, record)
    artifacts.seal(tmp_path, checkpoints.CHECKPOINT_KIND, {})
    with pytest.raises(ArtifactError, match=message):
        checkpoints.read(tmp_path)
