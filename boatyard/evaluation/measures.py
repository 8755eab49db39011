"""The measures: one list, from which the project file's keys, the report, the gate and the docs' table derive.

A plug-in adds one under the entry point group `boatyard.measures`:

    KAPPA = Measure(
        name="kappa", title="Cohen's kappa", explanation="agreement beyond chance; 1 is best, 0 is chance",
        tasks=("classification",), direction="greater", low=-1.0, high=1.0, interval="bootstrap percentile",
        compute=kappa,
    )

where `kappa(sample: Sample) -> Metric` is a function of the test rows. From then on `gate.minimum.kappa` is a key of
the project file, evaluate computes it, the report shows it and the gate holds it to its bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np

from boatyard import plugins
from boatyard.data.schema import Array, Schema
from boatyard.errors import ConfigError
from boatyard.evaluation import metrics
from boatyard.evaluation.metrics import Metric
from boatyard.tasks.parts import Predictions

T = TypeVar("T")
Direction = Literal["greater", "less", "none"]  # which is better; a bias is best at 0, on neither side


@dataclass(frozen=True)
class Sample:
    """The test rows as predicted, and how intervals are to be made of them: what every measure is computed from."""

    predictions: Predictions
    confidence: float = 0.95
    bootstrap: int = 1000
    bins: int = 15
    seed: int = 0
    _shared: dict[Callable[[Sample], Any], Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def schema(self) -> Schema:
        return self.predictions.schema

    @property
    def target(self) -> Array:
        """Label indices int64 [N], or values float32 [N]."""
        return self.predictions.target

    @property
    def outputs(self) -> dict[str, Array]:
        """What the model says by output name, [N, …]; labels as indices."""
        return dict(self.predictions.outputs)

    @property
    def invalid(self) -> Array:
        """Bool [N]: rows without an answer."""
        return self.predictions.invalid

    @cached_property
    def invalid_rows(self) -> int:
        """How many rows are without an answer."""
        return int(self.invalid.sum())

    def shared(self, work: Callable[[Sample], T]) -> T:
        """Do work on this sample once for all measures that need it: a bootstrap that several read."""
        if work not in self._shared:
            self._shared[work] = work(self)
        result: T = self._shared[work]
        return result


@dataclass(frozen=True)
class Measure:
    """One number about a model's predictions, with its interval.

    `tasks` are those that it is a measure of, `low` and `high` the bounds that a value can have at all (what a gate
    may ask for). `compute` gives the value, its interval and the interval's method; `applies` leaves it out where a
    schema does not suit it.
    """

    name: str
    title: str
    explanation: str
    tasks: tuple[str, ...]
    direction: Direction
    interval: str
    compute: Callable[[Sample], Metric]
    low: float | None = None
    high: float | None = None
    applies: Callable[[Schema], bool] = lambda schema: True
    percent: bool = False  # whether people read it in percent

    @property
    def is_share(self) -> bool:
        """Whether it is a share, from 0 to 1, of which more is better."""
        return (self.low, self.high) == (0.0, 1.0) and self.direction == "greater"

    def wrong_bound(self, value: float) -> str:
        """Say why no model can be held to a bound; empty for a good one."""
        if (self.low is None or value >= self.low) and (self.high is None or value <= self.high):
            return ""
        if self.is_share:
            return f"expected a share from 0 to 1, such as 0.9 for 90 %, found {value:g}"
        reach = f"{self.low:g} or more" if self.low is not None else f"at most {self.high:g}"
        reach = f"from {self.low:g} to {self.high:g}" if None not in (self.low, self.high) else reach
        return f"expected a number {'of ' if 'more' in reach else ''}{reach}, found {value:g}"


def of(task: str) -> tuple[Measure, ...]:
    """Return the measures of a task, built in first, then those of plug-ins by name."""
    return tuple(measure for measure in _all() if task in measure.tasks)


def titled(name: str) -> Measure | None:
    """Return a measure by name, whatever its task; None for one that is not installed (an old report may have it)."""
    return next((measure for measure in _all() if measure.name == name), None)


def compute(sample: Sample, measures: tuple[Measure, ...]) -> dict[str, Metric]:
    """Compute what applies to a sample's schema, by name in order."""
    return {measure.name: measure.compute(sample) for measure in measures if measure.applies(sample.schema)}


def _all() -> Iterator[Measure]:
    yield from MEASURES
    for name in plugins.names("measures"):
        measure = plugins.load("measures", name)
        if not isinstance(measure, Measure) or measure.name != name:
            raise ConfigError(f"measure {name}: its entry point is no Measure of that name")
        yield measure


# Labels. What needs every row's probabilities has no value where a row has none.


def _accuracy(sample: Sample) -> Metric:
    return metrics.proportion(int((sample.target == sample.outputs["label"]).sum()), len(sample), sample.confidence)


def _table(sample: Sample) -> tuple[Array, Array]:
    labels = len(sample.schema.labels)
    table = metrics.confusion(sample.target, sample.outputs["label"], labels)
    return table, np.bincount(sample.target, minlength=labels)


def _balanced_accuracy(sample: Sample) -> Metric:
    return metrics.balanced_accuracy(*sample.shared(_table), sample.confidence)


def _macro_f1(sample: Sample) -> Metric:
    return metrics.macro_f1(*sample.shared(_table), sample.confidence)


