"""Source files in, dataset out: read, cleaned, split without leakage, written as Parquet shards with their digests.

Lazily imported: the project file asks sources what they are, in images that have no Arrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boatyard.preprocessing.work import Work, check, names, open_source, preprocess, source_digests, summary

__all__ = ["Work", "check", "names", "open_source", "preprocess", "source_digests", "summary"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from boatyard.preprocessing import work

    return getattr(work, name)
