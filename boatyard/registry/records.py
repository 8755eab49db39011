"""Which number a package in a bucket was given, noted beside the package: NAME/packages/sha256-<hex>.version-3.

The name says it all, so that one listing reads all of them. A record is written after the journal's line and stays
when its version is removed.
"""

from __future__ import annotations

import re

from boatyard.registry.base import NAME_PATTERN
from boatyard.registry.history import History
from boatyard.storage.buckets import Bucket

RECORD = re.compile(r"sha256-([0-9a-f]{64})\.version-([1-9]\d{0,15})")


def names(bucket: Bucket) -> list[str]:
    """Return the names that have a folder in a registry's bucket."""
    return sorted(name for name in bucket.children()[0] if NAME_PATTERN.fullmatch(name))


def read(bucket: Bucket, name: str) -> dict[int, str]:
    """Return the digests of the versions that are noted, by number."""
    objects = bucket.at(f"{name}/packages").children()[1]
    return {int(match[2]): match[1] for key in sorted(objects) if (match := RECORD.fullmatch(key))}


def note(bucket: Bucket, name: str, history: History, noted: dict[int, str]) -> None:
    """Note the versions that are not yet."""
    for number, digest in history.live().items():
        if noted.get(number) != digest:
            bucket.at(f"{name}/packages").write(f"sha256-{digest}.version-{number}", b"", None)
