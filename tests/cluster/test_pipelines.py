"""Each step's container, started from the compiled spec in a pod as Kubeflow would, handing artifacts on through S3.

There is no Kubeflow Pipelines backend here: `backend.py` makes the pods, in a namespace that enforces "restricted".
"""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import yaml
from backend import IMAGE, PARTS, SECRETS, SMALL, Backend, install_launcher, read
from kube import KEYS, RESTRICTED, Kubectl, Manifest, Namespaces, in_store, run_kubectl, s3_secret

from boatyard import packages, preprocessing, project, registry, storage
from boatyard.data import artifacts
from boatyard.errors import ClusterError
from boatyard.gating import Verdict
from boatyard.kubernetes import cluster
from boatyard.pipelines import training
from boatyard.project import StepConfig
from boatyard.running import reasons, results
from boatyard.training import trainjobs

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A place of its own in the cluster's store, the environment set to reach it."""
    with in_store("test-pipelines") as place:
        yield place


@pytest.fixture(scope="module")
def made(store: str, tmp_path_factory: pytest.TempPathFactory) -> project.Project:
    """A project whose rows and registry lie in the store, its preprocessing shared out over two pods."""
    rng, folder = random.Random(0), tmp_path_factory.mktemp("rows")
    for number in range(4):
        rows = [(rng.gauss(0, 1), rng.choice("ab")) for _ in range(150)]
        lines = [f"{n:.4f},{c},{'x' if n + (c == 'a') > 0.3 else 'y'}" for n, c in rows]
        (folder / f"{number}.csv").write_text("\n".join(["n,c,label", *lines, ""]))
        storage.open(f"{store}/rows").put(f"{number}.csv", folder / f"{number}.csv")
    return project.check(
        {
            "name": "digits",
            "data": {"source": "csv", "path": f"{store}/rows"},
            "train": {"recipe": "linear", "epochs": 8, "learning_rate": 0.05},
            "gate": {"minimum": {"accuracy": 0.6}, "rows": 20},
            "push": {"registry": f"{store}/registry"},
            "kubeflow": {"root": f"{store}/root", "workers": PARTS, "secrets": SECRETS, "deploy": True},
            "serve": {"cpu": "100m", "memory": "512Mi", "autoscaling": {"maximum": 1}},
            "resources": SMALL,
        },
        "the test",
    )


