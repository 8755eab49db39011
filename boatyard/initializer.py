"""`python -m boatyard.initializer SOURCE FOLDER`: what a pod runs before its model server, in KServe's place.

It fills FOLDER with the package at SOURCE (s3://, gs://, pvc://, file:// or a folder), verified against the digest
that the endpoint was rendered with: the one in the URI (…/sha256-<hex>) and the pod's annotation boatyard/digest.
Started again after a kill it goes on where it was. What is wrong is one line, on standard error and in the pod's
status; the exit code is 1 then, and the pod does not start.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

from boatyard import storage
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, BoatyardError, ConfigError
from boatyard.packages import checking
from boatyard.packages.manifest import MANIFEST, read_files
from boatyard.packages.trust import Trust

TERMINATION = Path("/dev/termination-log")


def initialise(source: str, folder: Path, digest: str | None = None, trust: Trust | None = None) -> str:
    """Fill a folder with the package at a URI and return its digest.

    With `trust`, the package must be vouched for as well. Raises ConfigError without a digest to hold it against,
    ArtifactError when the package is not that one or not whole, StorageError when it cannot be read or written.
    """
    from boatyard.storage import transfer

    wanted = _wanted(source, digest)
    if not storage.in_bucket(source) and storage.parse(source, Path.cwd()) == folder.absolute():
        return checking.check(folder, wanted, trust).manifest.digest
    transfer.fetch(storage.open(source), folder, name=MANIFEST, read=read_files, digest=wanted)
    return checking.check(folder, wanted, trust).manifest.digest


def _wanted(source: str, digest: str | None) -> str:
    """Return the digest that the package must have; the URI's and the one that was given must not differ."""
    known = {each for each in (storage.bound(source), digest) if each}
    if not known:
        raise ConfigError(
            f"{source}",
            expected="a digest to hold the package against",
            found="none",
            fix=("give the InferenceService the annotation boatyard/digest, or a URI that ends in /sha256-<digest>"),
        )
    if len(known) > 1:
        raise ArtifactError(
            f"{source}", expected=f"sha256 {digest} (boatyard/digest)", found=f"{storage.bound(source)} in it"
        )
    return known.pop()


def main(arguments: list[str] | None = None) -> int:
    """Fill each FOLDER from the SOURCE before it; 0 when all are right, 1 with one line, 2 for wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or len(given) % 2:
        print("usage: python -m boatyard.initializer SOURCE FOLDER [SOURCE FOLDER …]", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        digest = _expected_digest()
        for source, folder in zip(given[::2], given[1::2], strict=True):
            found = initialise(source, Path(folder), digest)
            logging.info("%s: package %s is complete and verified", folder, found)
    except BoatyardError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(str(artifacts.storage_error(Path(error.filename or "."), error)))
    return 0


def _expected_digest() -> str | None:
    from boatyard.settings import Settings

    return Settings().digest


def _fail(message: str) -> int:
    line = f"boatyard: {' '.join(message.split())}"
    print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # outside a pod there is none
        if TERMINATION.exists():
            TERMINATION.write_text(line)
    return 1


if __name__ == "__main__":
    sys.exit(main())
