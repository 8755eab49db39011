"""Gate: the rules of the project file, frozen before training, held against a report; a verdict with every number.

A verdict that says no is not an error: it is written like any other, so that a refusal is told apart from a crash
everywhere.
"""

from __future__ import annotations

import logging
from pathlib import Path

from boatyard.data import artifacts, checkpoints
from boatyard.data.datasets import Dataset
from boatyard.errors import ArtifactError
from boatyard.evaluation.report import Report
from boatyard.gating.comparison import compare
from boatyard.gating.thresholds import sealed, threshold_rules
from boatyard.gating.verdicts import Verdict, verdict
from boatyard.project import GateConfig

logger = logging.getLogger(__name__)


def gate(config: GateConfig, report: Path, checkpoint: Path, dataset: Dataset, *, production: Path | None) -> Verdict:
    """Hold a report against the rules and, on the same test rows, against the package in production.

    Raises ArtifactError when report, checkpoint and dataset do not belong together or were changed, ConfigError for a
    rule about a metric that the report does not have.
    """
    trained = checkpoints.read(checkpoint)
    measured = Report.read(report)
    graph = artifacts.digest_file(trained.graph)
    _same("graph", measured.lineage["graph"], graph, report, checkpoint)
    _same("dataset", measured.lineage["dataset"], dataset.digest, report, dataset.path)
    digests = {"graph": graph, "dataset": dataset.digest, "report": measured.digest, "seal": config.seal}
    rules = [sealed(config, trained.record.seal), *threshold_rules(config, measured)]
    notes: list[str] = []
    if config.not_worse:
        rule, more = compare(config.not_worse, measured, report, dataset, production)
        rules.append(rule)
        notes += more
        if production:
            digests["production"] = artifacts.digest_file(production / "package.json")
    alias = config.not_worse.alias if config.not_worse else ""
    answer = verdict(tuple(rules), tuple(notes), digests, alias)
    logger.info("gate: %s", answer.sentence)
    return answer


def _same(what: str, found: str, expected: str, report: Path, other: Path) -> None:
    if found != expected:
        raise ArtifactError(
            f"{report} is about {what} {found[:12]}…, {other} is {expected[:12]}…: they do not belong together",
            fix="evaluate again",
        )
