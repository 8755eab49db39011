"""What several test files ask for: a store on the loopback, registries in it and in a folder, imports forgotten."""

from __future__ import annotations

import importlib
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import stores

from boatyard import registry, storage
from boatyard.registry.buckets import BucketRegistry
from boatyard.registry.folders import FolderRegistry

# torch's threads sleep while they wait for each other: spinning takes two thirds of what these tests compute.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

LONG = (
    "test_distributed",
    "test_cli",
    "test_pool",
    "test_submitting",
    "test_serving",
    "test_training",
    "test_toy_kind",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: of runners side by side none is to wait for another's at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of a store that speaks S3, the whole session long."""
    with stores.serving() as address:
        yield address


@pytest.fixture
def bucket(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in a bucket that no other test uses, the environment set to reach it."""
    stores.use(monkeypatch, address, BOATYARD_CACHE=str(tmp_path / "cache"))
    return f"s3://{stores.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def folder(tmp_path: Path) -> FolderRegistry:
    """An empty registry in a folder."""
    return FolderRegistry(tmp_path / "registry")


@pytest.fixture
def remote(bucket: str) -> BucketRegistry:
    """An empty registry in a bucket."""
    return BucketRegistry(storage.open(bucket))


@pytest.fixture(params=["folder", "remote"])
def shelf(request: pytest.FixtureRequest) -> registry.Registry:
    """A registry in a folder, then one in a bucket: what is promised is the same."""
    found: registry.Registry = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forget what a test imported from folders of its own."""
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if "/pytest-" in str(getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    importlib.invalidate_caches()
