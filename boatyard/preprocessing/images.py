"""A folder of images by class: CLASS/picture.png, or train/CLASS/… and test/CLASS/…."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from boatyard.datasets import Split
from boatyard.errors import DataError
from boatyard.preprocessing.block import BLOCK_BYTES, Bad, Block, Place, arrow
from boatyard.project import PreprocessConfig
from boatyard.schema import Array

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
LARGEST = 64 << 20  # pixels of a picture: more is a mistake or an attack
Color = Literal["grey", "rgb"]


@dataclass(frozen=True)
class Picture:
    """One file, its class and the split that its folder says."""

    path: Path
    label: str
    split: Split | None


@dataclass(frozen=True)
class Pictures:
    """A source of image files, decoded to one size and colour."""

    root: Path
    pictures: tuple[Picture, ...]
    size: tuple[int, int]
    color: Color
    drop: bool
    resize: bool
    threads: int

    @property
    def has_test(self) -> bool:
        """Whether the source has a test set of its own."""
        return any(picture.split == "test" for picture in self.pictures)

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""
        return tuple(picture.path for picture in self.pictures)

    def total(self) -> int:
        """Return how many rows there are."""
        return len(self.pictures)

    def blocks(self) -> Iterator[Block]:
        """Decode the pictures, several at a time, in the order of their paths."""
        channels = 1 if self.color == "grey" else 3
        count = max(min(BLOCK_BYTES // (self.size[0] * self.size[1] * channels), 1024), 1)
        with ThreadPoolExecutor(self.threads) as pool:
            for split in (None, "train", "validation", "test"):
                some = [(i, p) for i, p in enumerate(self.pictures) if p.split == split]
                for start in range(0, len(some), count):
                    part = some[start : start + count]
                    yield self._block(split, part, list(pool.map(self._decoded, [p for _, p in part])))  # type: ignore[arg-type]

    def _block(self, split: Split | None, part: list[tuple[int, Picture]], decoded: list[Array | str]) -> Block:
        good = [(i, p, image) for (i, p), image in zip(part, decoded, strict=True) if not isinstance(image, str)]
        bad = [Bad(self._name(p), what) for (_, p), what in zip(part, decoded, strict=True) if isinstance(what, str)]
        if bad and not self.drop:
            raise DataError(f"{self.root}: {bad[0].where} {bad[0].what}; mend it, or preprocess.unreadable: drop")
        shape = self.size if self.color == "grey" else (*self.size, 3)
        images = np.stack([image for _, _, image in good]) if good else np.zeros((0, *shape), np.uint8)
        lines = np.array([i for i, _, _ in good], np.int64)
        names = {i: self._name(p) for i, p, _ in good}
        place = Named(str(self.root), "file", lines, names)
        return Block(split, lines, arrow([p.label for _, p, _ in good]), place, images=images, bad=tuple(bad))

    def _name(self, picture: Picture) -> str:
        return picture.path.relative_to(self.root).as_posix()

    def _decoded(self, picture: Picture) -> Array | str:
        """Decode one picture, or say why it cannot be."""
        try:
            image = decode(picture.path.read_bytes(), self.color)
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            return f"cannot be read as an image ({str(error) or type(error).__name__})"
        if image.size != (self.size[1], self.size[0]):
            if not self.resize:
                height, width = image.size[1], image.size[0]
                return (
                    f"is {height}×{width} pixels, the first was {self.size[0]}×{self.size[1]}; "
                    "give preprocess.image_size: [height, width] to resize all"
                )
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8)


@dataclass(frozen=True)
class Named(Place):
    """Places that have names rather than numbers."""

    names: dict[int, str]

    def __call__(self, index: int) -> str:
        return f"{self.file}, {self.unit} {self.names[int(self.lines[index])]}"


def decode(data: bytes, color: Color | None) -> Image.Image:
    """Decode an image upright, as grey or RGB (as it is by default); transparency lies on white. Raises OSError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Image.Image = Image.open(io.BytesIO(data))
        if image.width * image.height > LARGEST:
            raise OSError(f"{image.width}×{image.height} pixels; the most is {LARGEST}")
        image.load()
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I", "F"):
        values = np.asarray(image, np.float64)
        image = Image.fromarray((values / max(65535.0 if image.mode != "F" else values.max(), 1e-9) * 255).astype("u1"))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    wanted = {"grey": "L", "rgb": "RGB", None: "L" if image.mode in ("1", "L") else "RGB"}[color]
    return image.convert(wanted)


def open_images(path: Path, how: PreprocessConfig, threads: int) -> Pictures:
    """List a folder's pictures by class and look at the first that can be read, for size and colour; raises DataError."""
    if not path.is_dir():
        raise DataError(f"no folder at {path}; wanted one with a folder of images for each class")
    pictures = tuple(_listed(path))
    if not pictures:
        raise DataError(f"no images in {path}: wanted CLASS/picture.png, found {_found(path)}")
    size, color = how.image_size, how.color
    for picture in pictures if size is None or color is None else ():
        try:
            first = decode(picture.path.read_bytes(), None)
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            if how.unreadable == "refuse":
                name = picture.path.relative_to(path).as_posix()
                raise DataError(
                    f"{path}: {name} cannot be read as an image ({error}); mend it, or preprocess.unreadable: drop"
                ) from error
            continue
        size = size or (first.height, first.width)
        color = color or ("grey" if first.mode == "L" else "rgb")
        break
    if size is None or color is None:
        raise DataError(f"{path}: none of its {len(pictures)} images can be read")
    return Pictures(path, pictures, size, color, how.unreadable == "drop", how.image_size is not None, threads)


def _listed(path: Path) -> Iterator[Picture]:
    folders = {
        "train": "train",
        "training": "train",
        "test": "test",
        "testing": "test",
        "val": "validation",
        "validation": "validation",
    }
    below = [p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    splits = {p: folders[p.name.lower()] for p in below if p.name.lower() in folders}
    nested = "test" in splits.values() and len(splits) == len(below)
    for folder in below:
        classes = sorted(p for p in folder.iterdir() if p.is_dir()) if nested else [folder]
        for one in classes:
            for file in sorted(one.rglob("*")):
                if file.is_file() and file.suffix.lower() in ENDINGS and not file.name.startswith("."):
                    split = splits.get(folder) if nested else None
                    yield Picture(file, one.name, split if split != "train" else None)  # type: ignore[arg-type]


def _found(path: Path) -> str:
    there = [p.name for p in sorted(path.iterdir())][:5]
    return ", ".join(there) or "an empty folder"
