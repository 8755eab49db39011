"""What a real API server says of the manifests, and a kubelet of the images."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kube import CLUSTER_SCOPED, ROOT, Kubectl, Manifest, Namespaces, moved

pytestmark = pytest.mark.cluster

SERVE_LIMIT = 450e6  # bytes


@pytest.fixture(scope="module")
def space(namespaces: Namespaces) -> Iterator[str]:
    """A namespace for all tests here: they change nothing in it."""
    with namespaces("manifests") as name:
        yield name


def pod(name: str, image: str, script: str, **security: Any) -> Manifest:
    """Return a pod that Pod Security's restricted admits, with a root file system that cannot be written to."""
    container = {
        "name": "main",
        "image": image,
        "command": ["sh", "-ec", script],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **security}
    spec = {"restartPolicy": "Never", "securityContext": context, "containers": [container]}
    spec |= {"volumes": [{"name": "tmp", "emptyDir": {}}], "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def said(kubectl: Kubectl, space: str, manifest: Manifest) -> str:
    """Run a pod to its end and return its log; a pod that fails fails the test."""
    name = manifest["metadata"]["name"]
    kubectl("create", "-n", space, "-f", "-", manifests=[manifest])
    phase = "jsonpath={.status.phase}"
    kubectl("wait", "-n", space, f"pod/{name}", f"--for={phase}=Succeeded", "--timeout=60s", check=False)
    assert kubectl("get", "pod", name, "-n", space, "-o", phase) == "Succeeded", kubectl("logs", name, "-n", space)
    return kubectl("logs", name, "-n", space)


@pytest.mark.parametrize("overlay", ["base", "overlays/kind", "overlays/production"])
def test_every_object_passes_strict_validation(kubectl: Kubectl, manifests: list[Manifest], overlay: str) -> None:
    objects = list(yaml.safe_load_all(kubectl("kustomize", str(ROOT / "manifests" / overlay))))
    known = [
        each for each in objects if each["kind"] != "PodMonitor"
    ]  # its schema is held against it in the fast tests
    # where no claim of another overlay lies: its access modes cannot be changed
    tried = [each for each in known if each["kind"] in (*CLUSTER_SCOPED, "ResourceQuota")] + moved(known, "default")
    assert len(tried) == len(known)
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", manifests=tried)
    assert len(known) >= 20


def test_every_pod_of_ours_is_admitted(kubectl: Kubectl, rendered: list[Manifest], space: str) -> None:
    found = {each["kind"]: each.get("spec", {}) for each in copy.deepcopy(rendered)}  # others use them whole
    serving = found["ServingRuntime"]
    job = found["ClusterTrainingRuntime"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    initializer = found["ClusterStorageContainer"]["container"]
    specs = {
        "serving": {key: serving[key] for key in ("containers", "volumes")} | {"initContainers": [initializer]},
        "training": job["template"]["spec"],
    }
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec} for name, spec in specs.items()
    ]
    kubectl("create", "--dry-run=server", "-n", space, "-f", "-", manifests=pods)
    for each in pods:
        each["spec"]["containers"][0]["securityContext"].pop("capabilities")
        refused = kubectl("create", "--dry-run=server", "-n", space, "-f", "-", manifests=[each], check=False)
        assert "violates PodSecurity" in refused  # so the first answer meant something


def may(kubectl: Kubectl, namespace: str, user: str, questions: list[str]) -> list[str]:
    """Return those of "verb group/resource[/name or subresource]" that the API server allows a user in a namespace."""
    reviews = []
    for question in questions:
        verb, _, what = question.partition(" ")
        group, resource, *rest = what.split("/")
        asked = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
        asked |= {"subresource" if resource == "pods" else "name": each for each in rest}
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        reviews.append(kind | {"spec": {"resourceAttributes": asked}})
    shown = 'jsonpath={.status.allowed}{"\\n"}'
    answers = kubectl("create", "-f", "-", "-o", shown, f"--as={user}", manifests=reviews).split()
    return [question for question, answer in zip(questions, answers, strict=True) if answer == "true"]


def account(space: str, name: str) -> str:
    """Return the user that a service account is."""
    return f"system:serviceaccount:{space}:{name}"


