"""What our steps do where Kubeflow runs them: what they leave of a run, what they say of inputs that are gone."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from boatyard import project, registry, stages, storage
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, Refused
from boatyard.evaluation.report import Report
from boatyard.running import reasons, results
from boatyard.running.results import MARK, RunResult

VALUES = {
    "name": "digits",
    "data": {"source": "csv", "path": "rows.csv"},
    "train": {"recipe": "linear", "epochs": 1, "device": "cpu"},
    "gate": {"rows": 1, "not_worse": None},
    "push": {"registry": "registry"},
}
REFUSING = {"minimum": {"accuracy": 1.0}}


@dataclass(frozen=True)
class Made:
    """What the stages before the gate made, and the sections."""

    folder: Path
    values: dict[str, Any]

    def __getattr__(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    lines = [f"{number % 7},{'xy'[number % 7 > 3]}" for number in range(200)]
    (folder / "rows.csv").write_text("\n".join(["n,label", *lines, ""]))
    data = {**VALUES["data"], "path": str(folder / "rows.csv")}  # type: ignore[dict-item]
    values = project.check({**VALUES, "data": data}, "f").values()
    it = Made(folder, values)
    stages.preprocess(values["data"], values["preprocess"], "classification", it.dataset, it.numbers)
    stages.train(values["train"], values["preprocess"], values["gate"], it.dataset, it.checkpoint, it.numbers)
    stages.evaluate(values["evaluate"], it.dataset, it.checkpoint, it.report, it.numbers)
    gate(it, it.verdict)
    push(it, it.package)
    return it


def gate(made: Made, out: str, **changed: Any) -> bool:
    rules = {**made.values["gate"], **changed}
    return stages.gate(rules, made.values["push"], "digits", made.dataset, made.checkpoint, made.report, out).passed


def push(made: Made, out: str, **changed: str) -> str:
    paths = {name: getattr(made, name) for name in ("dataset", "checkpoint", "report", "verdict")} | changed
    where = {**made.values["push"], "registry": str(made.folder / "registry")}
    return stages.push(where, {"name": "digits"}, *paths.values(), out).uri


@pytest.fixture
def run(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a run whose steps find their artifacts as KFP's launcher lays them out, below this test's folder."""
    monkeypatch.setattr(reasons, "MOUNT", PurePosixPath(tmp_path / "s3"))
    return f"{bucket}/digits/run-1"


def place(run: str, task: str, name: str) -> str:
    return f"{reasons.MOUNT}/{run.removeprefix('s3://')}/{task}/uuid/{name}"


