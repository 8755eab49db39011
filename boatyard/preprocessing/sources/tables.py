"""CSV and Parquet: columns of a file, or of a folder of files alike, read a block at a time."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from boatyard.data.datasets import Split
from boatyard.data.schema import Array
from boatyard.errors import DataError
from boatyard.preprocessing import columns
from boatyard.preprocessing.block import BLOCK_BYTES, Bad, Block, Place, known
from boatyard.project import DataConfig, PreprocessConfig

UNNAMED = "unnamed column "
DELIMITERS = ",;\t|"
ENDINGS = {"csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt"), "parquet": (".parquet", ".pq")}
BROKEN = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class Table:
    """A source of columns; `features` are learnt from, in order; `first` is the number of its first row."""

    paths: tuple[Path, ...]
    config: DataConfig
    names: tuple[str, ...]
    drop: bool
    delimiter: str
    first: int = 0

    @property
    def given(self) -> frozenset[Split]:
        """A table brings no test set of its own."""
        return frozenset()

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""
        return self.paths

    @property
    def features(self) -> tuple[str, ...]:
        """The columns to learn from, in the file's order unless the project gives one."""
        kept_out = {self.config.target, self.config.group, *self.config.slices}
        return self.config.features or tuple(name for name in self.names if name not in kept_out)

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column that is read: features, group, slices and the target, without repeats."""
        extra = [self.config.group] if self.config.group else []
        return tuple(dict.fromkeys((*self.features, *extra, *self.config.slices, self.config.target)))

    def blocks(self) -> Iterator[Block]:
        """Read the rows of every file in turn."""
        start = self.first
        for path in self.paths:
            for table, place, bad in self._parquet(path) if self.config.source == "parquet" else self._csv(path):
                rows = np.arange(start, start + table.num_rows, dtype=np.int64)
                start += table.num_rows
                target = table.column(self.config.target).combine_chunks()
                yield Block(None, rows, target, place, table=table, bad=bad)

    def _csv(self, path: Path) -> Iterator[tuple[pa.Table, Place, tuple[Bad, ...]]]:
        """Read a CSV file as text; rows of another width are left out and told of, or refused."""
        ragged: list[tuple[int, int]] = []
        lines = Lines(path, self.delimiter)

        def odd(row: Any) -> str:
            ragged.append((row.number - 2, row.actual_columns))  # the header is row 1
            return "skip" if self.drop else "error"

        def bad(record: int, width: int) -> Bad:
            return Bad(lines.where(record), f"has {width} values, the header has {len(self.names)}")

        parse = pacsv.ParseOptions(
            delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=odd, ignore_empty_lines=True
        )
        read = pacsv.ReadOptions(
            use_threads=False, block_size=BLOCK_BYTES, column_names=list(self.names), skip_rows_after_names=1
        )
        convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(self.names, pa.string()),
            strings_can_be_null=False,
            include_columns=list(self.needed),
        )
        record = 0
        try:
            with _unpacked(path) as file:
                for batch in pacsv.open_csv(file, read, parse, convert):
                    numbers, record, passed = _numbered(record, batch.num_rows, ragged)
                    told = tuple(bad(*one) for one in ragged[:passed])
                    del ragged[:passed]
                    yield pa.Table.from_batches([batch]), LinePlace(path.name, numbers, lines=lines), told
            if ragged:
                nothing = pa.table({name: pa.array([], pa.string()) for name in self.needed})
                yield nothing, LinePlace(path.name, np.zeros(0, np.int64), lines=lines), tuple(bad(*o) for o in ragged)
        except pa.ArrowInvalid as error:
            if ragged and not self.drop:
                found = bad(*ragged[-1])
                raise DataError(f"{found.where} {found.what}; mend it, or say preprocess.unreadable: drop") from None
            if "Empty CSV" not in str(error):
                raise DataError(f"{_first_wrong(path) or path}: {_reason(error)}") from error
        except BROKEN as error:
            raise DataError(f"{path} cannot be read after row {record}: {_reason(error)}") from error

    def _parquet(self, path: Path) -> Iterator[tuple[pa.Table, Place, tuple[Bad, ...]]]:
        start = 0
        try:
            with pq.ParquetFile(path, buffer_size=1 << 18, pre_buffer=False, page_checksum_verification=True) as file:
                count = max(BLOCK_BYTES // (16 * len(self.needed)), 256)
                for batch in file.iter_batches(batch_size=count, columns=list(self.needed), use_threads=False):
                    numbers = np.arange(start, start + batch.num_rows, dtype=np.int64)
                    yield pa.Table.from_batches([batch]), Place(path.name, numbers), ()
                    start += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read after row {start}: {_reason(error)}") from error


@dataclass
class Lines:
    """Where the records of a CSV file begin, found when somebody asks: quoted values may span lines."""

    path: Path
    delimiter: str
    _reader: Iterator[tuple[int, int]] | None = None
    _at: tuple[int, int] = (-1, 0)
    _plain: bool | None = None

    def where(self, record: int) -> str:
        """Say the place of a record, counted from 0 after the header."""
        return f"{self.path}, line {self.line(record)}"

    def line(self, record: int) -> int:
        """Return the line that a record begins at, counted from 1."""
        if self._plain is None:
            self._plain = _is_plain(self.path)
        if self._plain:
            return record + 2
        if self._reader is None or self._at[0] > record:
            self._reader, self._at = self._records(), (-1, 0)
        try:
            while self._at[0] < record:
                self._at = next(self._reader, (record, self._at[1]))
        except csv.Error:  # a value longer than the reader takes: the line is a guess
            return record + 2
        return self._at[1]

    def _records(self) -> Iterator[tuple[int, int]]:
        with io.TextIOWrapper(cast(Any, _unpacked(self.path)), "utf-8-sig", "replace", newline="") as text:
            reader = csv.reader(text, delimiter=self.delimiter)
            number, begins = -2, 1
            for row in reader:
                if row:
                    number += 1
                    yield number, begins
                begins = reader.line_num + 1


@dataclass(frozen=True)
class LinePlace(Place):
    """Where rows of a CSV file are: `rows.csv, line 17`."""

    lines: Lines = field(kw_only=True)

    def __call__(self, index: int) -> str:
        return self.lines.where(int(self.numbers[index]))


def open_table(path: Path, config: DataConfig, how: PreprocessConfig) -> Table:
    """Open a CSV or Parquet file, or a folder of them with the same columns; raises DataError."""
    paths = _paths(path, config.source)
    found = [_parquet_names(p) if config.source == "parquet" else _header(p) for p in paths]
    names, delimiter = found[0]
    for other, (others, _) in zip(paths[1:], found[1:], strict=True):
        if others != names:
            differing = sorted(set(names) ^ set(others)) or "their order"
            raise DataError(
                f"{other} has other columns than {paths[0].name}: {differing}; expected the same in every file"
            )
    _check_names(paths[0], names, config)
    table = Table(paths, config, names, how.unreadable == "drop", delimiter)
    asked = {
        "data.target": (config.target,),
        "data.features": config.features or (),
        "data.slices": config.slices,
        "data.columns": tuple(config.columns),
        "data.ranges": tuple(config.ranges),
        "data.group": (config.group,) if config.group else (),
    }
    for key, wanted in asked.items():
        for name in wanted:
            known(key, name, names, paths[0])
    if not table.features:
        raise DataError(f"{paths[0]} has no column to learn from; its columns are {', '.join(names)}")
    if config.source == "parquet":
        _check_types(table)
    return table


def _check_names(path: Path, names: tuple[str, ...], config: DataConfig) -> None:
    """Raise DataError for columns of the same name, and for one without a name that would be learnt from."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        places = ", ".join(str(i + 1) for i, name in enumerate(names) if name == twice[0])
        raise DataError(f"{path}: columns {places} are all named {twice[0]!r}; expected names that differ: rename one")
    unnamed = [name for name in names if name.startswith(UNNAMED)]
    if unnamed and config.features is None:
        number = unnamed[0].removeprefix(UNNAMED)
        raise DataError(
            f"{path}: column {number} has no name in the header; give it one, or list the columns to learn from in "
            "data.features"
        )


