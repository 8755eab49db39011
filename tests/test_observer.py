"""What a step's own code reads while it runs is seen, and what differs afterwards is said; all else is left alone."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from boatyard import provenance, recipes
from boatyard.data import artifacts
from boatyard.provenance import Here, Inputs
from boatyard.provenance.observer import _original

pytestmark = pytest.mark.usefixtures("forgotten")

RECIPE = """
import glob, importlib, os, pathlib, sqlite3, subprocess, sys, tempfile, json
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import pyarrow.parquet as pq
import safetensors.numpy
import torch
from boatyard.recipes import Recipe
HERE = pathlib.Path(__file__).parent
{head}
class R(Recipe):
    def model(self):
        {body}
"""


def observe(root: Path, name: str = "model:R") -> Inputs:
    """Load a recipe and make its model, as a step does, and return what it was seen to read."""
    file = root.parent / "observed.json"
    with provenance.observing(root, file):
        recipes.load(name, root).model(SimpleNamespace())  # type: ignore[arg-type]
    return Inputs.of(artifacts.read_json(file))


def changes(root: Path, seen: Inputs) -> list[str]:
    return list(Here(root, dict(_original())).changes(seen))


def project(folder: Path, head: str = "", body: str = "pass") -> Path:
    root = folder / "project"
    root.mkdir()
    (root / "model.py").write_text(RECIPE.format(head=head, body=body))
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def array(path: Path, value: int) -> None:
    np.save(path, np.full(3, value))


def weights(path: Path, value: int) -> None:
    torch.save({"w": torch.full((3,), value)}, path)


def tensors(path: Path, value: int) -> None:
    safetensors.numpy.save_file({"w": np.full(3, value)}, path)


def table(path: Path, value: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [value]}), path)


def text(path: Path, value: int) -> None:
    write(path, str(value))


READS: list[tuple[str, Callable[[Path, int], None], str]] = [
    ("vocab.txt", text, "(HERE / 'vocab.txt').read_text()"),
    ("build/vocab.txt", text, "(HERE / 'build' / 'vocab.txt').read_text()"),
    ("runs/words/vocab.txt", text, "pathlib.Path(HERE, 'runs', 'words', 'vocab' + '.txt').read_text()"),
    ("a.npy", array, "np.load(HERE / ('a' + '.npy'))"),
    ("a.npy", array, "list(ThreadPoolExecutor().map(np.load, [HERE / ('a' + '.npy')]))"),
    ("a.npy", array, "np.load(HERE / ('a' + '.npy'), mmap_mode='r')"),
    ("a.npy", array, "np.fromfile(HERE / ('a' + '.npy'))"),
    ("w.pt", weights, "torch.load(HERE / ('w' + '.pt'), weights_only=True)"),
    ("w.safetensors", tensors, "safetensors.numpy.load_file(HERE / 'w.safetensors')"),
    ("t.parquet", table, "pq.read_table(str(HERE / 't.parquet'))"),
    ("vocab.txt", text, "subprocess.run(['cat', str(HERE / ('vocab' + '.txt'))], stdout=subprocess.DEVNULL)"),
    ("vocab.txt", text, "os.close(os.open(HERE / ('vocab' + '.txt'), os.O_RDONLY))"),
]


@pytest.mark.parametrize(("name", "save", "code"), READS, ids=lambda value: getattr(value, "__name__", None) or value)
@pytest.mark.parametrize("where", ["head", "body"])
def test_a_file_that_was_read_and_differs_is_named(
    tmp_path: Path, name: str, save: Callable[[Path, int], None], code: str, where: str
) -> None:
    root = project(tmp_path, **{where: code})
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    save(root / name, 4)
    seen = observe(root)
    assert changes(root, seen) == []
    save(root / name, 9)
    assert changes(root, seen) == [f"file {name} changed"]


def test_a_file_behind_a_link_counts_by_what_it_holds(tmp_path: Path) -> None:
    root = project(tmp_path, "(HERE / 'words' / 'vocab.txt').read_text()")
    write(tmp_path / "elsewhere" / "vocab.txt", "4")
    (root / "words").symlink_to(tmp_path / "elsewhere")
    seen = observe(root)
    write(tmp_path / "elsewhere" / "vocab.txt", "9")
    assert changes(root, seen) == ["file words/vocab.txt changed"]


def test_a_file_elsewhere_counts_too(tmp_path: Path) -> None:
    write(tmp_path / "glove.txt", "4")
    root = project(tmp_path, f"pathlib.Path({str(tmp_path / 'glove.txt')!r}).read_text()")
    seen = observe(root)
    write(tmp_path / "glove.txt", "9")
    assert changes(root, seen) == [f"file {tmp_path / 'glove.txt'} changed"]


@pytest.mark.parametrize(
    "code",
    [
        "(HERE / 'extra.json').exists()",
        "json.loads((HERE / 'extra.json').read_text()) if os.path.exists(HERE / 'extra.json') else None",
        "[(HERE / name).read_text() for name in ['extra' + '.json'] if pathlib.Path(name).parent.is_dir()] "
        "if os.path.exists(HERE / 'extra.json') else 0",
    ],
)
def test_a_file_that_was_looked_for_in_vain_is_said_to_be_there_now(tmp_path: Path, code: str) -> None:
    root = project(tmp_path, code)
    seen = observe(root)
    assert changes(root, seen) == []
    write(root / "extra.json", "{}")
    assert changes(root, seen) == ["file extra.json is there now"]


@pytest.mark.parametrize("code", ["os.listdir(HERE / 'words')", "glob.glob(str(HERE / 'words' / '*.txt'))"])
def test_a_folder_that_was_listed_counts_by_its_names(tmp_path: Path, code: str) -> None:
    root = project(tmp_path, code)
    write(root / "words" / "a.txt", "a")
    seen = observe(root)
    write(root / "words" / "a.txt", "b")
    assert changes(root, seen) == []
    write(root / "words" / "b.txt", "b")
    assert changes(root, seen) == ["folder words: files came or went"]


def test_what_runs_leave_is_no_file_of_the_projects_own(tmp_path: Path) -> None:
    root = project(tmp_path, "list(HERE.rglob('*.txt'))")
    seen = observe(root)
    for left in ("runs/20260101-000000-abcd/logs/train.txt", "registry/x/a.txt", "build/dataset/a.txt"):
        write(root / left, "1")
    assert changes(root, seen) == []


@pytest.mark.parametrize(
    "code", ["os.environ['MODE']", "os.environ.get('MODE')", "os.getenv('MODE', 'b')", "'MODE' in os.environ"]
)
@pytest.mark.parametrize("where", ["head", "body"])
def test_a_variable_that_was_read_is_named_with_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, where: str
) -> None:
    monkeypatch.setenv("MODE", "a")
    root = project(tmp_path, **{where: code})
    seen = observe(root)
    assert changes(root, seen) == []
    monkeypatch.setenv("MODE", "b")
    assert changes(root, seen) == ["MODE: a → b"]
    monkeypatch.delenv("MODE")
    assert changes(root, seen) == ["MODE: a → unset"]


def test_a_secret_is_compared_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "hunter2")
    seen = observe(project(tmp_path, "os.environ['HUB_TOKEN']"))
    assert "hunter2" not in (tmp_path / "observed.json").read_text()
    monkeypatch.setenv("HUB_TOKEN", "hunter3")
    assert changes(tmp_path / "project", seen) == ["HUB_TOKEN changed"]


def test_what_code_sets_for_itself_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_MODE", "a")
    seen = observe(project(tmp_path, "os.environ['OWN_MODE'] = 'b'; os.environ['OWN_MODE']"))
    assert "OWN_MODE" not in seen.variables


@pytest.mark.parametrize(
    "code",
    [
        "(HERE / 'log.txt').write_text('x')",
        "with open(HERE / 'log.txt', 'a') as f: f.write('x')",
        "pathlib.Path(tempfile.mkdtemp(), 'a').write_text('x')",
        "safetensors.numpy.save_file({'w': np.zeros(3)}, HERE / 'made.safetensors')",
        "with tempfile.NamedTemporaryFile('w+') as f: pathlib.Path(f.name).read_text()",
        "c = HERE / 'memo.json'; c.exists() and c.read_text() or c.write_text('{}')",
        "torch.nn.Linear(2, 2)",
        "list(os.environ.items())",
    ],
)
def test_what_a_step_makes_itself_does_not_make_it_run_again(tmp_path: Path, code: str) -> None:
    root = project(tmp_path, code)
    first = observe(root)
    assert changes(root, first) == [] and not first.unsettled
    assert changes(root, observe(root)) == []


def test_a_file_that_changed_while_it_was_used_keeps_nothing(tmp_path: Path) -> None:
    root = project(tmp_path, "p = HERE / 'count.txt'; p.write_text(str(int(p.read_text()) + 1))")
    write(root / "count.txt", "1")
    assert observe(root).unsettled == ("count.txt",)


def test_modules_count_also_by_a_name_that_is_made_at_run_time(tmp_path: Path) -> None:
    root = project(tmp_path, body="importlib.import_module('ate'.rjust(4, 'l'))")
    write(root / "late.py", "X = 1")
    seen = observe(root)
    write(root / "late.py", "X = 2")
    assert changes(root, seen) == ["recipe changed: late.py"]


def test_a_module_that_was_looked_for_in_vain_is_said_to_be_there_now(tmp_path: Path) -> None:
    root = project(tmp_path, "try:\n    import fast_operators\nexcept ImportError:\n    pass")
    seen = observe(root)
    assert changes(root, seen) == []
    write(root / "fast_operators.py", "")
    assert changes(root, seen) == ["fast_operators can be imported now"]


def test_a_plug_ins_new_version_and_its_edited_file_are_named(tmp_path: Path) -> None:
    lib, root = tmp_path / "lib", tmp_path / "project"
    root.mkdir()
    write(lib / "acme_boats" / "__init__.py", "")
    write(lib / "acme_boats" / "recipe.py", RECIPE.format(head="(HERE / 'v.txt').read_text()", body="pass"))
    write(lib / "acme_boats" / "v.txt", "1")
    info = lib / "acme-1.0.dist-info"
    write(info / "METADATA", "Name: acme\nVersion: 1.0\n")
    write(info / "RECORD", "acme_boats/__init__.py,,\nacme_boats/recipe.py,,\nacme_boats/v.txt,,\n")
    write(info / "entry_points.txt", "[boatyard.recipes]\nacme = acme_boats.recipe:R\n")
    sys.path.insert(0, str(lib))
    seen = observe(root, "acme")
    assert changes(root, seen) == []
    write(lib / "acme_boats" / "v.txt", "2")
    assert changes(root, seen) == [f"file {lib / 'acme_boats' / 'v.txt'} changed"]
    write(lib / "acme_boats" / "v.txt", "1")
    with (lib / "acme_boats" / "recipe.py").open("a") as file:
        file.write("\n")
    assert changes(root, seen) == ["code changed: acme_boats/recipe.py"]
    info.rename(lib / "acme-1.1.dist-info")
    write(lib / "acme-1.1.dist-info" / "METADATA", "Name: acme\nVersion: 1.1\n")
    assert changes(root, seen) == ["code changed: acme_boats/recipe.py", "plug-in acme 1.0 → 1.1"]


def test_a_copy_elsewhere_with_other_times_is_as_it_was_seen(tmp_path: Path) -> None:
    import shutil

    root = project(tmp_path, "(HERE / 'vocab.txt').read_text(); os.listdir(HERE)")
    write(root / "vocab.txt", "4" * (2 << 20))
    seen = observe(root)
    shutil.copytree(root, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "vocab.txt", (1, 1))
    assert changes(tmp_path / "copy", seen) == []
    assert observe(root).values() == seen.values()


def test_a_forked_process_is_seen(tmp_path: Path) -> None:
    body = "p = os.fork(); ((HERE / ('vocab' + '.txt')).read_text(), os._exit(0)) if not p else os.waitpid(p, 0)"
    root = project(tmp_path, body=body)
    write(root / "vocab.txt", "4")
    seen = observe(root)
    write(root / "vocab.txt", "9")
    assert changes(root, seen) == ["file vocab.txt changed"]


def test_what_others_read_meanwhile_is_not_the_steps(tmp_path: Path) -> None:
    root = project(tmp_path)
    write(root / "boatyard.yaml", "name: x")
    file = tmp_path / "observed.json"
    with provenance.observing(root, file):
        artifacts.read_json(_json(root))
    seen: Any = artifacts.read_json(file)
    assert seen == {}
    assert (root / "boatyard.yaml").read_text() == "name: x"


def _json(root: Path) -> Path:
    (root / "other.json").write_text("{}")
    return root / "other.json"


def test_comparing_costs_little(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    import time

    code = "[(HERE / 'words' / f'{n}.txt').read_text() for n in range(100)]; os.getenv('MODE'); import layers"
    root = project(tmp_path, code)
    for number in range(100):
        write(root / "words" / f"{number}.txt", "x" * 1000)
    for number in range(30):
        write(root / "layers" / f"m{number}.py", f"X = {number}")
    write(root / "layers" / "__init__.py", "".join(f"from layers import m{number}\n" for number in range(30)))
    seen = observe(root)
    started = time.process_time()
    assert changes(root, seen) == []
    took = time.process_time() - started
    record_property("milliseconds", took * 1000)
    assert len(seen.files) > 130 and took < 0.05
