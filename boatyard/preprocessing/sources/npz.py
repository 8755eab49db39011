"""One .npz archive: an array of rows, the array of targets, and one of groups."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from boatyard.errors import DataError
from boatyard.preprocessing.sources.base import Source

if TYPE_CHECKING:
    from boatyard.preprocessing.arrays import Arrays
    from boatyard.project import DataConfig, PreprocessConfig


class NpzSource(Source):
    """An archive of arrays, as numpy.savez writes it."""

    name = "npz"
    files = "one .npz"
    endings = (".npz",)
    grouped = True
    precedence = 30

    def open(self, path: Path, data: DataConfig, preprocess: PreprocessConfig, threads: int) -> Arrays:
        """Open one .npz: the array of rows, the array `data.target`, and `data.group`; raises DataError."""
        from boatyard.preprocessing.arrays import CUT, Arrays, Pair, npy, reason, rows_array

        if not path.is_file():
            raise DataError(f"no file at {path}", fix="expected a .npz")
        try:
            with zipfile.ZipFile(path) as archive:
                there = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        except CUT as error:
            raise DataError(f"{path} is not a .npz archive: {reason(error)}") from error
        rows = rows_array(data, there, path)
        group = npy(path, data.group) if data.group else None
        return Arrays((Pair(None, npy(path, rows), npy(path, data.target), group).check(),))


SOURCE = NpzSource()
