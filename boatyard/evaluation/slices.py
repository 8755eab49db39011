"""Slices: how the model does on parts of the test rows, and which parts are surely worse than the others.

With many slices some look bad by chance. Each interval is at 1 - (1 - confidence) / slices (Bonferroni), and marks
come from tests of a slice against the other rows, all taken together (Holm): with the stated confidence no slice at all
is marked without being worse, whatever the number of rows and however slices overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from boatyard.data.kinds import SliceColumn
from boatyard.data.schema import Array, Batch, Schema
from boatyard.evaluation import intervals, significance
from boatyard.evaluation.metrics import MEAN, Metric, metric, nothing

COLUMNS = 20  # columns that are sliced by without being asked for
VALUES = 10  # values of a category with a slice of their own, the commonest first
PARTS = 4  # slices of a number: quarters of its rows
DISTINCT = 10_000  # values of a category that are told apart at all
MISSING, OTHER = "(missing)", "(other)"


@dataclass(frozen=True)
class Slice:
    """The rows whose `field` is `value`: how many, the metric with a corrected interval, whether it is surely worse."""

    field: str
    value: str
    n: int
    metric: Metric
    worse: bool


@dataclass(frozen=True)
class SliceGroup:
    """A column cut into slices: `codes` int [N] into `values`."""

    field: str
    values: tuple[str, ...]
    codes: Array


def _same(values: Array) -> Array:
    return values


@dataclass
class Categories:
    """A column of strings, kept as one small integer a row."""

    name: str
    known: dict[str, int] = field(default_factory=lambda: {OTHER: 0})
    codes: list[Array] = field(default_factory=list)
    field_name: str = ""
    of: Callable[[Array], Array] = _same

    def add(self, values: Array) -> None:
        """Take the next rows' values, str [n]."""
        found, which = np.unique(values.astype(str), return_inverse=True)
        self.codes.append(np.array([self._code(value) for value in found.tolist()], dtype=np.int32)[which])

    def _code(self, value: str) -> int:
        if value not in self.known and len(self.known) > DISTINCT:
            return 0
        return self.known.setdefault(value, len(self.known))

    def group(self) -> SliceGroup:
        """Cut by value, the commonest on their own and the rest together."""
        codes = np.concatenate(self.codes)
        counts = np.bincount(codes, minlength=len(self.known))
        common = [int(c) for c in np.argsort(-counts[1:], kind="stable")[:VALUES] + 1 if counts[c]]
        names = [value or MISSING for value in self.known]
        place = np.full(len(self.known), len(common))
        place[common] = range(len(common))
        return SliceGroup(self.name, (*(names[c] for c in common), OTHER), place[codes])


@dataclass
class Numbers:
    """A column of numbers, cut into parts of equal size."""

    name: str
    values: list[Array] = field(default_factory=list)
    field_name: str = ""
    of: Callable[[Array], Array] = _same

    def add(self, values: Array) -> None:
        """Take the next rows' values, float [n], NaN where missing."""
        self.values.append(values.astype(np.float32))

    def group(self) -> SliceGroup:
        """Cut at the quartiles, or by value where there are few of them."""
        values = np.concatenate(self.values)
        missing = ~np.isfinite(values)
        known = values[~missing]
        if len(distinct := np.unique(known)) <= PARTS:
            codes = np.searchsorted(distinct, values)
            names = tuple(f"{value:.4g}" for value in distinct)
        else:
            edges = np.unique(np.quantile(known, np.linspace(0, 1, PARTS + 1), method="nearest"))
            codes = np.searchsorted(edges[1:-1], values, side="left")
            names = tuple(f"{low:.4g} … {high:.4g}" for low, high in pairwise(edges))
        return SliceGroup(self.name, (*names, MISSING), np.where(missing, len(names), np.minimum(codes, len(names))))


Column = Categories | Numbers


def columns(schema: Schema, kept: Iterable[str]) -> list[Column]:
    """Choose what to slice by: the columns kept for it, then what each field's kind makes of it."""
    named: list[Column] = [Categories(name) for name in kept]
    taken = {column.name for column in named}
    fields = [(field, kind) for field, kind in zip(schema.fields, schema.kinds, strict=True) if field.name not in taken]
    own = [(field.name, column) for field, kind in fields for column in kind.slices(field)][:COLUMNS]
    return [*named, *(_column(name, column) for name, column in own)]


