"""Causes that come before any pod: what is asked about is not there, or nobody has taken it up."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boatyard.diagnosis.causes import Diagnosis, Evidence, one_line
from boatyard.diagnosis.snapshot import Snapshot, condition

PLURAL = {"InferenceService": "inferenceservices", "TrainJob": "trainjobs", "Pod": "pods"}
OWNERS = {"InferenceService": "KServe", "TrainJob": "Kubeflow Trainer", "ScaledObject": "KEDA"}
OWNERS |= {"Service": "Knative", "HTTPRoute": "the Gateway API", "VirtualService": "Istio"}
CONTROLLER_DELAY_S = 15  # in which a controller says something about a new object
CONFLICT_MESSAGE = "the object has been modified"
NO_KIND = re.compile(r'no matches for kind "(?P<kind>[^"]+)" in version "(?P<version>[^"]+)"')


def missing_kind(s: Snapshot) -> Iterator[Diagnosis]:
    """A kind that the API server does not know: the one asked about, or one that its controller needs."""
    kind = s.subject.kind
    if kind in s.absent:
        owner = OWNERS.get(kind, "its controller")
        yield Diagnosis(
            "missing-kind",
            f"this cluster does not know the kind {kind}: {owner} is not installed",
            (Evidence(f"API server, {PLURAL[kind]}", "no such resource"),),
            f"install {owner} with its CRDs (docs/cluster.md), then apply {s.subject} again",
        )
    for where, text in _complaints(s):
        if match := NO_KIND.search(text):
            owner = OWNERS.get(match["kind"], match["version"].partition("/")[0])
            yield Diagnosis(
                "missing-kind",
                f"{s.subject} needs the kind {match['kind']} ({match['version']}), which this cluster does not know: "
                f"{owner} is not installed",
                (Evidence(where, one_line(text)),),
                f"install {owner}, or ask for what works without it (metadata.annotations "
                "serving.kserve.io/autoscalerClass: hpa)",
            )
        elif "Knative Services are not available" in text:
            yield Diagnosis(
                "missing-kind",
                f"{s.subject} asks for Knative's deployment mode, and Knative is not installed in this cluster",
                (Evidence(where, one_line(text)),),
                f"kubectl annotate isvc {s.subject.name} -n {s.subject.namespace} --overwrite "
                "serving.kserve.io/deploymentMode=Standard, or install Knative Serving",
            )


def not_found(s: Snapshot) -> Iterator[Diagnosis]:
    """No object of that name."""
    kind, name, space = s.subject.kind, s.subject.name, s.subject.namespace
    if s.asked or kind == "Run" or kind in s.absent or s.refused(kind):
        return
    yield Diagnosis(
        "not-found",
        f"there is no {s.subject} in namespace {space}",
        (Evidence(f"{PLURAL[kind]} {name} in {space}", "not found"),),
        f"kubectl get {PLURAL[kind]} -A | grep {name} says where it is; -n NAMESPACE asks there",
    )


def stopped(s: Snapshot) -> Iterator[Diagnosis]:
    """Somebody has stopped it on purpose."""
    asked = s.asked or {}
    if asked.get("spec", {}).get("suspend") is True:
        yield Diagnosis(
            "suspended",
            f"{s.subject} is suspended (spec.suspend is true): it runs no pods until somebody lets it",
            (Evidence(f"{s.subject} spec.suspend", "true"),),
            f"kubectl patch trainjob {s.subject.name} -n {s.subject.namespace} --type merge "
            """-p '{"spec": {"suspend": false}}'""",
        )
    if asked.get("metadata", {}).get("annotations", {}).get("serving.kserve.io/stop") == "true":
        yield Diagnosis(
            "suspended",
            f"{s.subject} is stopped (annotation serving.kserve.io/stop): it runs no pods until somebody lets it",
            (Evidence(f"{s.subject} metadata.annotations", "serving.kserve.io/stop: true"),),
            f"kubectl annotate isvc {s.subject.name} -n {s.subject.namespace} serving.kserve.io/stop-",
        )


def no_controller(s: Snapshot) -> Iterator[Diagnosis]:
    """An object whose status nobody has written."""
    asked = s.asked or {}
    if s.subject.kind not in ("InferenceService", "TrainJob") or not asked or asked.get("status"):
        return
    age = s.age(asked["metadata"].get("creationTimestamp", ""))
    manager = asked.get("spec", {}).get("managedBy", "")
    foreign = bool(manager) and manager != "trainer.kubeflow.org/trainjob-controller"
    if _complaints(s) or (age < CONTROLLER_DELAY_S and not foreign) or s.of("JobSet"):
        return
    owner = OWNERS[s.subject.kind]
    evidence = [Evidence(f"{s.subject} status", f"empty {age:.0f} s after it was made, and no event speaks of it")]
    if foreign:
        evidence.append(Evidence(f"{s.subject} spec.managedBy", manager))
        why = f"spec.managedBy leaves it to {manager}, which is not at work here"
        cure = "make it again without spec.managedBy (the field cannot be changed), or install Kueue"
    else:
        why = f"{owner}'s controller is not running, or does not watch namespace {s.subject.namespace}"
        cure = f"kubectl get pods -A | grep -E 'kserve|trainer' and look at the log of {owner}'s controller"
    yield Diagnosis("no-controller", f"no controller has taken up {s.subject}: {why}", tuple(evidence), cure)


def no_runtime(s: Snapshot) -> Iterator[Diagnosis]:
    """No ServingRuntime for the model's format."""
    asked = s.asked or {}
    failure = asked.get("status", {}).get("modelStatus", {}).get("lastFailureInfo", {})
    if "Runtime" not in failure.get("reason", ""):
        return
    model = asked.get("spec", {}).get("predictor", {}).get("model", {})
    format = model.get("modelFormat", {}).get("name", "")
    named = f"runtime {model['runtime']} for " if model.get("runtime") else ""
    kinds = ("ServingRuntime", "ClusterServingRuntime")
    known = [
        (runtime, format_of["name"]) for kind in kinds for runtime in s.of(kind) for format_of in _formats(runtime)
    ]
    have = ", ".join(f"{runtime['metadata']['name']} ({name})" for runtime, name in known) or "none"
    yield Diagnosis(
        "no-runtime",
        f"no serving runtime takes {s.subject}: expected {named}the model format {format}, found {have}",
        (
            Evidence(
                f"{s.subject} status.modelStatus.lastFailureInfo", f"{failure['reason']}: {failure.get('message')}"
            ),
            Evidence(f"servingruntimes in {s.subject.namespace}, clusterservingruntimes", have),
        ),
        f"give spec.predictor.model.modelFormat.name one of these; for packages of ours apply the ServingRuntime "
        f"boatyard in {s.subject.namespace} (kubectl apply -k manifests/overlays/kind)",
    )


