"""What a deploy would change, field by field and why: the API server's own dry run beside what is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from boatyard.deployment.rendering import RENDERED
from boatyard.kubernetes.cluster import FIELD_MANAGER, Cluster

Object = dict[str, Any]
PARTS = ("labels", "annotations")
REASONS = {
    "spec.predictor.model.storageUri": "where the package lies (serve.storage)",
    "spec.predictor.model.args": "the package's digest",
    "spec.predictor.model.resources": "serve.cpu, serve.memory",
    "spec.predictor.model.runtime": "serve.runtime",
    "spec.predictor.model.lifecycle": "the time to drain",
    "spec.predictor.minReplicas": "serve.autoscaling.minimum",
    "spec.predictor.maxReplicas": "serve.autoscaling.maximum",
    "spec.predictor.scale": "serve.autoscaling",
    "spec.predictor.autoScaling": "serve.autoscaling",
    "spec.predictor.serviceAccountName": "serve.service_account",
    "metadata.annotations.boatyard/digest": "another package",
    "metadata.annotations.boatyard/version": "another version of the registry",
    f"metadata.annotations.{RENDERED}": "what its pods are made of: all are replaced, one by one",
    "metadata.annotations.serving.kserve.io/deploymentMode": "serve.mode",
    "metadata.annotations.serving.kserve.io/autoscalerClass": "serve.autoscaling",
    "metadata.labels.app.kubernetes.io/version": "another version of boatyard",
}


@dataclass(frozen=True)
class Change:
    """One field that would change; `old` is None where there is none, `new` where it goes away."""

    object: str
    field: str
    old: Any
    new: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.object}  {self.field}: {_shown(self.old)} → {_shown(self.new)}  ({self.reason})"


def plan(cluster: Cluster, objects: list[Object]) -> list[Change]:
    """Return what applying would change, in the cluster as it is; nothing is changed. Raises ClusterError."""
    return [change for manifest in objects for change in _changes(cluster, manifest)]


def _changes(cluster: Cluster, manifest: Object) -> Iterator[Change]:
    kind, meta = manifest["kind"], manifest["metadata"]
    name = f"{kind}/{meta['name']}"
    live = cluster.get(kind, meta["name"], meta["namespace"])
    planned = cluster.apply(manifest, dry_run=True, force=True)
    if live is None:
        yield Change(name, "", None, "new", f"there is none in namespace {meta['namespace']}")
        return
    ours = dict(_leaves(_said(manifest)))
    before, after = dict(_leaves(_said(live))), dict(_leaves(_said(planned)))
    for field in sorted(before.keys() | after.keys()):
        old, new = before.get(field), after.get(field)
        if old != new:
            yield Change(name, field, old, new, _why(field, live, ours))


def _said(value: Object) -> Object:
    """Return the part of an object that somebody wants, without what the server keeps."""
    meta = value.get("metadata", {})
    return {"metadata": {part: meta.get(part, {}) for part in PARTS}, "spec": value.get("spec", {})}


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Give every field that has no fields of its own, by its path; a list is one value unless it holds objects."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{at}[{number}]")
    elif value not in ({}, []):
        yield at, value


def _why(field: str, live: Object, ours: Object) -> str:
    """Return why a field differs: another wrote it, the project or the package says something else, a default."""
    others = sorted(_owners(live, field) - {FIELD_MANAGER})
    if others:
        return f"set by {', '.join(others)}, not by boatyard" + ("" if field in ours else "; left over")
    for start, reason in sorted(REASONS.items(), key=lambda pair: -len(pair[0])):
        if field.startswith(start):
            return reason
    return "the endpoint as this version of boatyard makes it" if field in ours else "no longer part of the endpoint"


def _owners(live: Object, field: str) -> set[str]:
    """Return who set a field, as far as the API server keeps it; lists belong to whoever set them."""
    owners = set()
    for entry in live["metadata"].get("managedFields", []):
        if entry.get("subresource"):
            continue
        if _owned(entry.get("fieldsV1", {}), field.partition("[")[0]):
            owners.add(str(entry.get("manager")))
    return owners


def _owned(fields: Object, path: str) -> bool:
    """Whether a tree of managed fields holds a path; keys may have dots in them."""
    if not path:
        return True
    for key, inner in fields.items():
        name = key.removeprefix("f:")
        if path == name or path.startswith(f"{name}."):
            return _owned(inner, path[len(name) + 1 :])
    return False


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
