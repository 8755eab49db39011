"""Files by sha256: read once, in chunks, as plain files and nothing else; a folder held against a listing of it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from boatyard.errors import ArtifactError

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class File:
    """One file of a folder: its path below the folder (posix), size in bytes and sha256 in hex."""

    path: str
    bytes: int
    sha256: str


def digest_bytes(data: bytes) -> str:
    """Return the sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON (sorted keys, no spaces), in hex."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def digest_file(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file to read; raises OSError for a link, a pipe or a device, without waiting for it."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "not a plain file")
    return os.fdopen(handle, "rb", buffering=0)


def read_plain(path: Path, most: int) -> bytes:
    """Return what a plain file holds, up to `most` + 1 bytes: more than `most` of them means that it is too long."""
    with open_plain(path) as file:
        chunks, left = [], most + 1
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            chunks.append(chunk)
            left -= len(chunk)
    return b"".join(chunks)


def read_verified(folder: Path, file: File) -> bytes:
    """Return a file's bytes, the very ones that were found to have its sha256; raises ArtifactError.

    They are in memory once: read into one buffer of the size that was promised, and hashed there.
    """
    path = folder / file.path
    try:
        with open_plain(path) as opened:
            if os.fstat(opened.fileno()).st_size != file.bytes:
                raise _changed(path, file)
            data = opened.read(file.bytes)
            while len(data) < file.bytes and (more := opened.read(file.bytes - len(data))):
                data += more  # Linux reads no more than 2 GiB at once
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    if digest_bytes(data) != file.sha256:
        raise _changed(path, file)
    return data


def _changed(path: Path, file: File) -> ArtifactError:
    return ArtifactError(
        f"{path} was changed after it was verified",
        expected=f"{file.bytes} bytes of sha256 {file.sha256}",
        found="others",
        fix="restore it or pull the package again",
    )


def walk(folder: Path, below: str = "") -> Iterator[tuple[str, str]]:
    """Give everything in a folder but folders, by path, and what is wrong with it ("" for a plain file).

    Links are not followed.
    """
    try:
        entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
    except OSError as error:
        yield below or ".", f"cannot be read: {error.strerror}"
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from walk(folder, f"{below}{entry.name}/")
        else:
            yield below + entry.name, "" if entry.is_file(follow_symlinks=False) else "is not a plain file"


def differences(
    folder: Path,
    listed: Mapping[str, File],
    *,
    name: str,
    listing: str,
    keep: Callable[[File], bool] = lambda file: False,
    contents: dict[str, bytes] | None = None,
) -> Iterator[str]:
    """Say, file by file, how a folder differs from what its manifest (the file `name`) lists; nothing when it does not.

    What `keep` asks for is put in `contents`, as it was hashed. `listing` is what the manifest is called.
    """
    there = set()
    for path, problem in walk(folder):
        there.add(path)
        if problem:
            yield f"{path} {problem}"
        elif path not in listed and path != name:
            yield f"{path} is not in {listing}"
    for path, file in listed.items():
        if path not in there:
            yield f"{path} is missing"
            continue
        try:
            size, sha256, data = _hash(folder / path, file, keep=keep(file))
        except OSError as error:
            yield f"{path} cannot be read: {error.strerror}"
            continue
        if size != file.bytes:
            yield f"{path} has {size} bytes, {listing} says {file.bytes}"
        elif sha256 != file.sha256:
            yield f"{path} was changed (sha256 {sha256[:12]}…, {listing} says {file.sha256[:12]}…)"
        if contents is not None:
            contents[path] = data


def _hash(path: Path, file: File, *, keep: bool) -> tuple[int, str, bytes]:
    """Read a plain file once: its size, its sha256 and, if wanted, the very bytes that were hashed.

    Of a file that has another size than it should, nothing is read: it may have no end.
    """
    sha256, size, kept = hashlib.sha256(), 0, []
    with open_plain(path) as opened:
        if (found := os.fstat(opened.fileno()).st_size) != file.bytes:
            return found, "", b""
        while size <= file.bytes and (chunk := opened.read(CHUNK_BYTES)):
            sha256.update(chunk)
            size += len(chunk)
            if keep:
                kept.append(chunk)
    return size, sha256.hexdigest(), b"".join(kept)
