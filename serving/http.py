"""The HTTP connection: uvicorn's, with limits of its own, one shape of error, and a short way for what most send.

The short way answers plain inference without an ASGI task: the body goes straight into the queue, the answer straight
to the socket. Whatever is not plain (another route, a chunked, compressed, large or binary body) goes the long way,
through the ASGI application, and gets the same answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import lru_cache
from itertools import chain
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from boatyard.prediction import Answers

from . import errors
from .batching import Busy, Waiting
from .heads import Head
from .inference import JSON, Fields, Question, Route
from .limits import SMALL
from .rest import HUNG_UP, TIMEOUTS, Front, left, refusal

logger = logging.getLogger(__name__)
HEADERS = 64 << 10  # bytes of a request's line and headers
COUNT = 100  # of headers
AHEAD = 8  # requests that may wait behind the one at work
OTHERS = 4  # heads that are kept in turn; a client of which none comes again is not looked at that closely any more
IDLE, SLOW = 75.0, 30.0  # seconds without a request, and for headers, the next part of a body, or a client that reads
# a header that the short way does not know changes nothing; these change what a request is
LONG = frozenset(
    (
        b"content-encoding",
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"connection",
        b"content-type",
        b"inference-header-content-length",
    )
)
TIMED = frozenset(TIMEOUTS)
CLOSE: Fields = [(b"connection", b"close")]
PLAIN = frozenset(
    (
        (b"connection", b"keep-alive"),
        (b"content-type", b"application/json"),
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-type", b"application/x-www-form-urlencoded"),
    )
)


class Short:
    """What uvicorn's connection asks of a request at work; one is used again and again."""

    __slots__ = (
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "message_event",
        "more_body",
        "question",
        "response_complete",
        "response_started",
        "route",
        "started",
        "until",
        "url",
        "within",
    )
    route: Route
    question: Question | None
    url: bytes
    headers: list[tuple[bytes, bytes]]
    within: float | None  # seconds that its client gives it
    until: float | None  # when they are over (time.monotonic)

    def __init__(self) -> None:
        self.message_event = asyncio.Event()
        self.response_complete, self.keep_alive, self.disconnected, self.more_body = True, True, False, False
        self.response_started = True
        self.body: list[bytes] = []
        self.started, self.within, self.until, self.question = 0.0, None, None, None


