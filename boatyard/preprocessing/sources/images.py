"""A folder of images by class: CLASS/picture.png, or train/CLASS/… and test/CLASS/…."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import numpy as np

from boatyard.data.schema import Array
from boatyard.errors import DataError
from boatyard.preprocessing import block
from boatyard.preprocessing.block import Bad, Block, Place, arrow, ordered
from boatyard.preprocessing.sources.base import OpenSource, Source, share_of

if TYPE_CHECKING:
    from PIL import Image

    from boatyard.data.datasets import Split
    from boatyard.data.pictures import Color
    from boatyard.project import DataConfig, PreprocessConfig

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation",
}  # fmt: skip


class ImagesSource(Source):
    """A folder of pictures for each class, brought to one size and colour."""

    name = "images"
    files = "a folder with a folder for each class"
    endings = ENDINGS
    shareable = True
    pictures = True
    suggested = MappingProxyType({"image_size": [64, 64]})
    precedence = 50

    def open(self, path: Path, data: DataConfig, preprocess: PreprocessConfig, threads: int) -> Pictures:
        """List a folder's pictures by class; raises DataError."""
        return open_images(path, preprocess, threads)


@dataclass(frozen=True)
class Picture:
    """One file, its class and the split that its folder says, if it does."""

    path: Path
    label: str
    split: Split | None


@dataclass(frozen=True)
class Pictures(OpenSource):
    """Image files, decoded to one size [height, width] and colour; `only`: the blocks that are read, if not all."""

    root: Path
    pictures: tuple[Picture, ...]
    size: tuple[int, int]
    color: Color
    drop: bool
    resize: bool
    threads: int
    only: range | None = None

    @property
    def given(self) -> frozenset[Split]:
        """The splits that the source brings itself."""
        return frozenset(picture.split for picture in self.pictures if picture.split)

    def files(self) -> tuple[Path, ...]:
        """Return the files that it reads."""
        if self.only is None:
            return tuple(picture.path for picture in self.pictures)
        return tuple(self.pictures[i].path for part in self._shared() for i in part)

    def blocks(self) -> Iterator[Block]:
        """Decode the pictures, several at a time, in the order of their paths."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about what it repairs by itself
            yield from ordered(self._block, self._shared(), self.threads)

    def share(self, part: int, of: int, first: int = 0) -> Pictures:
        """Return neighbouring blocks of about as many pictures; a picture's number is its place in the folder."""
        return replace(self, only=share_of([len(pictures) for pictures in self.cut()], part, of))

    def cut(self) -> list[list[int]]:
        """Return which pictures make up each block."""
        channels = 1 if self.color == "grey" else 3
        count = max(min(block.BLOCK_BYTES // (self.size[0] * self.size[1] * channels), 1024), 1)
        parts = []
        for split in cast("tuple[Split | None, ...]", (None, "validation", "test")):
            some = [i for i, picture in enumerate(self.pictures) if picture.split == split]
            parts += [some[start : start + count] for start in range(0, len(some), count)]
        return parts

    def _shared(self) -> list[list[int]]:
        parts = self.cut()
        return parts if self.only is None else parts[self.only.start : self.only.stop]

    def _block(self, part: list[int]) -> Block:
        decoded = [(i, self._decoded(self.pictures[i])) for i in part]
        good = [(i, image) for i, image in decoded if not isinstance(image, str)]
        bad = tuple(Bad(str(self.pictures[i].path), why) for i, why in decoded if isinstance(why, str))
        if bad and not self.drop:
            raise DataError(f"{bad[0].where} {bad[0].what}", fix="fix it, or say preprocess.unreadable: drop")
        shape = self.size if self.color == "grey" else (*self.size, 3)
        images = np.stack([image for _, image in good]) if good else np.zeros((0, *shape), np.uint8)
        lines = np.array([i for i, _ in good], np.int64)
        place = FilePlace(str(self.root), lines, paths=tuple(picture.path for picture in self.pictures))
        labels = arrow(np.array([self.pictures[i].label for i, _ in good], str))
        return Block(self.pictures[part[0]].split, lines, labels, place, images=images, bad=bad)

    def _decoded(self, picture: Picture) -> Array | str:
        """Decode one picture, or say why it cannot be; raises DataError when it is of another size than the first."""
        from PIL import Image

        from boatyard.data import pictures

        try:
            image = pictures.upright(pictures.opened(picture.path.read_bytes()), self.color)
        except pictures.BROKEN as error:
            return f"cannot be read as an image ({pictures.reason(error)})"
        if image.size != (self.size[1], self.size[0]):
            if not self.resize:
                raise DataError(
                    f"{picture.path} is {image.height}×{image.width} pixels (height×width), the first "
                    f"image was {self.size[0]}×{self.size[1]}",
                    fix="give preprocess.image_size: [height, width] to bring all to one size",
                )
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8)


@dataclass(frozen=True)
class FilePlace(Place):
    """Where rows are that have a file each."""

    paths: tuple[Path, ...] = field(kw_only=True)

    def __call__(self, index: int) -> str:
        return str(self.paths[int(self.numbers[index])])


def open_images(path: Path, preprocess: PreprocessConfig, threads: int) -> Pictures:
    """List a folder's pictures by class; the first that can be read says size and colour. Raises DataError."""
    if not path.is_dir():
        raise DataError(f"no folder at {path}", fix="expected one with a folder of images for each class")
    pictures = tuple(_listed(path))
    if not pictures:
        raise DataError(f"no images in {path}", expected="CLASS/picture.png", found=f"{_found(path)}")
    size, color = preprocess.image_size, preprocess.color
    if size is None or color is None:
        first = _first(pictures, preprocess.unreadable == "drop")
        size = size or (first.height, first.width)
        color = color or ("grey" if first.mode == "L" else "rgb")
    return Pictures(
        path, pictures, size, color, preprocess.unreadable == "drop", preprocess.image_size is not None, threads
    )


def _first(found: tuple[Picture, ...], drop: bool) -> Image.Image:
    """Decode the first picture that can be; raises DataError at the first that cannot, unless those are dropped."""
    from boatyard.data import pictures

    for picture in found:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return pictures.upright(pictures.opened(picture.path.read_bytes()), None)
        except pictures.BROKEN as error:
            if not drop:
                raise DataError(
                    f"{picture.path} cannot be read as an image ({pictures.reason(error)})",
                    fix="fix it, or say preprocess.unreadable: drop",
                ) from error
    raise DataError(f"none of {len(found)} images can be read, {found[0].path} the first")


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


SOURCE = ImagesSource()
