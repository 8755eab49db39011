"""How the processes of one server talk: a line of JSON a message, and connections passed from hand to hand."""

from __future__ import annotations

import array
import asyncio
import inspect
import itertools
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import orjson

from boatyard.errors import ArtifactError

from .errors import HttpError

logger = logging.getLogger(__name__)
T = TypeVar("T")
LONGEST = 64 << 20  # bytes of a message
AT_ONCE = socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)
KINDS = {b"h": "http", b"g": "grpc"}
LETTERS = {kind: letter for letter, kind in KINDS.items()}


class Channel:
    """Both ends of it are alike: `say` tells, `ask` waits for an answer, `handlers` answer what the other end sends."""

    def __init__(self, end: socket.socket, handlers: Mapping[str, Callable[..., Any]]) -> None:
        self._end, self._handlers = end, handlers
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._writer: asyncio.StreamWriter | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Be ready to say and ask."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._end, limit=LONGEST)

    async def listen(self) -> None:
        """Answer the other end until it is gone; whoever waits for it then gets ConnectionError."""
        try:
            while line := await self._reader.readline():
                if line.endswith(b"\n"):
                    self._hear(orjson.loads(line))
        except OSError as error:
            logger.debug("the other process is gone: %s", error)
        finally:
            self.close()

    def say(self, verb: str, **what: Any) -> None:
        """Tell the other end; what it makes of that is its affair."""
        self._write({"verb": verb, "what": what})

    async def ask(self, verb: str, seconds: float, **what: Any) -> Any:
        """Return the other end's answer; raises HttpError or ArtifactError as it did, ConnectionError, TimeoutError."""
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._write({"verb": verb, "what": what, "number": number})
            return await asyncio.wait_for(self._asked[number], seconds)
        finally:
            del self._asked[number]

    def close(self) -> None:
        """Hang up."""
        if self._writer:
            self._writer.close()
        self._writer = None
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ConnectionError("the other process is gone"))

    def _write(self, message: dict[str, Any]) -> None:
        if self._writer is None or self._writer.is_closing():
            raise ConnectionError("the other process is gone")
        self._writer.write(orjson.dumps(message) + b"\n")

    def _hear(self, message: dict[str, Any]) -> None:
        if "answers" in message:
            future = self._asked.get(message["answers"])
            if future and not future.done():
                _settle(future, message)
            return
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"answers": message.get("number")}
        try:
            found = self._handlers[message["verb"]](**message["what"])
            answer["found"] = await found if inspect.isawaitable(found) else found
        except HttpError as error:
            answer |= {"error": str(error), "status": error.status, "headers": error.headers}
        except ArtifactError as error:
            answer |= {"error": str(error), "status": 422}
        except Exception as error:
            logger.exception("%s failed", message["verb"])
            answer |= {"error": f"{type(error).__name__}: {error}", "status": 500}
        if "number" in message and self._writer:
            self._write(answer)


async def finished(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, T]) -> T:
    """Do something to its end even when who asked no longer waits; return what it does, raise as it does.

    It is kept in `tasks` until then.
    """
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at, whoever waits
    return await asyncio.shield(task)


def _settle(future: asyncio.Future[Any], message: Mapping[str, Any]) -> None:
    """Give an asker what the other end found, or raise what it raised."""
    status = message.get("status")
    if status is None:
        future.set_result(message["found"])
    elif status == 422:
        future.set_exception(ArtifactError(message["error"]))
    elif status == 500:
        future.set_exception(RuntimeError(message["error"]))
    else:
        future.set_exception(HttpError(status, message["error"], message["headers"]))


def hand(hatch: socket.socket, kind: str, client: socket.socket) -> bool:
    """Pass a connection to the other end; say whether it could be: not while that end does not take them."""
    descriptors = array.array("i", [client.fileno()])
    try:
        hatch.sendmsg([LETTERS[kind]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)], socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def taken(hatch: socket.socket) -> Iterator[tuple[str, socket.socket | None]]:
    """Yield the connections that wait to be taken, with their kinds; None for one that the kernel has dropped.

    Raises OSError when there is no descriptor for one: it would be dropped, so it waits.
    """
    while True:
        os.close(os.dup(hatch.fileno()))
        try:
            letter, descriptors, _flags, _address = socket.recv_fds(hatch, 1, 1, AT_ONCE)
        except OSError:  # none waits
            return
        if not letter:  # the other end is gone
            return
        yield KINDS[letter], socket.socket(fileno=descriptors[0]) if descriptors else None
