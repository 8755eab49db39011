"""Projects copied, moved and linked to, and clocks set back: runs show their own files, the latest first."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import steps

from boatyard import storage
from boatyard.errors import StepFailed
from boatyard.pipelines import local
from boatyard.running import record, runs
from boatyard.running.display import Silence
from boatyard.running.runs import Run, Step

NAMES = ("copy", "with space, 50 % of ünits #1")


def execute(folder: Path, *arguments: str) -> Run:
    run = runs.new("test", folder)
    steps.two(run.spec, *arguments)
    return local.execute(run, folder, Silence())


def states(run: Run) -> dict[str, str]:
    return {step.name: step.state for step in run.steps}


def path_of(run: Run, step: str) -> Path:
    path = run.output(step, "out")
    assert path is not None
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with two runs, of which the second took all from the first."""
    folder = tmp_path_factory.mktemp("projects") / "original"
    execute(folder)
    assert states(execute(folder)) == {"write": "cached", "double": "cached"}
    return folder


@pytest.fixture(params=NAMES)
def copy(original: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a copy of it, while the original is still there."""
    folder = tmp_path / request.param
    shutil.copytree(original, folder)
    return folder


def as_before_numbers(folder: Path, original: Path) -> None:
    """Write a copy's records and cache entries as versions wrote them that knew no numbers and no relative places."""
    for path in (folder / "runs").glob("[0-9]*/run.json"):
        value = json.loads(path.read_text())
        del value["number"]
        for step in value["steps"]:
            for name in step.pop("relative"):
                was = original / "runs" / path.parent.name / step["outputs"][name]
                step["outputs"][name] = os.path.normpath(was)
        path.write_text(json.dumps(value))
    for path in (folder / "runs" / ".cache").glob("*.json"):
        value = json.loads(path.read_text())
        for entry in (entry for outcome in value["outcomes"] for entry in outcome["outputs"].values()):
            if below := entry.pop("below", None):
                entry["artifact"]["uri"] = str(original / below)
        path.write_text(json.dumps(value))


def test_a_copy_shows_its_own_files(copy: Path) -> None:
    for run in runs.all_of(copy):
        for step in ("write", "double"):
            assert path_of(run, step).is_file() and path_of(run, step).is_relative_to(copy)


def test_a_copy_takes_its_own_results_and_sees_its_own_bytes(copy: Path, original: Path) -> None:
    again = execute(copy)
    assert states(again) == {"write": "cached", "double": "cached"}
    assert path_of(again, "double").is_relative_to(copy)
    path_of(again, "double").write_text("zz")
    changed = execute(copy)
    assert states(changed) == {"write": "cached", "double": "succeeded"}
    assert path_of(changed, "double").read_text() == "aa" == path_of(runs.find(original), "double").read_text()


def test_a_copy_goes_on_without_the_original(original: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "a" / "b" / "after"
    shutil.copytree(original, before)
    after.parent.mkdir(parents=True)
    before.rename(after)
    assert states(execute(after)) == {"write": "cached", "double": "cached"}
    assert all(path_of(run, "double").is_relative_to(after) for run in runs.all_of(after))


def test_a_copy_without_results_does_not_take_the_originals(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original / "runs" / ".cache", tmp_path / "runs" / ".cache")
    assert states(execute(tmp_path)) == {"write": "succeeded", "double": "succeeded"}


@pytest.mark.parametrize("linked", ["project", "runs"])
def test_a_project_behind_a_link_shows_its_files_by_either_name(original: Path, tmp_path: Path, linked: str) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    if linked == "project":
        shutil.copytree(original, real)
        link.symlink_to(real)
    else:
        shutil.copytree(original / "runs", real)
        link.mkdir()
        (link / "runs").symlink_to(real)
    run = execute(link, "b")
    assert path_of(run, "double").read_text() == "bb" and states(execute(link, "b"))["double"] == "cached"
    moved = tmp_path / "moved"
    (real if linked == "project" else link).rename(moved)
    assert path_of(runs.find(moved), "double").read_text() == "bb"
    assert states(execute(moved, "b")) == {"write": "cached", "double": "cached"}


def test_nothing_but_logs_says_where_the_project_was(copy: Path, original: Path) -> None:
    files = [path for path in copy.rglob("*") if path.is_file() and path.parent.name != "logs"]
    assert len(files) > 8
    assert [path for path in files if str(original).encode() in path.read_bytes()] == []


def test_records_and_results_of_earlier_versions_are_found_in_a_copy_too(copy: Path, original: Path) -> None:
    as_before_numbers(copy, original)
    assert str(original) in (runs.find(copy).path / "run.json").read_text()
    for run in runs.all_of(copy):
        assert run.number == 0 and path_of(run, "double").is_relative_to(copy) and path_of(run, "double").is_file()
    again = execute(copy)
    assert states(again) == {"write": "cached", "double": "cached"} and path_of(again, "double").is_relative_to(copy)


def test_a_failed_run_is_resumed_where_its_project_went(tmp_path: Path) -> None:
    folder, moved = tmp_path / "one", tmp_path / "two"
    fail = tmp_path / "fail"
    fail.touch()
    with pytest.raises(StepFailed):
        execute(folder, "a", str(fail))
    fail.unlink()
    folder.rename(moved)
    done = local.execute(runs.again(runs.find(moved)), moved, Silence())
    assert states(done) == {"write": "cached", "double": "succeeded"}
    assert path_of(done, "write").is_relative_to(moved) and path_of(done, "double").is_relative_to(moved)
    assert not folder.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_record_keeps_values_and_moves_places(tmp_path: Path, name: str) -> None:
    here, there = tmp_path / "here", tmp_path / name
    run = runs.new("test", here)
    values = {"text": "artifacts/a", "link": "file:a", "up": "../x", "flag": True, "number": 1.5, "none": None}
    outside = {"registry": storage.uri(tmp_path / "registry"), "data": f"{here}2/rows", "bucket": "s3://a/b"}
    places = {"version": here / "registry" / "a b%" / "1", "folder": here}
    outputs = {**values, **outside, "version": storage.uri(places["version"]), "folder": str(places["folder"])}
    run.with_step(Step("push", "succeeded", outputs=outputs)).end("failed", f"{here}/model.py line 5, not {here}2")
    here.rename(there)
    moved = runs.find(there)
    step = moved.step("push")
    assert step is not None and {key: step.outputs[key] for key in (*values, *outside)} == values | outside
    assert step.outputs["version"] == storage.uri(there / "registry" / "a b%" / "1")
    assert step.outputs["folder"] == str(there)
    assert moved.error == f"{there}/model.py line 5, not {here}2"


def test_the_latest_run_is_the_last_that_began_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = datetime(2026, 11, 22, 20, 45, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return clock

    for module in (runs, record):
        monkeypatch.setattr(module, "datetime", Clock)
    began = [runs.new("test", tmp_path).id for _ in range(20)]
    clock -= timedelta(days=400)
    began += [runs.new("test", tmp_path).id for _ in range(2)]
    assert [run.id for run in runs.all_of(tmp_path)] == began[::-1]
    assert runs.find(tmp_path).id == began[-1] and runs.find(tmp_path).id.startswith("2025")
    resumed = runs.again(runs.find(tmp_path, began[0]).end("failed", "it failed"))
    assert (resumed.number, runs.find(tmp_path).id) == (1, began[-1])


def test_a_name_that_is_taken_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter(("aaaa", "aaaa", "bbbb"))
    monkeypatch.setattr(runs.secrets, "token_hex", lambda _: next(given))
    assert [runs.new("test", tmp_path).id[-4:] for _ in range(2)] == ["aaaa", "bbbb"]


def test_runs_without_a_number_keep_their_order_and_come_before_those_with_one(tmp_path: Path) -> None:
    old = [
        replace(runs.new("test", tmp_path), path=tmp_path / "runs" / name, number=0).write().id
        for name in ("30260101-000000-aaaa", "20240101-000000-aaaa", "20240101-000000-bbbb")
    ]
    for run in runs.all_of(tmp_path):
        if run.number:
            shutil.rmtree(run.path)
    assert [run.id for run in runs.all_of(tmp_path)] == [old[0], old[2], old[1]]
    latest = runs.new("test", tmp_path)
    assert [run.id for run in runs.all_of(tmp_path)] == [latest.id, old[0], old[2], old[1]]


def test_runs_begun_at_once_by_several_processes_have_each_a_number(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from boatyard.running import runs;"
        "[runs.new('a', pathlib.Path(sys.argv[1])) for _ in range(8)]"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in started] == [0] * 4
    assert sorted(run.number for run in runs.all_of(tmp_path)) == list(range(1, 33))
