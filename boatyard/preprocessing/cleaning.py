"""Rows as the policies leave them: typed, checked, repaired or dropped; and a count of what was done and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from boatyard.data import columns, kinds
from boatyard.data.datasets import SPLITS
from boatyard.data.kinds.base import Policy, Reason
from boatyard.data.row_hashes import mix
from boatyard.data.schema import Array, Field
from boatyard.errors import DataError
from boatyard.preprocessing.block import Block, Place
from boatyard.preprocessing.profile import DataPlan, feature_columns
from boatyard.project import DataConfig, PreprocessConfig
from boatyard.tasks.targets import Target

MAX_EXAMPLES = 5  # places that are named for each reason
ACTIONS: dict[Policy, str] = {"drop": "dropped", "impute": "imputed", "clip": "clipped", "refuse": "refused"}


@dataclass(frozen=True)
class Note:
    """That in some rows of a block a column was found to be wrong, and what the policy says about it."""

    reason: Reason
    column: str
    policy: Policy
    where: Place
    rows: Array
    value: str = ""


@dataclass
class Cleaning:
    """What was dropped or repaired, counted by reason and column, with the first places."""

    entries: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    refused: dict[tuple[str, str], tuple[str, Policy]] = field(default_factory=dict)

    def add(self, reason: str, column: str, action: str, count: int, examples: list[str]) -> None:
        """Count rows."""
        if count:
            entry = self.entries.setdefault((reason, column, action), {"count": 0, "examples": []})
            entry["count"] += count
            entry["examples"] += examples[: MAX_EXAMPLES - len(entry["examples"])]

    def note(self, notes: tuple[Note, ...]) -> None:
        """Count what was found in a block; places are looked up only as long as examples are wanted."""
        for note in notes:
            key = (note.reason, note.column, ACTIONS[note.policy])
            more = MAX_EXAMPLES - len(self.entries.get(key, {"examples": []})["examples"])
            self.add(*key, len(note.rows), [note.where(int(row)) for row in note.rows[:more]])
            if note.policy == "refuse":
                message = f"{note.where(int(note.rows[0]))}: {note.column!r} is {note.reason}{note.value}"
                self.refused.setdefault((note.reason, note.column), (message, note.policy))

    def settle(self) -> None:
        """Raise DataError for the first of what the policies refuse, with its count."""
        for (reason, column), (message, _) in self.refused.items():
            count = self.entries[reason, column, ACTIONS["refuse"]]["count"]
            setting = reason.replace(" ", "_")
            others = f", as are {count - 1} more rows" if count > 1 else ""
            raise DataError(f"{message}{others}", fix=f"fix the data, or say preprocess.{setting}: drop")

    def values(self) -> list[dict[str, Any]]:
        """Return the counts as JSON values, most rows first."""
        found = [{"reason": r, "column": c or None, "action": a, **entry} for (r, c, a), entry in self.entries.items()]
        return sorted(found, key=lambda entry: -int(entry["count"]))


def summary(about: Mapping[str, Any]) -> str:
    """Say in a line what a dataset holds and what was done to its rows; `about` is its manifest."""
    rows = ", ".join(f"{split} {about['rows'][split]}" for split in SPLITS)
    done = [
        f"{entry['count']} {entry['action']}, {entry['reason']}" + (f" in {entry['column']}" if entry["column"] else "")
        for entry in about["cleaning"]
    ]
    return f"rows: {rows}; " + ("; ".join(done) if done else "nothing to clean")


@dataclass(frozen=True)
class CleanedRows:
    """A block's rows, typed: each field's values as its kind reads them (`Kind.clean`).

    `keep` says which rows stay; `target` is int32 label indices or float32 values [N]; `texts` are the columns kept for
    slicing and grouping.
    """

    block: Block
    keep: Array
    fields: tuple[Field, ...]
    columns: tuple[Any, ...]
    texts: Mapping[str, pa.Array]
    target: Array
    notes: tuple[Note, ...]

    def contents(self) -> Array:
        """Return a hash of each row's features as the model sees them, uint64 [N]: equal rows, equal hashes."""
        total = np.zeros(len(self.block), np.uint64)
        if not len(self.block):
            return total
        for number, (of, column) in enumerate(zip(self.fields, self.columns, strict=True)):
            bits = kinds.of(of).hashes(column)
            with np.errstate(over="ignore"):
                total = mix(total * np.uint64(31) + mix(bits + np.uint64(number)))
        return total


@dataclass(frozen=True)
class Cleaner:
    """Types the rows of blocks and does what the policies say with the wrong ones."""

    plan: DataPlan
    target: Target
    data: DataConfig
    preprocess: PreprocessConfig

    def rows(self, block: Block) -> CleanedRows:
        """Type a block's rows and find what is wrong with them."""
        fields = self.plan.fields
        cleaner = BlockCleaner(self.preprocess, self.data.ranges, block)
        raw = feature_columns(block, self.plan)
        columns_ = tuple(kinds.of(field).clean(field, raw[field.name], cleaner) for field in fields)
        target = self.target.read(columns.plain(block.target), self.plan.labels)
        return CleanedRows(block, cleaner.keep, fields, columns_, self._texts(block), target, tuple(cleaner.notes))

    def _texts(self, block: Block) -> dict[str, pa.Array]:
        """Return the columns that are kept for slicing and grouping, as text."""
        names = [*self.data.slices, *([self.data.group] if self.data.group else [])]
        if block.table is None:
            return {}
        if block.images is not None:
            return {name: block.table.column("group").combine_chunks() for name in names}
        return {n: columns.categories(columns.plain(block.table.column(n).combine_chunks())) for n in names}


class BlockCleaner:
    """One block under a cleaner's hands: which of its rows stay, and what was noted. Kinds call `apply`."""

    def __init__(
        self, preprocess: PreprocessConfig, ranges: Mapping[str, tuple[float | None, float | None]], block: Block
    ) -> None:
        self.preprocess, self.ranges, self.block = preprocess, ranges, block
        self.keep = np.ones(len(block), bool)
        self.notes: list[Note] = []

    def apply(self, reason: Reason, policy: Policy, name: str, wrong: Array, values: Any) -> None:
        """Note the rows in which a column is wrong, and drop them where the policy says so; a message names a value."""
        rows = np.flatnonzero(wrong)
        if not len(rows):
            return
        if policy == "drop":
            self.keep[rows] = False
        first = values[int(rows[0])] if values is not None else None
        value = "" if first is None else f" ({first.as_py() if isinstance(first, pa.Scalar) else float(first)!r})"
        self.notes.append(Note(reason, name, policy, self.block.where, rows, value))
