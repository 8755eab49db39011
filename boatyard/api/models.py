"""A model that predicts in this process: the package, the engine and the reader that its endpoint has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.api import rows as reading
from boatyard.api.packages import find_package
from boatyard.errors import ConfigError

if TYPE_CHECKING:
    from boatyard.data.schema import Array, Schema
    from boatyard.packages import Package
    from boatyard.prediction import Answers, Predictor
    from boatyard.project import Project


@dataclass(frozen=True)
class PredictedRows:
    """What a model says of N rows: `labels` and `probabilities` [N, K], or `values` [N]; what it has not is None."""

    answers: Answers
    classes: tuple[str, ...]

    @property
    def labels(self) -> Array | None:
        """The most probable class of each row, text [N]."""
        return self.answers.labels

    @property
    def probabilities(self) -> Array | None:
        """Of each row and class, float32 [N, K], in the order of `classes`."""
        return self.answers.probabilities

    @property
    def values(self) -> Array | None:
        """The number predicted for each row, float32 [N]."""
        return self.answers.values

    def __len__(self) -> int:
        return len(self.answers)

    def __repr__(self) -> str:
        shown = self.labels if self.labels is not None else self.values
        first = ", ".join(str(value) for value in (shown if shown is not None else ())[:5])
        return f"PredictedRows({len(self)} rows: {first}{', …' if len(self) > 5 else ''})"

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: the label and each class's probability, or the value."""
        columns: dict[str, Any] = {}
        if self.labels is not None:
            columns["label"] = self.labels
        if self.probabilities is not None:
            columns |= {name: self.probabilities[:, index] for index, name in enumerate(self.classes)}
        if self.values is not None:
            columns["value"] = self.values
        return frame(columns)


@dataclass(frozen=True)
class Model:
    """A verified package, ready to predict: `boatyard.load("flowers").predict(rows)`."""

    predictor: Predictor

    @property
    def package(self) -> Package:
        """What it was loaded from."""
        return self.predictor.package

    @property
    def schema(self) -> Schema:
        """What a row has to have."""
        return self.predictor.schema

    def __repr__(self) -> str:
        return f"Model({self.package.name!r}, {self.package.task}, sha256 {self.package.digest[:12]})"

    def predict(self, rows: Any) -> PredictedRows:
        """Predict rows: dicts, lists, a pandas or polars frame, an Arrow table, arrays, pictures or paths of them.

        Raises RequestError, naming the row, for what the endpoint would refuse.
        """
        from boatyard import prediction

        inputs = prediction.decode(self.schema, reading.instances(rows, self.schema))
        return PredictedRows(self.predictor.run(inputs), self.package.labels)


def load(model: Project | str | Path, *, engine: str = "onnxruntime", threads: int | None = None) -> Model:
    """Load a model: a project or its folder (the version in production), "flowers@3", a package's folder or URI.

    Its files are verified and its golden examples predicted again. Raises ArtifactError, ConfigError, StorageError.
    """
    from boatyard import prediction

    return Model(prediction.load(find_package(model), threads=threads, by=engine))


def frame(columns: dict[str, Any]) -> Any:
    """Return a pandas DataFrame of columns; raises ConfigError where there is no pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ConfigError(
            "expected pandas for a DataFrame, found it not installed", fix="pip install pandas"
        ) from error
    return pandas.DataFrame(columns)
