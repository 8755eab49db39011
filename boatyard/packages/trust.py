"""Whom to believe: the seam where signatures are checked, between a package's digests and the first use of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PackageClaims:
    """What a package says of itself, once every byte of it is as package.json says.

    `manifest` are the bytes of package.json and `digest` their sha256; `statements` are the files of that role by
    path. A signature of package.json cannot be listed in it: it lies beside the package, where the one who checks it
    knows to look.
    """

    manifest: bytes = field(repr=False)
    digest: str
    statements: Mapping[str, bytes] = field(repr=False)


Trust = Callable[[PackageClaims], None]  # raises ArtifactError, saying what was expected of whom and what was found
