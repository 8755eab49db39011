"""The first look at the rows: what the columns are, which labels there are, of what shape an image is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boatyard.data.schema import Array, Task
from boatyard.errors import DataError
from boatyard.preprocessing import columns
from boatyard.preprocessing.block import Block, Place, Source, ordered
from boatyard.preprocessing.columns import MOST_CATEGORIES, Kind, Seen
from boatyard.preprocessing.sources.tables import Table
from boatyard.project import DataConfig

GREATEST = float(np.finfo(np.float32).max)
NO_LABEL = pa.array(["", "NaN", "nan"])  # "none" and "NA" may be the name of a class


@dataclass(frozen=True)
class Plan:
    """What the rows are: `kinds` by column of a table, `shape` and `dtype` of an image, the labels in order."""

    task: Task
    kinds: Mapping[str, Kind]
    shape: tuple[int, ...]
    dtype: str
    labels: tuple[str, ...]
    total: int

    @property
    def is_image(self) -> bool:
        """Whether a row is one image, not columns."""
        return len(self.shape) >= 2

    @property
    def row_bytes(self) -> int:
        """About how many bytes a row takes in a shard."""
        if self.is_image:
            return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize
        return 16 + sum(4 if kind == "number" else 16 for kind in self.kinds.values())


@dataclass
class Glance:
    """What was seen of some blocks."""

    total: int = 0
    columns: dict[str, Seen] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    unlabelled: int = 0
    first: tuple[Place, int, str] | None = None  # the first row without a label, and what stands there
    shape: tuple[int, ...] = ()
    dtype: str = ""

    def merge(self, more: Glance) -> None:
        """Take in the next block."""
        self.total += more.total
        self.labels |= more.labels
        self.unlabelled += more.unlabelled
        self.first = self.first or more.first
        self.shape, self.dtype = self.shape or more.shape, self.dtype or more.dtype
        for name, seen in more.columns.items():
            if name in self.columns:
                self.columns[name].merge(seen)
            else:
                self.columns[name] = seen


def survey(source: Source, config: DataConfig, task: Task, threads: int) -> Plan:
    """Read all rows once and say what they are; raises DataError for what cannot be learnt from."""
    return planned(look_through(source, config, task, threads), source, config, task)


def look_through(source: Source, config: DataConfig, task: Task, threads: int) -> Glance:
    """Read all rows of a source, or of a part of one, once; raises DataError for more labels than classes have."""
    found = Glance()

    def look(block: Block) -> Glance:
        return _glance(block, source, config, task, {n for n, seen in list(found.columns.items()) if seen.many})

    for glance in ordered(look, source.blocks(), threads):
        found.merge(glance)
        check_labels(found, config, task)
    return found


def planned(found: Glance, source: Source, config: DataConfig, task: Task) -> Plan:
    """Say what the rows are that were looked through; raises DataError for what cannot be learnt from."""
    where = source.files()[0] if len(source.files()) == 1 else source.files()[0].parent
    if not found.total:
        raise DataError(f"{where} has no rows beside its header; expected at least one for each split")
    if found.first:
        place, row, value = found.first
        wanted = "a label" if task == "classification" else "a finite number"
        raise DataError(
            f"{place(row)}: the target {config.target!r} is {value}; "
            f"expected {wanted} in every row, {found.unlabelled} of {found.total} have none: label or remove them"
        )
    try:
        kinds = {name: seen.kind(config.columns) for name, seen in found.columns.items()}
        labels = _ordered(found.labels, found.total, config) if task == "classification" else ()
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if len(found.shape) == 1:
        width = len(str(found.shape[0] - 1))
        kinds = {f"x{i:0{width}d}": "number" for i in range(found.shape[0])}
    return Plan(task, kinds, found.shape, found.dtype, labels, found.total)


def _glance(block: Block, source: Source, config: DataConfig, task: Task, many: set[str]) -> Glance:
    """Look at one block."""
    made = Glance(len(block))
    if not len(block):
        return made
    column = columns.plain(block.target)
    if task == "classification":
        texts = label_texts(column)
        gone = pc.is_in(texts, value_set=NO_LABEL).to_numpy(zero_copy_only=False)
        made.labels = set(pc.unique(texts.filter(pa.array(~gone))).to_pylist())
    else:
        values, odd = columns.numbers(column)
        gone = odd | ~(np.abs(values) <= GREATEST)
    if gone.any():
        first = int(np.flatnonzero(gone)[0])
        made.unlabelled = int(gone.sum())
        made.first = (block.where, first, _shown(column[first].as_py()))
    if isinstance(source, Table) and block.table is not None:
        for name in source.features:
            values = columns.plain(block.table.column(name).combine_chunks())
            made.columns[name] = Seen.of(name, values, name in many)
    elif block.images is not None:
        shape = block.images.shape[1:]
        made.shape = shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
        made.dtype = "uint8" if block.images.dtype == np.uint8 else "float32"
    return made


def label_texts(column: pa.Array) -> pa.Array:
    """Return a plain target column as text; whole numbers without a point, missing as ""."""
    return columns.categories(column) if pa.types.is_floating(column.type) else column


def _shown(value: object) -> str:
    return "missing" if value is None or value == "" or value != value else repr(value)


def check_labels(found: Glance, config: DataConfig, task: Task) -> None:
    """Raise DataError for more labels than classes have."""
    if task == "classification" and len(found.labels) > MOST_CATEGORIES:
        examples = ", ".join(repr(label[:40]) for label in sorted(found.labels)[:3])
        raise DataError(
            f"the target {config.target!r} has more than {MOST_CATEGORIES} different values such as {examples}; "
            "expected classes: for a number say task: regression"
        )


def _ordered(found: set[str], total: int, config: DataConfig) -> tuple[str, ...]:
    """Return the labels in the order of the model's outputs: as the project names them, else sorted."""
    if len(found) < 2:
        raise DataError(f"every row has the label {min(found)!r}; expected two classes or more to tell apart")
    if len(found) > 0.5 * total and total >= columns.FEW_ROWS:
        raise DataError(
            f"the target {config.target!r} has {len(found)} different values in {total} rows; expected classes of "
            "several rows each: for a number say task: regression"
        )
    if config.labels:
        return _named(found, config.labels)
    if all(columns.is_number(label) for label in found):
        return tuple(sorted(found, key=lambda label: (float(label), label)))
    return tuple(sorted(found))


def _named(found: set[str], given: tuple[str, ...]) -> tuple[str, ...]:
    """Check the names that the project gives: of the labels found, or of the numbers 0, 1, 2 …"""
    numbers = {str(i) for i in range(len(given))}
    if not (found <= set(given) or found <= numbers):
        odd = min(found - numbers - set(given), default=min(found - numbers, default=""))
        raise DataError(
            f"data.labels names {len(given)} classes; {odd!r} in the data is neither one of the names nor a number "
            f"from 0 to {len(given) - 1}"
        )
    return given


def label_codes(texts: pa.Array, labels: tuple[str, ...]) -> Array:
    """Return label indices int32 [N]: of names, or where the project names numbers 0, 1, 2 … of those."""
    found = pc.index_in(texts, value_set=pa.array(labels))
    if found.null_count:
        found = pc.index_in(texts, value_set=pa.array([str(i) for i in range(len(labels))]))
    codes: Array = found.to_numpy(zero_copy_only=False).astype(np.int32)
    return codes
