"""Where clients come in: a socket that listens, and whose clients its connections become."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

from boatyard.errors import ConfigError

logger = logging.getLogger(__name__)

BACKLOG = 2048  # connections that the kernel holds for us
AT_ONCE = 64  # that are accepted before requests get their turn
HANDSHAKE, GOODBYE = 30.0, 2.0  # seconds of TLS: a client that does not say goodbye is not waited for
PAUSE = 1.0  # seconds without accepting when there is nothing left to accept with
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Protocol = Callable[[], asyncio.Protocol]
Secure = Callable[[], ssl.SSLContext | None]


class Door:
    """One protocol's way in. Without a listener, connections come from another process by `connect`."""

    def __init__(self, protocol: Protocol, secure: Secure, listener: socket.socket | None) -> None:
        """`secure` gives the TLS context of a connection, or None."""
        self._protocol, self._secure, self._listener = protocol, secure, listener
        self._coming: set[asyncio.Task[None]] = set()
        self._elsewhere: Callable[[socket.socket], bool] = lambda client: False

    def open(self, elsewhere: Callable[[socket.socket], bool]) -> None:
        """Accept; a client that `elsewhere` takes, which then says so, is not ours."""
        self._elsewhere = elsewhere
        if self._listener:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more; clients that are in stay, and those whom the kernel let in come in."""
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._accept()
            self._listener.close()
            self._listener = None

    def connect(self, client: socket.socket) -> None:
        """Make a connection a client of this process."""
        client.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._connect(client))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def settled(self) -> None:
        """Return when those that came until now are clients; a handshake that takes longer than a second is ended."""
        if self._coming:
            _, late = await asyncio.wait(self._coming, timeout=PAUSE)
            for task in late:
                task.cancel()

    def __len__(self) -> int:
        return len(self._coming)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if self._listener is None:
                return
            try:
                client, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    return self._pause(error)
                continue  # that client has left
            if self._elsewhere(client):
                client.close()  # it is open in the other process
            else:
                self.connect(client)

    def _pause(self, error: OSError) -> None:
        """Leave clients to the kernel for a while: asking again at once would take all time."""
        assert self._listener
        logger.warning("cannot accept connections for now: %s", error.strerror)
        loop, number = asyncio.get_running_loop(), self._listener.fileno()
        loop.remove_reader(number)
        loop.call_later(PAUSE, self._resume, number)

    def _resume(self, number: int) -> None:
        if self._listener and self._listener.fileno() == number:
            asyncio.get_running_loop().add_reader(number, self._accept)

    async def _connect(self, client: socket.socket) -> None:
        secure = self._secure()
        handshake = {"ssl_handshake_timeout": HANDSHAKE, "ssl_shutdown_timeout": GOODBYE} if secure else {}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol, client, ssl=secure, **handshake
            )  # fmt: skip
        except (OSError, asyncio.CancelledError) as error:  # no TLS, or gone: a client's own affair
            logger.debug("a connection failed: %s", error)
            client.close()


def listen(host: str, port: int, option: str) -> socket.socket:
    """Take the port now: a server that cannot have it says so before anything starts; raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port} ({error.strerror}); give another {option} or --host"
        ) from error
    found.setblocking(False)
    return found
