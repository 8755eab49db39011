"""What a graph says of rows: one array an output, by name and in its order."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping
from typing import Any

import numpy as np

from boatyard.data.schema import Array


class Answers:
    """The outputs of N rows by name, each [N, …], in the order of the graph; which there are is the task's to say."""

    __slots__ = ("_columns",)

    def __init__(self, columns: Mapping[str, Array]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, name: str) -> Array:
        """Return an output by name; KeyError where there is none."""
        return self._columns[name]

    def items(self) -> ItemsView[str, Array]:
        """Return names and outputs in order."""
        return self._columns.items()

    def outputs(self) -> tuple[Array, ...]:
        """Return the outputs in order."""
        return tuple(self._columns.values())

    @property
    def labels(self) -> Array | None:
        """Text [N] of a classification, None for a task without labels."""
        return self._columns.get("label")

    @property
    def probabilities(self) -> Array | None:
        """Float32 [N, K] of a classification in the order of the schema's labels, None for another task."""
        return self._columns.get("probabilities")

    @property
    def values(self) -> Array | None:
        """Float32 [N] of a regression, None for a task without a value."""
        return self._columns.get("value")

    def rows(self, start: int, stop: int) -> Answers:
        """Return some of the rows, not copied."""
        if start == 0 and stop == len(self):
            return self
        return Answers({name: column[start:stop] for name, column in self._columns.items()})

    @classmethod
    def joined(cls, parts: list[Answers]) -> Answers:
        """Put answers together, row after row."""
        if len(parts) == 1:
            return parts[0]
        return cls({name: np.concatenate([part[name] for part in parts]) for name, _ in parts[0].items()})

    def to_v1(self) -> list[Any]:
        """Return the `predictions` of KServe's V1 protocol: a value a row, or an object of them by output name."""
        if len(self._columns) == 1:
            return list(self.outputs()[0].tolist())
        rows = zip(*(column.tolist() for column in self.outputs()), strict=True)
        return [dict(zip(self._columns, row, strict=True)) for row in rows]

    def finite(self) -> Array:
        """Return bool [N]: rows whose numbers are all finite."""
        good = np.ones(len(self), bool)
        for column in self.outputs():
            if column.dtype.kind == "f":
                good &= np.isfinite(column.reshape(len(column), -1)).all(axis=1)
        return good

    def unanswered(self) -> int | None:
        """Return the first row whose numbers are not finite, None when all are."""
        good = self.finite()
        return None if good.all() else int(good.argmin())
