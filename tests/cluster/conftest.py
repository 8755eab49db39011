"""The cluster of the tests: kubectl's own, with KServe, Trainer and an S3 store; see docs/cluster.md."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "manifests" / "overlays" / "kind"
CLUSTER_SCOPED = ("Namespace", "ClusterRole", "ClusterRoleBinding", "ClusterStorageContainer", "ClusterTrainingRuntime")
ENDPOINT = os.environ.get("BOATYARD_TEST_S3", "http://s3.s3.svc.cluster.local:9000")
KEYS = {"AWS_ACCESS_KEY_ID": "boatyard", "AWS_SECRET_ACCESS_KEY": "boatyard-secret"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}

Manifest = dict[str, Any]
Kubectl = Callable[..., str]
Namespaces = Callable[[str], AbstractContextManager[str]]


def run_kubectl(*arguments: str, manifests: list[Manifest] | None = None, check: bool = True) -> str:
    """Run kubectl, with manifests on its standard input, and return what it printed; a failure says why."""
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}) if manifests is not None else None
    done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, timeout=180)
    assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout + ("" if done.returncode == 0 else done.stderr)


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """Return what runs kubectl: kubectl("get", "pods", "-n", namespace)."""
    return run_kubectl


@pytest.fixture(scope="session")
def rendered() -> list[Manifest]:
    """What the overlay of the tests holds, as a list."""
    return list(yaml.safe_load_all(run_kubectl("kustomize", str(OVERLAY))))


@pytest.fixture(scope="session")
def manifests(rendered: list[Manifest]) -> list[Manifest]:
    """The overlay, applied as an administrator does: the namespace boatyard and what belongs to the whole cluster."""
    run_kubectl("apply", "-k", str(OVERLAY))
    return rendered


@pytest.fixture(scope="session")
def namespaces(manifests: list[Manifest]) -> Namespaces:
    """Return what makes a namespace as the manifests make theirs, for tests that share one: with namespaces("why")."""

    @contextmanager
    def made(prefix: str) -> Iterator[str]:
        name = f"{prefix}-{secrets.token_hex(3)}"
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
        run_kubectl("create", "-f", "-", manifests=[space])
        try:
            run_kubectl("apply", "-f", "-", manifests=[*_moved(manifests, name), s3_secret(name)])
            yield name
        finally:
            run_kubectl("delete", "namespace", name, "--wait=false")

    return made


@pytest.fixture
def namespace(namespaces: Namespaces, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own: Pod Security restricted, accounts, roles, the ServingRuntime, the store's keys."""
    with namespaces(request.node.path.stem.removeprefix("test_").replace("_", "-")) as name:
        yield name


def _moved(manifests: list[Manifest], namespace: str) -> list[Manifest]:
    """Return the manifests of a namespace as they are in another; the quota stays behind."""
    moved = []
    for each in json.loads(json.dumps(manifests)):
        if each["kind"] in (*CLUSTER_SCOPED, "ResourceQuota"):
            continue
        each["metadata"]["namespace"] = namespace
        for subject in each.get("subjects", []):
            subject["namespace"] = namespace
        moved.append(each)
    return moved


def s3_secret(namespace: str, name: str = "boatyard-s3") -> Manifest:
    """Return the Secret with which a namespace reads the tests' store, as KServe wants it."""
    host = ENDPOINT.partition("://")[2]
    notes = {"s3-endpoint": host, "s3-usehttps": str(int(ENDPOINT.startswith("https"))), "s3-region": "us-east-1"}
    notes["s3-usevirtualbucket"] = "false"
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {f"serving.kserve.io/{key}": value for key, value in notes.items()},
        },
        "stringData": {**KEYS, "AWS_ENDPOINT_URL": ENDPOINT, "AWS_REGION": "us-east-1"},
    }


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline has run: two versions of the model `digits` in its registry."""
    folder = tmp_path_factory.mktemp("project") / "digits"
    quick = ["--set", "train.epochs=3", "--set", "gate.minimum.accuracy=0.5"]
    for arguments in (["init", folder], ["run", folder, *quick], ["run", folder, *quick, "--set", "train.seed=1"]):
        done = subprocess.run([sys.executable, "-m", "boatyard", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def packages(project: Path) -> list[Path]:
    """The folders of the two versions, the older first."""
    return sorted((project / "runs").glob("*/artifacts/push/package"))
