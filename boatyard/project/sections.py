"""The sections of the project file, one a stage: few settings; what is not given is derived and printed.

A section is what its stage's function and its component take: nothing else reaches them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from boatyard.data.artifacts import digest_json
from boatyard.project.fields import (
    Bound,
    Count,
    Cpu,
    Duration,
    Fraction,
    Memory,
    Name,
    Number,
    Positive,
    Section,
    Seed,
    finite_number,
    null_of_false,
    null_paths,
)

OPTIMIZERS: dict[str, tuple[float, float, float | None]] = {  # learning rate, weight decay, momentum that suit it
    "sgd": (0.05, 0.0, 0.9),
    "adam": (0.001, 0.0, None),
    "adamw": (0.001, 0.01, None),
    "adagrad": (0.01, 0.0, None),
}


class DataConfig(Section):
    """Where the rows are and what they mean."""

    source: Literal["idx", "npy", "npz", "csv", "parquet", "images"] = Field(description="the kind of files")
    path: str = Field(description="file or folder; relative to the project file, or a URI (file, pvc, s3, gs)")
    target: str = Field(
        "label",
        description="csv, parquet: the target's column; npz: its array; npy: its file (without .npy) in the folder",
    )
    features: tuple[str, ...] | None = Field(
        None, description="csv, parquet: the columns to learn from (all others by default); npz, npy: the array of rows"
    )
    columns: dict[str, Literal["number", "category"]] = Field(
        {},
        description="csv, parquet: what a column is where its values do not say it (a numeric code that is a category)",
    )
    labels: tuple[str, ...] | None = Field(
        None, description="names of the classes 0, 1, 2 … where the data holds numbers"
    )
    group: str | None = Field(
        None, description="column whose equal values never fall into two splits (a patient, a site)"
    )
    slices: tuple[str, ...] = Field(
        (), description="columns to report metrics by; they are not learnt from unless listed in features"
    )
    ranges: dict[str, tuple[Bound, Bound]] = Field({}, description="allowed [least, greatest] by column")
    sha256: dict[str, str] = Field({}, description="expected digests by file name; another digest is refused")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        tabular = self.source in ("csv", "parquet")
        for key in ("columns", "ranges", "slices"):
            if getattr(self, key) and not tabular:
                raise ValueError(f"{key} needs a table, source is {self.source}; remove it")
        if self.group and not (tabular or self.source in ("npz", "npy")):
            raise ValueError(f"group needs a column or an array, source is {self.source}; remove it")
        if self.features and self.target in self.features:
            raise ValueError(f"features lists the target {self.target!r}; a model must not see its target")
        for column, (low, high) in self.ranges.items():
            if low is not None and high is not None and low > high:
                raise ValueError(f"ranges.{column} is [{low}, {high}]; the least comes first")
        for name, digest in self.sha256.items():
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(f"sha256.{name}: expected 64 lower-case hex digits, found {digest!r}")
        return self


class SplitConfig(Section):
    """Shares of the rows; a source with its own test set (idx) keeps it whole, and these share out the rest."""

    train: Fraction = Field(0.8, description="share of the rows to learn from")
    validation: Fraction = Field(0.1, description="share to stop and choose by")
    test: Fraction = Field(0.1, description="share that only evaluate sees")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError(
                f"train, validation and test add up to {self.train + self.validation + self.test:g}, expected 1"
            )
        if 0 in (self.train, self.validation, self.test):
            raise ValueError("every split needs rows; give each of train, validation and test more than 0")
        return self


class AugmentConfig(Section):
    """Random changes of training images, drawn anew each epoch; never at evaluation or in the ONNX model."""

    flip: bool = Field(False, description="mirror left to right with probability 0.5")
    shift: Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=64)] = Field(
        0, description="move by up to this many pixels"
    )
    noise: Annotated[float, BeforeValidator(finite_number), Field(ge=0, le=1)] = Field(
        0.0, description="standard deviation of Gaussian noise, in units of the normalised image"
    )
    erase: Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=64)] = Field(
        0, description="side in pixels of a square that is blanked"
    )


class PreprocessConfig(Section):
    """How raw rows become a clean, split dataset."""

    split: SplitConfig = Field(SplitConfig(), description="shares of train, validation and test")
    seed: Seed = Field(0, description="of the split")
    duplicates: Literal["auto", "drop", "keep", "refuse"] = Field(
        "auto", description="rows equal to an earlier one: dropped, unless a fifth or more are; or drop, keep, refuse"
    )
    missing: Literal["impute", "drop", "refuse"] = Field(
        "impute",
        description="rows with a missing value: the ONNX model fills it in (median; own category), drop, or refuse",
    )
    out_of_range: Literal["drop", "clip", "refuse"] = Field(
        "drop", description="values outside data.ranges, and infinite ones"
    )
    unreadable: Literal["drop", "refuse"] = Field(
        "refuse", description="images that cannot be decoded, rows that cannot be parsed"
    )
    image_size: tuple[Count, Count] | None = Field(None, description="[height, width] that images are resized to")
    color: Literal["grey", "rgb"] | None = Field(
        None, description="colour of images in a folder; as the first image is by default"
    )
    normalise: Literal["standard", "minmax", "none"] = Field(
        "standard",
        description="(x - mean) / deviation, to 0 … 1, or as it is; of the training rows, part of the ONNX model",
    )
    encode: Literal["onehot", "ordinal"] = Field(
        "onehot", description="how categories become numbers; part of the ONNX model"
    )
    augment: AugmentConfig = Field(AugmentConfig(), description="random changes of training images")


class TrainConfig(Section):
    """What is learnt and how."""

    recipe: str = Field(
        "mlp", description="linear, mlp, cnn, an installed plug-in's name, or module:Class in the project's folder"
    )
    model: dict[str, Any] = Field({}, description="the recipe's own settings; `boatyard recipes` lists them")
    epochs: Count = Field(5, description="passes over the training rows, at most")
    batch_size: Count = Field(128, description="rows a step")
    optimizer: Literal["sgd", "adam", "adamw", "adagrad"] = Field("adamw", description="how weights move")
    learning_rate: Positive | None = Field(
        None, description="of the first step at full rate; by default what suits the optimizer"
    )
    momentum: Annotated[float, BeforeValidator(finite_number), Field(ge=0, lt=1)] | None = Field(
        None, description="sgd only; 0.9 by default"
    )
    weight_decay: Annotated[float, BeforeValidator(finite_number), Field(ge=0)] | None = Field(
        None, description="0.01 for adamw, 0 for the others by default"
    )
    schedule: Literal["constant", "cosine", "step", "onecycle"] = Field(
        "cosine", description="how the learning rate falls"
    )
    warmup: Fraction = Field(0.05, description="share of the steps in which the rate rises from 0 (not with onecycle)")
    loss: str | None = Field(
        None, description="cross_entropy, label_smoothing, mse, mae, huber or poisson; by default what the recipe says"
    )
    class_weights: Literal["none", "balanced"] = Field("none", description="weigh classes by 1/frequency in the loss")
    clip: Positive | None = Field(None, description="greatest norm of the gradient")
    patience: Count | None = Field(None, description="stop after this many epochs without a better validation loss")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the matrix products in training")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU when there is one")
    seed: Seed = Field(0, description="of weights, order, dropout, augmentation")
    nodes: Count = Field(1, description="pods that train together on a cluster; one process does it elsewhere")
    gpus: Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=64)] = Field(
        0, description="GPUs of each node, one process each; with one process give resources.train.gpu instead"
    )
    claim: Name = Field("boatyard-training", description="volume claim that the nodes share and keep states on")
    storage: str | None = Field(
        None, description="s3:// folder that dataset and checkpoint pass through; by default the claim, mounted"
    )
    launcher: str | None = Field(
        None, description="process, trainjob or a plug-in; by default what suits the number of processes"
    )

    def completed(self) -> TrainConfig:
        """Return the section with what was not given filled in: rate, decay and momentum that suit the optimizer."""
        given = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay, "momentum": self.momentum}
        suits = dict(zip(given, OPTIMIZERS[self.optimizer], strict=True))
        return self.model_copy(update={key: suits[key] if value is None else value for key, value in given.items()})

    def derived(self) -> dict[str, str]:
        """Say what was not given and is derived, by setting."""
        full = self.completed()
        keys = ("learning_rate", "weight_decay", "momentum")
        return {k: f"{getattr(full, k):g}" for k in keys if getattr(self, k) is None and getattr(full, k) is not None}

    def alone(self) -> TrainConfig:
        """Return the section for one process, which comes to the same up to the order of float32 sums."""
        return self.model_copy(update={"nodes": 1, "gpus": 0, "launcher": None})

    @property
    def processes(self) -> int:
        """How many processes share each batch on a cluster."""
        return self.nodes * max(self.gpus, 1)

    @field_validator("model")
    @classmethod
    def _said(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Refuse null, which a pipeline's parameters cannot hold: the setting would be at its default, unsaid."""
        for path in null_paths(settings):
            raise ValueError(f"{path} is null; remove it for its default, or give false where the recipe takes that")
        return settings

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.gpus and self.processes == 1:
            raise ValueError("gpus 1 on nodes 1 is one process; give resources.train.gpu, or more nodes")
        if self.processes > self.batch_size:
            raise ValueError(
                f"{self.processes} processes share a batch of {self.batch_size} rows; give a greater batch_size"
            )
        if self.momentum is not None and self.optimizer != "sgd":
            raise ValueError(f"momentum is for sgd, optimizer is {self.optimizer}; remove one of them")
        if self.patience is not None and self.patience >= self.epochs:
            raise ValueError(
                f"patience {self.patience} can never stop a run of {self.epochs} epochs; give less than epochs"
            )
        return self


