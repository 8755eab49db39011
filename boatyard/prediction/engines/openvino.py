"""The same graph under OpenVINO: an extra, for machines on which it answers sooner. It is held to the same schema.

OpenVINO has no strings: the graph is cut before its labels are named, and they are named here. A graph that takes
strings, or that names its labels in another way than training writes it, is refused.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from boatyard import tasks
from boatyard.data.schema import Array, Schema
from boatyard.errors import ArtifactError, ConfigError, RequestError
from boatyard.prediction.engines.base import Engine, check_ends, expected_inputs, expected_outputs
from boatyard.prediction.onnx_model import OnnxModel
from boatyard.tasks import Output

# It would tell its maker of every import; where it is not installed, OpenVINO has one of its own that tells nobody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
try:
    import onnx
    import openvino
    from google.protobuf.message import DecodeError
except ImportError as missing:
    raise ConfigError(f"the engine openvino needs {missing.name}", fix="pip install 'boatyard[openvino]'") from missing

TYPES = {number: f"tensor({name.lower()})" for name, number in onnx.TensorProto.DataType.items()}


class End(NamedTuple):
    """An input or output as the graph declares it, in ONNX Runtime's words."""

    name: str
    type: str
    shape: list[int | str | None]


class OpenVino(Engine):
    """A graph ready to run, by OpenVINO on the processor, in float32."""

    name: ClassVar[str] = "openvino"

    def _load(self, onnx_model: OnnxModel, threads: int) -> None:
        """Compile a graph; raises ArtifactError when it is another than the schema says, or has what OpenVINO lacks."""
        from boatyard.settings import Settings

        if strings := [tensor.name for tensor in self.tensors if tensor.dtype == "str"]:
            raise _unfit(f"a graph that takes strings, at {', '.join(strings)}")
        if onnx_model.external:
            raise _unfit(f"one whose weights lie in {', '.join(onnx_model.external)}")
        model = _parsed(onnx_model.data)
        constants = {each.name for each in model.graph.initializer}
        check_ends(
            "input", _ends(i for i in model.graph.input if i.name not in constants), expected_inputs(self.tensors)
        )
        check_ends("output", _ends(model.graph.output), expected_outputs(self.schema))
        self._texts = _cut(model, tasks.of(self.schema).outputs(self.schema))
        streams = max(1, Settings().threads // threads)
        options = {
            "INFERENCE_NUM_THREADS": threads * streams,
            "NUM_STREAMS": streams,  # as many at once as the server asks for
            "INFERENCE_PRECISION_HINT": "f32",  # processors that have bfloat16 would answer in it
            "ENABLE_CPU_PINNING": False,  # a container's processors are not its own
        }
        try:
            core = openvino.Core()
            read = core.read_model(model.SerializeToString())
            _check_shapes(read, self.schema)
            self._compiled = core.compile_model(read, "CPU", options)
        except RuntimeError as error:
            raise _unfit(f"what it refuses: {_sentence(error)}") from error
        self._requests: deque[Any] = deque()  # one at work a thread, kept for the next

    def _answer(self, inputs: dict[str, Array]) -> list[Array]:
        request = self._requests.pop() if self._requests else self._compiled.create_infer_request()
        try:
            outputs = list(request.infer(inputs).values())
            for place, texts in self._texts.items():
                outputs[place] = texts[outputs[place]]
        except (RuntimeError, IndexError) as error:
            raise RequestError(f"the ONNX model could not predict: {_sentence(error)}") from error
        self._requests.append(request)
        return outputs


def _parsed(data: bytes) -> Any:
    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ArtifactError(expected="an ONNX graph", found="bytes that are not") from error


def _ends(values: Iterable[Any]) -> list[End]:
    return [_end(value.name, value.type.tensor_type) for value in values]


def _end(name: str, tensor: Any) -> End:
    shape = [each.dim_value if each.HasField("dim_value") else each.dim_param or None for each in tensor.shape.dim]
    return End(name, TYPES.get(tensor.elem_type, "tensor(unknown)"), shape)


def _cut(model: Any, outputs: tuple[Output, ...]) -> dict[int, Array]:
    """Put the code of a text in place of the text; return the texts by the place of their output."""
    texts: dict[int, Array] = {}
    for place, output in enumerate(outputs):
        if output.dtype != "str":
            continue
        encoder = next((node for node in model.graph.node if output.name in node.output), None)
        if encoder is None or encoder.op_type != "LabelEncoder" or not _names(encoder, output.texts):
            raise _unfit(f"{output.name}s that come of {encoder.op_type if encoder else 'no operator'}")
        model.graph.node.remove(encoder)
        code = onnx.helper.make_tensor_value_info(encoder.input[0], onnx.TensorProto.INT64, ["batch", *output.shape])
        model.graph.output[place].CopyFrom(code)
        texts[place] = np.array(output.texts, object)
    return texts


def _check_shapes(model: Any, schema: Schema) -> None:
    """Compare what OpenVINO makes of the outputs with the schema; a graph may declare what it does not keep."""
    for (name, (_, row)), output in zip(expected_outputs(schema).items(), model.outputs, strict=True):
        shape = output.partial_shape
        if not shape.compatible(openvino.PartialShape([-1, *row])):
            raise ArtifactError(
                f"the ONNX model's output {name}",
                expected=f"{['batch', *row]}",
                found=f"{shape}",
                fix="export it again",
            )


def _names(node: Any, texts: tuple[str, ...]) -> bool:
    """Say whether a node makes 0 the first text, 1 the second, and so on."""
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    encoded = [text.encode() for text in texts]
    return given.get("keys_int64s") == list(range(len(texts))) and given.get("values_strings") == encoded


def _unfit(found: str) -> ArtifactError:
    return ArtifactError(expected="a graph that OpenVINO runs", found=f"{found}", fix="the engine onnxruntime runs it")


def _sentence(error: Exception) -> str:
    """Return the reasons that OpenVINO lists, or its last line; those before it are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    listed = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
    return "; ".join(listed) or lines[-1].rstrip(".")


ENGINE = OpenVino
