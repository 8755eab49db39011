"""HTTP/2 of the gRPC door by real sockets: what clients may do is answered, what they may not ends their connection."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from hpack import Decoder, Encoder

from boatyard.serving import headers, http2
from boatyard.serving.calls import Method, Service
from boatyard.serving.http2 import PREFACE, SLOW, STREAMS, Connection
from boatyard.serving.streams import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    MOST,
    PADDED,
    PING,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Code,
)

LIMIT = 1 << 20
Frame = tuple[int, int, int, bytes]


class Echo:
    """Methods that say again what they are told."""

    def __init__(self) -> None:
        self.waiting = 0

    async def same(self, request: bytes, context: Any) -> bytes:
        return request

    async def thousandfold(self, request: bytes, context: Any) -> bytes:
        return request * 1000

    async def never(self, request: bytes, context: Any) -> bytes:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1
        return b""

    async def each(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def ever(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request
        await asyncio.Event().wait()

    async def wrong(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.ABORTED, "100 % wrong, für immer")
        return b""


class Door:
    """A server in a thread of its own."""

    def __init__(self) -> None:
        self.echo, self.service = Echo(), Service(LIMIT, lambda error: (grpc.StatusCode.INTERNAL, str(error)))
        for name in ("same", "thousandfold", "never", "wrong"):
            self._add(name, grpc.unary_unary_rpc_method_handler)
        self._add("ever", grpc.unary_stream_rpc_method_handler)
        self._add("each", grpc.stream_stream_rpc_method_handler)
        self.loop, self.peers = asyncio.new_event_loop(), list[socket.socket]()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.server = self.run(self._serve)
        self.port = self.server.sockets[0].getsockname()[1]

    def _add(self, name: str, kind: Callable[..., Any]) -> None:
        handler = kind(getattr(self.echo, name), request_deserializer=bytes, response_serializer=bytes)
        self.service.add(Method(f"/echo/{name}", handler, lambda error: (grpc.StatusCode.INTERNAL, str(error))))

    async def _serve(self) -> Any:
        return await self.loop.create_server(lambda: Connection(self.service), "127.0.0.1", 0)

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a coroutine where the server runs."""
        return asyncio.run_coroutine_threadsafe(function(), self.loop).result(30)

    def later(self, seconds: float) -> None:
        """Let all connections look at the clock as if so much time had passed."""

        async def look() -> None:
            for connection in list(self.service.connections):
                connection.overdue(time.monotonic() + seconds)

        self.run(look)

    def leave(self) -> None:
        """Let all connections say goodbye."""

        async def say() -> None:
            for connection in list(self.service.connections):
                connection.leave()

        self.run(say)

    def close(self) -> None:
        async def end() -> None:
            self.server.close()
            for connection in list(self.service.connections):
                connection.abort()
            await asyncio.sleep(0.05)

        self.run(end)
        assert self.service.room.held == 0  # whatever a test did, nothing is held for who has left
        for peer in self.peers:
            peer.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def door() -> Iterator[Door]:
    found = Door()
    yield found
    found.close()


@pytest.fixture
def channel(door: Door) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{door.port}", options) as found:
        yield found


