"""One client's connection over HTTP/2 (RFC 9113), the server's side, as much of it as gRPC needs.

Frames come in, whole requests go to the `Target` of their path; answers of one look at the loop are one write. What a
peer can make the connection keep is bounded: streams, bytes that wait either way, headers, and frames that ask for
work without being of use.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from hpack import HPACKError

from . import headers
from .headers import Block
from .streams import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    FRAME_SIZE,
    GOAWAY,
    HEAD,
    HEADERS,
    INITIAL_WINDOW,
    LARGEST,
    LIST_SIZE,
    MAX_STREAMS,
    MOST,
    PADDED,
    PING,
    PRIORITIZED,
    PUSH,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Code,
    Service,
    Stream,
    Violation,
    unpadded,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAMS = 256  # calls of a connection at a time; a channel of gRPC lets others wait
ROOM = 16 << 20  # bytes that a peer may send ahead, over all streams
OUT = 64 << 10  # bytes handed to the transport at once
CONTINUATIONS = 16  # frames of one header block after its first
FREE, USEFUL, SAVED = 2000, 4, 20_000  # frames of no use a second, and for one that is; at most
RESET = 4  # such frames, which a request that is given up halfway counts for: it was work
PIECE = 1024  # bytes of an answer, which are worth a frame's work
IDLE, SLOW = 300.0, 30.0  # seconds without a frame, and for the rest of what has begun
LINGER = 5.0  # seconds that a peer has to close after we did


class Connection(asyncio.Protocol):
    """One client's connection to a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.streams: dict[int, Stream] = {}
        self.ghosts = 0  # streams that the peer gave up, and whose answers are still being made
        self.touched = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._reader = headers.Reader()
        self._rest = b""
        self._preface = self._settled = False  # seen
        self._last = 0  # stream of the peer
        self._block: bytearray | None = None  # a header block of several frames, and what came with its first
        self._opened, self._flags, self._parts, self._own = 0, 0, 0, False
        self._ended: deque[int] = deque(maxlen=4 * STREAMS)  # streams that we ended before the peer did
        self._window, self._initial = 65535, 65535  # what the peer lets us send
        self._room, self._most = ROOM, min(service.body_limit + (1 << 20), MOST)
        self._budget, self._held = 4 * service.body_limit, 0  # bytes that may wait, and that do
        self._allowance = SAVED
        self._out: list[bytes | memoryview] = []
        self._flushing = self._paused = self._leaving = self._closed = self._pinged = False
        self._stuck: dict[int, Stream] = {}  # streams with bytes left to send

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.service.connections.add(self)
        offer = {MAX_STREAMS: STREAMS, INITIAL_WINDOW: self._most, LIST_SIZE: headers.LONGEST}
        self._frame(SETTINGS, 0, 0, b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in offer.items()))
        self._frame(WINDOW_UPDATE, 0, 0, (ROOM - 65535).to_bytes(4))

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        self.service.connections.discard(self)
        for stream in list(self.streams.values()):
            self._drop(stream)

    def pause_writing(self) -> None:
        """Read no more either: a peer that does not take our answers gets no further ones to work for."""
        self._paused = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused, self.touched = False, time.monotonic()
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._pump()

    def data_received(self, data: bytes) -> None:
        self.touched, self._pinged = time.monotonic(), False
        if self._closed:
            return
        if self._rest:
            data = self._rest + data
        try:
            self._rest = data[self._frames(data) :]
        except Violation as violation:
            self._fail(violation.code, str(violation))

    def eof_received(self) -> bool:
        return False

    # What comes in

    def _frames(self, data: bytes) -> int:
        """Take note of whole frames; return where the first that is not begins."""
        at, size = 0, len(data)
        if not self._preface:
            if not PREFACE.startswith(data[:24]):
                raise Violation(Code.PROTOCOL_ERROR, "expected the preface of HTTP/2, found other bytes")
            if size < 24:
                return 0
            at, self._preface = 24, True
        while size - at >= 9:
            high, low, kind, flags, number = HEAD.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end - at > LARGEST + 9:
                raise Violation(Code.FRAME_SIZE_ERROR, f"expected a frame of at most {LARGEST} bytes, found more")
            if end > size:
                break
            if not self._settled and kind != SETTINGS:
                raise Violation(Code.PROTOCOL_ERROR, "expected SETTINGS first, found another frame")
            if self._block is not None and (kind != CONTINUATION or number & MOST != self._opened):
                raise Violation(Code.PROTOCOL_ERROR, "expected the rest of the headers, found another frame")
            payload = data[at + 9 : end]
            if kind <= CONTINUATION:
                KINDS[kind](self, number & MOST, flags, payload)
            else:
                self._spend(1)
            at = end
            if self._closed:
                return size
        return at

    def _on_data(self, number: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._room -= size
        if self._room < ROOM >> 1:
            if self._room < 0:
                raise Violation(Code.FLOW_CONTROL_ERROR, "expected no more than the window, found more")
            self._frame(WINDOW_UPDATE, 0, 0, (ROOM - self._room).to_bytes(4))
            self._room = ROOM
        stream = self.streams.get(number)
        if stream is None or stream.whole:
            return self._stray(number, flags)
        if flags & PADDED:
            payload = unpadded(payload)
        if not payload and not flags & END_STREAM:
            self._spend(1)
        stream.room -= size
        stream.size += len(payload)
        stream.touched = self.touched
        if stream.room < 0:
            return self._reset(number, Code.FLOW_CONTROL_ERROR)
        if stream.tail:  # refused, which waits to be sent
            stream.whole = bool(flags & END_STREAM)
            return
        if not stream.body:
            stream.body = payload
        elif isinstance(stream.body, bytearray):
            stream.body += payload
        else:
            stream.body = bytearray(stream.body) + payload
        self._hold(len(payload))
        large = len(stream.body) > self.service.body_limit + 5
        if large or self._held > self._budget or self.service.room.refuses(len(stream.body)):
            return stream.target.large(stream)
        if flags & END_STREAM:
            self._whole(stream)
        elif stream.target.streaming:
            self._widen(stream, size - len(payload))
            stream.target.feed(stream)

    def _on_headers(self, number: int, flags: int, payload: bytes) -> None:
        if not number & 1:
            raise Violation(Code.PROTOCOL_ERROR, "expected headers of an odd stream, found an even one")
        if flags & PADDED:
            payload = unpadded(payload)
        self._own = False
        if flags & PRIORITIZED:
            if len(payload) < 5:
                raise Violation(Code.FRAME_SIZE_ERROR, "expected headers with a priority, found fewer bytes")
            self._own = int.from_bytes(payload[:4]) & MOST == number
            payload = payload[5:]
        if flags & END_HEADERS:
            return self._headed(number, flags, payload)
        self._block, self._opened, self._flags, self._parts = bytearray(payload), number, flags, 0

    def _on_continuation(self, number: int, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise Violation(Code.PROTOCOL_ERROR, "expected headers before their continuation, found none")
        self._block += payload
        self._parts += 1
        if self._parts > CONTINUATIONS or len(self._block) > headers.LONGEST:
            raise Violation(Code.ENHANCE_YOUR_CALM, f"expected headers of at most {headers.LONGEST} bytes, found more")
        if flags & END_HEADERS:
            data, self._block = bytes(self._block), None
            self._headed(number, self._flags, data)

    def _headed(self, number: int, flags: int, data: bytes) -> None:
        """Begin a stream, or end its request by trailers."""
        try:
            block = self._reader.read(data)
        except HPACKError as error:
            raise Violation(
                Code.COMPRESSION_ERROR, "expected headers in HPACK, found other bytes or too many"
            ) from error
        if number <= self._last:
            return self._trailed(number, flags, block)
        self._last = number
        wrong = block.malformed or not block.method or self._own
        full = len(self.streams) + self.ghosts >= STREAMS or self._held > self._budget
        if wrong or full or self._leaving:
            return self._unwanted(number, flags, Code.PROTOCOL_ERROR if wrong else Code.REFUSED_STREAM)
        stream = self.streams[number] = Stream(self, number, block, self._initial, self._most)
        if stream.target.streaming:
            stream.target.begin(stream)
        if flags & END_STREAM:
            self._whole(stream)

    def _unwanted(self, number: int, flags: int, code: Code) -> None:
        if not flags & END_STREAM:
            self._ended.append(number)
        if self._leaving:  # the peer learns from GOAWAY that nobody looked at it
            return
        if code is Code.PROTOCOL_ERROR:
            self._spend(1)
        else:
            self._allowance += USEFUL  # for what comes of it until the peer knows
        self._frame(RST_STREAM, 0, number, code.to_bytes(4))

    def _trailed(self, number: int, flags: int, block: Block) -> None:
        stream = self.streams.get(number)
        if stream is None or stream.whole:
            return self._stray(number, flags)
        if block.malformed or block.method or not flags & END_STREAM:
            return self._reset(number, Code.PROTOCOL_ERROR)
        self._whole(stream)

    def _whole(self, stream: Stream) -> None:
        if stream.block.length is not None and stream.block.length != stream.size:
            return self._reset(stream.number, Code.PROTOCOL_ERROR)
        stream.whole = True
        if stream.tail:
            return
        if stream.target.streaming:
            stream.target.feed(stream)
        else:
            stream.target.whole(stream)

    def _stray(self, number: int, flags: int) -> None:
        """Answer what comes on a stream that is not open: what we ended, the peer may still have been sending."""
        if number == 0 or number > self._last or not number & 1:
            raise Violation(Code.PROTOCOL_ERROR, "expected a frame of an open stream, found one of none")
        self._spend(1)
        if number not in self._ended:
            if number not in self.streams and not self._leaving:
                raise Violation(Code.STREAM_CLOSED, "expected a frame of an open stream, found one of a closed stream")
            self._reset(number, Code.STREAM_CLOSED)
        elif flags & END_STREAM:
            self._ended.remove(number)

    def _on_priority(self, number: int, flags: int, payload: bytes) -> None:
        self._spend(1)
        if not number:
            raise Violation(Code.PROTOCOL_ERROR, "expected the priority of a stream, found none")
        if len(payload) != 5:
            raise Violation(Code.FRAME_SIZE_ERROR, "expected a priority of 5 bytes, found another size")
        if int.from_bytes(payload[:4]) & MOST == number:
            self._reset(number, Code.PROTOCOL_ERROR)

    def _on_reset(self, number: int, flags: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if stream is None or not stream.whole:  # a whole call costs what any does, and counts until its answer is made
            self._spend(RESET if stream else 1)
        if len(payload) != 4:
            raise Violation(Code.FRAME_SIZE_ERROR, "expected a reset of 4 bytes, found another size")
        if not number & 1 or number > self._last:
            raise Violation(Code.PROTOCOL_ERROR, "expected a reset of a stream that was opened, found another")
        if stream:
            self._drop(stream)
        elif number in self._ended:
            self._ended.remove(number)

    def _on_settings(self, number: int, flags: int, payload: bytes) -> None:
        self._spend(max(len(payload) // 6, 1))
        if number:
            raise Violation(Code.PROTOCOL_ERROR, "expected settings of the connection, found them of a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise Violation(Code.FRAME_SIZE_ERROR, "expected settings of 6 bytes each, found another size")
        if flags & ACK:
            return
        self._settled = True
        for at in range(0, len(payload), 6):
            self._set(int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6]))
        self._frame(SETTINGS, ACK, 0, b"")
        self._pump()

    def _set(self, name: int, value: int) -> None:
        if name == PUSH and value > 1:
            raise Violation(Code.PROTOCOL_ERROR, "expected push of 0 or 1, found more")
        if name == FRAME_SIZE and not LARGEST <= value < 1 << 24:
            raise Violation(Code.PROTOCOL_ERROR, "expected frames of 2^14 to 2^24 - 1 bytes, found another size")
        if name == INITIAL_WINDOW:
            if value > MOST:
                raise Violation(Code.FLOW_CONTROL_ERROR, "expected a window below 2^31, found more")
            change, self._initial = value - self._initial, value
            for stream in self.streams.values():
                stream.window += change
                if stream.window > MOST:
                    raise Violation(Code.FLOW_CONTROL_ERROR, "expected windows below 2^31, found more")

    def _on_push(self, number: int, flags: int, payload: bytes) -> None:
        raise Violation(Code.PROTOCOL_ERROR, "expected a client's frames, found a push")

    def _on_ping(self, number: int, flags: int, payload: bytes) -> None:
        self._spend(1)
        if number:
            raise Violation(Code.PROTOCOL_ERROR, "expected a ping of the connection, found one of a stream")
        if len(payload) != 8:
            raise Violation(Code.FRAME_SIZE_ERROR, "expected a ping of 8 bytes, found another size")
        if not flags & ACK:
            self._frame(PING, ACK, 0, payload)

    def _on_goaway(self, number: int, flags: int, payload: bytes) -> None:
        self._spend(1)
        if number:
            raise Violation(Code.PROTOCOL_ERROR, "expected a goodbye of the connection, found one of a stream")
        if len(payload) < 8:
            raise Violation(Code.FRAME_SIZE_ERROR, "expected a goodbye of 8 bytes, found fewer")

    def _on_window(self, number: int, flags: int, payload: bytes) -> None:
        self._spend(1)
        if len(payload) != 4:
            raise Violation(Code.FRAME_SIZE_ERROR, "expected a window's update of 4 bytes, found another size")
        more = int.from_bytes(payload) & MOST
        if not number:
            self._window += more
            if not more:
                raise Violation(Code.PROTOCOL_ERROR, "expected a larger window, found an update of 0")
            if self._window > MOST:
                raise Violation(Code.FLOW_CONTROL_ERROR, "expected a window below 2^31, found more")
        elif stream := self.streams.get(number):
            stream.window += more
            if not more or stream.window > MOST:
                return self._reset(number, Code.FLOW_CONTROL_ERROR if more else Code.PROTOCOL_ERROR)
        elif number > self._last or not number & 1:
            raise Violation(Code.PROTOCOL_ERROR, "expected a window of an open stream, found one of none")
        if self._stuck:
            self._pump()

    def _spend(self, count: int) -> None:
        """Count frames that ask for work without being of use; those that are, and time, allow for more."""
        self._allowance -= count
        if self._allowance < 0:
            raise Violation(Code.ENHANCE_YOUR_CALM, f"expected at most {FREE} such frames a second, found more")

    # What goes out

    def send(self, stream: Stream, head: bytes, data: bytes, tail: bytes) -> None:
        """Send headers, a piece of the body, and trailers, which end the answer; each of them may be empty."""
        if stream.gone or stream.tail:
            return
        self._allowance += USEFUL
        number, out, size = stream.number, self._out, len(data)
        if head:
            out += (FRAME.pack(len(head), HEADERS, END_HEADERS, number), head)
        if stream.left or self._paused or size > LARGEST or size > stream.window or size > self._window:
            stream.tail, stream.touched = tail, time.monotonic()
            if data:
                stream.left.append(memoryview(data))
                self._hold(size)
            self._stuck[number] = stream
            self._pump()
        else:
            if size:
                stream.window -= size
                self._window -= size
                out += (FRAME.pack(size, DATA, 0, number), data)
            if tail:
                out += (FRAME.pack(len(tail), HEADERS, END_HEADERS | END_STREAM, number), tail)
                self._done(stream)
        self._soon()

    def _pump(self) -> None:
        """Send of what is left what the windows and the transport take, a frame of each stream in turn."""
        moved, size = True, 0
        while self._stuck and moved and not self._paused and not self._closed:
            moved = False
            for stream in list(self._stuck.values()):
                if self._paused or stream.gone:
                    continue
                sent = self._piece(stream)
                moved |= sent > 0 or stream.number not in self._stuck
                size += sent
                if size > OUT:
                    self._flush()
                    size = 0
        self._soon()

    def _piece(self, stream: Stream) -> int:
        """Send one frame of what a stream has left, and what ends it; return how many bytes of the body went."""
        size = 0
        if stream.left:
            first = stream.left[0]
            size = min(len(first), LARGEST, stream.window, self._window)
            if size <= 0:
                return 0
            stream.left[0] = first[size:]
            if size == len(first):
                stream.left.popleft()
            stream.window -= size
            self._window -= size
            self._hold(-size)
            if size >= PIECE or not stream.left:
                self._allowance = min(self._allowance + USEFUL, SAVED)
            stream.touched = time.monotonic()
            self._out += (FRAME.pack(size, DATA, 0, stream.number), first[:size])
        if not stream.left:
            del self._stuck[stream.number]
            if stream.drained and not stream.drained.done():
                stream.drained.set_result(None)
            if stream.tail:
                self._frame(HEADERS, END_HEADERS | END_STREAM, stream.number, stream.tail)
                self._done(stream)
        return size

    async def drained(self, stream: Stream) -> None:
        """Return when nothing is left to send of a stream."""
        if stream.left and not stream.gone:
            stream.drained = self._loop.create_future()
            await stream.drained

    def taken(self, stream: Stream, size: int) -> None:
        """Let the peer send as much again: of a streaming request, what was taken of it."""
        self._hold(-size)
        if stream.target.streaming:
            self._widen(stream, size)

    def _hold(self, size: int) -> None:
        self._held += size
        self.service.room.held += size

    def _widen(self, stream: Stream, size: int) -> None:
        if size and not stream.whole and not stream.gone:
            stream.room += size
            self._frame(WINDOW_UPDATE, 0, stream.number, size.to_bytes(4))

    def end(self, stream: Stream) -> None:
        """Wait for no more of a stream's request: its answer is sent, or will be."""
        if not stream.whole and not stream.gone:
            self._ended.append(stream.number)
            self._frame(RST_STREAM, 0, stream.number, Code.NO_ERROR.to_bytes(4))

    def _done(self, stream: Stream) -> None:
        self.end(stream)
        self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        """Forget a stream; an answer that is still being made counts until it is."""
        if stream.gone:
            return
        stream.gone = True
        self.streams.pop(stream.number, None)
        self._stuck.pop(stream.number, None)
        self._hold(-len(stream.body) - sum(map(len, stream.left)))
        stream.body = b""
        stream.left.clear()
        self.ghosts += stream.kept
        if stream.waiting:
            stream.waiting.leave()
        if stream.drained and not stream.drained.done():
            stream.drained.set_result(None)
        if stream.task:
            stream.task.cancel()
        if self._leaving and not self.streams:
            self._part()

    def _reset(self, number: int, code: Code) -> None:
        self._spend(1)
        self._frame(RST_STREAM, 0, number, code.to_bytes(4))
        if stream := self.streams.get(number):
            if not stream.whole:
                self._ended.append(number)
            self._drop(stream)

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self._out += (FRAME.pack(len(payload), kind, flags, number), payload)
        self._soon()

    def _soon(self) -> None:
        """Write when the loop has done what it is at: what comes of it goes out together."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._out and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    # The end

    def leave(self) -> None:
        """Take no more requests; close when those at work are answered."""
        if self._leaving or self._closed:
            return
        self._leaving = True
        self._frame(GOAWAY, 0, 0, self._last.to_bytes(4) + Code.NO_ERROR.to_bytes(4))
        for stream in list(self.streams.values()):
            stream.target.leave(stream)
        if not self.streams:
            self._part()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _fail(self, code: Code, words: str) -> None:
        self._frame(GOAWAY, 0, 0, self._last.to_bytes(4) + code.to_bytes(4) + words.encode())
        self._close()

    def _part(self) -> None:
        """Say no more and let the peer close: what it sends to a closed socket undoes what it has not read yet."""
        if self._closed or self._transport.is_closing():
            return
        self._flush()
        self._closed, self.touched = True, time.monotonic()
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _close(self) -> None:
        self._flush()
        self._closed = True
        for stream in list(self.streams.values()):
            self._drop(stream)
        self._transport.close()

    def overdue(self, now: float) -> None:
        """Look after time, about once a second: deadlines, slow peers, idle and silent ones."""
        self._allowance = min(self._allowance + FREE, SAVED)
        for stream in list(self.streams.values()):
            if stream.until is not None and now > stream.until:
                if stream.tail:
                    self._reset(stream.number, Code.CANCEL)
                else:
                    stream.target.late(stream, False)
            elif (stream.left or stream.tail) and now - stream.touched > SLOW:
                self._reset(stream.number, Code.CANCEL)
            elif not stream.whole and not stream.target.streaming and now - stream.touched > SLOW:
                stream.target.late(stream, True)
        quiet = now - self.touched
        if (quiet > SLOW and self._paused) or (quiet > LINGER and self._closed):
            self._transport.abort()
        elif quiet > SLOW and not self._closed and (not self._settled or self._rest or self._block is not None):
            self._fail(Code.ENHANCE_YOUR_CALM, f"expected the rest of a frame within {SLOW:g} s, found nothing")
        elif quiet > IDLE and not self.streams and not self._closed:
            self.leave()
        elif quiet > IDLE + SLOW:
            self._transport.abort()
        elif quiet > IDLE and not self._pinged:
            self._pinged = True
            self._frame(PING, 0, 0, b"\0" * 8)


KINDS: tuple[Callable[[Any, int, int, bytes], None], ...] = (
    Connection._on_data,
    Connection._on_headers,
    Connection._on_priority,
    Connection._on_reset,
    Connection._on_settings,
    Connection._on_push,
    Connection._on_ping,
    Connection._on_goaway,
    Connection._on_window,
    Connection._on_continuation,
)
