"""KServe's ModelServer with one worker, an address of our choice, an honest readiness and a stop that drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
import warnings
from collections.abc import Iterable
from typing import Any

import kserve
import kserve.model_server
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.server import RESTServer

from boatyard.errors import ConfigError

from . import grpc
from .access import AccessLog
from .http import Connection
from .models import Models
from .predictor import Predictor
from .rest import Front
from .tls import Tls

warnings.filterwarnings("ignore", "ORJSONResponse is deprecated")  # kserve 0.21 under the fastapi that it allows
logger = logging.getLogger(__name__)
GRACE = 30  # seconds that requests at work get after a signal


class Plane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, ready only while its models are."""

    async def ready(self) -> bool:
        models = self.model_registry
        return not models.draining and all([await model.healthy() for model in models.get_models().values()])


class Server(kserve.ModelServer):  # type: ignore[misc]
    """Models behind HTTP and, with a port for it, gRPC."""

    def __init__(
        self,
        models: Models,
        *,
        host: str,
        http_port: int,
        grpc_port: int | None,
        body_limit: int,
        drain: float,
        access_log: float,
        token: str | None,
        tls: Tls | None,
    ) -> None:
        super().__init__(
            http_port=http_port,
            enable_grpc=False,
            enable_latency_logging=False,
            grace_period=GRACE,
            registered_models=models,
            ssl_certfile=str(tls.certificate) if tls else None,
            ssl_keyfile=str(tls.key) if tls else None,
        )
        _quiet()
        self.dataplane = Plane(model_registry=models)
        self.models, self.host, self.drain = models, host, drain
        self._front = Front(kserve.model_server.app, models, body_limit, AccessLog(access_log), token)
        self._socket = _listen(host, http_port, "--http-port")
        self._rest_server = self._rest()
        self._grpc = (
            grpc.Server(self.dataplane, self._front, _listen(host, grpc_port, "--grpc-port"), tls)
            if grpc_port
            else None
        )

    def start(self, models: list[Predictor]) -> None:
        """Serve until a signal, and return when what was at work then is answered."""
        self._register_and_check_atleast_one_model_is_ready(models)
        self._front.exposition.register()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._serve())

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
        Connection.front = self._front
        rest.config.http = Connection
        rest._server.capture_signals = contextlib.nullcontext  # they are ours
        return rest

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self._rest_server.create_application()
        if self._grpc:
            await self._grpc.start()
        host, port = self._socket.getsockname()[:2]
        for each in self.models.index():
            scheme = "https" if self.ssl_certfile else "http"
            logger.info("serving %s at %s://%s:%d, sha256 %s", each["name"], scheme, host, port, each["version"])
        doors = [self._rest_server._server.server_state.connections]
        if self._grpc:
            doors.append(self._grpc.connections)
        sweep = loop.create_task(_sweep(doors))
        await self._rest_server._server.serve(sockets=[self._socket])
        if self._grpc:
            await self._grpc.stop(GRACE)
        sweep.cancel()
        logger.info("stopped")

    def _stop(self) -> None:
        """Say not ready at once, close when endpoints have had time to notice; a second signal does not wait."""
        server = self._rest_server._server
        if self.models.draining:
            server.should_exit = server.force_exit = True
            if self._grpc:
                self._grpc.abort()
            return
        logger.info("stopping: not ready from now on, closing in %g s", self.drain)
        self.models.stop()
        if self._grpc:
            self._grpc.drain()
        asyncio.get_running_loop().call_later(self.drain, setattr, server, "should_exit", True)


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


def _listen(host: str, port: int, option: str) -> socket.socket:
    """Take the port now: a server that cannot have it says so before anything starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port} ({error.strerror}); give another {option} or --host"
        ) from error