def frame(kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + number.to_bytes(4) + payload


def message(data: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(data).to_bytes(4) + data


def fields(name: str = "same", **more: str) -> list[tuple[str, str]]:
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", f"/echo/{name}"), (":authority", "x")]
    plain = {"content-type": "application/grpc", "te": "trailers"}
    return [*pseudo, *(plain | {key.replace("_", "-"): value for key, value in more.items()}).items()]


def block(name: str = "same", **more: str) -> bytes:
    return headers.write([(key.encode(), value.encode()) for key, value in fields(name, **more)])


def call(number: int, data: bytes = b"hello", name: str = "same", **more: str) -> bytes:
    asked = frame(HEADERS, END_HEADERS, number, block(name, **more))
    return asked + frame(DATA, END_STREAM, number, message(data))


def window(size: int) -> bytes:
    return INITIAL_WINDOW.to_bytes(2) + size.to_bytes(4)


class Peer:
    """A client that says every byte itself."""

    def __init__(self, door: Door, start: bytes = PREFACE + frame(SETTINGS)) -> None:
        self.socket = socket.create_connection(("127.0.0.1", door.port), timeout=10)
        self._rest, self._decoder = b"", Decoder()
        door.peers.append(self.socket)
        self.send(start)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # what was wrong before it may have ended the connection
            self.socket.sendall(data)

    def frames(self) -> Iterator[Frame]:
        """Give frames until the server closes."""
        while True:
            while len(self._rest) >= 9 and len(self._rest) >= 9 + int.from_bytes(self._rest[:3]):
                end = 9 + int.from_bytes(self._rest[:3])
                found = self._rest[3], self._rest[4], int.from_bytes(self._rest[5:9]), self._rest[9:end]
                self._rest = self._rest[end:]
                yield found
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError:
                return
            if not data:
                return
            self._rest += data

    def answer(self, number: int) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers with the trailers of a stream's answer."""
        body, said = b"", {}
        for kind, flags, stream, payload in self.frames():
            assert kind != GOAWAY, payload
            if stream != number:
                continue
            if kind == RST_STREAM:
                return body, {"reset": str(int.from_bytes(payload))}
            if kind == HEADERS:
                said |= dict(self._decoder.decode(payload))
            if kind == DATA:
                body += payload
            if flags & END_STREAM:
                return body, said
        raise AssertionError("closed without an answer")

    def goodbye(self) -> int | None:
        """Return the code that the connection ends with."""
        code = None
        for kind, _, _, payload in self.frames():
            if kind == GOAWAY:
                code = struct.unpack(">II", payload[:8])[1]
        return code


def asks(channel: grpc.Channel, name: str = "same", data: bytes = b"hello", **more: Any) -> Any:
    return channel.unary_unary(f"/echo/{name}")(data, **{"timeout": 20, **more})


# What clients may do


HUGE = block() + b"".join(headers.write([(b"x-%d" % number, b"y" * 1000)]) for number in range(40))
PIECES = {
    "as it is": call(1),
    "a byte a frame": frame(HEADERS, END_HEADERS, 1, block())
    + b"".join(frame(DATA, 0, 1, bytes((byte,))) for byte in message(b"hello"))
    + frame(DATA, END_STREAM, 1),
    "ended by trailers": frame(HEADERS, END_HEADERS, 1, block())
    + frame(DATA, 0, 1, message(b"hello"))
    + frame(HEADERS, END_HEADERS | END_STREAM, 1, headers.write([(b"x", b"y")])),
    "padded": frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, b"\x03\0\0\0\0\x10" + block() + b"\0\0\0")
    + frame(DATA, END_STREAM | PADDED, 1, b"\xff" + message(b"hello") + b"\0" * 255),
    "headers of three frames": frame(HEADERS, 0, 1, HUGE[:16000])
    + frame(CONTINUATION, 0, 1, HUGE[16000:30000])
    + frame(CONTINUATION, END_HEADERS, 1, HUGE[30000:])
    + frame(DATA, END_STREAM, 1, message(b"hello")),
    "among frames that nobody knows": frame(0xBE, 0xFF, 9, b"abc")
    + frame(PRIORITY, 0, 3, b"\0\0\0\0\x10")
    + frame(SETTINGS, 0, 0, b"\xab\xcd\0\0\0\1")
    + call(1, grpc_timeout="20S"),
}


@pytest.mark.parametrize("name", list(PIECES))
def test_a_call_in_any_frames_is_the_same_call(door: Door, name: str) -> None:
    peer = Peer(door)
    peer.send(PIECES[name])
    body, said = peer.answer(1)
    assert (body, said["grpc-status"]) == (message(b"hello"), "0")


def test_a_call_in_any_pieces_of_the_stream_is_the_same_call(door: Door) -> None:
    peer = Peer(door, b"")
    for byte in PREFACE + frame(SETTINGS) + call(1):
        peer.send(bytes((byte,)))
    assert peer.answer(1)[0] == message(b"hello")


def test_headers_mean_what_the_table_says_at_their_time(door: Door) -> None:
    peer, encoder = Peer(door), Encoder()
    for number, value in enumerate("aabbacab" * 20):
        found = encoder.encode(fields("same" if value < "c" else "nothing", x=value))
        stream = 2 * number + 1
        peer.send(frame(HEADERS, END_HEADERS, stream, found) + frame(DATA, END_STREAM, stream, message(b"x")))
        assert peer.answer(stream)[1]["grpc-status"] == ("0" if value < "c" else "12")


def test_many_calls_at_once_all_get_their_own_answers(channel: grpc.Channel) -> None:
    multi = channel.unary_unary("/echo/same")
    futures = [multi.future(b"%d" % number, timeout=20) for number in range(1000)]
    assert [future.result() for future in futures] == [b"%d" % number for number in range(1000)]


def test_large_messages_go_both_ways(channel: grpc.Channel) -> None:
    data = bytes(range(256)) * 4000
    assert asks(channel, data=data) == data
    assert asks(channel, "thousandfold", data[:20_000]) == data[:20_000] * 1000


def test_messages_of_a_stream_come_and_go(channel: grpc.Channel) -> None:
    given = [b"%d" % number * 1000 for number in range(2000)]
    assert list(channel.stream_stream("/echo/each")(iter(given), timeout=20)) == given


def test_a_compressed_message_is_read_and_another_compression_refused(door: Door, channel: grpc.Channel) -> None:
    assert asks(channel, data=b"a" * 5000, compression=grpc.Compression.Gzip) == b"a" * 5000
    with pytest.raises(grpc.RpcError, match="expected grpc-encoding identity or gzip, found 'deflate'") as refused:
        asks(channel, data=b"a" * 5000, compression=grpc.Compression.Deflate)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    peer = Peer(door)
    zipped = message(gzip.compress(b"\0" * (LIMIT + 1)), 1)
    for number, coding in ((1, "identity"), (3, "gzip")):
        asked = frame(HEADERS, END_HEADERS, number, block(grpc_encoding=coding))
        peer.send(asked + frame(DATA, END_STREAM, number, zipped))
        assert peer.answer(number)[1]["grpc-status"] == "13"  # of the second the service here says so itself


def test_a_refusal_says_it_in_any_letters(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        asks(channel, "wrong")
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.ABORTED, "100 % wrong, für immer")


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (call(1, name="nothing"), "12", "found '/echo/nothing'"),
        (call(1, grpc_timeout="soon"), "3", "expected a grpc-timeout such as 500m, found 'soon'"),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, block()), "3", "expected one message of /echo/same, found none"),
    ],
)
def test_a_call_that_is_none_is_refused(door: Door, asked: bytes, status: str, said: str) -> None:
    peer = Peer(door)
    peer.send(asked)
    found = peer.answer(1)[1]
    assert found["grpc-status"] == status
    assert said in found["grpc-message"]


