"""Training by several processes: the run of one, shared; stopped, killed or hanging, all end together and go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rows
import state_recipes
from ports import free_port
from trainings import answers, result, train, wait_for

from boatyard import training
from boatyard.project import AugmentConfig, PreprocessConfig
from boatyard.training import loader, loop, states
from boatyard.training.loader import Part

AUGMENT = PreprocessConfig(augment=AugmentConfig(flip=True, shift=2, noise=0.1, erase=3))
CNN: dict[str, Any] = {"recipe": "cnn", "model": {"blocks": [4, 8], "dropout": 0.2, "batch_norm": True}}
MLP: dict[str, Any] = {"recipe": "mlp", "model": {"hidden": [16], "dropout": 0.3}}
CASES: dict[str, tuple[str, PreprocessConfig, dict[str, Any]]] = {
    # 322 training rows end each epoch with a batch of 2 rows: of three processes, one has none
    "a network of images, everything drawn": ("images", AUGMENT, {**CNN, "epochs": 2, "clip": 1.0}),
    "weighted classes, several batches a step": (
        "uneven",
        PreprocessConfig(),
        {**MLP, "epochs": 2, "class_weights": "balanced", "batch_size": 13, "accumulate": 3},
    ),
    "numbers, streamed": ("streamed", PreprocessConfig(), {**MLP, "epochs": 2, "loss": "huber"}),
}
CLOSE = 1e-3  # of the losses, relative: float32 sums in another order, for 22 steps
CHILD = """
import json, logging, os, sys, torch
from pathlib import Path
import rows, test_distributed as t
from boatyard.errors import BoatyardError
logging.basicConfig(level=logging.INFO, format="%(message)s")
print("begun", flush=True)
for name, port in json.loads(sys.argv[2]).items():
    os.environ["MASTER_PORT"] = str(port)
    try:
        t.case(name, Path(sys.argv[1]) / name)
        print("done", flush=True)
    except BoatyardError as error:
        print(type(error).__name__, error, flush=True)
        sys.exit(1)
