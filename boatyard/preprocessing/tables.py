"""CSV and Parquet: columns, typed by what their values are, read a block at a time."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from boatyard.errors import DataError
from boatyard.preprocessing.block import BLOCK_BYTES, Bad, Block, Place, known
from boatyard.project import DataConfig, PreprocessConfig
from boatyard.schema import Array

MISSING = pa.array(["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "none", "-"])
MOST_CATEGORIES = 1000
DELIMITERS = ",;\t|"
Kind = Literal["number", "category"]


@dataclass(frozen=True)
class Table:
    """A source of columns. `kinds` says what each feature is; `features` are learnt from, in order."""

    paths: tuple[Path, ...]
    config: DataConfig
    names: tuple[str, ...]
    drop: bool
    delimiter: str = ","
    has_test: bool = False

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""
        return self.paths

    def total(self) -> int:
        """Return how many rows there are, where the files say it."""
        return sum(pq.ParquetFile(p).metadata.num_rows for p in self.paths) if self.config.source == "parquet" else 0

    @property
    def features(self) -> tuple[str, ...]:
        """The columns to learn from, in the file's order unless the project gives one."""
        kept_out = {self.config.target, self.config.group, *self.config.slices}
        return self.config.features or tuple(name for name in self.names if name not in kept_out)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is needed: features, group and slices, without repeats."""
        extra = [self.config.group] if self.config.group else []
        return tuple(dict.fromkeys((*self.features, *extra, *self.config.slices)))

    def blocks(self) -> Iterator[Block]:
        """Read the rows of every file in turn."""
        start = 0
        for path in self.paths:
            reader = self._parquet(path) if self.config.source == "parquet" else self._csv(path)
            for table, lines, bad in reader:
                rows = np.arange(start, start + table.num_rows, dtype=np.int64)
                start += table.num_rows
                unit = "row" if self.config.source == "parquet" else "line"
                place = Place(path.name, unit, lines)
                target = table.column(self.config.target).combine_chunks()
                yield Block(None, rows, target, place, table=table.select(list(self.columns)), bad=bad)

    def _csv(self, path: Path) -> Iterator[tuple[pa.Table, Array, tuple[Bad, ...]]]:
        """Read a CSV file as text; rows of another width are dropped and told of, or refused."""
        ragged: list[tuple[int, Bad]] = []

        def odd(row: Any) -> str:
            what = f"has {row.actual_columns} values, the header {row.expected_columns}"
            ragged.append((row.number or 0, Bad(f"{path.name}, line {row.number}", what)))
            return "skip" if self.drop else "error"

        read = pacsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=list(self.names), skip_rows=1)
        parse = pacsv.ParseOptions(
            delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=odd, ignore_empty_lines=True
        )
        convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(self.names, pa.string()),
            strings_can_be_null=False,
            include_columns=[self.config.target, *(c for c in self.columns if c != self.config.target)],
        )
        line, told = 2, 0
        try:
            with _text(path) as file:
                if not file.peek(1):
                    return
                reader = pacsv.open_csv(file, read, parse, convert)
                for batch in reader:
                    new, told = ragged[told:], len(ragged)
                    lines = _lines(line, batch.num_rows, [number for number, _ in new])
                    line += batch.num_rows + len(new)
                    yield pa.Table.from_batches([batch]), lines, tuple(bad for _, bad in new)
        except pa.ArrowInvalid as error:
            if ragged and not self.drop:
                raise DataError(
                    f"{ragged[-1][1].where} {ragged[-1][1].what}; mend it, or preprocess.unreadable: drop"
                ) from None
            if "Empty CSV" in str(error):
                return
            raise DataError(f"{path}, about line {line}: {_reason(error)}") from error
        except (EOFError, OSError) as error:
            raise DataError(f"{path} cannot be read after line {line}: {error}") from error

    def _parquet(self, path: Path) -> Iterator[tuple[pa.Table, Array, tuple[Bad, ...]]]:
        start = 0
        wanted = list(dict.fromkeys((*self.columns, self.config.target)))
        try:
            file = pq.ParquetFile(path)
            width = max(len(wanted), 1) * 16
            for batch in file.iter_batches(
                batch_size=max(BLOCK_BYTES // width, 1024), columns=wanted, use_threads=False
            ):
                table = pa.Table.from_batches([batch])
                yield table, np.arange(start, start + table.num_rows, dtype=np.int64), ()
                start += table.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} cannot be read after row {start}: {_reason(error)}") from error


def open_table(path: Path, config: DataConfig, how: PreprocessConfig) -> Table:
    """Open a CSV or Parquet file, or a folder of them with the same columns; raises DataError."""
    paths = _paths(path, config.source)
    found = [_parquet_names(p) if config.source == "parquet" else _header(p) for p in paths]
    names, delimiter = found[0]
    for other, (others, _) in zip(paths[1:], found[1:], strict=True):
        if others != names:
            differing = sorted(set(names) ^ set(others)) or "their order"
            raise DataError(
                f"{other} has other columns than {paths[0].name}: {differing}; wanted the same in every file"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{paths[0]}: the column {twice[0]!r} is there twice; rename one")
    table = Table(paths, config, names, how.unreadable == "drop", delimiter)
    known("data.target", config.target, names, paths[0].name)
    for key, columns in (
        ("data.features", config.features or ()),
        ("data.slices", config.slices),
        ("data.columns", tuple(config.columns)),
        ("data.ranges", tuple(config.ranges)),
        ("data.group", (config.group,) if config.group else ()),
    ):
        for column in columns:
            known(key, column, names, paths[0].name)
    if not table.features:
        raise DataError(f"{paths[0]} has no column to learn from beside {', '.join(names)}")
    return table


@dataclass
class Seen:
    """What a column's values were so far; `texts` the different ones, until there are too many to be categories."""

    name: str
    texts: set[str] = field(default_factory=set)
    many: bool = False
    numbers: int = 0
    missing: int = 0
    others: int = 0
    other: str = ""
    typed: Kind | None = None

    def add(self, values: pa.Array, place: Place) -> None:
        """Look at a block of a column."""
        if pa.types.is_floating(values.type):
            self.typed = "number"
            self.missing += int(pc.sum(pc.or_kleene(pc.is_null(values), pc.is_nan(values))).as_py() or 0)
            self.numbers += len(values)
            return
        gone = pc.is_in(values, value_set=MISSING)
        self.missing += int(pc.sum(gone).as_py() or 0)
        there = pc.filter(values, pc.invert(gone))
        if not self.many:
            unique = pc.unique(there)
            self.texts.update(unique.to_pylist()[: MOST_CATEGORIES + 2])
            self.many = len(self.texts) > MOST_CATEGORIES
        try:
            pc.cast(there, pa.float64())
            self.numbers += len(there)
        except pa.ArrowInvalid:
            self._count(values, there, place)

    def _count(self, values: pa.Array, there: pa.Array, place: Place) -> None:
        counted = pc.value_counts(there)
        for entry in counted:
            text, count = entry["values"].as_py(), entry["counts"].as_py()
            if is_number(text):
                self.numbers += count
                continue
            self.others += count
            if not self.other:
                at = pc.index(values, value=pa.scalar(text)).as_py()
                self.other = f"{text[:40]!r} at {place(at)}"

    def kind(self, given: Mapping[str, Kind]) -> Kind:
        """Decide what the column is; raises DataError for what is neither."""
        if self.name in given:
            if given[self.name] == "category" and self.many:
                raise DataError(self._too_many())
            return given[self.name]
        if self.typed:
            return self.typed
        if not self.others:
            return "number"
        if self.many and self.numbers >= 9 * self.others:
            return "number"  # a few values that are no numbers: unreadable, or a marker of their own
        if self.many:
            raise DataError(self._too_many())
        return "category"

    def _too_many(self) -> str:
        return (
            f"column {self.name!r} has more than {MOST_CATEGORIES} different values such as "
            f"{', '.join(repr(text[:40]) for text in sorted(self.texts)[:3])}: an identifier, a date or free text teaches "
            "nothing; leave it out by listing the others in data.features"
        )


