"""The executable graph: raw inputs in, answers out, in one ONNX file that every later stage uses.

Inputs are `schema.tensors()` with a free first dimension `batch`; strings enter as ONNX strings. Outputs are those of
the task. The same weights give the same bytes.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
import math
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.onnx import symbolic_helper
from torch.onnx.utils import register_custom_op_symbolic as register
from torch.onnx.utils import unregister_custom_op_symbolic as unregister

from boatyard import tasks
from boatyard.data import kinds
from boatyard.data.features import empty, tensors
from boatyard.data.schema import Array, Schema
from boatyard.errors import ConfigError
from boatyard.prediction.engines.onnxruntime import FAILURES
from boatyard.tasks import Head

EXPORTING = threading.Lock()  # torch's exporter and Python's warnings have one state for all threads of a process

OPSET = 17  # known to every ONNX Runtime since 1.12 and to OpenVINO
ML_OPSET = 3  # LabelEncoder with strings
IR = 8  # what opset 17 came with
LARGEST = 1_500_000_000  # bytes; a protobuf file ends at 2 GiB
CLOSE = 1e-5  # of probabilities; of values, in deviations of the target
BATCH_SIZES = (1, 2, 7, 61, 256)  # that the graph is asked in, in turn: one row, few, and ragged ones
UNLIKE = (
    "a forward() that branches on its input, loops over its rows or is random in eval mode cannot be exported: write "
    "it with tensor operations"
)
ONNX_TYPES = {
    "uint8": TensorProto.UINT8,
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "str": TensorProto.STRING,
}


class Graph(nn.Module):
    """Features, model and the last step to an answer; takes the inputs one by one, in the schema's order."""

    def __init__(self, schema: Schema, features: nn.Module, model: nn.Module, head: Head) -> None:
        super().__init__()
        self.names = [tensor.name for tensor in schema.tensors()]
        self.features, self.model, self.head = features, model, head

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.head.answer(self.model(self.features(dict(zip(self.names, inputs, strict=True)))))


def export(graph: Graph, schema: Schema) -> bytes:
    """Return a graph as ONNX; raises ConfigError when a model cannot be exported."""
    _refuse_clashes(schema)
    size = sum(weight.numel() * weight.element_size() for weight in graph.state_dict().values())
    if size > LARGEST:
        raise ConfigError(
            f"the model has {size} bytes of weights", fix=f"one graph file holds {LARGEST}; use a smaller model"
        )
    model = _trace(graph, schema)
    _rename(model, schema)
    _add_preludes(model, schema)
    model.graph.node.extend(tasks.of(schema).nodes(schema))
    _describe(model, schema)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def compare(data: bytes, graph: Graph, schema: Schema, inputs: Mapping[str, Array], sizes: Sequence[int] = ()) -> float:
    """Return the greatest difference between a graph's answers in ONNX Runtime and in torch.

    The graph is asked for all rows at once and, where `sizes` are given, in batches of these sizes in turn. Raises
    ConfigError when it is more than 1e-5 (of values: deviations of the target), or a label differs.
    """
    return compare_all(data, graph, schema, [inputs], sizes)


def compare_all(
    data: bytes,
    graph: Graph,
    schema: Schema,
    batches: Iterable[Mapping[str, Array]],
    sizes: Sequence[int] = BATCH_SIZES,
) -> float:
    """Return the greatest difference over many batches of rows: see `compare`."""
    session = onnxruntime.InferenceSession(data, _options(), providers=["CPUExecutionProvider"])
    return max((_compared(session, graph, schema, inputs, sizes) for inputs in batches), default=0.0)


def _compared(session: Any, graph: Graph, schema: Schema, inputs: Mapping[str, Array], sizes: Sequence[int]) -> float:
    task = tasks.of(schema)
    with torch.no_grad():
        scores = graph.eval().model(graph.features(tensors(schema, inputs)))
        expected = dict(zip(task.computed(schema), map(Tensor.numpy, graph.head.answer(scores)), strict=True))
    rows = len(scores)
    scores, worst = scores.reshape(rows, -1).numpy(), 0.0
    for cycle in ((rows,), sizes) if sizes else ((rows,),):
        found = _answers(session, schema, inputs, rows, cycle)
        difference = max(_difference(found[name], expected[name], scores, graph.head) for name in expected)
        if not difference <= CLOSE:
            raise ConfigError(
                "the exported ONNX model predicts otherwise than the model: greatest difference "
                f"{difference:.2g}, allowed {CLOSE:g}{_company(rows, cycle)}",
                fix=UNLIKE,
            )
        if wrong := task.wrong_graph(found, expected, schema):
            raise ConfigError(f"the exported graph gives {wrong}")
        worst = max(worst, difference)
    return worst


