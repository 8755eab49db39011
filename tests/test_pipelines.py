"""The compiled spec: what a real backend is given."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from boatyard import packages, preprocessing, project, registry, stages
from boatyard.components.image import IMAGE
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, ConfigError
from boatyard.pipelines import training
from boatyard.project import templates

VALUES: dict[str, Any] = {
    "name": "digits",
    "description": "Which digit?",
    "data": {"source": "csv", "path": "rows.csv"},
    "gate": {"not_worse": None},
    "kubeflow": {
        "folder": "/data/project",
        "secrets": {"AWS_ACCESS_KEY_ID": "boatyard-s3/AWS_ACCESS_KEY_ID"},
        "volumes": {"/data": "shared"},
        "node_selector": {"pool": "any"},
        "tolerations": [{"key": "night", "operator": "Equal", "value": "yes"}],
        "image_pull_secrets": ["registry"],
    },
    "resources": {
        "train": {
            "volumes": {"/states": "states"},
            "gpu": {"type": "nvidia.com/gpu", "count": 2},
            "node_selector": {"pool": "gpu"},
            "tolerations": [{"key": "spot"}],
            "secrets": {"HUB_TOKEN": "hub/token"},
            "retries": 2,
        }
    },
}
STEPS = {"preprocess", "train", "evaluate", "gate", "push", "verdict"}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    path = tmp_path_factory.mktemp("spec") / "pipeline.yaml"
    training.compile(project.check(VALUES, "f"), path)
    spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def executors(spec: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("exec-"): e["container"] for name, e in spec["deploymentSpec"]["executors"].items()}


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec["root"]["dag"]["tasks"], **spec["components"]["comp-condition-1"]["dag"]["tasks"]}


def test_the_spec_is_one_of_kfps_own_schema(documents: Any) -> None:
    spec, _ = documents
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert parsed.pipeline_info.name == "digits"
    assert spec["sdkVersion"] == "kfp-2.17.0"


def test_no_step_runs_pip_and_every_body_is_one_call_into_the_library(documents: Any) -> None:
    for name, container in executors(documents[0]).items():
        source = " ".join(container["command"])
        assert "pip install" not in source, name
        assert source.count("stages.") == 1, name
        assert len(source) < 4000, name


def test_every_task_is_there_with_title_and_description(documents: Any) -> None:
    spec, _ = documents
    found = tasks(spec)
    assert found.keys() - {"condition-1"} == STEPS
    for name, task in found.items():
        if name in STEPS:
            assert task["taskInfo"]["name"] == name.capitalize()
    assert spec["pipelineInfo"] == {"name": "digits", "displayName": "digits", "description": "Which digit?"}
    described = spec["root"]["inputDefinitions"]["parameters"]
    assert all(parameter["description"] for parameter in described.values())
    assert described["train"]["defaultValue"]["recipe"] == "mlp"


def test_what_reads_something_mutable_is_never_cached(documents: Any) -> None:
    cached = {name for name, task in tasks(documents[0]).items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached & STEPS == {"preprocess", "train", "evaluate"}


def test_push_stands_under_a_condition_on_a_bool_and_verdict_does_not(documents: Any) -> None:
    spec, _ = documents
    assert "push" in spec["components"]["comp-condition-1"]["dag"]["tasks"]
    assert "verdict" in spec["root"]["dag"]["tasks"]
    condition = spec["root"]["dag"]["tasks"]["condition-1"]
    assert condition["triggerPolicy"]["condition"].endswith("== true")
    channel = spec["components"]["comp-gate"]["outputDefinitions"]["parameters"]["Output"]
    assert channel["parameterType"] == "BOOLEAN"


def test_gpus_go_to_the_training_pod_alone_with_type_and_limit(documents: Any) -> None:
    spec, platform = documents
    having = {name for name, c in executors(spec).items() if "accelerator" in c.get("resources", {})}
    assert having == {"train"}
    accelerator = executors(spec)["train"]["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "2")
    train = platform["exec-train"]
    assert {t["key"] for t in train["tolerations"]} == {"nvidia.com/gpu", "night", "spot"}
    assert train["nodeSelector"]["labels"] == {"pool": "gpu"}
    assert {"mountPath": "/dev/shm", "medium": "Memory", "volumeName": "shared-memory"} in train["emptyDirMounts"]


def test_every_pod_passes_pod_security_restricted_and_a_read_only_root(documents: Any) -> None:
    _, platform = documents
    assert {name.removeprefix("exec-") for name in platform} == STEPS
    for name, settings in platform.items():
        assert settings["securityContext"]["runAsNonRoot"] is True, name
        assert "/tmp" in {mount["mountPath"] for mount in settings["emptyDirMounts"]}, name
        assert int(settings["activeDeadlineSeconds"]) > 0, name


def test_retries_and_secrets_are_those_of_the_project(documents: Any) -> None:
    spec, platform = documents
    retried = {name: t["retryPolicy"]["maxRetryCount"] for name, t in tasks(spec).items() if "retryPolicy" in t}
    assert retried == {"train": 2}
    secrets = platform["exec-train"]["secretAsEnv"]
    assert ("hub", "HUB_TOKEN") in {(secret["secretName"], secret["keyToEnv"][0]["envVar"]) for secret in secrets}


def test_every_pod_has_what_the_project_gives_all_of_them_and_a_step_its_own_besides(documents: Any) -> None:
    spec, platform = documents
    for name, settings in platform.items():
        mounts = {mount["mountPath"]: mount["pvcNameParameter"] for mount in settings["pvcMount"]}
        own = {"/states"} if name == "exec-train" else set()
        assert mounts.keys() == {"/data"} | own, name
        assert mounts["/data"]["runtimeValue"]["constant"] == "shared"
        assert settings["nodeSelector"]["labels"] == {"pool": "gpu" if own else "any"}, name
        assert {"key": "night", "operator": "Equal", "value": "yes", "effect": "NoSchedule"} in settings["tolerations"]
        assert [secret["secretName"] for secret in settings["imagePullSecret"]] == ["registry"], name
        assert "AWS_ACCESS_KEY_ID" in {s["keyToEnv"][0]["envVar"] for s in settings["secretAsEnv"]}, name
    for name, container in executors(spec).items():
        assert {"name": "BOATYARD_PROJECT", "value": "/data/project"} in container["env"], name


@pytest.mark.parametrize(
    ("dials", "said"),
    [
        ({"root": "minio://bucket/x"}, "kubeflow: root: expected s3://BUCKET/FOLDER, found 'minio://bucket/x'"),
        ({"volumes": {"/tmp": "a"}}, "volumes: expected a folder such as /data for the claim, found '/tmp'"),
        ({"secrets": {"A": "b"}}, "secrets.A: expected secret/key, found 'b'"),
        ({"image_pull_secrets": ["A B"]}, "kubeflow.image_pull_secrets.0"),
    ],
)
def test_a_setting_that_no_pod_can_have_is_refused(dials: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        project.check({**VALUES, "kubeflow": dials}, "f")


def test_a_run_here_takes_nothing_that_only_kubeflow_has(tmp_path: Path) -> None:
    plain = {key: value for key, value in VALUES.items() if key != "kubeflow"}
    training.compile(project.check(VALUES, "f").here(), tmp_path / "one.yaml")
    training.compile(project.check(plain, "f"), tmp_path / "two.yaml")
    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()


PLAIN = """
import sys
from kfp import components, local
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
components.load_component_from_file(sys.argv[1])()
"""


def test_kfps_own_local_runner_runs_the_spec_whole_without_us(tmp_path: Path) -> None:
    templates.write(tmp_path)
    dials = ["train.epochs=1", "gate.minimum.accuracy=0.01", "train.model.blocks=[4]"]
    training.compile(project.load(tmp_path, dials), tmp_path / "pipeline.yaml")
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, "pipeline.yaml", "out"],
        cwd=tmp_path,
        env={**os.environ, "BOATYARD_PROJECT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (package,) = (tmp_path / "out").glob("*/push/package")
    assert packages.verify(package).name == "digits"
    assert [version.version for version in registry.open("registry", tmp_path).versions("digits")] == [1]


def test_shared_out_preprocessing_runs_whole_and_makes_the_dataset_that_one_machine_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOATYARD_IMAGE", IMAGE)  # as every step is told, for what a dataset says of its making
    rng = random.Random(0)
    (tmp_path / "rows").mkdir()
    for number in range(5):
        lines = [f"{rng.gauss(0, 1):.4f},{rng.choice(['a', 'b', ''])},{rng.choice('xy')}" for _ in range(60)]
        (tmp_path / "rows" / f"{number}.csv").write_text("\n".join(["n,c,label", *lines, ""]))
    values = {**VALUES, "data": {"source": "csv", "path": "rows"}, "resources": {}, "kubeflow": {"workers": 3}}
    values |= {"train": {"recipe": "linear", "epochs": 1}, "gate": {"not_worse": None, "rows": 1}}
    made = project.check(values, "f")
    training.compile(made, tmp_path / "pipeline.yaml")
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, "pipeline.yaml", "out"],
        cwd=tmp_path,
        env={**os.environ, "BOATYARD_PROJECT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (dataset,) = (tmp_path / "out").glob("*/preprocess-merge/dataset")
    preprocessing.preprocess(made.data, made.preprocess, tmp_path / "one", root=tmp_path, task=made.task)
    assert artifacts.digest_folder(dataset) == artifacts.digest_folder(tmp_path / "one")
    assert list((tmp_path / "out").glob("*/push/package")), "the rest of the pipeline took it as any other"


def test_sharing_out_is_a_loop_of_as_many_pods_with_all_settings_and_needs_files(tmp_path: Path) -> None:
    values = {**VALUES, "data": {"source": "csv", "path": "rows"}, "kubeflow": {"workers": 4, "volumes": {"/d": "c"}}}
    training.compile(project.check(values, "f"), tmp_path / "pipeline.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    loops = [task for task in spec["root"]["dag"]["tasks"].values() if "parameterIterator" in task]
    assert [loop["parameterIterator"]["items"]["raw"] for loop in loops] == ["[0, 1, 2, 3]"] * 3
    for name, settings in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        assert settings["securityContext"]["runAsNonRoot"] is True, name
        assert "/d" in {mount["mountPath"] for mount in settings["pvcMount"]}, name
    for name, container in executors(spec).items():
        assert " ".join(container["command"]).count("stages.") == 1, name
    with pytest.raises(
        ConfigError, match=r"kubeflow\.workers is 4, which needs several files of csv, images, (jsonl, )?parquet"
    ):
        project.check({**values, "data": {"source": "npz", "path": "rows.npz"}}, "f")


def test_what_was_emptied_behind_a_cache_hit_is_noticed_by_every_consumer(tmp_path: Path) -> None:
    empty, values = str(tmp_path / "empty"), project.check(VALUES, "f").values()
    Path(empty).mkdir()
    out = str(tmp_path / "out")
    consumers: list[Callable[[], object]] = [
        lambda: stages.train(values["train"], values["preprocess"], values["gate"], empty, out, out),
        lambda: stages.evaluate(values["evaluate"], empty, empty, out, out),
        lambda: stages.gate(values["gate"], {"registry": out}, "a", empty, empty, empty, out),
        lambda: stages.push({}, values, empty, empty, empty, f"{empty}/verdict", out),
        lambda: stages.settle(f"{empty}/verdict"),
    ]
    for consume in consumers:
        with pytest.raises(ArtifactError):
            consume()
    assert not Path(out).exists()


def test_a_deploying_step_follows_the_push_under_the_same_condition_and_is_never_cached(tmp_path: Path) -> None:
    training.compile(project.check({**VALUES, "kubeflow": {"deploy": True}}, "f"), tmp_path / "pipeline.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    inside = spec["components"]["comp-condition-1"]["dag"]["tasks"]
    assert inside.keys() == {"push", "deploy"} and inside["deploy"]["dependentTasks"] == ["push"]
    assert not inside["deploy"].get("cachingOptions", {}).get("enableCache")
    found = inside["deploy"]["inputs"]
    assert found["parameters"]["version"]["taskOutputParameter"]["producerTask"] == "push"
    assert found["parameters"]["serve"]["runtimeValue"]["constant"]["namespace"] == "default"
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-deploy"]["securityContext"]["runAsNonRoot"] is True
    training.compile(project.check(VALUES, "f"), tmp_path / "without.yaml")
    assert "exec-deploy" not in (tmp_path / "without.yaml").read_text()


def test_the_same_project_compiles_to_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        training.compile(project.check(VALUES, "f"), tmp_path / name)
    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()


def test_a_sections_values_survive_the_spec(documents: Any) -> None:
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    made = project.check(VALUES, "f")
    for key in ("data", "preprocess", "train", "evaluate", "gate", "push"):
        value = parameters[key]["defaultValue"]
        assert project.section(type(getattr(made, key)), value) == getattr(made, key), key


@pytest.mark.parametrize("name", ["spec", "spec.json", "folder"])
def test_a_spec_goes_to_a_yaml_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"expected a file that ends with \.yaml, found .*" + name):
        training.compile(project.check(VALUES, "f"), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_spec_that_cannot_be_compiled_leaves_the_one_before_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    training.compile(project.check(VALUES, "f"), path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="digits cannot be compiled: "):
        training.compile(project.check({**VALUES, "description": "\ud800"}, "f"), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_step_asks_for_little_and_may_take_more(tmp_path: Path) -> None:
    text = "name: flowers\ndata: {source: csv, path: s3://b/d.csv, target: y}\ntrain: {recipe: mlp}\n"
    (tmp_path / "boatyard.yaml").write_text(text + "resources: {train: {cpu: 3, memory: 8Gi}}\n")
    training.compile(project.load(tmp_path), tmp_path / "pipeline.yaml")
    spec = yaml.safe_load((tmp_path / "pipeline.yaml").read_text().split("\n---")[0])
    executors = spec["deploymentSpec"]["executors"]
    asked = {name.removeprefix("exec-"): each["container"]["resources"] for name, each in executors.items()}
    train = asked["train"]
    assert (train["resourceCpuRequest"], train["resourceMemoryRequest"], train["resourceMemoryLimit"]) == (
        "3",
        "8Gi",
        "8Gi",
    )
    for step, limit in (("preprocess", "2Gi"), ("evaluate", "4Gi"), ("gate", "2Gi"), ("push", "2Gi")):
        assert asked[step]["resourceCpuRequest"] == "250m" and asked[step]["resourceMemoryRequest"] == "512Mi"
        assert asked[step]["resourceMemoryLimit"] == limit and "resourceCpuLimit" not in asked[step]


def test_a_step_that_depends_on_what_nothing_sees_is_never_cached(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    values = {"name": "x", "data": {"source": "csv", "path": "d.csv"}, "resources": {"train": {"cache": False}}}
    training.compile(project.check(values, "project"), spec)
    found = tasks(next(yaml.safe_load_all(spec.read_text())))
    cached = {name for name, task in found.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached & STEPS == {"preprocess", "evaluate"}