@pytest.fixture(scope="module")
def backend(
    made: project.Project, store: str, namespaces: Namespaces, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    """A run of the whole pipeline, from the compiled spec, each step in its pod."""
    path = tmp_path_factory.mktemp("spec") / "pipeline.yaml"
    training.compile(made, path)
    with namespaces("pipelines") as name:
        install_launcher(name)
        backend = read(path.read_text(), name, f"{store}/root/digits/{uuid.uuid4()}")
        for loop, after in (("profile", "plan"), ("clean", "split"), ("write", "merge")):
            pods = [backend.start(f"preprocess-{loop}", part) for part in range(PARTS)]
            for pod in pods:
                assert backend.phase(pod) == "Succeeded", backend.log(pod)
            backend.run(f"preprocess-{after}")
        for task in ("train", "evaluate"):
            backend.run(task)
        assert backend.run("gate")["Output"] is True
        version = backend.run("push")["Output"]
        backend.run("deploy", version=version, serve={**made.serve.values(), "namespace": name})
        backend.run("verdict")
        yield backend


def copied(uri: str, to: Path) -> Path:
    """Copy what lies below a URI."""
    for key, data in ((key, storage.open(uri).read(key)) for key in storage.open(uri).list()):
        (to / key).parent.mkdir(parents=True, exist_ok=True)
        (to / key).write_bytes(data)
    return to


def test_every_step_runs_restricted_and_read_only_and_the_package_is_in_the_registry(
    backend: Backend, made: project.Project, tmp_path: Path
) -> None:
    (uri,) = backend.uris("push", "package")
    (version,) = registry.open(made.push.registry, tmp_path).versions("digits")
    package = packages.verify(packages.fetch(uri, to=tmp_path / "package"))
    assert (package.name, package.digest, version.version) == ("digits", version.digest, 1)
    assert uri.startswith(f"{backend.root}/push/"), "an s3:// URI that KServe can read"
    assert reasons.read(backend.root) == ()
    left = results.read(backend.root)
    assert (left.metric, left.passed, left.version, left.digest) == ("accuracy", True, 1, version.digest)


def test_the_deploy_step_leaves_an_endpoint_that_answers_with_the_pushed_package(
    backend: Backend, made: project.Project, tmp_path: Path
) -> None:
    (version,) = registry.open(made.push.registry, tmp_path).versions("digits")
    assert backend.outputs("deploy")["Output"] == version.digest
    (service,) = json.loads(run_kubectl("get", "isvc", "-n", backend.namespace, "-o", "json"))["items"]
    assert service["metadata"]["annotations"]["boatyard/digest"] == version.digest
    found = copied_file(backend.uris("deploy", "endpoint")[0], tmp_path / "endpoint.json")
    assert json.loads(found.read_text())["digest"] == version.digest
    with httpx.Client(base_url=f"http://digits-predictor.{backend.namespace}.svc.cluster.local") as client:
        answer = client.post("/v1/models/digits:predict", json={"instances": [{"n": 3.0, "c": "a"}]})
    assert [each["label"] for each in answer.json()["predictions"]] == ["x"]


def test_the_dataset_of_two_pods_is_that_of_one_machine(
    backend: Backend, made: project.Project, tmp_path: Path
) -> None:
    (uri,) = backend.uris("preprocess-merge", "dataset")
    preprocessing.preprocess(made.data, made.preprocess, tmp_path / "one", root=tmp_path, task=made.task)
    copied(uri, tmp_path / "many")
    one, many = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "many"))
    assert one.pop("made")["sections"] == many.pop("made")["sections"]  # the machines and their Python are not the same
    assert many == one, "with every shard's digest"
    assert artifacts.verify(tmp_path / "many", "dataset")


def test_inputs_deleted_behind_a_cache_hit_are_noticed_and_said_where_a_person_looks(
    backend: Backend, store: str
) -> None:
    other = Backend(backend.spec, backend.platform, backend.namespace, f"{store}/root/digits/{uuid.uuid4()}")
    log = other.fail("train", dataset=[f"{store}/root/digits/gone/preprocess-merge/u/dataset"])
    (reason,) = reasons.read(other.root)
    assert (reason.step, reason.error, reason.expected) == ("train", "ArtifactError", "manifest.json in it")
    assert "found an empty folder" in reason.sentence and reason.sentence in log
    assert reasons.find(f"{store}/root", other.root.rpartition("/")[2]) == other.root


def test_a_refused_run_pushes_nothing_and_its_last_step_says_the_gates_sentence(
    backend: Backend, made: project.Project, store: str, tmp_path: Path
) -> None:
    other = Backend(
        backend.spec, backend.platform, backend.namespace, f"{store}/root/digits/{uuid.uuid4()}", {**backend.found}
    )
    stricter = made.gate.model_copy(update={"minimum": {"accuracy": 1.0}}).values()
    assert other.run("gate", gate=stricter)["Output"] is False
    other.found["gate"] = {None: other.found["gate"][None]}
    other.fail("verdict")
    (reason,) = reasons.read(other.root)
    verdict = Verdict.read(copied_file(other.uris("gate", "verdict")[0], tmp_path / "verdict.json"))
    assert reason.refused and reason.step == "verdict" and reason.sentence == " ".join(verdict.sentence.split())
    assert len(registry.open(made.push.registry, tmp_path).versions("digits")) == 1


