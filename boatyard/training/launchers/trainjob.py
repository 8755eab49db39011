"""Training on a cluster: a project's train section as a TrainJob, applied, followed and brought home.

The pods run `boatyard.training.node` of the image, under the ClusterTrainingRuntime `boatyard` of the manifests, which
decides how failures are taken; nothing of the function's source is sent. Dataset and checkpoint pass through a folder
that pods and caller both reach (a claim that is mounted here as well, or a bucket); states stay on the claim, so that
a run that was stopped in any way goes on.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard import __version__, errors, storage
from boatyard.data import artifacts, checkpoints, datasets
from boatyard.errors import BoatyardError, ConfigError, Interrupted
from boatyard.project import GateConfig, PreprocessConfig, Project, StepConfig, TrainConfig, seconds
from boatyard.settings import Settings

if TYPE_CHECKING:
    from boatyard.kubernetes.cluster import Cluster

logger = logging.getLogger(__name__)
RUNTIME = "boatyard"
ACCOUNT = "boatyard-training"
NODE = "node"  # the name that Trainer gives the job, and wants of the container
PODS = "jobset.sigs.k8s.io/jobset-name"
INDEX = "batch.kubernetes.io/job-completion-index"
GPU = "nvidia.com/gpu"
CLAIMS = Path("/mnt/pvc")  # where a pod mounts claims, by name
PULSE = 2.0  # seconds between looks
PATIENCE = 300.0  # seconds that the API server may not answer
Object = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What a pod is to do: the project's sections as plain values, and where dataset, checkpoint and states are."""

    train: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    gate: Mapping[str, Any]
    dataset: str
    out: str
    work: str

    def to_json(self) -> str:
        """Return it as the argument that a pod is given."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read a pod's argument; raises ConfigError."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"expected a job as boatyard writes it, found {text[:80]!r}: {error}") from error


def pod_of(project: Project) -> StepConfig:
    """Return what each pod of a project's training asks for: resources.train, and what all steps share."""
    common, step = project.kubeflow, project.resources.train
    return step.model_copy(
        update={
            "secrets": {**common.secrets, **step.secrets},
            "volumes": {**common.volumes, **step.volumes},
            "node_selector": {**common.node_selector, **step.node_selector},
            "tolerations": (*common.tolerations, *step.tolerations),
        }
    )


def manifest(
    name: str, job: Job, config: TrainConfig, pod: StepConfig, *, namespace: str, settings: Settings
) -> Object:
    """Return the TrainJob of a job. Pure: fields and rules are those of Kubeflow Trainer 2.3, v1alpha1."""
    labels = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/managed-by": "boatyard",
        "app.kubernetes.io/version": __version__,
    }
    limit = {"activeDeadlineSeconds": seconds(pod.timeout)} if pod.timeout else {}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": RUNTIME,
            },
            **limit,
            "trainer": {
                "image": settings.image,
                "command": ["tini", "--", "python", "-m", "boatyard.training.node"],
                "args": [job.to_json()],
                "numNodes": config.nodes,
                "numProcPerNode": max(config.gpus, 1),  # without it: one for each CPU
                "resourcesPerNode": _resources(config, pod),
                "env": [*_environment(config, pod, settings)],
            },
            "runtimePatches": [{"manager": "boatyard/trainjob", "trainingRuntimeSpec": _patch(config, pod)}],
        },
    }


def _resources(config: TrainConfig, pod: StepConfig) -> Object:
    """CPU may be exceeded, memory and GPUs not; a GPU stands among the limits."""
    memory = {"memory": pod.memory} if pod.memory else {}
    gpus = {_gpu(pod): config.gpus} if config.gpus else {}
    return {"requests": {**({"cpu": pod.cpu} if pod.cpu else {}), **memory}, "limits": {**memory, **gpus}}


def _gpu(pod: StepConfig) -> str:
    return pod.gpu.type if pod.gpu else GPU


def _environment(config: TrainConfig, pod: StepConfig, settings: Settings) -> Iterator[Object]:
    """As many threads as the request has CPUs, wherever the pod lands: the bits of a sum depend on their number."""
    threads = math.ceil(_cores(pod.cpu or "1")) // max(config.gpus, 1)
    yield {"name": "BOATYARD_THREADS", "value": str(max(threads, 1))}
    yield {"name": "BOATYARD_CLAIMS", "value": str(CLAIMS)}
    yield {"name": "BOATYARD_PATIENCE", "value": str(settings.patience)}
    if settings.project.is_absolute():
        yield {"name": "BOATYARD_PROJECT", "value": str(settings.project)}
    if settings.endpoint and "AWS_ENDPOINT_URL" not in pod.secrets:
        yield {"name": "AWS_ENDPOINT_URL", "value": settings.endpoint}
    for variable, secret in pod.secrets.items():
        held, key = secret.split("/")
        yield {"name": variable, "valueFrom": {"secretKeyRef": {"name": held, "key": key}}}


