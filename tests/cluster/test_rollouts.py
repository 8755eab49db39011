"""Nobody notices: rolling from version to version and scaling by load, with requests all the while. Figures: -s.

ROLLS=5 makes it the whole measure (make measure-cluster); CI rolls once there and back.
"""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kube import Kubectl, Manifest

from boatyard import deployment, packages
from boatyard.project import ServeConfig
from boatyard.registry import Version

pytestmark = pytest.mark.cluster

ROLLS = int(os.environ.get("ROLLS", "1"))
NAME = "digits"
READY = 120  # seconds for a version to replace another on a busy machine


def objects(namespace: str, package: Path, version: Version, **dials: Any) -> list[Manifest]:
    """Return the objects that `boatyard render` makes of a version; dials: the serve section's."""
    config = ServeConfig(namespace=namespace, memory="1Gi", **{"autoscaling": {"maximum": 1}, "cpu": "500m", **dials})
    return deployment.manifests(packages.verify(package), config, version.uri, version=version.version)


def pods(kubectl: Kubectl, namespace: str) -> list[Manifest]:
    """Return the endpoint's pods."""
    chosen = f"serving.kserve.io/inferenceservice={NAME}"
    found: list[Manifest] = json.loads(kubectl("get", "pods", "-n", namespace, "-l", chosen, "-o", "json"))["items"]
    return found


def ready(pod: Manifest) -> bool:
    """Whether a pod answers and was not told to stop."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def wait(what: str, holds: Callable[[], bool], seconds: float = READY) -> float:
    """Wait until something holds and return the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.3)
    return time.monotonic() - began


def rolled(kubectl: Kubectl, namespace: str, version: Version) -> bool:
    """Whether every pod that is left has this version and one of them answers."""
    found = pods(kubectl, namespace)
    digests = {each["metadata"]["annotations"].get("boatyard/digest") for each in found}
    return digests == {version.digest} and any(ready(each) for each in found)


class Load:
    """Clients that ask until told to stop; every answer but 200 is kept."""

    def __init__(self, host: str, body: bytes, clients: int, pause: float) -> None:
        """Each of `clients` waits `pause` seconds between two requests and connects anew every 20 of them."""
        self.answers: Counter[str] = Counter()
        self._ended = threading.Event()
        arguments = (host, body, pause)
        self._threads = [threading.Thread(target=self._ask, args=arguments, daemon=True) for _ in range(clients)]

    def __enter__(self) -> "Load":
        """Start the clients."""
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them and wait for the answers that are due."""
        self._ended.set()
        for each in self._threads:
            each.join()

    def _ask(self, host: str, body: bytes, pause: float) -> None:
        while not self._ended.is_set():
            connection = http.client.HTTPConnection(host, 80, timeout=30)
            for _ in range(20):
                try:
                    connection.request("POST", f"/v1/models/{NAME}:predict", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    self.answers[str(answer.status)] += 1
                except (OSError, http.client.HTTPException) as error:
                    self.answers[repr(error)] += 1
                    break
                if answer.will_close or self._ended.wait(pause):
                    break
            connection.close()


def question(package: Path) -> bytes:
    """Return the package's first golden example as a request."""
    golden = subprocess.run(
        [sys.executable, "-m", "boatyard", "show", str(package), "--golden", "0"], capture_output=True, check=True
    )
    return golden.stdout


def times(rows: int, body: bytes) -> bytes:
    """Return a request with so many times the rows: the server's work, not the clients'."""
    return json.dumps({"instances": json.loads(body)["instances"] * rows}).encode()


@contextmanager
def serving(kubectl: Kubectl, namespace: str, package: Path, version: Version, **dials: Any) -> Iterator[str]:
    """Yield the host of an endpoint that answers."""
    kubectl("apply", "-f", "-", manifests=objects(namespace, package, version, **dials))
    wait("the endpoint is ready", lambda: rolled(kubectl, namespace, version))
    host, body = f"{NAME}-predictor.{namespace}.svc.cluster.local", question(package)
    wait("its address answers", lambda: asked(host, 80, body))  # the node's proxy hears of a ready pod a moment later
    yield host


