"""Rows as the policies leave them: typed, checked, repaired or dropped; and a count of what was done and why."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boatyard.data.datasets import SPLITS
from boatyard.data.schema import Array
from boatyard.errors import DataError
from boatyard.preprocessing import columns
from boatyard.preprocessing.block import Block, Place
from boatyard.preprocessing.sources.tables import Table
from boatyard.preprocessing.splitting import mix
from boatyard.preprocessing.survey import GREATEST, Plan, label_codes, label_texts
from boatyard.project import DataConfig, PreprocessConfig

EXAMPLES = 5  # places that are named for each reason
Reason = Literal["unreadable", "missing", "out of range"]
Policy = Literal["drop", "impute", "clip", "refuse"]
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
            entry["examples"] += examples[: EXAMPLES - len(entry["examples"])]

    def note(self, notes: tuple[Note, ...]) -> None:
        """Count what was found in a block; places are looked up only as long as examples are wanted."""
        for one in notes:
            key = (one.reason, one.column, ACTIONS[one.policy])
            wanted = EXAMPLES - len(self.entries.get(key, {"examples": []})["examples"])
            self.add(*key, len(one.rows), [one.where(int(row)) for row in one.rows[:wanted]])
            if one.policy == "refuse":
                said = f"{one.where(int(one.rows[0]))}: {one.column!r} is {one.reason}{one.value}"
                self.refused.setdefault((one.reason, one.column), (said, one.policy))

    def settle(self) -> None:
        """Raise DataError for the first of what the policies refuse, with its count."""
        for (reason, column), (said, _) in self.refused.items():
            count = self.entries[reason, column, ACTIONS["refuse"]]["count"]
            dial = reason.replace(" ", "_")
            others = f", as are {count - 1} more rows" if count > 1 else ""
            raise DataError(f"{said}{others}; fix the data, or say preprocess.{dial}: drop")

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
class Rows:
    """A block's rows, typed: numbers float64 [N] with NaN for missing, categories as text, an image as it is.

    `keep` says which rows stay; `target` is int32 label indices or float32 values [N]; `texts` are the columns kept for
    slicing and grouping.
    """

    block: Block
    keep: Array
    columns: Mapping[str, Any]
    texts: Mapping[str, pa.Array]
    target: Array
    notes: tuple[Note, ...]

    def contents(self) -> Array:
        """Return a hash of each row's features as the model sees them, uint64 [N]: equal rows, equal hashes."""
        total = np.zeros(len(self.block), np.uint64)
        if not len(self.block):
            return total
        for number, column in enumerate(self.columns.values()):
            bits = _bits(column)
            with np.errstate(over="ignore"):
                total = mix(total * np.uint64(31) + mix(bits + np.uint64(number)))
        return total


@dataclass(frozen=True)
class Cleaner:
    """Types the rows of blocks and does what the policies say with the wrong ones."""

    plan: Plan
    config: DataConfig
    how: PreprocessConfig
    features: tuple[str, ...]

    def rows(self, block: Block) -> Rows:
        """Type a block's rows and find what is wrong with them."""
        sheet = _Sheet(self, block)
        made: dict[str, Any] = {}
        if self.plan.is_image:
            made["image"] = sheet.image(self.plan)
        elif block.images is not None:
            flat = block.images.astype(np.float64)
            for i, name in enumerate(self.plan.kinds):
                made[name] = sheet.number(name, flat[:, i], np.zeros(len(block), bool), None)
        elif block.table is not None:
            for name in self.features:
                column = columns.plain(block.table.column(name).combine_chunks())
                if self.plan.kinds[name] == "number":
                    made[name] = sheet.number(name, *columns.numbers(column), column)
                else:
                    made[name] = sheet.category(name, columns.categories(column))
        return Rows(block, sheet.keep, made, self._texts(block), self._target(block), tuple(sheet.notes))

    def _texts(self, block: Block) -> dict[str, pa.Array]:
        """Return the columns that are kept for slicing and grouping, as text."""
        names = [*self.config.slices, *([self.config.group] if self.config.group else [])]
        if block.table is None:
            return {}
        if block.images is not None:
            return {name: block.table.column("group").combine_chunks() for name in names}
        return {n: columns.categories(columns.plain(block.table.column(n).combine_chunks())) for n in names}

    def _target(self, block: Block) -> Array:
        column = columns.plain(block.target)
        if self.plan.task == "classification":
            return label_codes(label_texts(column), self.plan.labels)
        return columns.numbers(column)[0].astype(np.float32)


