"""The TrainJob of a project, and what a caller is told of one; what Kubernetes does is tested on Kubernetes."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver import api_server

from boatyard import errors, project
from boatyard.data import artifacts
from boatyard.pipelines import training
from boatyard.project import GateConfig, GpuConfig, PreprocessConfig, StepConfig, TolerationConfig, TrainConfig
from boatyard.settings import Settings
from boatyard.training import node, trainjobs
from boatyard.training.launchers import trainjob as launching
from boatyard.training.loop import Diverged
from boatyard.training.trainjobs import TrainingJob, TrainJobFollower, following

JOB = TrainingJob({"nodes": 2}, {}, {}, "s3://b/f/dataset", "s3://b/f/checkpoint", "pvc://shared/f/work")
POD = StepConfig(cpu="1500m", memory="4Gi", timeout="2h", secrets={"AWS_SECRET_ACCESS_KEY": "store/key"})


def made(config: TrainConfig, pod: StepConfig = POD) -> dict[str, Any]:
    settings = Settings(image="boatyard/train:1", endpoint="http://store:9000", patience=90)
    return trainjobs.manifest("flowers-1", JOB, config, pod, namespace="here", settings=settings)


def test_two_nodes_with_a_gpu_each_are_this_trainjob() -> None:
    found = made(TrainConfig(nodes=2, gpus=1, claim="shared"))
    assert found["metadata"]["name"] == "flowers-1" and found["metadata"]["namespace"] == "here"
    assert found["spec"]["runtimeRef"]["name"] == "boatyard" and found["spec"]["activeDeadlineSeconds"] == 7200
    assert found["spec"]["trainer"] == {
        "image": "boatyard/train:1",
        "command": ["tini", "--", "python", "-m", "boatyard.training.node"],
        "args": [JOB.to_json()],
        "numNodes": 2,
        "numProcPerNode": 1,
        "resourcesPerNode": {
            "requests": {"cpu": "1500m", "memory": "4Gi"},
            "limits": {"memory": "4Gi", "nvidia.com/gpu": 1},
        },
        "env": [
            {"name": "BOATYARD_THREADS", "value": "2"},
            {"name": "BOATYARD_IMAGE", "value": "boatyard/train:1"},
            {"name": "BOATYARD_CLAIMS", "value": "/mnt/pvc"},
            {"name": "BOATYARD_PATIENCE", "value": "90"},
            {"name": "AWS_ENDPOINT_URL", "value": "http://store:9000"},
            {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "store", "key": "key"}}},
        ],
    }


def pod_of(found: dict[str, Any]) -> dict[str, Any]:
    (patch,) = found["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return {"manager": patch["manager"], "job": job["name"], **job["template"]["spec"]["template"]["spec"]}


def test_a_pod_mounts_the_claim_and_stands_where_it_may() -> None:
    stands = {"node_selector": {"zone": "a"}, "tolerations": (TolerationConfig(key="spot"),)}
    pod = POD.model_copy(update={**stands, "volumes": {"/data": "rows", "/more": "shared"}})
    found = pod_of(made(TrainConfig(nodes=2, gpus=2, claim="shared"), pod))
    assert "/" in found["manager"] and found["job"] == "node" and found["serviceAccountName"] == "boatyard-training"
    names = {each["persistentVolumeClaim"]["claimName"]: each["name"] for each in found["volumes"]}
    mounts = {each["mountPath"]: each["name"] for each in found["containers"][0]["volumeMounts"]}
    assert mounts == {"/data": names["rows"], "/more": names["shared"], "/mnt/pvc/shared": names["shared"]}
    assert found["nodeSelector"] == {"zone": "a"}
    assert [each["key"] for each in found["tolerations"]] == ["spot", "nvidia.com/gpu"]


def test_several_gpus_are_several_processes_of_another_make_as_well() -> None:
    pod = POD.model_copy(update={"gpu": GpuConfig(type="amd.com/gpu")})
    found = made(TrainConfig(nodes=2, gpus=4), pod)["spec"]["trainer"]
    assert found["numProcPerNode"] == 4 and found["resourcesPerNode"]["limits"]["amd.com/gpu"] == 4


def test_a_job_comes_through_its_argument() -> None:
    assert TrainingJob.from_json(JOB.to_json()) == JOB
    with pytest.raises(errors.ConfigError, match=r"expected a job as boatyard writes it, found"):
        TrainingJob.from_json('{"train": {}}')


def test_a_name_follows_from_what_the_result_depends_on_and_is_one_that_kubernetes_takes() -> None:
    def name(project: str = "flowers", code: str = "", **dials: Any) -> str:
        config = TrainConfig(nodes=2, **dials)
        return trainjobs.name_of(project, config, PreprocessConfig(), GateConfig(), "0" * 64, "image", code)

    assert name() == name() != name(epochs=9)
    assert name(code="a") == name(code="a") not in (name(), name(code="b"))
    assert len(name("a" * 53) + "-node-0-10-abcde") <= 63 and name("a" * 53).startswith("aaa")


def test_the_code_of_an_own_recipe_is_in_the_name_and_is_not_imported(tmp_path: Path) -> None:
    config = TrainConfig(nodes=2, recipe="own:R")
    found = []
    for text in ("raise SystemExit", "raise SystemExit  # changed", "raise SystemExit"):
        (tmp_path / "own.py").write_text(text)
        found.append(launching._code(config, tmp_path))
    assert found[0] == found[2] != found[1]
    assert launching._code(TrainConfig(nodes=2), tmp_path) == ""


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"gpus": 1}, "gpus 1 on nodes 1 is one process; give resources.train.gpu, or more nodes"),
        ({"nodes": 9, "batch_size": 8}, "9 processes share a batch of 8 rows; give a greater batch_size"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(dials: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        project.section(TrainConfig, dials)


def sealed(path: Path, text: str = "rows") -> Path:
    path.mkdir(parents=True)
    (path / "part").write_text(text)
    artifacts.seal(path, "thing", {})
    return path


def test_folders_pass_through_a_claim_that_is_mounted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("BOATYARD_CLAIMS", str(tmp_path / "claims"))
    (tmp_path / "claims" / "shared").mkdir(parents=True)
    trainjobs.put(sealed(tmp_path / "data"), "pvc://shared/f/dataset", "thing")
    trainjobs.bring("pvc://shared/f/dataset", tmp_path / "back", "thing")
    assert (tmp_path / "back" / "part").read_text() == "rows"
    (tmp_path / "claims" / "shared" / "f" / "dataset" / "part").write_text("tampered")
    with pytest.raises(errors.ArtifactError, match="part"):
        trainjobs.bring("pvc://shared/f/dataset", tmp_path / "back", "thing")
    assert (tmp_path / "back" / "part").read_text() == "rows"


def test_a_claim_that_is_not_mounted_here_says_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("BOATYARD_CLAIMS", str(tmp_path))
    with pytest.raises(errors.ConfigError, match=r"not reached from here; mount the claim, or give train\.storage=s3"):
        trainjobs.put(sealed(tmp_path / "data"), "pvc://shared/f/dataset", "thing")


# the pipeline


def compiled(tmp_path: Path, found: project.Project) -> dict[str, Any]:
    import yaml

    from boatyard.pipelines import training

    training.compile(found, tmp_path / "spec.yaml")
    spec, *rest = yaml.safe_load_all((tmp_path / "spec.yaml").read_text())
    platform = rest[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"] if rest else {}
    return {
        "inputs": spec["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"],
        "section": spec["root"]["inputDefinitions"]["parameters"]["train"]["defaultValue"],
        "container": spec["deploymentSpec"]["executors"]["exec-train"]["container"],
        "claims": [mount["mountPath"] for mount in platform.get("pvcMount", [])],
    }


TWO: dict[str, Any] = {
    "name": "flowers",
    "data": {"source": "csv", "path": "flowers.csv"},
    "train": {"nodes": 2, "gpus": 1, "claim": "shared"},
    "resources": {"train": {"memory": "64Gi", "secrets": {"KEY": "store/key"}}},
    "kubeflow": {"node_selector": {"zone": "a"}},
}


def test_a_pipelines_step_starts_the_pods_and_asks_for_little_itself(tmp_path: Path) -> None:
    found = compiled(tmp_path, project.check(TWO, "here"))
    asked = found["inputs"]["pod"]["runtimeValue"]["constant"]
    assert asked["memory"] == "64Gi" and asked["secrets"] == {"KEY": "store/key"}
    assert asked["node_selector"] == {"zone": "a"}
    assert found["inputs"]["name"] == {"componentInputParameter": "name"}
    assert "accelerator" not in found["container"]["resources"]
    assert found["container"]["resources"]["resourceMemoryRequest"] == "1Gi"
    assert found["claims"] == ["/mnt/pvc/shared"]


def test_a_machine_of_its_own_trains_with_one_process(tmp_path: Path) -> None:
    found = compiled(tmp_path, project.check(TWO, "here").here())
    assert found["section"]["nodes"] == 1 and found["section"]["gpus"] == 0
    assert "pod" not in found["inputs"] and found["claims"] == []


# following


@dataclass
class FakeCluster:
    """Objects by kind and name, and what pods say."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    away: bool = False
    applied: list[bool] = field(default_factory=list)  # for each, whether there was none

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        if self.away:
            raise errors.Unreachable("no answer")
        return self.objects.get(kind, {}).get(name)

    def list(self, kind: str, namespace: str | None = None, labels: Any = None) -> list[dict[str, Any]]:
        return list(self.objects.get(kind, {}).values())

    def apply(self, manifest: dict[str, Any]) -> None:
        complete = {"conditions": [{"type": "Complete", "status": "True"}]}
        named = self.objects.setdefault(manifest["kind"], {})
        self.applied.append(manifest["metadata"]["name"] not in named)
        named[manifest["metadata"]["name"]] = {**manifest, "status": complete}

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        self.objects[kind].pop(name, None)

    def follow(self, pod: str, namespace: str, container: str) -> Iterator[str]:
        yield f"{pod} trains"