def test_no_request_is_lost_while_versions_roll(
    kubectl: Kubectl, namespace: str, versions: list[Version], folders: list[Path]
) -> None:
    first, second = zip(folders, versions, strict=True)
    seconds = []
    with serving(kubectl, namespace, *first) as host, Load(host, question(folders[0]), clients=4, pause=0.02) as load:
        for _ in range(ROLLS):
            for package, version in (second, first):
                kubectl("apply", "-f", "-", manifests=objects(namespace, package, version))
                seconds.append(wait(f"{version.uri} rolls out", lambda v=version: rolled(kubectl, namespace, v)))
    print(f"\n{len(seconds)} rollouts of {min(seconds):.0f} to {max(seconds):.0f} s: {dict(load.answers)}")
    assert set(load.answers) == {"200"}
    assert load.answers["200"] > 100 * len(seconds)


@pytest.mark.parametrize(("metric", "target"), [("cpu", 30), ("concurrency", 1)])
def test_no_request_is_lost_while_load_scales_from_one_to_three_and_back(
    kubectl: Kubectl, namespace: str, versions: list[Version], folders: list[Path], metric: str, target: int
) -> None:
    if metric == "concurrency" and "scaledobjects.keda.sh" not in kubectl("get", "crd", "-o", "name"):
        pytest.skip("KEDA is not in this cluster")
    scaling = {"maximum": 3, "metric": metric, "target": target}

    def running() -> int:
        return sum(ready(each) for each in pods(kubectl, namespace))

    with serving(kubectl, namespace, folders[0], versions[0], autoscaling=scaling, cpu="300m") as host:
        body = question(folders[0])
        with Load(host, body, clients=1, pause=0.2) as light:
            with Load(host, times(32, body), clients=8, pause=0) as heavy:
                third = wait("three pods answer", lambda: running() == 3, 240)
            back = wait("one pod is left", lambda: len(pods(kubectl, namespace)) == 1, 240)
    print(f"\n{metric}: third pod ready after {third:.0f} s of load, one left {back:.0f} s after it")
    print(f"while it grew {dict(heavy.answers)}, from beginning to end {dict(light.answers)}")
    assert set(heavy.answers) == set(light.answers) == {"200"}


def asked(host: str, port: int, body: bytes) -> bool:
    """Whether a server answers this question now."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("POST", f"/v1/models/{NAME}:predict", body, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def first_answer_outside(package: Path, body: bytes, port: int) -> float:
    """Return the seconds from the start of a server's process to its first answer."""
    command = [sys.executable, "-m", "boatyard.serving", f"--package={package}", f"--http-port={port}", "--grpc-port=0"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        while not asked("127.0.0.1", port, body):
            assert server.poll() is None and time.monotonic() - began < READY
            time.sleep(0.02)
        seconds = time.monotonic() - began
        server.terminate()
    return seconds


def first_answer_inside(kubectl: Kubectl, namespace: str, body: bytes) -> tuple[float, float]:
    """Return the seconds to a new pod's first answer: from the pod's making, and from its server's start."""
    former = {each["metadata"]["name"] for each in pods(kubectl, namespace)}
    kubectl("delete", "pods", "-n", namespace, "--wait=false", *former)
    new: list[Manifest] = []

    def has_address() -> bool:
        new[:] = [each for each in pods(kubectl, namespace) if each["metadata"]["name"] not in former]
        return any("podIP" in each["status"] for each in new)

    wait("a new pod has an address", has_address)
    address = new[0]["status"]["podIP"]
    while not asked(address, 8080, body):
        time.sleep(0.02)
    answered = time.time()
    wait("it is ready", lambda: any(ready(each) for each in pods(kubectl, namespace)))
    pod = next(each for each in pods(kubectl, namespace) if each["metadata"]["name"] == new[0]["metadata"]["name"])
    server = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    return answered - moment(pod["metadata"]["creationTimestamp"]), answered - moment(server)


def moment(text: str) -> float:
    """Return Kubernetes' time, in whole seconds, as seconds of the epoch."""
    return datetime.fromisoformat(text).timestamp()


def test_a_pod_answers_within_twice_the_time_of_a_process(
    kubectl: Kubectl, namespace: str, versions: list[Version], folders: list[Path]
) -> None:
    body = question(folders[0])
    outside = min(first_answer_outside(folders[0], body, 18090 + attempt) for attempt in range(2))
    with serving(kubectl, namespace, folders[0], versions[0], cpu="1"):
        made, started = min(first_answer_inside(kubectl, namespace, body) for _ in range(2))
    print(f"\nfirst answer {made:.1f} s after the pod was made, {started:.1f} s after its server's container started;")
    print(f"outside a pod {outside:.1f} s after the process started")
    assert started <= 2 * outside
