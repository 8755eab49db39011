"""Causes that keep a pod from a node: claims, resources that no node has or has left, taints, labels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boatyard.diagnosis.causes import Diagnosis, Evidence, one_line
from boatyard.diagnosis.gathering import claims
from boatyard.diagnosis.snapshot import Object, Snapshot, asked_of, condition, shown
from boatyard.project.fields import quantity

INSUFFICIENT = re.compile(r"Insufficient (\S+?)(?=[,.]?(?:\s|$))")
OWN = ("node-role.kubernetes.io/", "node.kubernetes.io/")  # taints that no pod of ours should tolerate
CLASS = re.compile(r'storageclass\S* "(?P<name>[^"]+)" not found')


def pvc_pending(s: Snapshot) -> Iterator[Diagnosis]:
    """A claim that the pod mounts is missing or has no volume."""
    for pod, message in _unplaced(s):
        for name in claims(pod):
            claim = s.get("PersistentVolumeClaim", name)
            if claim is None and not s.refused("PersistentVolumeClaim"):
                yield _no_claim(s, pod, name, message)
            elif claim and claim.get("status", {}).get("phase") != "Bound" and "unbound" in message:
                yield _unbound(s, pod, claim, message)


def _no_claim(s: Snapshot, pod: Object, name: str, message: str) -> Diagnosis:
    who, space = f"pod/{pod['metadata']['name']}", s.subject.namespace
    return Diagnosis(
        "pvc-pending",
        f"the claim {name} that {who} mounts is not in namespace {space}",
        (Evidence(f"persistentvolumeclaims {name} in {space}", "not found"), _scheduled(pod, message)),
        f"make it (kubectl get pvc -n {space} lists what there is), or correct the claim's name",
    )


def _unbound(s: Snapshot, pod: Object, claim: Object, message: str) -> Diagnosis:
    name, storage_class = claim["metadata"]["name"], claim["spec"].get("storageClassName", "")
    events = s.events("PersistentVolumeClaim", name)
    why = one_line(events[-1].get("message", "")) if events else "no volume fits it"
    classes = ", ".join(each["metadata"]["name"] for each in s.of("StorageClass")) or "none that could be read"
    evidence = [Evidence(f"persistentvolumeclaim/{name} status.phase", claim.get("status", {}).get("phase", "Pending"))]
    evidence += [Evidence(f"event {each.get('reason')} of persistentvolumeclaim/{name}", why) for each in events[-1:]]
    evidence.append(Evidence("storageclasses", classes))
    missing = bool(CLASS.search(why))
    cure = f"give it a storageClassName that there is ({classes})" if missing else "look at the volume provisioner"
    return Diagnosis(
        "pvc-pending",
        f"the claim {name} of pod/{pod['metadata']['name']} is pending: {why}",
        (*evidence, _scheduled(pod, message)),
        f"{cure}; a claim cannot be changed: delete and make it again"
        if missing
        else f"{cure} of class {storage_class}",
    )


def gpu_name(s: Snapshot) -> Iterator[Diagnosis]:
    """A resource that no node of the cluster has: a GPU by a wrong name, or without its device plugin."""
    have = sorted({name for node in s.of("Node") for name in _allocatable(node) if "/" in name})
    for pod, message in _unplaced(s):
        for resource in _insufficient(message):
            if not s.of("Node") or "/" not in resource or resource in have:
                continue
            near = ", ".join(have) or "none of that sort"
            cure = f"ask for {have[0]} in resources.limits" if have else "install the device plugin of the GPUs' maker"
            yield Diagnosis(
                "gpu-name",
                f"no node of the cluster has the resource {resource} that pod/{pod['metadata']['name']} asks for; "
                f"the nodes have {near}",
                (_scheduled(pod, message), *_nodes(s, resource)),
                f"{cure} instead of {resource}" if have else cure,
            )


def taint(s: Snapshot) -> Iterator[Diagnosis]:
    """The nodes that would do are tainted, and the pod does not tolerate them."""
    for pod, message in _unplaced(s):
        if "untolerated taint" not in message:
            continue
        suiting = [node for node in s.of("Node") if _suits(node, pod)]
        tainted = {node["metadata"]["name"]: _untolerated(node, pod) for node in suiting}
        if not suiting or not all(tainted.values()):
            continue
        taints = {_taint(node_taint): node_taint for untolerated in tainted.values() for node_taint in untolerated}
        own = next(iter(taints.values()))
        asks = ", ".join(f"{shown(asked_of(pod, name), name)} {name}" for name in _asked(pod)) or "nothing"
        yield Diagnosis(
            "taint",
            f"pod/{pod['metadata']['name']} asks for {asks}, and every node that has it ({', '.join(tainted)}) "
            f"keeps it away by the taint {', '.join(taints)}",
            (
                _scheduled(pod, message),
                *(Evidence(f"node/{n} spec.taints", ", ".join(map(_taint, t))) for n, t in tainted.items()),
            ),
            f"tolerations: [{{key: {own['key']}, operator: Exists, effect: {own['effect']}}}] in the pod's spec",
        )


def unschedulable(s: Snapshot) -> Iterator[Diagnosis]:
    """No node has what the pod asks for, or has it left."""
    for pod, message in _unplaced(s):
        who = f"pod/{pod['metadata']['name']}"
        resources = _insufficient(message)
        if resources:
            yield from (_too_much(s, pod, resource, message) for resource in resources[:1])
            continue
        labels = pod["spec"].get("nodeSelector", {})
        if "node affinity/selector" in message and labels:
            pairs = ", ".join(f"{key}={value}" for key, value in labels.items())
            why, cure = f"no node has the labels {pairs} that it asks for", "correct nodeSelector, or label a node"
        else:
            why, cure = f"the scheduler finds no node: {one_line(message)}", "change what the message names"
        yield Diagnosis("unschedulable", f"{who} has no node: {why}", (_scheduled(pod, message), *_nodes(s, "")), cure)


def _too_much(s: Snapshot, pod: Object, resource: str, message: str) -> Diagnosis:
    amount_asked = asked_of(pod, resource)
    has = {node["metadata"]["name"]: quantity(_allocatable(node).get(resource, 0)) for node in s.of("Node")}
    listed = "node by node: " + ", ".join(f"{name} {shown(amount, resource)}" for name, amount in has.items())
    most = max(has.values(), default=0.0)
    why = f"no node has that much ({listed})"
    cure = f"ask for at most {shown(most, resource)} {resource}"
    if most >= amount_asked:
        why, cure = f"others have taken it ({listed})", f"wait or stop others; or ask for less {resource}"
    if not has:
        why, cure = "no node has it, or has it left (the nodes could not be read)", f"ask for less {resource}"
    return Diagnosis(
        "unschedulable",
        f"pod/{pod['metadata']['name']} has no node: it asks for {shown(amount_asked, resource)} {resource}, and {why}",
        (_scheduled(pod, message), *_nodes(s, resource)),
        f"{cure} (resources.requests), or add a node that has it",
    )


def _unplaced(s: Snapshot) -> Iterator[tuple[Object, str]]:
    """Yield the pods that have no node, with the scheduler's sentence."""
    for pod in s.pods:
        if condition(pod, "PodScheduled") == "False":
            yield pod, condition(pod, "PodScheduled", "message")


