"""The notes of every part in, where each row goes out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_split(
    data: dict[str, Any],
    preprocess: dict[str, Any],
    task: str,
    plan: Input[Artifact],
    notes: Input[list[Artifact]],
    split: Output[Artifact],
) -> None:
    """Decide for every row where it goes: dropped as a copy, or to training, validation or test.

    Args:
        data: The project's data section.
        preprocess: The project's preprocess section.
        task: classification or regression.
        plan: What the columns are.
        notes: What was noted of each part's rows.
        split: One byte a row.
    """
    from boatyard import stages

    stages.preprocess_split(data, preprocess, task, plan.path, [part.path for part in notes], split.path)