class _Sheet:
    """One block under the cleaner's hands: which of its rows stay, and what was noted."""

    def __init__(self, cleaner: Cleaner, block: Block) -> None:
        self.how, self.ranges, self.block = cleaner.how, cleaner.config.ranges, block
        self.keep = np.ones(len(block), bool)
        self.notes: list[Note] = []

    def number(self, name: str, values: Array, odd: Array, column: pa.Array | None) -> Array:
        """Check a column of numbers, float64 [N]; return it repaired."""
        self._apply("unreadable", self.how.unreadable, name, odd, column)
        low, high = self.ranges.get(name, (None, None))
        low, high = -GREATEST if low is None else low, GREATEST if high is None else high
        far = (values < low) | (values > high)
        if far.any():
            self._apply("out of range", self.how.out_of_range, name, far, column if column is not None else values)
            values = np.clip(values, low, high) if self.how.out_of_range == "clip" else values
        self._apply("missing", self.how.missing, name, np.isnan(values) & ~odd, None)
        return values

    def category(self, name: str, values: pa.Array) -> pa.Array:
        """Check a column of text."""
        self._apply("missing", self.how.missing, name, pc.equal(values, "").to_numpy(zero_copy_only=False), None)
        return values

    def image(self, plan: Plan) -> Array:
        """Check images; a float image with a missing or infinite pixel cannot be repaired, it is dropped or refused."""
        assert self.block.images is not None
        images = self.block.images.reshape(len(self.block), *plan.shape)
        if plan.dtype == "uint8":
            return images
        images = images.astype(np.float32)
        flat = images.reshape(len(images), -1)
        missing: Policy = "refuse" if self.how.missing == "refuse" else "drop"
        far: Policy = "refuse" if self.how.out_of_range == "refuse" else "drop"
        self._apply("missing", missing, "image", np.asarray(np.isnan(flat).any(1)), None)
        self._apply("out of range", far, "image", np.asarray(np.isinf(flat).any(1)), None)
        return images

    def _apply(self, reason: Reason, policy: Policy, name: str, found: Array, values: Any) -> None:
        """Note the rows found, and drop them where the policy says so."""
        rows = np.flatnonzero(found)
        if not len(rows):
            return
        if policy == "drop":
            self.keep[rows] = False
        first = values[int(rows[0])] if values is not None else None
        value = "" if first is None else f" ({first.as_py() if isinstance(first, pa.Scalar) else float(first)!r})"
        self.notes.append(Note(reason, name, policy, self.block.where, rows, value))


def text_hashes(values: pa.Array) -> Array:
    """Return a hash of each text, uint64 [N]; each different text is hashed once."""
    coded = pc.dictionary_encode(values)
    hashes = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in coded.dictionary.to_pylist()]
    found: Array = (
        np.frombuffer(b"".join(hashes), "<u8")[coded.indices.to_numpy()] if hashes else np.zeros(0, np.uint64)
    )
    return found


def _bits(column: Any) -> Array:
    """Return 64 bits for each value of a column: equal values, equal bits."""
    if isinstance(column, pa.Array):
        return text_hashes(column)
    return _image_hashes(column) if column.ndim > 1 else _number_bits(column)


def _image_hashes(images: Array) -> Array:
    data, width = images.tobytes(), images[0].nbytes
    rows = memoryview(data)
    hashed = b"".join(
        hashlib.blake2b(rows[start : start + width], digest_size=8).digest() for start in range(0, len(data), width)
    )
    found: Array = np.frombuffer(hashed, "<u8")
    return found


def _number_bits(values: Array) -> Array:
    """Return the bits of values as the model sees them, float32; both zeros and all NaNs are one."""
    with np.errstate(over="ignore"):  # what is out of range is dropped
        seen = values.astype(np.float32) + np.float32(0)
    seen[np.isnan(seen)] = np.nan
    found: Array = seen.view(np.uint32).astype(np.uint64)
    return found


def table_features(source: object) -> tuple[str, ...]:
    """Return the columns of a table that are learnt from; none of other sources."""
    return source.features if isinstance(source, Table) else ()