def test_a_request_that_is_no_call_is_answered_as_http_does(door: Door) -> None:
    peer = Peer(door)
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes((0x82, 0x84, 0x86))))
    body, said = peer.answer(1)
    assert said[":status"] == "405" and b'{"error": "expected a POST of application/grpc' in body
    peer.send(call(3, content_type="application/json"))
    assert peer.answer(3)[1][":status"] == "415"


def test_a_message_over_the_limit_is_refused_before_it_has_come(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError, match=f"at most {LIMIT} bytes") as refused:
        asks(channel, data=b"a" * (50 * LIMIT))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert asks(channel) == b"hello"


def test_a_window_is_kept_to_the_byte(door: Door) -> None:
    peer = Peer(door, PREFACE + frame(SETTINGS, 0, 0, window(3)) + call(1))
    frames = peer.frames()
    assert next(payload for kind, _, _, payload in frames if kind == DATA) == message(b"hello")[:3]
    peer.send(frame(SETTINGS, 0, 0, window(0)) + frame(WINDOW_UPDATE, 0, 1, (5).to_bytes(4)))
    assert next(payload for kind, _, _, payload in frames if kind == DATA) == message(b"hello")[3:5]
    peer.send(frame(SETTINGS, 0, 0, window(100)))
    assert peer.answer(1)[0] == message(b"hello")[5:]


def test_a_deadline_ends_a_call_and_what_it_was_at(door: Door) -> None:
    peer = Peer(door)
    peer.send(call(1, name="never", grpc_timeout="9S"))
    peer.send(call(3))
    assert peer.answer(3)[1]["grpc-status"] == "0"
    door.later(10)
    assert peer.answer(1)[1]["grpc-status"] == "4"
    assert settled(lambda: door.echo.waiting == 0)


