"""Small source files of every kind, and a short way to preprocess them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

from boatyard import preprocessing
from boatyard.data.datasets import Dataset
from boatyard.data.schema import Array, Task
from boatyard.project import DataConfig, PreprocessConfig, section

IDX = {np.dtype("u1"): 8, np.dtype(">i4"): 12, np.dtype(">f4"): 13}


def made(folder: Path, how: dict[str, Any] | None = None, *, task: Task = "classification", **data: Any) -> Dataset:
    """Preprocess what lies in a folder; `data.path` is the folder's file or folder named, the dataset is beside it."""
    config = section(DataConfig, {"path": ".", **data})
    return preprocessing.preprocess(
        config, section(PreprocessConfig, how or {}), folder / "out", root=folder, task=task
    )


def csv(folder: Path, text: str | bytes, how: dict[str, Any] | None = None, **data: Any) -> Dataset:
    """Write a CSV file and preprocess it."""
    write_csv(folder, text)
    task: Task = data.pop("task", "classification")
    return made(folder, how, task=task, source="csv", **{"path": "rows.csv", **data})


def write_csv(folder: Path, text: str | bytes, name: str = "rows.csv") -> Path:
    """Write a file as it is given."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def lines(count: int, classes: int = 2) -> list[str]:
    """Rows of a number, a category and a label, all different."""
    return [f"{i / 7:.6f},{'ab'[i % 2]},c{i % classes}" for i in range(count)]


def table(count: int = 60, classes: int = 2) -> str:
    """Return a CSV text of good rows: the columns size, kind, label."""
    return "\n".join(["size,kind,label", *lines(count, classes)]) + "\n"


def idx_bytes(array: Array) -> bytes:
    """Return an array as an IDX file holds it."""
    return (
        struct.pack(">BBBB", 0, 0, IDX[array.dtype], array.ndim)
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def images(count: int, side: int = 6, seed: int = 0) -> tuple[Array, Array]:
    """Return random images uint8 [N, side, side] and labels uint8 [N] of three classes."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, side, side), np.uint8), (np.arange(count) % 3).astype(np.uint8)


def idx_folder(folder: Path, train: int = 90, test: int = 30, *, packed: bool = False) -> tuple[Array, Array]:
    """Write training and test images; return the test set's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", train, 0), ("t10k", test, 1)):
        found = images(count, seed=seed)
        for kind, array in zip(("images-idx3", "labels-idx1"), found, strict=True):
            data = idx_bytes(array)
            path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    return images(test, seed=1)


def hashes(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
