"""A part of the source files in, its shards out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_write(
    data: dict[str, Any],
    preprocess: dict[str, Any],
    task: str,
    part: int,
    of: int,
    plan: Input[Artifact],
    split: Input[Artifact],
    shards: Output[Artifact],
) -> None:
    """Write a part's rows to their splits.

    Args:
        data: The project's data section.
        preprocess: The project's preprocess section.
        task: classification or regression.
        part: Which part, from 0.
        of: How many parts there are.
        plan: What the columns are.
        split: Where each row goes.
        shards: Shards, and pieces of those shared with the parts beside; statistics.
    """
    from boatyard import stages

    stages.preprocess_write(data, preprocess, task, part, of, plan.path, split.path, shards.path)
