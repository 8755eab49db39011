"""A dataset as preprocess leaves it: Parquet shards of raw, cleaned rows, and a manifest that pins every byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from boatyard.data import artifacts
from boatyard.data.schema import Batch, Schema
from boatyard.errors import ArtifactError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
DATASET_KIND = "dataset"


@dataclass(frozen=True)
class Dataset:
    """A verified dataset. `manifest` holds schema, statistics, counts, cleaning, files and, in `made`, how it was
    made; `digest` pins all but the last.

    A shard has the columns `row` (int64, the row's number in its source), `target` (int64 label index, or float32),
    `field:NAME` for each field (as its kind stores it: an image as its bytes) and `slice:NAME` for columns kept
    for slicing only.
    """

    path: Path
    digest: str
    schema: Schema
    manifest: dict[str, Any]

    @property
    def statistics(self) -> dict[str, Any]:
        """Per field, fitted on the training rows only: see `preprocessing.statistics`."""
        value: dict[str, Any] = self.manifest["statistics"]
        return value

    def rows(self, split: Split) -> int:
        """Return how many rows a split has."""
        return int(self.manifest["rows"][split])

    def numbers(self) -> dict[str, float]:
        """Return the rows by split, and how many were dropped or repaired."""
        rows = {f"{split}_rows": float(count) for split, count in self.manifest["rows"].items()}
        return {**rows, "cleaned_rows": float(sum(entry["count"] for entry in self.manifest["cleaning"]))}

    def shards(self, split: Split) -> tuple[Path, ...]:
        """Return a split's files, in order."""
        return tuple(sorted((self.path / "shards").glob(f"{split}-*.parquet")))

    def load(self, split: Split) -> Batch:
        """Read a whole split into memory, in the order of its shards."""
        return self.batch(pa.concat_tables([pq.read_table(path) for path in self.shards(split)]))

    def shard_rows(self, split: Split) -> tuple[int, ...]:
        """Return how many rows each of a split's files has, in order."""
        return tuple(pq.read_metadata(path).num_rows for path in self.shards(split))

    def batches(self, split: Split, size: int, shard: int | None = None) -> Iterator[Batch]:
        """Read a split, or one of its files, in batches of `size` rows (the last may have fewer), in bounded memory."""
        held: list[pa.RecordBatch] = []
        count = 0
        for path in self.shards(split) if shard is None else (self.shards(split)[shard],):
            for batch in pq.ParquetFile(path).iter_batches(batch_size=size):
                while batch.num_rows:
                    part = batch.slice(0, size - count)
                    held.append(part)
                    count += part.num_rows
                    batch = batch.slice(part.num_rows)
                    if count == size:
                        yield self.batch(pa.Table.from_batches(held))
                        held, count = [], 0
        if count:
            yield self.batch(pa.Table.from_batches(held))

    def batch(self, table: pa.Table) -> Batch:
        """Return the rows of a shard's table."""
        table = table.combine_chunks()
        columns = {
            field.name: kind.load(field, table.column(f"field:{field.name}"))
            for field, kind in zip(self.schema.fields, self.schema.kinds, strict=True)
        }
        inputs = {
            tensor.name: np.stack([columns[name] for name in tensor.fields], 1)
            if tensor.stacked
            else columns[tensor.name]
            for tensor in self.schema.tensors()
        }
        slices = {
            name.removeprefix("slice:"): table.column(name).to_numpy().astype(object)
            for name in table.column_names
            if name.startswith("slice:")
        }
        target, rows = (table.column(name).to_numpy() for name in ("target", "row"))
        return Batch(inputs, target, rows, slices)


def read(path: Path) -> Dataset:
    """Open a dataset once every shard has been found to be as its manifest says; raises ArtifactError."""
    manifest = artifacts.verify(path, DATASET_KIND)
    try:
        schema = Schema.from_dict(manifest["schema"])
        _ = [int(manifest["rows"][split]) for split in SPLITS]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: its manifest has no good {error}") from error
    return Dataset(path, _digest(path, manifest), schema, manifest)


def _digest(path: Path, manifest: dict[str, Any]) -> str:
    """Return the digest of the manifest without `made`: the same rows are one dataset, whoever made it."""
    if "made" not in manifest:
        return artifacts.digest_file(path / artifacts.MANIFEST)
    return artifacts.digest_bytes(artifacts.json_bytes({key: manifest[key] for key in manifest if key != "made"}))
