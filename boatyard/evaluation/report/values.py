"""The report on one graph and one test split: numbers with intervals, and one page for people.

`report.json` holds everything, `report.html` shows it, `predictions.parquet` has the answer to every row.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from boatyard import tasks
from boatyard.data import artifacts
from boatyard.data.schema import Array
from boatyard.errors import ArtifactError, ConfigError
from boatyard.evaluation import metrics
from boatyard.evaluation.metrics import Bin, ClassScore, Metric, Roc
from boatyard.evaluation.slices import Slice

REPORT_KIND = "report"
POINTS = 1000  # of a scatter plot
NUMBERS, PAGE, PREDICTIONS = "report.json", "report.html", "predictions.parquet"

__all__ = ["Bin", "ClassScore", "Confusion", "Example", "Metric", "Report", "ReportParts", "Residuals", "Roc", "Slice"]


@dataclass(frozen=True)
class Confusion:
    """How often each label was given for each: `cells` are (true, predicted, rows), zeros left out."""

    labels: tuple[str, ...]
    cells: tuple[tuple[int, int, int], ...]

    @property
    def matrix(self) -> list[list[int]]:
        """The whole table, a row a true label and a column a predicted one."""
        table = [[0] * len(self.labels) for _ in self.labels]
        for true, predicted, rows in self.cells:
            table[true][predicted] = rows
        return table

    @classmethod
    def of(cls, labels: tuple[str, ...], table: Array) -> Confusion:
        """Make one of an int [K, K] table."""
        seen = np.argwhere(table)
        return cls(labels, tuple((int(i), int(j), int(table[i, j])) for i, j in seen))


@dataclass(frozen=True)
class Residuals:
    """A regression's points for plots: (target, predicted) of at most 1000 rows, and the errors' histogram."""

    points: tuple[tuple[float, float], ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, target: Array, values: Array, seed: int) -> Residuals | None:
        """Make them of true and predicted values [N]; None where no value is finite."""
        good = np.isfinite(values)
        if not good.any():
            return None
        x, y = target[good].astype(np.float64), values[good].astype(np.float64)
        some = np.sort(np.random.default_rng(seed).permutation(len(x))[:POINTS])
        counts, edges = histogram(y - x)
        points = tuple((float(a), float(b)) for a, b in zip(x[some], y[some], strict=True))
        return cls(points, tuple(map(float, edges)), tuple(map(int, counts)))


def histogram(values: Array) -> tuple[Array, Array]:
    """Count numbers in 5 to 40 bins, with room around numbers that are nearly equal; return counts and edges."""
    low, high = float(values.min()), float(values.max())
    scale = max(abs(low), abs(high), 1e-9)
    room = 0.0 if high - low > 1e-9 * scale else 1e-6 * scale
    return np.histogram(values, bins=min(40, max(5, math.isqrt(len(values)))), range=(low - room, high + room))


@dataclass(frozen=True)
class ReportParts:
    """What one task's report has beside measures, slices and examples: scores by label, curves, residuals."""

    classes: tuple[ClassScore, ...] = ()
    confusion_cells: Confusion | None = None
    calibration: tuple[Bin, ...] = ()
    rocs: tuple[Roc, ...] = ()
    residuals: Residuals | None = None


@dataclass(frozen=True)
class Example:
    """A row that the model got most wrong: `loss` is what it is ranked by, None where the answer was no number.

    `picture` is a data URI for an image, `values` the fields for a table.
    """

    row: int
    target: str
    predicted: str
    right: bool
    confidence: float | None
    loss: float | None
    picture: str | None
    values: dict[str, str]


