"""What a task gets beside its inputs: resources, retries, secrets and claims, where it runs, its security context."""

from __future__ import annotations

from typing import Any

from kfp import kubernetes as kfp_kubernetes

from boatyard.errors import ConfigError
from boatyard.project import KubeflowConfig, StepConfig, seconds
from boatyard.project.sections.pods import CPU_REQUEST, MEMORY_REQUEST

BACKOFF = "10s"
NEVER_CACHED = ("gate", "push", "deploy", "verdict")  # they read or change what their arguments do not show


def place(
    task: Any,
    step: StepConfig = StepConfig(),  # noqa: B008 - frozen
    kubeflow: KubeflowConfig = KubeflowConfig(),  # noqa: B008
    *,
    title: str = "",
    cached: bool = True,
) -> Any:
    """Give a task of any pipeline its resources, retries and Kubernetes settings, and return it.

    It passes Pod Security `restricted`, and has an emptyDir at /tmp. `step` is what one step asks for, `kubeflow` what
    all pods of a project have, such as `project.resources.train` and `project.kubeflow`; `title` is shown by the UI.
    An earlier result may be taken where `cached`, and never of gate, push, deploy and verdict. Raises ConfigError for
    what has no pod, such as an importer.
    """
    if task.container_spec is None:
        raise ConfigError(f"{task.name} is no step with a pod of its own", fix="place the steps themselves")
    if title:
        task.set_display_name(title)
    image = task.container_spec.image  # what artifacts say they were made in, and a TrainJob's pods run
    task.set_env_variable("BOATYARD_IMAGE", image)
    if not (cached and step.cache) or task.component_spec.name in NEVER_CACHED:
        task.set_caching_options(False)
    task.set_cpu_request(step.cpu or CPU_REQUEST)
    task.set_memory_request(step.memory or MEMORY_REQUEST)
    if step.most_memory:
        task.set_memory_limit(step.most_memory)
    if step.retries:
        task.set_retry(step.retries, backoff_duration=BACKOFF)  # a pod that is lost
        task.set_env_variable("BOATYARD_RETRIES", str(step.retries))  # a store that does not answer
    if step.timeout:
        kfp_kubernetes.set_timeout(task, seconds(step.timeout))
    if kubeflow.folder:
        task.set_env_variable("BOATYARD_PROJECT", kubeflow.folder)
    _supply(task, step, kubeflow)
    _schedule(task, step, kubeflow)
    kfp_kubernetes.set_security_context(task, run_as_non_root=True)
    kfp_kubernetes.empty_dir_mount(task, "tmp", "/tmp")  # a read-only root file system leaves nowhere else to write
    return task


def _supply(task: Any, step: StepConfig, common: KubeflowConfig) -> None:
    """Bring secrets, claims and the keys of image registries; a step's own win."""
    for variable, secret in {**common.secrets, **step.secrets}.items():
        name, key = secret.split("/")
        kfp_kubernetes.use_secret_as_env(task, name, {key: variable})
    for folder, claim in {**common.volumes, **step.volumes}.items():
        kfp_kubernetes.mount_pvc(task, claim, folder)
    if common.image_pull_secrets:
        kfp_kubernetes.set_image_pull_secrets(task, list(common.image_pull_secrets))


def _schedule(task: Any, step: StepConfig, common: KubeflowConfig) -> None:
    """Say which nodes a task may run on; GPUs go to limits, and bring their taint's toleration and shared memory."""
    if step.gpu:
        task.set_accelerator_type(step.gpu.type).set_accelerator_limit(step.gpu.count)
        kfp_kubernetes.add_toleration(task, key=step.gpu.type, operator="Exists", effect="NoSchedule")
        kfp_kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory")
    for label, value in {**common.node_selector, **step.node_selector}.items():
        kfp_kubernetes.add_node_selector(task, label, value)
    for toleration in (*common.tolerations, *step.tolerations):
        kfp_kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
