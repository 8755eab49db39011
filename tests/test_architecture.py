"""The arrows go one way: pipelines → components → boatyard ← serving, and inside the library from stage to noun."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOREIGN = ("kfp", "kserve", "kubernetes")
OUTER = ("boatyard.components", "boatyard.pipelines", "boatyard.serving")
OUTWARD = ("api", "cli")  # reach outward inside functions: to run a pipeline, to start a server
STAGES = ("preprocessing", "recipes", "training", "evaluation", "gating", "registry", "deployment", "diagnosis")
APART = {  # what a part of the library does not know, lazily neither
    "errors": ("",),
    "data": (*STAGES, "packages", "prediction", "running", "kubernetes"),
    "project": (*STAGES, "packages", "prediction", "running", "kubernetes", "storage", "settings"),
    "storage": (*STAGES, "packages", "prediction", "running", "kubernetes"),
    "provenance": (*STAGES, "packages", "prediction", "running", "kubernetes", "storage", "settings", "project"),
    "settings": (*STAGES, "data", "packages", "prediction", "running", "kubernetes", "storage", "project"),
    "kubernetes": (*STAGES, "data", "packages", "prediction", "running", "storage", "project"),
    "tasks": ("preprocessing", "gating", "registry", "deployment", "diagnosis", "kubernetes"),
    "prediction": (*STAGES, "running", "kubernetes", "storage"),
    "packages": (*STAGES, "running", "kubernetes"),
    "initializer": (*STAGES, "running", "kubernetes"),
    "registry": ("preprocessing", "recipes", "training", "evaluation", "gating", "deployment", "diagnosis"),
    "preprocessing": (*STAGES[1:], "packages", "prediction", "kubernetes"),
    "recipes": (
        "preprocessing",
        "evaluation",
        "gating",
        "registry",
        "deployment",
        "diagnosis",
        "packages",
        "kubernetes",
    ),
    "training": ("preprocessing", "evaluation", "gating", "registry", "deployment", "diagnosis", "packages"),
    "evaluation": ("preprocessing", "training", "gating", "registry", "deployment", "diagnosis", "kubernetes"),
    "gating": ("preprocessing", "training", "registry", "deployment", "diagnosis", "kubernetes"),
    "deployment": ("preprocessing", "recipes", "training", "evaluation", "gating", "registry", "diagnosis"),
    "diagnosis": ("preprocessing", "recipes", "training", "evaluation", "gating", "registry", "prediction"),
}
LIGHT = ("boatyard", "boatyard.project", "boatyard.tasks", "boatyard.data.kinds", "boatyard.prediction")
LIGHT += ("boatyard.packages", "boatyard.storage", "boatyard.cli", "boatyard.plugins", "boatyard.settings")
HEAVY = ("torch", "pyarrow", "kfp", "kserve", "kubernetes", "onnx", "sklearn", "scipy", "pandas", "jinja2")
ENVIRONMENT = {  # reads or changes it beside settings.py, and why
    "boatyard/training/loop.py": "cuBLAS takes its workspace from a variable, which is set before CUDA starts",
    "boatyard/training/node.py": "torchrun says by a variable where a process leaves its last words",
    "boatyard/running/step.py": "the descriptor of the runner's life, taken away so that no child has it",
    "pipelines/demands.py": "whether what a step's secrets are to be is there",
    "boatyard/api/serving.py": "hands the environment on to the server",
    "pipelines/cache.py": "whether a step would read of it what it read",
    "boatyard/provenance/observer.py": "sees what own code reads of it",
    "pipelines/local.py": "hands the environment on to the steps",
    "pipelines/process.py": "hands the environment on to the process of a run",
    "serving/pool.py": "hands the environment on to the workers",
    "serving/__main__.py": "KServe says by MODEL_DIR where the model is",
}


def named(nodes: Iterator[ast.AST]) -> set[str]:
    """Return every module that imports among these nodes name."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports(file: Path) -> set[str]:
    """Return every module that a file names in an import, lazy ones too."""
    return named(ast.walk(ast.parse(file.read_text())))


