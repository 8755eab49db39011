"""Causes of a service that runs and does not scale."""

from __future__ import annotations

from collections.abc import Iterator

from boatyard.diagnosis.causes import Diagnosis, Evidence, one_line
from boatyard.diagnosis.snapshot import Object, Snapshot, condition

METRICS_DELAY_S = 90  # until a new pod's metrics have to be there
FOR_GOOD = ("missing request for", "could not find the requested resource", "no external metrics", "unable to fetch")


def hpa_metrics(s: Snapshot) -> Iterator[Diagnosis]:
    """The autoscaler cannot read its metric, and does not scale."""
    yield from _keda(s)
    for autoscaler in s.of("HorizontalPodAutoscaler"):
        message = condition(autoscaler, "ScalingActive", "message")
        stuck = (
            condition(autoscaler, "ScalingActive") == "False"
            and condition(autoscaler, "ScalingActive", "reason") != "ScalingDisabled"
        )
        if stuck and (any(words in message for words in FOR_GOOD) or _settled(s)):
            name = autoscaler["metadata"]["name"]
            yield Diagnosis(
                "hpa-metrics",
                f"the autoscaler hpa/{name} cannot read {_metrics(autoscaler)} and does not scale: {one_line(message)}",
                (Evidence(f"horizontalpodautoscaler/{name} status.conditions[ScalingActive]", one_line(message)),),
                _cure(message),
            )


def _keda(s: Snapshot) -> Iterator[Diagnosis]:
    for scaled in s.of("ScaledObject"):
        if condition(scaled, "Ready") == "False" or condition(scaled, "Fallback") == "True":
            name, message = scaled["metadata"]["name"], condition(scaled, "Ready", "message")
            yield Diagnosis(
                "hpa-metrics",
                f"the autoscaler scaledobject/{name} cannot read its metric and does not scale: {one_line(message)}",
                (Evidence(f"scaledobject/{name} status.conditions[Ready]", one_line(message)),),
                "correct serverAddress and query of its trigger (BOATYARD_PROMETHEUS when it is rendered)",
            )


def _settled(s: Snapshot) -> bool:
    """Whether every pod is old enough to have been measured."""
    ages = [s.age(pod["metadata"].get("creationTimestamp", "")) for pod in s.pods]
    return bool(ages) and min(ages) > METRICS_DELAY_S


def _metrics(value: Object) -> str:
    names = []
    for metric in value.get("spec", {}).get("metrics", []):
        inner: Object = next((part for key, part in metric.items() if key != "type"), {})
        names.append(str(inner.get("name") or inner.get("metric", {}).get("name", "its metric")))
    return ", ".join(names) or "its metric"


def _cure(message: str) -> str:
    if "missing request for" in message:
        what = message.partition("missing request for ")[2]
        return f"give resources.requests to every container of the pod: {one_line(what, 120)}"
    if "external" in message or "custom" in message:
        return "install what serves this metric (KEDA, prometheus-adapter), or scale by cpu"
    return "see that metrics-server runs: kubectl get apiservice v1beta1.metrics.k8s.io, kubectl top pods"
