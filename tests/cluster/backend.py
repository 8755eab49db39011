"""What a Kubeflow backend does with a compiled spec, for the tests: there is none here.

Pods are made from both documents of the spec with what its driver and launcher add: the executor input, the copying
(`launcher.py`), their security context.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kube import STORE, Manifest, run_kubectl

from boatyard import storage

PARTS = 2
IMAGE = os.environ.get("BOATYARD_TEST_TRAIN_IMAGE", "boatyard/train:dev")
LAUNCHER = Path(__file__).with_name("launcher.py")
KFP = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
OURS = ("s3", ".cache", ".config", ".local")  # emptyDirs that KFP's backend mounts
SMALL = {step: {"cpu": "50m", "memory": "1Gi"} for step in ("preprocess", "train", "evaluate", "gate", "push")}
SECRETS = {key: f"boatyard-s3/{key}" for key in STORE}


def read(text: str, namespace: str, root: str, image: str = IMAGE) -> Backend:
    """Return the backend of a compiled spec's two documents, its pods with the tests' image."""
    spec, platform = yaml.safe_load_all(text)
    for executor in spec["deploymentSpec"]["executors"].values():
        if "container" in executor:  # an importer has none
            executor["container"]["image"] = image
    return Backend(spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"], namespace, root)


def install_launcher(namespace: str) -> None:
    """Put the launcher where the pods of a namespace mount it."""
    run_kubectl("create", "configmap", "launcher", "-n", namespace, f"--from-file={LAUNCHER}")


@dataclass
class Backend:
    """What a Kubeflow backend does with a compiled spec, one task at a time and no more than the tests need."""

    spec: dict[str, Any]
    platform: dict[str, Any]
    namespace: str
    root: str  # s3://BUCKET/…/PIPELINE/RUN
    found: dict[str, Any] = field(default_factory=dict)

    def order(self, of: str = "root") -> list[str]:
        """Return the names of the tasks, each after those that it depends on, those of a condition in its place."""
        about = self.spec["root"] if of == "root" else self.spec["components"][of]
        tasks, found = about["dag"]["tasks"], list[str]()
        while len(found) < len(tasks):
            found += [
                name
                for name, task in tasks.items()
                if name not in found and set(task.get("dependentTasks", [])) <= set(found)
            ]
        held = {name: tasks[name]["componentRef"]["name"] for name in found}
        nested = {
            name: self.order(one) if "dag" in self.spec["components"][one] else [name] for name, one in held.items()
        }
        return [task for name in found for task in nested[name]]

    def run(self, task: str, **others: Any) -> dict[str, Any]:
        """Run a task to its end and return its parameter outputs; `others` replace inputs. Raises AssertionError."""
        pod = self.start(task, **others)
        assert self.phase(pod) == "Succeeded", self.log(pod)
        return self.outputs(task)

    def fail(self, task: str, **others: Any) -> str:
        """Run a task that must fail, and return its log."""
        pod = self.start(task, **others)
        assert self.phase(pod) == "Failed"
        return self.log(pod)

    def start(self, task: str, part: int | None = None, **others: Any) -> str:
        """Make the pod of a task and return its name."""
        component = self.spec["components"][f"comp-{task}"]
        container = self.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
        folder = f"{self.root}/{task}/{uuid.uuid4().hex}"
        given = self.input(task, component, folder, part, others)
        arguments = [json.dumps(given) if one == "{{$}}" else one for one in container["args"]]
        name = f"{task}-{uuid.uuid4().hex[:6]}"
        about = {"EXECUTOR_INPUT": json.dumps(given), "COMMAND": json.dumps([*container["command"], *arguments])}
        about |= {"LOG_URI": f"{folder}/executor-logs-0"}
        run_kubectl("create", "-n", self.namespace, "-f", "-", manifests=[self.pod(name, task, container, about)])
        outputs = given["outputs"].get("artifacts", {})
        made = {key: value["artifacts"][0] for key, value in outputs.items()}
        self.found.setdefault(task, {})[part] = (made, folder)
        return name

    def input(
        self, task: str, component: dict[str, Any], folder: str, part: int | None, others: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the executor input that KFP's driver makes of a task."""
        wanted, made = component["inputDefinitions"], component.get("outputDefinitions", {})
        parameters = self.parameters(task, part, others)
        parameters = {name: parameters[name] for name in wanted.get("parameters", {}) if name in parameters}
        artifacts = self.task(task)["inputs"].get("artifacts", {})  # of optional ones those that the pipeline gives
        taken = {name: self.taken(task, name, others) for name in artifacts}
        given = {
            name: {
                "artifacts": [{"name": name, "uri": f"{folder}/{name}", "type": about["artifactType"], "metadata": {}}]
            }
            for name, about in made.get("artifacts", {}).items()
        }
        files = {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in made.get("parameters", {})}
        outputs = {"artifacts": given, "parameters": files, "outputFile": "/tmp/kfp_outputs/output_metadata.json"}
        return {"inputs": {"parameterValues": parameters, "artifacts": taken}, "outputs": outputs}

    def parameters(self, task: str, part: int | None, others: dict[str, Any]) -> dict[str, Any]:
        """Return parameters by name: the pipeline's defaults, a task's constants, a loop's part; `others` win."""
        root = self.spec["root"]["inputDefinitions"]["parameters"]
        values = {name: about.get("defaultValue") for name, about in root.items()}
        for name, source in self.task(task)["inputs"].get("parameters", {}).items():
            channel = source.get("componentInputParameter", "").removeprefix("pipelinechannel--")
            values[name] = source.get("runtimeValue", {}).get("constant", values.get(channel, values.get(name)))
        values |= {"part": part, "of": PARTS} if part is not None else {}
        return {name: value for name, value in {**values, **others}.items() if value is not None}

    def task(self, name: str) -> dict[str, Any]:
        """Return what the spec says of a task, whichever condition or loop it is in."""
        dags = [each["dag"] for each in (self.spec["root"], *self.spec["components"].values()) if "dag" in each]
        return next(dict(dag["tasks"][name]) for dag in dags if name in dag["tasks"])

    def taken(self, task: str, name: str, others: dict[str, Any]) -> dict[str, Any]:
        """Return an input artifact, or those of a loop, as they come downstream: numbered, with keys that KFP adds."""
        uris = others.get(name) or self.uris(*PRODUCERS[task, name] if (task, name) in PRODUCERS else PRODUCERS[name])
        kind = self.spec["components"][f"comp-{task}"]["inputDefinitions"]["artifacts"][name]["artifactType"]
        metadata = {"display_name": name, "store_session_info": "{}"}
        return {
            "artifacts": [
                {"name": str(100 + number), "uri": uri, "type": kind, "metadata": metadata}
                for number, uri in enumerate(uris)
            ]
        }

    def uris(self, task: str, output: str) -> list[str]:
        """Return where a task, or all iterations of it, left an output; where one pod preprocesses, none merges."""
        task = "preprocess" if task == "preprocess-merge" and "preprocess" in self.found else task
        return [made[output]["uri"] for made, _ in self.found[task].values()]

    def outputs(self, task: str) -> dict[str, Any]:
        """Return the parameters that a task has put out."""
        (_, folder) = self.found[task][None]
        return dict(json.loads(storage.open(folder).read("executor-output.json")).get("parameterValues", {}))

    def pod(self, name: str, task: str, container: dict[str, Any], about: dict[str, str]) -> Manifest:
        """Return a task's pod: the spec's image, resources and settings, and what KFP adds to every one."""
        settings, asked = self.platform[f"exec-{task}"], container.get("resources", {})
        variables = [{"name": key, "value": value} for key, value in about.items()] + container.get("env", [])
        for secret in settings.get("secretAsEnv", []):
            for key in secret["keyToEnv"]:
                at = {"name": secret["secretName"], "key": key["secretKey"]}
                variables.append({"name": key["envVar"], "valueFrom": {"secretKeyRef": at}})
        mounted = {mount["volumeName"]: mount["mountPath"] for mount in settings["emptyDirMounts"]}
        mounted |= {one.strip("."): f"/{one}" for one in OURS}
        mounts = [{"name": volume, "mountPath": path} for volume, path in mounted.items()]
        claims = {mount["constant"]: mount["mountPath"] for mount in settings.get("pvcMount", [])}
        mounts += [{"name": claim, "mountPath": path} for claim, path in claims.items()]
        held = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
        launcher = {"name": "launcher", "configMap": {"name": "launcher"}}
        accelerator = asked.get("accelerator", {})
        gpus = {accelerator["resourceType"]: accelerator["resourceCount"]} if accelerator else {}
        resources = {
            "requests": {"cpu": asked["resourceCpuRequest"], "memory": "256Mi"},
            "limits": {"memory": asked["resourceMemoryLimit"], **gpus},
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "boatyard"}},
            "spec": {
                "restartPolicy": "Never",
                "serviceAccountName": "boatyard-pipeline",
                "tolerations": settings.get("tolerations", []),
                "activeDeadlineSeconds": int(settings["activeDeadlineSeconds"]),
                "volumes": [*({"name": volume, "emptyDir": {}} for volume in mounted), *held, launcher],
                "containers": [
                    {
                        "name": "main",
                        "image": container["image"],
                        "command": ["python3", "/kfp-launcher/launcher.py"],
                        "env": variables,
                        "volumeMounts": [*mounts, {"name": "launcher", "mountPath": "/kfp-launcher"}],
                        "resources": resources,
                        "securityContext": {**KFP, **settings["securityContext"], "readOnlyRootFilesystem": True},
                    }
                ],
            },
        }

    def phase(self, pod: str) -> str:
        """Wait for a pod's end and return how it ended: Succeeded or Failed."""
        at = ("-n", self.namespace, f"pod/{pod}")
        ended = ".status.containerStatuses[0].state.terminated"
        for _ in range(4):  # a busy machine takes minutes for what takes seconds
            run_kubectl("wait", *at, "--timeout=150s", f"--for=jsonpath={{{ended}}}", check=False)
            if code := run_kubectl("get", *at, "-o", f"jsonpath={{{ended}.exitCode}}"):
                break
        return {"0": "Succeeded", "": "neither ended nor failed"}.get(code, "Failed")

    def log(self, pod: str) -> str:
        told = run_kubectl("logs", "-n", self.namespace, pod, check=False)
        return told + run_kubectl("get", "-n", self.namespace, f"pod/{pod}", "-o", "jsonpath={.status}")


PRODUCERS: dict[Any, tuple[str, str]] = {
    "rows": ("clean", "rows"),
    "numbers": ("evaluate", "numbers"),
    "profiles": ("preprocess-profile", "profile"),
    "plan": ("preprocess-plan", "plan"),
    "notes": ("preprocess-clean", "notes"),
    "split": ("preprocess-split", "split"),
    "shards": ("preprocess-write", "shards"),
    "dataset": ("preprocess-merge", "dataset"),
    "checkpoint": ("train", "checkpoint"),
    "report": ("evaluate", "report"),
    "verdict": ("gate", "verdict"),
    "package": ("push", "package"),
}
