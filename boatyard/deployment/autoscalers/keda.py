"""KEDA: requests at work in a pod, as Prometheus counts them from the server's own metrics."""

from __future__ import annotations

from boatyard.deployment.autoscalers.base import CLASS_ANNOTATION, Autoscaler, Scaling, bounds
from boatyard.errors import ConfigError
from boatyard.project import ServeConfig
from boatyard.settings import Settings


class Keda(Autoscaler):
    """Scales by requests at work; needs KEDA, and a Prometheus that reads the pods' metrics."""

    def check(self, config: ServeConfig) -> None:
        """Refuse cpu, for which KEDA is not needed, and Knative, which scales by itself."""
        if config.autoscaling.metric != "concurrency":
            raise ConfigError(
                "serve.autoscaling.metric",
                expected="concurrency with autoscaler keda",
                found=config.autoscaling.metric,
            )
        if config.mode != "Standard":
            raise ConfigError("serve.mode", expected="Standard with autoscaler keda", found=config.mode)

    def render(self, name: str, config: ServeConfig, settings: Settings) -> Scaling:
        """Return a metric outside of the pods, of which KServe makes KEDA's ScaledObject."""
        # seconds spent on requests a second is how many are at work at once (Little's law)
        chosen = f'model="{name}",namespace="{config.namespace}"'
        query = f"sum(rate(boatyard_request_duration_seconds_sum{{{chosen}}}[1m]))"
        metric = {"backend": "prometheus", "serverAddress": settings.prometheus, "query": query}
        # KServe's word is Value; KEDA takes it for the average of a replica
        target = {"type": "Value", "value": str(config.autoscaling.target)}
        metrics = [{"type": "External", "external": {"metric": metric, "target": target}}]
        return Scaling({**bounds(config), "autoScaling": {"metrics": metrics}}, {CLASS_ANNOTATION: "keda"})


AUTOSCALER = Keda()
