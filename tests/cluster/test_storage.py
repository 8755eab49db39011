"""A package in S3 or on a claim is served by its digest on a real cluster, or its pod does not start and says why."""

from __future__ import annotations

import json
import os
import random
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import graphs
import pytest
from kube import ENDPOINT, KEYS, Kubectl, Manifest, Namespaces

from boatyard import deployment, packages, registry, storage
from boatyard.data import artifacts
from boatyard.errors import ArtifactError
from boatyard.kubernetes import cluster
from boatyard.packages.manifest import read_files
from boatyard.project import ServeConfig
from boatyard.registry import Registry
from boatyard.storage import transfer

pytestmark = pytest.mark.cluster

IMAGE = os.environ.get("BOATYARD_TEST_SERVE_IMAGE", "boatyard/serve:dev")
PATIENCE = 120.0
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def space(namespaces: Namespaces) -> Iterator[str]:
    """One namespace for all of this file: Pod Security restricted, accounts and keys as the manifests make them."""
    with namespaces("storage") as name:
        yield name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small package."""
    return graphs.package(tmp_path_factory.mktemp("package") / "made", graphs.image_schema()).path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry of its own in the cluster's store, gone after the test."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": ENDPOINT, "BOATYARD_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    place = f"s3://boatyard/test-storage/{uuid.uuid4().hex}"
    yield registry.open(place, tmp_path)
    for key in storage.open(place).list():
        rewrite(place, key, None)


def endpoint(name: str, uri: str, digest: str, **predictor: Any) -> Manifest:
    """An InferenceService of a package at a URI that must have a digest."""
    model = {"modelFormat": {"name": "boatyard"}, "storageUri": uri, "args": [f"--digest={digest}"]}
    model["resources"] = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    named = {"storageContainerName": "boatyard"} if storage.bound(uri) else {}
    notes = {"boatyard/digest": digest, "serving.kserve.io/autoscalerClass": "none"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": {"serving.kserve.io/deploymentMode": "Standard", **notes}},
        "spec": {"predictor": {"serviceAccountName": "boatyard-serving", "model": model, **named, **predictor}},
    }


def pod(kubectl: Kubectl, space: str, name: str) -> Manifest | None:
    """Return an endpoint's pod, None while there is none."""
    label = f"serving.kserve.io/inferenceservice={name}"
    found = json.loads(kubectl("get", "pods", "-n", space, "-l", label, "-o", "json"))["items"]
    return found[0] if found else None


