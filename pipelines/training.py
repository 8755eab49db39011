"""The pipeline from data to a registered package: preprocess → train → evaluate → gate → push, and the verdict."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kfp import dsl

from boatyard.components.deploy import deploy as deploy_step
from boatyard.components.evaluate import evaluate as evaluate_step
from boatyard.components.gate import gate as gate_step
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
from boatyard.errors import ConfigError
from boatyard.pipelines import compiling
from boatyard.pipelines.placing import place as place_task
from boatyard.project import Project, StepConfig
from boatyard.training import launchers, trainjobs

SMALL = StepConfig(cpu="100m", memory="256Mi", timeout="10m")
DEPLOYING = StepConfig(cpu="100m", memory="1Gi", timeout="30m")
LAUNCHING = "1Gi"  # memory of a step that starts a training on other pods
Place = Callable[[Any, str, StepConfig], Any]  # gives a task its title, resources and settings


def pipeline(project: Project, cached: bool = True) -> Callable[..., Any]:
    """Return a project's KFP pipeline; its sections are the parameters' defaults, so that the UI can change them.

    `cached`: whether a step may be left out where an earlier run has its result.
    """
    values = project.values()
    pods, place = project.resources, partial(_place, project, cached)
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
        )
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
            )
            if project.kubeflow.deploy:
                rolled = deploy_step(
                    serve=values["serve"], version=pushed.outputs["Output"], package=pushed.outputs["package"]
                )
                place(rolled, "Deploy", DEPLOYING)
        place(verdict_step(verdict=decision.outputs["verdict"]), "Verdict", SMALL)

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
    try:
        compiling.write(pipeline(project, cached), path)
    except ValueError as error:
        raise ConfigError(f"{project.name} cannot be compiled: {error}", fix="see its settings") from error


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


def _place(project: Project, cached: bool, task: Any, title: str, step: StepConfig) -> Any:
    return place_task(task, step, project.kubeflow, title=title, cached=cached)
