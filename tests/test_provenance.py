"""What a recipe is made of: own code and data by content, wherever they lie; what is installed by its version."""

import itertools
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from boatyard import provenance, recipes
from boatyard.provenance import Code

pytestmark = pytest.mark.usefixtures("forgotten")

RECIPE = """
from boatyard.recipes import Recipe
{head}
class R(Recipe):
    def model(self):
        {body}
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def recipe(root: Path, head: str = "", body: str = "pass", name: str = "model") -> str:
    path = root.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(RECIPE.format(head=head, body=body))
    return f"{name}:R"


def code(root: Path, name: str = "model:R") -> Code:
    return provenance.code_of(recipes.load(name, root), root)


def distribution(folder: Path, name: str, version: str, *recorded: str, plugin: str = "") -> Path:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if recorded:
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in recorded))
    if plugin:
        (info / "entry_points.txt").write_text(f"[boatyard.recipes]\n{name} = {plugin}\n")
    return info


def test_a_built_in_recipe_has_no_code_of_its_own(tmp_path: Path) -> None:
    recipe(tmp_path)
    assert code(tmp_path, "mlp") == Code()


def test_files_of_one_name_are_two_files(tmp_path: Path) -> None:
    for package in ("a", "b"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"X = '{package}'")
    recipe(tmp_path, "import a, b")
    before = code(tmp_path)
    assert before.files.keys() == {"model.py", "a/__init__.py", "b/__init__.py"}
    for package, text in (("a", "X = 'b'"), ("b", "X = 'a'")):
        (tmp_path / package / "__init__.py").write_text(text)
    assert code(tmp_path) != before


@pytest.mark.parametrize(
    ("where", "imported"),
    [
        *itertools.product(
            ("head", "body"),
            (
                "import late",
                "from late import X",
                "import importlib; importlib.import_module('late')",
                "__import__('late')",
            ),
        ),
        ("head", "import importlib; importlib.import_module('ate'.rjust(4, 'l'))"),
    ],
)
def test_a_module_counts_however_it_is_imported(tmp_path: Path, imported: str, where: str) -> None:
    (tmp_path / "late.py").write_text("X = 1")
    recipe(tmp_path, **{where: imported})
    before = code(tmp_path)
    (tmp_path / "late.py").write_text("X = 2")
    assert code(tmp_path) != before and "late.py" in before.files


def test_all_that_a_recipes_package_holds_counts_data_too_and_links_are_followed(tmp_path: Path) -> None:
    project = tmp_path / "project"
    name = recipe(project, name="nets.deep.model")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "vocab.bin").write_bytes(b"1")
    (project / "nets" / "build").symlink_to(tmp_path / "elsewhere")
    (project / "nets" / "deep" / "runs").mkdir()
    (project / "nets" / "deep" / "runs" / "width.json").write_text("4")
    (project / "nets" / "loop").symlink_to(project / "nets")
    found = code(project, name).files
    assert found.keys() == {"nets/deep/model.py", "nets/build/vocab.bin", "nets/deep/runs/width.json"}
    (tmp_path / "elsewhere" / "vocab.bin").write_bytes(b"2")
    assert code(project, name).files != found


def test_a_file_beside_a_recipe_counts_when_its_code_names_it(tmp_path: Path) -> None:
    recipe(tmp_path, "from pathlib import Path\nW = Path(__file__).parent / 'assets' / 'width.json'")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "width.json").write_text("4")
    (tmp_path / "notes.md").write_text("nothing to do with it")
    assert code(tmp_path).files.keys() == {"model.py", "assets/width.json"}


@pytest.mark.parametrize("folder", ["runs", "registry", "build"])
def test_own_code_may_lie_in_a_folder_of_any_name(tmp_path: Path, folder: str) -> None:
    name = recipe(tmp_path, name=f"{folder}.model")
    (tmp_path / folder / "__init__.py").write_text("")
    assert code(tmp_path, name).files.keys() == {f"{folder}/__init__.py", f"{folder}/model.py"}


def test_a_copy_of_a_project_is_the_same_code(tmp_path: Path) -> None:
    import shutil

    write(tmp_path / "one", layers____init___py="", layers__deep_py="X = 1")
    recipe(tmp_path / "one", "from layers import deep")
    before = code(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for file in (tmp_path / "two").rglob("*.py"):
        os.utime(file, (1, 1))
    assert code(tmp_path / "two") == before and "layers/deep.py" in before.files


def on_path(folder: Path) -> Path:
    (folder / "acme").mkdir(parents=True)
    (folder / "acme" / "__init__.py").write_text("")
    (folder / "acme" / "layers.py").write_text("X = 1")
    sys.path.insert(0, str(folder))
    return folder


def test_code_elsewhere_on_the_path_counts_by_content(tmp_path: Path) -> None:
    on_path(tmp_path / "lib")
    recipe(tmp_path / "p", "from acme.layers import X")
    before = code(tmp_path / "p")
    assert before.files.keys() == {"model.py", ":acme/__init__.py", ":acme/layers.py"}
    (tmp_path / "lib" / "acme" / "layers.py").write_text("X = 2")
    assert code(tmp_path / "p").files != before.files


def test_an_installed_distribution_counts_by_its_version(tmp_path: Path) -> None:
    lib = on_path(tmp_path / "lib")
    info = distribution(lib, "acme", "1.0", "acme/__init__.py", "acme/layers.py")
    recipe(tmp_path / "p", "from acme.layers import X")
    assert code(tmp_path / "p").files.keys() == {"model.py"}
    assert code(tmp_path / "p").distributions == {"acme": "1.0"}
    info.rename(lib / "acme-1.1.dist-info")
    (lib / "acme-1.1.dist-info" / "METADATA").write_text("Name: acme\nVersion: 1.1\n")
    assert code(tmp_path / "p").distributions == {"acme": "1.1"}


def test_an_editable_install_counts_by_content(tmp_path: Path) -> None:
    on_path(tmp_path / "checkout")
    distribution(tmp_path / "site", "acme", "1.0", "acme.pth")
    sys.path.insert(0, str(tmp_path / "site"))
    recipe(tmp_path / "p", "from acme.layers import X")
    assert ":acme/layers.py" in code(tmp_path / "p").files


def test_a_plug_in_counts_by_content_too_whatever_installed_it(tmp_path: Path) -> None:
    lib = on_path(tmp_path / "lib")
    recipe(lib, name="acme.recipe")
    distribution(lib, "acme", "1.0", "acme/__init__.py", "acme/layers.py", "acme/recipe.py", plugin="acme.recipe:R")
    found = code(tmp_path / "p", "acme")
    assert found.distributions == {"acme": "1.0"} and ":acme/recipe.py" in found.files


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "acme.zip", "w") as archive:
        archive.writestr("acme/__init__.py", "")
        archive.writestr("acme/layers.py", "X = 1")
    sys.path.insert(0, str(folder / "acme.zip"))


def namespaced(folder: Path) -> None:
    on_path(folder)
    (folder / "acme" / "__init__.py").unlink()


@pytest.mark.parametrize(("made", "place"), [(zipped, ":acme.zip"), (namespaced, ":acme/layers.py")])
def test_archives_and_namespace_packages_count(tmp_path: Path, made: Callable[[Path], None], place: str) -> None:
    made(tmp_path)
    recipe(tmp_path / "p", "from acme.layers import X")
    assert place in code(tmp_path / "p").files


def test_a_linked_recipe_is_the_file_behind_it(tmp_path: Path) -> None:
    recipe(tmp_path / "shared")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "model.py").symlink_to(tmp_path / "shared" / "model.py")
    before = code(tmp_path / "p")
    recipe(tmp_path / "shared", "W = 2")
    assert code(tmp_path / "p") != before and before.files.keys() == {"model.py"}


def test_what_a_recipe_imports_in_a_function_is_found_and_is_its_projects_own(tmp_path: Path) -> None:
    from types import SimpleNamespace

    for project, width in (("one", 4), ("two", 9), ("one", 5)):
        write(tmp_path / project, layers____init___py="", layers__deep_py=f"W = {width}", late_py=f"W = {width}")
        recipe(tmp_path / project, "from layers import deep", "import late; return late.W, deep.W")
        kind = recipes.load("model:R", tmp_path / project)
        assert kind.model(SimpleNamespace()) == (width, width)  # type: ignore[comparison-overlap, arg-type]
