"""KServe's ModelServer with doors of our own, an honest readiness and a stop that drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import kserve
import kserve.model_server
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.server import RESTServer

from . import grpc
from .access import AccessLog
from .doors import Door
from .http import Connection
from .limits import Options
from .metrics import Numbers
from .models import Models
from .pool import Pool
from .rest import Front
from .tls import Tls

if TYPE_CHECKING:
    from .worker import Link

warnings.filterwarnings("ignore", "ORJSONResponse is deprecated")  # kserve 0.21 under the fastapi that it allows
logger = logging.getLogger(__name__)
GRACE = 30  # seconds that requests at work get after a signal
LINGER = 0.3  # seconds in which clients that keep asking are answered, and told that this was the last time


class Plane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, ready only while its models are."""

    async def ready(self) -> bool:
        models = self.model_registry
        return not models.draining and all([await model.healthy() for model in models.get_models().values()])


class Server(kserve.ModelServer):  # type: ignore[misc]
    """Models behind HTTP and, with a port for it, gRPC. `pool` is this process's side of the server's processes."""

    def __init__(
        self,
        models: Models,
        options: Options,
        pool: Pool | Link,
        listeners: Mapping[str, socket.socket] | None = None,
    ) -> None:
        """Without `listeners`, sockets by `http` and `grpc`, clients come by `connect`."""
        tls = Tls(options.certificate, options.key) if options.certificate and options.key else None
        super().__init__(
            http_port=options.http_port,
            enable_grpc=False,
            enable_latency_logging=False,
            grace_period=GRACE,
            registered_models=models,
            ssl_certfile=str(tls.certificate) if tls else None,
            ssl_keyfile=str(tls.key) if tls else None,
        )
        _quiet()
        self.dataplane = Plane(model_registry=models)
        self.models, self.options, self.pool = models, options, pool
        self._front = Front(
            kserve.model_server.app, models, options.body_limit, AccessLog(options.access_log), pool, options.token
        )
        self.exposition = self._front.exposition
        self._rest_server = self._rest()
        self._http = self._rest_server._server
        self._grpc = grpc.Server(self.dataplane, self._front, tls) if options.grpc_port else None
        self._listeners = listeners or {}
        self._closing: list[asyncio.Task[None]] = []
        self._open, self._closed = False, 0.0
        self._doors = {"http": Door(self._connection, lambda: self._http.config.ssl, self._listeners.get("http"))}
        if self._grpc:
            self._doors["grpc"] = Door(self._grpc.connection, self._grpc.secure, self._listeners.get("grpc"))

    async def serve(self) -> None:
        """Serve until a signal, or until `close`; return when what was at work then is answered."""
        self._register_and_check_atleast_one_model_is_ready(list(self.models.get_models().values()))
        loop = asyncio.get_running_loop()
        if self._listeners:
            self.exposition.register()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop)
        self._rest_server.create_application()
        self._http.startup = partial(self._start, self._http.startup)
        clients: list[Any] = [self._http.server_state.connections]
        if self._grpc:
            clients.append(self._grpc.connections)
        sweep = loop.create_task(_sweep(clients))
        await self._http.serve(sockets=[])
        until = (self._closed or time.monotonic()) + GRACE
        if self._grpc:
            await self._grpc.stop(until - time.monotonic())
        await self.pool.ended(until - time.monotonic())
        sweep.cancel()
        logger.info("stopped")

    def connect(self, kind: str, client: socket.socket) -> None:
        """Take a connection in that another process accepted."""
        self._doors[kind].connect(client)

    def clients(self) -> int:
        """Return how many connections there are."""
        open_now = len(self._http.server_state.connections) + sum(map(len, self._doors.values()))
        return open_now + (len(self._grpc.connections) if self._grpc else 0)

    def numbers(self) -> list[Numbers]:
        """Return what this process counted."""
        return [*self.models.numbers(), self.exposition.strangers]

    def unready(self) -> None:
        """Say not ready from now on; requests are still answered."""
        self.models.stop()
        if self._grpc:
            self._grpc.drain()

    def leave(self) -> None:
        """Tell every HTTP client with its next answer that the connection ends; it then asks another server."""
        self.models.leaving = True
        self.pool.leave()

    async def close(self) -> None:
        """Let nobody in any more, and let `serve` return when those that are in are answered."""
        self._closed = time.monotonic()
        for door in self._doors.values():
            door.close()
            await door.settled()
        self.leave()
        self.pool.stop()
        until = time.monotonic() + LINGER
        while self._http.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self._http.should_exit = True

    def _rest(self) -> RESTServer:
        rest = RESTServer(
            self._front,
            self.dataplane,
            self.model_repository_extension,
            self.http_port,
            grace_period=GRACE,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
        )
        rest.config.http, rest.config.lifespan = Connection, "off"  # KServe's application has nothing to do then
        rest._server.capture_signals = contextlib.nullcontext  # they are ours
        return rest

    def _connection(self) -> Connection:
        return Connection(self._http.config, self._http.server_state, self._http.lifespan.state, self._front)

    async def _start(self, startup: Callable[..., Awaitable[None]], sockets: list[socket.socket]) -> None:
        """Start uvicorn, which gets no socket, then the other processes; then let clients in."""
        await startup(sockets=sockets)
        await self.pool.start(self)
        if self.models.draining:  # since then it was told to stop
            return
        self._open = True
        if self._listeners:
            host, port = self._listeners["http"].getsockname()[:2]
            for each in self.models.index():
                scheme = "https" if self.ssl_certfile else "http"
                logger.info("serving %s at %s://%s:%d, sha256 %s", each["name"], scheme, host, port, each["version"])
        for kind, door in self._doors.items():
            door.open(partial(self.pool.pass_on, kind))

    def _stop(self) -> None:
        """Say not ready at once, close when endpoints have had time to notice; a second signal does not wait.

        From half of that time on, clients that hold a connection are asked to come again: they get to another server.
        """
        if self.models.draining:
            self._http.should_exit = self._http.force_exit = True
            self.pool.abort()
            if self._grpc:
                self._grpc.abort()
            return
        seconds = self.options.drain if self._open else 0
        logger.info("stopping: not ready from now on, closing in %g s", seconds)
        self.unready()
        self.pool.drain()
        loop = asyncio.get_running_loop()
        loop.call_later(seconds / 2, self.leave)
        loop.call_later(seconds, lambda: self._closing.append(loop.create_task(self.close())))


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a server's coroutine on the fastest event loop there is."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main)


async def _sweep(doors: Iterable[Any]) -> None:
    """Close what is idle or too slow; one look a second for all connections."""
    while True:
        await asyncio.sleep(1)
        now = time.monotonic()
        for connections in doors:
            for connection in list(connections):
                connection.overdue(now)


def _loop_factory() -> Any:
    """Return uvloop's, which halves the cost of a request, where it is installed (not on Windows)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _quiet() -> None:
    """Write no line a request: it costs more than many a request. Numbers are at /metrics."""
    logging.getLogger("kserve.trace").setLevel(logging.WARNING)
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False
