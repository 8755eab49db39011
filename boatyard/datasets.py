"""A dataset as preprocess leaves it: Parquet shards of raw, cleaned rows, and a manifest that pins every byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from boatyard import artifacts
from boatyard.errors import ArtifactError
from boatyard.schema import Batch, Schema

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
KIND = "dataset"


@dataclass(frozen=True)
class Dataset:
    """A verified dataset. `manifest` holds schema, statistics, counts, cleaning and files; `digest` pins all of it."""

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

    def load(self, split: Split) -> Batch:
        """Read a whole split into memory, in the order of its shards."""
        raise NotImplementedError

    def batches(self, split: Split, size: int) -> Iterator[Batch]:
        """Read a split in batches of at most `size` rows, in the order of its shards, in bounded memory."""
        raise NotImplementedError


def read(path: Path) -> Dataset:
    """Open a dataset once every shard has been found to be as its manifest says; raises ArtifactError."""
    manifest = artifacts.verify(path, KIND)
    try:
        schema = Schema.from_dict(manifest["schema"])
    except KeyError as error:
        raise ArtifactError(f"{path}: its manifest has no {error}") from error
    return Dataset(path, artifacts.digest_file(path / artifacts.MANIFEST), schema, manifest)
