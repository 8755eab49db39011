"""Source files in, dataset out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Metrics, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess(
    data: dict[str, Any],
    preprocess: dict[str, Any],
    task: str,
    dataset: Output[Dataset],
    metrics: Output[Metrics],
    numbers: Output[Artifact],
) -> None:
    """Read, clean and split the data; write Parquet shards with a manifest of digests.

    Args:
        data: The project's data section.
        preprocess: The project's preprocess section.
        task: classification or regression.
        dataset: Shards and manifest.
        metrics: Rows by split.
        numbers: The same as JSON.
    """
    from boatyard import stages

    for name, value in stages.preprocess(data, preprocess, task, dataset.path, numbers.path).items():
        metrics.log_metric(name, value)
