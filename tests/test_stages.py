"""What a step does around its stage: retries, errors, numbers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from boatyard import project, stages
from boatyard.errors import ConfigError, DataError, StorageError
from boatyard.running import progress, releasing
from boatyard.training import node


def test_a_store_is_asked_again_as_often_as_the_step_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releasing, "BACKOFF", 0.0)
    asked: list[int] = []

    def answer() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise StorageError("the registry does not answer")
        return "version 1"

    assert releasing.patiently(answer, 2) == "version 1"
    asked.clear()
    with pytest.raises(StorageError):
        releasing.patiently(answer, 1)
    assert len(asked) == 2


def test_only_a_stores_errors_are_tried_again() -> None:
    asked: list[int] = []

    def answer() -> None:
        asked.append(1)
        raise DataError("no such column")

    with pytest.raises(DataError):
        releasing.patiently(answer, 5)
    assert len(asked) == 1


def test_a_steps_error_is_left_where_the_runner_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "events"))
    with pytest.raises(DataError), stages.step("preprocess"):
        raise DataError("rows.csv, line 7", expected="a label", found="nothing", fix="exclude it")
    event = json.loads((tmp_path / "events").read_text().splitlines()[-1])
    assert event == {
        "error": "DataError",
        "message": "rows.csv, line 7: expected a label, found nothing; exclude it",
        "about": "rows.csv, line 7",
        "expected": "a label",
        "found": "nothing",
        "fix": "exclude it",
    }


@pytest.mark.parametrize(
    ("step", "fix"),
    [
        ("train", "lower train.batch_size, or give it more: resources.train.memory"),
        ("preprocess-clean", "give it more: resources.preprocess.memory"),
        ("deploy", "give it more"),
    ],
)
def test_too_little_memory_is_the_authors_to_fix_and_restarts_no_pod(
    step: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "events"))
    with pytest.raises(ConfigError) as raised, stages.step(step):
        raise MemoryError
    assert str(raised.value) == f"{step} needs more memory than there is; {fix}"
    assert node.code_of(raised.value) == node.IN_VAIN
    event = json.loads((tmp_path / "events").read_text().splitlines()[-1])
    assert (event["error"], event["fix"]) == ("ConfigError", fix)
    assert f'"fix": "{fix}"' in capsys.readouterr().err


def test_a_full_disk_is_said_in_our_words(tmp_path: Path) -> None:
    import errno

    with pytest.raises(StorageError, match="the disk is full"), stages.step("train"):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "weights"))


def test_a_disk_that_fills_while_a_folder_is_copied_is_said_in_one_line(tmp_path: Path) -> None:
    error = shutil.Error([("a", str(tmp_path / "b"), "[Errno 28] No space left on device: 'a' -> 'b'")] * 5)
    with (
        pytest.raises(StorageError, match=r"^the disk is full: could not write \S*/b \(") as raised,
        stages.step("push"),
    ):
        raise error
    assert "\n" not in str(raised.value) and "Errno" not in str(raised.value)


def test_the_codes_digest_sees_a_changed_recipe(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("a = 1")
    before = stages.code_digest(tmp_path)
    assert stages.code_digest(tmp_path) == before != stages.code_digest()
    (tmp_path / "model.py").write_text("a = 2")
    assert stages.code_digest(tmp_path) != before


def test_code_below_the_project_counts_and_what_runs_left_there_does_not(tmp_path: Path) -> None:
    before = stages.code_digest(tmp_path)
    for left in ("runs/1/a.py", "build/a.py", ".venv/a.py", "env/lib/a.py"):
        (tmp_path / left).parent.mkdir(parents=True)
        (tmp_path / left).write_text("a = 1")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert stages.code_digest(tmp_path) == before
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.py").write_text("a = 1")
    assert stages.code_digest(tmp_path) != before


def test_a_lineage_is_the_same_however_a_pipeline_hands_on_its_parameters() -> None:
    made = project.check({"name": "a", "data": {"source": "csv", "path": "b"}}, "f").values()
    shuffled = {key: made[key] for key in reversed(made)} | {
        "train": {**made["train"], "epochs": float(made["train"]["epochs"])}
    }
    shuffled["data"] = {key: made["data"][key] for key in reversed(made["data"])}
    told = [json.dumps(stages.lineage(values, "d", {})) for values in (made, shuffled)]
    assert told[0] == told[1]


def test_a_step_ends_when_its_runner_is_gone() -> None:
    read, write = os.pipe()
    code = "import time; from boatyard import stages; stages.follow_parent(); print('on', flush=True); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, stages.PARENT: str(read)},
        pass_fds=(read,),
        stdout=subprocess.PIPE,
    )
    os.close(read)
    assert child.stdout is not None and child.stdout.readline() == b"on\n"
    os.close(write)
    assert child.wait(timeout=30) != 0
    child.stdout.close()
