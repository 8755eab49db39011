"""TLS by files: a certificate and its key, read again when they change, so that a renewed one needs no restart."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

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
            raise ConfigError(f"wanted a certificate and its key in PEM, found {files}: {error}") from error

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that look at the files with each new connection."""
        latest = self._pair()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal latest
            try:
                self.check()
                found = self._pair()
            except (ConfigError, OSError):  # one of the two is just being replaced: the former go on
                return None
            if found == latest:
                return None
            latest = found
            return grpc.ssl_server_certificate_configuration([found])

        return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([latest]), changed)

    def _pair(self) -> tuple[bytes, bytes]:
        return self.key.read_bytes(), self.certificate.read_bytes()