def is_number(text: str) -> bool:
    """Say whether a text is a number as CSV files write them."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def text_of(values: pa.Array) -> pa.Array:
    """Return a column as text, trimmed; missing as ""; whole numbers without a point. Numbers stay float64."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return text_of(values.dictionary_decode())
    if pa.types.is_boolean(kind):
        return pc.fill_null(pc.if_else(values, "true", "false"), "")
    if pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pc.cast(values, pa.float64(), safe=False)
    if pa.types.is_large_string(kind) or pa.types.is_string(kind):
        return pc.fill_null(pc.utf8_trim_whitespace(values.cast(pa.string())), "")
    if pa.types.is_null(kind):
        return pa.array([""] * len(values), pa.string())
    if pa.types.is_temporal(kind):
        return pc.fill_null(pc.cast(values, pa.string()), "")
    raise DataError(f"a column of type {kind} is neither a number nor a category; leave it out by data.features")


def numbers_of(values: pa.Array) -> tuple[Array, Array]:
    """Return a column as float64 [N], missing as NaN, and which values are there but no numbers, bool [N]."""
    if pa.types.is_floating(values.type):
        return values.to_numpy(zero_copy_only=False), np.zeros(len(values), bool)
    gone = pc.is_in(values, value_set=MISSING)
    cleaned = pc.if_else(gone, pa.scalar(None, pa.string()), values)
    try:
        return pc.cast(cleaned, pa.float64()).to_numpy(zero_copy_only=False), np.zeros(len(values), bool)
    except pa.ArrowInvalid:
        texts = cleaned.to_pylist()
        odd = np.array([text is not None and not is_number(text) for text in texts])
        found = [float(t) if t is not None and not o else np.nan for t, o in zip(texts, odd, strict=True)]
        return np.array(found), odd


