"""Hashes of values, 64 bits each: equal values have equal ones, whatever file or thread they come from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from boatyard.data.schema import Array

if TYPE_CHECKING:
    import pyarrow as pa


def mix(values: Array) -> Array:
    """Scatter uint64 [N] evenly (the finaliser of SplitMix64: Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Array = z ^ (z >> np.uint64(31))
        return mixed


def text_hashes(values: pa.Array) -> Array:
    """Return a hash of each text, uint64 [N]; each different text is hashed once."""
    import pyarrow.compute as pc

    coded = pc.dictionary_encode(values)
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in coded.dictionary.to_pylist()]
    if not digests:
        return np.zeros(0, np.uint64)
    hashes: Array = np.frombuffer(b"".join(digests), "<u8")[coded.indices.to_numpy()]
    return hashes


def array_hashes(values: Array) -> Array:
    """Return a hash of the bytes of each value of several elements, uint64 [N]."""
    data, width = values.tobytes(), values[0].nbytes
    view = memoryview(data)
    digests = (
        hashlib.blake2b(view[start : start + width], digest_size=8).digest() for start in range(0, len(data), width)
    )
    return np.frombuffer(b"".join(digests), "<u8")


def number_bits(values: Array) -> Array:
    """Return the bits of numbers as the model sees them, float32; both zeros and all NaNs are one."""
    with np.errstate(over="ignore"):  # what is out of range is dropped
        seen = values.astype(np.float32) + np.float32(0)
    seen[np.isnan(seen)] = np.nan
    return np.asarray(seen.view(np.uint32).astype(np.uint64))
