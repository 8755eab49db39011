"""What a user brings: a model, and where the defaults do not fit, its features, loss and metrics.

Built in are `linear`, `mlp` and `cnn`; a plug-in registers under the entry point group `boatyard.recipes`; a
project's own recipe is `module:Class` in its folder. `boatyard.recipes.conformance.check` tells an author whether a
recipe keeps the rules.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import threading
import traceback
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from boatyard import tasks
from boatyard.data.schema import Schema
from boatyard.errors import ConfigError
from boatyard.project import PreprocessConfig, Section, TrainConfig

if TYPE_CHECKING:  # torch takes seconds to import: naming a recipe does not need it
    from torch import Tensor, nn

GROUP = "boatyard.recipes"
_importing = threading.Lock()


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


def names() -> tuple[str, ...]:
    """Return the names of the recipes that are installed, built in and plug-ins."""
    return tuple(sorted(_installed()))


def load(name: str, root: Path) -> type[Recipe]:
    """Find a recipe's class by name or by `module:Class` below `root`; raises ConfigError."""
    if ":" in name:
        return _own(name, root)
    if (point := _installed().get(name)) is None:
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"train.recipe: no recipe {name!r}; {hint}installed are {', '.join(names())}; your own is module:Class"
        )
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"train.recipe: {name} is installed as {point.value}, which does not load: {error}"
        ) from error
    return _checked(found, point.value)


def make(
    config: TrainConfig, how: PreprocessConfig, schema: Schema, statistics: Mapping[str, Any], *, root: Path
) -> Recipe:
    """Load the recipe that a configuration names and make it for a dataset; raises ConfigError."""
    return load(config.recipe, root)(config, how, schema, statistics)


def sources(kind: type[Recipe], root: Path) -> list[Path]:
    """Return the file that a recipe's class was read from, and what else was imported from the project's folder."""
    files = {name: Path(file) for name, module in sys.modules.items() if (file := getattr(module, "__file__", None))}
    below = [path for path in files.values() if path.is_relative_to(root.absolute()) and path.suffix == ".py"]
    own = [files[kind.__module__]] if kind.__module__ in files else []
    return sorted({*own, *(below if own and own[0] in below else [])})


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _own(name: str, root: Path) -> type[Recipe]:
    """Import `module:Class` from the project's folder, freshly: another project may have a module of that name."""
    module, _, attribute = name.partition(":")
    file = root.absolute().joinpath(*module.split(".")).with_suffix(".py")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise ConfigError(f"train.recipe: expected module:Class such as model:Net, found {name!r}")
    if not file.is_file():
        raise ConfigError(f"train.recipe: {name} wants the file {file}, which is not there")
    loaded = _import(module, file, root.absolute())
    found = getattr(loaded, attribute, None)
    if found is None:
        classes = [key for key, value in vars(loaded).items() if isinstance(value, type) and value.__module__ == module]
        raise ConfigError(f"train.recipe: no class {attribute} in {file}; it has {', '.join(classes) or 'no classes'}")
    return _checked(found, name)


def _import(module: str, file: Path, root: Path) -> Any:
    with _importing:
        for name in (module, module.partition(".")[0]):  # the file may have changed, or be another project's
            sys.modules.pop(name, None)
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
        try:
            return importlib.import_module(module)
        except Exception as error:  # whatever the author's code raises
            said = str(error) if isinstance(error, ImportError | SyntaxError) else f"{type(error).__name__}: {error}"
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
            at = f", line {lines[-1]}" if lines else ""
            raise ConfigError(f"train.recipe: {file} does not import: {said}{at}") from error
        finally:
            sys.path.remove(str(root))


def _checked(found: Any, name: str) -> type[Recipe]:
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise ConfigError(f"train.recipe: {name} is not a subclass of boatyard.recipes.Recipe")
    if not issubclass(found.Dials, BaseModel):
        raise ConfigError(f"train.recipe: {name}.Dials is not a pydantic model")
    return found


def _sentence(kind: type[Recipe], error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown(kind, error["loc"])
    path = ".".join(str(part) for part in ("train.model", *error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    found = "" if error["type"] in ("value_error", "missing") else f", found {error['input']!r}"
    return f"{path}: {message[0].lower()}{message[1:]}{found}"


def _unknown(kind: type[Recipe], location: tuple[Any, ...]) -> str:
    allowed = ", ".join(kind.Dials.model_fields) or "none"
    near = difflib.get_close_matches(str(location[-1]), list(kind.Dials.model_fields), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"train.model.{'.'.join(map(str, location))}: no such setting; {hint}{kind.__name__} has {allowed}"