def until(what: str, look: Callable[[], Any]) -> Any:
    """Look again and again until there is something to see."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.3)
    raise AssertionError(f"not seen within {PATIENCE:.0f} s: {what}")


def served(kubectl: Kubectl, space: str, name: str) -> None:
    kubectl("wait", "-n", space, f"isvc/{name}", "--for=condition=Ready", f"--timeout={PATIENCE:.0f}s")


def ask(space: str, name: str, package: packages.Package) -> Any:
    """Ask a golden example through the Service and return the prediction."""
    body = json.dumps({"instances": [packages.question(package, 0)]}).encode()
    url = f"http://{name}-predictor.{space}.svc.cluster.local/v1/models/{name}:predict"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})

    def look() -> Any:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)["predictions"]
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:  # Ready is said a moment before the node's proxy knows the pod
            return None

    return until("an answer through the Service", look)[0]


def failure(kubectl: Kubectl, space: str, name: str, kind: str = "initContainerStatuses") -> str:
    """Wait until an endpoint's initializer or predictor has failed, and return what the pod's status says of it."""

    def look() -> list[str]:
        for status in ((pod(kubectl, space, name) or {}).get("status") or {}).get(kind) or []:
            for state in (status["state"], status["lastState"]):
                if ended := state.get("terminated"):
                    assert ended["exitCode"] == 1, ended
                    return [str(ended.get("message", "")).strip()]
        return []

    message: str = until(f"{name} fails", look)[0]
    return message


def delete(kubectl: Kubectl, space: str, *names: str) -> None:
    kubectl("delete", "isvc", "-n", space, *names, "--wait=false")


def test_a_package_in_s3_is_served_through_our_initializer(
    kubectl: Kubectl, space: str, shelf: Registry, made: Path
) -> None:
    version = shelf.push(made, alias="production")
    kubectl("apply", "-n", space, "-f", "-", manifests=[endpoint("whole", version.uri, version.digest)])
    served(kubectl, space, "whole")
    package = packages.verify(made)
    assert ask(space, "whole", package)["label"] == str(package.golden.answers.labels[0])  # type: ignore[index]
    found = pod(kubectl, space, "whole")
    assert found and [c["name"] for c in found["spec"]["initContainers"]] == ["storage-initializer"]
    assert "boatyard.initializer" in found["spec"]["initContainers"][0]["command"]
    assert found["spec"]["initContainers"][0]["args"][0] == version.uri
    log = kubectl("logs", "-n", space, found["metadata"]["name"], "-c", "storage-initializer")
    assert f"package {version.digest} is complete and verified" in log
    delete(kubectl, space, "whole")


def test_what_is_not_the_package_stops_the_pod_with_one_line(
    kubectl: Kubectl, space: str, shelf: Registry, made: Path
) -> None:
    version = shelf.push(made)
    good = storage.open(version.uri)
    places = {how: shelf_copy(version.uri, how) for how in ("changed", "missing", "surplus")}
    graph = good.read("model.onnx")
    rewrite(places["changed"], "model.onnx", graph[:-1] + bytes([graph[-1] ^ 1]))
    rewrite(places["missing"], "labels.json", None)
    rewrite(places["surplus"], "code.py", b"import os")
    isvcs = [endpoint(how, place, version.digest) for how, place in places.items()]
    isvcs += [endpoint("other", version.uri, "0" * 64), endpoint("nothing", version.uri[:-64] + "0" * 64, "0" * 64)]
    kubectl("apply", "-n", space, "-f", "-", manifests=isvcs)
    sha256 = artifacts.digest_bytes(graph)
    for name, said in {
        "changed": f"model.onnx was changed: expected sha256 {sha256}, found ",
        "missing": "found no such object",
        "surplus": "expected only what package.json lists, found code.py too",
        "other": f"expected sha256 {'0' * 64} (boatyard/digest), found {version.digest}",
        "nothing": "expected package.json, found no such object",
    }.items():
        line = failure(kubectl, space, name)
        assert line.startswith("boatyard: ") and "\n" not in line, line
        assert said in line, line
        found = pod(kubectl, space, name)
        assert found and "running" not in found["status"]["containerStatuses"][0]["state"]
    delete(kubectl, space, *(isvc["metadata"]["name"] for isvc in isvcs))


def test_a_wrong_key_stops_the_pod_with_one_line(kubectl: Kubectl, space: str, shelf: Registry, made: Path) -> None:
    version = shelf.push(made)
    host = ENDPOINT.partition("://")[2]
    notes = {"serving.kserve.io/s3-endpoint": host, "serving.kserve.io/s3-usehttps": "0"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong", "annotations": notes}}
    secret["stringData"] = {**KEYS, "AWS_SECRET_ACCESS_KEY": "wrong"}
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "wrong"},
        "secrets": [{"name": "wrong"}],
    }
    isvc = endpoint("wrong-key", version.uri, version.digest, serviceAccountName="wrong")
    kubectl("apply", "-n", space, "-f", "-", manifests=[secret, account, isvc])
    line = failure(kubectl, space, "wrong-key")
    assert "refused the key (SignatureDoesNotMatch); look at AWS_ACCESS_KEY_ID" in line and "\n" not in line
    delete(kubectl, space, "wrong-key")


def test_other_peoples_models_in_s3_are_left_to_kserve(kubectl: Kubectl, space: str) -> None:
    def initializer(uri: str, **more: str) -> Manifest:
        notes = {"internal.serving.kserve.io/storage-initializer-sourceuri": uri, **more}
        labels = {"serving.kserve.io/inferenceservice": "theirs"}
        spec = {"containers": [{"name": "kserve-container", "image": IMAGE}]}
        metadata = {"name": "theirs", "annotations": notes, "labels": labels}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        output = kubectl("create", "-n", "default", "--dry-run=server", "-o", "json", "-f", "-", manifests=[made])
        found = json.loads(output)
        return dict((found["items"] if found["kind"] == "List" else [found])[0]["spec"]["initContainers"][0])

    for theirs in ("s3://models/bert", "s3://models/bert/versions/3", f"s3://models/sha256-{'0' * 64}/model"):
        assert "boatyard" not in json.dumps(initializer(theirs))
    ours = initializer(
        f"s3://models/digits/packages/sha256-{'0' * 64}",
        **{"internal.serving.kserve.io/storage-container-name": "boatyard"},
    )
    assert "boatyard.initializer" in ours["command"]


def test_a_package_on_a_claim_is_held_to_its_digest_by_the_predictor(
    kubectl: Kubectl, space: str, shelf: Registry, made: Path
) -> None:
    version = shelf.push(made)
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}}
    claim["spec"] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}
    fill = work("fill", ["python", "-m", "boatyard.initializer", version.uri, "/models/digits"], claim="models")
    kubectl("apply", "-n", space, "-f", "-", manifests=[claim, fill])
    finished(kubectl, space, "fill")
    package, config = packages.verify(made), ServeConfig(namespace=space, cpu="100m", memory="512Mi")
    objects = deployment.manifests(package, config, "pvc://models/digits")
    assert deployment.deploy(cluster.connect(), objects, deployment.proof(package)).digest == version.digest
    found = pod(kubectl, space, package.name)
    assert found and "initContainers" not in found["spec"]
    delete(kubectl, space, package.name)
    spoil = "f = open('/models/digits/labels.json', 'r+'); f.write(' ')"
    kubectl("apply", "-n", space, "-f", "-", manifests=[work("spoil", ["python", "-c", spoil], claim="models")])
    finished(kubectl, space, "spoil")
    isvcs = [endpoint("spoilt", "pvc://models/digits", version.digest)]
    isvcs += [endpoint("unlike", "pvc://models/digits", "0" * 64)]
    kubectl("apply", "-n", space, "-f", "-", manifests=isvcs)
    for name, said in {"spoilt": "labels.json was changed", "unlike": f"expected sha256 {'0' * 64}"}.items():
        assert said in failure(kubectl, space, name, "containerStatuses")
    delete(kubectl, space, "spoilt", "unlike")


def test_a_download_killed_in_its_pod_goes_on_where_it_was(
    kubectl: Kubectl, space: str, shelf: Registry, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.mkdir()
    (big / "model.onnx").write_bytes(random.Random(0).randbytes(20 * transfer.PART_BYTES))
    digest = artifacts.seal(big, "package", {"name": "big", "task": "classification"}, name=packages.MANIFEST)
    uri = f"{shelf.place}/big/sha256-{digest}"
    transfer.send(big, storage.open(uri), name=packages.MANIFEST, read=read_files)
    script = f"""
    if [ -e /scratch/began ]; then exec python -m boatyard.initializer {uri} /models; fi
    touch /scratch/began; python -m boatyard.initializer {uri} /models & child=$!
    until [ "$(cat /models/.boatyard/*.parts 2>/dev/null | wc -l)" -ge 3 ]; do sleep 0.005; done
    kill -9 $child; exit 137
    """
    made = work("killed", ["sh", "-c", script], digest=digest)
    kubectl("apply", "-n", space, "-f", "-", manifests=[made])
    finished(kubectl, space, "killed")
    status = json.loads(kubectl("get", "pod", "-n", space, "killed", "-o", "json"))["status"]["containerStatuses"][0]
    assert status["restartCount"] == 1
    log = kubectl("logs", "-n", space, "killed")
    assert "MB had come before" in log and f"package {digest} is complete and verified" in log, log


def test_many_who_push_at_once_to_the_clusters_store_each_win_once(shelf: Registry, tmp_path: Path) -> None:
    made = [graphs.package(tmp_path / str(seed), graphs.image_schema(), seed).path for seed in range(6)]
    with ThreadPoolExecutor(12) as pool:
        versions = list(pool.map(lambda n: shelf.push(made[n % 6], alias="production"), range(18)))
    assert sorted({version.version for version in versions}) == list(range(1, 7))
    assert len({(version.version, version.digest) for version in versions}) == 6
    moves = [event["version"] for event in shelf.log() if event["event"] == "alias"]
    assert shelf.aliases("insects") == {"production": moves[-1]}
    assert [event["version"] for event in shelf.log() if event["event"] == "push"] == list(range(1, 7))
    for version in shelf.versions("insects"):
        assert packages.verify(shelf.pull("insects", version.version)).digest == version.digest
    with pytest.raises(ArtifactError, match=r"model\.onnx was changed"):
        place = storage.open(versions[0].uri)
        graph = place.read("model.onnx")
        rewrite(versions[0].uri, "model.onnx", graph[:-1] + bytes([graph[-1] ^ 1]))
        shelf.pull("insects", versions[0].version, tmp_path / "out")


# Pods, objects


def work(name: str, command: list[str], claim: str | None = None, digest: str = "") -> Manifest:
    """A pod of the image that does one thing, as restricted as the namespace wants it; it keeps /models."""
    volume: Manifest = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
    env = [{"name": key, "value": value} for key, value in {**KEYS, "AWS_ENDPOINT_URL": ENDPOINT}.items()]
    container = {
        "name": "work",
        "image": IMAGE,
        "command": ["tini", "--", *command],
        "env": [*env, {"name": "BOATYARD_DIGEST", "value": digest}],
        "securityContext": RESTRICTED,
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "volumeMounts": [{"name": n, "mountPath": f"/{n}"} for n in ("models", "scratch")],
    }
    volumes = [{"name": "models", **volume}, {"name": "scratch", "emptyDir": {}}]
    spec = {"restartPolicy": "OnFailure", "containers": [container], "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def finished(kubectl: Kubectl, space: str, name: str) -> None:
    phase = "--for=jsonpath={.status.phase}=Succeeded"
    said = kubectl("wait", "-n", space, f"pod/{name}", phase, f"--timeout={PATIENCE:.0f}s", check=False)
    assert "condition met" in said, said + kubectl("logs", "-n", space, name, check=False)


def shelf_copy(uri: str, where: str) -> str:
    """Copy a package's objects elsewhere in the bucket, under the same digest, and return the URI."""
    there = uri.replace("/packages/", f"/{where}/")
    for key in storage.open(uri).list():
        rewrite(there, key, storage.open(uri).read(key))
    return there


def rewrite(uri: str, key: str, data: bytes | None) -> None:
    """Put other bytes in an object's place, or nothing, as someone with a key of his own may."""
    import obstore

    place = storage.open(uri)
    if key in place.list():
        obstore.delete(place.store, f"{place.prefix}/{key}")
    assert data is None or place.write(key, data, None)
