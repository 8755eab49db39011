"""What a client gets when it is refused: a status and one JSON shape, {"error": "expected …, found …, at …"}."""

from __future__ import annotations

import json
from functools import lru_cache

LONGEST = 2000  # characters of a message; what a client sent may be quoted in it


class HttpError(Exception):
    """A refusal with its HTTP status; `headers` go with it, such as the methods that a 405 offers."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


@lru_cache(64)  # a full server says the same to many
def body(message: str) -> bytes:
    """Return the one shape of every error."""
    return json.dumps({"error": message[:LONGEST]}).encode()
