"""The first step: what the columns are, which labels there are, of what shape an image is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from boatyard.data import columns, kinds
from boatyard.data.columns import ColumnProfile
from boatyard.data.rounding import Rounding
from boatyard.data.schema import Array, Field, Task
from boatyard.errors import DataError
from boatyard.preprocessing.block import Block, Place, ordered
from boatyard.preprocessing.sources.base import OpenSource
from boatyard.project import DataConfig
from boatyard.tasks.targets import Target

TABLE_ROW_BYTES = 16  # of a table's row in a shard beside its fields: number and target; shards are cut by it


@dataclass(frozen=True)
class DataPlan:
    """What the rows are: the kind of each field by name, shape and dtype of an array's row, the labels in order."""

    task: Task
    kinds: Mapping[str, str]
    shape: tuple[int, ...]
    dtype: str
    labels: tuple[str, ...]
    total: int

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields as far as they are known before statistics."""
        return tuple(kinds.load(kind).draft(name, self.shape, self.dtype) for name, kind in self.kinds.items())

    @property
    def row_bytes(self) -> int:
        """About how many bytes a row takes in a shard."""
        fields = sum(kinds.of(field).row_bytes(field) for field in self.fields)
        return fields + (0 if kinds.of(self.fields[0]).alone else TABLE_ROW_BYTES)


@dataclass
class Profile:
    """What was found in some blocks."""

    total: int = 0
    columns: dict[str, ColumnProfile] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    unlabelled: int = 0
    first: tuple[Place, int, str] | None = None  # the first row without a target, and what stands there
    shape: tuple[int, ...] = ()
    dtype: str = ""
    target: Rounding = field(default_factory=Rounding)  # of a target that is a number

    def merge(self, more: Profile) -> None:
        """Take in the next block."""
        self.total += more.total
        self.labels |= more.labels
        self.unlabelled += more.unlabelled
        self.first = self.first or more.first
        self.shape, self.dtype = self.shape or more.shape, self.dtype or more.dtype
        self.target = self.target.merged(more.target)
        for name, column in more.columns.items():
            if name in self.columns:
                self.columns[name].merge(column)
            else:
                self.columns[name] = column


def profile(source: OpenSource, data: DataConfig, target: Target, threads: int) -> Profile:
    """Read all rows of a source, or of a part of one, once; raises DataError for more labels than classes have."""
    total = Profile()

    def look(block: Block) -> Profile:
        many = {name for name, column in list(total.columns.items()) if column.many}
        return _profile_block(block, source.features, target, many)

    for more in ordered(look, source.blocks(), threads):
        total.merge(more)
        target.check_labels(total.labels, data)
    return total


def plan(profile: Profile, source: OpenSource, data: DataConfig, task: Task, target: Target) -> DataPlan:
    """Say what the rows are that were profiled; raises DataError for what cannot be learnt from."""
    where = source.files()[0] if len(source.files()) == 1 else source.files()[0].parent
    if not profile.total:
        raise DataError(f"{where} has no rows beside its header", fix="expected at least one for each split")
    if profile.first:
        place, row, value = profile.first
        raise DataError(
            f"{place(row)}: the target {data.target!r} is {value}",
            fix=(
                f"expected {target.expected} in every row, {profile.unlabelled} of {profile.total} "
                "have none: label or remove them"
            ),
        )
    try:
        by_name = {name: column.kind(data.columns) for name, column in profile.columns.items()}
        labels = target.order(profile.labels, profile.total, data)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    _told_apart(f"{where}: the target {data.target!r}", profile.target)
    for name, column in profile.columns.items():
        if by_name[name] == "number":
            _told_apart(f"{where}: column {name!r}", column.rounding)
    return DataPlan(task, by_name or _of_array(profile), profile.shape, profile.dtype, labels, profile.total)


def _told_apart(about: str, rounding: Rounding) -> None:
    """Raise DataError for numbers that float32 would make one number of: nothing could be learnt of them."""
    if rounding.material:
        found, fix = rounding.sentence()
        raise DataError(about, expected="numbers that float32 can tell apart", found=found, fix=fix)


def _of_array(profile: Profile) -> dict[str, str]:
    """Return the fields of an array's rows: an image, or numbers that are named by their place."""
    if len(profile.shape) > 1:
        return {"image": "image"}
    width = len(str(profile.shape[0] - 1))
    return {f"x{i:0{width}d}": "number" for i in range(profile.shape[0])}


def _profile_block(block: Block, features: tuple[str, ...], target: Target, many: set[str]) -> Profile:
    found = Profile(len(block))
    if not len(block):
        return found
    column = columns.plain(block.target)
    missing = target.missing(column)
    found.labels = target.labels(column, missing)
    found.target = target.rounding(column)
    if missing.any():
        first = int(np.flatnonzero(missing)[0])
        found.unlabelled = int(missing.sum())
        found.first = (block.where, first, _shown(column[first].as_py()))
    if block.images is None and block.table is not None:
        for name in features:
            values = columns.plain(block.table.column(name).combine_chunks())
            found.columns[name] = ColumnProfile.of(name, values, name in many)
    elif block.images is not None:
        shape = block.images.shape[1:]
        found.shape = shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
        found.dtype = "uint8" if block.images.dtype == np.uint8 else "float32"
    return found


def feature_columns(block: Block, plan: DataPlan) -> Mapping[str, Array | pa.Array]:
    """Return a block's features by name, plain: columns of a table or of an array [N, F], else the array itself."""
    if block.images is not None and len(plan.shape) == 1:
        flat = block.images.astype(np.float64)
        return {field.name: pa.array(flat[:, i]) for i, field in enumerate(plan.fields)}
    if block.images is not None:
        return {field.name: block.images for field in plan.fields}
    assert block.table is not None
    table = block.table
    return {field.name: columns.plain(table.column(field.name).combine_chunks()) for field in plan.fields}


def _shown(value: object) -> str:
    return "missing" if value is None or value == "" or value != value else repr(value)
