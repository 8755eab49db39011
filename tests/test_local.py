"""The local runner: real specs through KFP's own runner, in real processes."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import steps

from boatyard.errors import ConfigError, Refused, StorageError
from boatyard.pipelines import local
from boatyard.pipelines.cache import ContentCache
from boatyard.running import runs
from boatyard.running.display import Silence
from boatyard.running.runs import Run

SCRIPT = """
import sys
from pathlib import Path
from boatyard.running import runs
from boatyard.running.display import Silence
from boatyard.pipelines import local
local.execute(runs.find(Path(sys.argv[1])), Path(sys.argv[1]), Silence())
"""


def execute(folder: Path, compile_: Callable[..., None], *arguments: str, **named: object) -> Run:
    run = runs.new("test", folder)
    compile_(run.spec, *arguments, **named)
    return local.execute(run, folder, Silence())


def states(run: Run) -> dict[str, str]:
    return {step.name: step.state for step in run.steps}


def text(run: Run, step: str) -> str:
    path = run.output(step, "out")
    assert path is not None
    return path.read_text()


def test_a_run_leaves_spec_logs_artifacts_and_timings(tmp_path: Path) -> None:
    run = runs.read(execute(tmp_path, steps.two).path)
    assert run.state == "succeeded" and run.ended
    assert states(run) == {"write": "succeeded", "double": "succeeded"}
    assert text(run, "double") == "aa"
    assert "writing a" in run.log("write").read_text()
    assert all(step.seconds > 0 for step in run.steps)
    assert run.output("double", "out") == run.path / "artifacts" / "double" / "out"


def test_an_unchanged_step_is_not_run_again(tmp_path: Path) -> None:
    first = execute(tmp_path, steps.two)
    second = execute(tmp_path, steps.two)
    assert states(second) == {"write": "cached", "double": "cached"}
    assert second.output("double", "out") == first.output("double", "out")


def test_a_changed_dial_runs_its_step_and_what_its_bytes_change(tmp_path: Path) -> None:
    execute(tmp_path, steps.two, "a")
    run = execute(tmp_path, steps.two, "b")
    assert states(run) == {"write": "succeeded", "double": "succeeded"}
    assert text(run, "double") == "bb"


def test_equal_bytes_from_a_step_run_anew_keep_what_stands_on_them(tmp_path: Path) -> None:
    first = execute(tmp_path, steps.two)
    path = first.output("write", "out")
    assert path is not None
    path.unlink()
    assert states(execute(tmp_path, steps.two)) == {"write": "succeeded", "double": "cached"}


def test_changed_bytes_are_seen(tmp_path: Path) -> None:
    first = execute(tmp_path, steps.two)
    path = first.output("double", "out")
    assert path is not None
    path.write_text("zz")
    run = execute(tmp_path, steps.two)
    assert states(run) == {"write": "cached", "double": "succeeded"}
    assert text(run, "double") == "aa"


def test_changed_code_of_the_project_is_seen(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("a = 1\n")
    execute(tmp_path, steps.two)
    (tmp_path / "model.py").write_text("a = 2\n")
    assert states(execute(tmp_path, steps.two)) == {"write": "succeeded", "double": "succeeded"}


def test_a_step_at_work_in_another_run_is_waited_for_and_its_result_taken(tmp_path: Path) -> None:
    made = [runs.new("test", tmp_path) for _ in range(2)]
    for run in made:
        steps.two(run.spec)
    at_once = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT.replace("sys.argv[1]))", f"sys.argv[1]), '{run.id}')", 1), tmp_path]
        )
        for run in made
    ]
    assert [process.wait(timeout=60) for process in at_once] == [0, 0]
    one, two = (states(runs.read(run.path)) for run in made)
    assert {(one[name], two[name]) for name in one} <= {("cached", "succeeded"), ("succeeded", "cached")}


def test_a_cache_entry_that_was_cut_is_a_step_run_again(tmp_path: Path) -> None:
    execute(tmp_path, steps.two)
    for number, entry in enumerate(sorted((tmp_path / "runs" / ".cache").glob("*.json"))):
        entry.write_text(["", "[1]", "{"][number])
    assert states(execute(tmp_path, steps.two)) == {"write": "succeeded", "double": "succeeded"}


def test_a_failed_run_goes_on_from_the_failed_step(tmp_path: Path) -> None:
    fail = tmp_path / "fail"
    fail.touch()
    with pytest.raises(local.StepFailed, match=r"double failed: .*told to fail.*\n.*double\.log"):
        execute(tmp_path, steps.two, "a", str(fail))
    run = runs.find(tmp_path)
    assert run.state == "failed" and "told to fail" in run.error
    fail.unlink()
    assert states(local.execute(runs.again(run), tmp_path, Silence())) == {"write": "cached", "double": "succeeded"}


def test_a_refusal_is_told_apart_from_a_crash(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"accuracy is 0\.1, 0\.9 was wanted"):
        execute(tmp_path, steps.one, "refuse")
    run = runs.find(tmp_path)
    assert (run.state, run.error) == ("refused", "accuracy is 0.1, 0.9 was wanted")


def test_a_secret_that_is_not_exported_is_refused_and_one_that_is_reaches_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORE_TOKEN", raising=False)
    with pytest.raises(
        ConfigError, match="STORE_TOKEN comes from the secret store/token on a cluster; here, export it"
    ):
        execute(tmp_path, steps.one, platform="secret")
    monkeypatch.setenv("STORE_TOKEN", "x")
    assert execute(tmp_path, steps.one, platform="secret").state == "succeeded"


def test_a_volume_that_the_local_runner_would_drop_in_silence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mounts pvcMount at /data"):
        execute(tmp_path, steps.one, platform="volume")


def test_a_gpu_that_the_local_runner_would_drop_in_silence_is_said_in_one_line(tmp_path: Path) -> None:
    run, display = runs.new("test", tmp_path), Heard()
    steps.one(run.spec, platform="gpu")
    assert local.execute(run, tmp_path, display).state == "succeeded"
    asks = "resources.empty.gpu asks for 64 nvidia.com/gpu"
    assert display.said == [f"{asks}: only a pod of a cluster gets it, here the step runs on the CPU"]


class Heard(Silence):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_a_step_past_its_timeout_is_stopped_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(local.StepFailed, match="its timeout of 1 s passed"):
        execute(tmp_path, steps.one, "wait", "timeout", seconds=60.0, mark=str(tmp_path / "mark"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_step_can_save_and_ends_when_its_runner_is_stopped(tmp_path: Path, number: int) -> None:
    run, mark = runs.new("test", tmp_path), tmp_path / "mark"
    steps.one(run.spec, "wait", seconds=60.0, mark=str(mark))
    runner = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background has it ignored
    )
    wait_for(Path(f"{mark}.started"))
    os.kill(runner.pid, number)
    runner.wait(timeout=30)
    wait_for(mark)
    assert mark.read_text() == "saved"
    assert runs.find(tmp_path).state == "interrupted"


@pytest.mark.parametrize("spec", [b"{[", b"", b"a: 1", b"- a", b"\xff\xfe"])
def test_what_is_not_a_compiled_pipeline_is_refused(tmp_path: Path, spec: bytes) -> None:
    run = runs.new("test", tmp_path)
    run.spec.write_bytes(spec)
    with pytest.raises(ConfigError, match="is not a compiled pipeline"):
        local.execute(run, tmp_path, Silence())


RECORD = '{"project": "a", "state": "failed", "started": "x", '
DAMAGED = (
    '"steps": [], "process": "q"}',
    '"steps": [], "error": 3}',
    '"steps": [{"name": "a", "state": "succeeded", "outputs": "x"}]}',
    '"steps": [{"name": "a", "state": "succeeded", "seconds": "x"}]}',
    '"steps": [{"name": "a", "state": 3}]}',
)


@pytest.mark.parametrize("text", ['{"pro', "[]", '{"steps": 3}', *(RECORD + damaged for damaged in DAMAGED)])
def test_a_damaged_record_hides_its_run_and_no_other(tmp_path: Path, text: str) -> None:
    whole, cut = runs.new("test", tmp_path), runs.new("test", tmp_path)
    (cut.path / "run.json").write_text(text)
    assert [run.id for run in runs.all_of(tmp_path)] == [whole.id]


def test_a_run_is_alive_while_its_lock_is_held_whoever_has_its_process_number_now(tmp_path: Path) -> None:
    run = runs.new("test", tmp_path)
    assert runs.read(run.path).state == "running", "it has just begun"
    with runs.hold(run):
        assert runs.read(run.path).state == "running"
    assert os.getpid() == run.process and runs.read(run.path).state == "interrupted"
    assert runs.read(replace(runs.new("test", tmp_path), process=10**30).write().path).state == "interrupted"


def test_a_run_that_another_process_executes_is_left_alone(tmp_path: Path) -> None:
    run = runs.new("test", tmp_path)
    steps.two(run.spec)
    with runs.hold(run), pytest.raises(ConfigError, match=f"run {run.id} is at work in another process"):
        local.execute(run, tmp_path, Silence())
    assert runs.read(run.path).error == "its process ended without a word"
    assert local.execute(runs.again(run), tmp_path, Silence()).state == "succeeded"


def test_a_run_that_could_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        execute(tmp_path, steps.one, platform="volume")
    run = runs.find(tmp_path)
    assert run.state == "failed" and "mounts pvcMount at /data" in run.error


def test_a_runner_that_cannot_write_says_so_and_keeps_its_steps(tmp_path: Path) -> None:
    (tmp_path / "runs" / ".cache").mkdir(parents=True)
    fail = tmp_path / "fail"
    fail.touch()
    with pytest.raises(local.StepFailed):
        execute(tmp_path, steps.two, "a", str(fail))
    fail.unlink()
    (tmp_path / "runs" / ".work").rename(tmp_path / "work")
    (tmp_path / "runs" / ".work").write_text("")
    with pytest.raises(StorageError, match=r"could not write .*\.work"):
        local.execute(runs.again(runs.find(tmp_path)), tmp_path, Silence())
    run = runs.find(tmp_path)
    assert run.state == "failed" and ".work" in run.error and states(run) == {"write": "cached"}


def test_a_temporary_folder_that_is_not_there_stops_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert execute(tmp_path, steps.one).state == "succeeded"


def test_half_written_outputs_of_a_killed_step_are_swept_and_never_counted(tmp_path: Path) -> None:
    run = runs.new("test", tmp_path)
    steps.one(run.spec)
    half = run.path / "artifacts" / "empty" / ".report.0123abcd.part"
    half.mkdir(parents=True)
    done = local.execute(run, tmp_path, Silence())
    assert not half.exists()
    assert all(not name.startswith(".") for step in done.steps for name in step.outputs)


def test_the_seams_of_the_runner_are_where_they_were() -> None:
    import inspect

    from kfp.local import cache, executor_input_utils, subprocess_task_handler
    from kfp.local.orchestrator import task_executor

    assert list(inspect.signature(subprocess_task_handler.run_local_subprocess).parameters) == [
        "full_command",
        "env_vars",
    ]
    assert "cache_module.get_local_cache()" in inspect.getsource(task_executor.execute_single_task)
    assert list(inspect.signature(executor_input_utils.get_local_pipeline_resource_name).parameters) == [
        "pipeline_name"
    ]
    ours, theirs = (inspect.signature(kind.compute_key).parameters for kind in (ContentCache, cache.LocalCache))
    assert list(ours) == list(theirs)


def wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never came")
