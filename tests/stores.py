"""A store that speaks S3 on this machine's loopback, for the tests: real HTTP, real conditions on a write."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from ports import free_port

BUCKET = "boatyard"


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Run a store with one bucket and give its address."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        make_bucket(address, process)
        yield address
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def make_bucket(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT"), timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None and time.monotonic() < until, "the store did not start"
            time.sleep(0.1)


def use(monkeypatch: pytest.MonkeyPatch, address: str, **more: str) -> None:
    """Set the environment as a pod's Secret would; what this machine has set for AWS does not count."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "boatyard",
        "AWS_SECRET_ACCESS_KEY": "boatyard-secret",
        "AWS_REGION": "us-east-1",
        **more,
    }.items():
        monkeypatch.setenv(name, value)


class Between(BaseHTTPRequestHandler):
    """Hand requests on to a store and answers back; subclasses spoil some of them."""

    protocol_version = "HTTP/1.1"
    store: str
    drop: tuple[str, ...] = ()  # headers that do not get through

    def hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {"Content-Type": "application/octet-stream"}  # urllib would call it a form
        headers |= {k: v for k, v in self.headers.items() if k.lower() not in (*self.drop, "connection")}
        request = urllib.request.Request(self.store + self.path, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=30) as found:
                self.answer(found.status, dict(found.headers), found.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, dict(error.headers), error.read())

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = hand_on

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server that takes it quietly when a client is gone: some tests kill theirs."""

    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, address)  # type: ignore[arg-type]


@contextlib.contextmanager
def between(handler: type[Between], store: str) -> Iterator[str]:
    """Run a server between a client and a store, and give its address."""
    server = Server(("127.0.0.1", 0), type("Handler", (handler,), {"store": store}))
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