def _cores(cpu: str) -> float:
    return float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)


def _patch(config: TrainConfig, pod: StepConfig) -> Object:
    """Return what a pod has beyond the runtime's: the claim, an account without rights, where it may stand."""
    tolerations = [each.model_dump(exclude_none=True) for each in pod.tolerations]
    if config.gpus:
        tolerations.append({"key": _gpu(pod), "operator": "Exists", "effect": "NoSchedule"})
    mounts = {**pod.volumes, str(CLAIMS / config.claim): config.claim}
    claims = {claim: f"claim-{number}" for number, claim in enumerate(sorted(set(mounts.values())))}
    spec = {
        "serviceAccountName": ACCOUNT,
        **({"nodeSelector": dict(pod.node_selector)} if pod.node_selector else {}),
        **({"tolerations": tolerations} if tolerations else {}),
        "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": claim}} for claim, name in claims.items()],
        "containers": [
            {"name": NODE, "volumeMounts": [{"name": claims[c], "mountPath": path} for path, c in mounts.items()]}
        ],
    }
    return {
        "template": {"spec": {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": {"spec": spec}}}}]}}
    }


def train(
    config: TrainConfig,
    how: PreprocessConfig,
    gate: GateConfig,
    dataset: Path,
    out: Path,
    *,
    cluster: Cluster,
    name: str = "train",
    pod: StepConfig | None = None,
    namespace: str | None = None,
    say: Callable[[str], None] = logger.info,
) -> checkpoints.Training:
    """Train a dataset's recipe on the cluster and bring the checkpoint to `out`.

    The TrainJob's name follows from all that its result depends on: called again, it is followed where it is still
    running, and goes on from its last state where it is not. Raises the error that ended the training,
    ClusterError for what the cluster refused, Interrupted after a signal (the TrainJob is removed, its states stay).
    """
    pod, settings, namespace = pod or StepConfig(), Settings(), namespace or cluster.namespace
    data = datasets.read(dataset)
    place = name_of(name, config, how, gate, data.digest, settings.image)
    shared, claim = f"{config.storage or f'pvc://{config.claim}'}/{place}", f"pvc://{config.claim}/{place}"
    job = Job(
        config.values(), how.values(), gate.values(), f"{shared}/dataset", f"{shared}/checkpoint", f"{claim}/work"
    )
    put(dataset, job.dataset, datasets.KIND)
    wanted = manifest(place, job, config, pod, namespace=namespace, settings=settings)
    run(cluster, wanted, say=say)
    bring(job.out, out, checkpoints.KIND)
    return checkpoints.Training.read(out)


def name_of(name: str, config: TrainConfig, how: PreprocessConfig, gate: GateConfig, dataset: str, image: str) -> str:
    """Return a TrainJob's name: a project's, cut to what Kubernetes leaves of 63 letters, and a digest."""
    parts = [config.values(), how.values(), gate.seal, dataset, image]
    return f"{name[:30].rstrip('-')}-{artifacts.digest_json(parts)[:8]}"


def put(folder: Path, uri: str, kind: str) -> None:
    """Put a sealed folder where the pods read it, unless it is there."""
    if storage.in_bucket(uri):
        from boatyard.storage import sealed

        sealed.send(folder, storage.open(uri), kind=kind)
        return
    path = _mounted(uri)
    if (path / artifacts.MANIFEST).is_file() and _same(folder, path):
        return
    with artifacts.new_folder(path) as beside:
        shutil.copytree(folder, beside, dirs_exist_ok=True)


def bring(uri: str, folder: Path, kind: str) -> None:
    """Bring a sealed folder from where the pods wrote it; raises ArtifactError when a file is not as sealed."""
    with artifacts.new_folder(folder) as beside:
        if storage.in_bucket(uri):
            from boatyard.storage import sealed

            sealed.fetch(storage.open(uri), beside, kind=kind)
            return
        shutil.copytree(_mounted(uri), beside, dirs_exist_ok=True)
        artifacts.verify(beside, kind)


def _mounted(uri: str) -> Path:
    try:
        return storage.parse(uri, Path("/"))
    except errors.StorageError as error:
        raise ConfigError(
            f"train.storage: dataset and checkpoint pass through {uri.rpartition('/')[0]}, which is not reached from "
            "here; mount the claim, or give train.storage=s3://BUCKET/FOLDER"
        ) from error


def _same(one: Path, other: Path) -> bool:
    return artifacts.digest_file(one / artifacts.MANIFEST) == artifacts.digest_file(other / artifacts.MANIFEST)


# apply, follow, wait


def run(cluster: Cluster, wanted: Object, *, say: Callable[[str], None]) -> None:
    """Apply a TrainJob and follow it to its end; raises the error that ended it, Interrupted after a signal."""
    name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
    if (there := cluster.get("TrainJob", name, namespace)) and _condition(there, "Failed"):
        say(f"trainjob/{name} failed before; it goes on from its last state")
        remove(cluster, name, namespace)
    cluster.apply(wanted)
    say(f"trainjob/{name} in namespace {namespace}: {wanted['spec']['trainer']['numNodes']} nodes")
    with _told_to_stop() as stop:
        follower = Follower(cluster, name, namespace, say)
        while not follower.ended():
            if stop.wait(PULSE):
                remove(cluster, name, namespace, wait=False)
                raise Interrupted(f"trainjob/{name} was removed; its states are kept, run again to go on")
    follower.finish()


def remove(cluster: Cluster, name: str, namespace: str, *, wait: bool = True) -> None:
    """Delete a TrainJob, and wait until its pods are gone."""
    cluster.delete("TrainJob", name, namespace)
    until = time.monotonic() + PATIENCE
    while wait and time.monotonic() < until:
        if not (cluster.get("TrainJob", name, namespace) or cluster.list("Pod", namespace, labels={PODS: name})):
            return
        time.sleep(PULSE)


@dataclass
class Follower:
    """One TrainJob being watched: what each pod says, why one waits, what ended the training."""

    cluster: Cluster
    name: str
    namespace: str
    say: Callable[[str], None]
    restarts: int = 0
    reason: str = ""
    job: Object = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    threads: dict[str, threading.Thread] = field(default_factory=dict)
    silent_since: float | None = None

    def ended(self) -> bool:
        """Look once; return whether the TrainJob is at its end. An API server that is away is waited for."""
        try:
            self.job = self.cluster.get("TrainJob", self.name, self.namespace) or {}
            self.look()
            self.silent_since = None
        except errors.Unreachable as error:
            self.silent_since = self.silent_since or time.monotonic()
            if time.monotonic() - self.silent_since > PATIENCE:
                raise
            self.once(f"{error}; waiting")
            return False
        if not self.job:
            raise ConfigError(f"trainjob/{self.name} was deleted by another; its states are kept, run again to go on")
        return bool(_condition(self.job, "Complete") or _condition(self.job, "Failed"))

    def look(self) -> None:
        """Follow the pods that have started, say why others wait, note how one failed."""
        jobset = self.cluster.get("JobSet", self.name, self.namespace) or {}
        restarts = int(jobset.get("status", {}).get("restarts", 0))
        for pod in self.cluster.list("Pod", self.namespace, labels={PODS: self.name}):
            self.one(pod)
        if restarts > self.restarts:
            self.say(f"trainjob/{self.name}: start {restarts + 1}" + (f" ({self.reason})" if self.reason else ""))
            self.restarts, self.reason = restarts, ""

    def one(self, pod: Object) -> None:
        """Look at one pod."""
        uid, node = pod["metadata"]["uid"], pod["metadata"].get("labels", {}).get(INDEX, "?")
        state: Object = next((s["state"] for s in pod.get("status", {}).get("containerStatuses", [])), {})
        if ended := state.get("terminated"):
            if ended["exitCode"]:
                said = (ended.get("message") or ended.get("reason") or "").strip()
                self.reason = self.reason or f"node {node} ended with {ended['exitCode']}: {said}"
        elif "waiting" in state and state["waiting"].get("message"):
            self.once(f"node {node} waits: {state['waiting']['reason']}: {state['waiting']['message']}")
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                self.once(f"node {node} waits: {condition.get('message', condition.get('reason', ''))}")
        if uid not in self.threads and ("running" in state or "terminated" in state):
            self.threads[uid] = threading.Thread(target=self.follow, args=(pod["metadata"]["name"], node), daemon=True)
            self.threads[uid].start()

    def follow(self, pod: str, node: str) -> None:
        """Hand on what a pod says, line by line, until it ends or is gone."""
        with suppress(BoatyardError):
            for line in self.cluster.follow(pod, self.namespace, NODE):
                self.say(f"node {node} | {line.rstrip()}")

    def once(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            self.say(text)

    def finish(self) -> None:
        """Let the last lines arrive; raise the error that ended the training, if one did."""
        for thread in self.threads.values():
            thread.join(timeout=PULSE)
        if failed := _condition(self.job, "Failed"):
            raise error_of(self.name, self.reason or failed.get("message", ""))


def error_of(name: str, reason: str) -> BoatyardError:
    """Return the error that a pod's last words name; all else is the cluster's."""
    for kind in (errors.ConfigError, errors.DataError, errors.ArtifactError, errors.StorageError):
        _, found, message = reason.partition(f"{kind.__name__}: ")
        if found:
            return kind(message)
    return errors.ClusterError(
        f"trainjob/{name} failed: {reason or 'no pod says why'}; see boatyard why trainjob/{name}"
    )


def _condition(job: Object, kind: str) -> Object | None:
    found = job.get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == kind and c["status"] == "True"), None)


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Within the block a signal sets the event, where signals can be set."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
