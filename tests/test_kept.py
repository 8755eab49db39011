"""What an earlier Boatyard wrote is read for good: datasets, checkpoints, packages, registries, compiled pipelines.

`kept/` holds what a run of two projects left at the time of package format 1. Nothing in it is ever changed.
"""

from __future__ import annotations

import ast
import inspect
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from boatyard import packages, prediction, registry, stages
from boatyard.data import artifacts, checkpoints, datasets
from boatyard.evaluation.report import Report
from boatyard.gating import Verdict
from boatyard.pipelines import local
from boatyard.project import load
from boatyard.running import runs
from boatyard.running.display import Silence

KEPT = Path(__file__).parent / "kept"
DIGESTS = {  # as they were when they were written: whatever reads them, they are these
    "digits": "b0473b4a49f38ed3a60693bc273636f3a30845d4edb92e12d65197c713971a93",
    "prices": "55bb4d0c5fec1b99d0bb7ad4e2631b349ca9b494cd41f92f4ae2cc38b9362086",
}
NAMES = tuple(DIGESTS)


@pytest.fixture(params=NAMES)
def kept(request: pytest.FixtureRequest) -> Path:
    return KEPT / str(request.param)


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / kept.name))


def package(kept: Path) -> Path:
    return kept / "registry" / kept.name / "versions" / "1"


# Files


def test_a_kept_dataset_is_read_and_gives_its_rows(kept: Path) -> None:
    dataset = datasets.read(kept / "dataset")
    rows = {split: len(dataset.load(split)) for split in ("train", "validation", "test")}
    assert rows == dataset.manifest["rows"] and rows["test"] > 0
    assert dataset.digest == checkpoints.read(kept / "checkpoint").record.dataset


def test_a_kept_checkpoint_is_read_with_all_its_sections(kept: Path) -> None:
    checkpoint = checkpoints.read(kept / "checkpoint")
    record = checkpoint.record
    assert record.train is not None and record.train.recipe == record.recipe
    assert record.preprocess is not None and record.preprocess.split.test == 0.1
    assert record.training is not None and record.training.best_epoch == record.epoch
    assert record.graph == artifacts.digest_file(checkpoint.graph)
    assert record.seal == load(kept / "boatyard.yaml").gate.seal


def test_a_kept_report_and_verdict_are_read(kept: Path) -> None:
    report, verdict = Report.read(kept / "report"), Verdict.read(kept / "verdict.json")
    assert verdict.passed and verdict.digests["report"] == report.digest
    assert report.metrics[report.main].value is not None


def test_a_kept_package_verifies_and_its_graph_gives_the_reference_outputs(kept: Path) -> None:
    verified = packages.verify(package(kept))
    assert verified.digest == DIGESTS[kept.name] and packages.differences(package(kept)) == []
    assert len(verified.golden) == 4
    predictor = prediction.load(package(kept), digest=verified.digest)
    answers = predictor.run(verified.golden.inputs)
    assert len(answers) == 4
    assert packages.describe(verified)["files"].keys() >= {"model.onnx", "golden.json"}


def test_a_changed_kept_package_is_refused(copy: Path) -> None:
    path = package(copy) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert packages.differences(package(copy)) != []


def test_a_kept_package_is_served(kept: Path) -> None:
    from test_serving import launch, ready

    verified = packages.verify(package(kept))
    running = ready(launch(verified))
    try:
        question = {"instances": verified.golden.instances}
        response = httpx.post(f"{running.url}/v1/models/{verified.name}:predict", json=question, timeout=30)
        predictions = response.json()["predictions"]
    finally:
        running.process.send_signal(signal.SIGTERM)
        output, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0, output
    if verified.labels:
        labels = verified.golden.answers.labels
        assert labels is not None and [p["label"] for p in predictions] == labels.tolist()
    else:
        assert np.allclose(predictions, verified.golden.answers.to_v1(), rtol=1e-5)


# The registry


