"""A folder of images by class: CLASS/picture.png, or train/CLASS/… and test/CLASS/…."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from boatyard.data.datasets import Split
from boatyard.data.schema import Array
from boatyard.errors import DataError
from boatyard.preprocessing.block import BLOCK_BYTES, Bad, Block, Place, arrow, ordered
from boatyard.project import PreprocessConfig

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
LARGEST = 64 << 20  # pixels of a picture: more is a mistake or an attack
BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError, KeyError,
    UnidentifiedImageError, Image.DecompressionBombError,
)  # fmt: skip
FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation",
}  # fmt: skip
Color = Literal["grey", "rgb"]


@dataclass(frozen=True)
class Picture:
    """One file, its class and the split that its folder says, if it does."""

    path: Path
    label: str
    split: Split | None


@dataclass(frozen=True)
class Pictures:
    """A source of image files, decoded to one size [height, width] and colour; `share`: the blocks read, if not all."""

    root: Path
    pictures: tuple[Picture, ...]
    size: tuple[int, int]
    color: Color
    drop: bool
    resize: bool
    threads: int
    share: range | None = None

    @property
    def given(self) -> frozenset[Split]:
        """The splits that the source brings itself."""
        return frozenset(picture.split for picture in self.pictures if picture.split)

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""
        if self.share is None:
            return tuple(picture.path for picture in self.pictures)
        return tuple(self.pictures[i].path for part in self._shared() for i in part)

    def blocks(self) -> Iterator[Block]:
        """Decode the pictures, several at a time, in the order of their paths."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about what it mends by itself
            yield from ordered(self._block, self._shared(), self.threads)

    def cut(self) -> list[list[int]]:
        """Return which pictures make up each block."""
        channels = 1 if self.color == "grey" else 3
        count = max(min(BLOCK_BYTES // (self.size[0] * self.size[1] * channels), 1024), 1)
        parts = []
        for split in cast(tuple[Split | None, ...], (None, "validation", "test")):
            some = [i for i, picture in enumerate(self.pictures) if picture.split == split]
            parts += [some[start : start + count] for start in range(0, len(some), count)]
        return parts

    def _shared(self) -> list[list[int]]:
        parts = self.cut()
        return parts if self.share is None else parts[self.share.start : self.share.stop]

    def _block(self, part: list[int]) -> Block:
        decoded = [(i, self._decoded(self.pictures[i])) for i in part]
        good = [(i, image) for i, image in decoded if not isinstance(image, str)]
        bad = tuple(Bad(str(self.pictures[i].path), why) for i, why in decoded if isinstance(why, str))
        if bad and not self.drop:
            raise DataError(f"{bad[0].where} {bad[0].what}; mend it, or say preprocess.unreadable: drop")
        shape = self.size if self.color == "grey" else (*self.size, 3)
        images = np.stack([image for _, image in good]) if good else np.zeros((0, *shape), np.uint8)
        lines = np.array([i for i, _ in good], np.int64)
        place = FilePlace(str(self.root), lines, paths=tuple(picture.path for picture in self.pictures))
        labels = arrow(np.array([self.pictures[i].label for i, _ in good], str))
        return Block(self.pictures[part[0]].split, lines, labels, place, images=images, bad=bad)

    def _decoded(self, picture: Picture) -> Array | str:
        """Decode one picture, or say why it cannot be; raises DataError when it is of another size than the first."""
        try:
            image = decode(picture.path.read_bytes(), self.color)
        except BROKEN as error:
            return f"cannot be read as an image ({_short(error)})"
        if image.size != (self.size[1], self.size[0]):
            if not self.resize:
                raise DataError(
                    f"{picture.path} is {image.height}×{image.width} pixels (height×width), "
                    f"the first image was {self.size[0]}×{self.size[1]}; "
                    "give preprocess.image_size: [height, width] to bring all to one size"
                )
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8)


@dataclass(frozen=True)
class FilePlace(Place):
    """Where rows are that have a file each."""

    paths: tuple[Path, ...] = field(kw_only=True)

    def __call__(self, index: int) -> str:
        return str(self.paths[int(self.numbers[index])])


def decode(data: bytes, color: Color | None) -> Image.Image:
    """Decode an image upright, as grey or RGB (by default as it is), transparency on white. Raises one of BROKEN."""
    image: Image.Image = Image.open(io.BytesIO(data))
    if image.width * image.height > LARGEST:
        raise OSError(f"{image.height}×{image.width} pixels; at most {LARGEST} in all are read")
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16 bits and more
        values = np.asarray(image, np.float64)
        scale = max(float(values.max()), 1e-9) if image.mode == "F" else 65535.0
        image = Image.fromarray((values.clip(0) / scale * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        grey = image.mode in ("LA", "La", "L")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if grey else "RGB")
    wanted = {"grey": "L", "rgb": "RGB", None: "L" if image.mode in ("1", "L") else "RGB"}[color]
    return image.convert(wanted)


def open_images(path: Path, how: PreprocessConfig, threads: int) -> Pictures:
    """List a folder's pictures by class; the first that can be read says size and colour. Raises DataError."""
    if not path.is_dir():
        raise DataError(f"no folder at {path}; expected one with a folder of images for each class")
    pictures = tuple(_listed(path))
    if not pictures:
        raise DataError(f"no images in {path}: expected CLASS/picture.png, found {_found(path)}")
    size, color = how.image_size, how.color
    if size is None or color is None:
        first = _first(pictures, how.unreadable == "drop")
        size = size or (first.height, first.width)
        color = color or ("grey" if first.mode == "L" else "rgb")
    return Pictures(path, pictures, size, color, how.unreadable == "drop", how.image_size is not None, threads)


def _first(pictures: tuple[Picture, ...], drop: bool) -> Image.Image:
    """Decode the first picture that can be; raises DataError at the first that cannot, unless those are dropped."""
    for picture in pictures:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return decode(picture.path.read_bytes(), None)
        except BROKEN as error:
            if not drop:
                raise DataError(
                    f"{picture.path} cannot be read as an image ({_short(error)}); "
                    "mend it, or say preprocess.unreadable: drop"
                ) from error
    raise DataError(f"none of {len(pictures)} images can be read, {pictures[0].path} the first")


def _listed(path: Path) -> Iterator[Picture]:
    """List the pictures in the order of their paths; train/, validation/ and test/ above the classes are the splits."""
    below = [p for p in sorted(path.iterdir()) if p.is_dir() and not _is_hidden(p.name)]
    splits = [FOLDERS.get(p.name.lower()) for p in below]
    nested = "train" in splits and None not in splits and len(splits) > 1
    for folder, said in zip(below, splits, strict=True):
        split = said if nested and said != "train" else None
        for one in sorted(p for p in folder.iterdir() if p.is_dir() and not _is_hidden(p.name)) if nested else [folder]:
            for file in sorted(one.rglob("*")):
                inner = file.relative_to(one).parts
                if file.suffix.lower() in ENDINGS and not any(map(_is_hidden, inner)) and file.is_file():
                    yield Picture(file, one.name, split)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _found(path: Path) -> str:
    return ", ".join([p.name for p in sorted(path.iterdir())][:5]) or "an empty folder"


def _short(error: BaseException) -> str:
    """Return an error in words; the manifest holds some, and equal data make equal ones: no address is left in."""
    said = re.sub(r"<_io\.BytesIO object at 0x[0-9a-f]+>", "its bytes", str(error))
    return " ".join(said.split())[:120] or type(error).__name__
