"""What a bucket notes beside its journal, in empty objects below NAME/packages whose names say it all.

`sha256-<hex>.version-3` says which number a package was given, `alias-production.stood` that an alias stood on a
version once. One listing reads all of them. They are written after the journal's line and stay when a version goes: a
journal that does not know one of them is an old one, or was damaged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from boatyard.registry.base import NAME_PATTERN
from boatyard.registry.history import History
from boatyard.storage.buckets import Bucket

VERSION = re.compile(r"sha256-([0-9a-f]{64})\.version-([1-9]\d{0,15})")
ALIAS = re.compile(r"alias-(.+)\.stood")


@dataclass(frozen=True)
class Records:
    """The digests of the versions that are noted, by number, and the aliases that stood."""

    versions: Mapping[int, str]
    aliases: frozenset[str]


def names(bucket: Bucket) -> list[str]:
    """Return the names that have a folder in a registry's bucket."""
    return sorted(name for name in bucket.children()[0] if NAME_PATTERN.fullmatch(name))


def read(bucket: Bucket, name: str) -> Records:
    """Return what is noted of a name."""
    objects = sorted(bucket.at(f"{name}/packages").children()[1])
    versions = {int(match[2]): match[1] for key in objects if (match := VERSION.fullmatch(key))}
    return Records(versions, frozenset(match[1] for key in objects if (match := ALIAS.fullmatch(key))))


def note(bucket: Bucket, name: str, history: History, noted: Records) -> None:
    """Note the versions and aliases that are not yet."""
    place = bucket.at(f"{name}/packages")
    for number, digest in history.live().items():
        if noted.versions.get(number) != digest:
            place.write(f"sha256-{digest}.version-{number}", b"", None)
    for alias in history.aliases.keys() - noted.aliases:
        place.write(f"alias-{alias}.stood", b"", None)
