"""gRPC over HTTP/2: messages, deadlines, statuses; the methods of a service, each call with a context."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import quote

from google.protobuf.message import DecodeError
from grpc import StatusCode

from boatyard.prediction.decoding import show

from . import compression, errors, headers
from .errors import LONGEST
from .headers import Block
from .http2 import SLOW, Connection
from .limits import BODIES, Room
from .streams import Stream, Target

UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
CODINGS = ("identity", "gzip")
PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")  # what a status message has as it is
WORDS = 4000  # bytes of a status message: clients take 8 KiB of trailers
START = headers.write([(b":status", b"200"), (b"content-type", b"application/grpc")])
FINE = headers.write([(b"grpc-status", b"0")])
Refusal = Callable[[Exception], tuple[StatusCode, str]]


class Abort(Exception):
    """A method's own refusal."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def reply(stream: Stream, message: bytes) -> None:
    """Answer a call with one message, and all is well."""
    stream.begun = True
    stream.connection.send(stream, START, b"\0" + len(message).to_bytes(4) + message, FINE)


def refuse(stream: Stream, code: StatusCode, message: str) -> None:
    """End a call with what went wrong."""
    words = quote(message[:LONGEST], safe=PLAIN).encode()[:WORDS]
    fields = [(b"grpc-status", b"%d" % code.value[0]), (b"grpc-message", re.sub(rb"%.?$", b"", words))]
    if code is StatusCode.UNIMPLEMENTED:
        fields.append((b"grpc-accept-encoding", ",".join(CODINGS).encode()))
    tail = headers.write(fields)
    stream.connection.send(stream, b"", b"", tail if stream.begun else START + tail)


def deadline(block: Block, now: float) -> float | None:
    """Return until when (time.monotonic) a client waits, None when it does not say."""
    said = block.fields.get(b"grpc-timeout") if block.fields else None
    match = TIMEOUT.fullmatch(said) if said else None
    return now + int(match[1]) * UNITS[match[2]] if match else None


def message_of(body: bytes | bytearray) -> memoryview | None:
    """Return the message of a body that is one message, not compressed; None for any other."""
    if len(body) < 5 or body[0] or int.from_bytes(body[1:5]) != len(body) - 5:
        return None
    return memoryview(body)[5:]


async def unpacked(flag: int, message: bytes | memoryview, stream: Stream) -> bytes | memoryview:
    """Return a message decompressed; raises Abort, RequestError, HttpError."""
    if not flag:
        return message
    coding = (stream.block.fields or {}).get(b"grpc-encoding", b"identity").decode("latin-1")
    if flag > 1 or coding == "identity":
        raise Abort(StatusCode.INTERNAL, f"expected a message in {coding}, found another flag, at the message")
    return await asyncio.to_thread(compression.decompress, coding, message, stream.connection.service.body_limit)


