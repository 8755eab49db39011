"""Everything in, package out and into the registry."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def push(
    name: str,
    push: dict[str, Any],
    dataset: Input[Dataset],
    checkpoint: Input[Model],
    report: Input[Artifact],
    verdict: Input[Artifact],
    package: Output[Model],
    task: str = "",
    data: dict[str, Any] = {},  # noqa: B006 - KFP copies it into the spec
    preprocess: dict[str, Any] = {},  # noqa: B006
    train: dict[str, Any] = {},  # noqa: B006
    evaluate: dict[str, Any] = {},  # noqa: B006
    gate: dict[str, Any] = {},  # noqa: B006
) -> str:
    """Seal the package and register it as a new version.

    Args:
        name: The model's name in the registry.
        push: The section push: registry is a URI or folder that outlives the pod.
        dataset: The dataset that was gated: golden examples are taken from its test split.
        checkpoint: What train left.
        report: What evaluate left.
        verdict: What gate left; one that did not pass is refused.
        package: The sealed package; version, digest and the registry's URI as metadata.
        task: Not used: the artifacts say how they were made; as the following five, for pipelines that give them.
        data: Not used.
        preprocess: Not used.
        train: Not used.
        evaluate: Not used.
        gate: Not used.

    Returns:
        URI of the version in the registry.
    """
    from boatyard import stages

    paths = dataset.path, checkpoint.path, report.path, verdict.path, package.path
    version = stages.push(push, {"name": name}, *paths)
    package.metadata.update({"version": version.version, "digest": version.digest, "registry": version.uri})
    return version.uri
