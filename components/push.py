"""Everything in, package out and into the registry."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def push(
    name: str,
    task: str,
    data: dict[str, Any],
    preprocess: dict[str, Any],
    train: dict[str, Any],
    evaluate: dict[str, Any],
    gate: dict[str, Any],
    push: dict[str, Any],
    dataset: Input[Dataset],
    checkpoint: Input[Model],
    report: Input[Artifact],
    verdict: Input[Artifact],
    package: Output[Model],
) -> str:
    """Seal the package and register it as a new version.

    Args:
        name: The model's name in the registry.
        task: classification or regression.
        data: The project's data section, for the lineage, as the following five.
        preprocess: The project's preprocess section.
        train: The project's train section.
        evaluate: The project's evaluate section.
        gate: The project's gate section.
        push: The project's push section.
        dataset: Shards and manifest: golden examples are taken from the test split.
        checkpoint: Weights and exported graph.
        report: What evaluate measured.
        verdict: What gate decided.
        package: The sealed package.

    Returns:
        URI of the version in the registry.
    """
    from boatyard import stages

    project = {
        "name": name,
        "task": task,
        "data": data,
        "preprocess": preprocess,
        "train": train,
        "evaluate": evaluate,
        "gate": gate,
        "push": push,
    }
    version = stages.push(push, project, dataset.path, checkpoint.path, report.path, verdict.path, package.path)
    package.metadata.update({"version": version.version, "digest": version.digest, "registry": version.uri})
    return version.uri