def pod(node: int, **status: Any) -> dict[str, Any]:
    labels = {trainjobs.INDEX_LABEL: str(node)}
    return {"metadata": {"name": f"p{node}", "uid": f"u{node}{status}", "labels": labels}, "status": status}


def terminated(code: int, message: str) -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"terminated": {"exitCode": code, "message": message}}}]}


def job(kind: str) -> dict[str, Any]:
    return {"j": {"status": {"conditions": [{"type": kind, "status": "True", "message": "jobset failed"}]}}}


def followed(cluster: FakeCluster) -> tuple[TrainJobFollower, list[str]]:
    said: list[str] = []
    return TrainJobFollower(cluster, "j", "here", said.append), said  # type: ignore[arg-type]


def test_what_each_node_says_and_why_one_waits_is_said_once() -> None:
    waits = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: Insufficient cpu"}
    cluster = FakeCluster({"TrainJob": {"j": {"status": {}}}, "Pod": {"0": pod(0, conditions=[waits])}})
    follower, said = followed(cluster)
    assert not follower.ended() and not follower.ended()
    assert said == ["node 0 waits: 0/1 nodes are available: Insufficient cpu"]
    cluster.objects["TrainJob"] = job("Complete")
    cluster.objects["Pod"] = {str(n): pod(n, containerStatuses=[{"state": {"running": {}}}]) for n in (0, 1)}
    assert follower.ended()
    follower.finish()
    assert sorted(said[1:]) == ["node 0 | p0 trains", "node 1 | p1 trains"]


