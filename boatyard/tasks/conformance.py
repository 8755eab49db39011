"""Whether a task keeps the rules: what an author of one runs in a test.

from boatyard.tasks import conformance

conformance.check(TASK)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from boatyard.data.schema import Field, Schema
from boatyard.errors import BoatyardError, Refused
from boatyard.tasks.base import Task

ROWS = 30


def check(task: Task) -> None:
    """Hold a task to every rule; raises Refused with all that it breaks."""
    if broken := list(_broken(task)):
        raise Refused(f"the task {task.name} breaks {len(broken)} of {len(RULES)} rules\n" + "\n".join(broken))


def names_each_output_once(task: Task, schema: Schema) -> str:
    names = [output.name for output in task.outputs(schema)]
    if not names or len(set(names)) != len(names):
        return f"expected outputs of different names, found {', '.join(names) or 'none'}"
    beyond = [name for name in task.computed(schema) if name not in names]
    return f"computes {', '.join(beyond)}, which are no outputs" if beyond else ""


def gives_its_outputs_of_a_models_numbers(task: Task, schema: Schema) -> str:
    import torch

    problem = task.problem(np.arange(ROWS) % 3)
    head = task.head(None, schema, {"__target__": problem.statistics})
    answers = head.answer(torch.zeros(ROWS, task.width(schema)))
    shapes = {output.name: output.shape for output in task.outputs(schema)}
    expected = [(ROWS, *shapes[name]) for name in task.computed(schema)]
    found = [tuple(answer.shape) for answer in answers]
    return "" if found == expected else f"expected tensors of shapes {expected} from its head, found {found}"


def learns_by_each_of_its_losses(task: Task, schema: Schema) -> str:
    import torch

    problem = task.problem(np.arange(ROWS) % 3)
    statistics = {"__target__": {**problem.statistics, "min": 0.0}}
    for name in task.losses:
        head = task.head(name, schema, statistics)
        outputs = torch.zeros(ROWS, task.width(schema), requires_grad=True)
        loss = task.loss(name, schema, statistics, "none")(outputs, head.encode(torch.from_numpy(problem.target)))
        loss.backward()
        if loss.ndim or outputs.grad is None or not torch.isfinite(outputs.grad).all():
            return f"the loss {name} gives no finite gradient of one number"
    return ""


def has_the_measures_that_it_names(task: Task, schema: Schema) -> str:
    missing = [name for name in (*task.headline, task.row_measure) if name not in task.measures]
    return f"names {', '.join(missing)}, which are no measures of it" if missing else ""


Rule = Callable[[Task, Schema], str]
RULES: tuple[Rule, ...] = (
    names_each_output_once,
    gives_its_outputs_of_a_models_numbers,
    learns_by_each_of_its_losses,
    has_the_measures_that_it_names,
)


def _broken(task: Task) -> Iterator[str]:
    labels = task.problem(np.arange(ROWS) % 3).labels
    schema = Schema(task.name, (Field("length", "number", "float32"),), "y", labels)
    for rule in RULES:
        try:
            wrong = rule(task, schema)
        except (BoatyardError, KeyError, RuntimeError, TypeError, ValueError) as error:  # foreign code may raise these
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            yield f"{rule.__name__.replace('_', ' ')}: {wrong}"
