"""Rollouts on a real cluster: nothing is lost, what does not serve is taken back, one deploys at a time."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import graphs
import pytest
from kube import STORE, Kubectl, Manifest, Namespaces

from boatyard import deployment, packages, registry
from boatyard.deployment.leases import hold
from boatyard.errors import ClusterError, Conflict, RolledBack
from boatyard.kubernetes import cluster
from boatyard.project import ServeConfig

pytestmark = pytest.mark.cluster

SMALL = {"cpu": "200m", "memory": "512Mi"}
WRONG = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"name": "insects", "versions": [DIGEST], "ready": True})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        self.answer({"predictions": [{"label": "cat", "probabilities": [0.1, 0.1, 0.8]} for _ in asked]})
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
import signal, sys, threading
server = http.server.ThreadingHTTPServer(("", 8080), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
import sys
DIGEST = sys.argv[-1].partition("=")[2]
server.serve_forever()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[packages.Package]:
    """Two packages of one name that answer differently."""
    folders = [tmp_path_factory.mktemp(f"package{seed}") for seed in range(2)]
    return [graphs.package(folder, graphs.image_schema(), seed) for seed, folder in enumerate(folders)]


@pytest.fixture(scope="module")
def places(made: list[packages.Package]) -> Iterator[list[str]]:
    """Where the two lie in the store, as versions of a registry; this process may read the store."""
    before = dict(os.environ)
    os.environ.update(STORE)
    shelf = registry.open(f"s3://boatyard/tests-{secrets.token_hex(3)}", Path.cwd())
    yield [shelf.push(package.path).uri for package in made]
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def space(namespaces: Namespaces) -> Iterator[str]:
    with namespaces("deployment") as name:
        yield name


@pytest.fixture(scope="module")
def there() -> cluster.Cluster:
    return cluster.connect()


def objects(
    package: packages.Package, place: str, space: str, number: int | None = None, **dials: Any
) -> list[Manifest]:
    config = ServeConfig(namespace=space, **{**SMALL, **dials})  # type: ignore[arg-type]
    return deployment.manifests(package, config, place, version=number)


def boatyard(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does."""
    return subprocess.run([sys.executable, "-m", "boatyard", *arguments], capture_output=True, text=True, timeout=300)


class Asking:
    """Somebody who asks one golden example again and again, each time over a connection of its own."""

    def __init__(self, space: str, package: packages.Package) -> None:
        self.url = f"http://insects-predictor.{space}.svc.cluster.local/v1/models/insects:predict"
        self.body = json.dumps({"instances": [packages.question(package, 0)]}).encode()
        self.answers: Counter[str] = Counter()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.ask, daemon=True)

    def ask(self) -> None:
        while not self.ended.wait(0.03):
            try:
                with urllib.request.urlopen(urllib.request.Request(self.url, self.body), timeout=20) as answer:
                    self.answers[str(answer.status)] += 1
            except OSError as error:
                self.answers[repr(error)] += 1


@contextmanager
def asked(space: str, package: packages.Package) -> Iterator[Counter[str]]:
    asking = Asking(space, package)
    asking.thread.start()
    try:
        yield asking.answers
    finally:
        asking.ended.set()
        asking.thread.join()


@pytest.fixture
def first(there: cluster.Cluster, made: list[packages.Package], places: list[str], space: str) -> list[Manifest]:
    """The first version, and it serves."""
    wanted = objects(made[0], places[0], space, 1)
    deployment.deploy(there, wanted, deployment.proof(made[0]), patience=180)
    return wanted


