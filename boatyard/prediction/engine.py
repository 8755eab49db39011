"""An ONNX graph under ONNX Runtime, held to its schema: nothing runs whose inputs and outputs are not as promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from boatyard.data.schema import Array, Schema, Tensor
from boatyard.errors import ArtifactError, RequestError
from boatyard.prediction import protobuf

ROWS = 256  # at once: what a graph holds in between grows with them, and a large request must not take all memory
ELEMENTS = {"uint8": "tensor(uint8)", "float32": "tensor(float)", "str": "tensor(string)"}
# ONNX Runtime's errors have no common root below Exception
FAILURES = tuple(
    getattr(state, name)
    for name in (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
        "EPFail",
        "ModelLoaded",
    )
)


@dataclass(slots=True)
class Answers:
    """What a graph says of N rows: `labels` str [N] and `probabilities` float32 [N, K], or `values` float32 [N]."""

    labels: Array | None = None
    probabilities: Array | None = None
    values: Array | None = None

    def __len__(self) -> int:
        return len(self.outputs()[0])

    def outputs(self) -> tuple[Array, ...]:
        """Return what is there: labels and probabilities, or values."""
        return tuple(output for output in (self.labels, self.probabilities, self.values) if output is not None)

    def rows(self, start: int, stop: int) -> Answers:
        """Return some of the rows, not copied."""
        if start == 0 and stop == len(self):
            return self
        labels, probabilities, values = self.labels, self.probabilities, self.values
        return Answers(
            None if labels is None else labels[start:stop],
            None if probabilities is None else probabilities[start:stop],
            None if values is None else values[start:stop],
        )

    @classmethod
    def joined(cls, parts: list[Answers]) -> Answers:
        """Put answers together, row after row."""
        if len(parts) == 1:
            return parts[0]
        columns = zip(*(part._all() for part in parts), strict=True)
        return cls(*(None if column[0] is None else np.concatenate(column) for column in columns))

    def _all(self) -> tuple[Array | None, ...]:
        return self.labels, self.probabilities, self.values

    def to_v1(self) -> list[Any]:
        """Return the `predictions` of KServe's V1 protocol."""
        if self.labels is None or self.probabilities is None:
            assert self.values is not None
            return list(self.values.tolist())
        rows = zip(self.labels.tolist(), self.probabilities.tolist(), strict=True)
        return [{"label": label, "probabilities": probabilities} for label, probabilities in rows]

    def unanswered(self) -> int | None:
        """Return the first row whose numbers are not finite, None when all are."""
        numbers = self.probabilities if self.probabilities is not None else self.values
        assert numbers is not None
        bad = ~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1)
        return int(bad.argmax()) if bad.any() else None


class Engine:
    """A graph ready to run, by ONNX Runtime. `run` may be called from one thread at a time or many: it keeps no state.

    Another engine has a `name` of its own, and its own `_load` and `_answer`.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, graph: Path | bytes, schema: Schema, threads: int | None = None) -> None:
        """Load a graph, from a file or from bytes that were verified already.

        Raises ArtifactError when it is no graph, keeps data outside its own bytes, or does not have the schema's inputs
        and outputs.
        """
        from boatyard.settings import Settings

        self.schema = schema
        self.tensors = schema.tensors()
        data = graph if isinstance(graph, bytes) else _read(graph)
        if protobuf.keeps_data_elsewhere(data):
            raise ArtifactError(
                "expected a graph with all its data inside, found one that names other files; export it again"
            )
        self._load(data, threads or Settings().threads)

    def run(self, inputs: Mapping[str, Array]) -> Answers:
        """Answer rows, [N, *shape] by input name; raises RequestError when they are not as the schema says.

        An answer depends on the batch that a row came in by rounding only (below 1e-5).
        """
        self._check(inputs)
        rows = len(next(iter(inputs.values())))
        starts = range(0, rows, ROWS) if rows else (0,)
        parts = [self._answer({name: array[at : at + ROWS] for name, array in inputs.items()}) for at in starts]
        found = parts[0] if len(parts) == 1 else [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
        if self.schema.task == "regression":
            return Answers(values=found[0])
        return Answers(labels=found[0], probabilities=found[1])

    def _load(self, data: bytes, threads: int) -> None:
        self._session = _session(data, threads)
        check_ends("input", self._session.get_inputs(), wanted_inputs(self.tensors))
        self._outputs = wanted_outputs(self.schema)
        check_ends("output", self._session.get_outputs(), self._outputs)

    def _answer(self, inputs: dict[str, Array]) -> list[Array]:
        try:
            found: list[Array] = self._session.run(list(self._outputs), inputs)
        except FAILURES as error:
            raise RequestError(f"the graph could not answer: {str(error).splitlines()[0]}") from error
        return found

    def _check(self, inputs: Mapping[str, Array]) -> None:
        wanted = [tensor.name for tensor in self.tensors]
        if set(inputs) != set(wanted):
            raise RequestError(f"expected inputs {', '.join(wanted)}, found {', '.join(inputs) or 'none'}")
        rows = len(inputs[wanted[0]])
        for tensor in self.tensors:
            array = inputs[tensor.name]
            if array.shape != (rows, *tensor.shape) or not is_dtype(array, tensor):
                raise RequestError(
                    f"expected {tensor.dtype} {[rows, *tensor.shape]}, found {array.dtype} {list(array.shape)}, "
                    f"at input {tensor.name}"
                )


def is_dtype(array: Array, tensor: Tensor) -> bool:
    """Say whether an array's elements are what an input holds; strings may be numpy's or Python's."""
    return array.dtype.kind in "UO" if tensor.dtype == "str" else array.dtype == np.dtype(tensor.dtype)


def _session(data: bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what fails is said by our own error
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # threads that wait leave the CPU to others
    onnxruntime.disable_telemetry_events()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except FAILURES as error:
        raise ArtifactError(f"expected an ONNX graph, found what ONNX Runtime refuses: {error}") from error


def _read(graph: Path) -> bytes:
    try:
        return graph.read_bytes()
    except OSError as error:
        raise ArtifactError(f"no graph at {graph}: {error.strerror}") from error


def wanted_inputs(tensors: tuple[Tensor, ...]) -> dict[str, tuple[str, list[int]]]:
    """Return what a graph's inputs are to be: element type, and shape of a row, by name."""
    return {tensor.name: (ELEMENTS[tensor.dtype], list(tensor.shape)) for tensor in tensors}


def wanted_outputs(schema: Schema) -> dict[str, tuple[str, list[int]]]:
    """Return what a graph's outputs are to be."""
    if schema.task == "regression":
        return {"value": ("tensor(float)", [])}
    return {"label": ("tensor(string)", []), "probabilities": ("tensor(float)", [len(schema.labels)])}


def check_ends(side: str, nodes: list[Any], wanted: Mapping[str, tuple[str, list[int]]]) -> None:
    """Compare one side of a graph with the schema: names, element types, shapes after a free batch dimension.

    Raises ArtifactError.
    """
    found = {node.name: (node.type, list(node.shape)) for node in nodes}
    if list(found) != list(wanted):
        raise ArtifactError(f"expected the graph's {side}s to be {', '.join(wanted)}, found {', '.join(found)}")
    for name, (element, row) in wanted.items():
        kind, shape = found[name]
        if kind != element or shape[1:] != row or not shape or isinstance(shape[0], int):
            raise ArtifactError(
                f"the graph's {side} {name}: expected {element} {['batch', *row]}, found {kind} {shape}; "
                "export it again"
            )