class EvaluateConfig(Section):
    """What is measured on the test split."""

    confidence: Annotated[float, BeforeValidator(finite_number), Field(gt=0.5, lt=1)] = Field(
        0.95, description="of every interval"
    )
    bootstrap: Annotated[int, BeforeValidator(finite_number), Field(ge=100, le=1_000_000)] = Field(
        1000, description="resamples, for metrics that have no closed interval"
    )
    bins: Annotated[int, BeforeValidator(finite_number), Field(ge=2, le=100)] = Field(
        15, description="of the calibration curve"
    )
    worst: Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=200)] = Field(
        24, description="examples shown that the model got most wrong"
    )
    seed: Seed = Field(0, description="of the bootstrap")


class NotWorseConfig(Section):
    """Non-inferiority to the version that an alias names, paired on the same rows (Tango's score interval)."""

    alias: Name = Field(
        "production", description="which version to compare with; none there yet means nothing to compare"
    )
    margin: Annotated[float, BeforeValidator(finite_number), Field(gt=0, lt=0.5)] = Field(
        0.01, description="greatest loss of accuracy that still counts as not worse"
    )
    confidence: Annotated[float, BeforeValidator(finite_number), Field(gt=0.5, lt=1)] = Field(
        0.95, description="one-sided"
    )


class GateConfig(Section):
    """What a model must show before it is pushed; frozen in the checkpoint before training starts."""

    minimum: dict[str, Number] = Field({}, description="least value by metric, such as accuracy: 0.9")
    maximum: dict[str, Number] = Field({}, description="greatest value by metric, such as log_loss: 0.5")
    bound: Literal["estimate", "interval"] = Field(
        "interval",
        description="what must satisfy minimum and maximum: the estimate, or the unfavourable end of its interval",
    )
    rows: Count = Field(100, description="least number of test rows; with fewer the model is refused")
    not_worse: Annotated[NotWorseConfig | None, BeforeValidator(null_of_false)] = Field(
        NotWorseConfig(), description="compare with the version in production; null: do not"
    )

    @property
    def seal(self) -> str:
        """The digest of the rules, which train writes down before it starts and gate looks for."""
        return digest_json(self.model_dump(mode="json"))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for metric in self.minimum.keys() & self.maximum.keys():
            if self.minimum[metric] > self.maximum[metric]:
                raise ValueError(
                    f"nothing can pass: {metric} expected ≥ {self.minimum[metric]} and ≤ {self.maximum[metric]}"
                )
        return self


