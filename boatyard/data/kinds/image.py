"""An image: uint8 or float32, [H, W] grey or [H, W, C] colour; a row is one image and nothing else.

In JSON it is nested lists of its pixels, or {"b64": …} with a PNG, a JPEG or the raw bytes.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from boatyard.data.kinds.base import ColumnCleaner, Kind, Limits, SliceColumn, Where
from boatyard.data.kinds.number import check_numbers
from boatyard.data.schema import Array, Field, Tensor
from boatyard.data.values import nested, show, wrong

if TYPE_CHECKING:
    from torch import nn

    from boatyard.data.pictures import Color
    from boatyard.data.statistics import Statistic
    from boatyard.project import PreprocessConfig

MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
COLORS: dict[int, Color] = {1: "grey", 3: "rgb", 4: "rgba"}  # by channels


class ImageKind(Kind):
    """Pixels of one size and colour."""

    name = "image"
    tabular, alone, pictured, augmented = False, True, True, True
    media_types = ("image/png", "image/jpeg")

    def draft(self, name: str, shape: tuple[int, ...], dtype: str) -> Field:
        return Field(name, self.name, "uint8" if dtype == "uint8" else "float32", shape)

    def pin(
        self,
        draft: Field,
        nullable: bool,
        bounds: tuple[float | None, float | None],
        statistics: Mapping[str, Any],
    ) -> Field:
        return draft

    def problem(self, field: Field) -> str:
        sides = len(field.shape) in (2, 3) and all(0 < side <= 1 << 16 for side in field.shape)
        good = sides and math.prod(field.shape) <= 1 << 28 and field.dtype in ("uint8", "float32")
        return "" if good else "an image that is not [H, W] or [H, W, C]"

    def read(self, field: Field, value: Any, at: str) -> Array:
        if isinstance(value, dict) and set(value) == {"b64"}:
            return self._read_base64(field, value["b64"], f"{at}.b64")
        if not isinstance(value, list):
            shape = list(field.shape)
            raise wrong(f"an image, nested lists {shape}, or {{{field.name!r}: {{'b64': …}}}}", show(value), at)
        return nested(value, field.shape, field.dtype, at)

    def read_body(self, field: Field, data: bytes, at: str) -> Array:
        """Decode a PNG or JPEG whose size in pixels is the schema's; no pixel is decoded of one of another size."""
        from boatyard.data import pictures

        height, width = field.shape[:2]
        color = COLORS.get(field.shape[2] if len(field.shape) > 2 else 1)
        if color is None or field.dtype != "uint8":
            raise wrong(f"raw {field.dtype} bytes {list(field.shape)}", "a PNG or JPEG", at)
        size = f"an image {height} high and {width} wide"
        try:
            with pictures.opened(data, ("PNG", "JPEG")) as image:
                if image.size not in ((width, height), (height, width)):  # EXIF may say that it lies on its side
                    raise wrong(size, f"{image.height} by {image.width}", at)
                if image.mode.startswith(("I", "F")):
                    raise wrong("8 bits a pixel", f"mode {image.mode}", at)
                decoded = pictures.upright(image, color)
        except pictures.BROKEN as error:
            raise wrong("a PNG or JPEG", "one that cannot be decoded", at) from error
        if decoded.size != (width, height):
            raise wrong(size, f"{decoded.height} by {decoded.width}", at)
        return np.asarray(decoded, np.uint8).reshape(field.shape)

    def write(self, field: Field, values: Array) -> list[Any]:
        return [{"b64": base64.b64encode(_raw(image)).decode()} for image in values]

    def is_missing(self, values: Array) -> Array:
        return np.zeros(len(values), bool)

    def limits(self, field: Field) -> Limits:
        return Limits(field.minimum, field.maximum, nullable=False)

    def check(self, field: Field, values: Array, where: Where) -> None:
        check_numbers(field, values, where, nullable=False)

    def clean(self, field: Field, column: Any, cleaner: ColumnCleaner) -> Array:
        """Check images; a float image with a missing or infinite pixel cannot be repaired, it is dropped or refused."""
        images: Array = column.reshape(len(column), *field.shape)
        if field.dtype == "uint8":
            return images
        images = images.astype(np.float32)
        flat = images.reshape(len(images), -1)
        missing, far = (_dropped_or_refused(policy) for policy in _policies(cleaner.preprocess))
        cleaner.apply("missing", missing, field.name, np.asarray(np.isnan(flat).any(1)), None)
        cleaner.apply("out of range", far, field.name, np.asarray(np.isinf(flat).any(1)), None)
        return images

    def hashes(self, values: Array) -> Array:
        from boatyard.data import row_hashes

        return row_hashes.array_hashes(values)

    def statistic(self) -> type[Statistic]:
        from boatyard.data.statistics import Pixels

        return Pixels

    def fit(self, values: Array, index: Array, sampled: Array) -> Statistic:
        from boatyard.data.statistics import Pixels

        return Pixels.of(values[index])

    def features(
        self, tensor: Tensor, fields: Sequence[Field], statistics: Mapping[str, Any], preprocess: PreprocessConfig
    ) -> nn.Module:
        from boatyard.data.features import ImageFeatures

        (field,) = fields
        return ImageFeatures(field, statistics[field.name], preprocess)

    def slices(self, field: Field) -> tuple[SliceColumn, ...]:
        return SliceColumn("brightness", True, _brightness), SliceColumn("contrast", True, _contrast)

    def show(self, field: Field, value: Any) -> str:
        return " × ".join(map(str, field.shape))

    def _read_base64(self, field: Field, text: Any, at: str) -> Array:
        if not isinstance(text, str):
            raise wrong("base64 text", show(text), at)
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise wrong("base64 text", f"{show(text)} ({error})", at) from error
        if data.startswith(MAGIC):
            return self.read_body(field, data, at)
        size = self.row_bytes(field)
        if len(data) != size:
            raise wrong(f"a PNG, a JPEG or {size} raw bytes", f"{len(data)} bytes of something else", at)
        return np.frombuffer(data, np.dtype(field.dtype).newbyteorder("<")).reshape(field.shape)


def _raw(image: Array) -> bytes:
    return np.ascontiguousarray(image, image.dtype.newbyteorder("<")).tobytes()


def _policies(preprocess: PreprocessConfig) -> tuple[str, str]:
    return preprocess.missing, preprocess.out_of_range


def _dropped_or_refused(policy: str) -> Literal["drop", "refuse"]:
    return "refuse" if policy == "refuse" else "drop"


def _brightness(images: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows counts as missing
        return np.asarray(images.reshape(len(images), -1).astype(np.float32).mean(axis=1))


def _contrast(images: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(images.reshape(len(images), -1).astype(np.float32).std(axis=1))


KIND = ImageKind()
