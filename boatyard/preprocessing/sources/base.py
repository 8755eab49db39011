"""The interface of a source: a kind of files that rows are read from, a block at a time.

A source is a subclass of `Source` and one object of it, `SOURCE` in a module of this folder (`sources/csv.py` is the
source `csv`) or an entry point of the group `boatyard.sources`. Its attributes are read by `boatyard check` and by the
project file, so a module imports what is heavy inside functions. A source of columns is a `TableSource`: it says how
one file's columns are named and how its rows are read, and has all the rest. `conformance.check` holds
one to the rules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from boatyard.errors import DataError
from boatyard.preprocessing.block import Block, TableBlock

if TYPE_CHECKING:
    from boatyard.data.datasets import Split
    from boatyard.preprocessing.tables import Header, Table
    from boatyard.project import DataConfig, PreprocessConfig


class OpenSource(ABC):
    """A source, opened: it can be read again and again, a block at a time, always cut alike."""

    features: tuple[str, ...] = ()  # columns of a table that are learnt from, in order; none of arrays and pictures

    @property
    @abstractmethod
    def given(self) -> frozenset[Split]:
        """The splits that the source brings itself; a row that is in none of them is still to be divided."""

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Read the rows."""

    def share(self, part: int, of: int, first: int = 0) -> OpenSource:
        """Return a part of the rows, of about equal bytes; its first row has the number `first`. It may be empty."""
        raise DataError("only tables and folders of images are shared out", fix="remove kubeflow.workers")


class Source(ABC):
    """A kind of files; what it takes of the section `data` its attributes say."""

    name: ClassVar[str]
    files: ClassVar[str]  # what `data.path` names, for people
    endings: ClassVar[tuple[str, ...]]  # of file names, in lower case
    packed: ClassVar[bool] = False  # files may be gzipped, .gz after the ending
    tabular: ClassVar[bool] = False  # has columns: data.columns, data.ranges and data.slices suit it
    grouped: ClassVar[bool] = False  # data.group suits it
    shareable: ClassVar[bool] = False  # several machines can share its rows (kubeflow.workers)
    pictures: ClassVar[bool] = False  # a row is an image: a new project begins with a convolutional recipe
    suggested: ClassVar[Mapping[str, Any]] = {}  # settings of `preprocess` that a new project begins with
    precedence: ClassVar[int] = 100  # where a folder holds files of several sources, the lowest is taken

    @abstractmethod
    def open(self, path: Path, data: DataConfig, preprocess: PreprocessConfig, threads: int) -> OpenSource:
        """Open what `data` names, looking at headers only; raises DataError."""

    def owns(self, name: str) -> bool:
        """Say whether a file of this name, in lower case, is one of a folder that is read."""
        return (name.removesuffix(".gz") if self.packed else name).endswith(self.endings)

    def recognises(self, names: Sequence[str]) -> bool:
        """Say whether files of these names, in lower case and without .gz, are of this source."""
        return any(name.endswith(self.endings) for name in names)


class TableSource(Source):
    """A source of columns: one file, or a folder of files with the same columns."""

    tabular = grouped = shareable = True

    @abstractmethod
    def header(self, path: Path) -> Header:
        """Read the names of a file's columns, and what reading its rows takes; raises DataError."""

    @abstractmethod
    def read(self, path: Path, table: Table) -> Iterator[TableBlock]:
        """Read a file's columns that are needed (`table.needed`), a block at a time; raises DataError."""

    def check(self, table: Table) -> None:
        """Raise DataError for columns that cannot be read, as far as the headers show it."""

    def open(self, path: Path, data: DataConfig, preprocess: PreprocessConfig, threads: int) -> Table:
        """Open a file or a folder of them; raises DataError."""
        from boatyard.preprocessing.tables import open_table

        return open_table(self, path, data, preprocess)


def share_of(sizes: Sequence[int], part: int, of: int) -> range:
    """Return which of neighbours with these sizes are a part's: those whose middle lies in its share of the sum."""
    ends = np.cumsum([max(size, 1) for size in sizes])
    middles = ends - np.array([max(size, 1) for size in sizes]) / 2
    low, high = (int(np.searchsorted(middles, ends[-1] * k / of)) for k in (part, part + 1))
    return range(low, high)
