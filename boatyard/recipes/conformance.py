"""Whether a recipe keeps the rules: what a plug-in's author runs, by hand or from pytest.

from boatyard.recipes import conformance

conformance.check(MyRecipe, images=True)

@pytest.mark.parametrize("rule", conformance.RULES, ids=conformance.name)
def test_my_recipe(rule):
    rule(conformance.Subject(MyRecipe, images=True))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boatyard import tasks
from boatyard.data.features import tensors
from boatyard.data.schema import Array, Batch, Field, Schema
from boatyard.errors import BoatyardError, Refused
from boatyard.project import PreprocessConfig, TrainConfig
from boatyard.recipes import Recipe
from boatyard.tasks import Problem
from boatyard.training import optimisers
from boatyard.training.checks.branches import check_branches
from boatyard.training.checks.graph import check_graph, exported, graph_of
from boatyard.training.checks.learning import check_learning
from boatyard.training.checks.metrics import check_metrics
from boatyard.training.checks.outputs import check_norms, check_outputs, check_state
from boatyard.training.checks.pairing import check_pairing
from boatyard.training.checks.row_independence import check_rows
from boatyard.training.checks.trial import Trial, loss_of, trial_of

ROWS = 96
STEPS = 25


@dataclass(frozen=True)
class Subject:
    """A recipe on a small made-up problem: 16×16 grey images, or a table with a category and missing values."""

    recipe: type[Recipe]
    images: bool = True
    task: str = "classification"
    dials: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Recipe:
        """Make the recipe."""
        config = TrainConfig(recipe="under test", model=dict(self.dials), weight_decay=0.0).completed()
        return self.recipe(config, PreprocessConfig(), self.schema, self.statistics)

    def model(self, recipe: Recipe) -> nn.Module:
        """Make the recipe's model with the weights of seed 0."""
        torch.manual_seed(0)
        return recipe.model()

    @cached_property
    def schema(self) -> Schema:
        labels = self._problem.labels
        if self.images:
            return Schema(self.task, (Field("image", "image", "uint8", (16, 16)),), "target", labels)
        fields = (
            Field("length", "number", "float32"),
            Field("weight", "number", "float32", nullable=True),
            Field("colour", "category", "str", nullable=True, categories=("blue", "green", "red")),
        )
        return Schema(self.task, fields, "target", labels)

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """Rows whose target can be seen in them."""
        random = np.random.default_rng(0)
        if self.images:
            image = random.integers(0, 60, (ROWS, 16, 16))
            for row, third in enumerate(self._thirds):
                image[row, :, third * 5 : third * 5 + 5] += 150
            return {"image": image.astype(np.uint8)}
        weight = random.normal(70, 10, ROWS)
        weight[::7] = np.nan
        colours = np.array(["blue", "green", "red"])[self._thirds]
        colours[::5] = ""
        length = self._thirds + random.normal(0, 0.2, ROWS)
        return {"length": length.astype(np.float32), "weight": weight.astype(np.float32), "colour": colours}

    @property
    def target(self) -> Array:
        """Label indices, or values of deviation 1."""
        return self._problem.target

    @cached_property
    def _problem(self) -> Problem:
        return tasks.named(self.task).problem(self._thirds)

    @cached_property
    def _thirds(self) -> Array:
        return np.random.default_rng(1).integers(0, 3, ROWS)

    @cached_property
    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = {"__target__": self._problem.statistics}
        for one in self.schema.fields:
            found[one.name] = _statistics(self.inputs[one.name])
        return found


def check(
    recipe: type[Recipe], *, images: bool = True, task: str = "classification", dials: Mapping[str, Any] | None = None
) -> None:
    """Hold a recipe to every rule; raises Refused with all that it breaks. `dials` are those of train.model."""
    subject = Subject(recipe, images, task, dials or {})
    if found := _broken(RULES[0], subject):
        raise Refused(f"{recipe.__name__} cannot be tried: {found}")
    broken = [f"{name(rule)}: {found}" for rule in RULES if (found := _broken(rule, subject))]
    if broken:
        raise Refused(f"{recipe.__name__} breaks {len(broken)} of {len(RULES)} rules\n" + "\n".join(broken))


def name(rule: Callable[[Subject], None]) -> str:
    """Return a rule as words."""
    return rule.__name__.replace("_", " ")


def gives_one_score_for_each_label(subject: Subject) -> None:
    trial = _trial(subject)
    check_outputs(trial)
    check_state(trial)


def starts_from_the_same_weights_for_a_seed(subject: Subject) -> None:
    recipe = subject.make()
    one, other = subject.model(recipe).state_dict(), subject.model(recipe).state_dict()
    for key, value in one.items():
        _want(bool(torch.equal(value, other[key])), f"{key} differs for the same seed; draw weights from torch alone")


def learns_on_tiny_data(subject: Subject) -> None:
    recipe = subject.make()
    _, found = _train(subject, recipe, subject.model(recipe))
    _want(all(np.isfinite(found)), f"the loss is not finite: {found[-1]}")
    _want(found[-1] < 0.9 * found[0], f"the loss went from {found[0]:.3g} to {found[-1]:.3g} in {STEPS} steps")


def learns_the_same_twice(subject: Subject) -> None:
    recipe = subject.make()
    first, _ = _train(subject, recipe, subject.model(recipe))
    second, _ = _train(subject, subject.make(), subject.model(subject.make()))
    for key, value in first.state_dict().items():
        same = torch.equal(value, second.state_dict()[key])
        _want(same, f"{key} differs after training twice with one seed; draw from torch's generator alone")


