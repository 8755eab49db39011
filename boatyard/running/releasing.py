"""The stages that ask the registry: the gate, which compares with production, and the push, which adds a version."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from boatyard import storage, waiting
from boatyard.data import artifacts, checkpoints
from boatyard.data.lineage import lineage
from boatyard.errors import ConfigError, StorageError
from boatyard.project import GateConfig, PushConfig
from boatyard.running import reasons

if TYPE_CHECKING:
    from boatyard.data.checkpoints import Record
    from boatyard.data.datasets import Dataset
    from boatyard.gating import Verdict
    from boatyard.registry import Version

logger = logging.getLogger(__name__)
FLEETING = (Path("/"), Path("/tmp"))  # mounts that end with a pod
BACKOFF = 1.0  # seconds before the first further attempt; twice as long before each after it
T = TypeVar("T")


def judge(
    rules: GateConfig,
    push: PushConfig,
    name: str,
    *,
    dataset: Path,
    checkpoint: Path,
    report: Path,
    out: Path,
    root: Path,
    retries: int = 0,
) -> Verdict:
    """Hold a report against the rules and write the verdict; the version in production is asked the same test rows.

    The registry's relative path starts at `root`; a store that refuses for a moment is asked `retries` times more.
    """
    from boatyard import gating, registry
    from boatyard.data import datasets

    production = None
    if rules.not_worse:
        _check_lasting(push.registry, root, out)
        shelf = registry.open(push.registry, root)
        alias = rules.not_worse.alias
        production = patiently(lambda: shelf.find(name, alias), retries)
    verdict = gating.gate(rules, report, checkpoint, datasets.read(dataset), production=production)
    verdict = replace(_standing(verdict, production), gate=rules.values())
    verdict.write(out)
    logger.info("%s", verdict.sentence)
    return verdict


def release(
    config: PushConfig,
    project: Mapping[str, Any],
    *,
    dataset: Path,
    checkpoint: Path,
    report: Path,
    verdict: Path,
    out: Path,
    root: Path,
    retries: int = 0,
) -> Version:
    """Pack what the stages made and push it to the registry; return the version.

    How they were made is what they say themselves; `project` says the model's name, and what artifacts of earlier
    versions leave out.
    """
    from boatyard import packages, registry
    from boatyard.data import datasets

    _check_lasting(config.registry, root, out)
    data = datasets.read(dataset)
    package = packages.pack(
        name=str(project["name"]),
        checkpoint=checkpoint,
        report=report,
        verdict=verdict,
        dataset=data,
        out=out,
        golden=config.golden,
        lineage=_lineage(project, config, data, checkpoint, report, verdict),
    )
    shelf = registry.open(config.registry, root)
    version = patiently(lambda: shelf.push(package.path, alias=config.alias), retries)
    logger.info("%s version %s at %s", version.name, version.version, version.uri)
    return version


def _check_lasting(registry: str, root: Path, out: Path) -> None:
    """Raise ConfigError for a registry in a folder that ends with the pod, where `out` says that Kubeflow runs this."""
    if storage.in_bucket(registry) or not reasons.in_kubeflow(out):
        return
    path = storage.parse(registry, root.absolute())
    if any(place.is_mount() for place in (path, *path.parents) if place not in FLEETING):
        return
    raise ConfigError(
        f"push.registry is {registry}, which in this pod is {path}, a folder that ends with it",
        fix="give an s3:// URI, or a folder of a claim that is mounted",
    )


def _lineage(
    project: Mapping[str, Any], push: PushConfig, data: Dataset, checkpoint: Path, report: Path, verdict: Path
) -> dict[str, Any]:
    """Return what dataset, checkpoint and report say of how they were made, put together."""
    from boatyard import gating

    trained = checkpoints.read(checkpoint)
    earlier = {"environment": trained.record.versions, "sections": _sections(trained.record)}
    gate = gating.Verdict.read(verdict).gate
    return lineage(
        {**project, **({"gate": gate} if gate else {}), "push": push.values()},
        data.digest,
        data.manifest.get("source", {}),
        {
            "dataset": data.manifest.get("made"),
            "checkpoint": artifacts.read_manifest(checkpoint, checkpoints.CHECKPOINT_KIND).get("made", earlier),
            "report": artifacts.read_manifest(report, "report").get("made"),
        },
    )


def _sections(record: Record) -> dict[str, Any]:
    sections = {"train": record.train, "preprocess": record.preprocess}
    return {name: section.values() for name, section in sections.items() if section}


def patiently(work: Callable[[], T], retries: int) -> T:
    """Do what a store may refuse for a moment, `retries` times more.

    A Kubeflow backend's own retries do nothing on a default installation for a step that exits with an error.
    """

    def tell(attempt: int, error: BaseException) -> None:
        logger.warning("%s; attempt %d, trying again", error, attempt)

    return waiting.retry(
        work, StorageError, attempts=retries + 1, pause_s=lambda attempt: BACKOFF * 2 ** (attempt - 1), tell=tell
    )


def _standing(verdict: Verdict, production: Path | None) -> Verdict:
    """Return production's own verdict when it is of this graph, report and rules: the same version."""
    from boatyard.gating import Verdict

    if production is None:
        return verdict
    earlier = Verdict.read(production / "verdict.json")
    about = [
        {key: found.digests.get(key) for key in ("graph", "dataset", "report", "seal")} for found in (verdict, earlier)
    ]
    return earlier if about[0] == about[1] else verdict
