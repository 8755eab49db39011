"""Source files in, dataset out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess(
    data: dict[str, Any],
    preprocess: dict[str, Any],
    task: str,
    dataset: Output[Dataset],
    metrics: Output[Metrics],
    numbers: Output[Artifact],
    rows: Input[Artifact] = None,
) -> None:
    """Read, clean and split the data; write Parquet shards with a manifest of digests.

    Args:
        data: The section data: source (csv, parquet …), path unless rows are given, target and more by choice.
        preprocess: The section preprocess; {} is all of its defaults.
        task: classification or regression.
        dataset: Shards and manifest.
        metrics: Rows by split, rows dropped or repaired.
        numbers: The same as JSON.
        rows: A file or folder that an earlier step wrote, read in place of data.path.
    """
    from boatyard import stages

    given = rows.path if rows else ""
    for name, value in stages.preprocess(data, preprocess, task, dataset.path, numbers.path, given).items():
        metrics.log_metric(name, value)
