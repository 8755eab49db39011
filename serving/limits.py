"""What a server takes on, and how it is set up; apart from the rest, so that a command line can name the defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

SMALL = 64 << 10  # bytes of a body that is taken whoever else sends what
BODIES = 16  # of the largest size that may be on the way
BODY_LIMIT = 64 << 20  # bytes of a request's body; a batch of 80 000 small images


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


@dataclass
class Room:
    """Bytes that bodies may take while they come, of all connections together: nobody's queue bounds those yet."""

    most: int
    held: int = 0

    def refuses(self, size: int) -> bool:
        """Say whether a body that has grown so large is to be refused; a small one never is."""
        return size > SMALL and self.held > self.most


class Held:
    """What one request holds of the room: given back at the end of a `with`."""

    def __init__(self, room: Room) -> None:
        self._room, self._size = room, 0

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.hold(0)

    def hold(self, size: int) -> None:
        """Hold so many bytes from now on."""
        self._room.held += size - self._size
        self._size = size


@dataclass(frozen=True)
class Plan:
    """How a model is run: threads of one inference, rows of a batch, batches at once where it is worth it; by what."""

    threads: int
    batch: int
    at_once: int = 1
    engine: str = "onnxruntime"


@dataclass(frozen=True)
class Options:
    """Where a server listens, and what its doors let in. `serving.serve` says what each of them is."""

    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int | None = 8081
    workers: int | None = None
    body_limit: int = BODY_LIMIT
    drain: float = 0
    access_log: float = 0.01
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return them as `from_json` reads them."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Options:
        """Read them."""
        files = {key: Path(value[key]) if value[key] else None for key in ("certificate", "key")}
        return cls(**{**value, **files})