def settled(question: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until and not question():
        time.sleep(0.01)
    return question()


def test_a_call_that_is_given_up_ends_and_others_go_on(door: Door, channel: grpc.Channel) -> None:
    future = channel.unary_unary("/echo/never").future(b"")
    assert settled(lambda: door.echo.waiting == 1)
    future.cancel()
    assert settled(lambda: door.echo.waiting == 0)
    peer = Peer(door)
    peer.send(call(1, name="never") + call(3))
    assert peer.answer(3)[0] == message(b"hello")
    peer.socket.close()
    assert settled(lambda: door.echo.waiting == 0)
    assert asks(channel) == b"hello"


def test_who_leaves_answers_what_is_at_work_and_takes_no_more(door: Door) -> None:
    peer = Peer(door, PREFACE + frame(SETTINGS, 0, 0, window(0)) + call(1))
    frames = peer.frames()
    assert next(flags for kind, flags, number, _ in frames if kind == HEADERS and number == 1) == END_HEADERS
    door.leave()
    assert next(payload for kind, _, _, payload in frames if kind == GOAWAY) == struct.pack(">II", 1, Code.NO_ERROR)
    peer.send(call(3) + frame(SETTINGS, 0, 0, window(100)))
    assert peer.answer(1)[1]["grpc-status"] == "0"
    assert not [number for _, _, number, _ in peer.frames() if number == 3]


def test_who_leaves_ends_calls_without_end_and_waits_for_one_answer(door: Door) -> None:
    peer = Peer(door)
    peer.send(call(1, name="never") + call(3, name="ever"))
    frames = peer.frames()
    assert next(number for kind, _, number, _ in frames if kind == DATA) == 3
    door.leave()
    assert next(kind for kind, _, _, _ in frames if kind == GOAWAY)
    assert peer.answer(3)[1]["grpc-status"] == "14"
    assert door.echo.waiting == 1
    peer.send(frame(RST_STREAM, 0, 1, Code.CANCEL.to_bytes(4)))
    assert not list(frames)  # it closes


def test_a_large_answer_arrives_whole_from_who_leaves(door: Door) -> None:
    """What a peer sends to a socket that is closed would undo what it has not read yet."""
    peer = Peer(door, PREFACE + frame(SETTINGS, 0, 0, window(MOST)))
    peer.send(frame(WINDOW_UPDATE, 0, 0, (MOST - 65535).to_bytes(4)) + call(1, b"a" * 2000, "thousandfold"))
    frames = peer.frames()
    assert next(number for kind, _, number, _ in frames if kind == HEADERS) == 1
    assert settled(lambda: not any(each.streams for each in door.service.connections))
    door.leave()
    peer.send(frame(PING, 0, 0, b"12345678"))
    time.sleep(0.1)
    assert sum(len(payload) for kind, _, _, payload in frames if kind == DATA) == 5 + 2_000_000


# What they may not


BOMB = b"\x40\x01x" + b"\x7f" + b"\xa1\x1e" + b"y" * 4000 + b"\xbe" * 2000  # one long field, and 2000 times the same
RESETS = b"".join(
    frame(HEADERS, END_HEADERS, number, block("never")) + frame(RST_STREAM, 0, number, Code.CANCEL.to_bytes(4))
    for number in range(1, 50_001, 2)
)
HOSTILE = {
    "frames before settings": (PREFACE + call(1), Code.PROTOCOL_ERROR),
    "HTTP/1": (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", Code.PROTOCOL_ERROR),
    "a large frame": (frame(DATA, 0, 1, b"\0" * 16385), Code.FRAME_SIZE_ERROR),
    "data of no stream": (frame(DATA, 0, 1, b"abc"), Code.PROTOCOL_ERROR),
    "headers of an even stream": (frame(HEADERS, END_HEADERS, 2, block()), Code.PROTOCOL_ERROR),
    "a stream again": (call(1) + frame(PING, 0, 0, b"12345678") + call(1), Code.STREAM_CLOSED),
    "a push": (frame(PUSH_PROMISE, 0, 1, b"abcd"), Code.PROTOCOL_ERROR),
    "padding over the frame": (frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + block()), Code.PROTOCOL_ERROR),
    "a window over all": (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), Code.FLOW_CONTROL_ERROR),
    "no headers": (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff"), Code.COMPRESSION_ERROR),
    "a bomb of headers": (frame(HEADERS, END_HEADERS, 1, BOMB), Code.COMPRESSION_ERROR),
    "a long number in the headers": (
        frame(HEADERS, 0, 1, b"\xff" * 16384) + frame(CONTINUATION, 0, 1, b"\xff" * 16384) * 5,
        Code.ENHANCE_YOUR_CALM,
    ),
    "headers without end": (frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"") * 100, Code.ENHANCE_YOUR_CALM),
    "between headers": (frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, b"12345678"), Code.PROTOCOL_ERROR),
    "a flood of pings": (frame(PING, 0, 0, b"12345678") * 30_000, Code.ENHANCE_YOUR_CALM),
    "a flood of settings": (frame(SETTINGS) * 30_000, Code.ENHANCE_YOUR_CALM),
    "a flood in one frame of settings": (frame(SETTINGS, 0, 0, window(1) * 2700) * 10, Code.ENHANCE_YOUR_CALM),
    "a flood of acknowledgements": (frame(SETTINGS, ACK) * 30_000, Code.ENHANCE_YOUR_CALM),
    "a flood of priorities": (frame(PRIORITY, 0, 1, b"\0\0\0\0\1") * 30_000, Code.ENHANCE_YOUR_CALM),
    "a flood of nothing": (
        frame(HEADERS, END_HEADERS, 1, block()) + frame(DATA, 0, 1) * 30_000,
        Code.ENHANCE_YOUR_CALM,
    ),
    "a flood of resets": (RESETS, Code.ENHANCE_YOUR_CALM),
    "a flood of windows": (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 30_000, Code.ENHANCE_YOUR_CALM),
    "a flood of frames that nobody knows": (frame(0xBE) * 30_000, Code.ENHANCE_YOUR_CALM),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_who_breaks_the_rules_is_told_and_closed_and_others_are_not(
    door: Door, channel: grpc.Channel, name: str
) -> None:
    data, code = HOSTILE[name]
    whole = data if data.startswith((PREFACE, b"GET")) else PREFACE + frame(SETTINGS) + data
    peer = Peer(door, b"")
    sender = threading.Thread(target=peer.send, args=(whole,))
    sender.start()
    assert peer.goodbye() in (code, None if len(data) > 100_000 else code)  # a flood may not hear it
    sender.join()
    peer.socket.close()
    assert asks(channel) == b"hello"
    assert settled(lambda: len(door.service.connections) == 1 and door.echo.waiting == 0)


