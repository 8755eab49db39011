"""The HTTP door: inference and model metadata are answered here, the rest is KServe's; what is neither is refused.

A pure ASGI application in front of KServe's own. Decoding a large body leaves the event loop to others; inference
always does.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from boatyard import prediction
from boatyard.errors import RequestError
from boatyard.prediction.decoding import show, wrong

from . import errors, v2
from .errors import HttpError
from .predictor import Predictor

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[str, str]
Response = tuple[bytes, Headers]

JSON = {"content-type": "application/json"}
LARGE = 256 << 10  # bytes from which decoding takes milliseconds: not on the event loop
V1_KEYS = ("instances", "parameters", "signature_name")
VERSION = r"(?:/versions/(?P<version>[^/]+))?"
OURS = {
    "predict": ("POST", re.compile(r"/v1/models/(?P<name>[^/:]+):predict")),
    "infer": ("POST", re.compile(rf"/v2/models/(?P<name>[^/]+){VERSION}/infer")),
    "metadata": ("GET", re.compile(rf"/v2/models/(?P<name>[^/]+){VERSION}")),
}
KSERVE = re.compile(
    r"/|/metrics|/openapi\.json|/v1/models(/(?P<one>[^/:]+))?|/v2(/health/(live|ready)|/models(/(?P<other>[^/]+)/ready)?)?"
)
CLOSED = re.compile(r"/v2/repository(/.*)?")


class Gone(Exception):
    """The client hung up before its request was whole."""


class Front:
    """The ASGI application that uvicorn runs: `kserve` is KServe's own, behind it."""

    def __init__(self, kserve: App, model: Predictor, body_limit: int) -> None:
        self.kserve, self.model, self.body_limit = kserve, model, body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.kserve(scope, receive, send)
        try:
            verb, match = self._route(scope["method"], scope["path"])
            if verb is None:
                return await self.kserve(scope, receive, send)
            self._mine(match["name"], match.groupdict().get("version"))
            body, headers = await getattr(self, f"_{verb}")(scope, receive)
            await _send(send, 200, body, headers)
        except RequestError as error:
            await _send(send, 400, errors.body(str(error)), JSON)
        except HttpError as error:
            allow = {"allow": error.allow} if error.allow else {}
            await _send(send, error.status, errors.body(str(error)), {**JSON, **allow})
        except Gone:
            return
        except Exception:
            # the client is told nothing of it: the log is for those who run the server
            logger.exception("%s %s failed", scope["method"], scope["path"])
            await _send(send, 500, errors.body("the server failed; its log says why"), JSON)

    def _route(self, method: str, path: str) -> tuple[str | None, Any]:
        """Return what to do: one of our verbs, or None for what KServe answers; raises HttpError."""
        if CLOSED.fullmatch(path):
            raise HttpError(403, "loading and unloading models is closed; deploy another version instead")
        for verb, (allowed, pattern) in OURS.items():
            if match := pattern.fullmatch(path):
                _allow(method, allowed)
                return verb, match
        match = KSERVE.fullmatch(path)
        if not match:
            name = self.model.name
            raise HttpError(404, f"wanted a path such as /v1/models/{name}:predict, found {show(path)}")
        _allow(method, "GET")
        self._mine(match["one"] or match["other"] or self.model.name)
        return None, None

    def _mine(self, name: str, version: str | None = None) -> None:
        """Refuse the name or version of another model."""
        if name != self.model.name:
            raise HttpError(404, f"wanted model {self.model.name}, found {show(name)}")
        if version not in (None, self.model.version):
            raise HttpError(404, f"wanted version {self.model.version} or none, found {show(version)}")

    async def _predict(self, scope: Scope, receive: Receive) -> Response:
        body = await self._body(scope, receive)
        inputs = await _decoded(body, self._instances, body)
        answers = await self.model.answer(inputs)
        return _v1(answers), JSON

    async def _infer(self, scope: Scope, receive: Receive) -> Response:
        length = _header_length(scope)
        body = await self._body(scope, receive)
        request = await _decoded(body, v2.decode, self.model.schema, body, length)
        answers = await self.model.answer(request.inputs)
        found, head = v2.encode(self.model.schema, self.model.name, self.model.version, request, answers)
        if head is None:
            return found, JSON
        return found, {"content-type": "application/octet-stream", "inference-header-content-length": str(head)}

    async def _metadata(self, scope: Scope, receive: Receive) -> Response:
        return orjson.dumps(v2.metadata(self.model.name, self.model.version, self.model.schema)), JSON

    def _instances(self, body: bytes) -> Any:
        value = v2.mapping(v2.load(body), "the body", ("instances",))
        for key in value:
            if key not in V1_KEYS:
                raise wrong(f"keys {', '.join(V1_KEYS)}", show(key), "the body")
        return prediction.decode(self.model.schema, value["instances"])

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Read a body of at most the limit; one that says that it is longer is not read at all."""
        headers = _headers(scope)
        _check_encoding(headers)
        if int(headers.get("content-length", "0") or 0) > self.body_limit:
            raise HttpError(413, f"wanted a body of at most {self.body_limit} bytes, found {headers['content-length']}")
        chunks, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            more = message.get("more_body", False)
            if size > self.body_limit:
                raise HttpError(413, f"wanted a body of at most {self.body_limit} bytes, found more")
        return b"".join(chunks)


def _allow(method: str, allowed: str) -> None:
    if method != allowed:
        raise HttpError(405, f"wanted method {allowed}, found {method[:20]}", allow=allowed)


def _headers(scope: Scope) -> Headers:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _check_encoding(headers: Headers) -> None:
    """Refuse a body in another charset or compressed; its media type is not looked at: clients get it wrong."""
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", headers.get("content-type", ""), re.IGNORECASE)
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise HttpError(415, f"wanted charset utf-8, found {show(charset[1])}")
    if (encoding := headers.get("content-encoding", "identity").lower()) not in ("identity", ""):
        raise HttpError(415, f"wanted a body that is not compressed, found content-encoding {show(encoding)}")


def _header_length(scope: Scope) -> int | None:
    found = _headers(scope).get("inference-header-content-length")
    if found is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", found):
        raise wrong("a number of bytes", show(found), "header inference-header-content-length")
    return int(found)


async def _decoded(body: bytes, decode: Callable[..., Any], *arguments: Any) -> Any:
    """Decode a body, a large one in a thread."""
    if len(body) < LARGE:
        return decode(*arguments)
    return await asyncio.to_thread(decode, *arguments)


def _v1(answers: prediction.Answers) -> bytes:
    """Return the V1 response; orjson writes a float32 with the fewest digits that give it back."""
    if answers.labels is None or answers.probabilities is None:
        return orjson.dumps({"predictions": answers.values}, option=v2.OPTIONS)
    rows = zip(answers.labels.tolist(), answers.probabilities, strict=True)
    predictions = [{"label": label, "probabilities": row} for label, row in rows]
    return orjson.dumps({"predictions": predictions}, option=v2.OPTIONS)


async def _send(send: Send, status: int, body: bytes, headers: Headers) -> None:
    fields = {**headers, "content-length": str(len(body))}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
