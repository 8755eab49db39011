"""`boatyard runs --kubeflow` against the recorded answers of a real Kubeflow Pipelines backend, over real HTTP."""

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import kfp_server_api as kubeflow_api
import pytest
from click.testing import CliRunner
from kubeflow import Kubeflow, backend_of_recordings, serving

import boatyard
from boatyard import storage
from boatyard.__main__ import cli
from boatyard.data import artifacts
from boatyard.errors import BoatyardError, ConfigError, Refused, UsageError
from boatyard.pipelines import listing, submitting
from boatyard.running.reasons import Reason
from boatyard.running.results import MARK, RunResult

TEXT = "name: tabular\ndata: {source: csv, path: rows.csv}\n"
ROOT = "s3://boatyard/pipelines"  # of the recorded runs; the test's store has that bucket
RUNS = {  # of the pipeline `tabular`, the latest first
    "run-refused": "3453c558-a955-497e-8ee7-634705be585b",
    "run-succeeded-cached": "c4f8b3fe-bf42-48fe-a279-7f8def1512db",
    "run-succeeded": "97c52ebd-be79-48ac-87af-787028b1b21b",
    "run-terminated": "f0f3b056-0267-45a2-9edd-7ff475b9b9d3",
}
GATED = RunResult("accuracy", 0.975, 0.93, 0.9915, 0.95, True, "passed: accuracy is 0.975")
PUSHED = RunResult(version=3, uri="s3://models/registry/models/tabular/versions/3", digest="ab" * 32)


@pytest.fixture
def backend() -> Iterator[tuple[Kubeflow, str]]:
    kubeflow = backend_of_recordings()
    with serving(kubeflow) as host:
        yield kubeflow, host


@pytest.fixture(autouse=True)
def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BOATYARD_KUBEFLOW", "KF_PIPELINES_ENDPOINT", "BOATYARD_KUBEFLOW_TOKEN", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "boatyard.yaml").write_text(TEXT)
    return tmp_path


@pytest.fixture
def left(address: str, bucket: str, tmp_path: Path) -> Iterator[None]:
    """What the steps of the recorded runs would have left in the store."""
    done: list[str] = []

    def put(run: str, key: str, value: Any) -> None:
        file = tmp_path / "left"
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        storage.open(ROOT).put(f"tabular/{run}/{key}", file)
        done.append(f"tabular/{run}/{key}")

    for name in ("run-succeeded", "run-succeeded-cached"):
        put(RUNS[name], "results/gate.json", {**asdict(GATED), "of": "a later version"})
    put(RUNS["run-succeeded"], "results/push.json", asdict(PUSHED))
    log = f"begins\n{MARK}{json.dumps({'version': 4, 'uri': 'registry/4'})}\nends\n"
    put(RUNS["run-succeeded-cached"], "push/uuid/executor-logs-0", log)
    sentence = "refused: accuracy is 0.9750, expected 0.9999 or more"
    refused = RunResult("accuracy", 0.975, 0.93, 0.9915, 0.95, False, sentence)
    put(RUNS["run-refused"], "results/gate.json", asdict(refused))
    put(RUNS["run-refused"], "reasons/verdict.json", asdict(Reason.of("verdict", Refused(sentence))))
    yield
    storage.open(ROOT).delete(done)


def runs(*arguments: object) -> tuple[BaseException | None, str, str]:
    """Run the command in this process; return its error, and both its outputs."""
    found = CliRunner().invoke(cli, ["runs", *map(str, arguments)], standalone_mode=False)
    return found.exception, found.stdout, found.stderr


def listed(*arguments: object) -> list[dict[str, Any]]:
    error, said, _ = runs(*arguments, "--kubeflow", "--json")
    assert error is None, error
    value: list[dict[str, Any]] = json.loads(said)
    return value


def test_each_run_is_told_with_state_metric_version_and_reason(
    backend: tuple[Kubeflow, str], project: Path, left: None
) -> None:
    error, said, told = runs(project, "--kubeflow", "--host", backend[1])
    assert error is None and told == "", (error, told)
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == list(RUNS.values())
    assert [line.split("  ")[2].strip() for line in lines] == ["refused", "succeeded", "succeeded", "terminated"]
    refused, cached, succeeded, terminated = lines
    assert "297.0 s  tabular 2026-11-27 22:48:35  accuracy 0.9750 [0.9300, 0.9915]  refused: accuracy is" in refused
    assert "accuracy 0.9750 [0.9300, 0.9915]  version 4" in cached, "the log says what no object does"
    assert succeeded.split("  ")[1] == "2026-11-27 22:45:37"
    assert succeeded.endswith("135.0 s  tabular 2026-11-27 22:45:37  accuracy 0.9750 [0.9300, 0.9915]  version 3")
    assert "was terminated, while preprocess ran" in terminated and "version" not in terminated


