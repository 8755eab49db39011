"""Why a step failed: left beside its artifacts in the bucket and in its log, found again by the run's id."""

import math
from pathlib import Path

import pytest

from boatyard import stages, storage
from boatyard.data import artifacts
from boatyard.diagnosis.runs import of_kubeflow
from boatyard.diagnosis.snapshot import ObjectReference
from boatyard.errors import ArtifactError, DataError, Refused
from boatyard.running import reasons
from boatyard.running.reasons import Reason


def test_a_reason_has_the_fields_of_its_error() -> None:
    error = ArtifactError("no dataset at /d", expected="manifest.json", found="a; b", fix="make it again")
    reason = Reason.of("train", error)
    assert (reason.expected, reason.found, reason.fix) == ("manifest.json", "a; b", "make it again")
    assert reason.sentence == "no dataset at /d: expected manifest.json, found a; b; make it again"
    assert (reason.step, reason.error, reason.refused) == ("train", "ArtifactError", False)
    assert Reason.of("gate", Refused("no")).refused


def test_nothing_is_read_out_of_a_sentence() -> None:
    reason = Reason.of("train", DataError("rows.csv: expected a, found b; do c"))
    assert (reason.expected, reason.found, reason.fix) == ("", "", "")


def test_a_reason_that_an_older_image_left_is_read() -> None:
    written = {
        "step": "train",
        "error": "DataError",
        "sentence": "s",
        "wanted": "a",
        "found": "b",
        "do": "c",
        "log": "",
    }
    reason = Reason.from_dict(written)
    assert (reason.expected, reason.found, reason.fix) == ("a", "b", "c")


def test_the_fields_of_a_failing_steps_error_reach_whoever_asks_why(bucket: str) -> None:
    run = f"{bucket}/digits/run-1"
    error = DataError("price", expected="numbers", found="1; 2", fix="exclude it")
    with pytest.raises(DataError), stages.step("train", f"/s3/{run.removeprefix('s3://')}/train/uuid/checkpoint"):
        raise error
    (reason,) = reasons.read(run)
    assert (reason.expected, reason.found, reason.fix) == (error.expected, error.found, error.fix)
    answer = of_kubeflow(ObjectReference("Run", "run-1", "kubeflow"), run)
    assert [each.fix for each in answer.diagnoses] == ["exclude it"]


def test_a_foreign_error_says_its_kind() -> None:
    assert Reason.of("train", KeyError("x")).sentence == "KeyError: 'x'"


def test_the_run_is_known_from_where_a_step_finds_its_artifacts() -> None:
    assert reasons.run_of("/s3/b/root/deep/digits/run-1/train/uuid/checkpoint") == "s3://b/root/deep/digits/run-1"
    assert reasons.run_of("/s3/b/digits/run-1/train/uuid/checkpoint") == "s3://b/digits/run-1"
    assert reasons.run_of("/tmp/digits/run-1/train/uuid/checkpoint") is None
    assert reasons.run_of("") is None


def test_a_failing_step_leaves_its_reason_in_the_bucket_of_its_run(bucket: str) -> None:
    run = f"{bucket}/digits/run-1"
    empty = f"/s3/{bucket.removeprefix('s3://')}/digits/run-1/gate/uuid/verdict"
    with pytest.raises(ArtifactError):
        stages.settle(empty)
    (reason,) = reasons.read(run)
    assert (reason.step, reason.error) == ("verdict", "ArtifactError")
    assert "verdict is missing" in reason.sentence
    assert reasons.find(bucket, "run-1") == run


@pytest.mark.parametrize(
    "error", [ValueError("a recipe's own"), Refused("accuracy is 0.1, expected 0.9; train longer")]
)
def test_whatever_is_raised_is_said_in_one_line_of_the_log(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)), stages.step("train", "/tmp/out"):
        raise error
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(reasons.MARK)]
    assert str(error) in line


def test_without_a_file_the_log_of_the_task_gives_the_reason(bucket: str, tmp_path: Path) -> None:
    reason = Reason.of("train", ValueError("x"))
    (tmp_path / "log").write_text(f"begins\n{reason.line()}\nTraceback\n")
    storage.open(bucket).put("digits/run-1/train/uuid/executor-logs-0", tmp_path / "log")
    (found,) = reasons.read(f"{bucket}/digits/run-1")
    assert found.sentence == "ValueError: x"
    assert found.log == f"{bucket}/digits/run-1/train/uuid/executor-logs-0"
    assert reasons.last_lines(f"{bucket}/digits/run-1", "train", 1) == ("Traceback",)


def test_a_store_that_is_away_hides_no_error(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(ValueError, match="mine"), stages.step("train", "/s3/b/p/r/train/u/checkpoint"):
        raise ValueError("mine")


def test_a_number_that_is_not_finite_is_left_out_and_fails_no_step(tmp_path: Path) -> None:
    kept = artifacts.write_numbers(tmp_path / "numbers", {"a": 1.0, "b": math.nan, "c": math.inf})
    assert kept == {"a": 1.0}
