"""Candidates and their verdicts for the tests of what is pushed: small packages, held against what stands."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import graphs

from boatyard import packages
from boatyard.data import artifacts


def rules(compared: bool = True) -> list[dict[str, Any]]:
    """Return a verdict's rules, with or without the one that holds a candidate against production."""
    names = ["rows", "not_worse"] if compared else ["rows"]
    return [{"name": n, "wanted": None, "found": 1.0, "margin": 1.0, "passed": True, "sentence": n} for n in names]


def candidate(made: Path, to: Path, production: str | None, *, compared: bool = True, alias: str = "") -> Path:
    """Copy a package to a folder and give it the verdict of a gate that found `production` (a digest) standing."""
    shutil.copytree(made, to)
    digests = {"graph": artifacts.digest_file(to / "model.onnx"), **({"production": production} if production else {})}
    verdict = {"format": 1, "kind": "verdict", "passed": True, "sentence": "passed", "rules": rules(compared)}
    artifacts.write_json(to / "verdict.json", {**verdict, "notes": [], "digests": digests, "alias": alias})
    graphs.reseal(to)
    return to


def digest(package: Path) -> str:
    """Return a package's digest."""
    return packages.verify(package).digest