"""


def dataset(name: str) -> rows.Made:
    if name == "streamed":
        return rows.mixed(403, "regression")
    made = rows.images(403)
    if name == "uneven":
        made.statistics["__target__"]["counts"] = {"left": 10, "middle": 200, "right": 112}
    return made


def case(name: str, folder: Path) -> training.Training:
    kind, how, dials = {**CASES, "apart": APART}.get(name, LONG)
    with pytest.MonkeyPatch.context() as patch:
        if kind == "streamed":  # on one of the processes only: all must do as it does
            patch.setattr(loader, "CHUNK", 50)
            if os.environ.get("RANK", "1") == "1":
                patch.setattr(loader, "available_memory", lambda: 1000)
        if name == "long" and os.environ.get("RANK", "0") == "0":  # all save by the clock of the first
            patch.setattr(loop, "SAVE_EVERY", 0.3)
        return train(dataset(kind), folder / "out", folder / "work", how, **dials)


LONG: tuple[str, PreprocessConfig, dict[str, Any]] = (
    "images",
    AUGMENT,
    {
        "recipe": "sorts:Killed",  # every sort of state beside its weights, much of it of each process's own rows
        "model": {"blocks": [4, 8], "dropout": 0.2},
        "epochs": 10,
        "optimizer": "adam",
        "accumulate": 2,
        "batch_size": 16,
    },
)


APART: tuple[str, PreprocessConfig, dict[str, Any]] = (
    "images",
    PreprocessConfig(),
    {"recipe": "sorts:OfApart", "epochs": 50},
)


def start(folder: Path, size: int, *names: str, only: int | None = None, **env: str) -> list[subprocess.Popen[str]]:
    """Start the processes of a run, or the first of them, as torchrun would."""
    cases = json.dumps({name: free_port() for name in names})
    shared = {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", "BOATYARD_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(size), "GLOO_SOCKET_IFNAME": "lo", **env}
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(state_recipes.__file__, folder / name / "sorts.py")
    return [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), cases],
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(only or size)
    ]


def ended(processes: list[subprocess.Popen[str]], seconds: float = 300) -> list[str]:
    """Wait for every process; return what each said. What is left after so many seconds is killed."""
    until, said = time.monotonic() + seconds, []
    for process in processes:
        try:
            said.append(process.communicate(timeout=max(until - time.monotonic(), 0.1))[0])
        except subprocess.TimeoutExpired:
            process.kill()
            said.append(process.communicate()[0] + "(killed)")
    return said


@pytest.fixture(scope="module", params=[2, 3])
def shared(request: Any, tmp_path_factory: Any) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("shared")
    processes = start(folder, request.param, *CASES)
    said = ended(processes)
    assert [process.returncode for process in processes] == [0] * request.param, said
    yield folder, request.param


@pytest.mark.parametrize("name", CASES)
def test_a_run_on_several_processes_comes_to_what_one_comes_to(
    shared: tuple[Path, int], name: str, tmp_path: Path
) -> None:
    folder, size = shared
    one, several = case(name, tmp_path), training.Training.read(folder / name / "out")
    lines = [
        [json.loads(line) for line in (where / "out" / training.METRICS).read_text().splitlines()]
        for where in (tmp_path, folder / name)
    ]
    for ours, theirs in zip(*lines, strict=True):
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=CLOSE)
        assert theirs["validation_loss"] == pytest.approx(ours["validation_loss"], rel=CLOSE)
    assert several.derived["processes"] == size and several.derived["backend"] == "gloo"
    assert (several.steps, several.best_epoch) == (one.steps, one.best_epoch)
    answered = [answers(where / "out", dataset(CASES[name][0])) for where in (tmp_path, folder / name)]
    for output in {"value", "probabilities"} & answered[0].keys():
        np.testing.assert_allclose(answered[1][output], answered[0][output], rtol=1e-3, atol=1e-3)


# stopped, killed, hanging


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: Any) -> list[str]:
    folder = tmp_path_factory.mktemp("unbroken")
    assert "done" in ended(start(folder, 2, "long"))[0]
    return result(folder / "long" / "out")


def saved(folder: Path) -> Path:
    return folder / "long" / "work" / states.FOLDER


def test_a_signal_to_one_stops_all_after_the_same_step_and_the_next_run_ends_with_the_same_bits(
    tmp_path: Path, unbroken: list[str]
) -> None:
    processes = start(tmp_path, 2, "long")
    wait_for(saved(tmp_path), processes[0])
    processes[1].send_signal(signal.SIGTERM)
    said = ended(processes)
    where = [line.split(";")[0] for text in said for line in text.splitlines() if line.startswith("Interrupted")]
    assert len(where) == 2 and where[0] == where[1] and "saved at epoch" in where[0], said
    assert "going on from epoch" in ended(start(tmp_path, 2, "long"))[1]
    assert result(tmp_path / "long" / "out") == unbroken


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_ends_all_at_once_and_the_next_run_ends_with_the_same_bits(
    tmp_path: Path, unbroken: list[str], rank: int
) -> None:
    processes = start(tmp_path, 2, "long")
    wait_for(saved(tmp_path), processes[0])
    time.sleep(0.2)
    processes[rank].kill()
    started = time.monotonic()
    said = ended(processes)[1 - rank]
    assert time.monotonic() - started < 40  # far less than their patience
    assert f"PeerLost rank {1 - rank} of 2 lost the others" in said and processes[1 - rank].returncode == 1
    ended(start(tmp_path, 2, "long"))
    assert result(tmp_path / "long" / "out") == unbroken


def test_a_process_that_waits_for_the_others_ends_at_a_signal(tmp_path: Path) -> None:
    (alone,) = start(tmp_path, 2, "long", only=1)
    assert alone.stdout is not None and alone.stdout.readline() == "begun\n"  # torch is imported
    time.sleep(2)  # the other is not there
    alone.send_signal(signal.SIGTERM)
    started = time.monotonic()
    ended([alone])
    assert alone.returncode == -signal.SIGTERM and time.monotonic() - started < 5


def test_a_process_that_hangs_ends_the_others_once_their_patience_is_over(tmp_path: Path) -> None:
    processes = start(tmp_path, 2, "long", BOATYARD_PATIENCE="3")
    wait_for(saved(tmp_path), processes[0])
    processes[1].send_signal(signal.SIGSTOP)
    started = time.monotonic()
    (said,) = ended(processes[:1])
    took = time.monotonic() - started
    processes[1].kill()
    ended(processes[1:])
    assert "PeerLost rank 0 of 2" in said and 1 < took < 40


def test_a_state_of_two_processes_is_gone_on_from_by_one_which_says_so(tmp_path: Path, caplog: Any) -> None:
    processes = start(tmp_path, 2, "long")
    wait_for(saved(tmp_path), processes[0])
    for process in processes:
        process.send_signal(signal.SIGTERM)
    ended(processes)
    case("long", tmp_path / "long")
    assert "and 2 processes, this is cpu" in caplog.text
    held = next(each.getMessage() for each in caplog.records if "each process held its own" in each.getMessage())
    assert "all have the first's" in held and "model.beside.mean" in held


def test_a_model_that_answers_by_what_only_one_process_saw_is_refused_by_name(tmp_path: Path) -> None:
    processes = start(tmp_path, 2, "apart")
    for said in ended(processes):
        assert "ConfigError train: with the first process's state the validation loss is" in said
        assert "found differs between the processes: model.mean; train with one process" in said
        assert "epoch 2 of" not in said


def test_parts_share_every_batch_evenly() -> None:
    for count in range(2, 40):
        for size in range(1, 9):
            parts = [Part(rank, size) for rank in range(size)]
            own = [row for part in parts for row in list(range(count))[part.of(count)] if part.count(count)]
            assert own == list(range(count))
            assert max(part.count(count) for part in parts) - min(part.count(count) for part in parts) <= 1