class Context:
    """What a servicer asks of a call and tells it."""

    def __init__(self, stream: Stream, write: Callable[[Any], bytes]) -> None:
        self._stream, self._write = stream, write

    async def abort(self, code: StatusCode, details: str = "") -> NoReturn:
        """End the call with a refusal."""
        raise Abort(code, details)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what the client sent with the call."""
        fields = self._stream.block.fields or {}
        return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields.items())

    def set_code(self, code: StatusCode) -> None:
        """Do nothing: what sets a code raises as well."""

    def set_details(self, details: str) -> None:
        """Do nothing, likewise."""

    async def write(self, message: Any) -> None:
        """Send a message of an answer of many, and wait until the client takes it."""
        stream, data = self._stream, self._write(message)
        head, stream.begun = b"" if stream.begun else START, True
        stream.connection.send(stream, head, b"\0" + len(data).to_bytes(4) + data, b"")
        await asyncio.sleep(0)  # others have their turn
        await stream.connection.drained(stream)


class Refused:
    """What answers a request that is of no method here: a call by its status, anything else as HTTP does."""

    streaming = False

    def __init__(self, answer: Callable[[Stream], None]) -> None:
        self._answer = answer

    def begin(self, stream: Stream) -> None:
        """Wait for the request."""

    feed = leave = begin

    def whole(self, stream: Stream) -> None:
        """Refuse."""
        self._answer(stream)

    large = whole

    def late(self, stream: Stream, slow: bool) -> None:
        """Refuse."""
        self._answer(stream)


class Method:
    """A method of a servicer, as generated code hands it on: each call is a task with a context."""

    def __init__(self, path: str, handler: Any, refusal: Refusal) -> None:
        self.path, self._handler, self._refusal = path, handler, refusal
        self.streaming = bool(handler.request_streaming)

    def begin(self, stream: Stream) -> None:
        """Run a call whose messages come and go."""
        messages = Messages(stream, self._read)
        stream.task = asyncio.get_running_loop().create_task(self._run(stream, messages))
        stream.come = messages.come

    def feed(self, stream: Stream) -> None:
        """Wake who reads."""
        stream.come.set()

    def whole(self, stream: Stream) -> None:
        """Run a call of one message."""
        stream.task = asyncio.get_running_loop().create_task(self._run(stream, None))

    def large(self, stream: Stream) -> None:
        """Refuse messages that are more than may wait."""
        limit = stream.connection.service.body_limit
        if len(stream.body) > limit + 5:
            said = f"expected a message of at most {limit} bytes, found more"
        else:
            said = "expected room for a message, found too many bytes of other calls waiting; come again later"
        refuse(stream, StatusCode.RESOURCE_EXHAUSTED, said)

    def late(self, stream: Stream, slow: bool) -> None:
        """Refuse a call whose time is up."""
        if slow:
            said = f"expected the rest of a message within {SLOW:g} s, found nothing, at the connection"
            return refuse(stream, StatusCode.CANCELLED, said)
        refuse(stream, StatusCode.DEADLINE_EXCEEDED, "expected an answer within the deadline, found it passed")

    def leave(self, stream: Stream) -> None:
        """End a call of many messages; one answer is waited for."""
        if self.streaming or self._handler.response_streaming:
            refuse(stream, StatusCode.UNAVAILABLE, "expected a server that stays, found it stopping")

    async def _run(self, stream: Stream, messages: Messages | None) -> None:
        handler = self._handler
        context = Context(stream, handler.response_serializer)
        try:
            request = messages if messages is not None else await self._message(stream)
            if not handler.response_streaming:
                answer = await handler.unary_unary(request, context)
                stream.task = None  # done: not to be cancelled
                return reply(stream, handler.response_serializer(answer))
            async for answer in (handler.stream_stream or handler.unary_stream)(request, context):
                await context.write(answer)
            stream.task = None
            stream.connection.send(stream, b"" if stream.begun else START, b"", FINE)
        except Exception as error:
            self._failed(stream, error)

    def _failed(self, stream: Stream, error: Exception) -> None:
        stream.task = None
        if isinstance(error, Abort):
            return refuse(stream, error.code, str(error))
        if isinstance(error, NotImplementedError):  # what generated code raises for a method that nobody wrote
            return refuse(stream, StatusCode.UNIMPLEMENTED, f"expected a method that is there, found {self.path}")
        refuse(stream, *self._refusal(error))

    async def _message(self, stream: Stream) -> Any:
        body = stream.body
        if len(body) < 5 or int.from_bytes(body[1:5]) != len(body) - 5:
            raise Abort(
                StatusCode.INVALID_ARGUMENT, f"expected one message of {self.path}, found none or bytes after it"
            )
        message = await unpacked(body[0], memoryview(body)[5:], stream)
        stream.claim()  # until here it waits
        return self._read(message)

    def _read(self, data: bytes | memoryview) -> Any:
        try:
            return self._handler.request_deserializer(data)
        except DecodeError as error:
            words = f"expected the message of {self.path}, found bytes"
            raise Abort(StatusCode.INVALID_ARGUMENT, words) from error


class Messages:
    """The messages of a call as they come."""

    def __init__(self, stream: Stream, read: Callable[[bytes | memoryview], Any]) -> None:
        self._stream, self._read, self.come = stream, read, asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Any]:
        stream = self._stream
        while True:
            size = 5 + int.from_bytes(stream.body[1:5])
            if len(stream.body) >= max(size, 5):
                data = stream.take(size)
                yield self._read(await unpacked(data[0], data[5:], stream))
            elif stream.whole:
                if stream.body:
                    raise Abort(StatusCode.INVALID_ARGUMENT, "expected a whole message, found a part of it")
                return
            else:
                self.come.clear()
                await self.come.wait()


class Service:
    """Methods by path, and all connections that ask for them."""

    def __init__(self, body_limit: int, refusal: Refusal, room: Room | None = None) -> None:
        """`room` is shared with who else takes bodies in."""
        self.body_limit, self.connections = body_limit, set[Connection]()
        self.room = room or Room(BODIES * body_limit)
        self.methods: dict[bytes, Target] = {}
        self._refusal = refusal
        self._unknown = Refused(_unknown)
        self._not_grpc = Refused(_not_grpc)
        self._coding = Refused(_coding)
        self._timeout = Refused(_timeout)
        self.deadline = deadline

    # What generated code takes for a server

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take a service's methods."""
        for name, handler in handlers.items():
            self.add(Method(f"/{service}/{name}", handler, self._refusal))

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Do nothing: these are the same methods again."""

    def add(self, method: Method) -> None:
        """Take a method, instead of one of the same path."""
        self.methods[method.path.encode()] = method

    # What connections ask

    def target(self, block: Block) -> Target:
        """Return what answers a request."""
        fields = block.fields or {}
        kind = fields.get(b"content-type", b"")
        if kind != b"application/grpc" and not re.fullmatch(rb"application/grpc([+;].*)?", kind):
            return self._not_grpc
        if block.method != b"POST":
            return self._not_grpc
        if fields.get(b"grpc-encoding", b"identity") not in (b"identity", b"gzip"):
            return self._coding
        if b"grpc-timeout" in fields and not TIMEOUT.fullmatch(fields[b"grpc-timeout"]):
            return self._timeout
        return self.methods.get(block.path, self._unknown)


def _unknown(stream: Stream) -> None:
    path = show(stream.block.path.decode("latin-1"))
    refuse(stream, StatusCode.UNIMPLEMENTED, f"expected a method of inference.GRPCInferenceService, found {path}")


def _coding(stream: Stream) -> None:
    found = show((stream.block.fields or {})[b"grpc-encoding"].decode("latin-1"))
    refuse(stream, StatusCode.UNIMPLEMENTED, f"expected grpc-encoding {' or '.join(CODINGS)}, found {found}")


def _timeout(stream: Stream) -> None:
    found = show((stream.block.fields or {})[b"grpc-timeout"].decode("latin-1"))
    refuse(stream, StatusCode.INVALID_ARGUMENT, f"expected a grpc-timeout such as 500m, found {found}")


def _not_grpc(stream: Stream) -> None:
    """Answer what is no call in HTTP's way: the method or the type is another."""
    status = 405 if stream.block.method != b"POST" else 415
    wanted = "a POST of application/grpc; HTTP is at the other port"
    found = show(stream.block.method.decode("latin-1")) if status == 405 else "another content-type"
    body = errors.body(f"expected {wanted}, found {found}, at the gRPC port")
    fields = [(b":status", b"%d" % status), (b"content-type", b"application/json"), (b"allow", b"POST")]
    stream.connection.send(stream, headers.write(fields), body, headers.write([(b"grpc-status", b"13")]))
