"""What a client gets when it is refused: a status and one JSON shape, {"error": "wanted …, found …, at …"}."""

from __future__ import annotations

import json

LONGEST = 2000  # characters of a message; what a client sent may be quoted in it


class HttpError(Exception):
    """A refusal with its HTTP status; `allow` names the methods that a 405 offers."""

    def __init__(self, status: int, message: str, allow: str | None = None) -> None:
        super().__init__(message)
        self.status, self.allow = status, allow


def body(message: str) -> bytes:
    """Return the one shape of every error."""
    return json.dumps({"error": message[:LONGEST]}).encode()
