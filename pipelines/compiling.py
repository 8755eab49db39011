"""A pipeline or a component, compiled to a file: the same bytes from process to process."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from kfp import compiler

from boatyard.data import artifacts


def write(compiled: Any, path: Path) -> None:
    """Write a pipeline's or component's spec, whole or not at all; KFP raises ValueError for what none can hold."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.yaml"
        compiler.Compiler().compile(compiled, str(spec))
        artifacts.write_bytes(path, _without_defaults(spec.read_text()).encode())


def _without_defaults(spec: str) -> str:
    """Return a spec whose head names the sections and not their values: KFP writes these in an order of the moment.

    The same project then compiles to the same bytes, whose digest names the version that is uploaded.
    """
    return re.sub(r"^(#    \w+: dict) \[Default: \{.*\}\]$", r"\1", spec, flags=re.MULTILINE)
