"""What float32 cannot tell apart is refused before it is learnt from or measured; honest noise is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boatyard import preprocessing
from boatyard.data.rounding import Rounding
from boatyard.errors import DataError
from boatyard.project import DataConfig, PreprocessConfig


def preprocessed(folder: Path, rows: list[tuple[Any, Any]], task: str = "regression") -> None:
    (folder / "data.csv").write_text("x,y\n" + "".join(f"{x!r},{y!r}\n" for x, y in rows))
    data = DataConfig(source="csv", path="data.csv", target="y")
    preprocessing.preprocess(data, PreprocessConfig(), folder / "dataset", root=folder, task=task)


def test_targets_that_float32_makes_one_number_of_are_refused(tmp_path: Path) -> None:
    rows = [(float(i), 16777216.0 + i % 2) for i in range(200)]
    with pytest.raises(DataError, match=r"the target 'y': expected numbers that float32 can tell apart.*subtract"):
        preprocessed(tmp_path, rows)


def test_a_column_that_float32_makes_steps_of_is_refused(tmp_path: Path) -> None:
    seconds = np.random.default_rng(0).integers(0, 3600, 200)  # float32's steps are 128 s there
    with pytest.raises(DataError, match=r"column 'x'.*steps there are 128"):
        preprocessed(tmp_path, [(1.7e9 + float(s), float(s)) for s in seconds])


def test_days_apart_noise_and_large_spreads_are_told_apart(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    preprocessed(tmp_path, [(1.7e9 + 86400.0 * float(d), float(d)) for d in random.integers(0, 365, 200)])


@pytest.mark.parametrize(
    ("values", "material"),
    [
        (np.full(50, 0.1), False),
        (np.array([0.3, 0.1 + 0.2, 0.3]), False),  # a sum's noise in the last digit
        (1e9 + np.arange(1000.0) * 1000, False),
        (np.arange(0, 2.0**30, 2.0**20) + 1, False),  # numbers that are large and far apart
        (np.array([0.0, 1e-30, np.nan, 3e38, 1e300]), False),
        (np.random.default_rng(0).normal(size=1000), False),
        (np.array([16777216.0, 16777217.0]), True),
        (1 + 1e-9 * np.random.default_rng(0).normal(size=100), True),
        (np.zeros(0), False),
    ],
)
def test_what_is_lost_is_held_against_how_much_values_differ(values: Any, material: bool) -> None:
    assert Rounding.of(values).material is material
    halves = Rounding.of(values[: len(values) // 3]).merged(Rounding.of(values[len(values) // 3 :]))
    assert halves.material is material


def test_labels_that_are_large_numbers_are_labels(tmp_path: Path) -> None:
    preprocessed(tmp_path, [(float(i), 16777216 + i % 2) for i in range(200)], task="classification")
