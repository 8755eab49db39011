"""A package that lies in a bucket, as a folder of this machine: verified, and kept for the next time by its digest."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from boatyard import storage
from boatyard.data import artifacts
from boatyard.errors import ArtifactError
from boatyard.locks import locked
from boatyard.packages.manifest import MANIFEST, read_files
from boatyard.packages.verifying import verify

logger = logging.getLogger(__name__)


def fetch(uri: str, digest: str | None = None, *, to: Path | None = None) -> Path:
    """Return the package at an s3:// or gs:// URI as a verified folder: one of the cache's, or `to`.

    With `digest`, or one in the URI (…/sha256-<hex>), it must be that package. Raises ArtifactError when it is not
    whole and right, StorageError when it cannot be read.
    """
    from boatyard.settings import Settings
    from boatyard.storage import transfer

    source = storage.open(uri)
    wanted = digest or storage.bound(source.uri)
    if to is not None:
        with artifacts.new_folder(to) as folder:
            verify(folder, transfer.fetch(source, folder, name=MANIFEST, read=read_files, digest=wanted))
        return to
    wanted = wanted or artifacts.digest_bytes(source.read(MANIFEST))
    kept = Settings().cache / "packages" / f"sha256-{wanted}"
    with _locked(kept):
        if not _is_whole(kept, wanted):
            coming = kept.with_name(f".{kept.name}.part")  # of this name every time: a killed download goes on
            transfer.fetch(source, coming, name=MANIFEST, read=read_files, digest=wanted)
            verify(coming, wanted)
            artifacts.replace_folder(coming, kept)
    return kept


def _is_whole(kept: Path, digest: str) -> bool:
    if not kept.is_dir():
        return False
    try:
        verify(kept, digest)
    except ArtifactError as error:
        logger.warning("%s; it is fetched again", error)
        shutil.rmtree(kept, ignore_errors=True)
        return False
    return True


@contextlib.contextmanager
def _locked(kept: Path) -> Iterator[None]:
    """Keep others on this machine from filling the same folder at the same time."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with locked(kept.with_name(f".{kept.name}.lock")):
            yield
    except OSError as error:
        raise artifacts.storage_error(kept, error) from error