@dataclass(frozen=True, repr=False)
class Report:
    """What evaluate found. Everything but `path` and `digest` is in report.json; no number in it is NaN or infinite.

    `invalid` counts predictions that are no numbers; `slice_metric` names what the slices measure; `training` has the
    numbers of each epoch; `data` counts rows and repairs; `lineage` pins graph, dataset and checkpoint by digest.
    """

    path: Path
    digest: str
    task: str
    target: str
    rows: int
    invalid: int
    confidence: float
    metrics: dict[str, Metric]
    classes: tuple[ClassScore, ...]
    confusion_cells: Confusion | None
    calibration: tuple[Bin, ...]
    rocs: tuple[Roc, ...]
    slices: tuple[Slice, ...]
    slice_metric: str
    worst: tuple[Example, ...]
    residuals: Residuals | None
    training: tuple[dict[str, float], ...]
    data: dict[str, Any]
    lineage: dict[str, Any]

    @property
    def main(self) -> str:
        """The metric that the report opens with."""
        return tasks.named(self.task).main

    @property
    def confusion(self) -> tuple[list[str], list[list[int]]] | None:
        """Labels and the confusion matrix (rows true, columns predicted), as KFP's log_confusion_matrix takes them."""
        if self.confusion_cells is None:
            return None
        return list(self.confusion_cells.labels), self.confusion_cells.matrix

    def headline(self) -> str:
        """Say the main metric, its interval and the rows in one line."""
        return f"{self.main} {self.metrics[self.main]} ({self.confidence * 100:g} % confidence)"

    def roc(self) -> tuple[list[float], list[float], list[float]] | None:
        """Rates and finite thresholds, as KFP's log_roc_curve takes them; None but for two labels with rows of both."""
        if len(self.classes) != 2 or not self.rocs:
            return None
        curve = self.rocs[-1]
        return list(curve.fpr), list(curve.tpr), list(curve.thresholds)

    def numbers(self) -> dict[str, float]:
        """Every metric and interval end that has a value, flat and finite: accuracy, accuracy_low, accuracy_high …"""
        flat = metrics.numbers(self.metrics)
        flat["test_rows"], flat["invalid_predictions"] = float(self.rows), float(self.invalid)
        return {name: value for name, value in flat.items() if math.isfinite(value)}

    def to_frame(self) -> Any:
        """Return the metrics as a pandas DataFrame, one a row: value, low, high, method, n, note."""
        try:
            import pandas
        except ImportError as error:
            raise ConfigError("a DataFrame needs pandas, which is not installed", fix="pip install pandas") from error
        return pandas.DataFrame.from_dict({name: asdict(metric) for name, metric in self.metrics.items()}, "index")

    def __repr__(self) -> str:
        return f"Report({self.headline()}, {self.path / PAGE})"

    def _repr_html_(self) -> str:
        """Return the page for a notebook's cell, in a frame of its own: its style is not the notebook's."""
        page = html.escape((self.path / PAGE).read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 60em; border: 0"></iframe>'

    def to_dict(self) -> dict[str, Any]:
        """Return report.json's values."""
        values = asdict(self)
        del values["path"], values["digest"]
        return values

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], path: Path, digest: str) -> Report:
        """Read report.json's values; raises ArtifactError when they are not a report."""
        try:
            given = {field.name: value[field.name] for field in fields(cls) if field.name not in ("path", "digest")}
            given["metrics"] = {name: Metric(**one) for name, one in given["metrics"].items()}
            given["classes"] = tuple(_class(one) for one in given["classes"])
            given["confusion_cells"] = _confusion(given["confusion_cells"])
            given["calibration"] = tuple(Bin(**one) for one in given["calibration"])
            given["rocs"] = tuple(_tuples(Roc, one) for one in given["rocs"])
            given["slices"] = tuple(Slice(**{**one, "metric": Metric(**one["metric"])}) for one in given["slices"])
            given["worst"] = tuple(Example(**one) for one in given["worst"])
            given["residuals"] = _residuals(given["residuals"])
            given["training"] = tuple(given["training"])
            return cls(path=path, digest=digest, **given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{path / NUMBERS} is not a report of this version ({error})", fix="evaluate again"
            ) from error

    @classmethod
    def read(cls, folder: Path) -> Report:
        """Read a report once every file of it has been found to be as its manifest says; raises ArtifactError."""
        artifacts.verify(folder, REPORT_KIND)
        digest = artifacts.digest_file(folder / artifacts.MANIFEST)
        return cls.from_dict(artifacts.read_json(folder / NUMBERS), folder, digest)


def _class(value: Mapping[str, Any]) -> ClassScore:
    own = {name: Metric(**value[name]) for name in ("precision", "recall", "f1", "auc")}
    return ClassScore(**{**value, **own})


def _tuples(kind: Any, value: Mapping[str, Any]) -> Any:
    return kind(**{name: tuple(one) if isinstance(one, list) else one for name, one in value.items()})


def _confusion(value: Mapping[str, Any] | None) -> Confusion | None:
    if value is None:
        return None
    return Confusion(tuple(value["labels"]), tuple((i, j, n) for i, j, n in value["cells"]))


def _residuals(value: Mapping[str, Any] | None) -> Residuals | None:
    if value is None:
        return None
    points = tuple((x, y) for x, y in value["points"])
    return Residuals(points, tuple(value["edges"]), tuple(value["counts"]))