def controller_error(s: Snapshot) -> Iterator[Diagnosis]:
    """What a controller says that it cannot do."""
    for where, text in _complaints(s):
        yield Diagnosis(
            "controller-error",
            f"{OWNERS[s.subject.kind]} cannot make what {s.subject} asks for: {one_line(text, 240)}",
            (Evidence(where, one_line(text)),),
            f"change the field that the message names; kubectl describe {PLURAL.get(s.subject.kind, 'pods')} "
            f"{s.subject.name} -n {s.subject.namespace} shows the whole of it",
        )
        return


def _formats(runtime: dict[str, object]) -> list[dict[str, str]]:
    spec = runtime.get("spec")
    return spec.get("supportedModelFormats", []) if isinstance(spec, dict) else []


def _complaints(s: Snapshot) -> list[tuple[str, str]]:
    """Return where and what the controller complains of, the latest last: conditions, then events."""
    asked = s.asked or {}
    if condition(asked, "Ready") == "True" or s.subject.kind not in ("InferenceService", "TrainJob"):
        return []
    complaints = []
    for kind in ("PredictorReady", "Ready", "IngressReady", "Failed"):
        reason = condition(asked, kind, "reason")
        if reason and ("Failed" in reason or "Error" in reason or "Invalid" in reason):
            complaints.append((f"{s.subject} status.conditions[{kind}]", condition(asked, kind, "message")))
    for event in s.events(s.subject.kind, s.subject.name):
        if event.get("type") == "Warning" and CONFLICT_MESSAGE not in event.get("message", ""):
            complaints.append((f"event {event.get('reason')} of {s.subject}", event.get("message", "")))
    return complaints
