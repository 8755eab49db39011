"""Knative's own autoscaler: requests at work in a pod, down to no pod at all."""

from __future__ import annotations

from boatyard.deployment.autoscalers.base import Autoscaler, Scaling, bounds
from boatyard.errors import ConfigError
from boatyard.project import ServeConfig
from boatyard.settings import Settings


class KnativeAutoscaler(Autoscaler):
    """Scales by requests at work; Knative holds the requests that come while a pod starts."""

    def check(self, config: ServeConfig) -> None:
        """Refuse pods that Knative does not run, and cpu, which it does not measure."""
        if config.mode != "Knative":
            raise ConfigError("serve.mode", expected="Knative with autoscaler knative", found=config.mode)
        if config.autoscaling.metric != "concurrency":
            raise ConfigError(
                "serve.autoscaling.metric",
                expected="concurrency with serve.mode Knative",
                found=config.autoscaling.metric,
            )

    def render(self, name: str, config: ServeConfig, settings: Settings) -> Scaling:
        """Return KServe's shorthand; no annotation, since the deployment mode says who scales."""
        return Scaling(
            {**bounds(config), "scaleMetric": "concurrency", "scaleTarget": config.autoscaling.target},
        )


AUTOSCALER = KnativeAutoscaler()
