"""ONNX Runtime: the engine that evaluates, packs and, without a word, serves."""

from __future__ import annotations

from typing import Any, ClassVar

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from boatyard.data.schema import Array
from boatyard.errors import ArtifactError, RequestError
from boatyard.prediction.engines.base import Engine, check_ends, expected_inputs, expected_outputs
from boatyard.prediction.onnx_model import OnnxModel

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


class OnnxRuntime(Engine):
    """A graph ready to run, by ONNX Runtime on the processor."""

    name: ClassVar[str] = "onnxruntime"

    def _load(self, model: OnnxModel, threads: int) -> None:
        self._session = _session(model, threads)
        check_ends("input", self._session.get_inputs(), expected_inputs(self.tensors))
        self._outputs = expected_outputs(self.schema)
        check_ends("output", self._session.get_outputs(), self._outputs)

    def _answer(self, inputs: dict[str, Array]) -> list[Array]:
        try:
            found: list[Array] = self._session.run(list(self._outputs), inputs)
        except FAILURES as error:
            raise RequestError(f"the ONNX model could not predict: {str(error).splitlines()[0]}") from error
        return found


def _session(model: OnnxModel, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what fails is said by our own error
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # threads that wait leave the CPU to others
    onnxruntime.disable_telemetry_events()
    if model.external:  # handed over as bytes: a path would be opened again, and might hold others by now
        names, files = list(model.external), list(model.external.values())
        options.add_external_initializers_from_files_in_memory(names, files, [len(file) for file in files])
    try:
        return onnxruntime.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    except FAILURES as error:
        raise ArtifactError(expected="an ONNX graph", found=f"what ONNX Runtime refuses: {error}") from error


ENGINE = OnnxRuntime
