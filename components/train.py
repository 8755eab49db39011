"""Dataset in, checkpoint out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    train: dict[str, Any],
    preprocess: dict[str, Any],
    gate: dict[str, Any],
    dataset: Input[Dataset],
    checkpoint: Output[Model],
    metrics: Output[Metrics],
    numbers: Output[Artifact],
    name: str = "train",
    pod: dict[str, Any] = {},  # noqa: B006 - KFP copies it into the spec
) -> None:
    """Train the recipe and export the graph; the gate's rules are sealed into the checkpoint first.

    With several nodes or GPUs the work is done by the pods of a TrainJob, which this step starts and follows.

    Args:
        train: The project's train section.
        preprocess: The project's preprocess section (normalising and encoding are part of the graph).
        gate: The project's gate section, sealed before the first step.
        dataset: Shards and manifest.
        checkpoint: Weights, exported graph, metrics by epoch.
        metrics: Loss and accuracy on the validation split, speed.
        numbers: The same as JSON.
        name: Of the TrainJob, where there is one.
        pod: What each of its pods asks for: the project's resources.train.
    """
    from boatyard import stages

    made = stages.train(train, preprocess, gate, dataset.path, checkpoint.path, numbers.path, name, pod)
    for key, value in made.items():
        metrics.log_metric(key, value)
