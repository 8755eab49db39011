"""Folders whose content is pinned: written whole or not at all, listed by sha256, checked before use."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from boatyard.data import hashing
from boatyard.data.hashing import File, digest_bytes, digest_file, digest_json
from boatyard.errors import ArtifactError, StorageError

logger = logging.getLogger(__name__)
MANIFEST = "manifest.json"
__all__ = [
    "MANIFEST",
    "File",
    "check_manifest",
    "differences",
    "digest_bytes",
    "digest_file",
    "digest_folder",
    "digest_json",
    "existing_parent",
    "json_bytes",
    "list_files",
    "listed_files",
    "new_folder",
    "read_json",
    "read_manifest",
    "reader",
    "replace_folder",
    "seal",
    "storage_error",
    "verify",
    "write_bytes",
    "write_json",
]


def list_files(folder: Path, *, exclude: tuple[str, ...] = (MANIFEST,)) -> tuple[File, ...]:
    """List every file below a folder, sorted by path, with size and digest.

    Raises ArtifactError for a link or a special file: only plain files can be packaged.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(f"{folder}: {name} is not a plain file", fix="only plain files can be packaged")
        if path.is_file() and name not in exclude:
            files.append(File(name, path.stat().st_size, digest_file(path)))
    return tuple(files)


def digest_folder(folder: Path) -> str:
    """Return one sha256 for all that a folder holds (names, sizes and bytes), in hex."""
    return digest_json([[f.path, f.bytes, f.sha256] for f in list_files(folder, exclude=())])


def seal(folder: Path, kind: str, about: Mapping[str, Any], *, name: str = MANIFEST) -> str:
    """Write the folder's manifest: what it is, and every file by sha256; return the manifest's digest."""
    files = [vars(file) for file in list_files(folder, exclude=(name,))]
    manifest = {"format": 1, "kind": kind, **about, "files": files}
    write_json(folder / name, manifest)
    return digest_file(folder / name)


def verify(folder: Path, kind: str, *, name: str = MANIFEST) -> dict[str, Any]:
    """Return the folder's manifest once every file has been found to be as listed, and no other is there.

    Raises ArtifactError with the first file that differs; `differences` lists all of them.
    """
    manifest = read_manifest(folder, kind, name=name)
    for difference in differences(folder, manifest, name=name):
        raise ArtifactError(f"{folder}: {difference}", fix=f"restore it or make the {kind} again")
    return manifest


def read_manifest(folder: Path, kind: str, *, name: str = MANIFEST) -> dict[str, Any]:
    """Read a manifest without looking at the files that it lists; raises ArtifactError."""
    path = folder / name
    if not path.is_file():
        found = "an empty folder" if folder.is_dir() and not any(folder.iterdir()) else "none"
        raise ArtifactError(f"no {kind} at {folder}", expected=f"{name} in it", found=f"{found}")
    return check_manifest(read_json(path), kind, str(path))


def check_manifest(manifest: Any, kind: str, at: str) -> dict[str, Any]:
    """Return a manifest that is one of this kind; raises ArtifactError that says where it was found."""
    if not isinstance(manifest, dict) or manifest.get("kind") != kind or manifest.get("format") != 1:
        other = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtifactError(f"{at}", expected=f"a {kind} of format 1", found=f"{other!r}")
    return manifest


def differences(folder: Path, manifest: Mapping[str, Any], *, name: str = MANIFEST) -> Iterator[str]:
    """Say, file by file, how a folder differs from its manifest; nothing when it does not."""
    listed = listed_files(folder, manifest, name=name)
    return hashing.differences(folder, listed, name=name, listing="its manifest")


def reader(kind: str) -> Callable[[bytes, str], dict[str, File]]:
    """Return what reads the files that a manifest of this kind lists: (its bytes, where it was found)."""

    def read(data: bytes, at: str) -> dict[str, File]:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{at} is not JSON ({error})", fix="it was cut or changed") from error
        return listed_files(at.rpartition("/")[0], check_manifest(value, kind, at))

    return read


def listed_files(folder: Path | str, manifest: Mapping[str, Any], *, name: str = MANIFEST) -> dict[str, File]:
    """Return what a manifest lists, by path; raises ArtifactError for an entry that no manifest of ours has.

    `folder` is where the manifest was found, for what an error says.
    """
    listed: dict[str, File] = {}
    entries = manifest.get("files")
    if not isinstance(entries, list):
        raise ArtifactError(f"{folder}/{name}", expected="a list of files", found=f"{type(entries).__name__}")
    for entry in entries:
        try:
            file = File(str(entry["path"]), int(entry["bytes"]), str(entry["sha256"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{folder}/{name}: {entry!r} is not path, bytes, sha256") from error
        parts = file.path.split("/")
        if file.path.startswith("/") or "\\" in file.path or any(part in ("", ".", "..") for part in parts):
            raise ArtifactError(f"{folder}/{name}: {file.path!r} points outside the folder")
        if file.path in listed:
            raise ArtifactError(f"{folder}/{name}: {file.path!r} is listed twice")
        listed[file.path] = file
    return listed


def read_json(path: Path) -> Any:
    """Read a JSON file; raises ArtifactError when it is missing, cut or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except IsADirectoryError as error:
        raise ArtifactError(f"{path}", expected="a file", found="a folder") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON ({error})", fix="it was cut or changed") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all. NaN and infinity are refused (ValueError)."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return a value as the JSON that is written; NaN and infinity are refused (ValueError)."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def write_numbers(path: Path, numbers: dict[str, float]) -> dict[str, float]:
    """Write a stage's numbers as JSON, and return them; one that is not finite, which fails a step, is left out."""
    for name in [name for name, value in numbers.items() if not math.isfinite(value)]:
        logger.warning("%s is %s and left out", name, numbers[name])
        numbers = {key: value for key, value in numbers.items() if key != name}
    write_json(path, numbers)
    return numbers


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside it first, then in its place; raises StorageError on a full disk."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` that takes its place when the block ends without an error.

    What stood at `path` before is replaced only then; an error or a kill leaves it as it was. Raises
    StorageError on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        beside.mkdir()
        yield beside
        replace_folder(beside, path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Put a finished folder in the place of another; the old one steps aside first, no call does both."""
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    shutil.rmtree(old, ignore_errors=True)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Say an operating system's error in our words; a full disk is the one that people meet."""
    if isinstance(error, shutil.Error):  # a folder's copy: all that went wrong, as text
        _, at, text = next(iter(error.args[0]))
        number = re.search(r"\[Errno (\d+)\]", str(text))
        code = int(number[1]) if number else errno.EIO
        path, error = Path(at), OSError(code, os.strerror(code))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(existing_parent(path)).free
        return StorageError(
            f"the disk is full: could not write {path} ({free} bytes free)",
            fix="nothing half-written was kept, make room and run again",
        )
    return StorageError(f"could not write {path}: {error.strerror or error}")


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above a path that is there."""
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
