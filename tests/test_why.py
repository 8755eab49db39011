"""Why: each diagnosis against what was read of a real cause (snapshots/, written by tests/cluster/test_why.py)."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import steps
from apiserver import ApiServer, api_server
from causes import CASES
from click.testing import CliRunner, Result

from boatyard import diagnosis, storage
from boatyard.__main__ import cli
from boatyard.diagnosis import CAUSES, ObjectReference, Right, Snapshot
from boatyard.diagnosis import runs as ended
from boatyard.diagnosis.gathering import LABELS
from boatyard.diagnosis.snapshot import asked_of, quantity, shown
from boatyard.errors import BoatyardError
from boatyard.kubernetes.kinds import KINDS as known_kinds
from boatyard.pipelines import local
from boatyard.running import reasons, runs
from boatyard.running.display import Silence
from boatyard.running.reasons import Reason
from boatyard.running.runs import Run

FOLDER = Path(__file__).parent / "snapshots"
ROOT = Path(__file__).parents[1]
Object = dict[str, Any]


def read(name: str) -> Snapshot:
    return Snapshot.from_dict(json.loads((FOLDER / f"{name}.json").read_text()))


def changed(name: str, change: Callable[[Object], object]) -> Snapshot:
    """Return a snapshot whose objects were changed."""
    snapshot = read(name)
    objects = deepcopy(snapshot.objects)
    for each in objects:
        change(each)
    return replace(snapshot, objects=objects)


def replaced(name: str, old: str, new: str) -> Snapshot:
    """Return a snapshot in which a text is another."""
    text = (FOLDER / f"{name}.json").read_text()
    assert old in text
    return Snapshot.from_dict(json.loads(text.replace(old, new)))


def cause(snapshot: Snapshot) -> str | None:
    found: str | None = diagnosis.diagnose(snapshot).values()["cause"]
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_real_cause_is_named(name: str) -> None:
    case, answer = CASES[name], diagnosis.diagnose(read(name))
    assert case.fits(answer.values()["cause"], answer.sentence), answer.values()
    assert "\n" not in answer.sentence and len(answer.sentence) < 1000
    for each in answer.diagnoses:
        assert each.fix and all(one.where and one.text for one in each.evidence) and each.evidence


def test_every_snapshot_has_its_case() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(CASES)


def test_no_snapshot_holds_a_value_of_an_environment() -> None:
    for file in FOLDER.glob("*.json"):
        text = file.read_text()
        assert "boatyard-secret" not in text and '"value": "s3' not in text


@pytest.mark.parametrize("name", CASES)
def test_whatever_is_missing_of_a_snapshot_nothing_breaks(name: str) -> None:
    snapshot = read(name)
    for index, each in enumerate(snapshot.objects):
        rest = snapshot.objects[:index] + snapshot.objects[index + 1 :]
        diagnosis.diagnose(replace(snapshot, objects=rest))
        bare = {**each, "status": {}}
        diagnosis.diagnose(replace(snapshot, objects=(*rest, bare)))
    diagnosis.diagnose(replace(snapshot, objects=(), logs=()))


def test_a_snapshot_is_the_same_when_read_again() -> None:
    snapshot = read("revision")
    assert Snapshot.from_dict(json.loads(json.dumps(snapshot.to_dict()))) == snapshot


def test_the_deepest_cause_wins() -> None:
    """A container killed for memory also crashes and fails its probe; none of these is said first."""
    order = list(dict.fromkeys(each.name for each in CAUSES))
    for deep, shallow in (
        ("oom-killed", "crash-loop"), ("model-refused", "crash-loop"), ("crash-loop", "probe"), ("quota", "starting"),
        ("gpu-name", "unschedulable"), ("taint", "unschedulable"), ("image-pull", "rollout"), ("probe", "hpa-metrics"),
    ):  # fmt: skip
        assert order.index(deep) < order.index(shallow)
    both = read("oom")
    crashing = read("crash")
    merged = replace(both, objects=(*crashing.objects, *both.objects), logs=(*crashing.logs, *both.logs))
    assert [each.cause for each in diagnosis.diagnose(merged).diagnoses] == ["oom-killed", "crash-loop"]


def test_the_last_measured_use_is_said_where_there_is_one() -> None:
    snapshot = read("oom")
    (pod,) = snapshot.pods
    used = {"containers": [{"name": "kserve-container", "usage": {"memory": "63Mi"}}]}
    measured = {"kind": "PodMetrics", "metadata": {"name": pod["metadata"]["name"]}, **used}
    sentence = diagnosis.diagnose(replace(snapshot, objects=(*snapshot.objects, measured))).sentence
    assert "its limit is 64Mi, and it used 63Mi when it was last measured" in sentence


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("registry.example/x:1: not found", "no such image or tag"),
        ("pull access denied, authorization failed: 401 Unauthorized", "requires credentials"),
        ("dial tcp: lookup r.example: no such host", "does not answer"),
    ],
)
def test_what_a_registry_answers_is_told_apart(said: str, why: str) -> None:
    def change(each: Object) -> None:
        if each["kind"] == "Event" and "pull image" in each.get("message", ""):
            each["message"] = f"Failed to pull image: {said}"
        for status in each.get("status", {}).get("containerStatuses", []) if each["kind"] == "Pod" else []:
            status["state"]["waiting"] = {"reason": "ImagePullBackOff", "message": said}

    assert why in diagnosis.diagnose(changed("image", change)).sentence


def test_a_resource_that_others_have_taken_is_not_one_that_no_node_has() -> None:
    def change(each: Object) -> None:
        if each["kind"] == "Node":
            each["status"]["allocatable"] = {"cpu": "1000"}
            each["asked"] = {"cpu": 999.0}

    answer = diagnosis.diagnose(changed("cpu", change))
    assert answer.values()["cause"] == "unschedulable"
    assert "others have taken it" in answer.sentence
    assert any("999 of it asked for" in each.text for each in answer.diagnoses[0].evidence)


def test_without_the_nodes_nothing_is_claimed_of_them() -> None:
    snapshot = read("cpu")
    hidden = replace(snapshot, objects=tuple(each for each in snapshot.objects if each["kind"] != "Node"))
    assert "it asks for 900 cpu, and no node has it, or has it left" in diagnosis.diagnose(hidden).sentence


def test_a_gpu_that_no_node_has_is_a_missing_device_plugin() -> None:
    def change(each: Object) -> None:
        if each["kind"] == "Node":
            each["status"]["allocatable"] = {"cpu": "2", "memory": "4Gi"}

    answer = diagnosis.diagnose(changed("gpus", change))
    assert answer.values()["cause"] == "gpu-name"
    assert "device plugin" in answer.diagnoses[0].fix


def test_a_taint_that_the_pod_stands_is_not_why() -> None:
    def change(each: Object) -> None:
        if each["kind"] == "Pod":
            each["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]

    assert cause(read("taint")) == "taint"
    assert cause(changed("taint", change)) == "unschedulable"


def test_a_webhook_that_does_not_answer_is_named() -> None:
    denied = 'denied the request: ClusterStorageContainer \\"not-there\\" not found'
    away = 'failed calling webhook \\"pods.example.com\\": connection refused'
    snapshot = replaced("webhook", denied, away)
    assert "the webhook pods.example.com, which has to admit" in diagnosis.diagnose(snapshot).sentence


def test_a_quota_that_wants_a_limit_to_be_said_is_a_quota() -> None:
    def change(each: Object) -> None:
        for one in each.get("status", {}).get("conditions", []):
            if one["type"] == "ReplicaFailure":
                one["message"] = 'pods "x" is forbidden: failed quota: small: must specify limits.cpu for: c'

    answer = diagnosis.diagnose(changed("quota", change))
    assert answer.values()["cause"] == "quota"
    assert "small: must specify limits.cpu" in answer.sentence


def test_a_kind_that_the_cluster_does_not_know_is_the_first_to_be_said() -> None:
    subject = ObjectReference("InferenceService", "digits", "boatyard")
    snapshot = Snapshot(subject, "2026-01-01T00:00:00+00:00", (), absent=("InferenceService",))
    assert diagnosis.diagnose(snapshot).sentence == (
        "this cluster does not know the kind InferenceService: KServe is not installed"
    )


def test_what_is_not_there_is_told_from_what_may_not_be_read() -> None:
    snapshot = Snapshot(ObjectReference("Pod", "x", "ns"), "2026-01-01T00:00:00+00:00", ())
    assert cause(snapshot) == "not-found"
    assert cause(replace(snapshot, rights=(Right("get", "Pod", "u may not get pods"),))) == "no-rights"


def test_metrics_that_are_only_late_are_not_a_fault() -> None:
    late = "failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)"

    def change(each: Object) -> None:
        for one in each.get("status", {}).get("conditions", []) if each["kind"] == "HorizontalPodAutoscaler" else []:
            one["message"] = late

    snapshot = changed("hpa", change)
    (pod,) = snapshot.pods
    assert cause(replace(snapshot, taken=pod["metadata"]["creationTimestamp"])) != "hpa-metrics"
    assert cause(replace(snapshot, taken="2030-01-01T00:00:00+00:00")) == "hpa-metrics"


def test_an_old_end_of_a_container_that_runs_well_is_no_news() -> None:
    def change(each: Object) -> None:
        for status in each.get("status", {}).get("containerStatuses", []) if each["kind"] == "Pod" else []:
            ended = status["state"].get("terminated") or status["lastState"]["terminated"]
            status |= {"ready": True, "started": True, "restartCount": 1, "lastState": {"terminated": ended}}
            status["state"] = {"running": {"startedAt": ended["finishedAt"]}}
        for one in each.get("status", {}).get("conditions", []):
            one["status"] = "True"

    snapshot = changed("oom", change)
    assert cause(snapshot) == "oom-killed"
    assert cause(replace(snapshot, taken="2030-01-01T00:00:00+00:00")) is None


def test_quantities_are_read_and_written_as_people_do() -> None:
    assert [quantity(each) for each in ("10m", "2", "64Mi", "1e3", "nonsense")] == [0.01, 2, 2**26, 1000, 0]
    assert [shown(2**30 * 1.5, "memory"), shown(0.25, "cpu"), shown(4, "nvidia.com/gpu")] == ["1.5Gi", "250m", "4"]
    limits = {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]}
    assert asked_of({"spec": limits}, "nvidia.com/gpu") == 2


def run_of(folder: Path, compile_: Any, *arguments: Any) -> Run:
    """Run a pipeline here to its bad end and return its record."""
    run = runs.new("test", folder)
    compile_(run.spec, *arguments)
    with pytest.raises(BoatyardError):
        local.execute(run, folder, Silence())
    return runs.read(run.path)


def test_a_failed_run_here_names_its_step_and_reason(tmp_path: Path) -> None:
    mark = tmp_path / "fail"
    mark.touch()
    run = run_of(tmp_path, steps.two, "a", str(mark))
    done = why(f"run/{run.id}", "--project", str(tmp_path))
    assert done.exit_code == 1
    assert f"step double of run {run.id} failed: ValueError: told to fail by" in done.output
    assert str(run.log("double")) in done.output
    assert f"--resume --run {run.id}" in done.output


def test_a_refused_run_is_no_fault(tmp_path: Path) -> None:
    run = run_of(tmp_path, steps.one, "refuse")
    (found,) = ended.of_local(run, tmp_path).diagnoses
    assert found.cause == "run-refused"
    assert "accuracy is 0.1, 0.9 was wanted" in found.sentence


def test_a_run_that_was_killed_says_how_to_go_on(tmp_path: Path) -> None:
    run = runs.new("test", tmp_path)
    run = replace(run, process=2**22 + 1).write()
    done = why(run.id, "--project", str(tmp_path))
    assert done.exit_code == 1
    assert "was interrupted: its process ended without a word" in done.output


def test_a_run_that_succeeded_is_well(tmp_path: Path) -> None:
    run = runs.new("test", tmp_path).end("succeeded")
    done = why(f"run/{run.id}", "--project", str(tmp_path), "--json")
    assert done.exit_code == 0
    assert json.loads(done.output)["healthy"] is True


def test_a_run_on_kubeflow_is_explained_by_what_its_step_left(bucket: str, tmp_path: Path) -> None:
    reason = Reason.of("train", ValueError("no column named price"))
    (tmp_path / "log").write_text(f"reading\n{reason.line()}\n")
    storage.open(bucket).put("digits/run-1/train/uuid/executor-logs-0", tmp_path / "log")
    (tmp_path / "boatyard.yaml").write_text(SAMPLE + f"kubeflow: {{root: {bucket}}}\n")
    done = why("run/run-1", "--project", str(tmp_path))
    assert done.exit_code == 1, done.output
    assert "step train of run/run-1 failed: ValueError: no column named price" in done.output
    assert f"{bucket}/digits/run-1/train/uuid/executor-logs-0" in done.output


SAMPLE = "name: digits\ndata: {source: csv, path: d.csv, target: y}\ntrain: {recipe: mlp}\n"


def pod_of(run: str, name: str, namespace: str) -> Object:
    labels = {"pipeline/runid": run}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    meta = {"name": name, "namespace": namespace, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"kind": "Pod", "metadata": meta, "spec": {"containers": []}, "status": status}


def put(server: ApiServer, cluster: Any, *objects: Object, of: ObjectReference | None = None) -> None:
    """Put objects where an API server has them; recorded ones get the label back by which they are found."""
    for each in objects:
        if each["kind"] in known_kinds:
            labels = {**each["metadata"].get("labels", {}), **({LABELS[of.kind]: of.name} if of else {})}
            named = {**each, "metadata": {"namespace": "models", **each["metadata"], "labels": labels}}
            path = cluster.path(each["kind"], named["metadata"]["namespace"], named["metadata"]["name"])
            server.objects[path] = named


def test_a_run_that_waits_for_its_trainjob_says_what_that_waits_for() -> None:
    recorded_ = read("train-gpus")
    with api_server(lambda digest, body: []) as (server, cluster):
        put(server, cluster, pod_of("run-7", "train-main", "kubeflow"))
        put(server, cluster, *recorded_.objects, of=recorded_.subject)
        subject = ObjectReference("Run", "run-7", diagnosis.namespace_of(cluster, "run-7", "default"))
        assert subject.namespace == "kubeflow"
        assert diagnosis.diagnose_run(cluster, subject).healthy
        for path, value in server.objects.items():
            if value["kind"] == "TrainJob":
                labels = {**value["metadata"].get("labels", {}), "boatyard/run": "run-7"}
                server.objects[path] = {**value, "metadata": {**value["metadata"], "labels": labels}}
        answer = diagnosis.diagnose_run(cluster, subject)
    alone = diagnosis.diagnose(recorded_)
    assert answer.values()["cause"] == alone.values()["cause"]
    assert answer.sentence.startswith(f"run/run-7 waits for {recorded_.subject} in {recorded_.subject.namespace}: ")
    assert alone.sentence in answer.sentence


def test_a_run_that_waits_for_its_endpoint_says_what_that_waits_for() -> None:
    recorded_ = read("image")
    space, name = recorded_.subject.namespace, recorded_.subject.name
    holder = {"holderIdentity": "10001@deploy-main/7-1234"}
    meta = {"name": f"boatyard-{name}", "namespace": space, "labels": {"app.kubernetes.io/managed-by": "boatyard"}}
    lease = {"kind": "Lease", "metadata": meta, "spec": holder}
    with api_server(lambda digest, body: []) as (server, cluster):
        put(server, cluster, pod_of("run-7", "deploy-main", "kubeflow"), lease)
        put(server, cluster, *recorded_.objects, of=recorded_.subject)
        subject = ObjectReference("Run", "run-7", "kubeflow")
        answer = diagnosis.diagnose_run(cluster, subject)
        assert answer.values()["cause"] == "image-pull", answer.values()
        assert f"run/run-7 waits for isvc/{name} in {space}: " in answer.sentence
        server.objects[cluster.path("Lease", space, meta["name"])]["spec"] = {"holderIdentity": "me@laptop/1-2"}
        assert diagnosis.diagnose_run(cluster, subject).healthy


def test_a_log_of_a_run_without_a_marked_line_is_no_reason(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("all is well\n")
    storage.open(bucket).put("digits/run-2/train/uuid/executor-logs-0", tmp_path / "log")
    answer = ended.of_kubeflow(ObjectReference("Run", "run-2", "kubeflow"), reasons.find(bucket, "run-2"))
    assert answer.diagnoses == ()


@pytest.mark.parametrize("target", ["ship/x", "isvc/"])
def test_a_wrong_target_is_wrong_usage(target: str) -> None:
    assert why(target).exit_code == 2


def test_without_a_cluster_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    done = why("isvc/x")
    assert "no cluster" in str(done.exception)
    assert isinstance(done.exception, BoatyardError)


def why(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["why", *arguments])


def test_the_page_has_a_row_for_every_cause() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "causes.py"))["page"]
    assert (ROOT / "docs" / "why.md").read_text() == page(), "run: python docs/causes.py"
