"""What the nodes of a cluster have left, and which pods they could place now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from boatyard.diagnosis.gathering import Reader
from boatyard.diagnosis.snapshot import Object, asked_by_node, shown
from boatyard.project.fields import quantity

KEEPS_OUT = ("NoSchedule", "NoExecute")


@dataclass(frozen=True)
class Room:
    """A node: what is left of cpu (cores), memory (bytes) and devices when its pods have what they ask for."""

    node: str
    free: Mapping[str, float]
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Ask:
    """What a pod asks for: amounts by resource, labels of its node, taints that it tolerates."""

    amounts: Mapping[str, str]
    selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]


def rooms(cluster: Reader) -> tuple[Room, ...]:
    """Return the nodes that take pods, and what is free on each; raises ClusterError."""
    asked = asked_by_node(cluster.list("Pod", "*"))
    nodes = [node for node in cluster.list("Node") if not node["spec"].get("unschedulable")]
    return tuple(_room(node, asked.get(node["metadata"]["name"], {})) for node in nodes)


def _room(node: Object, asked: Mapping[str, float]) -> Room:
    allocatable = node.get("status", {}).get("allocatable", {})
    free = {name: quantity(amount) - asked.get(name, 0.0) for name, amount in allocatable.items()}
    meta, spec = node["metadata"], node["spec"]
    return Room(meta["name"], free, meta.get("labels", {}), tuple(spec.get("taints") or ()))


def unplaced(nodes: Iterable[Room], ask: Ask) -> str:
    """Say why no node has room for a pod now; nothing where one has."""
    open_to = [node for node in nodes if _admits(node, ask)]
    if not open_to:
        return "no node has its labels and lets it in by its taints"
    amounts = {**ask.amounts, "pods": "1"}
    lacks = [
        [name for name, amount in amounts.items() if node.free.get(name, 0) < quantity(amount)] for node in open_to
    ]
    if not all(lacks):
        return ""
    short = sorted({name for names in lacks for name in names})
    most = {name: max(node.free.get(name, 0) for node in open_to) for name in short}
    wanted = ", ".join(f"{amounts[name]} of {name}" for name in short)
    return f"no node has {wanted} free; the most is {', '.join(f'{shown(max(most[n], 0), n)} of {n}' for n in short)}"


def _admits(node: Room, ask: Ask) -> bool:
    labelled = all(node.labels.get(key) == value for key, value in ask.selector.items())
    return labelled and all(
        any(_tolerates(each, taint) for each in ask.tolerations)
        for taint in node.taints
        if taint.get("effect") in KEEPS_OUT
    )


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, str]) -> bool:
    return (
        toleration.get("key") == taint["key"]
        and toleration.get("effect") in (None, taint["effect"])
        and (toleration.get("operator") == "Exists" or toleration.get("value") == taint.get("value"))
    )
