"""IDX, .npy and .npz: arrays in files, read a block at a time."""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from boatyard.datasets import Split
from boatyard.errors import DataError
from boatyard.preprocessing.block import BLOCK_BYTES, Block, Place, arrow, known, numbered
from boatyard.project import DataConfig
from boatyard.schema import Array

IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
CUT = (EOFError, OSError, zlib.error, zipfile.BadZipFile, struct.error)


@dataclass(frozen=True)
class Stored:
    """An array in a file: its type and shape are known, its values are still on disk, in C order."""

    path: Path
    member: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def name(self) -> str:
        """How the array is called in messages."""
        return f"{self.path.name}[{self.member}]" if self.member else self.path.name

    def blocks(self, rows: int) -> Iterator[Array]:
        """Read `rows` rows at a time; raises DataError when the file ends early or goes on."""
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        done = 0
        with _opened(self.path, self.member) as file:
            try:
                _skip(file, self.offset)
                while done < self.shape[0]:
                    count = min(rows, self.shape[0] - done)
                    data = _exactly(file, count * size)
                    if len(data) < count * size:
                        got = done + len(data) // max(size, 1)
                        raise DataError(
                            f"{self.name} is cut short: wanted {self.shape[0]} rows, found {got} whole ones"
                        )
                    yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])
                    done += count
                if file.read(1):
                    raise DataError(f"{self.name} goes on after its {self.shape[0]} rows; wanted the end of the file")
            except CUT as error:
                raise DataError(
                    f"{self.name} cannot be read after row {done}: {error or 'it ends too early'}"
                ) from error


def idx(path: Path) -> Stored:
    """Open an IDX file (Y. LeCun's format of MNIST), gzipped or not; raises DataError."""
    with _opened(path, "") as file:
        try:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 5:
                raise DataError(
                    f"{path}: wrong magic number {head.hex() or 'nothing'}; an IDX file begins with 0000, a type and a rank"
                )
            sizes = file.read(4 * head[3])
            shape = struct.unpack(f">{head[3]}I", sizes)
        except CUT as error:
            raise DataError(f"{path} cannot be read: {error or 'it ends in its header'}") from error
    return Stored(path, "", np.dtype(IDX_TYPES[head[2]]), shape, 4 + len(sizes))


def npy(path: Path, member: str = "") -> Stored:
    """Open a .npy file, or a member of a .npz; raises DataError. Objects are refused: they are pickles."""
    with _opened(path, member) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            offset = file.tell()
        except (*CUT, ValueError) as error:
            raise DataError(f"{path}{f'[{member}]' if member else ''} is not an array file: {error}") from error
    stored = Stored(path, member, dtype, shape, offset)
    if dtype.hasobject or dtype.names:
        raise DataError(f"{stored.name} holds {dtype}; wanted numbers or text (objects are pickles, which run code)")
    if fortran and len(shape) > 1:
        raise DataError(f"{stored.name} is in Fortran order; save it with numpy.ascontiguousarray")
    if not shape:
        raise DataError(f"{stored.name} is a single value; wanted one row for each example")
    return stored


