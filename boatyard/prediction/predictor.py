"""A package that answers: verified, the graph loaded from the very bytes, the golden examples answered again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from boatyard import plugins, tasks
from boatyard.data.schema import Array, Schema
from boatyard.errors import ArtifactError, RequestError
from boatyard.prediction.answers import Answers
from boatyard.prediction.engines import Engine
from boatyard.prediction.engines.onnxruntime import OnnxRuntime

if TYPE_CHECKING:
    from boatyard.packages import Golden, Package

logger = logging.getLogger(__name__)


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
            raise RequestError(expected="rows that the model has finite answers for", found=f"none for row {row}")
        return answers


def load(path: Path, *, digest: str | None = None, threads: int | None = None, by: str = OnnxRuntime.name) -> Predictor:
    """Verify a package, load its graph `by` an engine and answer its golden examples.

    Raises ArtifactError when one differs, or the engine does not run the graph, ConfigError when there is no engine.
    """
    from boatyard import packages  # which packs with the engine of this package
    from boatyard.packages import needs

    package = packages.verify(path, digest)
    needs.check(package.name, package.needs, by)
    predictor = Predictor(package, plugins.load("engines", by)(package.model, package.schema, threads))
    check_golden(predictor.engine, package.golden)
    logger.info("loaded %s, sha256 %s: %d reference outputs agree", package.name, package.digest, len(package.golden))
    return predictor


def check_golden(engine: Engine, golden: Golden) -> None:
    """Refuse an engine that answers an example otherwise than packaged, by the task's comparison."""
    try:
        answers = engine.run(golden.inputs)
    except RequestError as error:
        raise ArtifactError(f"golden.json: {error}") from error
    task = tasks.of(engine.schema)
    for row in range(len(golden)):
        if difference := task.difference(engine.schema, golden.answers, answers, row):
            raise ArtifactError(
                f"reference row {row}: {difference}", fix="this is not the engine or graph that was evaluated"
            )
