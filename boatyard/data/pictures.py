"""Bytes of a picture to pixels: the one function that preprocess and the server read pictures by.

EXIF orientation is applied, alpha is composited on white, 16 bits become 8: what was learnt from is what is answered.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Color = Literal["grey", "rgb", "rgba"]
MODES: dict[Color, str] = {"grey": "L", "rgb": "RGB", "rgba": "RGBA"}
MAX_PIXELS = 64 << 20  # of a picture: more is a mistake or an attack
BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError, KeyError,
    UnidentifiedImageError, Image.DecompressionBombError,
)  # fmt: skip


def opened(data: bytes, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Open an image without decoding a pixel; raises one of BROKEN."""
    return Image.open(io.BytesIO(data), formats=formats)


def upright(image: Image.Image, color: Color | None) -> Image.Image:
    """Decode an opened image, as grey, RGB or RGBA (by default as it is); raises one of BROKEN."""
    if image.width * image.height > MAX_PIXELS:
        raise OSError(f"{image.height}×{image.width} pixels; at most {MAX_PIXELS} in all are read")
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16 bits and more
        values = np.asarray(image, np.float64)
        scale = max(float(values.max()), 1e-9) if image.mode == "F" else 65535.0
        image = Image.fromarray((values.clip(0) / scale * 255).clip(0, 255).astype(np.uint8))
    see_through = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    if see_through and color != "rgba":
        grey = image.mode in ("LA", "La", "L")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if grey else "RGB")
    return image.convert(MODES[color] if color else "L" if image.mode in ("1", "L") else "RGB")


def reason(error: BaseException) -> str:
    """Return an error in words; a manifest holds some, and equal data make equal ones: no address is left in."""
    text = re.sub(r"<_io\.BytesIO object at 0x[0-9a-f]+>", "its bytes", str(error))
    return " ".join(text.split())[:120] or type(error).__name__