class PushConfig(Section):
    """Where a package goes."""

    registry: str = Field(
        "registry", description="folder of the registry, relative to the project file, or its URI (file, pvc, s3, gs)"
    )
    alias: Annotated[Name | None, BeforeValidator(null_of_false)] = Field(
        "production", description="alias to move to the new version; null moves none"
    )
    golden: Annotated[int, BeforeValidator(finite_number), Field(ge=1, le=1000)] = Field(
        16,
        description="test rows packaged with the predictions that every server must reproduce (reference outputs)",
    )

    @model_validator(mode="after")
    def _free(self) -> Self:
        if self.alias == "latest":
            raise ValueError("alias latest always is the version with the greatest number; choose another")
        return self


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


class StepConfig(Section):
    """What a step's pod asks of the cluster; a laptop run takes what is there."""

    cpu: Cpu | None = Field(None, description="request, such as 2 or 500m")
    memory: Memory | None = Field(None, description="request and limit, such as 4Gi")
    gpu: GpuConfig | None = Field(None, description="GPUs; without a value the step runs on CPUs")
    node_selector: dict[str, str] = Field({}, description="labels that the node must have")
    tolerations: tuple[TolerationConfig, ...] = Field(
        (), description="taints to tolerate; the GPU's own is added where gpu is given"
    )
    secrets: dict[str, str] = Field({}, description="environment variable → secret/key")
    volumes: dict[str, Name] = Field({}, description="folder in the pod → claim that is mounted there")
    timeout: Duration | None = Field(None, description="such as 30m or 2h")
    retries: Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=10)] = Field(
        0, description="further attempts after a failure"
    )

    @model_validator(mode="after")
    def _named(self) -> Self:
        _check_secrets(self.secrets)
        _check_volumes(self.volumes)
        return self


