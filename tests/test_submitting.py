"""`boatyard submit` against a server that answers as a real Kubeflow Pipelines backend did, over real HTTP."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from kubeflow import RECORDINGS, Kubeflow, details, recording, serving

from boatyard import storage
from boatyard.__main__ import cli
from boatyard.errors import BoatyardError, ConfigError, Interrupted, Refused
from boatyard.pipelines import outcomes, submitting
from boatyard.pipelines.nodes import steps
from boatyard.running.reasons import Reason

STEPS = ("preprocess", "train", "evaluate", "gate", "push", "verdict")
TEXT = """
name: digits
data: {source: csv, path: rows.csv}
train: {epochs: 3}
gate: {not_worse: null}
kubeflow:
  {root: ROOT, experiment: nightly, service_account: boatyard-pipeline, folder: /data/digits, volumes: {/data: shared}}
"""


def nodes(**states: str) -> dict[str, str]:
    return states


def done(**others: str) -> tuple[str, dict[str, str]]:
    return "SUCCEEDED", {**dict.fromkeys(STEPS, "SUCCEEDED"), **others}


@pytest.fixture
def backend() -> Iterator[tuple[Kubeflow, str]]:
    kubeflow = Kubeflow([done()])
    with serving(kubeflow) as host:
        yield kubeflow, host


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting.Backend.follow, "__defaults__", (0.01,))
    for name in ("BOATYARD_KUBEFLOW", "KF_PIPELINES_ENDPOINT", "BOATYARD_KUBEFLOW_TOKEN", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "boatyard.yaml").write_text(TEXT.replace("ROOT", "s3://models/root"))
    return tmp_path


def submit(*arguments: object) -> tuple[BaseException | None, str, str]:
    """Run the command in this process; return its error, and both its outputs."""
    found = CliRunner().invoke(cli, ["submit", *map(str, arguments)], standalone_mode=False)
    return found.exception, found.stdout, found.stderr


def test_a_run_is_created_in_its_experiment_with_account_root_and_the_steps_are_told(
    backend: tuple[Kubeflow, str], project: Path
) -> None:
    kubeflow, host = backend
    kubeflow.scenes = [
        ("RUNNING", nodes(preprocess="RUNNING")),
        ("RUNNING", nodes(preprocess="CACHED", train="RUNNING")),
        done(),
    ]
    error, said, told = submit(project, "--host", host)
    assert error is None, error
    assert "run run-0 succeeded" in said
    lines = [line.split()[1:] for line in told.splitlines() if line[2:3] == ":"]
    assert lines[:3] == [["preprocess", "running"], ["preprocess", "cached"], ["train", "running"]]
    assert {step for step, _ in lines} == set(STEPS)
    (run,) = kubeflow.runs
    assert run.service_account == "boatyard-pipeline"
    assert run.runtime_config.pipeline_root == "s3://models/root"
    assert kubeflow.experiments[run.experiment_id].display_name == "nightly"
    assert kubeflow.versions[run.pipeline_version_reference.pipeline_version_id].pipeline_id == "pipeline-0"
    spec, platform = yaml.safe_load_all(kubeflow.specs[0])
    assert spec["pipelineInfo"]["name"] == "digits" and "platforms" in platform


def test_a_dial_of_a_stage_is_a_parameter_and_not_another_pipeline(
    backend: tuple[Kubeflow, str], project: Path
) -> None:
    kubeflow, host = backend
    for epochs in (4, 5):
        assert submit(project, "--host", host, "--no-follow", "--set", f"train.epochs={epochs}")[0] is None
    assert submit(project, "--host", host, "--no-follow")[0] is None
    given = [run.runtime_config.parameters for run in kubeflow.runs]
    assert [g.get("train", {}).get("epochs") if g else None for g in given] == [4, 5, None]
    assert all(not g or g.keys() == {"train"} for g in given)
    assert len(kubeflow.pipelines) == 1
    assert len(kubeflow.specs) == len(kubeflow.versions) == 1


def test_a_changed_project_is_a_new_version_and_an_unchanged_one_is_not(
    backend: tuple[Kubeflow, str], project: Path
) -> None:
    kubeflow, host = backend
    for text in ("train: {epochs: 3}", "train: {epochs: 4}", "train: {epochs: 4}"):
        (project / "boatyard.yaml").write_text(
            TEXT.replace("train: {epochs: 3}", text).replace("ROOT", "s3://models/root")
        )
        assert submit(project, "--host", host, "--no-follow")[0] is None
    assert len(kubeflow.specs) == 2
    assert [run.pipeline_version_reference.pipeline_version_id for run in kubeflow.runs] == [
        "version-0",
        "version-1",
        "version-1",
    ]


def test_no_cache_reaches_the_run_of_the_uploaded_version(backend: tuple[Kubeflow, str], project: Path) -> None:
    kubeflow, host = backend
    assert submit(project, "--host", host, "--no-follow", "--no-cache")[0] is None
    spec = yaml.safe_load(kubeflow.specs[0].split("\n---")[0])
    caches = [task.get("cachingOptions", {}) for task in spec["root"]["dag"]["tasks"].values()]
    assert not any(options.get("enableCache") for options in caches)


@pytest.mark.parametrize(
    ("dials", "said"),
    [
        (["kubeflow.folder=null", "kubeflow.volumes={}"], "data.path is rows.csv, .* look for at /tmp/rows.csv"),
        (["kubeflow.volumes={}"], "push.registry is registry, .* look for at /data/digits/registry"),
        (["kubeflow.volumes={/other: a}", "push.registry=/data/registry"], "push.registry is /data/registry"),
    ],
)
def test_what_no_pod_could_reach_or_keep_is_refused_before_anything_is_sent(
    backend: tuple[Kubeflow, str], project: Path, dials: list[str], said: str
) -> None:
    kubeflow, host = backend
    error, _, _ = submit(project, "--host", host, *(word for dial in dials for word in ("--set", dial)))
    with pytest.raises(ConfigError, match=said):
        raise error or AssertionError
    assert kubeflow.asked == []
    there = ["push.registry=s3://models/registry", "data.path=s3://models/rows.csv", *dials[:2]]
    if "push.registry=/data/registry" not in dials:
        assert submit(project, "--host", host, "--no-follow", *(w for d in there for w in ("--set", d)))[0] is None


def test_json_is_one_value_whatever_the_client_prints(backend: tuple[Kubeflow, str], project: Path) -> None:
    error, said, told = submit(project, "--host", backend[1], "--json")
    value = json.loads(said)
    assert error is None and told == ""
    assert (value["run"], value["state"], value["steps"]["train"]) == ("run-0", "SUCCEEDED", "SUCCEEDED")


def test_a_refusal_is_told_apart_from_a_failure_without_any_word_of_the_backend(
    backend: tuple[Kubeflow, str], project: Path
) -> None:
    kubeflow, host = backend
    kubeflow.scenes = [("FAILED", nodes(gate="SUCCEEDED", verdict="FAILED"))]
    error, _, _ = submit(project, "--host", host)
    assert isinstance(error, Refused) and "the gate refused" in str(error)
    kubeflow.scenes = [("FAILED", nodes(preprocess="SUCCEEDED", train="FAILED"))]
    error, said, _ = submit(project, "--host", host, "--json")
    assert isinstance(error, outcomes.RunFailed)
    assert "train failed" in str(error) and "boatyard why run/run-1" in str(error)
    assert json.loads(said)["kind"] == "RunFailed"


@pytest.mark.parametrize(
    ("step", "cause", "kind"),
    [
        ("train", ValueError("loss is not finite"), outcomes.RunFailed),
        ("verdict", Refused("accuracy is 0.1, expected 0.9"), Refused),
    ],
)
def test_the_reason_that_a_step_left_in_the_bucket_is_the_runs(
    backend: tuple[Kubeflow, str], project: Path, bucket: str, tmp_path: Path, step: str, cause: Exception, kind: type
) -> None:
    kubeflow, host = backend
    (project / "boatyard.yaml").write_text(TEXT.replace("ROOT", bucket))
    (tmp_path / "log").write_text(f"...\n{Reason.of(step, cause).line()}\n")
    storage.open(bucket).put(f"digits/run-0/{step}/uuid/executor-logs-0", tmp_path / "log")
    kubeflow.scenes = [("FAILED", nodes(**{step: "FAILED"}))]
    error, _, _ = submit(project, "--host", host)
    assert type(error) is kind and str(cause) in str(error)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/pipelines/upload_version", 400, "cannot upload the pipeline: .* refused it \\(400\\): bad spec"),
        ("/experiments", 500, "cannot make the experiment nightly: .* failed \\(500\\): bad spec"),
        ("/runs", 400, "cannot create the run: .* refused it \\(400\\): bad spec"),
        ("/runs", 503, "cannot create the run: .* failed \\(503\\).*try again later"),
        ("/healthz", 403, "lets nobody in without a login \\(403\\).*BOATYARD_KUBEFLOW_TOKEN"),
        ("/healthz", 404, "knows nothing there \\(404\\)"),
    ],
)
def test_what_the_api_server_refuses_is_one_line(
    backend: tuple[Kubeflow, str], project: Path, path: str, status: int, said: str
) -> None:
    kubeflow, host = backend
    kubeflow.fail[path] = (status, "bad spec")
    error, _, _ = submit(project, "--host", host)
    with pytest.raises(submitting.BackendError, match=said):
        raise error or AssertionError
    assert len(str(error).splitlines()) == 1


def test_a_login_page_is_seen_for_what_it_is_and_a_token_gets_in(
    backend: tuple[Kubeflow, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow, host = backend
    kubeflow.page = "<!DOCTYPE html><html><body>Log in to Dex</body></html>"
    error, _, _ = submit(project, "--host", host)
    assert "found a web page, as a login is; set BOATYARD_KUBEFLOW_TOKEN" in str(error)
    kubeflow.page, kubeflow.token = "", "secret"
    assert "401" in str(submit(project, "--host", host)[0])
    monkeypatch.setenv("BOATYARD_KUBEFLOW_TOKEN", "secret")
    assert submit(project, "--host", host)[0] is None


@pytest.mark.parametrize(
    ("host", "kind", "said"),
    [
        ("http://127.0.0.1:9", submitting.BackendError, "found no answer .*refused"),
        ("http://no-such-host.invalid", submitting.BackendError, "found no answer"),
        ("localhost:8888", ConfigError, "expected the API server's http:// or https:// URL, found 'localhost:8888'"),
        ("", ConfigError, "expected the URL of the Kubeflow Pipelines API, found none"),
    ],
)
def test_a_wrong_host_is_one_line(project: Path, host: str, kind: type[BoatyardError], said: str) -> None:
    error, _, _ = submit(project, *(("--host", host) if host else ()))
    with pytest.raises(kind, match=said):
        raise error or AssertionError


def test_a_backend_that_is_away_for_a_moment_is_waited_for(
    backend: tuple[Kubeflow, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow, host = backend
    assert submit(project, "--host", host, "--no-follow")[0] is None
    kubeflow.fail["/runs/run-0"] = (502, "away")
    asked = kubeflow.asked

    def back(seconds: float) -> None:
        if asked.count("GET /runs/run-0") > 3:
            kubeflow.fail.clear()

    monkeypatch.setattr(submitting.time, "sleep", back)
    assert submit("--follow", "run-0", "--host", host)[0] is None
    kubeflow.fail["/runs/run-0"] = (502, "away")
    monkeypatch.setattr(submitting, "UNREACHABLE_TIMEOUT_S", 0.0)
    monkeypatch.setattr(submitting.time, "sleep", lambda seconds: None)
    error, _, _ = submit("--follow", "run-0", "--host", host)
    assert isinstance(error, submitting.BackendError)
    assert f"run run-0 may go on, follow it again: boatyard submit --follow run-0 --host {host}" in str(error)


def test_a_restart_of_the_api_server_is_lived_through_and_told_twice(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow = Kubeflow([("RUNNING", nodes(train="RUNNING"))] * 6 + [done()])
    with contextlib.ExitStack() as later, contextlib.ExitStack() as first:
        host = first.enter_context(serving(kubeflow))
        looks = iter(range(1000))

        def between(seconds: float) -> None:
            look = next(looks)
            if look == 1:
                first.close()  # connections are refused
            if look == 4:
                kubeflow.fail["/runs/run-0"] = (503, "starting")  # as from the gateway before it
                later.enter_context(serving(kubeflow, int(host.rpartition(":")[2])))
            if look == 6:
                kubeflow.fail.clear()

        monkeypatch.setattr(submitting.time, "sleep", between)
        with caplog_of(submitting.logger) as told:
            error, said, _ = submit(project, "--host", host)
    assert error is None and "run run-0 succeeded" in said
    assert len(told) == 2, told
    assert "does not answer" in told[0] and told[0].endswith("it is asked again for 5 minutes")
    assert told[1] == f"{host} answers again"


def test_a_run_that_stands_still_is_followed_for_as_long_as_it_takes(
    backend: tuple[Kubeflow, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow, host = backend
    still: list[Any] = [("RUNNING", nodes(preprocess="SUCCEEDED", train="RUNNING"))] * 12
    requeued: list[Any] = [(None, nodes(preprocess="SUCCEEDED", train="RUNNING")), (None, {})] * 6
    kubeflow.scenes = [*still, *requeued, *still, done()]
    monkeypatch.setattr(submitting, "UNREACHABLE_TIMEOUT_S", 0.0)  # a run that says little is no backend that is away
    monkeypatch.setattr(submitting, "SLOW_POD_S", 0.05)
    error, said, told = submit(project, "--host", host)
    assert error is None and "run run-0 succeeded" in said
    assert told.count("train        running for") == 1 and "boatyard why run/run-0" in told
    assert len([line for line in told.splitlines() if "train" in line]) == 3, "it began, it is slow, it succeeded"
    assert kubeflow.asked.count("GET /runs/run-0") == 37


def test_a_refused_run_of_a_project_that_deploys_has_no_deploy_step(
    backend: tuple[Kubeflow, str], project: Path
) -> None:
    kubeflow, host = backend
    text = (project / "boatyard.yaml").read_text()
    (project / "boatyard.yaml").write_text(text.replace("{root:", "{deploy: true, root:"))
    kubeflow.scenes = ["run-refused"]
    error, said, _ = submit(project, "--host", host, "--json")
    assert isinstance(error, Refused)
    assert not {"push", "deploy"} & json.loads(said)["steps"].keys()
    spec = yaml.safe_load(kubeflow.specs[0].split("\n---")[0])
    tasks = {name: set(part["dag"]["tasks"]) for name, part in spec["components"].items() if "dag" in part}
    assert [name for name, inside in tasks.items() if "deploy" in inside] == ["comp-condition-1"]
    assert "deploy" not in spec["root"]["dag"]["tasks"]
    condition = spec["root"]["dag"]["tasks"]["condition-1"]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--gate-Output'] == true"


@contextlib.contextmanager
def caplog_of(logger: logging.Logger) -> Iterator[list[str]]:
    """Collect what a logger says; the command sets the root's handlers anew."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)


