"""The access log: one JSON object a line, of a share of the requests and of every failure of the server."""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Iterable

logger = logging.getLogger("boatyard.access")
# W3C Trace Context, level 1: version, trace id, parent id, flags
TRACE = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
LONGEST = 200  # characters of what a client sent


class AccessLog:
    """Logs `share` of the requests, 0 to 1, and all that ended with a status of 500 or more."""

    def __init__(self, share: float) -> None:
        self.share = share

    def wants(self, status: int) -> bool:
        """Draw whether a request is to be written."""
        return status >= 500 or (self.share > 0 and random.random() < self.share)

    def write(
        self, method: str, path: str, status: int, seconds: float, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Write a line; `headers` may carry a trace and a request id, which go into it."""
        given = dict(headers)
        line = {
            "time": round(time.time(), 3),
            "method": method[:LONGEST],
            "path": path[:LONGEST],
            "status": status,
            "milliseconds": round(seconds * 1000, 3),
        }
        if trace := TRACE.fullmatch(given.get(b"traceparent", b"")):
            line |= {"trace_id": trace[1].decode(), "parent_id": trace[2].decode()}
        if name := given.get(b"x-request-id"):
            line["request_id"] = name.decode("latin-1")[:LONGEST]
        logger.info(json.dumps(line))
