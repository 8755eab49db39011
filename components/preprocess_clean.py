"""A part of the source files in, what is wrong with its rows out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_clean(
    data: dict[str, Any],
    preprocess: dict[str, Any],
    task: str,
    part: int,
    of: int,
    plan: Input[Artifact],
    notes: Output[Artifact],
) -> None:
    """Note what is wrong with a part's rows, and each row's hash, label and group.

    Args:
        data: The project's data section.
        preprocess: The project's preprocess section.
        task: classification or regression.
        part: Which part, from 0.
        of: How many parts there are.
        plan: What the columns are.
        notes: About 20 bytes a row.
    """
    from boatyard import stages

    stages.preprocess_clean(data, preprocess, task, part, of, plan.path, notes.path)