def copied_file(uri: str, to: Path) -> Path:
    above, _, name = uri.rpartition("/")
    to.write_bytes(storage.open(above).read(name))
    return to


@dataclass(frozen=True)
class Overlay:
    """What the overlay for Kubeflow brings, where it was applied: a namespace of endpoints, and one of runs."""

    objects: list[Manifest]
    serving: str
    runs: str


@pytest.fixture(scope="module")
def overlay(namespaces: Namespaces) -> Iterator[Overlay]:
    """The overlay for Kubeflow in a namespace that has nothing else but the store's keys, as the docs say."""
    folder = Path(__file__).parents[2] / "manifests" / "overlays" / "kubeflow"
    with namespaces("pipelines") as serving, bare(f"{serving}-runs") as runs:
        text = run_kubectl("kustomize", str(folder)).replace("namespace: kubeflow", f"namespace: {runs}")
        objects = list(yaml.safe_load_all(text.replace("namespace: boatyard", f"namespace: {serving}")))
        run_kubectl("apply", "-f", "-", manifests=[*objects, s3_secret(runs)])
        yield Overlay(objects, serving, runs)


def test_the_overlay_for_kubeflow_gives_a_runs_account_what_it_needs_and_no_more(
    overlay: Overlay, kubectl: Kubectl
) -> None:
    objects, serving, runs = overlay.objects, overlay.serving, overlay.runs
    serves, trains = ("serving.kserve.io", "inferenceservices"), ("trainer.kubeflow.org", "trainjobs")
    changes = ("get", "list", "watch", "create", "update", "patch", "delete")
    allowed = [(verb, *what, "", serving) for verb in changes for what in (serves, trains)]
    allowed += [
        ("create", "argoproj.io", "workflowtaskresults", "", runs),
        ("get", "", "configmaps", "kfp-launcher", runs),
    ]
    allowed += [("get", "", "secrets", "boatyard-s3", runs)]
    refused = [
        ("list", "", "secrets", "", runs),
        ("get", "", "secrets", "other", runs),
        ("create", *serves, "", runs),
    ]
    refused += [("create", "", "pods", "", runs), ("delete", "apps", "deployments", "", serving)]
    reviews = [review(*asked) for asked in (*allowed, *refused)]
    account = f"--as=system:serviceaccount:{runs}:boatyard-pipeline"
    shown = "jsonpath={.status.allowed}{'\\n'}"
    answers = kubectl("create", "-f", "-", account, "-o", shown, manifests=reviews).split()
    assert dict(zip((*allowed, *refused), answers, strict=True)) == {
        **dict.fromkeys(allowed, "true"),
        **dict.fromkeys(refused, "false"),
    }
    providers = yaml.safe_load(next(o for o in objects if o["kind"] == "ConfigMap")["data"]["providers"])
    secret = providers["s3"]["default"]["credentials"]["secretRef"]
    assert f"http://{providers['s3']['default']['endpoint']}" == "http://s3.s3.svc.cluster.local:9000"
    assert {secret["accessKeyKey"], secret["secretKeyKey"]} == set(KEYS)
    assert secret["secretName"] == "boatyard-s3"


def test_a_train_step_of_several_nodes_makes_its_trainjob_in_the_runs_namespace_with_the_overlay_alone(
    backend: Backend, made: project.Project, overlay: Overlay, store: str, tmp_path: Path
) -> None:
    """Dataset and checkpoint pass through the overlay's claim; the nodes run the very image of the step."""
    image = f"docker.io/{IMAGE}"  # as the step's pod says it; BOATYARD_IMAGE in the spec says another
    run = several(backend, made, overlay, f"{store}/root/digits/{uuid.uuid4()}", tmp_path, image)
    run.run("train")
    (trainjob,) = json.loads(run_kubectl("get", "trainjob", "-n", overlay.runs, "-o", "json"))["items"]
    assert trainjob["spec"]["trainer"]["image"] == image != made_image(run)
    assert trainjob["metadata"]["labels"]["boatyard/run"] == run.root.rpartition("/")[2]
    pods = cluster.connect().list("Pod", overlay.runs, labels=trainjobs.PODS_LABEL)
    assert [pod["spec"]["containers"][0]["image"] for pod in pods] == [image] * 2
    assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"boatyard-training"}
    run.run("evaluate")
    report = copied(run.uris("evaluate", "report")[0], tmp_path / "report")
    checkpoint = copied(run.uris("train", "checkpoint")[0], tmp_path / "checkpoint")
    lineage = json.loads((report / "report.json").read_text())["lineage"]
    assert lineage["graph"] == artifacts.verify(checkpoint, "checkpoint")["graph"]


