"""A package that answers: verified, the graph loaded from the very bytes, the golden examples answered again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boatyard.data.schema import Array, Schema
from boatyard.errors import ArtifactError, ConfigError, RequestError
from boatyard.prediction.engine import Answers, Engine

if TYPE_CHECKING:
    from boatyard.packages import Golden, Package

logger = logging.getLogger(__name__)
ENGINES = (Engine.name, "openvino")
TOLERANCE = 1e-5  # two builds of ONNX Runtime, or two batch sizes, round differently; a wrong model is far off


@dataclass(frozen=True)
class Predictor:
    """A verified package and the engine that runs its graph."""

    package: Package
    engine: Engine

    @property
    def name(self) -> str:
        return self.package.name

    @property
    def digest(self) -> str:
        return self.package.digest

    @property
    def schema(self) -> Schema:
        return self.package.schema

    def run(self, inputs: Mapping[str, Array]) -> Answers:
        """Answer rows; raises RequestError when they do not fit the schema or have no finite answer."""
        answers = self.engine.run(inputs)
        if (row := answers.unanswered()) is not None:
            raise RequestError(f"expected rows that the model has finite answers for, found none for row {row}")
        return answers


def engine(name: str) -> type[Engine]:
    """Return an engine by name; raises ConfigError when there is none, or it is not installed."""
    if name == Engine.name:
        return Engine
    if name == "openvino":
        from boatyard.prediction.openvino import OpenVino  # an extra

        return OpenVino
    raise ConfigError(f"expected an engine of {', '.join(ENGINES)}, found {name!r}")


def load(path: Path, *, digest: str | None = None, threads: int | None = None, by: str = Engine.name) -> Predictor:
    """Verify a package, load its graph `by` an engine and answer its golden examples.

    Raises ArtifactError when one differs, or the engine does not run the graph, ConfigError when there is no engine.
    """
    from boatyard import packages  # which packs with the engine of this package
    from boatyard.packages import needs

    package = packages.verify(path, digest)
    needs.check(package.name, package.needs, by)
    predictor = Predictor(package, engine(by)(package.graph, package.schema, threads))
    check_golden(predictor.engine, package.golden)
    logger.info("loaded %s, sha256 %s: %d golden examples agree", package.name, package.digest, len(package.golden))
    return predictor


def check_golden(engine: Engine, golden: Golden) -> None:
    """Refuse an engine that answers an example otherwise than sealed: another label, or a number off by more than 1e-5.

    Values of a regression may be off by 1e-5 of their size.
    """
    try:
        found = engine.run(golden.inputs)
    except RequestError as error:
        raise ArtifactError(f"golden.json: {error}") from error
    for row in range(len(golden)):
        if difference := _difference(golden.answers, found, row):
            raise ArtifactError(
                f"golden example {row}: {difference}; this is not the engine or graph that was evaluated"
            )


def _difference(wanted: Answers, found: Answers, row: int) -> str | None:
    if wanted.values is not None and found.values is not None:
        a, b = float(wanted.values[row]), float(found.values[row])
        return None if abs(a - b) <= TOLERANCE * max(1.0, abs(a)) else f"expected {a:g}, found {b:g}"
    assert wanted.labels is not None and found.labels is not None
    assert wanted.probabilities is not None and found.probabilities is not None
    if wanted.labels[row] != found.labels[row]:
        return f"expected {wanted.labels[row]!r}, found {found.labels[row]!r}"
    off = float(np.max(np.abs(wanted.probabilities[row] - found.probabilities[row])))
    return None if off <= TOLERANCE else f"a probability is off by {off:g}"
