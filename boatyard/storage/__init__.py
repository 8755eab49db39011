"""Where things are kept: one URI for a folder, on this machine now and in a bucket later."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from boatyard.errors import StorageError

LATER = ("s3", "gs", "pvc", "oci", "https", "http")


def parse(uri: str, root: Path) -> Path:
    """Return the folder or file that a URI or a plain path names; a relative path starts at `root`.

    Raises StorageError for a scheme that is not supported.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if not uri or "\0" in uri:
        raise StorageError(f"wanted a folder or a file:// URI, found {uri!r}")
    if scheme is None:
        return (root / Path(uri).expanduser()).absolute()
    if scheme[1].lower() == "file":
        return _local(uri)
    known = "not supported yet" if scheme[1].lower() in LATER else "not known"
    raise StorageError(f"{uri}: {scheme[1]}:// is {known}; give a folder or a file:// URI")


def uri(path: Path) -> str:
    """Return the file:// URI of a path; `parse` takes it back."""
    return path.absolute().as_uri()


def _local(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise StorageError(f"{uri}: wanted file:/// and an absolute path, found host {parts.netloc!r}")
    if parts.query or parts.fragment:
        raise StorageError(f"{uri}: a file:// URI has no ? or #; write them as %3F and %23")
    return Path(unquote(parts.path))