@pytest.mark.parametrize(
    ("ended", "own", "anew"),
    [("Complete", False, False), ("Complete", True, True), ("Failed", False, True), ("Running", True, False)],
)
def test_a_trainjob_that_ended_is_run_again_where_it_failed_or_only_its_pods_see_the_recipe(
    ended: str, own: bool, anew: bool
) -> None:
    cluster, said = FakeCluster({"TrainJob": job(ended)}), list[str]()
    manifest = {"kind": "TrainJob", "metadata": {"name": "j", "namespace": "here"}}
    trainjobs.follow(cluster, {**manifest, "spec": {"trainer": {"numNodes": 2}}}, say=said.append, own=own)  # type: ignore[arg-type]
    assert cluster.applied == [anew]
    assert any("goes on from its last state" in line for line in said) == anew


def test_a_failure_is_the_error_that_the_pod_named() -> None:
    pods = {"0": pod(0, **terminated(78, "rank 0: ConfigError: train: the loss is nan; try less"))}
    follower, _ = followed(FakeCluster({"TrainJob": job("Failed"), "Pod": pods}))
    assert follower.ended()
    with pytest.raises(errors.ConfigError, match=r"^train: the loss is nan; try less$"):
        follower.finish()


def test_a_failure_that_nobody_named_is_the_clusters() -> None:
    follower, _ = followed(FakeCluster({"TrainJob": job("Failed")}))
    assert follower.ended()
    with pytest.raises(errors.ClusterError, match="trainjob/j failed: jobset failed; see boatyard why trainjob/j"):
        follower.finish()


def test_a_restart_is_said_with_its_reason() -> None:
    cluster = FakeCluster({"TrainJob": {"j": {"status": {}}}, "Pod": {"1": pod(1, **terminated(1, "rank 1: killed"))}})
    follower, said = followed(cluster)
    follower.ended()
    cluster.objects |= {"JobSet": {"j": {"status": {"restarts": 1}}}, "Pod": {}}
    follower.ended()
    assert said[-1] == "trainjob/j: start 2 (node 1 ended with 1: rank 1: killed)"


def test_an_api_server_that_is_away_is_waited_for_and_then_given_up(monkeypatch: Any) -> None:
    cluster = FakeCluster({"TrainJob": job("Complete")}, away=True)
    follower, said = followed(cluster)
    assert not follower.ended() and not follower.ended() and said == ["no answer; waiting"]
    cluster.away = False
    assert follower.ended()
    cluster.away = True
    monkeypatch.setattr(following, "UNREACHABLE_TIMEOUT_S", -1.0)
    with pytest.raises(errors.Unreachable):
        follower.ended()


