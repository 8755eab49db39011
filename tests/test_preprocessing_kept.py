"""Datasets kept from an earlier version: the same source and settings make the same bytes today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boatyard import preprocessing, project
from boatyard.data import artifacts, datasets

KEPT = Path(__file__).parent / "kept"


@pytest.mark.parametrize("name", ["digits", "prices"])
def test_a_kept_source_makes_the_kept_dataset_byte_for_byte(name: str, tmp_path: Path) -> None:
    config = project.load(KEPT / name)
    preprocessing.preprocess(config.data, config.preprocess, tmp_path / "dataset", root=KEPT / name, task=config.task)
    made, kept = tmp_path / "dataset", KEPT / name / "dataset"
    assert manifest(made) == manifest(kept)
    for shard in sorted((kept / "shards").iterdir()):
        assert artifacts.digest_file(made / "shards" / shard.name) == artifacts.digest_file(shard)


def manifest(dataset: Path) -> dict[str, Any]:
    """Return what a verified dataset's manifest says of the rows, not of who made it.

    In the kept one the examples of cleaning name files as whole paths, here their names.
    """
    found = {key: value for key, value in datasets.read(dataset).manifest.items() if key != "made"}
    for entry in found["cleaning"]:
        entry["examples"] = [example.rsplit("/", 1)[-1] for example in entry["examples"]]
    return found
