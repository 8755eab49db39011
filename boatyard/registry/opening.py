"""A registry: immutable versions of packages and aliases, with a journal that cannot be edited unseen.

It lies in a folder (`folders`) or in a bucket (`buckets`), and promises the same in both (`base`): a version is
whole or not there, one of many who push at once gets a number, and what was pulled is what was pushed.
"""

from __future__ import annotations

from pathlib import Path

from boatyard import storage
from boatyard.registry.base import JOURNAL, LATEST, NAME_PATTERN, Registry, Version
from boatyard.registry.folders import FolderRegistry

__all__ = ["JOURNAL", "LATEST", "NAME_PATTERN", "Registry", "Version", "open"]


def open(uri: str, root: Path) -> Registry:
    """Open the registry at a URI or folder; a relative folder starts at `root`. It need not exist before a push."""
    if not storage.in_bucket(uri):
        return FolderRegistry(storage.parse(uri, root))
    from boatyard.registry.buckets import BucketRegistry

    return BucketRegistry(storage.open(uri))
