"""A model served: the real server, in a process of its own, for as long as a block or a notebook needs it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from boatyard.api.packages import find_package
from boatyard.errors import BoatyardError, ConfigError

if TYPE_CHECKING:
    from boatyard.api.models import Model
    from boatyard.project import Project

READY_S = 120.0  # a large model is verified, loaded and measured in that time
STOP_S = 60.0  # the server's own time for requests that are at work, twice
POLL_S = 0.05
TRIES = 3  # a free port may be another's by the time that the server asks for it


@dataclass(frozen=True)
class Server:
    """A server at work; `stop` ends it, as the end of a `with` block and of this process do."""

    name: str
    url: str
    grpc_url: str
    process: subprocess.Popen[bytes] = field(repr=False)

    def stop(self) -> None:
        """Let requests at work be answered, and end the server."""
        _stop(self.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def serve(
    model: Model | Project | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    grpc_port: int | None = None,
    workers: int | None = None,
    name: str | None = None,
    engine: str = "onnxruntime",
) -> Server:
    """Serve a model over the KServe protocols, V1, V2 and gRPC; return once it is ready.

    Port 0 is a free one; gRPC's is the one after `port` unless it is given, so a free one where that is 0.

        with boatyard.serve("flowers", port=0) as server:
            server.url

    Raises what the server ended with where it does not become ready.
    """
    path, named = _path(model), name or _name(model)
    if grpc_port is None:
        grpc_port = port + 1 if port else 0
    for tries in range(TRIES, 0, -1):
        ports = port or _free(host), grpc_port or _free(host)
        options = ["--host", host, "--port", str(ports[0]), "--grpc-port", str(ports[1]), "--engine", engine]
        options += ["--workers", str(workers)] if workers else []
        options += ["--name", name] if name else []
        try:
            return _start(path, host, ports, options, named)
        except ConfigError:
            if tries == 1 or (port and grpc_port):
                raise
    raise AssertionError("the last try returns or raises")


def serve_here(
    model: Model | Project | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    grpc_port: int = 8081,
    workers: int | None = None,
    name: str | None = None,
    engine: str = "onnxruntime",
) -> None:
    """Serve a model in this process, whose main thread this is, until SIGTERM or SIGINT: what the command does."""
    path = _path(model)
    try:
        from boatyard import serving
    except ImportError as error:
        raise ConfigError(f"serving needs {error.name}", fix="pip install 'boatyard[serve]'") from error
    serving.serve(path, host=host, http_port=port, grpc_port=grpc_port, workers=workers, name=name, engine=engine)


def _path(model: Model | Project | str | Path) -> Path:
    package = getattr(model, "package", None)
    return package.path if package is not None else find_package(model)  # type: ignore[arg-type]


def _name(model: Model | Project | str | Path) -> str:
    """Return the name of a model's package, verified before a process is started for it."""
    from boatyard import packages

    package = getattr(model, "package", None) or packages.verify(_path(model))
    return str(package.name)


def _start(path: Path, host: str, ports: tuple[int, int], options: list[str], name: str) -> Server:
    from boatyard.running.step import PARENT

    held, alive = os.pipe()  # the server sees it close when this process ends, however it does
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "boatyard", "serve", str(path), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, PARENT: str(held)},
            pass_fds=(held,),
            start_new_session=True,  # Ctrl-C in a notebook is for the cell, not for its server
        )
        os.close(held)
        at = f"[{host}]" if ":" in host else host
        server = Server(name, f"http://{at}:{ports[0]}", f"{at}:{ports[1]}", process)
        weakref.finalize(process, _close, alive)
        try:
            _wait(server, log)
        except BaseException:
            server.stop()
            raise
    return server


def _wait(server: Server, log: IO[bytes]) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise _ended(log)
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/v2/health/ready", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(POLL_S)
    raise BoatyardError(f"the server was not ready within {READY_S:g} s")


def _ended(log: IO[bytes]) -> BoatyardError:
    """Return the error of a server that ended while it started: the command's own sentence."""
    log.seek(0)
    text = log.read().decode(errors="replace").strip()
    _, mark, sentence = text.rpartition("boatyard: ")
    return ConfigError(sentence if mark else f"the server ended: {text[-1000:]}")


def _free(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
