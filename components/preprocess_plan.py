"""The profile of every part in, what the columns of all rows are out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_plan(
    data: dict[str, Any],
    preprocess: dict[str, Any],
    task: str,
    profiles: Input[list[Artifact]],
    plan: Output[Artifact],
) -> None:
    """Merge the profiles of the parts: what the columns of all rows are.

    Args:
        data: The project's data section.
        preprocess: The project's preprocess section.
        task: classification or regression.
        profiles: What was found in each part.
        plan: Kinds of columns, labels, digests of all files.
    """
    from boatyard import stages

    stages.preprocess_plan(data, preprocess, task, [profile.path for profile in profiles], plan.path)