@dataclass(frozen=True)
class Pair:
    """Rows and their targets, of one split or of all."""

    split: Split | None
    rows: Stored
    target: Stored
    group: Stored | None = None

    def blocks(self) -> Iterator[Block]:
        """Read both side by side."""
        size = max(self.rows.dtype.itemsize * math.prod(self.rows.shape[1:]), 1)
        count = max(BLOCK_BYTES // size, 1)
        groups = self.group.blocks(count) if self.group else None
        start = 0
        for values, target in zip(self.rows.blocks(count), self.target.blocks(count), strict=True):
            number = numbered(start, len(values))
            table = pa.table({"group": arrow(next(groups).astype(str))}) if groups else None
            yield Block(
                self.split,
                number,
                arrow(_flat(target)),
                Place(self.rows.name, "row", number),
                images=_native(values),
                table=table,
            )
            start += len(values)

    def check(self) -> Pair:
        """Raise DataError unless rows and targets fit; return the pair."""
        if self.rows.shape[0] != self.target.shape[0]:
            raise DataError(
                f"{self.rows.name} has {self.rows.shape[0]} rows and {self.target.name} {self.target.shape[0]}; "
                "wanted as many targets as rows"
            )
        if self.rows.shape[0] == 0:
            raise DataError(f"{self.rows.name} has no rows")
        if math.prod(self.target.shape[1:]) != 1:
            raise DataError(
                f"{self.target.name} has shape {list(self.target.shape)}; wanted one target a row, [N] "
                "(of one-hot rows take the argmax)"
            )
        if self.rows.dtype.kind not in "uifb" or len(self.rows.shape) not in (2, 3, 4):
            raise DataError(
                f"{self.rows.name} is {self.rows.dtype} {list(self.rows.shape)}; wanted numbers: images [N, H, W] or "
                "[N, H, W, C], or a table [N, F]"
            )
        if len(self.rows.shape) == 4 and self.rows.shape[3] not in (1, 3, 4):
            raise DataError(
                f"{self.rows.name} has shape {list(self.rows.shape)}; wanted [N, H, W, C] with 1, 3 or 4 channels last"
            )
        if self.group and self.group.shape != (self.rows.shape[0],):
            raise DataError(f"{self.group.name} has shape {list(self.group.shape)}; wanted one group a row")
        return self


@dataclass(frozen=True)
class Arrays:
    """A source of arrays: one pair for all rows, or one for training and one for the test set that comes along."""

    pairs: tuple[Pair, ...]

    @property
    def has_test(self) -> bool:
        """Whether the source has a test set of its own."""
        return any(pair.split == "test" for pair in self.pairs)

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""
        stored = [one for pair in self.pairs for one in (pair.rows, pair.target, pair.group) if one]
        return tuple(dict.fromkeys(one.path for one in stored))

    def blocks(self) -> Iterator[Block]:
        """Read the rows, the test set last."""
        for pair in self.pairs:
            yield from pair.blocks()

    def total(self) -> int:
        """Return how many rows there are."""
        return sum(pair.rows.shape[0] for pair in self.pairs)


def open_idx(path: Path) -> Arrays:
    """Open a folder of IDX files: images and labels, and where there is one the test set (t10k or test)."""
    if not path.is_dir():
        raise DataError(f"no folder at {path}; wanted one with IDX files such as train-images-idx3-ubyte")
    files = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")]
    names = [p for p in files if p.name.removesuffix(".gz").endswith(("-ubyte", ".idx")) or ".idx" in p.name]
    images = [p for p in names if "image" in p.name.lower()]
    labels = [p for p in names if "label" in p.name.lower()]
    tests = ("t10k", "test", "val")
    parts: list[tuple[Split | None, list[Path], list[Path]]] = []
    for split in (None, "test"):
        chosen = [
            [p for p in kind if p.name.lower().startswith(tests) == (split == "test")] for kind in (images, labels)
        ]
        if any(chosen):
            parts.append((split, chosen[0], chosen[1]))  # type: ignore[arg-type]
    if not parts or not all(parts[0][1:]):
        found = ", ".join(p.name for p in files[:6]) or "nothing"
        raise DataError(f"no IDX files in {path}: wanted files with images and labels in their names, found {found}")
    for split, some, others in parts:
        if (
            len({p.name.removesuffix(".gz") for p in some}) != 1
            or len({p.name.removesuffix(".gz") for p in others}) != 1
        ):
            kind = split or "training"
            listed = ", ".join(p.name for p in (*some, *others)) or "none"
            raise DataError(f"{path}: wanted one images and one labels file for the {kind} rows, found {listed}")
    return Arrays(tuple(Pair(split, idx(some[0]), idx(others[0])).check() for split, some, others in parts))


def open_npz(path: Path, config: DataConfig) -> Arrays:
    """Open one .npz: the array of rows, the array `data.target`, and `data.group`."""
    if not path.is_file():
        raise DataError(f"no file at {path}; wanted a .npz")
    try:
        with zipfile.ZipFile(path) as archive:
            there = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except CUT as error:
        raise DataError(f"{path} is not a .npz archive: {error}") from error
    rows = _rows_array(config, there, path)
    group = npy(path, config.group) if config.group else None
    return Arrays((Pair(None, npy(path, rows), npy(path, config.target), group).check(),))


def open_npy(path: Path, config: DataConfig) -> Arrays:
    """Open a folder of .npy files: the rows, `data.target`.npy, and `data.group`.npy."""
    folder = path.parent if path.is_file() else path
    there = [p.stem for p in sorted(folder.glob("*.npy"))]
    if not there:
        raise DataError(f"no .npy files in {folder}; wanted the rows and {config.target}.npy")
    rows = path.stem if path.is_file() else _rows_array(config, there, folder)
    known("data.target", config.target, there, folder)
    group = npy(folder / f"{config.group}.npy") if config.group else None
    return Arrays((Pair(None, npy(folder / f"{rows}.npy"), npy(folder / f"{config.target}.npy"), group).check(),))


def _rows_array(config: DataConfig, there: list[str], where: object) -> str:
    known("data.target", config.target, there, where)
    if config.group:
        known("data.group", config.group, there, where)
    others = [name for name in there if name not in (config.target, config.group)]
    if config.features:
        if len(config.features) != 1:
            raise DataError(f"data.features wants the one array of rows, found {list(config.features)}")
        known("data.features", config.features[0], there, where)
        return config.features[0]
    if len(others) != 1:
        raise DataError(f"{where}: which array holds the rows? name it in data.features; there are {', '.join(others)}")
    return others[0]


@contextmanager
def _opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    """Open a file, unpacked; a member of a .npz by its name."""
    try:
        if member:
            with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as inner:
                yield inner
        elif path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                yield packed
        else:
            with open(path, "rb") as plain:
                yield plain
    except FileNotFoundError as error:
        raise DataError(f"no file at {path}") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is damaged: {error}") from error


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
    if flat.dtype.kind == "S":
        return np.char.decode(flat, "utf-8")
    return _native(flat)


def _native(values: Array) -> Array:
    """Return values in the machine's byte order."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
