"""A dataset is read as it was written, or refused; whole or in batches, in the same order."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sources

from boatyard.data import artifacts, datasets
from boatyard.data.datasets import SPLITS
from boatyard.errors import ArtifactError
from boatyard.preprocessing import shards


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.Dataset:
    """Numbers, a category, a slice; several shards a split."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 2000)
    text = "size,kind,site,label\n" + "".join(f"{i},{'ab'[i % 2]},s{i % 4},c{i % 3}\n" for i in range(600))
    return sources.csv(tmp_path, text, slices=["site"])


@pytest.mark.parametrize("size", [1, 7, 64, 599, 10_000])
def test_batches_are_the_rows_of_the_whole_split_in_order(mixed: datasets.Dataset, size: int) -> None:
    whole = mixed.load("train")
    batches = list(mixed.batches("train", size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert np.concatenate([batch.rows for batch in batches]).tolist() == whole.rows.tolist()
    assert np.concatenate([batch.target for batch in batches]).tolist() == whole.target.tolist()
    for name, values in whole.inputs.items():
        assert np.concatenate([batch.inputs[name] for batch in batches]).tolist() == values.tolist()
    assert np.concatenate([batch.slices["site"] for batch in batches]).tolist() == whole.slices["site"].tolist()


def test_a_batch_has_the_types_that_the_schema_says(mixed: datasets.Dataset) -> None:
    batch = mixed.load("test")
    assert (batch.inputs["size"].dtype, batch.inputs["kind"].dtype) == (np.float32, object)
    assert (batch.target.dtype, batch.rows.dtype) == (np.int64, np.int64)
    assert all(isinstance(value, str) for value in [*batch.inputs["kind"], *batch.slices["site"]])
    assert [t.name for t in mixed.schema.tensors()] == list(batch.inputs)


def test_numbers_alone_are_one_input_with_columns_in_order(tmp_path: Path) -> None:
    text = "b,a,label\n" + "".join(f"{i},{-i},c{i % 3}\n" for i in range(90))
    batch = sources.csv(tmp_path, text).load("train")
    assert batch.inputs["features"].tolist() == [[row, -row] for row in batch.rows]
    assert batch.inputs["features"].dtype == np.float32


def test_the_same_source_gives_the_same_digest(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one, two = (sources.csv(tmp_path / name, sources.table()) for name in "12")
    assert one.digest == two.digest
    assert sources.csv(tmp_path / "2", sources.table(), {"seed": 1}).digest != one.digest


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "add"])
def test_a_dataset_that_was_touched_is_refused(mixed: datasets.Dataset, damage: str) -> None:
    shard = mixed.shards("train")[1]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    {
        "flip": lambda: shard.write_bytes(data),
        "cut": lambda: shard.write_bytes(data[:-1]),
        "remove": shard.unlink,
        "add": lambda: (shard.parent / "train-99999.parquet").write_bytes(data),
    }[damage]()
    with pytest.raises(ArtifactError, match=r"shards/train-.*restore it or make the dataset again"):
        datasets.read(mixed.path)


@pytest.mark.parametrize("key", ["schema", "rows"])
def test_a_manifest_without_what_is_needed_is_refused(mixed: datasets.Dataset, key: str) -> None:
    about = {name: value for name, value in mixed.manifest.items() if name != key}
    artifacts.seal(mixed.path, "dataset", about)
    with pytest.raises(ArtifactError, match=key):
        datasets.read(mixed.path)


def test_another_kind_of_folder_is_refused(tmp_path: Path) -> None:
    artifacts.seal(tmp_path, "package", {})
    with pytest.raises(ArtifactError, match="expected a dataset of format 1, found 'package'"):
        datasets.read(tmp_path)


def test_shards_hold_raw_rows_that_any_tool_reads(mixed: datasets.Dataset) -> None:
    table = pq.read_table(mixed.shards("train")[0])
    assert table.column_names == ["row", "target", "field:size", "field:kind", "slice:site"]
    assert all(mixed.path.joinpath(e["path"]).stat().st_size == e["bytes"] for e in mixed.manifest["files"])
    assert sum(mixed.rows(split) for split in SPLITS) == 600


@pytest.mark.alone
def test_images_are_loaded_without_a_copy_for_each(tmp_path: Path) -> None:
    sources.idx_folder(tmp_path / "data", train=3000)
    dataset = sources.made(tmp_path, source="idx", path="data")
    started = time.perf_counter()
    images = dataset.load("train").inputs["image"]
    assert time.perf_counter() - started < 0.5
    assert images.shape == (2667, 6, 6) and images.dtype == np.uint8 and images.base is not None