def _check_types(table: Table) -> None:
    """Raise DataError for a column that is read and is neither numbers nor text, or differs between files."""
    for path in table.paths:
        schema = pq.read_schema(path)
        for name in table.needed:
            kind = schema.field(name).type
            if not columns.is_usable(kind):
                raise DataError(
                    f"{path}: column {name!r} is of type {kind}; expected numbers, text, booleans or dates: "
                    "flatten it, or leave it out by listing the other columns in data.features"
                )


def _paths(path: Path, source: str) -> tuple[Path, ...]:
    endings = ENDINGS[source]
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise DataError(f"no file or folder at {path}; expected {source}")
    found = sorted(p for p in path.rglob("*") if p.name.lower().endswith(endings) and p.is_file())
    shown = tuple(p for p in found if not any(part.startswith((".", "_")) for part in p.relative_to(path).parts))
    if not shown:
        raise DataError(f"no {source} files in {path}; expected names that end in {' or '.join(endings)}")
    return shown


def _parquet_names(path: Path) -> tuple[tuple[str, ...], str]:
    try:
        return tuple(pq.read_schema(path).names), ","
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file: {_reason(error)}") from error


def _header(path: Path) -> tuple[tuple[str, ...], str]:
    """Read a CSV file's column names and see what separates them."""
    try:
        with _unpacked(path) as file:
            head = file.read(1 << 18)
    except BROKEN as error:
        raise DataError(f"{path} cannot be read: {_reason(error)}") from error
    if not head.strip():
        raise DataError(f"{path} is empty; expected a header line and rows")
    if head.startswith((b"PK", b"PAR1", b"\x1f\x8b")) or b"\0" in head:
        raise DataError(f"{path} is not UTF-8 text (its first bytes are {head[:4]!r}); expected CSV, saved as UTF-8")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line} is not UTF-8 text; save the file as UTF-8") from error
    delimiter = max(DELIMITERS, key=lambda mark: _fit(text, mark))
    try:
        first = next(row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row)
    except csv.Error as error:
        raise DataError(f"{path}: its header cannot be read: {error}") from error
    names = tuple(name.strip() or f"{UNNAMED}{number}" for number, name in enumerate(first, 1))
    if len(names) < 2:
        raise DataError(f"{path}: one column, {names[0][:40]!r}; expected columns separated by , ; tab or |")
    return names, delimiter


