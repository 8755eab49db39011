"""The pipeline from data to a registered package: preprocess → train → evaluate → gate → push, and the verdict."""

import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

from boatyard.components.deploy import deploy as deploy_step
from boatyard.components.evaluate import evaluate as evaluate_step
from boatyard.components.gate import gate as gate_step
from boatyard.components.image import IMAGE
from boatyard.components.preprocess import preprocess as preprocess_step
from boatyard.components.preprocess_clean import preprocess_clean as clean_step
from boatyard.components.preprocess_merge import preprocess_merge as merge_step
from boatyard.components.preprocess_plan import preprocess_plan as plan_step
from boatyard.components.preprocess_profile import preprocess_profile as profile_step
from boatyard.components.preprocess_split import preprocess_split as split_step
from boatyard.components.preprocess_write import preprocess_write as write_step
from boatyard.components.push import push as push_step
from boatyard.components.train import train as train_step
from boatyard.components.verdict import verdict as verdict_step
from boatyard.data import artifacts
from boatyard.errors import ConfigError
from boatyard.project import KubeflowConfig, Project, StepConfig, seconds
from boatyard.project.sections.pods import CPU_REQUEST, MEMORY_REQUEST
from boatyard.training import launchers, trainjobs

SMALL = StepConfig(cpu="100m", memory="256Mi", timeout="10m")
DEPLOYING = StepConfig(cpu="100m", memory="1Gi", timeout="30m")
LAUNCHING = "1Gi"  # memory of a step that starts a training on other pods
BACKOFF = "10s"
Place = Callable[[Any, str, StepConfig], Any]  # gives a task its title, resources and settings


def pipeline(project: Project, cached: bool = True) -> Callable[..., Any]:
    """Return a project's KFP pipeline; its sections are the parameters' defaults, so that the UI can change them.

    `cached`: whether a step may be left out where an earlier run has its result.
    """
    values = project.values()
    pods, place = project.resources, partial(_place, project.kubeflow, cached)
    workers = project.kubeflow.workers
    make_dataset = partial(_shared_out, workers) if workers > 1 else _preprocess

    def training(
        name: str = project.name,
        task: str = project.task,
        data: dict[str, Any] = values["data"],
        preprocess: dict[str, Any] = values["preprocess"],
        train: dict[str, Any] = values["train"],
        evaluate: dict[str, Any] = values["evaluate"],
        gate: dict[str, Any] = values["gate"],
        push: dict[str, Any] = values["push"],
    ) -> None:
        dataset = make_dataset(place, pods.preprocess, data=data, preprocess=preprocess, task=task)
        together = (
            {"name": name, "pod": trainjobs.pod_of(project).values()}
            if launchers.launcher(project.train).elsewhere
            else {}
        )
        model = place(
            train_step(train=train, preprocess=preprocess, gate=gate, dataset=dataset, **together),
            "Train",
            _launching(project) if together else pods.train,
        )
        checkpoint = model.outputs["checkpoint"]
        measured = place(
            evaluate_step(evaluate=evaluate, dataset=dataset, checkpoint=checkpoint), "Evaluate", pods.evaluate
        )
        report = measured.outputs["report"]
        decision = place(
            gate_step(gate=gate, push=push, name=name, dataset=dataset, checkpoint=checkpoint, report=report),
            "Gate",
            pods.gate,
        ).set_caching_options(False)
        with dsl.If(decision.outputs["Output"] == True, name="passed"):  # noqa: E712 - KFP makes its condition of it; kfp.local knows no other name than Output
            pushed = place(
                push_step(
                    name=name,
                    push=push,
                    dataset=dataset,
                    checkpoint=checkpoint,
                    report=report,
                    verdict=decision.outputs["verdict"],
                ),
                "Push",
                pods.push,
            ).set_caching_options(False)
            if project.kubeflow.deploy:
                rolled = deploy_step(
                    serve=values["serve"], version=pushed.outputs["Output"], package=pushed.outputs["package"]
                )
                place(rolled, "Deploy", DEPLOYING).set_caching_options(False)
        place(verdict_step(verdict=decision.outputs["verdict"]), "Verdict", SMALL).set_caching_options(False)

    training.__doc__ = _describe(project)
    return dsl.pipeline(name=project.name, display_name=project.name, description=project.description)(training)


def _preprocess(place: Place, pods: StepConfig, **sections: Any) -> Any:
    """Preprocess in one pod; return the dataset."""
    return place(preprocess_step(**sections), "Preprocess", pods).outputs["dataset"]