def _scheduled(pod: Object, message: str) -> Evidence:
    return Evidence(
        f"pod/{pod['metadata']['name']} status.conditions[PodScheduled]",
        one_line(message.partition(" no new claims")[0]),
    )


def _nodes(s: Snapshot, resource: str) -> Iterator[Evidence]:
    """Yield what each node has, of a resource where one is named."""
    for node in s.of("Node"):
        has, taken = _allocatable(node), node.get("asked", {})
        if resource:
            used = f", {shown(taken[resource], resource)} of it asked for" if resource in taken else ""
            text = f"{resource} {has.get(resource, 'none')}{used}"
        else:
            text = ", ".join(f"{key} {value}" for key, value in has.items() if key in ("cpu", "memory") or "/" in key)
        yield Evidence(f"node/{node['metadata']['name']} status.allocatable", text or "empty")


def _insufficient(message: str) -> list[str]:
    return list(dict.fromkeys(INSUFFICIENT.findall(message)))


def _allocatable(node: Object) -> dict[str, str]:
    return dict(node.get("status", {}).get("allocatable", {}))


def _asked(pod: Object) -> list[str]:
    resources = [container.get("resources", {}) for container in pod["spec"]["containers"]]
    return sorted({name for asked in resources for part in asked.values() for name in part if isinstance(part, dict)})


def _suits(node: Object, pod: Object) -> bool:
    """Whether a node has the labels and in all as much as the pod asks for; taints apart."""
    labels, has = node["metadata"].get("labels", {}), _allocatable(node)
    chosen = all(labels.get(key) == value for key, value in pod["spec"].get("nodeSelector", {}).items())
    return chosen and all(quantity(has.get(name, 0)) >= asked_of(pod, name) for name in _asked(pod))


def _untolerated(node: Object, pod: Object) -> list[dict[str, str]]:
    """Return a node's taints of an administrator's making that the pod does not tolerate."""
    taints = [
        node_taint for node_taint in node.get("spec", {}).get("taints", []) if not node_taint["key"].startswith(OWN)
    ]
    tolerations = pod["spec"].get("tolerations", [])
    return [
        node_taint
        for node_taint in taints
        if node_taint["effect"] != "PreferNoSchedule" and not any(_tolerates(t, node_taint) for t in tolerations)
    ]


def _tolerates(toleration: dict[str, str], taint: dict[str, str]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]) or toleration.get("key") not in (
        None,
        "",
        taint["key"],
    ):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _taint(value: dict[str, str]) -> str:
    return f"{value['key']}={value.get('value', '')}:{value['effect']}"
