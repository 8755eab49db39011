"""What an engine is: a graph held to its schema; nothing runs whose inputs and outputs are not as promised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from boatyard import tasks
from boatyard.data.schema import Array, Schema, Tensor
from boatyard.errors import ArtifactError, RequestError
from boatyard.prediction.answers import Answers
from boatyard.prediction.onnx_model import OnnxModel

ROWS = 256  # at once: what a graph holds in between grows with them, and a large request must not take all memory
ELEMENTS = {"uint8": "tensor(uint8)", "float32": "tensor(float)", "int64": "tensor(int64)", "str": "tensor(string)"}


class Engine(ABC):
    """A graph ready to run. `run` may be called from one thread at a time or many: it keeps no state.

    An engine has a `name`, and its own `_load` and `_answer`. Its class is `ENGINE` of a module here, or what an entry
    point of the group `boatyard.engines` names.
    """

    name: ClassVar[str]

    def __init__(self, graph: OnnxModel | Path | bytes, schema: Schema, threads: int | None = None) -> None:
        """Load a graph, from a file or from bytes that were verified already.

        Raises ArtifactError when it is no graph, names files that did not come with it, or does not have the schema's
        inputs and outputs.
        """
        from boatyard.settings import Settings

        self.schema = schema
        self.tensors = schema.tensors()
        self._names = tuple(output.name for output in tasks.of(schema).outputs(schema))
        self._load(OnnxModel.of(graph), threads or Settings().threads)

    def run(self, inputs: Mapping[str, Array]) -> Answers:
        """Answer rows, [N, *shape] by input name; raises RequestError when they are not as the schema says.

        An answer depends on the batch that a row came in by rounding only (below 1e-5).
        """
        self._check(inputs)
        rows = len(next(iter(inputs.values())))
        starts = range(0, rows, ROWS) if rows else (0,)
        parts = [self._answer({name: array[at : at + ROWS] for name, array in inputs.items()}) for at in starts]
        outputs = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Answers(dict(zip(self._names, outputs, strict=True)))

    @abstractmethod
    def _load(self, model: OnnxModel, threads: int) -> None:
        """Make the graph ready; raises ArtifactError when it is none, or not of the schema (`check_ends`)."""

    @abstractmethod
    def _answer(self, inputs: dict[str, Array]) -> list[Array]:
        """Return the outputs of checked rows in the schema's order; raises RequestError when the graph fails."""

    def _check(self, inputs: Mapping[str, Array]) -> None:
        names = [tensor.name for tensor in self.tensors]
        if set(inputs) != set(names):
            raise RequestError(expected=f"inputs {', '.join(names)}", found=f"{', '.join(inputs) or 'none'}")
        rows = len(inputs[names[0]])
        for tensor in self.tensors:
            array = inputs[tensor.name]
            if array.shape != (rows, *tensor.shape) or not is_dtype(array, tensor):
                raise RequestError(
                    expected=f"{tensor.dtype} {[rows, *tensor.shape]}",
                    found=f"{array.dtype} {list(array.shape)}, at input {tensor.name}",
                )


def is_dtype(array: Array, tensor: Tensor) -> bool:
    """Say whether an array's elements are what an input holds; strings may be numpy's or Python's."""
    return array.dtype.kind in "UO" if tensor.dtype == "str" else array.dtype == np.dtype(tensor.dtype)


def expected_inputs(tensors: tuple[Tensor, ...]) -> dict[str, tuple[str, list[int]]]:
    """Return what a graph's inputs are to be: element type, and shape of a row, by name."""
    return {tensor.name: (ELEMENTS[tensor.dtype], list(tensor.shape)) for tensor in tensors}


def expected_outputs(schema: Schema) -> dict[str, tuple[str, list[int]]]:
    """Return what a graph's outputs are to be."""
    outputs = tasks.of(schema).outputs(schema)
    return {output.name: (ELEMENTS[output.dtype], list(output.shape)) for output in outputs}


def check_ends(side: str, nodes: list[Any], expected: Mapping[str, tuple[str, list[int]]]) -> None:
    """Compare one side of a graph with the schema: names, element types, shapes after a free batch dimension.

    Raises ArtifactError.
    """
    found = {node.name: (node.type, list(node.shape)) for node in nodes}
    if list(found) != list(expected):
        raise ArtifactError(
            expected=f"the ONNX model's {side}s to be {', '.join(expected)}", found=f"{', '.join(found)}"
        )
    for name, (element, row) in expected.items():
        kind, shape = found[name]
        if kind != element or shape[1:] != row or not shape or isinstance(shape[0], int):
            raise ArtifactError(
                f"the ONNX model's {side} {name}",
                expected=f"{element} {['batch', *row]}",
                found=f"{kind} {shape}",
                fix="export it again",
            )
