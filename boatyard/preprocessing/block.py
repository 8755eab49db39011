"""Rows on their way: a block of some thousands, small enough to be held while the rest stays on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from boatyard.data.schema import Array
from boatyard.errors import DataError
from boatyard.spelling import listed, nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from boatyard.data.datasets import Split


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


@dataclass(frozen=True)
class TableBlock:
    """Rows of one file as its source reads them: columns, where each row is, and the rows that were left out."""

    table: pa.Table
    where: Place
    bad: tuple[Bad, ...] = ()


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
    import pyarrow as pa

    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def numbered(start: int, count: int) -> Array:
    """Return row numbers from `start`."""
    return np.arange(start, start + count, dtype=np.int64)


def known(key: str, name: str, there: Iterable[str], where: object) -> None:
    """Raise DataError unless a column or array of that name is there; the nearest name comes first."""
    names = list(there)
    if name in names:
        return
    near = nearest(name.lower(), [other.lower() for other in names])
    likely = next((other for other in names if other.lower() == near), None)
    hint = f"did you mean {likely!r}? " if likely else ""
    raise DataError(f"{key} {name!r} is not in {where}", fix=f"{hint}there are {listed(names, 20)}")
