"""The one verifier of a package's bytes: every file is there, plain, and as package.json says; no other is there.

The initializer, the registry and `verify` all call it; what its files mean is `verify`'s to say. Files are hashed in
chunks. Small ones that are wanted are kept as they were hashed; the ONNX model is not: whoever loads it reads it once
more and hashes those bytes, so what was verified is what is used, and no copy waits in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from boatyard.data import hashing
from boatyard.data.hashing import File
from boatyard.errors import ArtifactError
from boatyard.packages import manifest
from boatyard.packages.manifest import MANIFEST, Manifest, PackageFile
from boatyard.packages.trust import PackageClaims, Trust

MAX_KEPT_BYTES = 256 << 20  # of a file whose values are read
RESTORE = "restore it or pull the package again"


@dataclass(frozen=True)
class CheckedFiles:
    """A folder that holds what its package.json lists; `contents` are the kept files' bytes by path."""

    manifest: Manifest
    contents: Mapping[str, bytes] = field(repr=False)


def check(
    path: Path, digest: str | None = None, trust: Trust | None = None, roles: tuple[str, ...] = ()
) -> CheckedFiles:
    """Check every byte of a package, and keep the JSON files of some roles.

    With `digest`, package.json itself must be that one. With `trust`, the package must be vouched for: it is called
    once all bytes are right, and before anything is made of them. Raises ArtifactError naming the file that differs.
    """
    data, listed = _manifest(path)
    if digest is not None and listed.digest != digest:
        raise ArtifactError(f"{path}: {MANIFEST} was changed", expected=f"sha256 {digest}", found=f"{listed.digest}")
    contents: dict[str, bytes] = {}
    for difference in _differences(path, listed, roles, contents):
        raise ArtifactError(f"{path}: {difference}", fix=f"{RESTORE}")
    if trust is not None:
        statements = {file.path: contents[file.path] for file in listed.of("statement")}
        trust(PackageClaims(data, listed.digest, statements))
    return CheckedFiles(listed, contents)


def differences(path: Path) -> list[str]:
    """Say all that is wrong with a package's bytes, file by file; raises ArtifactError when package.json is none."""
    return list(_differences(path, _manifest(path)[1], (), {}))


def _manifest(path: Path) -> tuple[bytes, Manifest]:
    if not os.path.isdir(path):  # where Path.is_dir raises, this is False
        raise ArtifactError(f"no package at {path}: expected a folder with {MANIFEST} in it")
    try:
        data = hashing.read_plain(path / MANIFEST, manifest.MAX_MANIFEST_BYTES)
    except OSError as error:
        raise ArtifactError(f"no package at {path}: {MANIFEST} cannot be read ({error.strerror})") from error
    return data, manifest.read(data, f"{path}/{MANIFEST}")


def _differences(path: Path, listed: Manifest, roles: tuple[str, ...], contents: dict[str, bytes]) -> Iterator[str]:
    kept = {file.path for file in listed.files if _is_kept(file, roles)}
    for file in listed.files:
        if file.path in kept and file.bytes > MAX_KEPT_BYTES:
            yield f"{file.path} has {file.bytes} bytes, more than {MAX_KEPT_BYTES}"
            return

    def keep(file: File) -> bool:
        return file.path in kept

    yield from hashing.differences(path, listed.listed(), name=MANIFEST, listing=MANIFEST, keep=keep, contents=contents)


def _is_kept(file: PackageFile, roles: tuple[str, ...]) -> bool:
    return file.role == "statement" or (file.role in roles and file.path.endswith(".json"))
