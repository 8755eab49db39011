"""CSV: UTF-8, gzipped or not; what separates the columns is seen, quoted values may span lines."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from boatyard.data.schema import Array
from boatyard.errors import DataError
from boatyard.preprocessing import block
from boatyard.preprocessing.block import Bad, Place, TableBlock
from boatyard.preprocessing.sources.base import TableSource

if TYPE_CHECKING:
    from boatyard.preprocessing.tables import Header, Table

DELIMITERS = ",;\t|"
HEAD_BYTES = 1 << 18  # that the header and the delimiter are seen in
BROKEN = (OSError, EOFError, zlib.error)


class CsvSource(TableSource):
    """Files of text, a line a row, the columns' names in the first."""

    name = "csv"
    files = "a file, or a folder of parts with the same columns"
    endings = (".csv", ".tsv", ".txt")
    packed = True
    precedence = 10

    def recognises(self, names: Sequence[str]) -> bool:
        """A .txt may be anything."""
        return any(name.endswith((".csv", ".tsv")) for name in names)

    def header(self, path: Path) -> Header:
        """Read a file's column names and see what separates them."""
        return _header(path)

    def read(self, path: Path, table: Table) -> Iterator[TableBlock]:
        """Read a CSV file as text; rows of another width are left out and told of, or refused."""
        import pyarrow as pa
        import pyarrow.csv as pacsv

        from boatyard.preprocessing.tables import reason

        ragged: list[tuple[int, int]] = []
        lines = Lines(path, table.header.delimiter)

        def odd(row: Any) -> str:
            ragged.append((row.number - 2, row.actual_columns))  # the header is row 1
            return "skip" if table.drop else "error"

        def bad(record: int, width: int) -> Bad:
            return Bad(lines.where(record), f"has {width} values, the header has {len(table.header.names)}")

        parse = pacsv.ParseOptions(
            delimiter=table.header.delimiter, newlines_in_values=True, invalid_row_handler=odd, ignore_empty_lines=True
        )
        read = pacsv.ReadOptions(
            use_threads=False,
            block_size=block.BLOCK_BYTES,
            column_names=list(table.header.names),
            skip_rows_after_names=1,
        )
        convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(table.header.names, pa.string()),
            strings_can_be_null=False,
            include_columns=list(table.needed),
        )
        record = 0
        try:
            with unpacked(path) as file:
                for batch in pacsv.open_csv(file, read, parse, convert):
                    numbers, record, passed = _numbered(record, batch.num_rows, ragged)
                    told = tuple(bad(*row) for row in ragged[:passed])
                    del ragged[:passed]
                    yield TableBlock(pa.Table.from_batches([batch]), LinePlace(path.name, numbers, lines=lines), told)
            if ragged:
                nothing = pa.table({name: pa.array([], pa.string()) for name in table.needed})
                place = LinePlace(path.name, np.zeros(0, np.int64), lines=lines)
                yield TableBlock(nothing, place, tuple(bad(*row) for row in ragged))
        except pa.ArrowInvalid as error:
            if ragged and not table.drop:
                first = bad(*ragged[-1])
                raise DataError(
                    f"{first.where} {first.what}", fix="fix it, or say preprocess.unreadable: drop"
                ) from None
            if "Empty CSV" not in str(error):
                raise DataError(f"{_first_wrong(path) or path}: {reason(error)}") from error
        except BROKEN as error:
            raise DataError(f"{path} cannot be read after row {record}: {reason(error)}") from error


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
        with io.TextIOWrapper(cast(Any, unpacked(self.path)), "utf-8-sig", "replace", newline="") as text:
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


def _header(path: Path) -> Header:
    from boatyard.preprocessing.tables import UNNAMED, Header, reason

    try:
        with unpacked(path) as file:
            head = file.read(HEAD_BYTES)
    except BROKEN as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from error
    if not head.strip():
        raise DataError(f"{path} is empty", fix="expected a header line and rows")
    if head.startswith((b"PK", b"PAR1", b"\x1f\x8b")) or b"\0" in head:
        raise DataError(
            f"{path} is not UTF-8 text (its first bytes are {head[:4]!r})", fix="expected CSV, saved as UTF-8"
        )
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line} is not UTF-8 text", fix="save the file as UTF-8") from error
    delimiter = max(DELIMITERS, key=lambda mark: _fit(text, mark))
    try:
        first = next(row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row)
    except csv.Error as error:
        raise DataError(f"{path}: its header cannot be read: {error}") from error
    names = tuple(name.strip() or f"{UNNAMED}{number}" for number, name in enumerate(first, 1))
    if len(names) < 2:
        raise DataError(f"{path}: one column, {names[0][:40]!r}", fix="expected columns separated by , ; tab or |")
    return Header(names, delimiter)


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


def unpacked(path: Path) -> io.BufferedReader:
    """Open a file, unpacked where it is gzipped."""
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
    with unpacked(path) as file:
        while data := file.read(1 << 20):
            joined = (last + data).replace(b"\r", b"")
            if b'"' in joined or b"\n\n" in joined:
                return False
            last = data[-2:]
    return True


def _first_wrong(path: Path) -> str:
    """Return the place of the first line that is not UTF-8, or nothing."""
    with unpacked(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"{path}, line {number} is not UTF-8 text; save the file as UTF-8"
    return ""


SOURCE = CsvSource()
