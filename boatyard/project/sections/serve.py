"""The endpoint, and how many pods it has."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from boatyard.project.fields import Count, Cpu, Memory, Name, PluginName, Section, finite_number


class AutoscalingConfig(Section):
    """One block for every autoscaler."""

    minimum: Annotated[int, BeforeValidator(finite_number), Field(ge=0)] = Field(1, description="replicas at rest")
    maximum: Count = Field(3, description="replicas at most")
    metric: Literal["cpu", "concurrency"] = Field(
        "cpu", description="percent of the request, or requests in flight a replica"
    )
    target: Count = Field(70, description="of the metric")
    autoscaler: Annotated[str, PluginName("autoscalers")] | None = Field(
        None, description="who adds and removes pods; by default what suits metric and mode"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is more than maximum {self.maximum}")
        if self.minimum == 0 and self.metric == "cpu":
            raise ValueError(
                "minimum is 0 and metric is cpu: no pod, no CPU to measure; "
                "use minimum 1, or concurrency in mode Knative"
            )
        return self


class ServeConfig(Section):
    """The endpoint."""

    namespace: Name = Field("default", description="of the InferenceService")
    storage: str | None = Field(None, description="URI that the cluster finds the package at: s3://, pvc:// or oci://")
    mode: Literal["Standard", "Knative"] = Field(
        "Standard", description="who runs the pods; Knative holds requests while it scales from zero"
    )
    runtime: Name = Field("boatyard", description="ServingRuntime of the manifests that carries the server")
    service_account: Name = Field("boatyard-serving", description="of the pods: its secrets open the bucket")
    cpu: Cpu = Field("1", description="request and limit")
    memory: Memory | None = Field(None, description="request and limit; by the ONNX model's size without a value")
    autoscaling: AutoscalingConfig = Field(AutoscalingConfig(), description="how many replicas")

    @model_validator(mode="after")
    def _awake(self) -> Self:
        if self.autoscaling.minimum == 0 and self.mode == "Standard":
            raise ValueError(
                "autoscaling.minimum is 0 and mode is Standard: without a pod nobody counts the requests that would "
                "wake one; use minimum 1, or mode Knative"
            )
        return self