def test_ctrl_c_leaves_the_run_and_says_how_to_follow_it_again(backend: tuple[Kubeflow, str], project: Path) -> None:
    kubeflow, host = backend
    kubeflow.scenes = [("RUNNING", nodes(train="RUNNING"))]
    process = subprocess.Popen(
        [sys.executable, "-m", "boatyard", "submit", str(project), "--host", host], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while "GET /runs/run-0" not in kubeflow.asked and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 75
    assert f"run run-0 goes on; follow it again: boatyard submit --follow run-0 --host {host}" in said
    assert not any("terminate" in asked for asked in kubeflow.asked)
    assert issubclass(Interrupted, BoatyardError)


def recorded(name: str) -> Any:
    run = recording(name)
    return steps(run.run_details.task_details, run.state in outcomes.ENDED)


RECORDED = {
    "run-succeeded": dict.fromkeys(STEPS, "SUCCEEDED"),
    "run-succeeded-cached": {
        **dict.fromkeys(STEPS, "SUCCEEDED"),
        **dict.fromkeys(("preprocess", "train", "evaluate"), "CACHED"),
    },
    "run-trainjob": {**dict.fromkeys(STEPS, "SUCCEEDED"), "preprocess": "CACHED"},
    "run-deployed": {**dict.fromkeys((*STEPS, "deploy"), "SUCCEEDED")},
    "run-refused": {
        "preprocess": "CACHED",
        **dict.fromkeys(("train", "evaluate", "gate"), "SUCCEEDED"),
        "verdict": "FAILED",
    },
    "run-running-fan-out": {
        **dict.fromkeys(
            (f"preprocess-{part}" for part in ("look", "plan", "clean", "divide", "write", "join")), "SUCCEEDED"
        ),
        **dict.fromkeys(("train", "evaluate", "gate"), "SUCCEEDED"),
        "verdict": "RUNNING",
    },
    **{
        key: {"preprocess": "FAILED", **dict.fromkeys(("train", "evaluate", "gate", "verdict"), "SKIPPED")}
        for key in ("run-step-failed", "run-pod-cannot-start", "run-terminated")
    },
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_steps_of_a_recorded_run_stand_as_they_stood(name: str) -> None:
    assert recorded(name) == RECORDED[name]


def test_every_recorded_run_is_read() -> None:
    assert {file.stem for file in RECORDINGS.glob("run-*.json")} == set(RECORDED)


def test_steps_come_in_the_order_in_which_they_began() -> None:
    assert list(recorded("run-succeeded"))[:4] == ["preprocess", "train", "evaluate", "gate"]
    assert list(recorded("run-refused"))[-1] == "verdict"


def test_without_argos_retries_a_cached_step_is_told_by_when_its_executor_was_skipped() -> None:
    run = recording("run-succeeded-cached")
    alone = [each for each in run.run_details.task_details if not str(each.display_name).endswith("(0)")]
    for each in alone:
        if each.display_name == "executor":
            each.child_tasks = None
    found = steps(alone, ended=True)
    assert {step for step, state in found.items() if state == "CACHED"} <= {"preprocess", "train", "evaluate"}
    assert {step: state for step, state in found.items() if step in ("gate", "push", "verdict")} == dict.fromkeys(
        ("gate", "push", "verdict"), "SUCCEEDED"
    )
    assert "CACHED" in found.values()


@pytest.mark.parametrize("cut", range(0, 140, 7))
def test_a_run_of_which_few_nodes_are_there_yet_has_no_step_that_is_none(cut: int) -> None:
    run = recording("run-running-fan-out")
    some = sorted(run.run_details.task_details, key=lambda each: str(each.start_time))[:cut]
    assert set(steps(some)) <= set(RECORDED["run-running-fan-out"]) | {"push"}


def test_a_loops_iterations_are_one_step_and_the_worst_of_them_is_its_state() -> None:
    shown = {
        "for-loop-2/look": "SUCCEEDED",
        "for-loop-3/look": "RUNNING",
        "condition-1/push": "CACHED",
        "train": "FAILED",
    }
    assert steps(details("digits-abcde", "RUNNING", shown)) == {"look": "RUNNING", "push": "CACHED", "train": "FAILED"}


def test_a_run_that_argo_has_not_picked_up_is_pending_and_no_login_page(
    backend: tuple[Kubeflow, str], project: Path
) -> None:
    kubeflow, host = backend
    kubeflow.scenes = [(None, {}), ("RUNNING", {"preprocess": "RUNNING"}), (None, {"preprocess": "RUNNING"}), done()]
    error, said, told = submit(project, "--host", host)
    assert error is None and "succeeded" in said and "trying again" not in told
    (run,) = kubeflow.runs
    assert submitting.Backend(host).state(run.run_id).state == "SUCCEEDED"


def replayed(kubeflow: Kubeflow, host: str, project: Path, name: str) -> tuple[BaseException | None, str, str]:
    kubeflow.scenes = [name]
    return submit(project, "--host", host, "--json")


def test_a_recorded_refusal_is_a_refusal(backend: tuple[Kubeflow, str], project: Path) -> None:
    error, said, _ = replayed(*backend, project, "run-refused")
    assert isinstance(error, Refused) and json.loads(said)["kind"] == "Refused"
    assert not str(error).startswith("refused: refused")


def test_a_recorded_termination_is_told_as_one(backend: tuple[Kubeflow, str], project: Path) -> None:
    error, said, _ = replayed(*backend, project, "run-terminated")
    assert isinstance(error, outcomes.RunFailed)
    assert "was terminated, while preprocess ran" in str(error)
    assert json.loads(said)["steps"]["train"] == "SKIPPED"


@pytest.mark.parametrize("name", ["run-succeeded", "run-succeeded-cached", "run-trainjob", "run-deployed"])
def test_a_recorded_success_is_one(backend: tuple[Kubeflow, str], project: Path, name: str) -> None:
    error, said, _ = replayed(*backend, project, name)
    assert error is None and json.loads(said)["steps"] == RECORDED[name]


def test_a_step_that_failed_without_a_word_leads_to_why_from_where_one_is(
    backend: tuple[Kubeflow, str], project: Path
) -> None:
    kubeflow, host = backend
    kubeflow.scenes = ["run-step-failed"]
    error, _, _ = submit(project, "--host", host, "--namespace", "team")
    assert f"look at: boatyard why run/run-0 -n team --project {project}" in str(error)
    assert "preprocess failed" in str(error)


def test_the_reason_is_found_where_the_version_of_the_run_is_gone(
    backend: tuple[Kubeflow, str], project: Path, bucket: str, tmp_path: Path
) -> None:
    kubeflow, host = backend
    (project / "boatyard.yaml").write_text(TEXT.replace("ROOT", bucket))
    (tmp_path / "log").write_text(f"{Reason.of('train', ValueError('loss is not finite')).line()}\n")
    storage.open(bucket).put("digits/run-0/train/uuid/executor-logs-0", tmp_path / "log")
    kubeflow.scenes = [("FAILED", {"train": "FAILED"})]
    kubeflow.fail["/pipelines/pipeline-0/versions/version-0"] = (404, "no such version")
    error, _, _ = submit(project, "--host", host)
    assert "loss is not finite" in str(error)


def test_two_compilations_of_one_project_are_one_version(tmp_path: Path) -> None:
    one, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text("# made today\na: 1\nb: {c: 2}\n---\nd: [1]\n")
    other.write_text("# made tomorrow\nb:\n  c: 2\na: 1\n---\nd:\n- 1\n")
    assert submitting.digest_spec(one) == submitting.digest_spec(other)
    other.write_text("a: 1\nb: {c: 2}\n---\nd: [2]\n")
    assert submitting.digest_spec(one) != submitting.digest_spec(other)


def test_a_page_is_told_where_there_is_one(
    backend: tuple[Kubeflow, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow, host = backend
    _, _, told = submit(project, "--host", host, "--no-follow")
    assert "in the Kubeflow UI among Runs, 'digits 20" in told and "BOATYARD_KUBEFLOW_UI" in told
    kubeflow.ui = "<!doctype html><html><title>Kubeflow Pipelines</title></html>"
    _, _, told = submit(project, "--host", host, "--no-follow")
    assert f"{host}/#/runs/details/run-1" in told
    monkeypatch.setenv("BOATYARD_KUBEFLOW_UI", "https://kubeflow.example/pipeline/")
    _, _, told = submit(project, "--host", host, "--no-follow")
    assert "https://kubeflow.example/pipeline/#/runs/details/run-2" in told
