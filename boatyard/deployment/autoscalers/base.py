"""What an autoscaler is asked: the fields and annotations of an InferenceService that set it up, or why it cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boatyard import plugins
from boatyard.project import ServeConfig
from boatyard.settings import Settings

CLASS_ANNOTATION = "serving.kserve.io/autoscalerClass"  # KServe reads from it whose objects it makes
PREDICTOR_FIELDS = ("minReplicas", "maxReplicas", "scaleMetric", "scaleMetricType", "scaleTarget", "autoScaling")


@dataclass(frozen=True)
class Scaling:
    """How an endpoint scales: fields of `spec.predictor` (of PREDICTOR_FIELDS alone), and annotations."""

    fields: Mapping[str, Any]
    annotations: Mapping[str, str] = field(default_factory=dict)


class Autoscaler(ABC):
    """One autoscaler. Both methods are pure: rendered twice, an endpoint is the same."""

    @abstractmethod
    def check(self, config: ServeConfig) -> None:
        """Raise ConfigError, which says the setting, for a project that this autoscaler cannot scale."""

    @abstractmethod
    def render(self, name: str, config: ServeConfig, settings: Settings) -> Scaling:
        """Return what makes the endpoint `name` scale between the section's bounds."""


def named(config: ServeConfig) -> str:
    """Return the name of a section's autoscaler: the one that it gives, else what suits its metric and mode."""
    if config.autoscaling.autoscaler:
        return config.autoscaling.autoscaler
    if config.autoscaling.metric == "cpu":
        return "hpa"
    return "knative" if config.mode == "Knative" else "keda"


def scaling(name: str, config: ServeConfig, settings: Settings) -> Scaling:
    """Return how the endpoint `name` scales; raises ConfigError for what its autoscaler cannot do or is not there."""
    autoscaler: Autoscaler = plugins.load("autoscalers", named(config), "serve.autoscaling.autoscaler")
    autoscaler.check(config)
    return autoscaler.render(name, config, settings)


def bounds(config: ServeConfig) -> dict[str, Any]:
    """Return the fields that every autoscaler of KServe reads: how many replicas there may be."""
    return {"minReplicas": config.autoscaling.minimum, "maxReplicas": config.autoscaling.maximum}