def _column(field: str, slice_column: SliceColumn) -> Column:
    column = Numbers if slice_column.numeric else Categories
    return column(slice_column.name, field_name=field, of=slice_column.of)


def collect(wanted: Iterable[Column], schema: Schema, batch: Batch) -> None:
    """Take a batch's values into the columns."""
    for column in wanted:
        if column.name in batch.slices:
            column.add(batch.slices[column.name])
        else:
            column.add(column.of(values_of(schema, batch.inputs, column.field_name)))


def values_of(schema: Schema, inputs: Mapping[str, Array], name: str) -> Array:
    """Return one field's values [N], whichever tensor holds it."""
    for tensor in schema.tensors():
        if name in tensor.fields:
            return tensor.column(inputs[tensor.name], name)
    raise KeyError(name)


def accuracy_slices(groups: Iterable[SliceGroup], right: Array, confidence: float) -> tuple[Slice, ...]:
    """Measure accuracy by slice, with exact intervals; worse: by Fisher's test against the other rows."""
    cut = [(group, np.bincount(group.codes, minlength=len(group.values))) for group in groups]
    level = corrected(confidence, sum(int((n > 0).sum()) for _, n in cut))
    wrong, found, chances = len(right) - int(right.sum()), [], []
    for group, counts in cut:
        hits = np.bincount(group.codes, right, len(group.values))
        low, high = intervals.clopper_pearson(hits, counts, level)
        for i in np.flatnonzero(counts):
            n, share = int(counts[i]), hits[i] / counts[i]
            one = metric(share, (float(low[i]), float(high[i])), "Clopper-Pearson, Bonferroni", n)
            found.append(Slice(group.field, group.values[i], n, one, False))
            chances.append(significance.more_wrong(n - int(hits[i]), n, wrong, len(right)))
    return _marked(found, chances, confidence)


def error_slices(groups: Iterable[SliceGroup], size: Array, confidence: float, seed: int = 0) -> tuple[Slice, ...]:
    """Measure the mean absolute error by slice; worse: by permuted ranks and Welch's t against the other rows."""
    cut = [(group, np.bincount(group.codes, minlength=len(group.values))) for group in groups]
    number = sum(int((n > 0).sum()) for _, n in cut)
    level, found, chances = corrected(confidence, number), [], []
    few = f"fewer than {intervals.MEAN_ROWS} rows: too few for an interval"
    ranks, middle = significance.Ranks.of(size), float(size.mean())
    centred = size - middle  # so that sums of squares lose no digits
    whole = significance.Sums.of(centred)
    for group, counts in cut:
        levels = ranks.by_slice(group.codes, len(group.values))
        ends = np.cumsum(counts)
        ordered = centred[np.argsort(group.codes, kind="stable")]
        for i in np.flatnonzero(counts):
            part = ordered[ends[i] - counts[i] : ends[i]]
            low, high = (middle + end for end in intervals.mean(part, level))
            pair = (max(low, 0.0) if math.isfinite(low) else low, high)
            one = metric(middle + float(part.mean()), pair, f"{MEAN}, Bonferroni", len(part), few=few)
            found.append(Slice(group.field, group.values[i], len(part), one, False))
            sums = significance.Sums.of(part)
            chance = significance.welch(sums, whole.without(sums))
            if chance <= 1 - confidence:  # else it is no candidate
                chance = max(chance, ranks.greater(levels[i], (1 - confidence) / number, seed))
            chances.append(chance)
    return _marked(found, chances, confidence)


def _marked(found: list[Slice], chances: list[float], confidence: float) -> tuple[Slice, ...]:
    """Mark what is significantly worse though so many were looked at (Holm); never a single row."""
    worse = significance.holm(
        np.array([p if s.n > 1 else 1.0 for s, p in zip(found, chances, strict=True)]), 1 - confidence
    )
    return tuple(replace(s, worse=bool(w)) for s, w in zip(found, worse, strict=True))


def unmeasured(groups: Iterable[SliceGroup], note: str) -> tuple[Slice, ...]:
    """List the slices without a metric, with the reason."""
    cut = [(group, i, int((group.codes == i).sum())) for group in groups for i in np.unique(group.codes)]
    return tuple(Slice(group.field, group.values[i], n, nothing("", n, note), False) for group, i, n in cut)


def corrected(confidence: float, slices: int) -> float:
    """Return the confidence of each of so many intervals that all hold at `confidence` together (Bonferroni)."""
    return 1 - (1 - confidence) / max(slices, 1)
