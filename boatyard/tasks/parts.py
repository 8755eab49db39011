"""What a task hands to the stages: the outputs of its graph, the head of its models, predictions as measures take them.

Frozen values without torch, ONNX or Arrow at import: the server and `boatyard check` read them too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from boatyard.data.schema import Array, Schema

if TYPE_CHECKING:
    from torch import Tensor

OutputType = Literal["float32", "int64", "str"]


@dataclass(frozen=True)
class Output:
    """One output of the graph: its name, its elements' type, and the shape of one row (no batch).

    `texts` are the values of an output of texts by their code, 0, 1, 2 …: an engine without strings runs the graph up
    to the code and looks the text up here.
    """

    name: str
    dtype: OutputType
    shape: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()


class Head(ABC):
    """The step between a model's outputs and the answers, and between the data's targets and what a loss takes.

    Made once a run from the statistics of the training rows, and traced into the graph: only tensor operations.
    """

    @abstractmethod
    def encode(self, target: Tensor) -> Tensor:
        """Turn raw targets [N] into what the loss takes."""

    @abstractmethod
    def decode(self, target: Tensor) -> Tensor:
        """Turn what the loss takes back into raw targets."""

    @abstractmethod
    def answer(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Turn outputs [N, K] into the graph's computed outputs, in the order of `Task.computed`."""

    def unit(self, expected: Array) -> Array | float:
        """Return what a difference of the exported graph from the model is measured in: 1, or the target's spread."""
        return 1.0


@dataclass(frozen=True)
class Predictions:
    """N rows of one split and what a model says of them, as measures take them.

    `target` is int64 label indices or float32 values, `outputs` [N, …] by name; an output of labels is int64 indices
    into `schema.labels`, -1 where the row is invalid. `invalid` is bool [N]: no answer that a client may be given.
    """

    schema: Schema
    target: Array
    outputs: Mapping[str, Array]
    invalid: Array

    def __len__(self) -> int:
        return len(self.target)

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Put the predictions of batches together, row after row."""
        outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
        target, invalid = (np.concatenate([getattr(part, name) for part in parts]) for name in ("target", "invalid"))
        return cls(parts[0].schema, target, outputs, invalid)


@dataclass(frozen=True)
class Worded:
    """One row's target and prediction as a person reads them; `confidence` from 0 to 1 where the task has one."""

    target: str
    predicted: str
    right: bool
    confidence: float | None = None


@dataclass(frozen=True)
class Problem:
    """A small problem that recipes must be able to learn: the schema's labels, target [N], the target's statistics."""

    labels: tuple[str, ...]
    target: Array
    statistics: dict[str, Any]
