"""Whether an ONNX model answers a row the same in any company: what a package promises of a server's batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from boatyard.data.schema import Array, Batch
from boatyard.errors import Refused, RequestError
from boatyard.prediction.answers import Answers
from boatyard.prediction.engines import Engine

ROWS = 61  # that are put together
ALONE = 16
SIZES = (2, 7)
# of an output's spread over the rows, and of its size: kernels sum float32 in another order for another number of rows
OF_SPREAD, OF_SIZE = 1e-4, 1e-6


def check_rows(engine: Engine, rows: Batch) -> None:
    """Refuse a model whose answer for a row is another alone, in batches of other sizes or in another order."""
    chosen = rows.take(np.unique(np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).round().astype(np.int64)))
    whole = engine.run(chosen.inputs)
    for company, index in _companies(len(chosen)):
        try:
            found = engine.run(chosen.take(index).inputs)
        except RequestError as error:
            raise _mixes(f"fails {company}: {error}") from error
        for name in _compared(whole):
            difference, allowed = _difference(whole[name], found[name], index)
            if not difference <= allowed:
                raise _mixes(f"{name} of a row {company} is off by {difference:.2g}")


def _compared(whole: Answers) -> list[str]:
    """Return the outputs to compare: numbers, of which texts are made; texts where there are no others."""
    numbers = [name for name, values in whole.items() if values.dtype.kind in "fiu"]
    return numbers or [name for name, _ in whole.items()]


def _companies(count: int) -> Iterator[tuple[str, Array]]:
    every = np.arange(count)
    for row in np.unique(np.linspace(0, count - 1, min(ALONE, count)).astype(np.int64)):
        yield "alone", every[row : row + 1]
    for size in SIZES:
        for start in range(0, count, size):
            yield f"in a batch of {size}", every[start : start + size]
    yield "in another order", np.random.default_rng(0).permutation(count)


def _difference(whole: Array, found: Array, index: Array) -> tuple[float, float]:
    """Return the greatest difference of some rows from the same among all, and how much is rounding."""
    if whole.dtype.kind not in "fiu":
        return float(not np.array_equal(whole[index], found)), 0.0
    values = whole[np.isfinite(whole)].astype(np.float64)
    allowed = max(OF_SPREAD * float(np.ptp(values)), OF_SIZE * float(np.abs(values).max())) if len(values) else 0.0
    among, apart = whole[index].astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        difference = np.where((among == apart) | (np.isnan(among) & np.isnan(apart)), 0.0, np.abs(among - apart))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0)), allowed


def _mixes(what: str) -> Refused:
    return Refused(
        "the ONNX model's answer for a row depends on the rows that it comes with",
        found=what,
        fix="mix no rows in the model's forward(): `boatyard check` names the line",
    )