def test_the_gate_leaves_what_the_report_opens_with_and_the_push_its_version(
    made: Made, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results.read(run) == RunResult()
    assert gate(made, place(run, "gate", "verdict"))
    report = Report.read(Path(made.report))
    accuracy = report.metrics["accuracy"]
    measured = results.read(run)
    assert (measured.metric, measured.value, measured.low, measured.high, measured.confidence, measured.passed) == (
        "accuracy", accuracy.value, accuracy.low, accuracy.high, report.confidence, True
    )  # fmt: skip
    assert measured.verdict.startswith("passed: ") and measured.version is None
    uri = push(made, place(run, "push", "package"))
    whole = results.read(run)
    version = registry.open(str(made.folder / "registry"), made.folder).versions("digits")[-1]
    assert (whole.version, whole.uri, whole.digest) == (version.version, uri, version.digest)
    assert whole.metric == "accuracy" and whole.headline().startswith(f"accuracy {accuracy.value:.4f} [")
    assert capsys.readouterr().err.count(MARK) == 2


def test_a_refused_run_leaves_its_metric_and_no_version(made: Made, run: str) -> None:
    assert not gate(made, place(run, "gate", "verdict"), **REFUSING)
    found = results.read(run)
    assert (found.passed, found.version, found.metric) == (False, None, "accuracy")
    with pytest.raises(Refused):
        stages.settle(place(run, "gate", "verdict"))
    (reason,) = reasons.read(run)
    assert reason.refused and reason.sentence == " ".join(found.verdict.split())


def test_without_the_stores_keys_the_log_alone_says_it(
    made: Made, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as pod:
        pod.delenv("AWS_ACCESS_KEY_ID")
        gate(made, place(run, "gate", "verdict"))
    assert results.read(run) == RunResult()
    (tmp_path / "log").write_text(capsys.readouterr().err + "\nlater lines\n")
    storage.open(run).put("gate/uuid/executor-logs-0", tmp_path / "log")
    assert results.read(run).metric == "accuracy"


def test_on_this_machine_nothing_is_left_and_no_line_is_printed(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate(made, str(tmp_path / "verdict"))
    assert MARK not in capsys.readouterr().err


def test_a_store_that_is_away_fails_no_step(made: Made, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    assert gate(made, place(run, "gate", "verdict"))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{cut", '{"value": "high", "metric": "accuracy"}', '{"value": NaN, "metric": "accuracy"}'],
)
def test_what_is_no_result_is_none_and_hides_no_other(bucket: str, tmp_path: Path, text: str) -> None:
    for name, value in {"gate": text, "push": '{"version": 3, "uri": "registry/3", "of": "a later version"}'}.items():
        (tmp_path / name).write_text(value)
        storage.open(bucket).put(f"results/{name}.json", tmp_path / name)
    assert results.read(bucket) == RunResult(version=3, uri="registry/3")


CONSUMERS: dict[str, Callable[[Made, dict[str, str], str], object]] = {
    "train": lambda it, at, out: stages.train(
        it.values["train"], it.values["preprocess"], it.values["gate"], at["dataset"], out, f"{out}.json"
    ),
    "evaluate": lambda it, at, out: stages.evaluate(
        it.values["evaluate"], at["dataset"], at["checkpoint"], out, f"{out}.json"
    ),
    "gate": lambda it, at, out: stages.gate(
        it.values["gate"], it.values["push"], "digits", at["dataset"], at["checkpoint"], at["report"], out
    ),
    "push": lambda it, at, out: push(it, out, **{k: at[k] for k in ("dataset", "checkpoint", "report", "verdict")}),
    "deploy": lambda it, at, out: stages.deploy({}, "registry/1", "s3://b/package", at["package"], out),
    "verdict": lambda it, at, out: stages.settle(at["verdict"]),
}
INPUTS = {
    "train": ("dataset",),
    "evaluate": ("dataset", "checkpoint"),
    "gate": ("dataset", "checkpoint", "report"),
    "push": ("dataset", "checkpoint", "report", "verdict"),
    "deploy": ("package",),
    "verdict": ("verdict",),
}


def emptied(made: Made, name: str, to: Path) -> None:
    to.mkdir()


def gone(made: Made, name: str, to: Path) -> None:
    """Leave nothing at all."""


def lacking(made: Made, name: str, to: Path) -> None:
    """Copy it without its largest file, as where a store's rule deleted some objects."""
    shutil.copytree(getattr(made, name), to)
    files = [path for path in to.rglob("*") if path.is_file() and path.name not in ("manifest.json", "package.json")]
    max(files, key=lambda path: path.stat().st_size).unlink()


@pytest.mark.parametrize(
    ("step", "name", "damage"),
    [
        (step, name, damage)
        for step, names in INPUTS.items()
        for name in names
        for damage in (emptied, gone, lacking)
        if (name, damage) != ("verdict", lacking)  # it is one file
    ],
)
def test_an_input_that_was_deleted_behind_a_cache_hit_is_named_with_the_cure(
    made: Made, tmp_path: Path, step: str, name: str, damage: Callable[[Made, str, Path], None]
) -> None:
    at = {each: getattr(made, each) for each in INPUTS[step]} | {name: str(tmp_path / name)}
    damage(made, name, tmp_path / name)
    versions = len(registry.open(str(made.folder / "registry"), made.folder).versions("digits"))
    with pytest.raises(ArtifactError) as raised:
        CONSUMERS[step](made, at, str(tmp_path / "out"))
    said = str(raised.value)
    assert f"{tmp_path / name}" in said and name in said.replace(str(tmp_path), ""), said
    assert "boatyard submit --no-cache" in said and len(said.splitlines()) == 1, said
    assert not (tmp_path / "out").exists()
    assert len(registry.open(str(made.folder / "registry"), made.folder).versions("digits")) == versions


def test_a_runner_that_checks_its_own_cache_gives_no_advice_of_kubeflows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOATYARD_PROGRESS", str(tmp_path / "progress"))
    with pytest.raises(ArtifactError) as raised:
        stages.settle(str(tmp_path / "verdict"))
    assert "--no-cache" not in str(raised.value)
    (line,) = (tmp_path / "progress").read_text().splitlines()
    assert "verdict is missing" in json.loads(line)["message"]
    assert artifacts.json_bytes(json.loads(line))
