"""Arrays in files, read a block at a time: what IDX, .npy and .npz have in common."""

from __future__ import annotations

import gzip
import itertools
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from boatyard.data.datasets import Split
from boatyard.data.schema import Array
from boatyard.errors import DataError
from boatyard.preprocessing import block
from boatyard.preprocessing.block import Block, Place, arrow, known, numbered
from boatyard.preprocessing.sources.base import OpenSource
from boatyard.project import DataConfig

CUT = (EOFError, OSError, zlib.error, zipfile.BadZipFile, struct.error)
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Stored:
    """An array in a file: type and shape are known, the values are still on disk; `columns`: in Fortran order."""

    path: Path
    member: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    columns: bool = False

    @property
    def name(self) -> str:
        """How the array is called in messages."""
        return f"{self.path}[{self.member}]" if self.member else str(self.path)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; at least 1."""
        return max(self.dtype.itemsize * math.prod(self.shape[1:]), 1)

    def blocks(self, rows: int) -> Iterator[Array]:
        """Read `rows` rows at a time; raises DataError when the file ends early or goes on."""
        done = 0
        with opened(self.path, self.member) as file:
            try:
                for part in self._by_column(file, rows) if self.columns else self._by_row(file, rows):
                    yield part
                    done += len(part)
            except CUT as error:
                raise DataError(
                    f"{self.name} cannot be read after row {done}: {reason(error)}",
                    fix=f"expected {self.shape[0]} whole rows",
                ) from error

    def _by_row(self, file: IO[bytes], rows: int) -> Iterator[Array]:
        _skip(file, self.offset)
        for done in range(0, self.shape[0], rows):
            count = min(rows, self.shape[0] - done)
            data = _exactly(file, count * self.row_bytes)
            if len(data) < count * self.row_bytes:
                got = done + len(data) // self.row_bytes
                raise DataError(
                    f"{self.name} is cut short", expected=f"{self.shape[0]} rows", found=f"{got} whole ones"
                )
            yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])
        if extra := file.read(1 << 16):
            raise DataError(
                f"{self.name} goes on after its {self.shape[0]} rows, with {len(extra)} bytes or more",
                fix="expected the end of the file: its header is wrong, or something was appended",
            )

    def _by_column(self, file: IO[bytes], rows: int) -> Iterator[Array]:
        """Read rows of an array in Fortran order: a piece of each column in turn."""
        total, width, size = self.shape[0], math.prod(self.shape[1:]), self.dtype.itemsize
        found = file.seek(0, 2) - self.offset
        if found != total * width * size:
            what = "is cut short" if found < total * width * size else "goes on after its rows"
            raise DataError(f"{self.name} {what}", expected=f"{total * width * size} bytes of values", found=f"{found}")
        for done in range(0, total, rows):
            count = min(rows, total - done)
            part = np.empty((count, width), self.dtype)
            for column in range(width):
                file.seek(self.offset + (column * total + done) * size)
                part[:, column] = np.frombuffer(_exactly(file, count * size), self.dtype)
            yield part.reshape(count, *self.shape[:0:-1]).transpose(0, *range(len(self.shape) - 1, 0, -1))


def npy(path: Path, member: str = "") -> Stored:
    """Open a .npy file, or a member of a .npz; raises DataError. Objects are refused: they are pickles."""
    name = f"{path}[{member}]" if member else str(path)
    with opened(path, member) as file:
        try:
            version = np.lib.format.read_magic(file)
            if version not in HEADERS:
                raise ValueError(f"format {version[0]}.{version[1]} is for structured arrays")
            shape, fortran, dtype = HEADERS[version](file)
            offset = file.tell()
        except (*CUT, ValueError, SyntaxError) as error:
            raise DataError(f"{name} is not an array file as numpy.save writes it: {reason(error)}") from error
    if dtype.hasobject or dtype.names or dtype.kind not in "biufUSM":
        raise DataError(f"{name} holds {dtype}", fix="expected numbers or text (objects are pickles, which run code)")
    if not shape:
        raise DataError(f"{name} is a single value", fix="expected one row for each example")
    columns = bool(fortran) and len(shape) > 1
    if columns and member:
        raise DataError(
            f"{name} is in Fortran order inside an archive", fix="save it with numpy.ascontiguousarray, or as .npy"
        )
    return Stored(path, member, dtype, shape, offset, columns)


@dataclass(frozen=True)
class Pair:
    """Rows and their targets, of one split or of all."""

    split: Split | None
    rows: Stored
    target: Stored
    group: Stored | None = None

    def blocks(self) -> Iterator[Block]:
        """Read both side by side."""
        width = math.prod(self.rows.shape[1:]) * 8 if len(self.rows.shape) == 2 else self.rows.row_bytes
        count = max(block.BLOCK_BYTES // max(width, 1), 1)
        groups = self.group.blocks(count) if self.group else itertools.repeat(None)
        start = 0
        for values, target, group in zip(self.rows.blocks(count), self.target.blocks(count), groups, strict=False):
            number = numbered(start, len(values))
            place = Place(self.rows.name, number)
            table = pa.table({"group": pa.array(_flat(group).astype(str))}) if group is not None else None
            yield Block(self.split, number, arrow(_flat(target)), place, images=_native(values), table=table)
            start += len(values)

    def check(self) -> Pair:
        """Raise DataError unless rows and targets fit; return the pair."""
        rows, target = self.rows, self.target
        if rows.shape[0] != target.shape[0]:
            raise DataError(
                f"{rows.name} has {rows.shape[0]} rows and {target.name} {target.shape[0]}",
                fix="expected as many targets as rows",
            )
        if rows.shape[0] == 0:
            raise DataError(f"{rows.name} has no rows")
        if math.prod(target.shape[1:]) != 1:
            raise DataError(
                f"{target.name} has shape {list(target.shape)}",
                fix="expected one target a row, [N]: of one-hot rows take the argmax",
            )
        if rows.dtype.kind not in "uifb" or len(rows.shape) not in (2, 3, 4) or 0 in rows.shape:
            raise DataError(
                f"{rows.name} is {rows.dtype} {list(rows.shape)}",
                fix="expected numbers: images [N, H, W] or [N, H, W, C], or a table [N, F]",
            )
        if len(rows.shape) == 4 and rows.shape[3] not in (1, 3, 4):
            first = rows.shape[1] in (1, 3, 4)
            cure = "; channels seem to come first: save array.transpose(0, 2, 3, 1)" if first else ""
            raise DataError(
                f"{rows.name} has shape {list(rows.shape)}",
                fix=f"expected [N, H, W, C] with 1, 3 or 4 channels last{cure}",
            )
        if self.group and (self.group.shape[0] != rows.shape[0] or math.prod(self.group.shape[1:]) != 1):
            raise DataError(f"{self.group.name} has shape {list(self.group.shape)}", fix="expected one group a row")
        return self


@dataclass(frozen=True)
class Arrays(OpenSource):
    """A source of arrays: one pair for all rows, or one for training and one for the test set that comes along."""

    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        shapes = {(pair.rows.shape[1:], pair.rows.dtype.kind) for pair in self.pairs}
        if len(shapes) > 1:
            said = " and ".join(f"{p.rows.name} {p.rows.dtype} {list(p.rows.shape)}" for p in self.pairs)
            raise DataError(f"training and test rows differ: {said}", fix="expected rows of one shape and type")

    @property
    def given(self) -> frozenset[Split]:
        """The splits that the source brings itself."""
        return frozenset(pair.split for pair in self.pairs if pair.split)

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""
        stored = [one for pair in self.pairs for one in (pair.rows, pair.target, pair.group) if one]
        return tuple(dict.fromkeys(one.path for one in stored))

    def blocks(self) -> Iterator[Block]:
        """Read the rows, the test set last."""
        for pair in self.pairs:
            yield from pair.blocks()


def rows_array(data: DataConfig, there: list[str], where: object) -> str:
    """Return the name of the array of rows among those there; raises DataError."""
    known("data.target", data.target, there, where)
    if data.group:
        known("data.group", data.group, there, where)
    others = [name for name in there if name not in (data.target, data.group)]
    if data.features:
        if len(data.features) != 1:
            raise DataError("data.features", expected="the one array of rows", found=f"{list(data.features)}")
        known("data.features", data.features[0], there, where)
        return data.features[0]
    if not others:
        raise DataError(f"{where} holds {data.target} alone", fix="expected an array of rows as well")
    if len(others) > 1:
        raise DataError(
            f"{where}: which array holds the rows? name it in data.features", fix=f"there are {', '.join(others)}"
        )
    return others[0]


@contextmanager
def opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    """Open a file, unpacked; a member of a .npz by its name. Raises DataError."""
    try:
        if member:
            with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as inner:
                yield inner
        elif path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                yield cast(IO[bytes], packed)
        else:
            with open(path, "rb") as plain:
                yield plain
    except FileNotFoundError as error:
        raise DataError(f"no file at {path}") from error
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path} cannot be unpacked: {reason(error)}") from error


def _skip(file: IO[bytes], count: int) -> None:
    while count > 0 and (data := file.read(min(count, 1 << 16))):
        count -= len(data)


def _exactly(file: IO[bytes], count: int) -> bytes:
    parts = []
    while count > 0 and (data := file.read(count)):
        parts.append(data)
        count -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _flat(target: Array) -> Array:
    flat = target.reshape(len(target))
    return np.char.decode(flat, "utf-8") if flat.dtype.kind == "S" else _native(flat)


def _native(values: Array) -> Array:
    """Return values in the machine's byte order."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def reason(error: BaseException) -> str:
    """Return an error in words, on one line."""
    return " ".join(str(error).split())[:200] or "it ends too early"
