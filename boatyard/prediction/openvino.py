"""The same graph under OpenVINO: an extra, for machines on which it answers sooner. It is held to the same schema.

OpenVINO has no strings: the graph is cut before its labels are named, and they are named here. A graph that takes
strings, or that names its labels in another way than training writes it, is refused.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any, ClassVar

import numpy as np

from boatyard.errors import ArtifactError, ConfigError, RequestError
from boatyard.prediction.engine import Engine
from boatyard.schema import Array, Schema
from boatyard.settings import Settings

# It would tell its maker of every import; where it is not installed, OpenVINO has one of its own that tells nobody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
try:
    import onnx
    import openvino
    from google.protobuf.message import DecodeError
except ImportError as missing:
    raise ConfigError(f"the engine openvino needs {missing.name}; pip install 'boatyard[openvino]'") from missing

ELEMENTS = {"uint8": openvino.Type.u8, "float32": openvino.Type.f32}


class OpenVino(Engine):
    """A graph ready to run, by OpenVINO on the processor, in float32."""

    name: ClassVar[str] = "openvino"

    def _load(self, data: bytes, threads: int) -> None:
        """Compile a graph; raises ArtifactError when it is another than the schema says, or has what OpenVINO lacks."""
        if strings := [tensor.name for tensor in self.tensors if tensor.dtype == "str"]:
            raise _unfit(f"a graph that takes strings, at {', '.join(strings)}")
        cut, outputs = _without_strings(data, self.schema)
        streams = max(1, Settings().threads // threads)
        options = {
            "INFERENCE_NUM_THREADS": threads * streams,
            "NUM_STREAMS": streams,  # as many at once as the server asks for
            "INFERENCE_PRECISION_HINT": "f32",  # processors that have bfloat16 would answer in it
            "ENABLE_CPU_PINNING": False,  # a container's processors are not its own
        }
        try:
            model = openvino.Core().read_model(cut)
            self._check_ends(model, outputs)
            self._compiled = openvino.Core().compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise _unfit(f"what it refuses: {_sentence(error)}") from error
        self._labels = np.array(self.schema.labels, object)
        self._requests: deque[Any] = deque()  # one at work a thread, kept for the next

    def _answer(self, inputs: dict[str, Array]) -> list[Array]:
        request = self._requests.pop() if self._requests else self._compiled.create_infer_request()
        try:
            found = list(request.infer(inputs).values())
        except RuntimeError as error:
            raise RequestError(f"the graph could not answer: {_sentence(error)}") from error
        self._requests.append(request)
        if self.schema.task == "regression":
            return found
        index, probabilities = found
        return [self._labels[index], probabilities]

    def _check_ends(self, model: Any, outputs: list[str]) -> None:
        found = {each.get_any_name(): (each.element_type, each.partial_shape) for each in model.inputs}
        wanted = {tensor.name: (ELEMENTS[tensor.dtype], list(tensor.shape)) for tensor in self.tensors}
        if list(found) != list(wanted) or len(model.outputs) != len(outputs):
            raise ArtifactError(f"wanted the graph's inputs to be {', '.join(wanted)}, found {', '.join(found)}")
        for name, (element, row) in wanted.items():
            kind, shape = found[name]
            if kind != element or not shape[0].is_dynamic or str(shape[1:]) != str(openvino.PartialShape(row)):
                raise ArtifactError(
                    f"the graph's input {name}: wanted {element} {['batch', *row]}, found {kind} {shape}"
                )


def _without_strings(data: bytes, schema: Schema) -> tuple[bytes, list[str]]:
    """Return the graph with the label's number in place of its name, and its outputs."""
    if schema.task == "regression":
        return data, ["value"]
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ArtifactError("wanted an ONNX graph, found bytes that are not") from error
    nodes = model.graph.node
    named = next((node for node in nodes if "label" in node.output), None)
    if named is None or named.op_type != "LabelEncoder" or not _names(named, schema):
        raise _unfit(f"labels that come of {named.op_type if named else 'no operator'}")
    nodes.remove(named)
    number = onnx.helper.make_tensor_value_info(named.input[0], onnx.TensorProto.INT64, ["batch"])
    outputs = [number, *(each for each in model.graph.output if each.name != "label")]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    cut: bytes = model.SerializeToString()
    return cut, [each.name for each in outputs]


def _names(node: Any, schema: Schema) -> bool:
    """Say whether a node makes 0 the first label of the schema, 1 the second, and so on."""
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    labels = [label.encode() for label in schema.labels]
    return given.get("keys_int64s") == list(range(len(labels))) and given.get("values_strings") == labels


def _unfit(found: str) -> ArtifactError:
    return ArtifactError(f"wanted a graph that OpenVINO runs, found {found}; the engine onnxruntime runs it")


def _sentence(error: RuntimeError) -> str:
    """Return the reasons that OpenVINO lists, or its last line; those before it are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    listed = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
    return "; ".join(listed) or lines[-1].rstrip(".")
