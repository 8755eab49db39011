"""One project: its sections, and what must hold between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, model_validator

from boatyard import plugins, tasks
from boatyard.project.fields import Name, PluginName, Section
from boatyard.project.sections import (
    DataConfig,
    EvaluateConfig,
    GateConfig,
    GpuConfig,
    KubeflowConfig,
    PreprocessConfig,
    PushConfig,
    ResourcesConfig,
    ServeConfig,
    TrainConfig,
)

STEPS = ("preprocess", "train", "evaluate", "gate", "push", "deploy", "verdict")


class Project(Section):
    """One project: data in, endpoint out."""

    name: Name = Field(
        description="of the model, the registry's entry and the endpoint: lower-case letters, digits and -"
    )
    description: str = Field("", description="one line for people")
    task: Annotated[str, PluginName("tasks")] = Field(
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
        """Return the project as this machine runs it: without what only Kubeflow has, trained by one process.

        GPUs that several processes ask for are then those of the one, so that a run can say what it does without.
        """
        pods = self.resources
        if self.train.gpus and not pods.train.gpu:
            pods = pods.model_copy(
                update={"train": pods.train.model_copy(update={"gpu": GpuConfig(count=self.train.gpus)})}
            )
        return self.model_copy(update={"kubeflow": KubeflowConfig(), "train": self.train.alone(), "resources": pods})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name in STEPS:
            raise ValueError(f"name {self.name} is a step's name, which Kubeflow would mix up; choose another")
        if self.kubeflow.workers > 1 and not plugins.load("sources", self.data.source).shareable:
            shareable = [name for name in plugins.builtin("sources") if plugins.load("sources", name).shareable]
            raise ValueError(
                f"kubeflow.workers is {self.kubeflow.workers}, which needs several files of {', '.join(shareable)}; "
                f"data.source is {self.data.source}"
            )
        tasks.named(self.task).check(self)
        return self
