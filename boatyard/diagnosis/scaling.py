"""Causes of a service that runs and does not scale."""

from __future__ import annotations

from collections.abc import Iterator

from boatyard.diagnosis.causes import Diagnosis, Evidence, one_line
from boatyard.diagnosis.snapshot import Object, Snapshot, condition

PATIENCE = 90  # seconds until a new pod's metrics have to be there
FOR_GOOD = ("missing request for", "could not find the requested resource", "no external metrics", "unable to fetch")


def hpa_metrics(s: Snapshot) -> Iterator[Diagnosis]:
    """The autoscaler cannot read its metric, and does not scale."""
    yield from _keda(s)
    for each in s.of("HorizontalPodAutoscaler"):
        said = condition(each, "ScalingActive", "message")
        stuck = (
            condition(each, "ScalingActive") == "False"
            and condition(each, "ScalingActive", "reason") != "ScalingDisabled"
        )
        if stuck and (any(words in said for words in FOR_GOOD) or _settled(s)):
            name = each["metadata"]["name"]
            yield Diagnosis(
                "hpa-metrics",
                f"the autoscaler hpa/{name} cannot read {_metrics(each)} and does not scale: {one_line(said)}",
                (Evidence(f"horizontalpodautoscaler/{name} status.conditions[ScalingActive]", one_line(said)),),
                _cure(said),
            )


def _keda(s: Snapshot) -> Iterator[Diagnosis]:
    for each in s.of("ScaledObject"):
        if condition(each, "Ready") == "False" or condition(each, "Fallback") == "True":
            name, said = each["metadata"]["name"], condition(each, "Ready", "message")
            yield Diagnosis(
                "hpa-metrics",
                f"the autoscaler scaledobject/{name} cannot read its metric and does not scale: {one_line(said)}",
                (Evidence(f"scaledobject/{name} status.conditions[Ready]", one_line(said)),),
                "correct serverAddress and query of its trigger (BOATYARD_PROMETHEUS when it is rendered)",
            )


def _settled(s: Snapshot) -> bool:
    """Whether every pod is old enough to have been measured."""
    ages = [s.age(each["metadata"].get("creationTimestamp", "")) for each in s.pods]
    return bool(ages) and min(ages) > PATIENCE


def _metrics(value: Object) -> str:
    names = []
    for each in value.get("spec", {}).get("metrics", []):
        inner: Object = next((part for key, part in each.items() if key != "type"), {})
        names.append(str(inner.get("name") or inner.get("metric", {}).get("name", "its metric")))
    return ", ".join(names) or "its metric"


def _cure(said: str) -> str:
    if "missing request for" in said:
        what = said.partition("missing request for ")[2]
        return f"give resources.requests to every container of the pod: {one_line(what, 120)}"
    if "external" in said or "custom" in said:
        return "install what serves this metric (KEDA, prometheus-adapter), or scale by cpu"
    return "see that metrics-server runs: kubectl get apiservice v1beta1.metrics.k8s.io, kubectl top pods"
