"""The end of a run: it fails when the gate refused, with the gate's sentence."""

from kfp import dsl
from kfp.dsl import Artifact, Input

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def verdict(verdict: Input[Artifact]) -> None:
    """Fail a refused run with the gate's sentence, so that it is told apart from a crash.

    Args:
        verdict: What gate left.
    """
    from boatyard import stages

    stages.settle(verdict.path)
