"""What is learnt and how, and on how many machines."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from boatyard.project.fields import (
    Count,
    Fraction,
    Name,
    PluginName,
    Positive,
    Section,
    Seed,
    finite_number,
    null_paths,
)

OPTIMIZERS: dict[str, tuple[float, float, float | None]] = {  # learning rate, weight decay, momentum that suit it
    "sgd": (0.05, 0.0, 0.9),
    "adam": (0.001, 0.0, None),
    "adamw": (0.001, 0.01, None),
    "adagrad": (0.01, 0.0, None),
}


class TrainConfig(Section):
    """What is learnt and how."""

    recipe: str = Field(
        "mlp", description="linear, mlp, cnn, an installed plug-in's name, or module:Class in the project's folder"
    )
    model: dict[str, Any] = Field({}, description="the recipe's own settings; `boatyard recipes` lists them")
    epochs: Count = Field(5, description="passes over the training rows, at most")
    batch_size: Count = Field(128, description="rows that are computed at once, a step unless `accumulate` says more")
    accumulate: Count = Field(
        1, description="batches to a step: the gradient of batch_size × accumulate rows, in the memory of batch_size"
    )
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
    launcher: Annotated[str, PluginName("launchers")] | None = Field(
        None, description="what starts the training; by default what suits the number of processes"
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
