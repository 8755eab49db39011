"""One project: its sections, and what must hold between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from boatyard.project.fields import Name, Section
from boatyard.project.sections import (
    DataConfig,
    EvaluateConfig,
    GateConfig,
    KubeflowConfig,
    PreprocessConfig,
    PushConfig,
    ResourcesConfig,
    ServeConfig,
    TrainConfig,
)
from boatyard.spelling import hint, shorten

STEPS = ("preprocess", "train", "evaluate", "gate", "push", "deploy", "verdict")
METRICS = {  # what evaluate measures, by task; top_3_accuracy where there are more than four labels
    "classification": (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "top_3_accuracy",
        "auc",
        "log_loss",
        "brier",
        "ece",
        "calibration_rmse",
    ),
    "regression": ("rmse", "mae", "median_absolute_error", "r2", "bias"),
}
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "top_3_accuracy", "auc")  # from 0 to 1


class Project(Section):
    """One project: data in, endpoint out."""

    name: Name = Field(
        description="of the model, the registry's entry and the endpoint: lower-case letters, digits and -"
    )
    description: str = Field("", description="one line for people")
    task: Literal["classification", "regression"] = Field(
        "classification", description="what is predicted: a label or a number"
    )
    data: DataConfig
    preprocess: PreprocessConfig = Field(PreprocessConfig(), description="cleaning, splitting, normalising")
    train: TrainConfig = Field(TrainConfig(), description="recipe and optimisation")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="what is measured")
    gate: GateConfig = Field(GateConfig(), description="what a model must show to be pushed")
    push: PushConfig = Field(PushConfig(), description="where packages go")
    serve: ServeConfig = Field(ServeConfig(), description="the endpoint")
    resources: ResourcesConfig = Field(
        ResourcesConfig(),
        description="pods on a cluster: preprocess, train, evaluate, gate and push, each with these settings",
    )
    kubeflow: KubeflowConfig = Field(KubeflowConfig(), description="the pipeline on Kubeflow: for all its pods")

    _root: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def root(self) -> Path:
        """The folder that relative paths start at, own recipes are imported from and runs are kept in."""
        return self._root

    @classmethod
    def load(cls, path: str | Path = ".", set: Mapping[str, Any] | Iterable[str] = ()) -> Project:
        """Read the project file of a folder, with `{"train.epochs": 3}` or `["train.epochs=3"]` on top.

        Raises ConfigError with every wrong key's path.
        """
        from boatyard.project import file  # which makes a Project of what it read

        return file.load(Path(path), set)

    def override(self, set: Mapping[str, Any] | Iterable[str]) -> Project:
        """Return the project with settings changed, as `load` takes them; raises ConfigError."""
        from boatyard.project import file

        values = self.values()
        file.apply(values, set)
        return file.check(values, self.name).at(self.root)

    def at(self, root: str | Path) -> Project:
        """Return the project with another folder as its root."""
        moved = self.model_copy()
        moved._root = Path(root).absolute()
        return moved

    def here(self) -> Project:
        """Return the project as this machine runs it: without what only Kubeflow has, trained by one process."""
        return self.model_copy(update={"kubeflow": KubeflowConfig(), "train": self.train.alone()})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name in STEPS:
            raise ValueError(f"name {self.name} is a step's name, which Kubeflow would mix up; choose another")
        classification = {"cross_entropy", "label_smoothing"}
        if self.train.loss in classification and self.task == "regression":
            raise ValueError(f"train.loss is {self.train.loss}, which needs labels; task is regression")
        if self.train.class_weights == "balanced" and self.task == "regression":
            raise ValueError("train.class_weights is balanced, which needs labels; task is regression")
        if self.kubeflow.workers > 1 and self.data.source not in ("csv", "parquet", "images"):
            raise ValueError(
                f"kubeflow.workers is {self.kubeflow.workers}, which needs several files of csv, parquet or images; "
                f"data.source is {self.data.source}"
            )
        if self.task == "regression" and self.data.labels:
            raise ValueError("data.labels names classes; task is regression")
        self._can_be_gated()
        return self

    def _can_be_gated(self) -> None:
        """Refuse rules that no report can satisfy before anything is trained for them."""
        for section, wanted in (("minimum", self.gate.minimum), ("maximum", self.gate.maximum)):
            for metric, value in wanted.items():
                at = f"gate.{section}.{shorten(metric)}"
                if metric not in METRICS[self.task]:
                    raise ValueError(f"{at}: no such metric of a {self.task}; {hint(metric, METRICS[self.task])}")
                if metric in SHARES and not 0 <= value <= 1:
                    raise ValueError(f"{at}: expected a share from 0 to 1, such as 0.9 for 90 %, found {value:g}")
