"""The HTTP door: inference, metadata and metrics are answered here, the rest is KServe's; what is neither is refused.

A pure ASGI application in front of KServe's own. Decoding a large body leaves the event loop to others; inference
always does.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from boatyard.errors import ArtifactError, RequestError
from boatyard.prediction.decoding import show, wrong

from . import compression, errors, inference, v1, v2
from .access import AccessLog
from .batching import Busy, Closed, Late, Left
from .direct import Direct
from .errors import HttpError
from .inference import JSON, Decode, Fields, Question
from .limits import BODIES, Held, Room
from .metrics import Exposition
from .models import Models
from .predictor import Predictor

if TYPE_CHECKING:
    from .pool import Pool
    from .worker import Link

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]
Reply = tuple[int, bytes, Fields]

HUNG_UP = "the client hung up"  # why a request's task is cancelled
LARGE = 256 << 10  # bytes from which decoding JSON takes milliseconds: not on the event loop
VERSION = r"(?:/versions/(?P<version>[^/]+))?"
OURS = {
    "predict": ("POST", re.compile(r"/v1/models/(?P<name>[^/:]+):predict")),
    "infer": ("POST", re.compile(rf"/v2/models/(?P<name>[^/]+){VERSION}/infer")),
    "metadata": ("GET", re.compile(rf"/v2/models/(?P<name>[^/]+){VERSION}")),
    "state": ("GET", re.compile(r"/v1/models/(?P<name>[^/:]+)")),
    "ready": ("GET", re.compile(rf"/v2/models/(?P<name>[^/]+){VERSION}/ready")),
    "health": ("GET", re.compile("/v2/health/ready")),
    "metrics": ("GET", re.compile("/metrics")),
    "index": ("POST", re.compile("/v2/repository/index")),
    "load": ("POST", re.compile("/v2/repository/models/(?P<name>.+)/load")),
    "unload": ("POST", re.compile("/v2/repository/models/(?P<name>.+)/unload")),
}
KSERVE = re.compile(r"/|/openapi\.json|/v1/models|/v2(/health/live|/models)?")
INFERENCE = ("predict", "infer", "metadata")
STATES = ("state", "ready")
TIMEOUTS = (b"x-request-timeout-ms", b"x-envoy-expected-rq-timeout-ms")
# curl -d says a form, and some clients say text; a body of another kind is a mistake
TYPES = (b"", b"application/json", b"application/x-www-form-urlencoded", b"text/json", b"text/plain")
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")


class Gone(Exception):
    """The client hung up before its request was whole."""


class Front:
    """The ASGI application that uvicorn runs: `kserve` is KServe's own, behind it."""

    def __init__(
        self, kserve: App, models: Models, body_limit: int, log: AccessLog, pool: Pool | Link, token: str | None = None
    ) -> None:
        """With a `token`, whoever shows it may load and unload models."""
        self.kserve, self.models, self.body_limit, self.log = kserve, models, body_limit, log
        self.pool, self.room, self._token = pool, Room(BODIES * body_limit), token
        self.exposition = Exposition(models.numbers)
        self._verbs: dict[str, Callable[[Any, Headers, Receive], Awaitable[Reply]]] = {
            "predict": self._predict,
            "infer": self._infer,
            "metadata": self._metadata,
            "state": self._ready,
            "ready": self._ready,
            "health": self._health,
            "metrics": self._metrics,
            "index": self._index,
            "load": self._load,
            "unload": self._unload,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.kserve(scope, receive, send)
        started = time.perf_counter()
        protocol, numbers, verb = scope["path"][1:3], self.exposition.strangers, None
        try:
            verb, match = self._route(scope["method"], scope["path"])
            if verb is None:
                return await self.kserve(scope, receive, send)
            subject: Any = match.groupdict().get("name")
            if verb in (*INFERENCE, *STATES):
                subject = self.models.find(**match.groupdict())
                numbers = subject.numbers
            reply = await self._verbs[verb](subject, dict(scope["headers"]), receive)
        except Gone:
            return
        except asyncio.CancelledError as error:
            if HUNG_UP not in error.args:
                raise
            reply = refusal(Left(), scope["path"])
        except Exception as error:
            reply = refusal(error, f"{scope['method']} {scope['path']}")
        seconds = time.perf_counter() - started
        if protocol in ("v1", "v2") and verb not in (*STATES, "health"):
            numbers.answered(protocol, reply[0], seconds)
        if self.log.wants(reply[0]):
            self.log.write(scope["method"], scope["path"], reply[0], seconds, scope["headers"])
        try:
            if reply[0] != 499:
                await _send(send, *reply)
        except asyncio.CancelledError as error:
            if HUNG_UP not in error.args:
                raise

    def _route(self, method: str, path: str) -> tuple[str | None, Any]:
        """Return what to do: one of our verbs, or None for what KServe answers; raises HttpError."""
        for verb, (allowed, pattern) in OURS.items():
            if match := pattern.fullmatch(path):
                _allow(method, allowed)
                return verb, match
        match = KSERVE.fullmatch(path)
        if not match:
            name = next(iter(self.models.versions), "NAME")
            raise HttpError(404, f"expected a path such as /v1/models/{name}:predict, found {show(path)}, at the path")
        _allow(method, "GET")
        return None, None

    async def _predict(self, model: Predictor, headers: Headers, receive: Receive) -> Reply:
        own = v1.media_types(model.schema)
        if media_type(headers, own) in own:
            return await self._answer(model, headers, receive, inference.picture, 0)
        return await self._answer(model, headers, receive, inference.predict)

    async def _infer(self, model: Predictor, headers: Headers, receive: Receive) -> Reply:
        media_type(headers, ("application/octet-stream",))
        head = _header_length(headers)
        decode = inference.infer if head is None else partial(inference.infer, head=head)
        return await self._answer(model, headers, receive, decode, LARGE if head is None or head >= LARGE else math.inf)

    async def _answer(
        self, model: Predictor, headers: Headers, receive: Receive, decode: Decode, large: float = LARGE
    ) -> Reply:
        """Answer a question; from so many bytes on its body is read in a thread."""
        until = deadline(headers)
        with Held(self.room) as held:
            body = await self._body(headers, receive, held)
            model.batcher.expect(left(until))
            if len(body) < large:
                inputs, encode = decode(model, model.direct, body)
            else:  # with a parser of its own
                inputs, encode = await asyncio.to_thread(_decode_aside, decode, model, body)
            del body  # from here on it is the queue that bounds what is kept
        return 200, *encode(await model.batcher.submit(inputs, left(until)))

    async def _metadata(self, model: Predictor, headers: Headers, receive: Receive) -> Reply:
        found = v2.metadata(model.name, model.version, model.schema, model.plan.engine)
        found["versions"] = list(self.models.versions[model.name])
        return 200, orjson.dumps(found), JSON

    async def _ready(self, model: Predictor, headers: Headers, receive: Receive) -> Reply:
        if not model.ready:
            raise HttpError(503, f"expected model {model.name} ready, found it stopping, at the path")
        return 200, orjson.dumps({"name": model.name, "ready": True}), JSON

    async def _health(self, name: None, headers: Headers, receive: Receive) -> Reply:
        if self.models.draining:  # KServe's own answer to this writes a traceback into the log, every time
            raise HttpError(503, "expected the server ready, found it stopping, at the path")
        return 200, b'{"ready":true}', JSON

    async def _metrics(self, name: None, headers: Headers, receive: Receive) -> Reply:
        return 200, await self.pool.metrics(), [(b"content-type", CONTENT_TYPE_LATEST.encode())]

    async def _index(self, name: None, headers: Headers, receive: Receive) -> Reply:
        self.admit(headers.get(b"authorization", b""))
        return 200, orjson.dumps(self.models.index()), JSON

    async def _load(self, name: str, headers: Headers, receive: Receive) -> Reply:
        self.admit(headers.get(b"authorization", b""))
        loaded, version = await self.pool.load(name)
        return 200, orjson.dumps({"name": loaded, "version": version, "load": True}), JSON

    async def _unload(self, name: str, headers: Headers, receive: Receive) -> Reply:
        self.admit(headers.get(b"authorization", b""))
        await self.pool.unload(name)
        return 200, orjson.dumps({"name": name, "unload": True}), JSON

    def admit(self, authorization: bytes) -> None:
        """Let in who shows the token; raises HttpError."""
        if not self._token:
            raise HttpError(403, "loading and unloading models is closed; deploy another version instead")
        if not hmac.compare_digest(authorization, b"Bearer " + self._token.encode()):
            raise HttpError(401, "expected the server's token, found another or none", {"www-authenticate": "Bearer"})

    async def _body(self, headers: Headers, receive: Receive, held: Held) -> bytes:
        """Read a body of at most the limit, decompressed; one that says that it is longer is not read at all."""
        coding = headers.get(b"content-encoding", b"identity").decode("latin-1").lower().strip()
        if coding not in compression.CODINGS:
            raise HttpError(415, f"expected content-encoding {', '.join(compression.CODINGS)}, found {show(coding)}")
        said = headers.get(b"content-length", b"")
        if said.isdigit() and int(said) > self.body_limit:
            raise HttpError(413, f"expected a body of at most {self.body_limit} bytes, found {said.decode()}")
        message = await receive()
        body = message.get("body", b"")
        if message["type"] == "http.disconnect":
            raise Gone
        if message.get("more_body"):
            body = await self._rest(body, receive, held)
        if len(body) > self.body_limit:
            raise HttpError(413, f"expected a body of at most {self.body_limit} bytes, found more")
        held.hold(len(body))
        self._find_room(len(body))
        if coding == "identity":
            return bytes(body)
        self._find_room(self.body_limit)  # it may grow so large
        found = await asyncio.to_thread(compression.decompress, coding, bytes(body), self.body_limit)
        held.hold(len(found))
        self._find_room(len(found))
        return found

    async def _rest(self, first: bytes, receive: Receive, held: Held) -> bytearray:
        body, more = bytearray(first), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            body += message.get("body", b"")
            held.hold(len(body))
            more = message.get("more_body", False)
            if len(body) > self.body_limit:
                break
            self._find_room(len(body))  # before the rest of it is read
        return body

    def _find_room(self, size: int) -> None:
        if self.room.refuses(size):
            found = f"found {self.room.held} bytes of bodies that are being sent and read"
            raise HttpError(429, f"expected room for the body, {found}; come again later", {"retry-after": "1"})


def _decode_aside(decode: Decode, model: Predictor, body: bytes) -> Question:
    return decode(model, Direct(model.schema), body)


def refusal(error: Exception, what: str) -> Reply:
    """Return the answer to what went wrong; of the server's own mistakes the client is told nothing but that."""
    if isinstance(error, RequestError):
        return 400, errors.body(str(error)), JSON
    if isinstance(error, HttpError):
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
        return error.status, errors.body(str(error)), JSON + headers
    if isinstance(error, ArtifactError):
        logger.warning("%s: %s", what, error)
        return (
            422,
            errors.body("expected a package that verifies, runs here and predicts as packaged, found another"),
            JSON,
        )
    if isinstance(error, Busy):
        return 429, errors.body(str(error)), [*JSON, (b"retry-after", b"%d" % error.seconds)]
    if isinstance(error, Closed):
        return 503, errors.body("expected a model that is loaded, found it unloaded, at the queue"), JSON
    if isinstance(error, Left):
        return 499, b"", []  # for the numbers and the log, as nginx has it: nobody is there to read it
    if isinstance(error, Late):
        return 504, errors.body("expected an answer within the deadline, found it passed, at the queue"), JSON
    logger.error("%s failed", what, exc_info=error)
    return 500, errors.body("the server failed; its log says why"), JSON


def media_type(headers: Headers, more: Iterable[str] = ()) -> str:
    """Return a request's media type; raises HttpError for one that cannot be meant, or another charset."""
    found = headers.get(b"content-type", b"")
    if found == b"application/json":
        return "application/json"
    kind, _, parameters = found.partition(b";")
    kind = kind.strip().lower()
    text = kind.decode("latin-1")
    if kind not in TYPES and not kind.endswith(b"+json") and text not in more:
        raise HttpError(415, f"expected content-type application/json{_or(more)}, found {show(text)}")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters.decode("latin-1"), re.IGNORECASE)
    if charset and charset[1].lower() not in CHARSETS:
        raise HttpError(415, f"expected charset utf-8, found {show(charset[1])}")
    return text


