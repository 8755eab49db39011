"""A part of the source files in, what its columns are out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_profile(
    data: dict[str, Any],
    preprocess: dict[str, Any],
    task: str,
    part: int,
    of: int,
    profile: Output[Artifact],
) -> None:
    """Profile a part of the files: what the columns are, and the files' digests.

    Args:
        data: The project's data section.
        preprocess: The project's preprocess section.
        task: classification or regression.
        part: Which part, from 0.
        of: How many parts there are.
        profile: What was found.
    """
    from boatyard import stages

    stages.preprocess_profile(data, preprocess, task, part, of, profile.path)