def _answers(
    session: Any, schema: Schema, inputs: Mapping[str, Array], rows: int, cycle: Sequence[int]
) -> dict[str, Array]:
    """Ask the graph for rows in batches whose sizes come in turn."""
    feed = {t.name: _feed(inputs[t.name], t.dtype) for t in schema.tensors()}
    parts, start, sizes = [], 0, itertools.cycle(cycle)
    while start < rows:
        end = min(start + next(sizes), rows)
        try:
            parts.append(session.run(None, {name: value[start:end] for name, value in feed.items()}))
        except FAILURES as error:
            raise ConfigError(
                f"the exported ONNX model fails on {end - start} rows: {str(error).splitlines()[0][:200]}",
                fix=UNLIKE,
            ) from error
        start = end
    names = [output.name for output in session.get_outputs()]
    try:
        return {name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}
    except ValueError as error:
        raise ConfigError("the exported ONNX model's outputs depend on the number of rows", fix=UNLIKE) from error


def _company(rows: int, cycle: Sequence[int]) -> str:
    return "" if tuple(cycle) == (rows,) else f", in batches of {', '.join(map(str, cycle))} rows"


def _difference(found: Array, expected: Array, scores: Array, head: Head) -> float:
    """Return the greatest difference of one output in the head's unit; infinite for another shape, NaN for NaN."""
    if found.shape != expected.shape:
        return math.inf
    unit = head.unit(expected) * _room(scores, found)
    return float(np.max(np.abs(found - expected) / unit, initial=0.0))


def _room(scores: Array, answer: Array) -> Array:
    """float32 keeps seven digits: a row far from the training data, of scores beyond 10, is held to as much less."""
    room: Array = np.maximum(1.0, np.abs(scores).max(axis=1, initial=0.0) / 10)
    return room.reshape(-1, *[1] * (answer.ndim - 1))


def _trace(graph: Graph, schema: Schema) -> Any:
    """Record the graph on an example; the recording exporter takes 0.3 s, the newer one 5 s and more memory."""
    names = [_inner(i) for i in range(len(graph.names))]
    answers = [_answer(i) for i in range(len(tasks.of(schema).computed(schema)))]
    example = tuple(empty(schema, 2).values())
    buffer = io.BytesIO()
    with EXPORTING, warnings.catch_warnings(), _squeezes():
        # it is deprecated, and warns of constants that are constants; `checks.branches` finds those that are none
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                _plain(graph.eval()),
                example,
                buffer,  # type: ignore[arg-type]  # only the newer exporter wants a path
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=answers,
                dynamic_axes={name: {0: "batch"} for name in [*names, *answers]},
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"the model cannot be exported to ONNX opset {OPSET}: {reason}") from error
    return onnx.load_from_string(buffer.getvalue())


def _plain(graph: Graph) -> Graph:
    """Return a graph without parametrizations: a weight that is computed of others (a spectral norm) is a constant."""
    if not any(parametrize.is_parametrized(module) for module in graph.modules()):
        return graph
    graph = copy.deepcopy(graph)
    for module in list(graph.modules()):
        if parametrize.is_parametrized(module):
            _fix_weights(module)
    return graph


def _fix_weights(module: nn.Module) -> None:
    """Set a copied module's parametrized weights to their values.

    `remove_parametrizations` would do it to the class too, which the copy shares with the module in training.
    """
    values = {name: getattr(module, name).detach() for name in module.parametrizations}  # type: ignore[union-attr]
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