def test_the_pods_are_what_was_rendered(
    there: cluster.Cluster, first: list[Manifest], made: list[packages.Package], space: str
) -> None:
    found = there.get("Deployment", "insects-predictor", space)
    assert found
    assert found["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    pod = found["spec"]["template"]["spec"]
    server = next(each for each in pod["containers"] if each["name"] == "kserve-container")
    assert pod["terminationGracePeriodSeconds"] == 60
    assert pod["serviceAccountName"] == "boatyard-serving"
    assert pod["topologySpreadConstraints"] == first[1]["spec"]["predictor"]["topologySpreadConstraints"]
    assert server["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert server["resources"] == {"requests": SMALL, "limits": SMALL}
    assert server["args"][-1] == f"--digest={made[0].digest}"
    for probe, path in (("startupProbe", "ready"), ("readinessProbe", "ready")):
        assert server[probe]["httpGet"]["path"] == f"/v2/models/insects/{path}"
    assert server["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    running, *_ = there.list("Pod", space, labels={"serving.kserve.io/inferenceservice": "insects"})
    (fetching,) = running["spec"]["initContainers"]
    assert fetching["command"] == ["tini", "--", "python", "-m", "boatyard.initializer"]
    scaler = there.get("HorizontalPodAutoscaler", "insects-predictor", space)
    assert scaler and (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 3)
    budget = there.get("PodDisruptionBudget", "insects-predictor", space)
    assert budget and 1 <= budget["status"]["expectedPods"] <= 3


def test_versions_roll_and_roll_back_without_a_lost_request(
    there: cluster.Cluster, first: list[Manifest], made: list[packages.Package], places: list[str], space: str
) -> None:
    with asked(space, made[0]) as answers:
        found = deployment.deploy(there, objects(made[1], places[1], space, 2), deployment.proof(made[1]))
        assert (found.version, found.proven, found.former) == ("2", 8, "version 1")
        assert found.replicas >= 1  # the autoscaler may have added some: somebody asks
        assert set(deployment.status(there, "insects", space).traffic) == {made[1].digest}
        back = deployment.rollback(there, "insects", space, lambda _: deployment.proof(made[0]))
    assert (back.version, back.proven, back.former) == ("1", 8, "version 2")
    print(f"\nrolled to 2 in {found.seconds} s, back in {back.seconds} s: {dict(answers)}")
    assert set(answers) == {"200"} and answers["200"] > 50


def test_a_package_that_answers_wrong_is_taken_back_and_the_former_served_all_the_while(
    there: cluster.Cluster,
    first: list[Manifest],
    made: list[packages.Package],
    places: list[str],
    space: str,
) -> None:
    broken = deployment.runtime("boatyard/serve:dev", space)
    broken["metadata"]["name"] = "wrong"
    broken["spec"]["supportedModelFormats"] = [{"name": "boatyard", "version": "1"}]
    server = broken["spec"]["containers"][0]
    right = there.get("ServingRuntime", "boatyard", space)
    assert right
    server |= {"image": right["spec"]["containers"][0]["image"], "command": ["python", "-c", WRONG]}
    there.apply(broken)
    wanted = objects(made[1], places[1], space, 2, runtime="wrong")
    with asked(space, made[0]) as answers, pytest.raises(RolledBack) as refused:
        deployment.deploy(there, wanted, deployment.proof(made[1]), patience=180)
    assert "version 2 does not serve: reference row" in str(refused.value)
    assert "is answered wrong through the Service: " in str(refused.value)
    assert str(refused.value).endswith("version 1 was put back and serves")
    assert set(answers) == {"200"}
    assert deployment.plan(there, first) == []
    assert set(deployment.status(there, "insects", space).traffic) == {made[0].digest}


def test_a_package_that_never_gets_ready_is_taken_back_and_never_called_ready(
    there: cluster.Cluster, first: list[Manifest], made: list[packages.Package], places: list[str], space: str
) -> None:
    other = "s3://boatyard/nothing/sha256-" + made[1].digest
    with asked(space, made[0]) as answers, pytest.raises(RolledBack, match=r"version 2 does not serve: .*put back"):
        deployment.deploy(there, objects(made[1], other, space, 2), deployment.proof(made[1]), patience=120)
    assert set(answers) == {"200"}
    assert set(deployment.status(there, "insects", space).traffic) == {made[0].digest}


def test_a_plan_says_field_by_field_what_changes_and_why_and_then_nothing(
    there: cluster.Cluster, first: list[Manifest], made: list[packages.Package], places: list[str], space: str
) -> None:
    assert deployment.plan(there, first) == []
    changes = {change.field: change for change in deployment.plan(there, objects(made[1], places[1], space, 2))}
    place = changes["spec.predictor.model.storageUri"]
    assert (place.old, place.new, place.reason) == (places[0], places[1], "where the package lies (serve.storage)")
    assert changes["metadata.annotations.boatyard/version"].new == "2"
    assert "one by one" in changes["metadata.annotations.boatyard/rendered"].reason
    subprocess.run(
        [
            "kubectl",
            "patch",
            "isvc",
            "insects",
            "-n",
            space,
            "--type=merge",
            "-p",
            '{"spec":{"predictor":{"maxReplicas":5}}}',
        ],
        check=True,
        capture_output=True,
    )
    (drift,) = deployment.plan(there, first)
    assert (drift.field, drift.old, drift.new) == ("spec.predictor.maxReplicas", 5, 3)
    assert drift.reason == "set by kubectl-patch, not by boatyard"


def test_of_two_deploys_one_wins_and_the_other_says_so(
    there: cluster.Cluster, first: list[Manifest], made: list[packages.Package], places: list[str], space: str
) -> None:
    before = there.get("InferenceService", "insects", space)
    with hold(there, "insects", space) as held, pytest.raises(Conflict) as refused:
        deployment.deploy(there, objects(made[1], places[1], space, 2), None)
    assert held.holder in str(refused.value) and "is at work; wait for its end and try again" in str(refused.value)
    after = there.get("InferenceService", "insects", space)
    assert before and after and before["metadata"]["generation"] == after["metadata"]["generation"]
    assert before["spec"] == after["spec"]
    assert before["metadata"]["annotations"] == after["metadata"]["annotations"]  # its status may change meanwhile


def test_a_deploy_that_was_killed_is_put_right_by_the_next(
    there: cluster.Cluster, first: list[Manifest], made: list[packages.Package], places: list[str], space: str
) -> None:
    command = [sys.executable, "-m", "boatyard", "deploy", str(made[1].path), "--storage", places[1], "-n", space]
    with asked(space, made[0]) as answers:
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as killed:
            assert killed.stderr and "rolls out" in killed.stderr.readline()
            killed.send_signal(signal.SIGKILL)
        done = boatyard(*command[3:])
    assert done.returncode == 0, done.stderr
    assert "8 reference outputs agree" in done.stdout
    found = deployment.status(there, "insects", space)
    assert (found.digest, found.former, found.deploying) == (made[1].digest, "1", "")
    assert set(answers) == {"200"}


class Way:
    """A way to the API server that can be shut: what is on it breaks, what comes is refused."""

    def __init__(self, host: str, port: int) -> None:
        self.to, self.open, self.sockets = (host, port), True, list[socket.socket]()
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                if not self.open:
                    near.close()
                    continue
                far = socket.create_connection(self.to)
                self.sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        self.shut(one, other)

    def shut(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.shut(*self.sockets, self.listener)
        for each in (*self.sockets, self.listener):
            each.close()


def test_an_api_server_that_is_gone_in_the_middle_is_waited_for(
    there: cluster.Cluster,
    first: list[Manifest],
    made: list[packages.Package],
    places: list[str],
    space: str,
    tmp_path: Path,
    kubectl: Kubectl,
) -> None:
    config = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
    address = urlsplit(config["clusters"][0]["cluster"]["server"])
    way = Way(address.hostname or "", address.port or 443)
    port = way.listener.getsockname()[1]
    config["clusters"][0]["cluster"] |= {
        "server": f"https://127.0.0.1:{port}",
        "tls-server-name": "kubernetes.default.svc",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    command = [sys.executable, "-m", "boatyard", "deploy", str(made[1].path), "--storage", places[1], "-n", space]
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "config")}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as deploying:
        assert deploying.stderr and deploying.stdout
        assert "rolls out" in deploying.stderr.readline()
        way.open = False
        way.shut(*way.sockets)
        time.sleep(8)
        way.open = True
        said, error = deploying.communicate(timeout=300)
    way.close()
    assert deploying.returncode == 0, error
    assert "8 reference outputs agree" in said
    assert set(deployment.status(there, "insects", space).traffic) == {made[1].digest}


def test_the_command_says_what_stands_and_ends_it(
    there: cluster.Cluster, first: list[Manifest], made: list[packages.Package], space: str
) -> None:
    found = json.loads(boatyard("status", "insects", "-n", space, "--json").stdout)
    assert (found["ready"], found["version"], found["digest"]) == (True, "1", made[0].digest)
    shown = boatyard("status", "insects", "-n", space).stdout
    assert "insects" in shown and re.search(r"([1-3]) of \1 answer \(scales 1 to 3, hpa\)", shown)
    lines = boatyard("logs", "insects", "-n", space).stdout
    assert f"loaded insects, sha256 {made[0].digest}: 8 reference outputs agree" in lines
    follow = [sys.executable, "-m", "boatyard", "logs", "insects", "-n", space, "-f"]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        begun = following.stdout.readline()
        assert boatyard("delete", "insects", "-n", space).stdout == "insects is deleted\n"
        followed = following.stdout.read()
    assert f"loaded insects, sha256 {made[0].digest}: 8 reference outputs agree" in begun + followed
    assert "stopping: not ready from now on" in followed and "serving.server INFO stopped" in followed
    assert there.get("PodDisruptionBudget", "insects-predictor", space) is None
    assert "nothing to delete" in boatyard("delete", "insects", "-n", space).stdout
    gone = boatyard("status", "insects", "-n", space)
    assert (gone.returncode, gone.stderr) == (
        1,
        f"boatyard: no InferenceService insects in namespace {space}; it has none\n",
    )


def test_what_the_cluster_refuses_is_one_line(
    there: cluster.Cluster, made: list[packages.Package], places: list[str], space: str
) -> None:
    with pytest.raises(ClusterError, match="no namespace nowhere; kubectl create namespace nowhere makes it"):
        deployment.deploy(there, objects(made[0], places[0], "nowhere"), None)
    with pytest.raises(ClusterError, match=f"no ServingRuntime absent in namespace {space}; kubectl apply -k"):
        deployment.deploy(there, objects(made[0], places[0], space, runtime="absent"), None)