def _shared_out(workers: int, place: Place, pods: StepConfig, **sections: Any) -> Any:
    """Preprocess in so many pods at once, each with its part of the source's files; return the dataset."""

    def parts(name: str, component: Any, title: str, **inputs: Any) -> Any:
        with dsl.ParallelFor(items=list(range(workers)), name=name) as part:
            return place(component(**sections, part=part, of=workers, **inputs), title, pods)

    def all_of(output: Any) -> Any:
        return dsl.Collected(output)

    profiles = parts("profiling", profile_step, "Profile").outputs["profile"]
    plan = place(plan_step(**sections, profiles=all_of(profiles)), "Plan", pods).outputs["plan"]
    notes = parts("cleaning", clean_step, "Clean", plan=plan).outputs["notes"]
    split = place(split_step(**sections, plan=plan, notes=all_of(notes)), "Split", pods).outputs["split"]
    shards = parts("writing", write_step, "Write", plan=plan, split=split).outputs["shards"]
    merged = merge_step(**sections, plan=plan, split=split, shards=all_of(shards))
    return place(merged, "Merge", pods).outputs["dataset"]


def compile(project: Project, path: Path, cached: bool = True) -> None:
    """Write the pipeline's plain spec, whole or not at all: KFP IR, and a second document with the Kubernetes settings.

    Raises ConfigError for a file that is not called .yaml, and for values that a spec cannot hold.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(expected="a file that ends with .yaml", found=f"{path}")
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "pipeline.yaml"
        try:
            compiler.Compiler().compile(pipeline(project, cached), str(spec))
        except ValueError as error:
            raise ConfigError(f"{project.name} cannot be compiled: {error}", fix="see its settings") from error
        artifacts.write_bytes(path, _without_defaults(spec.read_text()).encode())


def _without_defaults(spec: str) -> str:
    """Return a spec whose head names the sections and not their values: KFP writes these in an order of the moment.

    The same project then compiles to the same bytes, whose digest names the version that is uploaded.
    """
    return re.sub(r"^(#    \w+: dict) \[Default: \{.*\}\]$", r"\1", spec, flags=re.MULTILINE)


def _describe(project: Project) -> str:
    return f"""{project.description or f"{project.name}: from data to a registered package"}

    Args:
        name: The model's name in the registry.
        task: classification or regression.
        data: Where the rows are and what they mean.
        preprocess: Cleaning, splitting, normalising.
        train: Recipe and optimisation.
        evaluate: What is measured on the test split.
        gate: What a model must show to be pushed; sealed before training.
        push: Registry and alias.
    """


def _launching(project: Project) -> StepConfig:
    """Return what the step asks for that starts such a training and follows it: little, and the claim if it is used."""
    step, train = project.resources.train, project.train
    mounted = {} if train.storage else {str(trainjobs.CLAIMS / train.claim): train.claim}
    small: dict[str, Any] = {
        "cpu": SMALL.cpu,
        "memory": LAUNCHING,
        "memory_limit": None,
        "gpu": None,
        "node_selector": {},
        "tolerations": (),
    }
    return step.model_copy(update={**small, "volumes": {**mounted, **step.volumes}})


def _place(common: KubeflowConfig, cached: bool, task: Any, title: str, step: StepConfig) -> Any:
    """Give a task its title, resources, retries and Kubernetes settings."""
    task.set_display_name(title)
    task.set_env_variable("BOATYARD_IMAGE", IMAGE)  # what artifacts say they were made in, and a TrainJob's pods run
    if not (cached and step.cache):
        task.set_caching_options(False)
    task.set_cpu_request(step.cpu or CPU_REQUEST)
    task.set_memory_request(step.memory or MEMORY_REQUEST)
    if step.most_memory:
        task.set_memory_limit(step.most_memory)
    if step.retries:
        task.set_retry(step.retries, backoff_duration=BACKOFF)  # a pod that is lost
        task.set_env_variable("BOATYARD_RETRIES", str(step.retries))  # a store that does not answer
    if step.timeout:
        kubernetes.set_timeout(task, seconds(step.timeout))
    if common.folder:
        task.set_env_variable("BOATYARD_PROJECT", common.folder)
    _supply(task, step, common)
    _schedule(task, step, common)
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")  # a read-only root file system leaves nowhere else to write
    return task


def _supply(task: Any, step: StepConfig, common: KubeflowConfig) -> None:
    """Bring secrets, claims and the keys of image registries; a step's own win."""
    for variable, secret in {**common.secrets, **step.secrets}.items():
        name, key = secret.split("/")
        kubernetes.use_secret_as_env(task, name, {key: variable})
    for folder, claim in {**common.volumes, **step.volumes}.items():
        kubernetes.mount_pvc(task, claim, folder)
    if common.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(common.image_pull_secrets))


def _schedule(task: Any, step: StepConfig, common: KubeflowConfig) -> None:
    """Say which nodes a task may run on; GPUs go to limits, and bring their taint's toleration and shared memory."""
    if step.gpu:
        task.set_accelerator_type(step.gpu.type).set_accelerator_limit(step.gpu.count)
        kubernetes.add_toleration(task, key=step.gpu.type, operator="Exists", effect="NoSchedule")
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory")
    for label, value in {**common.node_selector, **step.node_selector}.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in (*common.tolerations, *step.tolerations):
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