@contextlib.contextmanager
def _squeezes() -> Iterator[None]:
    """Within the block squeeze(dim) is recorded as ONNX's Squeeze where the exporter does not know the dimension.

    It would record an If, which asks at each run whether the dimension is 1. Where it is not, torch leaves it and ONNX
    refuses to run, which `compare` finds.
    """

    def squeeze(g: Any, value: Any, dim: Any = None) -> Any:
        if dim is None:
            return g.op("Squeeze", value)
        axis = symbolic_helper._get_const(dim, "i", "dim")
        size = symbolic_helper._get_tensor_dim_size(value, axis)
        return symbolic_helper._squeeze_helper(g, value, [axis]) if size in (None, 1) else value

    register("aten::squeeze", squeeze, OPSET)
    try:
        yield
    finally:
        unregister("aten::squeeze", OPSET)


def _inner(index: int) -> str:
    return f"input_{index}"


def _answer(index: int) -> str:
    return f"answer_{index}"


def _rename(model: Any, schema: Schema) -> None:
    """Give inputs the schema's names and every inner value a number, so that no column's name can clash with one."""
    coded = set(_preludes(schema))
    outer = {_inner(i): _code(t.name) if t.name in coded else t.name for i, t in enumerate(schema.tensors())}
    outer |= {_answer(i): output for i, output in enumerate(tasks.of(schema).computed(schema))}
    renamed = {"": ""}

    def name(old: str) -> str:
        return renamed.setdefault(old, outer.get(old, f"/{len(renamed)}"))

    graph = model.graph
    # the exporter drops an input that the model ignores; the schema's inputs are set anew below
    for weight in graph.initializer:
        weight.name, weight.doc_string = name(weight.name), ""
    for index, node in enumerate(graph.node):
        if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
            raise ConfigError(
                "the model has a branch or a loop that depends on its input", fix="write it with torch.where"
            )
        node.input[:] = [name(value) for value in node.input]
        node.output[:] = [name(value) for value in node.output]
        node.name, node.doc_string = f"{node.op_type}_{index}", ""


def _add_preludes(model: Any, schema: Schema) -> None:
    """Put before the model what a field's kind does to its input there: texts become codes, for torch has no texts."""
    nodes = [node for prelude in _preludes(schema).values() for node in prelude]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _preludes(schema: Schema) -> dict[str, list[Any]]:
    """Return the nodes before the model by input, of those inputs that have some."""
    nodes = {}
    for tensor in schema.tensors():
        field = schema.field(tensor.fields[0])
        nodes[tensor.name] = kinds.of(field).prelude(field, tensor.name, _code(tensor.name))
    return {name: prelude for name, prelude in nodes.items() if prelude}


def _code(name: str) -> str:
    return f"{name}/code"


def _describe(model: Any, schema: Schema) -> None:
    """Set inputs, outputs, versions and metadata; drop everything that names a machine or a version of a tool."""
    graph = model.graph
    del graph.input[:], graph.output[:], graph.value_info[:], model.metadata_props[:], model.opset_import[:]
    for t in schema.tensors():
        graph.input.append(helper.make_tensor_value_info(t.name, ONNX_TYPES[t.dtype], ["batch", *t.shape]))
    graph.output.extend(_outputs(schema))
    graph.name, graph.doc_string, model.doc_string = "boatyard", "", ""
    model.producer_name, model.producer_version, model.ir_version = "boatyard", "", IR
    model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)])
    about = {"task": schema.task, "labels": list(schema.labels), "target": schema.target, "schema": schema.digest}
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))


def _outputs(schema: Schema) -> Iterator[Any]:
    for output in tasks.of(schema).outputs(schema):
        yield helper.make_tensor_value_info(output.name, ONNX_TYPES[output.dtype], ["batch", *output.shape])


def _refuse_clashes(schema: Schema) -> None:
    outputs = {output.name for output in _outputs(schema)}
    for tensor in schema.tensors():
        if tensor.name in outputs or not tensor.name or tensor.name.startswith("/"):
            raise ConfigError(
                f"a column named {tensor.name!r} cannot be an input of the ONNX model, whose outputs are "
                f"{', '.join(sorted(outputs))}",
                fix="rename the column",
            )


def _feed(values: Array, dtype: str) -> Array:
    return np.asarray(values).astype(object if dtype == "str" else dtype)


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options
