"""What is imported is declared, in the extra of the image that imports it; what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DISTRIBUTIONS = {  # of modules that are called otherwise
    "PIL": "pillow",
    "google.protobuf": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "pydantic_core": "pydantic",  # which pins it
    "simdjson": "pysimdjson",
    "yaml": "pyyaml",
}
THE_USERS_OWN = {"pandas"}  # imported where a caller asks for its type
UNIMPORTED = {  # declared, and imported by no module of ours
    "kfp-kubernetes": "compiled specs name its messages, KFP reads them",
    "kfp-pipeline-spec": "pinned to what KFP compiles with",
    "onnxscript": "torch exports with it",
}
FOLDERS = {
    "boatyard": ("train", "cluster", "openvino"),
    "components": ("train",),
    "pipelines": ("train",),
    "serving": ("serve",),
}


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """Give each distribution that a folder's modules import, and where."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = ".".join(name.split(".")[: 2 if name.startswith("google.") else 1])
                if top not in sys.stdlib_module_names and top not in {"boatyard", *THE_USERS_OWN}:
                    yield DISTRIBUTIONS.get(top, top.replace("_", "-")), f"{file.relative_to(ROOT)}:{node.lineno}"


def declared(*extras: str) -> set[str]:
    requirements = [*PROJECT["dependencies"], *(entry for extra in extras for entry in EXTRAS[extra])]
    return {re.match(r"[A-Za-z0-9._-]+", entry)[0].lower().replace("_", "-") for entry in requirements}  # type: ignore[index]


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_imported_is_declared_where_it_is_needed(folder: str) -> None:
    known = declared(*FOLDERS[folder])
    assert [f"{name} at {where}" for name, where in imported(folder) if name not in known] == []


def test_what_is_declared_is_imported() -> None:
    used = {name for folder in FOLDERS for name, _ in imported(folder)}
    assert declared("train", "serve", "cluster", "openvino") - used == UNIMPORTED.keys()


def test_every_requirement_has_a_version_in_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constrained = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert declared(*EXTRAS) - {"boatyard"} - constrained == set()


def test_every_python_that_is_supported_can_be_resolved_for_and_is_said() -> None:
    pythons = re.search(r"^PYTHONS = (.+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert pythons and f">={pythons[1].split()[0]}" == PROJECT["requires-python"]
    assert all(version in (ROOT / "CONTRIBUTING.md").read_text() for version in pythons[1].split())
