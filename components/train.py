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
        train: The section train, such as {"recipe": "mlp"}; {} is all of its defaults.
        preprocess: The section that preprocess had (normalising and encoding are part of the graph).
        gate: The section gate, sealed before the first step; the gate step needs the same.
        dataset: Shards and manifest, as preprocess leaves them.
        checkpoint: Weights, exported graph, metrics by epoch.
        metrics: The task's losses and measures on the validation split, speed in rows a second.
        numbers: The same as JSON.
        name: What the TrainJob is called, where there is one.
        pod: What each of its pods asks for: the section resources.train.
    """
    from boatyard import stages

    made = stages.train(train, preprocess, gate, dataset.path, checkpoint.path, numbers.path, name, pod)
    for key, value in made.items():
        metrics.log_metric(key, value)