def deadline(headers: Headers) -> float | None:
    """Return until when (time.monotonic) a client waits, None when it does not say; raises RequestError."""
    for name in TIMEOUTS:
        if (found := headers.get(name)) is not None:
            if not re.fullmatch(rb"[0-9]{1,9}", found) or not int(found):
                raise wrong("whole milliseconds", show(found.decode("latin-1")), f"header {name.decode()}")
            return time.monotonic() + int(found) / 1000
    return None


def left(until: float | None) -> float | None:
    """Return the seconds until then; None stays None."""
    return None if until is None else until - time.monotonic()


def _or(more: Iterable[str]) -> str:
    return "".join(f" or {kind}" for kind in more)


def _allow(method: str, allowed: str) -> None:
    if method != allowed:
        raise HttpError(405, f"expected method {allowed}, found {method[:20]}", {"allow": allowed})


def _header_length(headers: Headers) -> int | None:
    found = headers.get(b"inference-header-content-length")
    if found is None:
        return None
    if not re.fullmatch(rb"[0-9]{1,12}", found):
        raise wrong("a number of bytes", show(found.decode("latin-1")), "header inference-header-content-length")
    return int(found)


async def _send(send: Send, status: int, body: bytes, fields: Fields) -> None:
    headers = [*fields, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
