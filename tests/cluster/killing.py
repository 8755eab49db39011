"""A killer of training pods: at random moments, in four ways; and a training that is long enough to be killed."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import state_recipes
from backend import IMAGE
from kube import STORE, run_kubectl

from boatyard import training
from boatyard.data import artifacts
from boatyard.kubernetes import cluster
from boatyard.project import GateConfig, PreprocessConfig, StepConfig, TrainConfig
from boatyard.training import trainjobs
from boatyard.training.launchers import trainjob

POD = StepConfig(
    cpu="100m", memory="1Gi", timeout="30m", secrets={key: f"boatyard-s3/{key}" for key in STORE}
)  # small: two of them stand on a laptop
CLAIM = "boatyard-training"
FOLDER = (
    f"/mnt/pvc/{CLAIM}/project"  # in the pods: where the recipe of these trainings lies, on the claim that they share
)
MEASURED = {"seconds", "images_per_second"}  # what a line of metrics says of the time that an epoch took
EPOCHS = 15  # for each kill: more than pass between two, so that a training is not over too soon
STARTING, TRAINING = 8.0, 2.0  # seconds after both pods run, or after an epoch's end, within which one is killed


@dataclass
class Killer:
    """Ends one of a TrainJob's pods, in one of four ways, each time that all of them run anew."""

    cluster: cluster.Cluster
    namespace: str
    kills: int
    chance: random.Random
    nodes: int = 2
    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # ways that come before one comes again
    over: threading.Event = field(default_factory=threading.Event)
    seen: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Go on until so many kills are done, or the training is over."""
        while len(self.done) < self.kills and not self.over.wait(0.5):
            pods = [pod for pod in self.pods() if pod not in self.seen]
            if len(pods) < self.nodes:
                continue
            self.seen |= set(pods)
            self.wait()
            self.left = self.left or self.chance.sample(sorted(WAYS), len(WAYS))
            if not self.over.is_set() and WAYS[self.left[-1]](self, self.chance.choice(pods)):
                self.done.append(self.left.pop())
            else:
                self.seen -= set(pods)

    def wait(self) -> None:
        """Let a random time pass: of the start, or once an epoch more is done, of the training."""
        if self.chance.random() < 0.4:
            self.over.wait(self.chance.uniform(0, STARTING))
            return
        epochs = self.epochs()
        while self.epochs() == epochs and not self.over.wait(0.1):
            pass
        self.over.wait(self.chance.uniform(0, TRAINING))

    def epochs(self) -> int:
        """Count the epochs that were said to be done."""
        return sum("train_loss" in line for line in self.said)

    def pods(self) -> list[str]:
        """Return the names of the pods that run."""
        found = self.cluster.list("Pod", self.namespace, labels=trainjobs.PODS_LABEL)
        return [p["metadata"]["name"] for p in found if p["status"].get("phase") == "Running"]

    def kubectl(self, *arguments: str) -> bool:
        done = subprocess.run(["kubectl", "-n", self.namespace, *arguments], capture_output=True, check=False)
        return done.returncode == 0

    def delete(self, pod: str) -> bool:
        """SIGTERM first: all save."""
        return self.kubectl("delete", "pod", pod, "--wait=false")

    def destroy(self, pod: str) -> bool:
        """SIGKILL at once, as when a machine is lost."""
        return self.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")

    def crash(self, pod: str) -> bool:
        """Kill the process that trains, not the pod: found by its argument."""
        code = (
            "import os,signal\nleft = True\nfor p in filter(str.isdigit, os.listdir('/proc')):\n"
            "    words = open(f'/proc/{p}/cmdline').read().split(chr(0))\n"
            "    if words[-2:] == ['process', ''] and int(p) != os.getpid():\n"
            "        left = os.kill(int(p), signal.SIGKILL)\n"
            "raise SystemExit(left)"  # 1 where none trains yet
        )
        return self.kubectl("exec", pod, "--", "python", "-c", code)

    def evict(self, pod: str) -> bool:
        """As a drain or a pre-emption does: the pod is marked as disrupted."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace}}
        self.cluster.request("POST", self.cluster.path("Pod", self.namespace, pod) + "/eviction", body=body)
        return True


WAYS: dict[str, Callable[[Killer, str], bool]] = {
    "deleted": Killer.delete,
    "destroyed": Killer.destroy,
    "crashed": Killer.crash,
    "evicted": Killer.evict,
}


def train(
    name: str,
    config: TrainConfig,
    dataset: Path,
    out: Path,
    where: cluster.Cluster,
    namespace: str,
    killer: Killer | None,
) -> list[str]:
    """Train on the cluster while a killer is at work; return what was said."""
    said: list[str] = killer.said if killer else []
    thread = threading.Thread(target=killer.run, daemon=True) if killer else None
    if thread:
        thread.start()
    try:
        trainjob.train(
            config,
            PreprocessConfig(),
            GateConfig(),
            dataset,
            out,
            cluster=where,
            name=name,
            pod=POD,
            namespace=namespace,
            folder=FOLDER,
            say=lambda line: said.append(f"{time.strftime('%H:%M:%S')} {line}"),
        )
    finally:
        if killer and thread:
            killer.over.set()
            thread.join()
    return said


def long(kills: int, storage: str) -> TrainConfig:
    """Return a training that is long enough to be killed so often, of a recipe that has every sort of state to lose."""
    model = {"blocks": [8, 16], "dropout": 0.2}
    settings = {"optimizer": "adam", "learning_rate": 0.003, "accumulate": 2, "epochs": EPOCHS * (kills + 1)}
    return TrainConfig(recipe="sorts:Killed", model=model, nodes=2, storage=storage, **settings)


def install_recipes(namespace: str) -> None:
    """Put the recipes into a folder of the claim that the pods of a namespace's trainings mount."""
    code = (
        f"import os, pathlib\nf = pathlib.Path('{FOLDER}')\nf.mkdir()\n(f / 'sorts.py').write_text(os.environ['TEXT'])"
    )
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    container = {
        "name": "fill",
        "image": IMAGE,
        "command": ["python", "-c", code],
        "env": [{"name": "TEXT", "value": Path(state_recipes.__file__).read_text()}],
        "volumeMounts": [{"name": "claim", "mountPath": f"/mnt/pvc/{CLAIM}"}],
        "resources": {"limits": {"cpu": "1", "memory": "256Mi"}},
        "securityContext": security,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "fill"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": CLAIM}}],
        },
    }
    run_kubectl("create", "-n", namespace, "-f", "-", manifests=[pod])
    run_kubectl("wait", "-n", namespace, "pod/fill", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=150s")


def result(out: Path) -> tuple[list[str], list[dict[str, float]]]:
    """Return what a training came to: the digests of graph and weights, and every epoch's numbers."""
    lines = [json.loads(line) for line in (out / training.METRICS).read_text().splitlines()]
    numbers = [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]
    return [artifacts.digest_file(out / name) for name in (training.GRAPH, training.WEIGHTS)], numbers
