"""A URI or a plain path names one place; what is not supported is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from boatyard import storage
from boatyard.errors import StorageError


def test_a_relative_path_starts_at_the_root(tmp_path: Path) -> None:
    assert storage.parse("registry", tmp_path) == tmp_path / "registry"
    assert storage.parse("/data/registry", tmp_path) == Path("/data/registry")
    assert storage.parse("~/registry", tmp_path) == Path.home() / "registry"


@pytest.mark.parametrize("name", ["plain", "with space", "ümlaut", "per%cent", "a#b?c"])
def test_a_uri_made_of_a_path_is_that_path(tmp_path: Path, name: str) -> None:
    assert storage.parse(storage.uri(tmp_path / name), Path("/elsewhere")) == tmp_path / name
    assert storage.parse(f"file://localhost{tmp_path}", Path("/")) == tmp_path


@pytest.mark.parametrize("uri", ["s3://bucket/x", "gs://b", "pvc://claim/x", "oci://host/x"])
def test_what_comes_later_is_said_to_come_later(uri: str) -> None:
    with pytest.raises(StorageError, match="not supported yet"):
        storage.parse(uri, Path("/"))


@pytest.mark.parametrize("uri", ["", "ftp://x", "file://host/x", "file://relative", "file:///x?y", "a\0b"])
def test_what_names_no_place_is_refused(uri: str) -> None:
    with pytest.raises(StorageError):
        storage.parse(uri, Path("/"))
