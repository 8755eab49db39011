"""Whether an engine keeps the rules: what an author of one runs in a test.

    from boatyard.prediction.engines import conformance

    conformance.check(MyEngine)

It is held against ONNX Runtime on small graphs of a classification and a regression, made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from boatyard import tasks
from boatyard.data.schema import Array, Field, Schema
from boatyard.errors import ArtifactError, Refused, RequestError
from boatyard.prediction.answers import Answers
from boatyard.prediction.engines.base import Engine
from boatyard.prediction.engines.onnxruntime import OnnxRuntime

CLOSE = 1e-5  # engines order their sums differently
FIELDS = tuple(Field(name, "number", "float32") for name in ("length", "weight"))
SCHEMAS = (Schema("classification", FIELDS, "y", ("left", "middle", "right")), Schema("regression", FIELDS, "y"))


def check(engine: type[Engine]) -> None:
    """Hold an engine to every rule; raises Refused with all that it breaks."""
    broken = [f"{schema.task}: {sentence}" for schema in SCHEMAS for sentence in _broken(engine, schema)]
    if broken:
        raise Refused(f"{getattr(engine, 'name', engine.__name__)} breaks {len(broken)} rules\n" + "\n".join(broken))


def answers_as_onnx_runtime_does(engine: type[Engine], schema: Schema) -> str:
    graph = _graph(schema)
    for rows in (1, 3, 300):
        expected, found = (_ask(kind, graph, schema, rows) for kind in (OnnxRuntime, engine))
        if [name for name, _ in found.items()] != [name for name, _ in expected.items()]:
            return f"expected the outputs {', '.join(name for name, _ in expected.items())}"
        for name, column in expected.items():
            if not _near(column, found[name]):
                return f"{rows} rows: {name} differs from ONNX Runtime's by more than {CLOSE:g}"
    return ""


def answers_a_row_the_same_in_any_batch(engine: type[Engine], schema: Schema) -> str:
    model, inputs = engine(_graph(schema), schema, threads=1), _inputs(5)
    together = model.run(inputs)
    for row in range(5):
        alone = model.run({name: values[row : row + 1] for name, values in inputs.items()})
        if not all(_near(column[row : row + 1], alone[name]) for name, column in together.items()):
            return f"row {row} is answered otherwise alone than among others"
    return ""


def refuses_what_is_no_graph(engine: type[Engine], schema: Schema) -> str:
    try:
        engine(b"no graph", schema, threads=1)
    except ArtifactError:
        return ""
    return "expected ArtifactError for bytes that are no graph, found none"


def refuses_a_graph_of_another_schema(engine: type[Engine], schema: Schema) -> str:
    (other,) = (each for each in SCHEMAS if each != schema)
    try:
        engine(_graph(other), schema, threads=1)
    except ArtifactError:
        return ""
    return f"expected ArtifactError for a graph of a {other.task}, found none"


def refuses_rows_of_another_shape(engine: type[Engine], schema: Schema) -> str:
    try:
        engine(_graph(schema), schema, threads=1).run({"features": np.zeros((2, 3), np.float32)})
    except RequestError:
        return ""
    return "expected RequestError for rows of three numbers, found none"


Rule = Callable[[type[Engine], Schema], str]
RULES: tuple[Rule, ...] = (
    answers_as_onnx_runtime_does,
    answers_a_row_the_same_in_any_batch,
    refuses_what_is_no_graph,
    refuses_a_graph_of_another_schema,
    refuses_rows_of_another_shape,
)


def _broken(engine: type[Engine], schema: Schema) -> Iterator[str]:
    for rule in RULES:
        try:
            wrong = rule(engine, schema)
        except (ArtifactError, RequestError) as error:
            wrong = str(error)
        if wrong:
            yield f"{rule.__name__.replace('_', ' ')}: {wrong}"


def _graph(schema: Schema) -> bytes:
    """Return a linear model with the outputs that its task says."""
    from onnx import TensorProto, helper, numpy_helper

    width = len(schema.labels) or 1
    weights = np.random.default_rng(0).normal(size=(len(FIELDS), width)).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([-1]), "flat")]
    nodes = [helper.make_node("MatMul", ["features", "weights"], ["scores"])]
    if schema.labels:
        nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1))
    else:
        nodes.append(helper.make_node("Reshape", ["scores", "flat"], ["value"]))
    task, elements = tasks.of(schema), {"float32": TensorProto.FLOAT, "str": TensorProto.STRING}
    outputs = [
        helper.make_tensor_value_info(output.name, elements[output.dtype], ["batch", *output.shape])
        for output in task.outputs(schema)
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", len(FIELDS)])]
    graph = helper.make_graph([*nodes, *task.nodes(schema)], "conformance", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


def _inputs(rows: int) -> dict[str, Array]:
    return {"features": np.random.default_rng(rows).normal(size=(rows, len(FIELDS))).astype(np.float32)}


def _ask(engine: type[Engine], graph: bytes, schema: Schema, rows: int) -> Answers:
    return engine(graph, schema, threads=1).run(_inputs(rows))


def _near(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.array_equal(one, other) if one.dtype == object else np.allclose(one, other, atol=CLOSE))
