"""JSON lines: an object a line, gzipped or not; every object has the same keys, which are the columns.

Values are read as CSV has them, number for number as they are written: nothing is rounded on the way to a category, and
text that is a number counts as one. Null is a missing value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boatyard.errors import DataError
from boatyard.preprocessing import block
from boatyard.preprocessing.block import Bad, Place, TableBlock
from boatyard.preprocessing.sources.base import TableSource
from boatyard.preprocessing.sources.csv import BROKEN, unpacked
from boatyard.spelling import shorten

if TYPE_CHECKING:
    from boatyard.preprocessing.tables import Header, Table


class UnreadableLine(ValueError):
    """A line that is no row, in words that follow its place."""


class JsonlSource(TableSource):
    """Files of JSON lines."""

    name = "jsonl"
    files = "a file of JSON objects, one a line, or a folder of parts with the same keys"
    endings = (".jsonl", ".ndjson")
    packed = True
    precedence = 15

    def header(self, path: Path) -> Header:
        """Read the keys of the first line that is an object."""
        from boatyard.preprocessing.tables import Header

        first: Exception | None = None
        for number, line in _lines(path):
            try:
                return Header(tuple(_object(line)))
            except UnreadableLine as error:
                first = first or DataError(f"{path}, line {number} {error}")
        raise first or DataError(f"{path} is empty", fix="expected a JSON object on each line")

    def read(self, path: Path, table: Table) -> Iterator[TableBlock]:
        """Read rows; a line that is none is left out and told of, or refused."""
        rows, bad, numbers, size = list[list[str]](), list[Bad](), list[int](), 0
        for number, line in _lines(path):
            try:
                rows.append(_row(line, table.header.names, table.needed))
                numbers.append(number)
            except UnreadableLine as error:
                if not table.drop:
                    message = f"{path}, line {number} {error}; fix it, or say preprocess.unreadable: drop"
                    raise DataError(message) from error
                bad.append(Bad(f"{path}, line {number}", str(error)))
            size += len(line)
            if size >= block.BLOCK_BYTES:
                yield _block(path, table.needed, rows, numbers, bad)
                rows, bad, numbers, size = [], [], [], 0
        if rows or bad:
            yield _block(path, table.needed, rows, numbers, bad)


@dataclass(frozen=True)
class JsonLinePlace(Place):
    """Where rows of JSON lines are: `rows.jsonl, line 17`; `numbers` are those of lines, from 1."""

    def __call__(self, index: int) -> str:
        return f"{self.file}, line {int(self.numbers[index])}"


def _block(path: Path, needed: Sequence[str], rows: list[list[str]], numbers: list[int], bad: list[Bad]) -> TableBlock:
    import pyarrow as pa

    columns = zip(*rows, strict=True) if rows else ((),) * len(needed)
    table = pa.table({name: pa.array(column, pa.string()) for name, column in zip(needed, columns, strict=True)})
    return TableBlock(table, JsonLinePlace(str(path), np.array(numbers, np.int64)), tuple(bad))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Give the lines that are not empty, with their numbers; raises DataError for what is no UTF-8 or is cut."""
    from boatyard.preprocessing.tables import reason

    number = 0
    try:
        with unpacked(path) as file:
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, text
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number} is not UTF-8 text", fix="save the file as UTF-8") from error
    except BROKEN as error:
        raise DataError(f"{path} cannot be read after line {number}: {reason(error)}") from error


def _object(line: str) -> dict[str, Any]:
    """Read one line; numbers stay as they are written, so that none is rounded."""
    try:
        value = json.loads(
            line, parse_int=_Number, parse_float=_Number, parse_constant=_constant, object_pairs_hook=_once
        )
    except json.JSONDecodeError as error:
        raise UnreadableLine(f"is not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise UnreadableLine("is not JSON that can be read: it is nested too deep") from error
    if not isinstance(value, dict):
        raise UnreadableLine(f"is {_shown(value)}; expected an object of columns")
    return value


def _row(line: str, names: Sequence[str], needed: Sequence[str]) -> list[str]:
    value = _object(line)
    for name in names:
        if name not in value:
            raise UnreadableLine(f"has no key {shorten(name)!r}, which the first object has; null is a missing value")
    if len(value) > len(names):
        surplus = next(name for name in value if name not in names)
        raise UnreadableLine(f"has the key {shorten(surplus)!r}, which the first object has not")
    return [_text(name, value[name]) for name in needed]


def _text(name: str, value: Any) -> str:
    """Return a value as CSV has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise UnreadableLine(f"has {_shown(value)} as {shorten(name)!r}; expected a number, text, true, false or null")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UnreadableLine(f"has half a character (a lone surrogate) in {shorten(name)!r}") from error
    return value


class _Number(str):
    """A number as the file writes it."""


def _constant(text: str) -> Any:
    raise UnreadableLine(f"has {text}, which is not JSON; write null")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnreadableLine(f"has the key {shorten(twice)!r} twice")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return shorten(repr(str(value)))


SOURCE = JsonlSource()
