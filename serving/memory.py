"""Memory of packages that come and go: else a server grows with each, by what refers to itself and by freed pieces."""

from __future__ import annotations

import ctypes
import gc


def settle() -> None:
    """Say that what is there stays, which is what was imported: so that `tidy` looks at packages alone, in 2 ms."""
    gc.freeze()


def tidy() -> None:
    """Free what was left of packages that are gone, and give it back to the system.

    Source: malloc_trim(3), of glibc; other C libraries are left as they are.
    """
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or no such thing at all
        return
    trim(0)
