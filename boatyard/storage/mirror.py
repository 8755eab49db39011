"""Source data that lies in a bucket, as files of this machine: what changed since the last time is fetched, no more."""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from boatyard import storage
from boatyard.data import artifacts
from boatyard.errors import StorageError
from boatyard.locks import locked
from boatyard.storage.buckets import Bucket, Object

logger = logging.getLogger(__name__)

WORKERS = 8
LOCK = ".lock"
TAGS = ".tags.json"  # beside the files: the store's tag of each when it was fetched


def mirror(uri: str) -> Path:
    """Return a folder with the objects below a URI, or the file of the one object that it names.

    The folder is the cache's, the same every time. Raises StorageError when there is nothing, or it cannot be read.
    """
    from boatyard.settings import Settings

    place = storage.open(uri)
    above, name = place.above()
    one = above.look(name) if name else None
    source, wanted = (above, {name: one}) if one else (place, place.list())
    if not wanted:
        raise StorageError(f"{uri}", expected="an object or a folder of objects", found="none", fix="look at the URI")
    folder = Settings().cache / "data" / quote(source.uri, safe="")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LOCK):
            _update(source, folder, wanted, whole=one is None)
    except OSError as error:
        raise artifacts.storage_error(folder, error) from error
    return folder / name if one else folder


def _update(source: Bucket, folder: Path, wanted: dict[str, Object], *, whole: bool) -> None:
    tags = json.loads((folder / TAGS).read_text()) if (folder / TAGS).exists() else {}
    stale = [each for key, each in wanted.items() if not _is_same(folder / key, each, tags.get(key))]
    started = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda each: source.download(each.key, folder / each.key), stale))
    artifacts.write_json(folder / TAGS, {**tags, **{key: each.tag for key, each in wanted.items()}})
    if whole:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            key = path.relative_to(folder).as_posix()
            if key not in wanted and key not in (TAGS, LOCK):
                path.unlink()
    size, seconds = sum(each.bytes for each in stale), time.monotonic() - started
    logger.info("%s: fetched %d of %d, %.1f MB in %.1f s", source.uri, len(stale), len(wanted), size / 1e6, seconds)


def _is_same(path: Path, found: Object, tag: str | None) -> bool:
    return tag is not None and tag == found.tag and path.is_file() and path.stat().st_size == found.bytes