def test_a_namespace_that_cannot_train_says_before_the_run_and_in_it_what_to_bind(
    backend: Backend, made: project.Project, overlay: Overlay, store: str, tmp_path: Path
) -> None:
    there, config = cluster.connect(), made.train.model_copy(update={"nodes": 2})
    trainjobs.check(there, overlay.runs, config, "boatyard-pipeline")
    bring = r"kubectl apply -k manifests/overlays/kubeflow"
    with pytest.raises(ClusterError, match=rf"there is no PersistentVolumeClaim other: train\.claim names it; {bring}"):
        trainjobs.check(there, overlay.runs, config.model_copy(update={"claim": "other"}), "boatyard-pipeline")
    run_kubectl("delete", "rolebinding", "boatyard-trainer", "-n", overlay.runs)
    try:
        lacking = rf"may not create trainjobs: bind the Role boatyard-trainer to it \({bring}"
        with pytest.raises(ClusterError, match=f"service account boatyard-pipeline {lacking}"):
            trainjobs.check(there, overlay.runs, config, "boatyard-pipeline")
        run = several(backend, made, overlay, f"{store}/root/digits/{uuid.uuid4()}", tmp_path)
        run.fail("train")
        (reason,) = reasons.read(run.root)
        assert reason.step == "train" and re.search(f"this step's service account {lacking}", reason.sentence)
    finally:
        bindings = [one for one in overlay.objects if one["kind"] == "RoleBinding"]
        run_kubectl("apply", "-f", "-", manifests=bindings)


def several(
    backend: Backend, made: project.Project, overlay: Overlay, root: str, folder: Path, image: str = IMAGE
) -> Backend:
    """Return a run in the overlay's namespace whose training has two nodes; its dataset is the one that is there."""
    train = made.train.model_copy(update={"nodes": 2, "epochs": 2})
    resources = made.resources.model_copy(update={"train": StepConfig(cpu="100m", memory="1Gi", timeout="10m")})
    path = folder / "several.yaml"
    training.compile(made.model_copy(update={"train": train, "resources": resources}), path)
    if not run_kubectl("get", "configmap", "launcher", "-n", overlay.runs, "--ignore-not-found"):
        install_launcher(overlay.runs)
    run = read(path.read_text(), overlay.runs, root, image)
    return replace(run, found={"preprocess-merge": backend.found["preprocess-merge"]})


def made_image(run: Backend) -> str:
    """Return what the spec's train step has as BOATYARD_IMAGE."""
    variables = run.spec["deploymentSpec"]["executors"]["exec-train"]["container"]["env"]
    return str(next(each["value"] for each in variables if each["name"] == "BOATYARD_IMAGE"))


@contextmanager
def bare(name: str) -> Iterator[str]:
    """A namespace with nothing of ours in it: Pod Security restricted."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    run_kubectl("create", "-f", "-", manifests=[space])
    try:
        yield name
    finally:
        run_kubectl("delete", "namespace", name, "--wait=false")


def review(verb: str, group: str, resource: str, name: str, namespace: str) -> Manifest:
    """Ask whether whoever asks may do something."""
    asked = {"verb": verb, "group": group, "resource": resource, "name": name, "namespace": namespace}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
