"""Judged is pushed: a package's verdict is about its own graph, and production still is what it was held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from boatyard.errors import ArtifactError, Refused
from boatyard.packages import Package
from boatyard.registry.history import History, Standing

COMPARISON = "not_worse"  # the rule that holds a candidate against production


def check_own(package: Package) -> None:
    """Raise ArtifactError for a package with the verdict on another model."""
    graph = package.of("graph")[0].sha256
    judged = _digests(package.verdict).get("graph")
    if judged != graph:
        raise ArtifactError(
            f"{package.path}: its verdict is about another model",
            expected=f"one about graph {graph[:12]}…",
            found=f"one about {str(judged)[:12]}…",
            fix="gate and pack this checkpoint",
        )


def check_standing(
    package: Package, alias: str, history: History, verdict_of: Callable[[Standing], Mapping[str, Any]]
) -> None:
    """Raise Refused unless what the verdict was held against stands yet.

    It also may be this very package (a push tried again), or one that this very verdict let through: the same model on
    the same rows.
    """
    verdict = package.verdict
    if not any(isinstance(rule, dict) and rule.get("name") == COMPARISON for rule in verdict.get("rules", [])):
        return
    against = str(verdict.get("alias") or alias)
    standing, judged = history.aliases.get(against), _digests(verdict).get("production")
    if standing is None and (against in history.aliases or history.unknown):
        raise Refused(
            f"what {against} of {package.name} stood on is lost",
            fix=f"boatyard registry promote {package.name} VERSION {against}, then gate again",
        )
    if (standing.digest if standing else None) in (judged, package.digest):
        return
    if standing and verdict_of(standing) == verdict:
        return
    raise Refused(
        f"{against} moved since: gate again",
        expected=_shown(judged, None),
        found=_shown(standing.digest, standing.version) if standing else "none",
        fix="nothing was pushed",
    )


def _digests(verdict: Mapping[str, Any]) -> Mapping[str, Any]:
    found = verdict.get("digests")
    return found if isinstance(found, dict) else {}


def _shown(digest: Any, version: int | None) -> str:
    if digest is None:
        return "none"
    return f"{f'version {version}, ' if version else ''}sha256 {str(digest)[:12]}…"
