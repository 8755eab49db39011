"""Fixtures for the tests on a cluster: a namespace of a test's own, packages, the store."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from kube import GPU, OVERLAY, RESTRICTED, STORE, Kubectl, Manifest, Namespaces, moved, run_kubectl, s3_secret

from boatyard import registry


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
            run_kubectl("apply", "-f", "-", manifests=[*moved(manifests, name), s3_secret(name)])
            yield name
        finally:
            run_kubectl("delete", "namespace", name, "--wait=false")

    return made


@pytest.fixture(scope="session")
def gpus() -> Iterator[bool]:
    """Have a node offer GPUs, and say whether a device plugin stands behind them.

    Where none does, a node counts some for the time of the tests, as Kubernetes advertises any extended resource.
    """
    nodes = json.loads(run_kubectl("get", "nodes", "-o", "json"))["items"]
    if any(int(node["status"]["allocatable"].get(GPU, 0)) >= 2 for node in nodes):
        yield True
        return
    node = nodes[0]["metadata"]["name"]
    run_kubectl("patch", "node", node, *capacity("4"))
    try:
        there = r"--for=jsonpath={.status.allocatable.nvidia\.com/gpu}=4"
        run_kubectl("wait", f"node/{node}", there, "--timeout=150s")
        yield False
    finally:
        run_kubectl("patch", "node", node, *capacity(None))


def capacity(gpus: str | None) -> tuple[str, ...]:
    """Return the arguments of `kubectl patch` that set, or remove, how many GPUs a node has."""
    status = {"status": {"capacity": {GPU: gpus}}}
    return ("--subresource=status", "--type=merge", "-p", json.dumps(status))


@pytest.fixture
def namespace(namespaces: Namespaces, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own: Pod Security restricted, accounts, roles, the ServingRuntime, the store's keys."""
    with namespaces(request.node.path.stem.removeprefix("test_").replace("_", "-")) as name:
        yield name


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
def folders(project: Path) -> list[Path]:
    """The folders of the two versions, the older first."""
    return sorted((project / "runs").glob("*/artifacts/push/package"))


@pytest.fixture(scope="session")
def versions(folders: list[Path]) -> Iterator[list[registry.Version]]:
    """The two packages as versions of a registry in the store; this process may read and write the store."""
    before = dict(os.environ)
    os.environ.update(STORE)
    shelf = registry.open(f"s3://boatyard/tests-{secrets.token_hex(3)}", Path.cwd())
    yield [shelf.push(package) for package in folders]
    os.environ.clear()
    os.environ.update(before)
