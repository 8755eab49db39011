"""The graph is the model: an export that names the author's line where it fails, and its answers compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from boatyard.errors import ConfigError, RecipeError
from boatyard.recipes.authoring import authored, raised_at
from boatyard.training.checks.trial import Trial
from boatyard.training.export import Graph, compare, export

ROWS = (1, 2, 5)  # in a batch


def check_graph(trial: Trial) -> None:
    """Refuse a model that cannot be exported, or whose ONNX model answers otherwise for one row or several."""
    graph = graph_of(trial)
    with located(trial):
        compare(exported(trial, graph), graph, trial.schema, trial.batch.inputs, ROWS)


def graph_of(trial: Trial) -> Graph:
    """Put features, model and head together."""
    return Graph(trial.schema, trial.features, trial.model, trial.head).eval()


def exported(trial: Trial, graph: Graph) -> bytes:
    """Export; an error names the author's line that it comes from."""
    with located(trial), authored(trial.kind, "the export to ONNX"):
        return export(graph, trial.schema)


@contextlib.contextmanager
def located(trial: Trial) -> Iterator[None]:
    """Within the block what is wrong with the graph is said with the line of the recipe."""
    try:
        yield
    except RecipeError:
        raise
    except ConfigError as error:
        place = raised_at(trial.kind, error.__cause__) if error.__cause__ else ""
        raise RecipeError(f"{place or trial.at_forward}: {error}") from error
