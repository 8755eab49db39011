"""Where things are kept: one URI for a folder, on this machine, in a claim that is mounted, or in a bucket.

file:///data/x   x   /data/x     a folder of this machine
pvc://CLAIM/x                    a folder of a claim, where the pod has it mounted (BOATYARD_CLAIMS/CLAIM)
s3://BUCKET/x    gs://BUCKET/x   objects in a bucket: `open`
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from boatyard.errors import StorageError

if TYPE_CHECKING:
    from boatyard.storage.buckets import Bucket

BUCKETS = ("s3", "gs")
OTHERS = ("oci", "https", "http", "hf", "hdfs", "webhdfs")  # KServe reads these; we do not
BOUND = re.compile(r"(?:.*/)?sha256-([0-9a-f]{64})/?")  # the last part of a URI that carries its package's digest


def parse(uri: str, root: Path) -> Path:
    """Return the folder or file that a URI or a plain path names; a relative path starts at `root`.

    Raises StorageError for what is not a folder or file of this machine: `open` is for buckets.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if not uri or "\0" in uri:
        raise StorageError(expected="a folder or a URI", found=f"{uri!r}")
    if scheme is None:
        return (root / Path(uri).expanduser()).absolute()
    name = scheme[1].lower()
    if name == "file":
        return _local(uri)
    if name == "pvc":
        return _claim(uri)
    if name in BUCKETS:
        raise StorageError(
            f"{uri}", expected="a folder of this machine here", found="a bucket", fix="copy it to a folder first"
        )
    known = "not supported here" if name in OTHERS else "not known"
    raise StorageError(
        f"{uri}: {scheme[1]}:// is {known}", fix="give a folder, or a file://, pvc://, s3:// or gs:// URI"
    )


def local(uri: str, root: Path) -> Path:
    """Return a folder or file of this machine: the one that a URI names, or a copy of what lies there in a bucket.

    Raises StorageError when there is none.
    """
    if not in_bucket(uri):
        return parse(uri, root)
    from boatyard.storage import mirror

    return mirror.mirror(uri)


def uri(path: Path) -> str:
    """Return the file:// URI of a path; `parse` takes it back."""
    return path.absolute().as_uri()


def in_bucket(uri: str) -> bool:
    """Whether a URI names objects in a bucket."""
    return uri.partition("://")[0].lower() in BUCKETS and "://" in uri


def open(uri: str) -> Bucket:
    """Return the place in a bucket that an s3:// or gs:// URI names, or a folder's file:// URI in its shape.

    Nothing is asked of the bucket yet. Raises StorageError for a URI that names no bucket.
    """
    from boatyard.storage import buckets  # 15 MB that only those need who use a bucket

    return buckets.open(uri)


def bound(uri: str) -> str | None:
    """Return the digest that a package's URI carries in its last part (…/sha256-<hex>), None where it has none."""
    found = BOUND.fullmatch(uri)
    return found[1] if found else None


def _local(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise StorageError(f"{uri}", expected="file:/// and an absolute path", found=f"host {parts.netloc!r}")
    if parts.query or parts.fragment:
        raise StorageError(f"{uri}: a file:// URI has no ? or #", fix="write them as %3F and %23")
    return Path(unquote(parts.path))


def _claim(uri: str) -> Path:
    """Return where a claim's folder is in this pod, or on a machine that has it mounted at the same place."""
    from boatyard.settings import Settings

    claim, _, below = uri.partition("://")[2].partition("/")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", claim) or ".." in below.split("/"):
        raise StorageError(f"{uri}", expected="pvc://CLAIM/FOLDER", found=f"claim {claim!r} and folder {below!r}")
    mounted = Settings().claims / claim
    if not mounted.is_dir():
        raise StorageError(
            f"{uri}",
            expected=f"claim {claim} mounted at {mounted}",
            found="no folder there",
            fix="mount it there, or say in BOATYARD_CLAIMS below which folder claims are mounted",
        )
    return mounted / below if below else mounted
