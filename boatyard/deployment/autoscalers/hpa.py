"""Kubernetes' own HorizontalPodAutoscaler: percent of the cpu that a pod asks for."""

from __future__ import annotations

from boatyard.deployment.autoscalers.base import CLASS_ANNOTATION, Autoscaler, Scaling, bounds
from boatyard.errors import ConfigError
from boatyard.project import ServeConfig
from boatyard.settings import Settings

MAX_PERCENT = 100  # request and limit are one: a pod cannot use more than it asks for, so more is never reached


class Hpa(Autoscaler):
    """Scales by cpu; needs metrics-server and nothing else. It cannot wake an endpoint without pods."""

    def check(self, config: ServeConfig) -> None:
        """Refuse a target that is never reached, another metric, and Knative, which scales by itself."""
        autoscaling = config.autoscaling
        if autoscaling.metric != "cpu":
            raise ConfigError("serve.autoscaling.metric", expected="cpu with autoscaler hpa", found=autoscaling.metric)
        if autoscaling.target > MAX_PERCENT:
            raise ConfigError(
                "serve.autoscaling.target", expected="1 to 100 percent of cpu", found=str(autoscaling.target)
            )
        if config.mode == "Knative":
            raise ConfigError(
                "serve.autoscaling.metric", expected="concurrency with serve.mode Knative", found=autoscaling.metric
            )

    def render(self, name: str, config: ServeConfig, settings: Settings) -> Scaling:
        """Return KServe's shorthand, of which it makes the HorizontalPodAutoscaler."""
        target = {"scaleMetric": "cpu", "scaleTarget": config.autoscaling.target}
        return Scaling({**bounds(config), **target}, {CLASS_ANNOTATION: "hpa"})


AUTOSCALER = Hpa()