def _probabilistic(sample: Sample) -> dict[str, Metric]:
    return metrics.probabilistic(
        sample.target,
        sample.target == sample.outputs["label"],
        sample.outputs["probabilities"],
        confidence=sample.confidence,
        bins=sample.bins,
        seed=sample.seed,
    )


def _auc(sample: Sample) -> Metric:
    return metrics.auc(sample.target, sample.outputs["probabilities"], sample.confidence)


def _top_3(sample: Sample) -> Metric:
    hits = metrics.top_hits(sample.target, sample.outputs["probabilities"], metrics.TOP)
    return metrics.proportion(int(hits.sum()), len(sample), sample.confidence)


def _valid(compute: Callable[[Sample], Metric], expected: str) -> Callable[[Sample], Metric]:
    """Give a measure no value where a prediction is none, and say how many are."""

    def measured(sample: Sample) -> Metric:
        bad = sample.invalid_rows
        note = f"{bad} of {len(sample)} predictions are not {expected}"
        return metrics.nothing("", len(sample), note) if bad else compute(sample)

    return measured


def _of_probabilities(name: str) -> Callable[[Sample], Metric]:
    return _valid(lambda sample: sample.shared(_probabilistic)[name], DISTRIBUTION)


# Values


def _values(sample: Sample) -> dict[str, Metric]:
    return metrics.regression(sample.target, sample.outputs["value"], confidence=sample.confidence)


def _of_values(name: str) -> Callable[[Sample], Metric]:
    return lambda sample: sample.shared(_values)[name]


DISTRIBUTION = "finite or not a distribution"
LABELS, VALUES = ("classification",), ("regression",)
BOUNDED, SQUARES = "betting, or Hall and Student", "Hall and Student, on squares"

MEASURES: tuple[Measure, ...] = (
    Measure(
        "accuracy",
        "Accuracy",
        "share of the rows that are right",
        LABELS,
        "greater",
        "Clopper-Pearson",
        _accuracy,
        0.0,
        1.0,
        percent=True,
    ),
    Measure(
        "balanced_accuracy",
        "Balanced accuracy",
        "mean share of each label's rows that are right",
        LABELS,
        "greater",
        "Clopper-Pearson per class, MOVER",
        _balanced_accuracy,
        0.0,
        1.0,
        percent=True,
    ),
    Measure(
        "macro_f1",
        "Macro F1",
        "mean over the labels of the harmonic mean of precision and recall",
        LABELS,
        "greater",
        "Clopper-Pearson per class, MOVER",
        _macro_f1,
        0.0,
        1.0,
        percent=True,
    ),
    Measure(
        "log_loss",
        "Log loss",
        "surprise at the truth, in nats; 0 is best",
        LABELS,
        "less",
        BOUNDED,
        _of_probabilities("log_loss"),
        0.0,
    ),
    Measure(
        "brier",
        "Brier score",
        "mean squared distance of the probabilities from the truth; 0 is best",
        LABELS,
        "less",
        BOUNDED,
        _of_probabilities("brier"),
        0.0,
    ),
    Measure(
        "ece",
        "Calibration error (ECE)",
        "how far the stated probability is from the share that is right; 0 is best",
        LABELS,
        "less",
        "what chance gives, by bin",
        _of_probabilities("ece"),
        0.0,
    ),
    Measure(
        "calibration_rmse",
        "Calibration error, debiased",
        "root mean square, less what chance alone gives; 0 is best",
        LABELS,
        "less",
        "none",
        _of_probabilities("calibration_rmse"),
        0.0,
    ),
    Measure(
        "auc",
        "ROC AUC",
        "chance that a row of a label scores above a row of another; 0.5 is guessing",
        LABELS,
        "greater",
        "Korn-Graubard and Newcombe, or Birnbaum-Klose",
        _valid(_auc, DISTRIBUTION),
        0.0,
        1.0,
    ),
    Measure(
        "top_3_accuracy",
        "Top-3 accuracy",
        "share of the rows whose label is among the three likeliest",
        LABELS,
        "greater",
        "Clopper-Pearson",
        _valid(_top_3, DISTRIBUTION),
        0.0,
        1.0,
        lambda schema: len(schema.labels) > metrics.TOP + 1,
        percent=True,
    ),
    Measure(
        "rmse",
        "RMSE",
        "root mean squared error, in the target's unit; 0 is best",
        VALUES,
        "less",
        SQUARES,
        _of_values("rmse"),
        0.0,
    ),
    Measure(
        "mae",
        "Mean absolute error",
        "in the target's unit; 0 is best",
        VALUES,
        "less",
        "Hall and Student",
        _of_values("mae"),
        0.0,
    ),
    Measure(
        "median_absolute_error",
        "Median absolute error",
        "half of the rows are nearer than this; 0 is best",
        VALUES,
        "less",
        "order statistics",
        _of_values("median_absolute_error"),
        0.0,
    ),
    Measure(
        "r2",
        "R²",
        "share of the target's variance that is explained; 1 is best, 0 is guessing the mean",
        VALUES,
        "greater",
        "Hall and Student, Fieller",
        _of_values("r2"),
        None,
        1.0,
    ),
    Measure(
        "bias",
        "Bias",
        "mean of predicted minus true; 0 is best",
        VALUES,
        "none",
        "Hall and Student",
        _of_values("bias"),
    ),
)
