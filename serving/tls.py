"""TLS by files: a certificate and its key, read again when they change, so that a renewed one needs no restart."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boatyard.errors import ConfigError


@dataclass(frozen=True)
class Tls:
    """Files in PEM: the certificate with its chain, and the key. HTTP's are watched by KServe's server."""

    certificate: Path
    key: Path

    def check(self) -> None:
        """Raise ConfigError when they are not there or do not belong together."""
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except OSError as error:  # an SSLError is one too
            files = f"{self.certificate} and {self.key}"
            raise ConfigError(f"expected a certificate and its key in PEM, found {files}: {error}") from error

    def renewed(self) -> Callable[[], ssl.SSLContext]:
        """Return what gives the context of a gRPC connection: it looks at the files each time."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["h2"])
        latest: tuple[tuple[int, int], ...] = ()

        def look() -> ssl.SSLContext:
            nonlocal latest
            try:
                found = self._seen()
                if found != latest:
                    self.check()
                    context.load_cert_chain(self.certificate, self.key)
                    latest = found
            except (ConfigError, OSError):  # one of the two is just being replaced: the former go on
                if not latest:
                    raise
            return context

        return look

    def _seen(self) -> tuple[tuple[int, int], ...]:
        return tuple((file.stat().st_mtime_ns, file.stat().st_ino) for file in (self.certificate, self.key))
