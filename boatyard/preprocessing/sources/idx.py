"""IDX files (Y. LeCun's format of MNIST), gzipped or not: images and labels, and a test set of their own."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from boatyard.errors import DataError
from boatyard.preprocessing.sources.base import Source

if TYPE_CHECKING:
    from boatyard.data.datasets import Split
    from boatyard.preprocessing.arrays import Arrays, Stored
    from boatyard.project import DataConfig, PreprocessConfig

IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


class IdxSource(Source):
    """A folder of images and labels for training, and where there is one for the test set (t10k or test)."""

    name = "idx"
    files = "a folder of IDX files, packed or not"
    endings = (".idx", ".idx1", ".idx3")
    pictures = True
    precedence = 0

    def recognises(self, names: Sequence[str]) -> bool:
        """MNIST's own names have no ending."""
        return super().recognises(names) or any("-ubyte" in name for name in names)

    def open(self, path: Path, data: DataConfig, preprocess: PreprocessConfig, threads: int) -> Arrays:
        """Open a folder of IDX files; raises DataError."""
        from boatyard.preprocessing.arrays import Arrays, Pair

        if not path.is_dir():
            raise DataError(
                f"no folder at {path}", fix="expected one with IDX files such as train-images-idx3-ubyte.gz"
            )
        files = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")]
        named = [p for p in files if "ubyte" in p.name or ".idx" in p.name]
        pairs = []
        for split in cast("tuple[Split | None, ...]", (None, "test")):
            some, others = (_of_kind(named, word, split == "test") for word in ("image", "label"))
            if split is None or some or others:
                rows, labels = _one(some, "images", path, files), _one(others, "labels", path, files)
                pairs.append(Pair(split, read_idx(rows), read_idx(labels)))
        return Arrays(tuple(pair.check() for pair in pairs))


def _of_kind(files: list[Path], word: str, test: bool) -> list[Path]:
    """Return the files of images or labels, of the training or the test set; unpacked before packed."""
    found = [p for p in files if word in p.name.lower() and p.name.lower().startswith(("t10k", "test")) == test]
    return list({p.name.removesuffix(".gz"): p for p in reversed(found)}.values())


def _one(found: list[Path], what: str, folder: Path, files: list[Path]) -> Path:
    if len(found) == 1:
        return found[0]
    listed = ", ".join(p.name for p in files[:8]) or "nothing"
    raise DataError(
        f"{folder}",
        expected=f"one file of {what} for each of training and test, such as train-{what}-idx*-ubyte.gz",
        found=f"{len(found)} among {listed}",
    )


def read_idx(path: Path) -> Stored:
    """Open an IDX file (Y. LeCun's format of MNIST), gzipped or not; raises DataError."""
    from boatyard.preprocessing.arrays import CUT, Stored, opened, reason

    with opened(path, "") as file:
        try:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 5:
                found = head.hex() or "an empty file"
                raise DataError(
                    f"{path}: wrong magic number {found}",
                    fix=(
                        "an IDX file begins with 0000, a type (08 for bytes) and its number of dimensions "
                        "(03 for images, 01 for labels)"
                    ),
                )
            sizes = file.read(4 * head[3])
            shape = struct.unpack(f">{head[3]}I", sizes)
        except CUT as error:
            raise DataError(f"{path} cannot be read: {reason(error)}") from error
    return Stored(path, "", np.dtype(IDX_TYPES[head[2]]), shape, 4 + len(sizes))


SOURCE = IdxSource()
