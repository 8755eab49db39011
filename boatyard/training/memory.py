"""The C library's allocator, told what a training step needs: the same large blocks, again and again."""

from __future__ import annotations

import ctypes

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # malloc.h
KEPT = 1 << 30  # bytes
LARGEST = 1 << 25  # bytes: older versions refuse a larger threshold


def keep_freed_blocks() -> bool:
    """Let this process keep freed memory of up to 1 GiB for its next allocation; return whether the library listens.

    glibc asks the system for each block over 128 KiB to 32 MiB anew and gives it back when it is freed, so that every
    step pays for the same pages again: a tenth to a fifth of a small model's step on a CPU.
    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return bool((mallopt(MMAP_THRESHOLD, KEPT) or mallopt(MMAP_THRESHOLD, LARGEST)) and mallopt(TRIM_THRESHOLD, KEPT))
