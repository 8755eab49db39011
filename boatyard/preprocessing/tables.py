"""Columns of a file, or of a folder of files alike: what CSV, Parquet and other tables have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from boatyard.data.datasets import Split
from boatyard.errors import DataError
from boatyard.preprocessing.block import Block, known
from boatyard.preprocessing.sources.base import OpenSource, TableSource, share_of
from boatyard.project import DataConfig, PreprocessConfig

UNNAMED = "unnamed column "


@dataclass(frozen=True)
class Header:
    """A file's columns by name, in order; `delimiter` is what separates them in a CSV file."""

    names: tuple[str, ...]
    delimiter: str = ""


@dataclass(frozen=True)
class Table(OpenSource):
    """An opened table; `first` is the number of its first row, `drop` whether unreadable rows are left out."""

    source: TableSource
    paths: tuple[Path, ...]
    data: DataConfig
    header: Header
    drop: bool
    first: int = 0

    @property
    def given(self) -> frozenset[Split]:
        """A table brings no test set of its own."""
        return frozenset()

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""
        return self.paths

    @property
    def features(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns to learn from, in the file's order unless the project gives one."""
        kept_out = {self.data.target, self.data.group, *self.data.slices}
        return self.data.features or tuple(name for name in self.header.names if name not in kept_out)

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column that is read: features, group, slices and the target, without repeats."""
        extra = [self.data.group] if self.data.group else []
        return tuple(dict.fromkeys((*self.features, *extra, *self.data.slices, self.data.target)))

    def blocks(self) -> Iterator[Block]:
        """Read the rows of every file in turn."""
        start = self.first
        for path in self.paths:
            for read in self.source.read(path, self):
                table = read.table
                rows = np.arange(start, start + table.num_rows, dtype=np.int64)
                start += table.num_rows
                target = table.column(self.data.target).combine_chunks()
                yield Block(None, rows, target, read.where, table=table, bad=read.bad)

    def share(self, part: int, of: int, first: int = 0) -> Table:
        """Return neighbouring files of about equal bytes."""
        sizes = [path.stat().st_size for path in self.paths]
        return replace(self, paths=tuple(self.paths[i] for i in share_of(sizes, part, of)), first=first)


def open_table(source: TableSource, path: Path, data: DataConfig, preprocess: PreprocessConfig) -> Table:
    """Open a file, or a folder of files with the same columns; raises DataError."""
    paths = _paths(path, source)
    headers = [source.header(p) for p in paths]
    names = headers[0].names
    for other, header in zip(paths[1:], headers[1:], strict=True):
        if header.names != names:
            differing = sorted(set(names) ^ set(header.names)) or "their order"
            raise DataError(
                f"{other} has other columns than {paths[0].name}: {differing}", fix="expected the same in every file"
            )
    _check_names(paths[0], names, data)
    table = Table(source, paths, data, headers[0], preprocess.unreadable == "drop")
    for key, named in _named(data).items():
        for name in named:
            known(key, name, names, paths[0])
    if not table.features:
        raise DataError(f"{paths[0]} has no column to learn from", fix=f"its columns are {', '.join(names)}")
    source.check(table)
    return table


def _named(data: DataConfig) -> dict[str, tuple[str, ...]]:
    """Return the columns that the project file names, by key."""
    return {
        "data.target": (data.target,),
        "data.features": data.features or (),
        "data.slices": data.slices,
        "data.columns": tuple(data.columns),
        "data.ranges": tuple(data.ranges),
        "data.group": (data.group,) if data.group else (),
    }


def _check_names(path: Path, names: tuple[str, ...], data: DataConfig) -> None:
    """Raise DataError for columns of the same name, and for one without a name that would be learnt from."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        places = ", ".join(str(i + 1) for i, name in enumerate(names) if name == twice[0])
        raise DataError(
            f"{path}: columns {places} are all named {twice[0]!r}", fix="expected names that differ: rename one"
        )
    unnamed = [name for name in names if name.startswith(UNNAMED)]
    if unnamed and data.features is None:
        number = unnamed[0].removeprefix(UNNAMED)
        raise DataError(
            f"{path}: column {number} has no name in the header",
            fix="give it one, or list the columns to learn from in data.features",
        )


def _paths(path: Path, source: TableSource) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise DataError(f"no file or folder at {path}", fix=f"expected {source.name}")
    found = sorted(p for p in path.rglob("*") if source.owns(p.name.lower()) and p.is_file())
    shown = tuple(p for p in found if not any(part.startswith((".", "_")) for part in p.relative_to(path).parts))
    if not shown:
        raise DataError(
            f"no {source.name} files in {path}", fix=f"expected names that end in {' or '.join(source.endings)}"
        )
    return shown


def reason(error: BaseException) -> str:
    """Return an error in words, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
