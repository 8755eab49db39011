"""What the pods of a pipeline have: those of one step, and all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from boatyard.project.fields import Count, Cpu, Duration, Memory, Name, Section, finite_number, quantity

CPU_REQUEST, MEMORY_REQUEST = "250m", "512Mi"  # of a step: a small cluster places it, and steps run one after another


class GpuConfig(Section):
    """GPUs of a step."""

    type: str = Field(
        "nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", description="resource name of the device plugin"
    )
    count: Count = Field(1, description="how many; a GPU cannot be shared by giving less")


class TolerationConfig(Section):
    """A taint that a step's pod tolerates."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = "NoSchedule"


def _check_secrets(secrets: Mapping[str, str]) -> None:
    for variable, secret in secrets.items():
        if not re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", secret):
            raise ValueError(f"secrets.{variable}: expected secret/key, found {secret!r}")


def _check_volumes(volumes: Mapping[str, str]) -> None:
    for folder in volumes:
        if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", folder) or folder in ("/tmp", "/dev/shm"):
            raise ValueError(f"volumes: expected a folder such as /data for the claim, found {folder!r}")


class StepConfig(Section):
    """What a step's pod asks of the cluster; a laptop run takes what is there."""

    cpu: Cpu | None = Field(
        None, description="request, such as 2 or 500m; by default 250m, and 2 for a pod of a TrainJob"
    )
    memory: Memory | None = Field(
        None,
        description="request and limit, such as 4Gi; by default 512Mi are requested, all of memory_limit by a TrainJob",
    )
    memory_limit: Memory | None = Field(None, description="limit, where it is to be more than is requested")
    gpu: GpuConfig | None = Field(None, description="GPUs; without a value the step runs on CPUs")
    node_selector: dict[str, str] = Field({}, description="labels that the node must have")
    tolerations: tuple[TolerationConfig, ...] = Field(
        (), description="taints to tolerate; the GPU's own is added where gpu is given"
    )
    secrets: dict[str, str] = Field({}, description="environment variable → secret/key")
    volumes: dict[str, Name] = Field({}, description="folder in the pod → claim that is mounted there")
    timeout: Duration | None = Field(None, description="such as 30m or 2h")
    cache: bool = Field(
        True,
        description="whether an earlier run's result may be taken; false for code that reads network, clock or chance",
    )
    retries: Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=10)] = Field(
        0, description="further attempts after a failure"
    )

    @model_validator(mode="after")
    def _named(self) -> Self:
        _check_secrets(self.secrets)
        _check_volumes(self.volumes)
        if self.memory and self.memory_limit and quantity(self.memory) > quantity(self.memory_limit):
            raise ValueError(f"memory_limit: expected {self.memory} (memory) or more, found {self.memory_limit}")
        return self

    @property
    def most_memory(self) -> str | None:
        """What a pod may take: the limit, which is the request where no other is given."""
        return self.memory_limit or self.memory


def _kept(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's defaults, of which the limit goes where its memory is said: that is request and limit."""
    dropped = "memory_limit" if given.get("memory") else None
    return {key: value for key, value in defaults.items() if key != dropped}


class ResourcesConfig(Section):
    """Pods, stage by stage; a setting that a step does not give keeps its default."""

    preprocess: StepConfig = Field(StepConfig(memory_limit="2Gi", timeout="2h"), description="cpu, memory …")
    train: StepConfig = Field(StepConfig(memory_limit="4Gi", timeout="12h"), description="cpu, memory, gpu …")
    evaluate: StepConfig = Field(StepConfig(memory_limit="4Gi", timeout="2h"), description="cpu, memory …")
    gate: StepConfig = Field(StepConfig(memory_limit="2Gi", timeout="1h"), description="cpu, memory …")
    push: StepConfig = Field(StepConfig(memory_limit="2Gi", timeout="1h"), description="cpu, memory …")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = {step: cls.model_fields[step].default.values() for step in cls.model_fields}
        return {
            step: {**_kept(defaults.get(step, {}), given), **given} if isinstance(given, dict) else given
            for step, given in values.items()
        }


class KubeflowConfig(Section):
    """The pipeline on Kubeflow: what all its pods have, and what a submitted run is; a run here takes nothing of it."""

    root: str | None = Field(
        None,
        description="s3:// URI that a run's artifacts go below; the backend's own by default, which KServe cannot read",
    )
    experiment: str = Field("Default", min_length=1, description="that runs are listed under; made where there is none")
    service_account: Name | None = Field(None, description="of every pod of a run; pipeline-runner by default")
    folder: str | None = Field(
        None,
        pattern=r"^/.+",
        description="folder in the pods that relative paths and own recipes start at, of a claim or of the image",
    )
    secrets: dict[str, str] = Field({}, description="environment variable → secret/key, in every pod")
    volumes: dict[str, Name] = Field({}, description="folder in every pod → claim that is mounted there")
    node_selector: dict[str, str] = Field({}, description="labels that the nodes must have")
    tolerations: tuple[TolerationConfig, ...] = Field((), description="taints that every pod tolerates")
    image_pull_secrets: tuple[Name, ...] = Field((), description="secrets that the images are pulled with")
    deploy: bool = Field(False, description="whether a version that was pushed is rolled out as well, by serve")
    workers: Annotated[int, BeforeValidator(finite_number), Field(ge=1, le=64)] = Field(
        1, description="pods that share the preprocessing, each a part of the source's files; the same bytes come out"
    )

    @model_validator(mode="after")
    def _named(self) -> Self:
        _check_secrets(self.secrets)
        _check_volumes(self.volumes)
        if self.root is not None and not re.fullmatch(r"s3://[A-Za-z0-9][-A-Za-z0-9._]+(/[^\s]*)?", self.root):
            raise ValueError(f"root: expected s3://BUCKET/FOLDER, found {self.root!r}")
        return self
