"""The shards of every part in, dataset out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_merge(
    data: dict[str, Any],
    preprocess: dict[str, Any],
    task: str,
    plan: Input[Artifact],
    split: Input[Artifact],
    shards: Input[list[Artifact]],
    dataset: Output[Dataset],
    metrics: Output[Metrics],
    numbers: Output[Artifact],
) -> None:
    """Merge the parts: the dataset that one machine makes, byte for byte.

    Args:
        data: The project's data section.
        preprocess: The project's preprocess section.
        task: classification or regression.
        plan: What the columns are.
        split: Where each row goes.
        shards: What each part wrote.
        dataset: Shards and manifest.
        metrics: Rows by split.
        numbers: The same as JSON.
    """
    from boatyard import stages

    parts = [part.path for part in shards]
    rows = stages.preprocess_merge(data, preprocess, task, plan.path, split.path, parts, dataset.path, numbers.path)
    for name, value in rows.items():
        metrics.log_metric(name, value)