def test_a_client_that_has_no_time_keeps_its_connection(door: Door) -> None:
    """Under overload each deadline passes: that is no attack, and ends no other call of the channel."""
    peer = Peer(door)
    for number in range(1, 20_001, 2):
        peer.send(call(number, name="never") + frame(RST_STREAM, 0, number, Code.CANCEL.to_bytes(4)))
    peer.send(call(20_001))
    assert peer.answer(20_001)[0] == message(b"hello")
    assert settled(lambda: door.echo.waiting == 0)


def test_a_client_that_is_refused_keeps_its_connection(door: Door) -> None:
    peer = Peer(door)
    peer.send(b"".join(call(2 * number + 1, name="never") for number in range(STREAMS)))
    for number in range(2 * STREAMS + 1, 2 * STREAMS + 20_001, 2):  # it gives up before it knows
        peer.send(call(number) + frame(RST_STREAM, 0, number, Code.CANCEL.to_bytes(4)))
    peer.send(frame(RST_STREAM, 0, 1, Code.CANCEL.to_bytes(4)) + call(2 * STREAMS + 20_001))
    assert peer.answer(2 * STREAMS + 20_001)[0] == message(b"hello")


def test_who_takes_an_answer_a_byte_at_a_time_is_told_and_closed(door: Door) -> None:
    peer = Peer(door, PREFACE + frame(SETTINGS, 0, 0, window(0)) + call(1, b"a" * 200, "thousandfold"))
    assert next(number for kind, _, number, _ in peer.frames() if kind == HEADERS) == 1
    sender = threading.Thread(target=peer.send, args=(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1") * 60_000,))
    sender.start()
    assert peer.goodbye() in (Code.ENHANCE_YOUR_CALM, None)
    sender.join()


def test_padding_of_a_stream_may_be_sent_again(door: Door) -> None:
    peer = Peer(door)
    data = b"\xff" + message(b"hello") + b"\0" * 255
    peer.send(frame(HEADERS, END_HEADERS, 1, block("each")) + frame(DATA, PADDED, 1, data) * 9)
    peer.send(frame(DATA, PADDED | END_STREAM, 1, b"\0"))
    updates = 0
    for kind, flags, number, payload in peer.frames():
        if kind == WINDOW_UPDATE and number == 1:
            updates += int.from_bytes(payload)
        if kind == HEADERS and flags & END_STREAM:
            break
    assert 9 * 256 <= updates <= 9 * len(data)  # what is not padding too, while more may come


def test_headers_that_are_long_when_unpacked_are_not_remembered() -> None:
    reader = headers.Reader()
    short = b"\x00\x01x\x01y"
    reader.read(b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000)
    assert reader.read(b"\xbe" * 10) is not reader.read(b"\xbe" * 10)
    assert reader.read(short) is reader.read(short)


def test_more_calls_than_announced_are_refused_and_the_others_answered(door: Door) -> None:
    peer = Peer(door)
    peer.send(b"".join(call(2 * number + 1, name="never") for number in range(STREAMS)))
    peer.send(call(2 * STREAMS + 1))
    assert peer.answer(2 * STREAMS + 1)[1] == {"reset": str(int(Code.REFUSED_STREAM))}
    peer.send(frame(RST_STREAM, 0, 1, Code.CANCEL.to_bytes(4)) + call(2 * STREAMS + 3))
    assert peer.answer(2 * STREAMS + 3)[0] == message(b"hello")


def test_bytes_that_wait_are_bounded_over_all_calls(door: Door) -> None:
    peer = Peer(door)
    for number in range(1, 13, 2):
        peer.send(frame(HEADERS, END_HEADERS, number, block()))
        peer.send(frame(DATA, 0, number, message(b"")[:1] + (LIMIT).to_bytes(4)))
        peer.send(frame(DATA, 0, number, b"\0" * 16000) * 60)
    assert peer.answer(9)[1]["grpc-status"] == "8"
    peer.send(frame(RST_STREAM, 0, 1, Code.CANCEL.to_bytes(4)) + call(13))
    assert peer.answer(13)[0] == message(b"hello")


def test_a_reader_that_stands_still_gets_no_more_and_is_let_go(door: Door, channel: grpc.Channel) -> None:
    peer = Peer(door, PREFACE + frame(SETTINGS, 0, 0, window(MOST)))
    peer.send(frame(WINDOW_UPDATE, 0, 0, (MOST - 65535).to_bytes(4)))
    for number in range(1, 21, 2):
        peer.send(call(number, b"a" * 10_000, "thousandfold"))
    assert settled(lambda: any(each._paused for each in door.service.connections))
    door.later(SLOW + 1)
    assert asks(channel) == b"hello"
    assert settled(lambda: len(door.service.connections) == 1)


@pytest.mark.parametrize(
    "start",
    [b"", PREFACE[:9], PREFACE, PREFACE + frame(SETTINGS) + frame(HEADERS, 0, 1), PREFACE + frame(SETTINGS)[:5]],
)
def test_who_stops_halfway_is_let_go(door: Door, start: bytes) -> None:
    peer = Peer(door, start)
    assert settled(lambda: len(door.service.connections) == 1)
    time.sleep(0.05)
    door.later(SLOW + 1)
    assert peer.goodbye() == Code.ENHANCE_YOUR_CALM


def test_a_message_that_stops_halfway_ends_its_call_alone(door: Door) -> None:
    peer = Peer(door)
    asked = frame(HEADERS, END_HEADERS, 1, block()) + frame(DATA, 0, 1, message(b"hello")[:3])
    peer.send(asked + call(3))
    assert peer.answer(3)[0] == message(b"hello")
    door.later(SLOW + 1)
    assert peer.answer(1)[1]["grpc-status"] == "1"
    peer.send(call(5))
    assert peer.answer(5)[0] == message(b"hello")


def test_messages_that_are_being_sent_are_bounded_over_all_connections(door: Door) -> None:
    piece = b"\0" * 16384
    pieces = LIMIT // len(piece) - 1
    peers = [Peer(door) for _ in range(18)]
    for peer in peers:
        peer.send(frame(HEADERS, END_HEADERS, 1, block()) + frame(DATA, 0, 1, piece) * pieces)
    held = lambda: sum(len(each.streams) for each in list(door.service.connections))  # noqa: E731
    assert settled(lambda: held() == 16 and door.service.room.held == 16 * pieces * len(piece))
    peers[0].send(call(3))  # a small one is always taken
    assert peers[0].answer(3)[0] == message(b"hello")
    statuses = []
    for peer in peers[1:]:
        peer.socket.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            statuses.append(peer.answer(1)[1]["grpc-status"])
    assert 1 <= len(statuses) <= 2 and set(statuses) == {"8"}


def test_who_is_silent_is_asked_then_let_go(door: Door) -> None:
    peer, idle = Peer(door), Peer(door)
    peer.send(call(1, name="never"))
    assert settled(lambda: door.echo.waiting == 1 and len(door.service.connections) == 2)
    door.later(http2.IDLE + 1)
    assert next(flags for kind, flags, _, _ in peer.frames() if kind == PING) == 0
    assert idle.goodbye() == Code.NO_ERROR
    door.later(http2.IDLE + SLOW + 1)
    assert peer.goodbye() is None
    assert settled(lambda: door.echo.waiting == 0)
