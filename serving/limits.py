"""What a server takes on; apart from the rest, so that a command line can name the defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Rows of a batch; rows and bytes of all requests that wait; seconds a request may take unless it says fewer."""

    batch: int = 64
    rows: int = 100_000
    bytes: int = 256 << 20
    seconds: float = 60.0
