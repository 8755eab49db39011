"""What a user brings: a model, and where the defaults do not fit, its features, loss and metrics.

Built in are `linear`, `mlp` and `cnn`; a plug-in registers under the entry point group `boatyard.recipes`; a
project's own recipe is `module:Class` in its folder. `boatyard.recipes.conformance.check` tells an author whether a
recipe keeps the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from boatyard import tasks
from boatyard.data.schema import Schema
from boatyard.errors import ConfigError
from boatyard.project import PreprocessConfig, Section, TrainConfig
from boatyard.spelling import hint

if TYPE_CHECKING:  # torch takes seconds to import: naming a recipe does not need it
    from torch import Tensor, nn


class Recipe:
    """A model and how it learns. Subclass it and write `model`; the rest has defaults.

    `dials` is an instance of the nested `Dials`, made of `train.model` in the project file. `shape` is the shape of
    one row after `features`: (C, H, W) for an image, (F,) for a table. `outputs` is how many numbers the model must
    give for a row, which the task says: one score for each of `schema.labels`, or 1 for a regression.
    """

    class Dials(Section):
        """None."""

    def __init__(
        self, config: TrainConfig, how: PreprocessConfig, schema: Schema, statistics: Mapping[str, Any]
    ) -> None:
        self.config, self.how, self.schema, self.statistics = config, how, schema, statistics
        self.dials: Any = dials(type(self), config.model)
        self.outputs = tasks.of(schema).width(schema)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row as the model sees it."""
        from boatyard.data.features import output_shape

        return output_shape(self.features(), self.schema)

    def model(self) -> nn.Module:
        """Make the model with fresh weights: float32 [N, *shape] to float32 [N, outputs] (scores before a softmax)."""
        raise NotImplementedError(f"{type(self).__name__} has no model(self)")

    def features(self) -> nn.Module:
        """Make the module that turns raw inputs (a dict by tensor name) into what the model sees; part of the graph."""
        from boatyard.data.features import Features

        return Features(self.schema, self.statistics, self.how)

    def loss(self) -> nn.Module:
        """Make the loss: (float32 [N, outputs], target [N]) to a scalar, the mean over the rows.

        Targets are int64 label indices, or float32 values that were made mean 0 and deviation 1.
        """
        from boatyard.training import losses

        return losses.named(None, self.schema, self.statistics, self.config.class_weights)

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Return numbers for the log, of the whole validation split: outputs [N, outputs], target as `loss` sees it."""
        task = tasks.of(self.schema)
        head = task.head(self.config.loss, self.schema, self.statistics)
        return task.training_metrics(head, outputs, target)


def dials(kind: type[Recipe], values: Mapping[str, Any]) -> BaseModel:
    """Make a recipe's settings of `train.model`; raises ConfigError with the path of each wrong one."""
    try:
        made = kind.Dials.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(kind, one) for one in error.errors())) from error
    if unknown := sorted(set(values) - set(kind.Dials.model_fields)):
        raise ConfigError("\n".join(_unknown(kind, (name,)) for name in unknown))
    return made


def _sentence(kind: type[Recipe], error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown(kind, error["loc"])
    path = ".".join(str(part) for part in ("train.model", *error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    found = "" if error["type"] in ("value_error", "missing") else f", found {error['input']!r}"
    return f"{path}: {message[0].lower()}{message[1:]}{found}"


def _unknown(kind: type[Recipe], location: tuple[Any, ...]) -> str:
    known = hint(str(location[-1]), kind.Dials.model_fields, said=f"{kind.__name__} has")
    return f"train.model.{'.'.join(map(str, location))}: no such setting; {known}"