def test_programs_get_every_field_with_its_type(backend: tuple[Kubeflow, str], project: Path, left: None) -> None:
    found = {run["run"]: run for run in listed(project, "--host", backend[1])}
    assert list(found) == list(RUNS.values())
    run = found[RUNS["run-succeeded"]]
    assert run.pop("steps") == dict.fromkeys(
        ("preprocess", "train", "evaluate", "gate", "push", "verdict"), "SUCCEEDED"
    )
    assert run == {
        "run": RUNS["run-succeeded"],
        "name": "tabular 2026-11-27 22:45:37",
        "pipeline": "tabular",
        "state": "succeeded",
        "created": "2026-11-27T22:45:37+00:00",
        "finished": "2026-11-27T22:47:52+00:00",
        "seconds": 135.0,
        "reason": "",
        "page": "",
        "result_read": True,
        **asdict(GATED),
        **{key: value for key, value in asdict(PUSHED).items() if value},
    }
    assert found[RUNS["run-succeeded-cached"]]["steps"]["train"] == "CACHED"
    assert found[RUNS["run-refused"]]["passed"] is False and found[RUNS["run-refused"]]["version"] is None
    assert all(value["result_read"] for value in found.values())


def test_where_the_root_cannot_be_read_it_is_said_once_and_the_rest_is_shown(
    backend: tuple[Kubeflow, str], project: Path
) -> None:
    error, said, told = runs(project, "--kubeflow", "--host", backend[1])
    assert error is None
    (line,) = told.splitlines()
    assert line.startswith(f"metric, version and reason of runs below {ROOT} are not known: the store's keys")
    states = [line.split("  ")[2].strip() for line in said.splitlines()]
    assert states == ["refused", "succeeded", "succeeded", "terminated"], "the nodes alone tell these apart"
    (run,) = listed(project, "--host", backend[1], "--limit", 1)
    assert run["result_read"] is False and run["version"] is None and run["metric"] == ""


