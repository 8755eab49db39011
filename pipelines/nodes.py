"""The nodes of a run as Kubeflow's API lists them, put back into Argo's tree: which are steps, and how each stands.

A task of the list has an id of its own and names its children by Argo's: WORKFLOW-HASH, where the hash is FNV-1a of the
node's full name (argo-workflows, `Workflow.NodeID`). A full name is that of the node above, a dot and the own name; a
node with retries has attempts below it, `train(0)` below `train`. So the names are found again by trying.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PRECEDENCE = ("FAILED", "CANCELED", "RUNNING", "PENDING", "SUCCEEDED", "SKIPPED", "CACHED")
ATTEMPT = re.compile(r"\(\d+\)$")  # an attempt's number, which the name of its node ends with
INNER = re.compile(  # what Kubeflow makes of a spec beside the steps
    r"root|executor|.*-driver|iteration(-.*)?|for-loop-\d+|condition(-branches)?-\d+|exit-handler-\d+"
)
GENERATED = re.compile(r"-[a-z0-9]{5}$")  # how the name of a Workflow ends
FNV_OFFSET, FNV_PRIME = 2166136261, 16777619


@dataclass(frozen=True)
class Node:
    """A task of a run's details: its name, its state (PENDING until it has one), its children's Argo ids, its time."""

    name: str
    state: str
    children: tuple[str, ...]
    began: Any
    ended: Any

    @property
    def base(self) -> str:
        """The name without an attempt's number."""
        return ATTEMPT.sub("", self.name)


def steps(details: Iterable[Any], ended: bool = False) -> dict[str, str]:
    """Return the steps' states of a run's task details (V2beta1PipelineTaskDetail); a loop's iterations are one step.

    They come in the order in which they began. CACHED is a step that an earlier run's result was taken for: its
    executor was skipped. In a run that has `ended`, a step without a state never ran: SKIPPED.
    """
    unset = "SKIPPED" if ended else "PENDING"
    nodes = sorted((_node(detail, unset) for detail in details if detail and detail.display_name), key=_order)
    workflow = _workflow(nodes)
    cached = _cached(nodes, workflow)
    whole, attempts = dict[str, list[str]](), dict[str, list[str]]()
    for node in nodes:
        if not INNER.fullmatch(node.base) and node.base != workflow:
            state = "CACHED" if node.state == "SUCCEEDED" and node.base in cached else node.state
            (whole if node.name == node.base else attempts).setdefault(node.base, []).append(state)
    for base, states in attempts.items():
        whole.setdefault(base, states[-1:])
    return {step: min(states, key=_rank) for step, states in whole.items()}


def _node(detail: Any, unset: str) -> Node:
    children = tuple(child.pod_name for child in detail.child_tasks or [] if child and child.pod_name)
    return Node(detail.display_name, str(detail.state or unset), children, detail.start_time, detail.end_time)


def _order(node: Node) -> tuple[bool, str, str]:
    """Sort by when a node began, and those that never did by name at the end."""
    return node.began is None or (node.state == "SKIPPED" and node.base != "executor"), str(node.began or ""), node.name


def _workflow(nodes: list[Node]) -> str:
    """Return the name of the run's Workflow, which its own node has; empty where there is none yet."""
    for child in (child for node in nodes for child in node.children):
        return child.rpartition("-")[0]
    bases = {node.base for node in nodes}
    alone = [base for base in bases if GENERATED.search(base) and f"{base}-driver" not in bases]
    return alone[0] if len(alone) == 1 else ""


def _cached(nodes: list[Node], workflow: str) -> set[str]:
    """Return the steps all of whose executors were skipped."""
    if not any(node.base == "executor" and node.state == "SKIPPED" for node in nodes):
        return set()
    if not any(ATTEMPT.search(node.name) for node in nodes):  # Argo makes attempts where a default retries
        return _cached_by_time([node for node in nodes if node.base != workflow])
    executors = [path for path in _paths(nodes, workflow) if path.endswith(".executor")]
    attempted = {child for node in nodes if node.name == "executor" for child in node.children}
    steps = {path: ATTEMPT.sub("", path.split(".")[-2]) for path in executors}
    ran = {steps[path] for path in executors if node_id(workflow, f"{path}(0)") in attempted}
    return set(steps.values()) - ran


def _cached_by_time(nodes: list[Node]) -> set[str]:
    """Return the steps within whose time alone an executor was skipped; where two may be meant, neither is."""
    found = set[str]()
    for executor in (node for node in nodes if node.base == "executor" and node.state == "SKIPPED"):
        around = {
            node.base
            for node in nodes
            if not INNER.fullmatch(node.base) and node.state == "SUCCEEDED" and _within(executor, node)
        }
        found |= around if len(around) == 1 else set()
    return found


def _within(inner: Node, outer: Node) -> bool:
    times = (outer.began, inner.began, inner.ended, outer.ended)
    return None not in times and bool(outer.began <= inner.began and inner.ended <= outer.ended)


def _paths(nodes: list[Node], workflow: str) -> dict[str, str]:
    """Return the full names of the nodes that are another's child, and the workflow's, with what each is called."""
    names = {node.name for node in nodes}
    children = {child for node in nodes for child in node.children}
    found, todo = {workflow: workflow}, [workflow]
    while todo:
        above = todo.pop()
        for name in names:
            shown = found[above]
            attempt = ATTEMPT.sub("", name) == shown and name != shown
            path = above + name[len(shown) :] if attempt else f"{above}.{name}"
            if path not in found and node_id(workflow, path) in children:
                found[path] = name
                todo.append(path)
    return found


def node_id(workflow: str, path: str) -> str:
    """Return Argo's id of a node, from its full name."""
    value = FNV_OFFSET
    for byte in path.encode():
        value = ((value ^ byte) * FNV_PRIME) & 0xFFFFFFFF
    return workflow if path == workflow else f"{workflow}-{value}"


def _rank(state: str) -> int:
    return PRECEDENCE.index(state) if state in PRECEDENCE else 0
