"""A folder of .npy files: one holds the rows, one the targets, one the groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boatyard.errors import DataError
from boatyard.preprocessing.sources.base import Source

if TYPE_CHECKING:
    from boatyard.preprocessing.arrays import Arrays
    from boatyard.project import DataConfig, PreprocessConfig


class NpySource(Source):
    """Arrays as numpy.save writes them, a file each."""

    name = "npy"
    files = "a folder of .npy files"
    endings = (".npy",)
    grouped = True
    precedence = 40

    def open(self, path: Path, data: DataConfig, preprocess: PreprocessConfig, threads: int) -> Arrays:
        """Open a folder of .npy files, or one of them: rows, `data.target`.npy, `data.group`.npy; raises DataError."""
        from boatyard.preprocessing.arrays import Arrays, Pair, npy, rows_array
        from boatyard.preprocessing.block import known

        folder = path.parent if path.is_file() else path
        there = [p.stem for p in sorted(folder.glob("*.npy"))]
        if not there:
            raise DataError(f"no .npy files in {folder}", fix=f"expected the rows and {data.target}.npy")
        known("data.target", data.target, there, folder)
        rows = path.stem if path.is_file() and not data.features else rows_array(data, there, folder)
        group = npy(folder / f"{data.group}.npy") if data.group else None
        return Arrays((Pair(None, npy(folder / f"{rows}.npy"), npy(folder / f"{data.target}.npy"), group).check(),))


SOURCE = NpySource()
