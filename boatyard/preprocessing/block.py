"""Rows on their way: a block of some thousands, small enough to be held while the rest stays on disk."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from boatyard.datasets import Split
from boatyard.errors import DataError
from boatyard.schema import Array

BLOCK_BYTES = 8 << 20  # of raw values in a block: a few of them are alive at once
Reason = Literal["unreadable", "missing", "out of range"]


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used as it is: its place in words, and what is wrong with it."""

    where: str
    what: str


@dataclass(frozen=True)
class Block:
    """Rows of one source file in order.

    `rows` int64 [N] number the rows of their source; `images` is [N, H, W] or [N, H, W, C], `table` the columns as read;
    `target` the raw target, one value a row; `split` is set where the source says it (a test set of its own); `first` is
    how the first row is called in messages; `bad` the rows that were left out already.
    """

    split: Split | None
    rows: Array
    target: pa.Array
    where: Place
    images: Array | None = None
    table: pa.Table | None = None
    bad: tuple[Bad, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Place:
    """Where a row is, for messages: `rows.csv, line 17`; `lines` holds the number of each row in its file."""

    file: str
    unit: str
    lines: Array

    def __call__(self, index: int) -> str:
        return f"{self.file}, {self.unit} {int(self.lines[index])}"


class Source(Protocol):
    """A kind of files, opened: it can be read again and again, a block at a time, always in the same order."""

    @property
    def has_test(self) -> bool:
        """Say whether the source has a test set of its own."""

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""

    def blocks(self) -> Iterator[Block]:
        """Read the rows."""

    def total(self) -> int:
        """Return about how many rows there are, for the progress; 0 when unknown."""


def arrow(values: Any) -> pa.Array:
    """Return values as one Arrow array."""
    made = pa.array(values) if not isinstance(values, pa.Array | pa.ChunkedArray) else values
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def numbered(start: int, count: int) -> Array:
    """Return row numbers from `start`."""
    return np.arange(start, start + count, dtype=np.int64)


def known(what: str, name: str, there: Iterable[str], where: object) -> None:
    """Raise DataError unless a column or array of that name is there; the nearest name comes first."""
    names = list(there)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:20]) + (" …" if len(names) > 20 else "")
    raise DataError(
        f"{what} {name!r} is not in {where}; " + (f"did you mean {near[0]!r}? " if near else "") + f"there are {listed}"
    )
