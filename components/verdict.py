"""The end of a run: it fails when the gate refused, with the gate's sentence."""

from kfp import dsl

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def verdict(passed: bool, sentence: str) -> None:
    """Fail a refused run with the gate's sentence, so that it is told apart from a crash.

    Args:
        passed: Whether every rule holds.
        sentence: The verdict in words.
    """
    from boatyard import stages

    stages.settle(passed, sentence)