def test_a_kept_registry_is_read_and_its_chain_holds(kept: Path) -> None:
    shelf = registry.open(str(kept / "registry"), kept)
    assert shelf.verify_log() == 2
    assert shelf.names() == (kept.name,) and shelf.aliases(kept.name) == {"production": 1}
    assert shelf.resolve(kept.name, "production").digest == DIGESTS[kept.name]
    assert shelf.pull(kept.name, "production") == package(kept)


def test_a_kept_registry_takes_a_new_version(copy: Path) -> None:
    shelf = registry.open(str(copy / "registry"), copy)
    again = shelf.push(package(copy))
    assert again.version == 1, "the same package is the same version"
    verified = packages.pack(
        name=copy.name,
        checkpoint=copy / "checkpoint",
        report=copy / "report",
        verdict=copy / "verdict.json",
        dataset=datasets.read(copy / "dataset"),
        out=copy / "package",
        golden=3,
        lineage={"dataset": "0" * 64},
    )
    version = shelf.push(verified.path, alias="production")
    assert version.version == 2 and shelf.resolve(copy.name).digest == verified.digest != DIGESTS[copy.name]
    assert shelf.pull(copy.name, 1) == package(copy)
    assert shelf.verify_log() == 4


# Compiled pipelines


def calls(spec: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Find every call of a stage that a compiled pipeline embeds: its name, positional and named arguments."""
    document = next(yaml.safe_load_all(spec.read_text()))
    for executor in document["deploymentSpec"]["executors"].values():
        source = executor["container"]["command"][-1]
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "stages"
            ):
                yield node.func.attr, len(node.args), [keyword.arg or "" for keyword in node.keywords]


def test_the_stages_take_every_call_that_a_kept_pipeline_embeds(kept: Path) -> None:
    embedded = list(calls(kept / "pipeline.yaml"))
    assert {name for name, _, _ in embedded} >= {"train", "evaluate", "gate", "push", "settle"}
    for name, positional, named in embedded:
        inspect.signature(getattr(stages, name)).bind(*range(positional), **dict.fromkeys(named))


def test_a_kept_pipeline_runs_whole(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(KEPT / "digits", tmp_path / "digits"))
    shutil.rmtree(folder / "registry")  # 179 test rows are too few to show that an equal model is not worse
    run = runs.new("digits", folder)
    shutil.copyfile(folder / "pipeline.yaml", run.spec)
    finished = local.execute(run, folder, Silence())
    assert finished.state == "succeeded"
    version = registry.open(str(folder / "registry"), folder).resolve("digits", "production")
    assert version.version == 1 and version.digest != DIGESTS["digits"]
    prediction.load(folder / "registry/digits/versions/1", digest=version.digest)


def test_the_steps_that_prepare_a_kept_pipelines_parts_make_the_same_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(KEPT / "prices", tmp_path / "prices"))
    monkeypatch.setenv("BOATYARD_PROJECT", str(folder))
    project = load(folder / "boatyard.yaml")
    about = (project.data.values(), project.preprocess.values(), project.task)
    out = tmp_path / "out"
    for part in range(2):
        stages.preprocess_look(*about, part, 2, str(out / f"look{part}"))
    stages.preprocess_plan(*about, [str(out / f"look{part}") for part in range(2)], str(out / "plan"))
    for part in range(2):
        stages.preprocess_clean(*about, part, 2, str(out / "plan"), str(out / f"notes{part}"))
    notes = [str(out / f"notes{part}") for part in range(2)]
    stages.preprocess_divide(*about, str(out / "plan"), notes, str(out / "division"))
    for part in range(2):
        where = (str(out / "plan"), str(out / "division"), str(out / f"shards{part}"))
        stages.preprocess_write(*about, part, 2, *where)
    shards = [str(out / f"shards{part}") for part in range(2)]
    where = (str(out / "plan"), str(out / "division"), shards, str(out / "dataset"), str(out / "numbers.json"))
    numbers = stages.preprocess_join(*about, *where)
    dataset, before = datasets.read(out / "dataset"), datasets.read(folder / "dataset")
    assert numbers["test_rows"] == before.manifest["rows"]["test"]
    for split in ("train", "validation", "test"):
        assert np.array_equal(dataset.load(split).rows, before.load(split).rows)
        assert np.array_equal(dataset.load(split).target, before.load(split).target)
