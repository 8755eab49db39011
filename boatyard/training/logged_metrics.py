"""The numbers that a recipe's `metrics` gives for the log: floats under names that nothing of ours has."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from boatyard.errors import ConfigError

RESERVED = {"loss", "epoch", "step", "best_epoch", "learning_rate", "images_per_second", "rows_per_second", "seconds",
            "parameters", "time", "lr"}  # fmt: skip
PREFIXES = ("train_", "training_", "validation_", "val_", "valid_", "test_", "best_")


def checked(metrics: Any, recipe: str, epoch: int = 0) -> dict[str, float]:
    """Return a recipe's metrics as floats; raises ConfigError for a name that is taken, or a value that is no number.

    `loss` would choose the epoch that is kept in place of the validation loss.
    """
    if not isinstance(metrics, Mapping):
        raise ConfigError(
            f"metrics() of {recipe}", expected="a dict of names and numbers", found=type(metrics).__name__
        )
    for name in metrics:
        if taken := is_taken(name):
            raise ConfigError(f"metrics() of {recipe} has a metric named {name!r}: {taken}", fix="rename the metric")
    seen: dict[str, str] = {}
    for name in metrics:
        if (other := seen.setdefault(_plain(name), name)) != name:
            raise ConfigError(
                f"metrics() of {recipe} has the metrics {other!r} and {name!r}, one name but for its spelling",
                fix="rename one of them",
            )
    return {name: _number(value, name, recipe, epoch) for name, value in metrics.items()}


def is_taken(name: Any) -> str:
    """Say why a metric cannot have a name; empty where it can."""
    if not isinstance(name, str) or not name.strip():
        return "a name is a text"
    plain = _plain(name)
    bare = plain
    while prefix := next((prefix for prefix in PREFIXES if bare.startswith(prefix)), ""):
        bare = bare.removeprefix(prefix)
    if plain in RESERVED or bare == "loss" or "".join(plain.split("_")) in {"".join(r.split("_")) for r in RESERVED}:
        return "the run's own log has it, and the validation loss chooses the epoch that is kept"
    return ""


def _plain(name: str) -> str:
    """Return a name without what spellings differ in: case, spaces, hyphens."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", words.casefold()).strip("_")


def _number(value: Any, name: str, recipe: str, epoch: int) -> float:
    at = f"metrics() of {recipe}: {name!r}" + (f" is {value} in epoch {epoch}" if epoch else "")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(at, expected="a float", found=f"{type(value).__name__} ({error})") from error
    if epoch and not math.isfinite(number):
        raise ConfigError(
            at, expected="a finite number", fix="give 0 where there is nothing to measure, or leave it out"
        )
    return number
