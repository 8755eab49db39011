"""Names: a class has one owner in the tree, and a constant says of what it is."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(file for folder in ("boatyard", "components", "pipelines") for file in (ROOT / folder).rglob("*.py"))
NESTED = {"Dials"}  # the class of a recipe's settings, which every recipe has in it
BARE = {"LONGEST", "PATIENCE", "NAME", "KIND", "AGAIN"}


def constants(file: Path) -> Iterator[str]:
    """Give the names that a module assigns."""
    for node in ast.parse(file.read_text()).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def test_a_class_name_has_one_owner() -> None:
    owners = defaultdict(list)
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and node.name not in NESTED:
                owners[node.name].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert {name: places for name, places in owners.items() if len(places) > 1} == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_constant_says_of_what_it_is(file: Path) -> None:
    plugin = "KIND" if file.parent.name == "kinds" else ""  # the object that a module of kinds is found by
    assert BARE.intersection(constants(file)) <= {plugin}