def _fit(text: str, delimiter: str) -> tuple[bool, int]:
    """Say how well a delimiter fits: whether the first rows are as wide as the header, and how wide that is."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        widths = [len(row) for _, row in zip(range(20), rows, strict=False) if row]
    except csv.Error:
        return False, 0
    whole = widths[:-1] if len(widths) > 2 else widths  # the last may be cut
    alike = sum(width == widths[0] for width in whole) > 0.5 * len(whole)
    return alike and widths[0] > 1, widths[0]


def _unpacked(path: Path) -> io.BufferedReader:
    if path.suffix == ".gz":
        return io.BufferedReader(cast(Any, gzip.open(path, "rb")), 1 << 18)
    return open(path, "rb")


def _numbered(first: int, count: int, ragged: list[tuple[int, int]]) -> tuple[Array, int, int]:
    """Number `count` whole records from `first`, passing over ragged ones; return the next and how many were passed."""
    odd = [number for number, _ in ragged]
    passed, last = 0, first + count
    while passed < len(odd) and odd[passed] < last:
        passed, last = passed + 1, last + 1
    numbers = np.arange(first, last, dtype=np.int64)
    return (numbers[~np.isin(numbers, odd[:passed])] if passed else numbers), last, passed


def _is_plain(path: Path) -> bool:
    """Say whether every line of a CSV file is one record: nothing quoted, no empty line."""
    last = b"\n"
    with _unpacked(path) as file:
        while data := file.read(1 << 20):
            joined = (last + data).replace(b"\r", b"")
            if b'"' in joined or b"\n\n" in joined:
                return False
            last = data[-2:]
    return True


def _first_wrong(path: Path) -> str:
    """Return the place of the first line that is not UTF-8, or nothing."""
    with _unpacked(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"{path}, line {number} is not UTF-8 text; save the file as UTF-8"
    return ""


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
