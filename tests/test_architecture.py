"""The arrows go one way: pipelines → components → boatyard ← serving."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOREIGN = {"kfp", "kserve", "kubernetes"}


def imports(file: Path) -> set[str]:
    """Return every module that a file names in an import, lazy ones too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(folder: str) -> list[Path]:
    """Return a folder's modules; of the library's without the command, which opens onto all of it."""
    found = sorted((ROOT / folder).rglob("*.py"))
    return [
        file for file in found if folder != "boatyard" or not (file.name == "__main__.py" or file.parent.name == "cli")
    ]


def reaches(file: Path, *packages: str) -> set[str]:
    return {name for name in imports(file) for package in packages if f"{name}.".startswith(f"{package}.")}


@pytest.mark.parametrize("file", files("boatyard"), ids=lambda f: str(f.relative_to(ROOT)))
def test_the_library_knows_neither_kfp_nor_kserve_nor_what_stands_on_it(file: Path) -> None:
    foreign = FOREIGN - {"kubernetes"} if file.name == "cluster.py" else FOREIGN
    assert not reaches(file, *foreign, "boatyard.components", "boatyard.pipelines", "boatyard.serving")


@pytest.mark.parametrize("file", files("components"), ids=lambda f: f.name)
def test_components_stand_on_the_library_alone(file: Path) -> None:
    assert not reaches(file, "kserve", "kubernetes", "boatyard.pipelines", "boatyard.serving")


@pytest.mark.parametrize("file", files("serving"), ids=lambda f: f.name)
def test_serving_stands_on_the_library_alone(file: Path) -> None:
    assert not reaches(file, "kfp", "torch", "boatyard.components", "boatyard.pipelines", "boatyard.training")


@pytest.mark.parametrize("file", files("pipelines"), ids=lambda f: f.name)
def test_pipelines_do_not_serve(file: Path) -> None:
    assert not reaches(file, "kserve", "torch", "boatyard.serving")


def test_the_command_imports_nothing_heavy_before_a_verb_needs_it() -> None:
    tree = ast.parse((ROOT / "boatyard" / "__main__.py").read_text())
    eager = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    eager |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}
    assert (
        eager & {"boatyard.project", "boatyard.running.runs", "rich", "pydantic", "yaml", "torch", "kfp", "kserve"}
        == set()
    )


def test_the_wheel_lists_every_package() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    library = {".".join(f.parent.relative_to(ROOT).parts) for f in (ROOT / "boatyard").rglob("__init__.py")}
    assert listed == library | {"boatyard.components", "boatyard.pipelines", "boatyard.serving"}
