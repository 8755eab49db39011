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


@pytest.mark.parametrize(
    ("uri", "why"),
    [("s3://bucket/x", "found a bucket"), ("gs://b", "found a bucket"), ("oci://host/x", "not supported here")],
)
def test_what_is_no_folder_of_this_machine_is_said_to_be_none(uri: str, why: str) -> None:
    with pytest.raises(StorageError, match=why):
        storage.parse(uri, Path("/"))


def test_a_claim_is_the_folder_where_it_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_CLAIMS", str(tmp_path))
    (tmp_path / "data").mkdir()
    assert storage.parse("pvc://data/a/b", Path("/")) == tmp_path / "data" / "a" / "b"
    assert storage.parse("pvc://data", Path("/")) == tmp_path / "data"
    with pytest.raises(StorageError, match=rf"wanted claim other mounted at {tmp_path}/other"):
        storage.parse("pvc://other/a", Path("/"))
    for uri in ("pvc://data/../x", "pvc:///x", "pvc://Data/x"):
        with pytest.raises(StorageError, match="wanted pvc://CLAIM/FOLDER"):
            storage.parse(uri, Path("/"))


@pytest.mark.parametrize("end", ["", "/"])
def test_a_uri_may_carry_its_packages_digest(end: str) -> None:
    assert storage.bound(f"s3://bucket/a/sha256-{'0a' * 32}{end}") == "0a" * 32
    assert storage.bound(f"s3://bucket/a/sha256-{'0a' * 32}/b") is None
    assert storage.bound(f"s3://bucket/a/sha256-{'0A' * 32}") is None


@pytest.mark.parametrize("uri", ["", "ftp://x", "file://host/x", "file://relative", "file:///x?y", "a\0b"])
def test_what_names_no_place_is_refused(uri: str) -> None:
    with pytest.raises(StorageError):
        storage.parse(uri, Path("/"))
