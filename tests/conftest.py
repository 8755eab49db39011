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