def every_weight_learns(subject: Subject) -> None:
    check_learning(_trial(subject))


def answers_a_row_the_same_in_any_batch(subject: Subject) -> None:
    check_norms(_trial(subject))
    check_rows(_trial(subject, _trained(subject)))


def remembers_nothing_between_calls(subject: Subject) -> None:
    model = _trained(subject)
    first = _answers(subject, model, slice(0, 8))
    _answers(subject, model, slice(8, 64))
    again = _answers(subject, model, slice(0, 8))
    _want(
        bool(torch.equal(first, again)), "the same rows get other scores the second time; eval mode may keep no state"
    )


def leaves_its_inputs_alone(subject: Subject) -> None:
    recipe = subject.make()
    inputs = tensors(subject.schema, subject.inputs)
    before = {key: value.clone() for key, value in inputs.items()}
    with torch.no_grad():
        subject.model(recipe).eval()(recipe.features().eval()(inputs))
    for key, value in inputs.items():
        _want(torch.equal(torch.nan_to_num(value), torch.nan_to_num(before[key])), f"{key} was changed in place")


def survives_a_saved_state(subject: Subject) -> None:
    recipe = subject.make()
    trained, _ = _train(subject, recipe, subject.model(recipe))
    other = recipe.model()
    other.load_state_dict(trained.state_dict())
    same = torch.equal(_answers(subject, trained, slice(0, 8)), _answers(subject, other, slice(0, 8)))
    _want(same, "scores differ after load_state_dict; keep everything that the model needs in parameters and buffers")


def exports_a_graph_that_answers_as_it_does(subject: Subject) -> None:
    trial = _trial(subject, _trained(subject))
    check_branches(trial)
    check_graph(trial)
    data = exported(trial, graph_of(trial))
    _want(exported(trial, graph_of(trial)) == data, "the same weights gave two different graphs")


def compares_each_output_with_its_own_target(subject: Subject) -> None:
    check_pairing(_trial(subject))


def gives_numbers_as_metrics(subject: Subject) -> None:
    check_metrics(_trial(subject))


RULES: tuple[Callable[[Subject], None], ...] = (
    gives_one_score_for_each_label,
    starts_from_the_same_weights_for_a_seed,
    learns_on_tiny_data,
    learns_the_same_twice,
    every_weight_learns,
    compares_each_output_with_its_own_target,
    answers_a_row_the_same_in_any_batch,
    remembers_nothing_between_calls,
    leaves_its_inputs_alone,
    survives_a_saved_state,
    exports_a_graph_that_answers_as_it_does,
    gives_numbers_as_metrics,
)


def _broken(rule: Callable[[Subject], None], subject: Subject) -> str:
    """Return what a rule found wrong, or nothing. A recipe is foreign code: it may raise anything torch does."""
    try:
        rule(subject)
    except (
        BoatyardError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
    ) as error:
        return f"{error}" if isinstance(error, BoatyardError) else f"{type(error).__name__}: {error}"
    return ""


def _want(kept: bool, sentence: str) -> None:
    if not kept:
        raise Refused(sentence)


def _trial(subject: Subject, model: nn.Module | None = None) -> Trial:
    """Put the recipe on the subject's rows as training does, with fresh weights or those of a model."""
    recipe = subject.make()
    batch = Batch(subject.inputs, subject.target, np.arange(ROWS), {})
    model = subject.model(recipe) if model is None else model
    return trial_of(recipe, batch, recipe.features(), model, loss_of(recipe, recipe.config))


def _loss(subject: Subject, recipe: Recipe, model: nn.Module) -> Tensor:
    with torch.no_grad():
        features = recipe.features()(tensors(subject.schema, subject.inputs))
    found: Tensor = recipe.loss()(model(features), torch.from_numpy(subject.target))
    return found


def _train(subject: Subject, recipe: Recipe, model: nn.Module) -> tuple[nn.Module, list[float]]:
    """Take some steps on all rows; return the model and the loss of every step."""
    config = recipe.config.model_copy(update={"learning_rate": 0.01})
    optimizer, found = optimisers.optimizer(config, model.train()), []
    for step in range(STEPS):
        torch.manual_seed(step)
        loss = _loss(subject, recipe, model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return model, found


def _trained(subject: Subject) -> nn.Module:
    recipe = subject.make()
    return _train(subject, recipe, subject.model(recipe))[0]


def _answers(subject: Subject, model: nn.Module, rows: slice) -> Tensor:
    inputs = tensors(subject.schema, {key: value[rows] for key, value in subject.inputs.items()})
    with torch.no_grad():
        answers: Tensor = model.eval()(subject.make().features().eval()(inputs))
    return answers


def _statistics(values: Array) -> dict[str, Any]:
    if values.dtype.kind == "U":
        kinds, counts = np.unique(values[values != ""], return_counts=True)
        return {"counts": dict(zip(kinds.tolist(), counts.tolist(), strict=True)), "missing": int((values == "").sum())}
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    numbers = {
        "mean": known.mean(),
        "std": known.std(),
        "min": known.min(),
        "max": known.max(),
        "median": np.median(known),
    }
    found: dict[str, Any] = {key: float(value) for key, value in numbers.items()}
    if values.ndim > 1:
        found |= {"mean": [found["mean"]], "std": [found["std"]]}
    return found | {"missing": int(values.size - known.size), "count": int(known.size)}
