"""`make examples`: what a cluster is given of the project beside this file, compiled and rendered into a folder.

    python examples/cluster/make.py examples/cluster

pipeline.yaml and pipeline-gpu.yaml are what `boatyard compile` writes; BOATYARD_IMAGE names their pods' image.
inferenceservice.yaml is what `boatyard render` writes, but for the word DIGEST in place of a package's digest, which is
known once a run has pushed one, and without the two annotations that only a known package has.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from boatyard import deployment, project
from boatyard.pipelines import training
from boatyard.settings import Settings

HERE = Path(__file__).resolve().parent
GPU = {"resources.train.gpu.count": 1}
UNKNOWN = "0" * 64
OF_A_PACKAGE = ("boatyard/rendered", "boatyard/version")


class Pushed(NamedTuple):
    """What of a package an endpoint is made of, where the project says its memory."""

    name: str
    digest: str = UNKNOWN


def endpoint(made: project.Project) -> str:
    """Return the endpoint's objects as YAML, with DIGEST where the package's digest belongs."""
    package = Pushed(made.name)
    uri = f"{made.push.registry}/{made.name}/packages/sha256-{package.digest}"
    objects = deployment.manifests(package, made.serve, uri, Settings())  # type: ignore[arg-type]
    for name in OF_A_PACKAGE:
        objects[-1]["metadata"]["annotations"].pop(name, None)
    return deployment.dump(objects).replace(UNKNOWN, "DIGEST")


def make(folder: Path) -> None:
    """Write the three files into a folder."""
    made = project.load(HERE)
    training.compile(made, folder / "pipeline.yaml")
    training.compile(made.override(GPU), folder / "pipeline-gpu.yaml")
    (folder / "inferenceservice.yaml").write_text(endpoint(made))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
