"""Folders with a manifest to and from a bucket: nothing counts before its sha256 is as the manifest says.

A download that was killed goes on where it was: files that are there and right are kept, and of a file that had begun
the parts that had come. Until it is whole and right, a file lies in a hidden folder under another name.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from boatyard import waiting
from boatyard.data import artifacts, hashing
from boatyard.data.hashing import File
from boatyard.errors import ArtifactError, StorageError
from boatyard.storage.buckets import Bucket, Object

logger = logging.getLogger(__name__)

WORKERS = 8
PART_BYTES = 8 << 20  # bytes asked at once; WORKERS of them are in memory
MAX_MANIFEST_BYTES = 1 << 20
LISTING_PAUSES_S = (0.1, 0.3, 0.6, 1.0)  # seconds until an object that should not be there is looked for again
SCRATCH = ".boatyard"  # in the folder that is filled, for what has not come whole


Reader = Callable[[bytes, str], dict[str, File]]  # of a manifest's bytes, found at: the files that it lists, by path


def send(folder: Path, to: Bucket, *, read: Reader, name: str = artifacts.MANIFEST) -> None:
    """Write a folder's files as objects, the manifest last; whoever reads it before then finds no such folder.

    Raises ArtifactError when the folder is not as its manifest says, StorageError when the store does not take it.
    """
    files = read(_manifest_of(folder, name), f"{folder}/{name}")
    for difference in hashing.differences(folder, files, name=name, listing=name):
        raise ArtifactError(f"{folder}: {difference}", fix="restore it or make it again")
    started = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        _all([pool.submit(to.put, path, folder / path) for path in files])
    to.put(name, folder / name)
    _check_listing(to, files, name)
    _log("sent", len(files) + 1, sum(file.bytes for file in files.values()), time.monotonic() - started)


def fetch(source: Bucket, to: Path, *, read: Reader, name: str = artifacts.MANIFEST, digest: str | None = None) -> str:
    """Fill a folder with what a manifest in a bucket lists, every file verified, and return the manifest's sha256.

    With `digest`, the manifest itself must be that one. Raises ArtifactError naming the object that is missing,
    surplus or changed, StorageError when the store does not answer or the disk is full.
    """
    data = source.read(name)
    found = hashing.digest_bytes(data)
    if digest is not None and found != digest:
        raise ArtifactError(
            f"{source.uri}: {name} was changed", expected=f"sha256 {digest}", found=f"{found}", fix=f"{RESTORE}"
        )
    if len(data) > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{source.uri}: {name} has {len(data)} bytes, more than {MAX_MANIFEST_BYTES}")
    files = read(data, f"{source.uri}/{name}")
    _check_listing(source, files, name)
    try:
        _fill(source, to, files, name)
        artifacts.write_bytes(to / name, data)
    except OSError as error:
        raise artifacts.storage_error(to, error) from error
    return found


def _manifest_of(folder: Path, name: str) -> bytes:
    try:
        return hashing.read_plain(folder / name, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise ArtifactError(f"{folder}", expected=f"{name} in it", found=f"none ({error.strerror})") from error


RESTORE = "nothing is served of it; restore the object, or push the package again"


class _SurplusObject(ArtifactError):
    """An object that no manifest lists; it may be gone in a moment."""


def _check_listing(source: Bucket, files: Mapping[str, File], name: str) -> None:
    """Raise ArtifactError for the first object that is missing, of another size or not listed.

    What is not listed is looked for again for a while: a store over a file system shows what another writer of the same
    package has not finished, under a name of its own.
    """

    def look() -> None:
        there = source.list()
        _check_listed(source, files, there)
        more = (key for key in sorted(there) if key not in files and key != name)
        surplus = next((key for key in more if there[key].bytes or not _is_folder(key, files)), None)
        if surplus is not None:
            raise _SurplusObject(
                f"{source.uri}",
                expected=f"only what {name} lists",
                found=f"{surplus} too",
                fix="nothing is served of it; remove it",
            )

    pauses = LISTING_PAUSES_S
    waiting.retry(look, _SurplusObject, attempts=len(pauses) + 1, pause_s=lambda attempt: pauses[attempt - 1])


def _check_listed(source: Bucket, files: Mapping[str, File], there: Mapping[str, Object]) -> None:
    for path, file in files.items():
        if path not in there:
            raise ArtifactError(
                f"{source.uri}", expected=f"{path} ({file.bytes} bytes)", found="no such object", fix=f"{RESTORE}"
            )
        if there[path].bytes != file.bytes:
            raise ArtifactError(
                f"{source.uri}",
                expected=f"{path} of {file.bytes} bytes",
                found=f"{there[path].bytes}",
                fix=f"{RESTORE}",
            )


def _is_folder(key: str, files: Mapping[str, File]) -> bool:
    """Whether an empty object is what consoles make for a folder."""
    return not key or any(path.startswith(f"{key}/") for path in files)


def _fill(source: Bucket, to: Path, files: Mapping[str, File], name: str) -> None:
    started = time.monotonic()
    scratch = to / SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    _check_surplus(to, {*files, name})
    kept = {path for path, file in files.items() if _is_right(to / path, file)}
    wanted = [_Download(source, to / path, scratch, file) for path, file in files.items() if path not in kept]
    before = sum(each.there for each in wanted)
    _check_room(to, sum(each.file.bytes for each in wanted) - before)
    with ThreadPoolExecutor(WORKERS) as pool:
        parts = {pool.submit(each.part, start): each for each in wanted for start in each.missing()}
        try:
            _all(list(parts))
            _all([pool.submit(each.finish) for each in wanted])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    shutil.rmtree(scratch)
    more = f"; {len(kept)} files were there" if kept else ""
    more += f"; {before / 1e6:.1f} MB had come before" if before else ""
    _log("fetched", len(wanted), sum(each.file.bytes for each in wanted), time.monotonic() - started, more)


@dataclass
class _Download:
    """One file on its way: its bytes in a file of the scratch folder, and the parts that have come, noted beside it."""

    source: Bucket
    path: Path
    scratch: Path
    file: File

    def __post_init__(self) -> None:
        self.beside = self.scratch / artifacts.digest_bytes(f"{self.file.path} {self.file.sha256}".encode())
        self.note = self.beside.with_suffix(".parts")
        lines = self.note.read_text().split("\n")[:-1] if self.note.exists() and self.beside.exists() else []
        self.come = {int(line) for line in lines if line.isdecimal()}
        self.resumed = bool(self.come)

    @property
    def there(self) -> int:
        return min(self.file.bytes, len(self.come) * PART_BYTES)

    def missing(self) -> Iterator[int]:
        return (start for start in range(0, self.file.bytes, PART_BYTES) if start not in self.come)

    def part(self, start: int) -> None:
        """Bring one part to its place, then note it."""
        data = self.source.part(self.file.path, start, min(PART_BYTES, self.file.bytes - start))
        _write_at(self.beside, data, start)
        with self.note.open("a") as file:
            file.write(f"{start}\n")

    def finish(self) -> None:
        """Put the file in its place if it is right; what was kept of a killed download is asked for anew if not."""
        self.beside.touch()
        found = artifacts.digest_file(self.beside)
        if found != self.file.sha256 and self.resumed:
            for start in range(0, self.file.bytes, PART_BYTES):
                self.part(start)
            found = artifacts.digest_file(self.beside)
        if found != self.file.sha256:
            self.note.unlink(missing_ok=True)
            raise ArtifactError(
                f"{self.source.uri}: {self.file.path} was changed",
                expected=f"sha256 {self.file.sha256}",
                found=f"{found}",
                fix=f"{RESTORE}",
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.beside, self.path)


def _write_at(path: Path, data: bytes, start: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(handle, view, start)
            view, start = view[written:], start + written
    finally:
        os.close(handle)


def _all(futures: list[Future[None]]) -> None:
    """Wait for all; the first error ends the waiting, and what has not begun is not begun."""
    for future in as_completed(futures):
        if (error := future.exception()) is not None:
            for other in futures:
                other.cancel()
            raise error


def _is_right(path: Path, file: File) -> bool:
    return (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size == file.bytes
        and artifacts.digest_file(path) == file.sha256
    )


def _check_surplus(to: Path, listed: set[str]) -> None:
    for path in sorted(to.rglob("*")):
        key = path.relative_to(to).as_posix()
        if (path.is_symlink() or not path.is_dir()) and key not in listed and not key.startswith(f"{SCRATCH}/"):
            raise ArtifactError(
                f"{to}", expected="an empty folder", found=f"{key}, which no manifest lists", fix="remove it"
            )


def _check_room(to: Path, wanted: int) -> None:
    free = shutil.disk_usage(to).free
    if wanted > free:
        raise StorageError(
            f"{to}", expected=f"room for {wanted} bytes", found=f"{free} free", fix="make room and try again"
        )


def _log(done: str, files: int, size: int, seconds: float, more: str = "") -> None:
    rate = size / 1e6 / max(seconds, 1e-3)
    logger.info("%s %d files, %.1f MB in %.1f s (%.0f MB/s)%s", done, files, size / 1e6, seconds, rate, more)
