"""A package behind KServe's protocols: payload in, boatyard.prediction, payload out.

`rest` and `grpc` take requests, `v2` turns their tensors into arrays and back, `predictor` is the KServe model with its
one inference thread, `server` is KServe's ModelServer with this project's doors in front.
"""

from __future__ import annotations

import sys
from pathlib import Path

from boatyard import prediction

from .limits import Limits

BODY_LIMIT = 64 << 20  # bytes of a request's body; a batch of 80 000 small images


def serve(
    package: Path,
    *,
    host: str = "127.0.0.1",
    http_port: int = 8080,
    grpc_port: int | None = 8081,
    name: str | None = None,
    digest: str | None = None,
    threads: int | None = None,
    body_limit: int = BODY_LIMIT,
    drain: float = 0,
    batch: int = Limits.batch,
    queue: int = Limits.rows,
    timeout: float = Limits.seconds,
    access_log: float = 0.01,
) -> None:
    """Serve a package until SIGTERM or SIGINT; return when the requests at work then are answered.

    `name` is the model's in URLs (the package's own by default); with `digest`, only the package of
    that digest is served; no `grpc_port`, no gRPC. `batch` rows are answered at once, `queue` rows may wait, each for
    `timeout` seconds at most; a share of `access_log` of the requests is logged. On a signal readiness flips
    at once and `drain` seconds pass before the listeners close. Raises ArtifactError when the package does not verify
    or does not answer its golden examples, ConfigError when a port cannot be had.
    """
    loaded = prediction.load(package, digest=digest, threads=threads)
    arguments, sys.argv = sys.argv, sys.argv[:1]  # kserve reads the command line of whoever imports it
    try:
        from .predictor import Predictor
        from .server import Server
    finally:
        sys.argv = arguments
    model = Predictor(loaded, name, Limits(batch=batch, rows=queue, seconds=timeout))
    server = Server(
        model,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        body_limit=body_limit,
        drain=drain,
        access_log=access_log,
    )
    server.start([model])
