"""Rows on their way: a block of some thousands, small enough to be held while the rest stays on disk."""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from boatyard.data.datasets import Split
from boatyard.data.schema import Array
from boatyard.errors import DataError

BLOCK_BYTES = 2 << 20  # of raw values in a block: a few of them are alive at once
WORKERS = 3  # at most: each holds a block and what is made of it, which bounds the memory
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used as it is: its place in words, and what is wrong with it."""

    where: str
    what: str


@dataclass(frozen=True)
class Place:
    """Where rows are, for messages: `rows.npy, row 17`; `numbers` holds each row's number in its file."""

    file: str
    numbers: Array

    def __call__(self, index: int) -> str:
        """Return the place of a block's row."""
        return f"{self.file}, row {int(self.numbers[index])}"


@dataclass(frozen=True)
class Block:
    """Rows of one source file in order.

    `rows` int64 [N] number the rows of their source; `images` is [N, H, W], [N, H, W, C] or [N, F], `table` the columns
    as read; `target` the raw target, one value a row; `split` is set where the source says it (a test set of its own);
    `bad` are the rows that were left out already.
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


class Source(Protocol):
    """A kind of files, opened: it can be read again and again, a block at a time, always cut alike."""

    @property
    def given(self) -> frozenset[Split]:
        """The splits that the source brings itself; a row that is in none of them is still to be divided."""

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""

    def blocks(self) -> Iterator[Block]:
        """Read the rows."""


def ordered(function: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """Apply a function to items in several threads and give the answers in the items' order; few are held at once.

    NumPy, Arrow and hashing let go of the interpreter's lock, so threads do what processes would, in one memory.
    """
    workers = min(threads, WORKERS)
    if workers <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[U]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def arrow(values: Any) -> pa.Array:
    """Return values as one Arrow array."""
    made = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def numbered(start: int, count: int) -> Array:
    """Return row numbers from `start`."""
    return np.arange(start, start + count, dtype=np.int64)


def known(what: str, name: str, there: Iterable[str], where: object) -> None:
    """Raise DataError unless a column or array of that name is there; the nearest name comes first."""
    names = list(there)
    if name in names:
        return
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1)
    likely = next((n for n in names if near and n.lower() == near[0]), None)
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    asked = f"did you mean {likely!r}? " if likely else ""
    raise DataError(f"{what} {name!r} is not in {where}; {asked}there are {listed}")
