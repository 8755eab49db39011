"""What was seen of every part in, what the columns of all rows are out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_plan(
    data: dict[str, Any],
    preprocess: dict[str, Any],
    task: str,
    looks: Input[list[Artifact]],
    plan: Output[Artifact],
) -> None:
    """Bring together what was seen of the parts: what the columns of all rows are.

    Args:
        data: The project's data section.
        preprocess: The project's preprocess section.
        task: classification or regression.
        looks: What was seen of each part.
        plan: Kinds of columns, labels, digests of all files.
    """
    from boatyard import stages

    stages.preprocess_plan(data, preprocess, task, [look.path for look in looks], plan.path)
