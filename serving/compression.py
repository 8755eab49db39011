"""Compressed bodies: gzip and zstd, never more than a body may have."""

from __future__ import annotations

import zlib

import zstandard

from boatyard.prediction.decoding import wrong

from .errors import HttpError

CODINGS = ("identity", "gzip", "zstd")
WINDOW = 8 << 20  # bytes that a zstd frame may make us keep (RFC 8878 asks decoders for 8 MiB)
PIECE = 256  # bytes fed to zstd at once
GZIP = 31  # zlib: a gzip header, the largest window


def decompress(coding: str, body: bytes | memoryview, limit: int) -> bytes:
    """Return a body of at most `limit` bytes; raises RequestError when it is cut or is something else, HttpError."""
    try:
        found, whole = (_gzip if coding == "gzip" else _zstd)(body, limit + 1)
    except (zlib.error, zstandard.ZstdError) as error:
        raise wrong(f"a body in {coding}", "bytes that are not", "the body") from error
    if len(found) > limit:
        raise HttpError(413, f"expected a body of at most {limit} bytes, found more after decompression")
    if not whole:
        raise wrong(f"a whole body in {coding}", "one that is cut or has more after it", "the body")
    return found


def _gzip(body: bytes | memoryview, most: int) -> tuple[bytes, bool]:
    decoder = zlib.decompressobj(GZIP)
    found = decoder.decompress(body, most)
    return found, decoder.eof and not decoder.unused_data


def _zstd(body: bytes | memoryview, most: int) -> tuple[bytes, bool]:
    """Feed a little at a time: a block of 4 bytes may stand for 128 KiB."""
    decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
    found, view, at = bytearray(), memoryview(body), 0
    while at < len(view) and not decoder.eof and len(found) < most:
        found += decoder.decompress(view[at : at + PIECE])
        at += PIECE
    return bytes(found), decoder.eof and not decoder.unused_data and at >= len(view)
