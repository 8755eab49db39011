"""What a server takes on; apart from the rest, so that a command line can name the defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    """Rows of a batch; rows and bytes of all requests that wait; seconds a request may take unless it says fewer."""

    batch: int = 64
    rows: int = 100_000
    bytes: int = 256 << 20
    seconds: float = 60.0

    def of_batch(self, batch: int) -> Limits:
        """Return the same limits with another batch."""
        return replace(self, batch=batch)