def files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def within(names: set[str], *packages: str) -> set[str]:
    return {name for name in names for package in packages if f"{name}.".startswith(f"{package}.")}


def reaches(file: Path, *packages: str) -> set[str]:
    return within(imports(file), *packages)


def ids(file: Path) -> str:
    return str(file.relative_to(ROOT))


def outward(file: Path) -> bool:
    return file.relative_to(ROOT / "boatyard").parts[0] in OUTWARD


@pytest.mark.parametrize("file", [file for file in files("boatyard") if not outward(file)], ids=ids)
def test_the_library_knows_neither_kfp_nor_kserve_nor_what_stands_on_it(file: Path) -> None:
    kubernetes = ("kubernetes",) if file.parent == ROOT / "boatyard" / "kubernetes" else ()
    assert not reaches(file, *(set(FOREIGN) - set(kubernetes)), *OUTER)


@pytest.mark.parametrize("file", [file for file in files("boatyard") if outward(file)], ids=ids)
def test_the_command_and_the_api_reach_outward_inside_functions_alone(file: Path) -> None:
    assert not reaches(file, *FOREIGN)
    tree = ast.parse(file.read_text())
    lazy = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    typed = {n for i in ast.walk(tree) if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
             for n in ast.walk(i)}  # fmt: skip
    assert not within(named(node for node in ast.walk(tree) if node not in lazy | typed), *OUTER)


@pytest.mark.parametrize(
    ("part", "file"),
    [
        pytest.param(part, file, id=ids(file))
        for part in APART
        for file in (files(f"boatyard/{part}") or [ROOT / "boatyard" / f"{part}.py"])
        if file.exists()
    ],
)
def test_a_noun_does_not_know_the_stages_that_use_it_nor_a_stage_the_next(part: str, file: Path) -> None:
    apart = {f"boatyard.{other}".rstrip(".") for other in APART[part] if file.parent.name != other}
    apart |= {"boatyard.stages", "boatyard.api", "boatyard.cli"}
    assert not reaches(file, *apart)


@pytest.mark.parametrize("file", files("components"), ids=ids)
def test_components_stand_on_the_library_alone(file: Path) -> None:
    assert not reaches(file, "kserve", "kubernetes", "boatyard.pipelines", "boatyard.serving")


@pytest.mark.parametrize("file", files("serving"), ids=ids)
def test_serving_stands_on_the_library_alone(file: Path) -> None:
    assert not reaches(file, "kfp", "torch", "boatyard.components", "boatyard.pipelines", "boatyard.training")


@pytest.mark.parametrize("file", files("pipelines"), ids=ids)
def test_pipelines_do_not_serve(file: Path) -> None:
    assert not reaches(file, "kserve", "torch", "boatyard.serving")


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_laptop_and_a_serving_pod_import_is_light(module: str) -> None:
    place = ROOT.joinpath(*module.split("."))
    if not (place.is_dir() or place.with_suffix(".py").is_file()):
        pytest.skip("there is no such module")
    code = f"import sys, {module}; print(*({set(HEAVY)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_prediction_imports_no_torch() -> None:
    assert not {name for file in files("boatyard/prediction") for name in reaches(file, "torch", "boatyard.training")}


def test_the_environment_is_read_at_the_edges() -> None:
    readers = {
        str(file.relative_to(ROOT))
        for file in files("boatyard", "components", "pipelines", "serving")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
    }
    assert readers - {"boatyard/settings.py"} <= set(ENVIRONMENT)


@pytest.mark.parametrize("file", files("boatyard/api", "boatyard/cli"), ids=ids)
def test_the_api_and_the_command_import_nothing_heavy_before_a_verb_needs_it(file: Path) -> None:
    eager = named(iter(ast.parse(file.read_text()).body))
    assert not within(eager, "boatyard.project", "boatyard.running", "rich", "pydantic", "yaml", *HEAVY, *OUTER)


def test_the_wheel_lists_every_package() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    library = {".".join(f.parent.relative_to(ROOT).parts) for f in (ROOT / "boatyard").rglob("__init__.py")}
    assert listed == library | {"boatyard.components", "boatyard.pipelines", "boatyard.serving"}
