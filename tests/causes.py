"""What goes wrong on a cluster, made on purpose: for each cause, its objects and what `why` must say.

Everything is in one namespace, but quota and limits, which everything else in it would meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
KINDS = {"isvc": "InferenceService", "trainjob": "TrainJob", "pod": "Pod"}
SPACES: dict[str, dict[str, str]] = {  # a namespace each, and its labels
    "plain": {},
    "quota": {},
    "limits": {},
    "restricted": {"pod-security.kubernetes.io/enforce": "restricted"},
}
SERVE = "boatyard/serve:dev"
NOWHERE = "registry.invalid/boatyard/serve:none"
BUCKET = "s3://boatyard/why-tests"
SEALED = "sha256-" + "0" * 64  # a digest that nothing has


@dataclass(frozen=True)
class Case:
    """A cause: its objects, the one that is asked about, the cause that must be named and words of the sentence."""

    target: str
    cause: str
    words: tuple[str, ...]
    objects: tuple[Manifest, ...]
    space: str = "plain"  # one of SPACES
    then: tuple[Manifest, ...] = ()  # applied when the first are ready
    absent: str = ""  # the CRD that has to be missing

    def fits(self, cause: str | None, sentence: str) -> bool:
        """Whether this is the answer."""
        return (cause or "") == self.cause and all(word in sentence for word in self.words)


def container(code: str = "", *, image: str = SERVE, **fields: Any) -> Manifest:
    """Return a container that runs a line of Python, or what its image runs."""
    command = {"command": ["python", "-c", code]} if code else {}
    return {"name": "kserve-container", "image": image, "imagePullPolicy": "IfNotPresent", **command, **fields}


def pod(name: str, box: Manifest, **spec: Any) -> Manifest:
    """Return a pod of one container."""
    whole = {"containers": [box], "terminationGracePeriodSeconds": 1, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": whole}


def isvc(name: str, box: Manifest | None = None, *, notes: dict[str, str] | None = None, **predictor: Any) -> Manifest:
    """Return an InferenceService of one container of ours, or of a model."""
    notes = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
        **(notes or {}),
    }
    spec = {**({"containers": [box]} if box else {}), "terminationGracePeriodSeconds": 1, **predictor}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": notes},
        "spec": {"predictor": spec},
    }


def model(uri: str, kind: str = "boatyard") -> Manifest:
    """Return the predictor of a model at a URI."""
    said = {"modelFormat": {"name": kind}, "storageUri": uri, "resources": small()}
    return {"model": said, "storageContainerName": "boatyard"} if kind == "boatyard" else {"model": said}


def trainjob(name: str, code: str = "", *, image: str = SERVE, runtime: str = "why", **fields: Any) -> Manifest:
    """Return a TrainJob of one node that runs a line of Python."""
    trainer: Manifest = {"image": image, "numNodes": 1, "resourcesPerNode": small(), **fields.pop("trainer", {})}
    if code:
        trainer["command"] = ["python", "-c", code]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {"runtimeRef": {"kind": "TrainingRuntime", "name": runtime}, "trainer": trainer, **fields},
    }


def small(memory: str = "64Mi", **more: str) -> Manifest:
    """Return what a container of a test asks for."""
    return {"requests": {"cpu": "10m", "memory": memory, **more}, "limits": {"cpu": "1", "memory": memory, **more}}


def claim(name: str, of: str) -> Manifest:
    """Return a claim of a storage class."""
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": of}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": asked}


def mounted(name: str) -> Manifest:
    """Return the volumes of a pod that uses a claim."""
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]}


def runtime(name: str, restarts: int) -> Manifest:
    """Return a TrainingRuntime of one node that is started again so many times."""
    node = {"restartPolicy": "Never", "containers": [{"name": "node", "image": SERVE}]}
    ancestor = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
    job = {"metadata": ancestor, "spec": {"backoffLimit": 0, "template": {"spec": node}}}
    policy = {"maxRestarts": restarts, "restartStrategy": "BlockingRecreate"}
    jobs = {"failurePolicy": policy, "replicatedJobs": [{"name": "node", "template": job}]}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": name, "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {"mlPolicy": {"numNodes": 1, "torch": {}}, "template": {"spec": jobs}},
    }


RUNTIMES = (runtime("why", 0), runtime("again", 30))
NODE: Manifest = {  # no kubelet stands behind it: it is there to be looked at
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "why-tainted", "labels": {"boatyard-test": "why"}},
    "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
}
CAPACITY = {"cpu": "2", "memory": "4Gi", "pods": "10", "nvidia.com/gpu": "8"}  # of NODE, by its status
QUOTA: Manifest = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "small"},
    "spec": {"hard": {"requests.memory": "32Mi"}},
}
LIMITS: Manifest = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "small"},
    "spec": {"limits": [{"type": "Container", "max": {"memory": "32Mi"}}]},
}
EAT = "a = [bytes(range(256)) * 4096 for _ in range(1000)]"
CRASH = "print('reading the table', flush=True); raise ValueError('no column named price')"
ANSWER = "import http.server as h; h.HTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
LATER = f"import time; time.sleep(5); {CRASH}"
NAP = "import time; time.sleep(3600)"
CPU = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
PROBE = {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "periodSeconds": 1, "failureThreshold": 3}

CASES: dict[str, Case] = {
    "healthy": Case(
        "isvc/healthy", "", ("nothing is wrong",), (isvc("healthy", container(ANSWER, resources=small())),)
    ),
    "image": Case(
        "isvc/image",
        "image-pull",
        (NOWHERE, "cannot be pulled"),
        (isvc("image", container(image=NOWHERE, resources=small())),),
    ),
    "image-name": Case(
        "pod/image-name",
        "image-pull",
        ("boatyard/Serve", "no valid name"),
        (pod("image-name", container(image="boatyard/Serve:dev")),),
    ),
    "cpu": Case(
        "isvc/cpu",
        "unschedulable",
        ("cpu", "900", "node"),
        (isvc("cpu", container(NAP, resources={"requests": {"cpu": "900"}, "limits": {"cpu": "900"}})),),
    ),
    "gpus": Case(
        "pod/gpus",
        "unschedulable",
        ("nvidia.com/gpu", "64"),
        (pod("gpus", container(NAP, resources={"limits": {"nvidia.com/gpu": "64"}})),),
    ),
    "gpu-name": Case(
        "pod/gpu-name",
        "gpu-name",
        ("nvidia.com/gpus", "nvidia.com/gpu"),
        (pod("gpu-name", container(NAP, resources={"limits": {"nvidia.com/gpus": "1"}})),),
    ),
    "taint": Case(
        "pod/taint",
        "taint",
        ("8 nvidia.com/gpu", "why-tainted", "nvidia.com/gpu=present:NoSchedule"),
        (NODE, pod("taint", container(NAP, resources={"limits": {"nvidia.com/gpu": "8"}}))),
    ),
    "selector": Case(
        "pod/selector",
        "unschedulable",
        ("gpu-model", "H900"),
        (pod("selector", container(NAP, resources=small()), nodeSelector={"gpu-model": "H900"}),),
    ),
    "oom": Case("isvc/oom", "oom-killed", ("64Mi",), (isvc("oom", container(EAT, resources=small())),)),
    "crash": Case(
        "isvc/crash", "crash-loop", ("no column named price",), (isvc("crash", container(CRASH, resources=small())),)
    ),
    "start": Case(
        "pod/start", "start", ("bord",), (pod("start", {**container(), "command": ["bord"], "resources": small()}),)
    ),
    "secret": Case(
        "pod/secret",
        "missing-reference",
        ("secret", "not-there"),
        (pod("secret", container(NAP, envFrom=[{"secretRef": {"name": "not-there"}}], resources=small())),),
    ),
    "webhook": Case(
        "isvc/webhook",
        "webhook",
        ("denied",),
        (isvc("webhook", **{**model(f"{BUCKET}/{SEALED}"), "storageContainerName": "not-there"}),),
    ),
    "pod-security": Case(
        "isvc/pod-security",
        "pod-security",
        ("restricted", "runAsNonRoot"),
        (isvc("pod-security", container(NAP, resources=small())),),
        "restricted",
    ),
    "knative": Case(
        "isvc/knative",
        "missing-kind",
        ("Knative",),
        (isvc("knative", container(NAP, resources=small()), notes={"serving.kserve.io/deploymentMode": "Knative"}),),
        absent="services.serving.knative.dev",
    ),
    "keda": Case(
        "isvc/keda",
        "missing-kind",
        ("ScaledObject", "KEDA"),
        (
            isvc(
                "keda",
                container(ANSWER, resources=small()),
                notes={"serving.kserve.io/autoscalerClass": "keda"},
                minReplicas=1,
                maxReplicas=2,
                autoScaling={"metrics": [{"type": "Resource", "resource": CPU}]},
            ),
        ),
        absent="scaledobjects.keda.sh",
    ),
    "controller": Case(
        "trainjob/controller",
        "no-controller",
        ("multikueue",),
        (trainjob("controller", NAP, managedBy="kueue.x-k8s.io/multikueue"),),
    ),
    "runtime": Case("isvc/runtime", "no-runtime", ("paper",), (isvc("runtime", **model("s3://boatyard/x", "paper")),)),
    "credentials": Case(
        "isvc/credentials",
        "storage-credentials",
        ("s3://boatyard",),
        (isvc("credentials", **model(f"{BUCKET}/{SEALED}"), serviceAccountName="wrong-keys"),),
    ),
    "object": Case(
        "isvc/object",
        "storage-missing",
        ("package.json",),
        (isvc("object", **model(f"{BUCKET}/empty/{SEALED}"), serviceAccountName="right-keys"),),
    ),
    "digest": Case(
        "isvc/digest",
        "storage-digest",
        ("0000",),
        (isvc("digest", **model(f"{BUCKET}/changed/{SEALED}"), serviceAccountName="right-keys"),),
    ),
    "quota": Case(
        "isvc/quota",
        "quota",
        ("requests.memory", "32Mi"),
        (QUOTA, isvc("quota", container(NAP, resources=small()))),
        "quota",
    ),
    "limits": Case(
        "isvc/limits",
        "limit-range",
        ("memory", "32Mi"),
        (LIMITS, isvc("limits", container(NAP, resources=small()))),
        "limits",
    ),
    "account": Case(
        "isvc/account",
        "service-account",
        ("not-there",),
        (isvc("account", container(NAP, resources=small()), serviceAccountName="not-there"),),
    ),
    "claim": Case(
        "pod/claim",
        "pvc-pending",
        ("claim", "not-there"),
        (claim("claim", "not-there"), pod("claim", container(NAP, resources=small()), **mounted("claim"))),
    ),
    "no-claim": Case(
        "pod/no-claim",
        "pvc-pending",
        ("not-there",),
        (pod("no-claim", container(NAP, resources=small()), **mounted("not-there")),),
    ),
    "readiness": Case(
        "isvc/readiness",
        "probe",
        ("readiness", "8080"),
        (isvc("readiness", container(NAP, readinessProbe=PROBE, resources=small())),),
    ),
    "liveness": Case(
        "pod/liveness",
        "probe",
        ("liveness", "8080"),
        (pod("liveness", container(NAP, livenessProbe=PROBE, resources=small())),),
    ),
    "refused": Case(
        "isvc/refused",
        "model-refused",
        ("package.json",),
        (
            isvc(
                "refused",
                {**container(), "args": ["--package=/tmp", "--name=refused"], "resources": small("512Mi")}
                | {"command": ["python", "-m", "boatyard.serving"]},
            ),
        ),
    ),
    "revision": Case(
        "isvc/revision",
        "image-pull",
        (NOWHERE, "former revision still serves"),
        (isvc("revision", container(ANSWER, resources=small())),),
        then=(isvc("revision", container(image=NOWHERE, resources=small())),),
    ),
    "hpa": Case(
        "isvc/hpa",
        "hpa-metrics",
        ("cpu",),
        (
            isvc(
                "hpa",
                container(ANSWER, resources=small()),
                notes={"serving.kserve.io/autoscalerClass": "hpa"},
                containers=[
                    container(ANSWER, resources=small()),
                    {**container(NAP), "name": "beside"},
                ],
                minReplicas=1,
                maxReplicas=2,
                scaleMetric="cpu",
                scaleTarget=50,
            ),
        ),
    ),
    "trained": Case(
        "trainjob/trained", "", ("nothing is wrong", "complete"), (trainjob("trained", "print('loss 0.1')"),)
    ),
    "diverged": Case(
        "trainjob/diverged",
        "crash-loop",
        ("no column named price",),
        (trainjob("diverged", CRASH),),
    ),
    "train-oom": Case(
        "trainjob/train-oom",
        "oom-killed",
        ("64Mi",),
        (trainjob("train-oom", EAT),),
    ),
    "again": Case(
        "trainjob/again",
        "restarting",
        ("was started again", "again-node-0 failed"),
        (trainjob("again", LATER, runtime="again"),),
    ),
    "train-gpus": Case(
        "trainjob/train-gpus",
        "unschedulable",
        ("nvidia.com/gpu", "64"),
        (trainjob("train-gpus", NAP, trainer={"resourcesPerNode": {"limits": {"nvidia.com/gpu": "64"}}}),),
    ),
    "suspended": Case(
        "trainjob/suspended",
        "suspended",
        ("spec.suspend",),
        (trainjob("suspended", NAP, suspend=True),),
    ),
}