def test_a_trainjob_that_somebody_deleted_is_said() -> None:
    follower, _ = followed(FakeCluster())
    with pytest.raises(errors.ConfigError, match="trainjob/j was deleted by another; its states are kept"):
        follower.ended()


# the pod


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Interrupted("saved"), 75),
        (errors.PeerLost("gone"), 1),
        (errors.StorageError("full"), 1),
        (errors.ConfigError("nan"), 78),
        (errors.DataError("none"), 78),
    ],
)
def test_an_exit_code_says_whether_starting_again_may_help(error: errors.BoatyardError, code: int) -> None:
    assert node.code_of(error) == code


def test_a_process_leaves_its_last_words_where_torchrun_takes_them(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    for error in (errors.ConfigError("the loss is nan"), Diverged("the loss is nan")):
        node.say(error)
        assert json.loads((tmp_path / "error.json").read_text())["message"] == "ConfigError: the loss is nan"


def test_a_node_without_its_dataset_says_so_and_is_not_started_again(tmp_path: Path) -> None:
    import subprocess

    values = {"train": {"epochs": 1}, "preprocess": {}, "gate": {}}
    job = TrainingJob(**values, dataset=str(tmp_path / "none"), out=str(tmp_path / "out"), work=str(tmp_path / "work"))
    done = subprocess.run(
        [sys.executable, "-m", "boatyard.training.node", job.to_json()], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 78
    assert "boatyard: rank 0: ArtifactError: " in done.stderr and "none" in done.stderr.splitlines()[-1]


def test_a_trainjob_of_a_run_carries_its_id() -> None:
    settings = Settings(image="boatyard/train:1")
    found = trainjobs.manifest("f", JOB, TrainConfig(), POD, namespace="here", settings=settings, run="run-7")
    assert found["metadata"]["labels"]["boatyard/run"] == "run-7"
    assert "boatyard/run" not in made(TrainConfig())["metadata"]["labels"]


def test_a_namespace_that_cannot_train_says_all_that_it_lacks_and_who_brings_it() -> None:
    with api_server(lambda digest, body: []) as (server, cluster):
        path = cluster.path("ClusterTrainingRuntime", None, "boatyard")
        review = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        server.allowed = False
        with pytest.raises(errors.ClusterError) as error:
            trainjobs.check(cluster, "team", TrainConfig(nodes=2, claim="shared"), "pipeline-runner")
        said = str(error.value)
        assert "service account pipeline-runner may not create trainjobs: bind the Role boatyard-trainer" in said
        assert "no ClusterTrainingRuntime boatyard" in said and "no PersistentVolumeClaim shared" in said
        assert server.reviews[review]["spec"]["user"] == "system:serviceaccount:team:pipeline-runner"
        server.allowed = True
        for kind, name, space in (
            ("ClusterTrainingRuntime", "boatyard", None),
            ("PersistentVolumeClaim", "shared", "team"),
        ):
            server.objects[cluster.path(kind, space, name)] = {"kind": kind, "metadata": {"name": name}}
        trainjobs.check(cluster, "team", TrainConfig(nodes=2, claim="shared"))
        assert path in server.objects


def test_a_step_gives_its_nodes_the_image_that_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "namespace").write_text("team\n")
    monkeypatch.setenv("BOATYARD_IMAGE", "boatyard/train:by-spec")
    image = f"registry.example/boatyard/train@sha256:{'a' * 64}"
    containers = [{"name": "wait", "image": "argoexec"}, {"name": "main", "image": image}]
    with api_server(lambda digest, body: []) as (server, cluster):
        assert launching._settings(cluster).image == "boatyard/train:by-spec"
        monkeypatch.setattr(launching, "NAMESPACE_FILE", tmp_path / "namespace")
        assert launching._settings(cluster).image == "boatyard/train:by-spec"
        pod = {"kind": "Pod", "metadata": {"name": "me"}, "spec": {"containers": containers}}
        server.objects[cluster.path("Pod", "team", socket.gethostname())] = pod
        assert launching._settings(cluster).image == image


def test_every_step_is_told_the_image_of_the_spec(tmp_path: Path) -> None:
    text = "name: flowers\ndata: {source: csv, path: s3://b/d.csv, target: y}\n"
    for section in ("recipe: mlp, nodes: 2", "recipe: mlp"):
        compiled = tmp_path / "pipeline.yaml"
        (tmp_path / "boatyard.yaml").write_text(f"{text}train: {{{section}}}\n")
        training.compile(project.load(tmp_path), compiled)
        spec = yaml.safe_load(compiled.read_text().split("\n---")[0])
        for executor in spec["deploymentSpec"]["executors"].values():
            env = {each["name"]: each["value"] for each in executor["container"]["env"]}
            assert env["BOATYARD_IMAGE"] == executor["container"]["image"]