def _check_secrets(secrets: Mapping[str, str]) -> None:
    for variable, secret in secrets.items():
        if not re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", secret):
            raise ValueError(f"secrets.{variable}: expected secret/key, found {secret!r}")


def _check_volumes(volumes: Mapping[str, str]) -> None:
    for folder in volumes:
        if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", folder) or folder in ("/tmp", "/dev/shm"):
            raise ValueError(f"volumes: expected a folder such as /data for the claim, found {folder!r}")


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


class ResourcesConfig(Section):
    """Pods, stage by stage; a setting that a step does not give keeps its default."""

    preprocess: StepConfig = Field(StepConfig(cpu="2", memory="2Gi", timeout="2h"), description="cpu, memory …")
    train: StepConfig = Field(StepConfig(cpu="2", memory="4Gi", timeout="12h"), description="cpu, memory, gpu …")
    evaluate: StepConfig = Field(StepConfig(cpu="2", memory="4Gi", timeout="2h"), description="cpu, memory …")
    gate: StepConfig = Field(StepConfig(cpu="1", memory="2Gi", timeout="1h"), description="cpu, memory …")
    push: StepConfig = Field(StepConfig(cpu="1", memory="2Gi", timeout="1h"), description="cpu, memory …")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = {step: cls.model_fields[step].default.values() for step in cls.model_fields}
        return {
            step: {**defaults.get(step, {}), **given} if isinstance(given, dict) else given
            for step, given in values.items()
        }


class AutoscalingConfig(Section):
    """One block for every autoscaler."""

    minimum: Annotated[int, BeforeValidator(finite_number), Field(ge=0)] = Field(1, description="replicas at rest")
    maximum: Count = Field(3, description="replicas at most")
    metric: Literal["cpu", "concurrency"] = Field(
        "cpu", description="percent of the request, or requests in flight a replica"
    )
    target: Count = Field(70, description="of the metric")
    autoscaler: str | None = Field(
        None, description="hpa, keda, knative or a plug-in; by default what suits metric and mode"
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
