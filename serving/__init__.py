"""A package behind KServe's protocols: payload in, boatyard.prediction, payload out.

`rest` and `grpc` take requests, `v2` turns their tensors into arrays and back, `predictor` is the KServe model with its
inference threads, `server` is KServe's ModelServer with this project's doors in front.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .limits import BODY_LIMIT, Limits, Options


def serve(
    package: Path | Sequence[Path],
    *,
    host: str = "127.0.0.1",
    http_port: int = 8080,
    grpc_port: int | None = 8081,
    workers: int | None = None,
    name: str | None = None,
    digest: str | None = None,
    threads: int | None = None,
    body_limit: int = BODY_LIMIT,
    drain: float = 0,
    batch: int | None = None,
    engine: str = "onnxruntime",
    queue: int = Limits.rows,
    timeout: float = Limits.seconds,
    access_log: float = 0.01,
    repository: Path | None = None,
    token: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve a package, or several, until SIGTERM or SIGINT; return when the requests at work then are answered.

    So many processes as `workers` answer; without a number one does, and more are started while those there are use up
    their processors, as many as the container has processors, 8 at most.
    `name` is the model's in URLs (the package's own by default); with `digest`, only the package of that digest is
    served; no `grpc_port`, no gRPC. The `engine` is onnxruntime or, an extra, openvino. `batch` rows are answered at
    once by `threads` (both measured while loading), `queue` rows may wait, each for `timeout` seconds at most; a
    share of `access_log` of the requests is logged.
    Whoever shows `token` may load packages of the folder `repository` by name, and unload models. With the files
    `certificate` and `key` both protocols speak TLS. On a signal readiness flips at once and `drain` seconds pass
    before the listeners close. Raises ArtifactError when a package does not verify or does not answer its golden
    examples, ConfigError when a port or the certificate cannot be had.
    """
    arguments, sys.argv = sys.argv, sys.argv[:1]  # kserve reads the command line of whoever imports it
    try:
        from .doors import listen
        from .memory import settle
        from .models import Models
        from .pool import Pool
        from .server import Server, run
        from .tls import Tls
    finally:
        sys.argv = arguments
    if certificate and key:
        Tls(certificate, key).check()
    settle()
    limits = Limits(rows=queue, seconds=timeout)
    models = Models(limits, folder=repository, threads=threads, batch=batch, processes=workers or 1, engine=engine)
    for each in [package] if isinstance(package, Path) else package:
        models.add(models.open(each, name=name, digest=digest))
    options = Options(
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        workers=workers,
        body_limit=body_limit,
        drain=drain,
        access_log=access_log,
        token=token,
        certificate=certificate,
        key=key,
    )
    listeners = {"http": listen(host, http_port, "--http-port")}
    if grpc_port:
        listeners["grpc"] = listen(host, grpc_port, "--grpc-port")
    run(Server(models, options, Pool(models, options), listeners).serve())
