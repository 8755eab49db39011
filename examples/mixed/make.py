"""`make examples`: each component as a file, for pipelines that load it and have no need of boatyard.

    python examples/mixed/make.py components

BOATYARD_IMAGE names the image that their steps run in.
"""

from __future__ import annotations

import sys
from pathlib import Path

from boatyard import components
from boatyard.pipelines import compiling


def make(folder: Path) -> None:
    """Write the components' files into a folder."""
    for name in components.__all__:
        compiling.write(getattr(components, name), folder / f"{name}.yaml")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
