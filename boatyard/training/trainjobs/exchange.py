"""What passes between pods and caller: sealed folders, through a claim that both mount or a bucket."""

from __future__ import annotations

import shutil
from pathlib import Path

from boatyard import storage
from boatyard.data import artifacts
from boatyard.errors import ConfigError, StorageError


def put(folder: Path, uri: str, kind: str) -> None:
    """Put a sealed folder where the pods read it, unless it is there."""
    if storage.in_bucket(uri):
        from boatyard.storage import transfer

        transfer.send(folder, storage.open(uri), read=artifacts.reader(kind))
        return
    path = _mounted(uri)
    if (path / artifacts.MANIFEST).is_file() and _same(folder, path):
        return
    with artifacts.new_folder(path) as beside:
        shutil.copytree(folder, beside, dirs_exist_ok=True)


def bring(uri: str, folder: Path, kind: str) -> None:
    """Bring a folder from where the pods wrote it; raises ArtifactError when a file is not as its manifest says."""
    with artifacts.new_folder(folder) as beside:
        if storage.in_bucket(uri):
            from boatyard.storage import transfer

            transfer.fetch(storage.open(uri), beside, read=artifacts.reader(kind))
            return
        shutil.copytree(_mounted(uri), beside, dirs_exist_ok=True)
        artifacts.verify(beside, kind)


def _mounted(uri: str) -> Path:
    try:
        return storage.parse(uri, Path("/"))
    except StorageError as error:
        raise ConfigError(
            f"train.storage: dataset and checkpoint pass through {uri.rpartition('/')[0]}, which is not reached from "
            "here",
            fix="mount the claim, or give train.storage=s3://BUCKET/FOLDER",
        ) from error


def _same(folder: Path, other: Path) -> bool:
    return artifacts.digest_file(folder / artifacts.MANIFEST) == artifacts.digest_file(other / artifacts.MANIFEST)