class Connection(HttpToolsProtocol):
    """One client's connection. `front` is the application that all connections of a server share."""

    def __init__(self, config: Any, server_state: ServerState, app_state: dict[str, Any], front: Front) -> None:
        super().__init__(config, server_state, app_state)
        self.front = front
        self._short, self._is_short = Short(), False
        self._waiting: Waiting | None = None  # what of the short way is in a model's queue
        self._task: asyncio.Task[None] | None = None  # of the long way
        self._cycle: Any = None  # what it answers; with requests waiting behind it, `cycle` is the last of those
        self._heading, self._size = True, 0  # between a body and the end of the next headers; bytes of them
        self._read = 0  # bytes that came last, in which whole headers may be
        self._whole = b""  # what is being read, when a request begins with it
        self._head: Head | None = None  # of the last request that was plain
        self._others = 0  # heads since one came again
        self._begun, self._in_body = False, False  # headers have, and have not ended; they have, and not the body
        self._over = False  # what comes now is not looked at: the connection ends with the answers that it owes
        self._unsent, self._unread_since = 0, 0.0  # bytes that wait to be read, and since when none of them was
        self._most = min(SMALL, self.front.body_limit)  # bytes of a body on the short way
        self.touched = time.monotonic()

    # What comes in

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self.touched = time.monotonic()
        begins = self._heading and not self._size and not self._begun
        if begins and self._head and self._repeats(self._head, data):
            return
        self._read, self._whole = len(data), data if begins else b""
        if self._heading:
            self._size += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            refused = cause if isinstance(cause, Refused) else Refused(400, "a request in HTTP/1.1", "one that is not")
            self._refuse(refused)
        except httptools.HttpParserError:
            self._refuse(Refused(400, "a request in HTTP/1.1", "bytes that are not"))
        except httptools.HttpParserUpgrade:
            self._refuse(Refused(400, "HTTP/1.1", "an upgrade to another protocol"))
        self._whole = b""
        if self._heading and self._size > HEADERS and self.parser is not None:
            self._refuse(Refused(431, f"headers of at most {HEADERS} bytes", "more"))

    def on_message_begin(self) -> None:
        self.url, self.headers, self._begun = b"", [], True  # uvicorn's own are made when a request goes the long way

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))
        if len(self.headers) > COUNT:
            raise Refused(431, f"at most {COUNT} headers", "more")

    def on_headers_complete(self) -> None:
        if max(self._size, self._read) > HEADERS < sum(map(len, chain([self.url], *self.headers))):
            raise Refused(431, f"headers of at most {HEADERS} bytes", "more")
        self._heading, self._size, self._begun, self._in_body = False, 0, False, True
        self._is_short = self._plain()
        if self._is_short:
            self._begin(self.url, self.headers, self._short.within)
        else:
            self._long()

    def on_body(self, body: bytes) -> None:
        if self._is_short:
            self._short.body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._heading, self._in_body = True, False
        if not self._is_short:
            super().on_message_complete()
            if sum(len(cycle.body) for cycle, _ in self.pipeline) <= SMALL and len(self.pipeline) <= AHEAD:
                self.flow.resume_reading()  # else a client that hangs up is not seen while its answer is made
            return
        self._is_short = False
        parts = self._short.body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._take(body)
        if self._whole and self._others < OTHERS:
            self._others += 1
            self._head = Head.of(self._whole, len(body), self.url, self.headers, self._short.within)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let nobody work for a client that has hung up."""
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._waiting:
            self._waiting.leave()
        if self._task and not self._task.done():
            self._cycle.disconnected = True
            self._task.cancel(HUNG_UP)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._cycle = cycle
        self._task = task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _begin(self, url: bytes, headers: list[tuple[bytes, bytes]], within: float | None) -> None:
        self.cycle = short = self._short  # type: ignore[assignment]
        short.response_complete = False
        short.within, short.until = within, None if within is None else time.monotonic() + within
        short.url, short.headers, short.started = url, headers, time.perf_counter()

    def _take(self, body: bytes) -> None:
        """Queue the body of a plain request, or refuse it."""
        within = left(self._short.until)
        try:
            self._short.route.model.batcher.expect(within)
        except Busy as error:
            self._answered(None, error)
        else:
            self._queue(body, within)

    def _queue(self, body: bytes, within: float | None) -> None:
        short, model = self._short, self._short.route.model
        try:
            short.question = question = short.route.decode(model, model.direct, body)
            self._waiting = model.batcher.queue(question.inputs, self._answered, within)
        except Exception as error:  # whatever it is, the client hears of it
            self._answered(None, error)

    def _repeats(self, head: Head, data: bytes) -> bool:
        """Take a request with the head of one before, which need not be parsed again; say no to any other."""
        body = head.body(data)
        if body is None or len(body) > self._most or not self._is_free(head.url):
            return False
        self._others = 0
        busy = self._short.route.model.batcher.busy(head.within)
        if busy and not (self.front.models.leaving or self.front.pool.shed):
            self._turn_away(head, busy)
            return True
        self._begin(head.url, head.headers, head.within)
        if busy:
            self._answered(None, busy)
        else:
            self._queue(body, head.within)
        return True

    def _turn_away(self, head: Head, busy: Busy) -> None:
        """Refuse one of many requests that a full server refuses with the same words: no more work than that takes."""
        route, log = self._short.route, self.front.log
        if not busy.answer:
            busy.answer = self._response(*refusal(busy, head.url.decode()))
        self.transport.write(busy.answer)
        seconds = time.monotonic() - self.touched
        route.model.numbers.answered(route.protocol, 429, seconds)
        if log.wants(429):
            log.write("POST", head.url.decode(), 429, seconds, head.headers)
        self.server_state.total_requests += 1

    def _is_free(self, url: bytes) -> bool:
        """Say whether a model answers here the short way, now: nothing is at work before."""
        route = self.front.models.routes.get(url)
        if route is None or (self.cycle is not None and not self.cycle.response_complete) or self.flow.write_paused:
            return False
        self._short.route, self._short.within = route, None
        return True

    def _plain(self) -> bool:
        """Say whether a request may go the short way: nothing before it at work, nothing special about it."""
        if not self._is_free(self.url):
            return False
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return False
        length = b""
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif (name in LONG and (name, value) not in PLAIN) or (name in TIMED and not self._timed(value)):
                return False
        return length.isdigit() and int(length) <= self._most

    def _timed(self, milliseconds: bytes) -> bool:
        """Note until when the client waits; say no to what the long way has to look at."""
        if self._short.within is not None or not milliseconds.isdigit() or not 0 < len(milliseconds) < 10:
            return False
        self._short.within = int(milliseconds) / 1000
        return self._short.within > 0

    def _is_shed(self) -> bool:
        """Say whether this client is to come again: another process of the server gets it, or another server."""
        if self.front.models.leaving:
            return not self.pipeline
        pool = self.front.pool
        if not pool.shed or self.pipeline:
            return False
        pool.shed -= 1
        return True

    def _long(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.on_url(url)
        for name, value in headers:
            super().on_header(name, value)
        try:
            super().on_headers_complete()
            if self.cycle.keep_alive and self._is_shed():
                self.cycle.keep_alive = False
        except httptools.HttpParserInvalidURLError as error:
            raise Refused(400, "a path such as /v2/health/ready", "one that cannot be read") from error
        except UnicodeDecodeError as error:
            raise Refused(400, "a path in ASCII, the rest as %XX", "other bytes") from error

    # What goes out

    def _answered(self, answers: Answers | None, error: Exception | None) -> None:
        cycle, front, self._waiting = self._short, self.front, None
        question, cycle.question = cycle.question, None  # it holds the inputs
        try:
            if answers is None or question is None:
                raise error or RuntimeError()
            status, (body, fields) = 200, question.encode(answers)
        except Exception as error:  # an answer that cannot be written is told too: nobody else would
            status, body, fields = refusal(error, cycle.url.decode())
        seconds = time.perf_counter() - cycle.started
        cycle.route.model.numbers.answered(cycle.route.protocol, status, seconds)
        if front.log.wants(status):
            front.log.write("POST", cycle.url.decode(), status, seconds, cycle.headers)
        cycle.response_complete = True
        if cycle.disconnected or self.transport.is_closing():
            cycle.disconnected = False
            return
        stays = cycle.keep_alive and not self._is_shed()
        self.transport.write(self._response(status, body, fields, stays))
        self.touched = time.monotonic()
        if not stays:
            self.transport.close()
        elif self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def _response(self, status: int, body: bytes, fields: Fields, keep_alive: bool = True) -> bytes:
        every = self.server_state.default_headers
        head = _head(status, *every, *fields) if keep_alive else _head(status, *every, *fields, *CLOSE)
        return b"%b%d\r\n\r\n%b" % (head, len(body), body)

    def _refuse(self, refused: Refused) -> None:
        """Answer what is no request; the connection ends with it, or with the answer of a whole request before it."""
        self._heading, self._size, self._begun, self._over = False, 0, False, True
        if self.transport.is_closing():
            return
        if self._in_body and self.pipeline:
            self.pipeline.popleft()  # the one that is refused, which came last
            self.cycle = self.pipeline[0][0] if self.pipeline else self._at_work()
        elif self._may_speak():
            body = errors.body(f"expected {refused.wanted}, found {refused.found}, at the connection")
            self.transport.write(self._response(refused.status, body, JSON, keep_alive=False))
            return self.transport.close()
        elif self._in_body:
            return self.transport.close()
        self.cycle.keep_alive = False  # of the last request that came whole: the connection ends with its answer

    def _may_speak(self) -> bool:
        """Say whether nobody is answering: no request is at work, or the one that is has not come whole."""
        if self.cycle is None or self._is_short:
            return True
        if self.cycle.response_complete:
            return not self._in_body  # else this very request was answered before it came whole
        return self._in_body and not self.cycle.response_started

    def _at_work(self) -> Any:
        return self._cycle if self._short.response_complete else self._short

    # Time

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # one sweep looks at all connections: no timer each
        self.touched = time.monotonic()

    def overdue(self, now: float) -> None:
        """Close a connection that is idle, or whose client sends or reads more slowly than one may."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent or not unsent:
            self._unsent, self._unread_since = unsent, now
        elif now - self._unread_since > SLOW:
            return self.transport.abort()
        if self.pipeline:
            return  # what its client sends is not read for now
        at_work = self.cycle is not None and not self.cycle.response_complete
        sending = self._is_short or (at_work and self.cycle.more_body)
        if sending or self._begun or self._size:
            if now - self.touched > SLOW:
                self._refuse(Refused(408, f"the rest of a request within {SLOW:g} s", "nothing"))
        elif not at_work and now - self.touched > IDLE:
            self.transport.close()


@lru_cache(16)  # the date in it is another every second
def _head(status: int, *fields: tuple[bytes, bytes]) -> bytes:
    """Return a response's head up to the length of its body."""
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % each for each in fields) + b"content-length: "


class Refused(Exception):
    """What is no request at all: the status, and the words of its answer."""

    def __init__(self, status: int, wanted: str, found: str) -> None:
        super().__init__(wanted)
        self.status, self.wanted, self.found = status, wanted, found
