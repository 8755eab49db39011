"""The cluster of the tests: kubectl's own, with KServe, Trainer and an S3 store; see docs/cluster.md."""

import json
import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
OVERLAY = ROOT / "manifests" / "overlays" / "kind"
CLUSTER_SCOPED = ("Namespace", "ClusterRole", "ClusterRoleBinding", "ClusterStorageContainer", "ClusterTrainingRuntime")
ENDPOINT = os.environ.get("BOATYARD_TEST_S3", "http://s3.s3.svc.cluster.local:9000")
KEYS = {"AWS_ACCESS_KEY_ID": "boatyard", "AWS_SECRET_ACCESS_KEY": "boatyard-secret"}
STORE = {**KEYS, "AWS_ENDPOINT_URL": ENDPOINT, "AWS_REGION": "us-east-1"}
GPU = "nvidia.com/gpu"
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


@contextmanager
def in_store(name: str) -> Iterator[str]:
    """Give a place of its own in the cluster's store, the environment of this process set to reach it."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as cache:
        for variable, value in STORE.items():
            patch.setenv(variable, value)
        patch.setenv("BOATYARD_CACHE", cache)
        yield f"s3://boatyard/{name}/{uuid.uuid4().hex}"


def moved(manifests: list[Manifest], namespace: str) -> list[Manifest]:
    """Return the manifests of a namespace as they are in another; the quota stays behind."""
    there = []
    for each in json.loads(json.dumps(manifests)):
        if each["kind"] in (*CLUSTER_SCOPED, "ResourceQuota"):
            continue
        each["metadata"]["namespace"] = namespace
        for subject in each.get("subjects", []):
            subject["namespace"] = namespace
        there.append(each)
    return there


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
        "stringData": STORE,
    }