def test_a_store_that_refuses_is_asked_once(
    backend: tuple[Kubeflow, str], project: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in backend[0].history:
        run["runtime_config"] = {"pipeline_root": "s3://not-there/root"}
    asked: list[str] = []
    read = listing.results.read
    monkeypatch.setattr(listing.results, "read", lambda run: (asked.append(run), read(run))[1])
    error, said, told = runs(project, "--kubeflow", "--host", backend[1])
    assert error is None and len(said.splitlines()) == len(RUNS) and len(asked) == 1
    assert told.count("expected bucket not-there, found none") == 1


def test_steps_are_shown_where_they_are_asked_for(backend: tuple[Kubeflow, str], project: Path) -> None:
    _, said, _ = runs(project, "--kubeflow", "--host", backend[1], "--steps", "--limit", 2)
    lines = said.splitlines()
    assert lines[1].split() == ["preprocess", "cached"] and "    verdict      failed" in lines
    assert sum(not line.startswith(" ") for line in lines) == 2


@pytest.mark.parametrize("size", [2, 20])
def test_every_page_is_read_until_there_are_enough(
    backend: tuple[Kubeflow, str], project: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    kubeflow, host = backend
    monkeypatch.setattr(submitting, "PAGE_RUNS", size)
    assert [run["run"] for run in listed(project, "--host", host)] == list(RUNS.values())
    assert kubeflow.asked.count("GET /runs") == -(-len(kubeflow.history) // size)
    kubeflow.asked.clear()
    assert [run["run"] for run in listed(project, "--host", host, "--limit", 1)] == list(RUNS.values())[:1]
    place = [run["run_id"] for run in kubeflow.history].index(RUNS["run-refused"])
    assert kubeflow.asked.count("GET /runs") == place // size + 1


def test_a_list_that_never_ends_ends(
    backend: tuple[Kubeflow, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow, host = backend
    page = kubeflow.history[:2]
    monkeypatch.setattr(kubeflow, "list_runs", lambda token, size: {"runs": page, "next_page_token": "again"})
    assert len(listed(project, "--host", host, "--all")) == 2
    pages = itertools.count()
    monkeypatch.setattr(kubeflow, "list_runs", lambda token, size: {"runs": page, "next_page_token": f"{next(pages)}"})
    assert len(listed(project, "--host", host, "--all")) == 2

    def endless(token: str, size: int) -> Any:
        return {"runs": [{"run_id": f"run-{next(pages)}"}], "next_page_token": f"{next(pages)}"}

    monkeypatch.setattr(kubeflow, "list_runs", endless)
    monkeypatch.setattr(listing, "MAX_LOOKED_RUNS", 7)
    (project / "boatyard.yaml").write_text(TEXT.replace("tabular", "no-such"))
    error, said, told = runs(project, "--kubeflow", "--host", host)
    assert error is None and "no runs on Kubeflow yet; `boatyard submit" in said
    assert "the latest 7 runs of the backend were looked at, older ones were not" in told


def test_other_pipelines_are_left_out_and_shown_with_all(backend: tuple[Kubeflow, str], project: Path) -> None:
    kubeflow, host = backend
    found = listed(project, "--host", host, "--all")
    assert [run["run"] for run in found] == [run["run_id"] for run in kubeflow.history]
    states = {run["name"].split()[0]: run["state"] for run in found}
    assert states["tabular-baddata"] == "failed" and states["tabular-workers"] == "running"
    assert states["tabular-wrongimage"] == "terminated" and states["tabular-deploy"] == "succeeded"
    (workers,) = [run for run in found if run["state"] == "running"]
    assert (workers["finished"], workers["seconds"]) == ("", None)


def test_a_backend_that_does_not_filter_hands_out_no_other_pipelines_runs(
    backend: tuple[Kubeflow, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow, host = backend
    everything = kubeflow_api.V2beta1ListPipelinesResponse(pipelines=[*kubeflow.pipelines.values()][::-1])
    monkeypatch.setattr(kubeflow, "list_pipelines", lambda name: everything)
    assert [run["run"] for run in listed(project, "--host", host)] == list(RUNS.values())


def test_a_list_without_nodes_is_filled_from_the_runs(backend: tuple[Kubeflow, str], project: Path) -> None:
    kubeflow, host = backend
    whole = listed(project, "--host", host)
    kubeflow.history_nodes = False
    assert listed(project, "--host", host) == whole


def test_a_run_that_was_not_picked_up_is_pending(backend: tuple[Kubeflow, str], project: Path) -> None:
    kubeflow, host = backend
    run = copy.deepcopy(kubeflow.history[0])
    reference = next(each for each in kubeflow.history if each["run_id"] == RUNS["run-succeeded"])
    run |= {"run_id": "new", "pipeline_version_reference": reference["pipeline_version_reference"]}
    for key in ("state", "run_details", "finished_at", "state_history"):
        run.pop(key, None)
    kubeflow.history.insert(0, run)
    first = listed(project, "--host", host)[0]
    assert (first["run"], first["state"], first["steps"], first["finished"]) == ("new", "pending", {}, "")
    assert "GET /runs/new" not in kubeflow.asked


STRANGE = [
    None,
    {},
    {"display_name": "nameless"},
    {"run_id": "bare"},
    {"run_id": "nulls", "state": None, "run_details": None, "state_history": None, "runtime_config": None},
    {"run_id": "old", "state": "FAILED", "pipeline_spec": {"workflow_manifest": "{}"}},
    {"run_id": "text", "state": "SUCCEEDED", "pipeline_spec": "}: no yaml"},
    {"run_id": "list", "state": "SUCCEEDED", "pipeline_spec": {"pipelineInfo": None}},
    {"run_id": "empty", "state": "FAILED", "run_details": {"task_details": None}, "pipeline_version_reference": {}},
    {"run_id": "nodes", "state": "FAILED", "run_details": {"task_details": [None, {"child_tasks": [None]}]}},
    {"run_id": "history", "state": "FAILED", "state_history": [None, {}], "runtime_config": {"pipeline_root": 5}},
    {"run_id": "new", "state": "OF_A_LATER_VERSION", "display_name": "two\nlines\tof it"},
]


def test_runs_that_lack_what_ours_have_hide_no_other(backend: tuple[Kubeflow, str], project: Path) -> None:
    kubeflow, host = backend
    kubeflow.history[2:2] = STRANGE
    assert [run["run"] for run in listed(project, "--host", host)] == list(RUNS.values())
    everyone = {run["run"]: run for run in listed(project, "--host", host, "--all", "--limit", 100)}
    assert {"bare", "nulls", "old", "text", "list", "empty", "nodes", "history"} <= everyone.keys()
    assert len(everyone) == len(kubeflow.history) - 3, "those without an id are none"
    assert (everyone["new"]["state"], everyone["new"]["name"]) == ("of_a_later_version", "two lines of it")
    assert everyone["bare"]["state"] == everyone["nulls"]["state"] == "pending"
    assert everyone["old"]["state"] == everyone["empty"]["state"] == "failed"
    assert "boatyard why run/old" in everyone["old"]["reason"] and everyone["old"]["created"] == ""
    error, said, _ = runs(project, "--kubeflow", "--host", host, "--all", "--limit", 100, "--steps")
    assert error is None and "bare" in said


def test_a_run_of_a_spec_without_a_version_is_of_the_pipeline_that_the_spec_names(
    backend: tuple[Kubeflow, str], project: Path
) -> None:
    kubeflow, host = backend
    for number, name in enumerate(("tabular", "other")):
        spec = {"pipeline_spec": {"pipelineInfo": {"name": name}}, "platform_spec": {}}
        kubeflow.history.insert(0, {"run_id": f"spec-{number}", "state": "SUCCEEDED", "pipeline_spec": spec})
    found = [run["run"] for run in listed(project, "--host", host)]
    assert found == ["spec-0", *RUNS.values()]


def test_a_verdict_step_that_fails_though_the_gate_passed_is_no_refusal(
    backend: tuple[Kubeflow, str], project: Path, left: None, tmp_path: Path
) -> None:
    for passed, state in ((True, "failed"), (False, "refused")):
        (tmp_path / "gate").write_text(json.dumps({"passed": passed, "verdict": "refused: too few rows"}))
        place = storage.open(f"{ROOT}/tabular/{RUNS['run-refused']}")
        place.put("results/gate.json", tmp_path / "gate")
        place.delete(["reasons/verdict.json"])
        first = listed(project, "--host", backend[1], "--limit", 1)[0]
        assert first["state"] == state, first
        assert first["reason"].startswith("verdict failed" if passed else "refused: too few rows")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/runs", 500, "cannot list the runs: .* failed \\(500\\): broken"),
        (
            "/pipelines",
            403,
            "cannot look for the pipeline tabular: .*without a login \\(403\\).*BOATYARD_KUBEFLOW_TOKEN",
        ),
        ("/healthz", 404, "knows nothing there \\(404\\)"),
    ],
)
def test_what_the_api_server_refuses_is_one_line(
    backend: tuple[Kubeflow, str], project: Path, path: str, status: int, said: str
) -> None:
    kubeflow, host = backend
    kubeflow.fail[path] = (status, "broken")
    error, _, _ = runs(project, "--kubeflow", "--host", host)
    with pytest.raises(submitting.BackendError, match=said):
        raise error or AssertionError
    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["--kubeflow"], ConfigError, "expected the URL of the Kubeflow Pipelines API, found none; give --host"),
        (["--kubeflow", "--host", "http://127.0.0.1:9"], submitting.BackendError, "found no answer"),
        (["--host", "http://127.0.0.1:9"], UsageError, "--host is an option of --kubeflow"),
        (["--all"], UsageError, "--all is an option of --kubeflow"),
    ],
)
def test_a_wrong_question_is_one_line(
    project: Path, arguments: list[str], kind: type[BoatyardError], said: str
) -> None:
    error, _, _ = runs(project, *arguments)
    if kind is UsageError:
        assert error is not None and said in str(error)
        return
    with pytest.raises(kind, match=said):
        raise error or AssertionError


def test_a_time_that_is_none_is_said_in_one_line(backend: tuple[Kubeflow, str], project: Path) -> None:
    backend[0].history[0]["created_at"] = "yesterday"
    error, _, _ = runs(project, "--kubeflow", "--host", backend[1])
    assert "answers what is no Pipelines API (Failed to parse `yesterday` as datetime" in str(error)


def test_a_login_page_is_seen_for_what_it_is(backend: tuple[Kubeflow, str], project: Path) -> None:
    backend[0].page = "<!DOCTYPE html><html><body>Log in to Dex</body></html>"
    error, _, _ = runs(project, "--kubeflow", "--host", backend[1])
    assert "found a web page, as a login is; set BOATYARD_KUBEFLOW_TOKEN" in str(error)


def test_a_backend_without_runs_has_none(backend: tuple[Kubeflow, str], project: Path) -> None:
    backend[0].history.clear()
    assert listed(project, "--host", backend[1]) == []
    with pytest.raises(UsageError, match="limit: expected 1 or more, found 0"):
        boatyard.kubeflow_runs(project, host=backend[1], limit=0)


def test_the_function_returns_what_the_command_prints(backend: tuple[Kubeflow, str], project: Path, left: None) -> None:
    told: list[str] = []
    found = boatyard.kubeflow_runs(project, host=backend[1], say=told.append)
    assert [run.to_dict() for run in found] == listed(project, "--host", backend[1]) and told == []
    assert found[2].result and found[2].result.version == 3 and found[2].result.headline().startswith("accuracy 0.9750")
    assert artifacts.json_bytes([run.to_dict() for run in found])
