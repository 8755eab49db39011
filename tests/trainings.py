"""Trainings that several test files run; some in processes of their own, to be cut.

What is imported here each of these processes imports: no more than a training needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import rows

from boatyard import training
from boatyard.data import artifacts
from boatyard.project import AugmentConfig, PreprocessConfig, TrainConfig
from boatyard.training import Training, states

HOW = PreprocessConfig()
RESULT = (training.GRAPH, training.WEIGHTS)


def train(
    dataset: rows.Made, out: Path, work: Path | None = None, how: PreprocessConfig = HOW, **dials: Any
) -> Training:
    config = TrainConfig(**{"device": "cpu", "batch_size": 32, **dials})
    return training.train(config, how, dataset, out, seal="seal", root=out.parent, work=work)


def result(out: Path) -> list[str]:
    return [artifacts.digest_file(out / name) for name in RESULT]


def answers(out: Path, dataset: rows.Made) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(out / training.GRAPH, providers=["CPUExecutionProvider"])
    found = session.run(None, dict(dataset.load("test").inputs))
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


def kept(work: Path) -> int:
    """Return how many whole states a folder has."""
    return sum(bool(artifacts.verify(path, states.STATE_KIND)) for path in (work / states.FOLDER).glob("step-*"))


CHILD = """
import logging, sys
from pathlib import Path
import trainings
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
folder = Path(sys.argv[1])
trainings.cut_run(folder / "out", folder / "work")
"""


def cut_run(out: Path, work: Path) -> Training:
    """The run that is cut: dropout, augmentation, momentum, early stopping, the recipe: all have state to lose."""
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("state_recipes.py"), out.parent / "sorts.py")
    how = PreprocessConfig(augment=AugmentConfig(flip=True, shift=1, noise=0.05))
    model = {"blocks": [4, 8], "dropout": 0.2, "batch_norm": True}
    return train(
        rows.images(900), out, work, how=how, recipe="sorts:Killed", model=model, epochs=8, patience=7, optimizer="adam"
    )


def child(folder: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", "BOATYARD_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True, env=env)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not list(path.glob("step-*")) and process.poll() is None:
        time.sleep(0.01)
