"""What several test files start once: a store on the loopback."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import stores

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
