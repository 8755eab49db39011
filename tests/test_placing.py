"""What a cluster has room for, asked of an API server over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graphs
import pytest
from apiserver import ApiServer, api_server
from click.testing import CliRunner

import boatyard
from boatyard.__main__ import cli
from boatyard.api.placing import endpoint_room
from boatyard.diagnosis.room import Ask, rooms, unplaced
from boatyard.errors import Forbidden
from boatyard.kubernetes import cluster as clusters

TEXT = "name: flowers\ndata: {source: csv, path: rows.csv, target: y}\ntrain: {recipe: mlp}\n"
GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def node(server: ApiServer, name: str, taints: Any = (), labels: Any = None, **allocatable: str) -> None:
    meta = {"name": name, "labels": labels or {}}
    status = {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10", **allocatable}}
    server.objects[f"/api/v1/nodes/{name}"] = {"metadata": meta, "spec": {"taints": list(taints)}, "status": status}


def pod(server: ApiServer, name: str, on: str, phase: str = "Running", **requests: str) -> None:
    containers = [{"name": "c", "resources": {"requests": requests}}]
    value = {
        "metadata": {"name": name, "namespace": "a"},
        "spec": {"nodeName": on, "containers": containers},
        "status": {"phase": phase},
    }
    server.objects[f"/api/v1/namespaces/a/pods/{name}"] = value


def ask(selector: Any = None, tolerations: Any = (), **amounts: str) -> Ask:
    return Ask(amounts, selector or {}, tuple(tolerations))


def test_room_is_what_the_pods_that_run_leave() -> None:
    with api_server(lambda digest, body: []) as (server, cluster):
        node(server, "one")
        pod(server, "busy", "one", cpu="3500m", memory="1Gi")
        pod(server, "over", "one", "Succeeded", cpu="4")
        (room,) = found = rooms(cluster)
        assert room.free["cpu"] == pytest.approx(0.5) and room.free["memory"] == 7 * 2**30
        assert unplaced(found, ask(cpu="500m", memory="7Gi")) == ""
        said = unplaced(found, ask(cpu="2", memory="512Mi"))
        assert said == "no node has 2 of cpu free; the most is 500m of cpu"


def test_a_node_of_which_each_lacks_something_else_is_no_room() -> None:
    with api_server(lambda digest, body: []) as (server, cluster):
        node(server, "wide", cpu="16", memory="1Gi")
        node(server, "deep", cpu="1", memory="64Gi")
        found = rooms(cluster)
        assert "no node has 8 of cpu, 32Gi of memory free" in unplaced(found, ask(cpu="8", memory="32Gi"))
        assert unplaced(found, ask(cpu="8", memory="1Gi")) == ""


def test_taints_keep_out_who_does_not_tolerate_them_and_labels_who_asks_for_others() -> None:
    with api_server(lambda digest, body: []) as (server, cluster):
        taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
        node(server, "gpus", taints=[taint], labels={"pool": "gpu"}, **{"nvidia.com/gpu": "1"})
        found = rooms(cluster)
        assert "lets it in" in unplaced(found, ask(cpu="1"))
        assert unplaced(found, ask(tolerations=[GPU], **{"nvidia.com/gpu": "1"})) == ""
        assert "2 of nvidia.com/gpu" in unplaced(found, ask(tolerations=[GPU], **{"nvidia.com/gpu": "2"}))
        assert "labels" in unplaced(found, ask({"pool": "cpu"}, [GPU], cpu="1"))


def test_check_says_which_steps_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boatyard.yaml").write_text(TEXT + "resources: {train: {cpu: 64, memory: 8Gi}}\n")
    (tmp_path / "rows.csv").write_text("a,y\n1,x\n2,z\n")
    with api_server(lambda digest, body: []) as (server, cluster):
        node(server, "one")
        monkeypatch.setattr(clusters, "connect", lambda context=None: cluster)
        done = CliRunner().invoke(cli, ["check", str(tmp_path), "--cluster"])
        assert "step preprocess asks for 250m of cpu, 512Mi of memory: there is room" in done.output
        assert "step train asks for 64 of cpu, 8Gi of memory: no node has 64 of cpu free" in done.output
        done = CliRunner().invoke(cli, ["check", str(tmp_path), "--cluster", "--json"])
        problems = {each["step"]: each["problem"] for each in json.loads(done.output)["placements"]}
        assert problems["gate"] == "" and problems["train"] and problems["endpoint"] == ""
        assert [each.step for each in boatyard.placements(tmp_path) if each.problem] == ["train"]


@pytest.mark.parametrize("option", ["--namespace", "--context"])
def test_what_is_said_of_a_cluster_that_is_not_asked_is_an_error(tmp_path: Path, option: str) -> None:
    done = CliRunner().invoke(cli, ["check", str(tmp_path), option, "team"])
    assert done.exit_code == 2 and f"{option} is an option of --cluster; give both, or neither" in done.output


def test_check_says_what_the_namespace_of_the_runs_lacks_for_a_trainjob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boatyard.yaml").write_text(TEXT.replace("{recipe: mlp}", "{recipe: mlp, nodes: 2, claim: shared}"))
    (tmp_path / "rows.csv").write_text("a,y\n1,x\n2,z\n")
    with api_server(lambda digest, body: []) as (server, cluster):
        node(server, "one")
        server.allowed = False
        monkeypatch.setattr(clusters, "connect", lambda context=None: cluster)
        (line,) = [
            line
            for line in CliRunner()
            .invoke(cli, ["check", str(tmp_path), "--cluster", "--namespace", "team"])
            .output.splitlines()
            if line.startswith("step train ")
        ]
        assert "namespace team cannot train yet" in line and "there is room" not in line
        assert "bind the Role boatyard-trainer" in line and "PersistentVolumeClaim shared" in line
        assert server.objects.keys() == {"/api/v1/nodes/one"}, "nothing is changed"


def test_a_node_that_has_as_many_pods_as_it_takes_has_no_room() -> None:
    with api_server(lambda digest, body: []) as (server, cluster):
        node(server, "full", pods="1")
        pod(server, "only", "full")
        assert "no node has 1 of pods free" in unplaced(rooms(cluster), ask(cpu="1"))


def test_plan_says_whether_there_is_room_for_a_new_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = str(graphs.package(tmp_path / "package", graphs.numbers_schema()).path)
    arguments = ["plan", package, "--storage", "s3://models/package", "-n", "a"]
    with api_server(lambda digest, body: []) as (server, cluster):
        monkeypatch.setattr(clusters, "connect", lambda context=None: cluster)
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0 and "new pod" not in done.output, "the nodes cannot be seen"
        node(server, "one", cpu="8", memory="16Gi")
        last = CliRunner().invoke(cli, arguments).output.splitlines()[-1]
        assert last.startswith("a new pod asks for ") and last.endswith("of memory: there is room")
        pod(server, "busy", "one", cpu="7900m")
        assert "of cpu free; the most is 100m of cpu" in CliRunner().invoke(cli, arguments).output
        done = CliRunner().invoke(cli, [*arguments, "--json"])
        assert done.stderr == "" and isinstance(json.loads(done.stdout), list)


def test_plan_asks_for_no_room_where_no_pod_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with api_server(lambda digest, body: []) as (server, cluster):
        node(server, "one")
        assert endpoint_room([{"kind": "ScaledObject"}], cluster) == ""
        monkeypatch.setattr(type(cluster), "list", refuse)
        assert endpoint_room([{"kind": "InferenceService", "spec": {"predictor": {"model": {}}}}], cluster) == ""


def refuse(self: object, kind: str, namespace: str = "") -> Any:
    raise Forbidden("nodes", fix="ask for the right")
