"""A version in, an endpoint that serves it out."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def deploy(serve: dict[str, Any], version: str, package: Input[Model], endpoint: Output[Artifact]) -> str:
    """Roll the version out, prove it by its golden examples, and go back to the former one when it does not serve.

    Args:
        serve: The section serve; {} is all of its defaults.
        version: What push returns: URI of the version in the registry.
        package: What push left.
        endpoint: What serves now, as JSON.

    Returns:
        Digest of the package that serves.
    """
    from boatyard import stages

    number = package.metadata.get("version")  # push leaves it; a backend may hand it on as a float
    return stages.deploy(
        serve, version, package.uri, package.path, endpoint.path, number=None if number is None else int(number)
    )
