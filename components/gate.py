"""Report in, verdict out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    gate: dict[str, Any],
    push: dict[str, Any],
    name: str,
    dataset: Input[Dataset],
    checkpoint: Input[Model],
    report: Input[Artifact],
    verdict: Output[Artifact],
) -> bool:
    """Hold the report against the sealed rules and against the version in production.

    Args:
        gate: The section gate as train had it: changed rules are refused.
        push: The section push: registry and alias say where the version in production is.
        name: The model's name in the registry.
        dataset: The dataset that was evaluated: the version in production is asked its test rows.
        checkpoint: What train left.
        report: What evaluate left.
        verdict: JSON: every rule with what was wanted, found and the margin.

    Returns:
        passed: whether every rule holds.
    """
    from boatyard import stages

    return stages.gate(gate, push, name, dataset.path, checkpoint.path, report.path, verdict.path).passed