def categories_of(values: pa.Array) -> pa.Array:
    """Return a column as text, missing as ""; whole numbers without a point."""
    if pa.types.is_floating(values.type):
        return pa.array([whole(value) for value in values.to_pylist()], pa.string())
    return pc.if_else(pc.is_in(values, value_set=MISSING), "", values)


def whole(value: float | None) -> str:
    """Return a number as text, 3.0 as 3, missing as ""."""
    if value is None or value != value:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(value)


def _paths(path: Path, source: str) -> tuple[Path, ...]:
    endings = (".parquet", ".pq") if source == "parquet" else (".csv", ".csv.gz", ".tsv", ".txt")
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise DataError(f"no file or folder at {path}; wanted {source}")
    found = tuple(p for p in sorted(path.iterdir()) if p.name.endswith(endings) and not p.name.startswith((".", "_")))
    if not found:
        raise DataError(f"no {source} files in {path}; wanted names that end in {' or '.join(endings)}")
    return found


def _parquet_names(path: Path) -> tuple[tuple[str, ...], str]:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {_reason(error)}") from error
    return tuple(schema.names), ","


def _header(path: Path) -> tuple[tuple[str, ...], str]:
    """Read a CSV file's column names and see what separates them."""
    try:
        with _text(path) as file:
            head = file.read(1 << 20)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not head.strip():
        raise DataError(f"{path} is empty; wanted a header line and rows")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
        raise DataError(f"{path} is not UTF-8 text; save it as UTF-8 CSV")
    try:
        text = head[: head.rfind(b"\n") + 1 or None].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV") from error
    first = text.splitlines()[0]
    counts = {delimiter: len(next(csv.reader([first], delimiter=delimiter))) for delimiter in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda d: counts[d])
    names = tuple(name.strip() for name in next(csv.reader(io.StringIO(text), delimiter=delimiter)))
    if len(names) < 2:
        raise DataError(f"{path}: one column, {names[0][:40]!r}; wanted columns separated by , ; tab or |")
    unnamed = [i + 1 for i, name in enumerate(names) if not name]
    if unnamed:
        raise DataError(f"{path}: column {unnamed[0]} has no name in the header; give it one")
    return names, delimiter


def _text(path: Path) -> io.BufferedReader:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"))
    return open(path, "rb")


def _lines(first: int, count: int, skipped: list[int]) -> Array:
    """Return the line of each row of a block, where some lines between them were left out."""
    lines = np.arange(first, first + count + len(skipped), dtype=np.int64)
    return lines[~np.isin(lines, skipped)][:count] if skipped else lines


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
