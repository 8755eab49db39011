"""Which steps of a project's pipeline, and which pods of its endpoint, the cluster could place now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.api.projects import Overrides, resolve
from boatyard.errors import ClusterError

if TYPE_CHECKING:
    from boatyard.diagnosis.room import Ask
    from boatyard.kubernetes.cluster import Cluster
    from boatyard.project import KubeflowConfig, Project, StepConfig


@dataclass(frozen=True)
class Placement:
    """Whether a node of the cluster has room for a step's pod now; `problem` says what is missing, or nothing."""

    step: str
    asks: dict[str, str]
    problem: str

    def __str__(self) -> str:
        return f"step {self.step} {self.sentence}"

    @property
    def sentence(self) -> str:
        """What is asked for, and whether there is room."""
        asked = ", ".join(f"{amount} of {name}" for name, amount in self.asks.items())
        return f"asks for {asked}: {self.problem or 'there is room'}"


def placements(
    project: Project | str | Path = ".",
    *,
    set: Overrides = (),
    context: str | None = None,
    namespace: str | None = None,
) -> tuple[Placement, ...]:
    """Return for each step of the pipeline, and the endpoint, whether the cluster has room for it now.

    Of a training on several nodes also whether `namespace`, where the pipeline's runs are, has what a TrainJob needs.
    Nothing is changed. An autoscaler of nodes may make room that is not there now. Raises ConfigError, ClusterError.
    """
    from boatyard.diagnosis import room
    from boatyard.kubernetes import cluster

    resolved, there = resolve(project, set), cluster.connect(context)
    nodes, problems = room.rooms(there), {"train": _unready(there, resolved, namespace)}
    return tuple(
        Placement(step, dict(ask.amounts), "; ".join(filter(None, (room.unplaced(nodes, ask), problems.get(step)))))
        for step, ask in _asks(resolved).items()
    )


def _unready(there: Cluster, project: Project, namespace: str | None) -> str:
    """Say what the namespace of the runs lacks for a TrainJob; nothing where none is made."""
    from boatyard.api.kubeflow import check_training

    try:
        check_training(there, project, namespace)
    except ClusterError as error:
        return str(error)
    return ""


def endpoint_room(objects: Iterable[Mapping[str, Any]], cluster: Cluster) -> str:
    """Say whether a node has room now for one more pod of an endpoint; nothing where the nodes cannot be seen."""
    from boatyard.diagnosis import room

    predictors = [each["spec"]["predictor"] for each in objects if each["kind"] == "InferenceService"]
    try:
        nodes = room.rooms(cluster) if predictors else ()
    except ClusterError:  # whoever deploys may have a namespace's rights alone
        return ""
    if not nodes:
        return ""
    ask = _of_predictor(predictors[0])
    return f"a new pod {Placement('endpoint', dict(ask.amounts), room.unplaced(nodes, ask)).sentence}"


def _of_predictor(predictor: Mapping[str, Any]) -> Ask:
    from boatyard.diagnosis.room import Ask

    resources = predictor["model"].get("resources", {})
    amounts = {**resources.get("limits", {}), **resources.get("requests", {})}  # a limit alone is a request, too
    return Ask(
        {name: str(amount) for name, amount in amounts.items()},
        predictor.get("nodeSelector", {}),
        tuple(predictor.get("tolerations", ())),
    )


def _asks(project: Project) -> dict[str, Ask]:
    from boatyard.diagnosis.room import Ask
    from boatyard.project import ResourcesConfig

    steps = {name: getattr(project.resources, name) for name in ResourcesConfig.model_fields}
    asks = {name: _of(step, project.kubeflow) for name, step in steps.items()}
    serve = project.serve
    return {**asks, "endpoint": Ask({"cpu": serve.cpu, **({"memory": serve.memory} if serve.memory else {})}, {}, ())}


def _of(step: StepConfig, common: KubeflowConfig) -> Ask:
    from boatyard.diagnosis.room import Ask
    from boatyard.project.sections.pods import CPU_REQUEST, MEMORY_REQUEST

    gpus = {step.gpu.type: str(step.gpu.count)} if step.gpu else {}
    amounts = {"cpu": step.cpu or CPU_REQUEST, "memory": step.memory or MEMORY_REQUEST, **gpus}
    own = [{"key": step.gpu.type, "operator": "Exists", "effect": "NoSchedule"}] if step.gpu else []
    given = [each.model_dump(exclude_none=True) for each in (*common.tolerations, *step.tolerations)]
    return Ask(amounts, {**common.node_selector, **step.node_selector}, (*own, *given))