NEEDED = [
    "create serving.kserve.io/inferenceservices",
    "patch serving.kserve.io/inferenceservices",
    "delete serving.kserve.io/inferenceservices",
    "patch coordination.k8s.io/leases",
    "create policy/poddisruptionbudgets",
    "create trainer.kubeflow.org/trainjobs",
    "get /pods/log",
    "list /events",
    "list /pods",
    "create argoproj.io/workflowtaskresults",
    "get /configmaps/kfp-launcher",
    "get /secrets/boatyard-s3",
]
REFUSED = [
    "list /secrets",
    "get /secrets/another",
    "create /pods",
    "delete /pods",
    "create /pods/exec",
    "create apps/deployments",
    "create rbac.authorization.k8s.io/roles",
    "delete /namespaces",
    "update serving.kserve.io/servingruntimes",
    "update serving.kserve.io/clusterstoragecontainers",
]


def test_a_step_may_do_what_it_must_and_no_more(kubectl: Kubectl, space: str) -> None:
    assert may(kubectl, space, account(space, "boatyard-pipeline"), [*NEEDED, *REFUSED]) == NEEDED


def test_a_step_may_do_nothing_elsewhere(kubectl: Kubectl, space: str) -> None:
    assert may(kubectl, "kube-system", account(space, "boatyard-pipeline"), [*NEEDED, *REFUSED]) == []


@pytest.mark.parametrize("name", ["boatyard-serving", "boatyard-training", "default"])
def test_pods_that_serve_and_train_may_ask_the_api_server_nothing(kubectl: Kubectl, space: str, name: str) -> None:
    assert may(kubectl, space, account(space, name), [*NEEDED, *REFUSED]) == []


def test_a_viewer_reads_what_why_reads_and_no_secret(kubectl: Kubectl, space: str) -> None:
    binding = ["create", "rolebinding", "viewer", "--clusterrole=boatyard-viewer", "--user=viewer", "-n", space]
    kubectl(*binding)
    reads = ["list serving.kserve.io/inferenceservices", "list trainer.kubeflow.org/trainjobs", "get /pods/log"]
    refused = ["list /secrets", "create /pods/exec", "patch serving.kserve.io/inferenceservices", "delete /pods"]
    assert may(kubectl, space, "viewer", [*reads, *refused]) == reads


def test_the_train_image_is_what_kubeflow_pipelines_asks_for(kubectl: Kubectl, space: str) -> None:
    script = """
        mktemp -d >/dev/null; test "$(id -u)" = 10001; test -w "$HOME"
        ! touch /opt/boatyard/x 2>/dev/null
        ! command -v gcc && ! command -v cc
        python3 -c 'import kfp.dsl.executor_main, boatyard.components.push, torch, onnxscript'
        tini -- boatyard --version
    """
    assert "0.1.0" in said(kubectl, space, pod("train", "boatyard/train:dev", script))


def test_the_serve_image_loads_without_torch(kubectl: Kubectl, space: str) -> None:
    script = """
        test "$(id -u)" = 10001; test -w "$HOME"; ! command -v gcc && ! command -v pip
        python3 -c 'import boatyard.serving.server, boatyard.initializer, importlib.util as i
assert not [each for each in ("torch", "pyarrow", "kfp") if i.find_spec(each)]'
        tini -- python -m boatyard.serving --help
    """
    assert "--package" in said(kubectl, space, pod("serve", "boatyard/serve:dev", script))


def test_any_uid_will_do(kubectl: Kubectl, space: str) -> None:
    script = "boatyard init /tmp/demo && python3 -c 'import getpass, torch; print(getpass.getuser())'"
    log = said(kubectl, space, pod("uid", "boatyard/train:dev", script, runAsUser=23456, runAsGroup=23456))
    assert "boatyard" in log


def test_the_serve_image_is_small(kubectl: Kubectl) -> None:
    images = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]["status"]["images"]
    sizes = [
        each["sizeBytes"] for each in images if any(name.endswith("boatyard/serve:dev") for name in each["names"] or ())
    ]
    assert sizes and sizes[0] <= SERVE_LIMIT
