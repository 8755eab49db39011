"""A package says what trained, evaluated and made the rows: what each artifact says of itself, not what pushed."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import boatyard
from boatyard import packages
from boatyard.data import artifacts, datasets, lineage

RECIPE = """
from torch import nn
from boatyard.recipes import Recipe
from layers import width
class R(Recipe):
    def model(self):
        return nn.Sequential(nn.Linear(self.shape[0], width.W), nn.Linear(width.W, self.outputs))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project whose stages up to the gate ran under an image, a number of threads and a version of Pillow."""
    folder = tmp_path_factory.mktemp("lineage")
    x = np.random.default_rng(0).normal(size=(120, 2))
    rows = "".join(f"{a:.4f},{b:.4f},{'yes' if a + b > 0 else 'no'}\n" for a, b in x)
    (folder / "rows.csv").write_text("a,b,label\n" + rows)
    (folder / "model.py").write_text(RECIPE)
    (folder / "layers").mkdir()
    (folder / "layers" / "width.py").write_text("W = 3")
    (folder / "boatyard.yaml").write_text(
        "name: x\ndata: {source: csv, path: rows.csv}\ntrain: {recipe: 'model:R', epochs: 1}\n"
        "gate: {rows: 5, not_worse: null}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOATYARD_THREADS", "1")
        patch.setenv("BOATYARD_IMAGE", "registry.example/train:1")
        version = importlib.metadata.version
        patch.setattr(lineage.metadata, "version", lambda name: "1.2.3" if name == "pillow" else version(name))
        for stage in (boatyard.preprocess, boatyard.train, boatyard.evaluate, boatyard.gate):
            stage(folder, quiet=True)
    return folder


def test_a_package_says_what_trained_and_not_what_pushed(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_THREADS", "2")
    monkeypatch.setenv("BOATYARD_IMAGE", "registry.example/push:2")
    (built / "layers" / "width.py").write_text("W = 4")
    boatyard.push(built, quiet=True)
    found = packages.verify(built / "build" / "package").lineage
    for environment in (found["environment"], *(about["environment"] for about in found["made"].values())):
        told = {name: environment[name] for name in ("image", "threads", "pillow")}
        assert told == {"image": "registry.example/train:1", "threads": 1, "pillow": "1.2.3"}
    assert found["made"].keys() == {"dataset", "checkpoint", "report"}
    code = found["made"]["checkpoint"]["code"]["files"]
    assert code["layers/width.py"] == artifacts.digest_bytes(b"W = 3") and "model.py" in code
    assert found["code"] == found["made"]["checkpoint"]["code"]["digest"]
    assert found["project"]["train"]["recipe"] == "model:R" and found["project"]["data"]["path"] == "rows.csv"
    assert found["project"]["gate"]["rows"] == 5 and found["project"].keys() >= {"name", "task", "evaluate", "push"}
    (built / "layers" / "width.py").write_text("W = 3")


def test_the_same_artifacts_give_the_same_package_wherever_they_are_pushed(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for threads in ("1", "2"):
        monkeypatch.setenv("BOATYARD_THREADS", threads)
        boatyard.push(built, out=tmp_path / threads, quiet=True)
        digests.append(packages.verify(tmp_path / threads).digest)
    assert digests[0] == digests[1]


def test_the_same_rows_are_one_dataset_whoever_made_it(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOATYARD_THREADS", "2")
    again = boatyard.preprocess(built, out=tmp_path / "dataset", quiet=True)
    before = datasets.read(built / "build" / "dataset")
    assert again.digest == before.digest and again.manifest["made"] != before.manifest["made"]


def test_nothing_of_the_time_or_of_the_machines_paths_is_in_a_lineage(built: Path) -> None:
    for artifact in ("dataset", "checkpoint", "report"):
        made = artifacts.read_json(built / "build" / artifact / "manifest.json")["made"]
        assert str(built) not in json.dumps(made) and "seconds" not in json.dumps(made)


def test_the_code_of_a_tree_is_that_of_what_is_installed_of_it(tmp_path: Path) -> None:
    library = Path(boatyard.__file__).parent
    shutil.copytree(library, tmp_path / "boatyard", ignore=shutil.ignore_patterns("__pycache__"))
    for beside in ("components", "pipelines", "serving"):
        shutil.copytree(library.parent / beside, tmp_path / "boatyard" / beside)
    code = "from boatyard.data.lineage import code_digest; print(code_digest())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == lineage.code_digest()
