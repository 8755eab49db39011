"""What the parts of an HTTP/2 server have in common (RFC 9113): frames, error codes, a request with its answer."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Protocol

from .headers import Block
from .limits import Room

if TYPE_CHECKING:
    from .batching import Waiting
    from .http2 import Connection

HEAD = Struct(">HBBBI")  # a frame's: length (two parts), kind, flags, stream
FRAME = Struct(">xHBBI")  # the same of ours, which are never long
LARGEST = 16384  # bytes of a frame, both ways
MOST = (1 << 31) - 1  # of a window, by the RFC
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS, PADDED, PRIORITIZED = 4, 8, 32
TABLE_SIZE, PUSH, MAX_STREAMS, INITIAL_WINDOW, FRAME_SIZE, LIST_SIZE = range(1, 7)


class Code(IntEnum):
    """The RFC's error codes, those that are said here."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Violation(Exception):
    """What ends a connection: the code of its GOAWAY and the words with it."""

    def __init__(self, code: Code, words: str) -> None:
        super().__init__(words)
        self.code = code


class Target(Protocol):
    """What answers the requests of a path."""

    streaming: bool  # the body is taken as it comes

    def begin(self, stream: Stream) -> None:
        """Take note of a streaming request's headers."""

    def feed(self, stream: Stream) -> None:
        """Take note of more of a streaming request's body, or its end."""

    def whole(self, stream: Stream) -> None:
        """Answer a request that is not streaming."""

    def large(self, stream: Stream) -> None:
        """Refuse a body that is more than may wait."""

    def late(self, stream: Stream, slow: bool) -> None:
        """Refuse a request whose deadline passed, or whose client is too slow in sending it."""

    def leave(self, stream: Stream) -> None:
        """End what may go on for ever: the server stops."""


class Service(Protocol):
    """What all connections share."""

    body_limit: int
    room: Room
    connections: set[Connection]

    def target(self, block: Block) -> Target:
        """Return what answers a request."""

    def deadline(self, block: Block, now: float) -> float | None:
        """Return until when (time.monotonic) a client waits."""


class Stream:
    """A request and its answer. `gone`: nobody waits for it any more; `kept`: its answer is being made elsewhere.

    `waiting` is what of it is in a model's queue.
    """

    come: asyncio.Event  # of a streaming request: there is more of its body, or its end

    __slots__ = (
        "begun",
        "block",
        "body",
        "come",
        "connection",
        "drained",
        "gone",
        "kept",
        "left",
        "number",
        "room",
        "size",
        "tail",
        "target",
        "task",
        "touched",
        "until",
        "waiting",
        "whole",
        "window",
    )

    def __init__(self, connection: Connection, number: int, block: Block, window: int, room: int) -> None:
        self.connection, self.number, self.block = connection, number, block
        self.target = connection.service.target(block)
        self.window, self.room, self.size = window, room, 0  # what we and they may send, and what they did
        self.body: bytes | bytearray = b""
        self.left: deque[memoryview] = deque()
        self.tail = b""
        self.whole = self.gone = self.kept = self.begun = False
        self.touched = connection.touched
        self.until = connection.service.deadline(block, self.touched)
        self.task: asyncio.Task[None] | None = None
        self.drained: asyncio.Future[None] | None = None
        self.waiting: Waiting | None = None

    def take(self, size: int) -> bytes:
        """Return so many first bytes of what has come of the body; the peer may send as many again."""
        if not isinstance(self.body, bytearray):
            self.body = bytearray(self.body)
        found = bytes(self.body[:size])
        del self.body[:size]
        self.connection.taken(self, len(found))
        return found

    def claim(self) -> bytes | bytearray:
        """Return all of the body of a whole request."""
        found, self.body = self.body, b""
        self.connection.taken(self, len(found))
        return found

    def finished(self) -> None:
        """Note that an answer which was made elsewhere is there, wanted or not."""
        self.kept = False
        if self.gone:
            self.connection.ghosts -= 1


def unpadded(payload: bytes) -> bytes:
    """Return what a padded frame carries."""
    if not payload or payload[0] >= len(payload):
        raise Violation(Code.PROTOCOL_ERROR, "expected padding within its frame, found more")
    return payload[1 : len(payload) - payload[0]]
