"""`python -m serving`: what a container runs. The package lies where KServe mounts it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from boatyard import plugins, storage
from boatyard.errors import BoatyardError

from . import serve
from .limits import BODY_LIMIT, Limits

if TYPE_CHECKING:
    from boatyard.settings import Settings

MOUNT = "/mnt/models"  # where KServe's storage initializer puts what STORAGE_URI names


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; 0 after a clean stop, 1 with one sentence when the package is refused."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        serve(
            _unpacked(storage.parse(options.package, Path.cwd())),
            host=options.host,
            http_port=options.http_port,
            grpc_port=options.grpc_port or None,
            workers=options.workers,
            name=options.name,
            digest=options.digest,
            threads=options.threads,
            body_limit=options.body_limit,
            drain=options.drain,
            batch=options.batch,
            engine=options.engine,
            queue=options.queue,
            timeout=options.timeout,
            access_log=options.access_log,
            repository=options.repository,
            certificate=options.tls_certificate,
            key=options.tls_key,
            token=_settings().admin_token,
        )
    except BoatyardError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


def _settings() -> Settings:
    """Read the environment; the import takes time that `--help` does not need."""
    from boatyard.settings import Settings

    return Settings()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m boatyard.serving", description="Serve a package by KServe's protocols."
    )
    package = os.environ.get("MODEL_DIR", MOUNT)
    parser.add_argument("--package", default=package, help="folder or file:// URI (default: MODEL_DIR or %(default)s)")
    parser.add_argument("--name", help="of the model in URLs (default: the package's)")
    parser.add_argument("--digest", help="sha256 that package.json must have (default: any)")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen at (default: %(default)s)")
    parser.add_argument("--http-port", type=int, default=8080, help="default: %(default)s")
    parser.add_argument("--grpc-port", type=int, default=8081, help="0: no gRPC (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="processes that answer (default: one, and more when it is busy)")
    parser.add_argument("--threads", type=int, help="of one inference (default: measured while loading)")
    parser.add_argument("--body-limit", type=int, default=BODY_LIMIT, help="bytes of a request (default: %(default)s)")
    parser.add_argument("--batch", type=int, help="rows answered at once (default: measured while loading)")
    parser.add_argument(
        "--engine",
        choices=plugins.names("engines"),
        default="onnxruntime",
        help="what runs the ONNX model (default: %(default)s)",
    )
    parser.add_argument("--queue", type=int, default=Limits.rows, help="rows that may wait (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=Limits.seconds, help="seconds of a request (default: 60)")
    parser.add_argument("--access-log", type=float, default=0.01, help="share of requests logged (default: 0.01)")
    parser.add_argument("--tls-certificate", type=Path, help="PEM file, read again when it changes")
    parser.add_argument("--tls-key", type=Path, help="PEM file of its key")
    parser.add_argument("--repository", type=Path, help="packages to load by name, with BOATYARD_ADMIN_TOKEN")
    parser.add_argument("--drain", type=float, default=0, help="seconds between not ready and closed (default: 0)")
    options = parser.parse_args(arguments)
    if options.workers is not None and options.workers < 1:
        parser.error("--workers wants 1 or more")
    if (options.tls_certificate is None) != (options.tls_key is None):
        parser.error("--tls-certificate and --tls-key go together")
    return options


def _unpacked(path: Path) -> Path:
    """Return the package's folder: the one given, or the only one in it (some storage URIs keep their last part)."""
    inside = [each for each in path.iterdir() if each.is_dir()] if path.is_dir() else []
    if (path / "package.json").exists() or len(inside) != 1:
        return path
    return inside[0]


if __name__ == "__main__":
    sys.exit(main())
