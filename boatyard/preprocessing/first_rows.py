"""The first rows of a source as a dataset would hold them: what a recipe is tried on before anything is read whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from boatyard.data.datasets import Dataset
from boatyard.data.schema import Batch, Schema, Task
from boatyard.errors import DataError
from boatyard.preprocessing import shards
from boatyard.preprocessing.block import Block
from boatyard.preprocessing.cleaning import Cleaner, Cleaning
from boatyard.preprocessing.profile import plan, profile
from boatyard.preprocessing.sources.base import OpenSource
from boatyard.preprocessing.work import Work, fit, open_source, target_of
from boatyard.project import DataConfig, PreprocessConfig
from boatyard.running.progress import Progress

ROWS = 64


@dataclass(frozen=True)
class FirstRows:
    """Some rows, with the schema and statistics of the block that they are from; `whole` if there are no others."""

    schema: Schema
    statistics: dict[str, Any]
    batch: Batch
    whole: bool


def first_rows(data: DataConfig, preprocess: PreprocessConfig, root: Path, task: Task) -> FirstRows | None:
    """Read the first block of a source; None where that alone makes no dataset, as of rows of one label."""
    source = open_source(data, preprocess, root)
    blocks = list(itertools.islice(source.blocks(), 2))
    try:
        return _first_rows(_FirstBlock(source, blocks[0]), data, preprocess, task, len(blocks) == 1) if blocks else None
    except DataError:  # whoever preprocesses is told, of all rows
        return None


def _first_rows(
    source: OpenSource, data: DataConfig, preprocess: PreprocessConfig, task: Task, whole: bool
) -> FirstRows:
    target = target_of(task)
    planned = plan(profile(source, data, target, 1), source, data, task, target)
    cleaner = Cleaner(planned, target, data, preprocess)
    work = Work(source, cleaner, Cleaning(), 1, Progress("check", planned.total, "row"))
    rows = cleaner.rows(next(iter(source.blocks())))
    kept = np.flatnonzero(rows.keep)
    if not len(kept):
        raise DataError("no row of the first block is kept")
    work.cleaning.note(rows.notes)
    statistics = {name: statistic.values() for name, statistic in fit(rows, kept, cleaner, 1).items()}
    schema = work.schema(statistics)
    statistics["__target__"] = target.summary(statistics["__target__"], planned.labels)
    layout = shards.layout(planned, target, data.slices)
    table = pa.Table.from_batches([shards.batch(rows, kept[:ROWS], layout, data.slices)])
    return FirstRows(schema, statistics, Dataset(Path(), "", schema, {}).batch(table), whole)


class _FirstBlock(OpenSource):
    """A source of which one block is read already, and no other is."""

    def __init__(self, source: OpenSource, block: Block) -> None:
        self.source, self.block, self.features = source, block, source.features

    @property
    def given(self) -> frozenset[Any]:
        return self.source.given

    def files(self) -> tuple[Path, ...]:
        return self.source.files()

    def blocks(self) -> Iterator[Block]:
        yield self.block
