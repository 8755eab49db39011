"""A TrainJob on a cluster: several nodes or GPUs share each batch; applied, followed and brought home."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from boatyard import provenance, recipes
from boatyard.data import checkpoints, datasets
from boatyard.errors import ClusterError
from boatyard.kubernetes.cluster import NAMESPACE_FILE
from boatyard.project import GateConfig, PreprocessConfig, StepConfig, TrainConfig
from boatyard.running import reasons
from boatyard.settings import Settings
from boatyard.training import trainjobs
from boatyard.training.launchers.base import Launch, Launcher

if TYPE_CHECKING:
    from boatyard.kubernetes.cluster import Cluster

logger = logging.getLogger(__name__)
KUBEFLOW_CONTAINER = "main"  # of a step's pod, beside Argo's own


class OnCluster(Launcher):
    """Trains in the pods of a TrainJob of the cluster that the kubeconfig, or this pod's account, leads to."""

    elsewhere = True

    def check(self, config: TrainConfig) -> None:
        """Take every section: one process is a TrainJob with one pod."""

    def train(self, launch: Launch) -> checkpoints.Training:
        """Train on the cluster."""
        from boatyard.kubernetes import cluster

        return train(
            launch.train,
            launch.preprocess,
            launch.gate,
            launch.dataset,
            launch.out,
            cluster=cluster.connect(),
            name=launch.name,
            pod=launch.pod,
        )


def train(
    config: TrainConfig,
    preprocess: PreprocessConfig,
    gate: GateConfig,
    dataset: Path,
    out: Path,
    *,
    cluster: Cluster,
    name: str = "train",
    pod: StepConfig | None = None,
    namespace: str | None = None,
    root: Path | None = None,
    folder: str | None = None,
    say: Callable[[str], None] = logger.info,
) -> checkpoints.Training:
    """Train a dataset's recipe on the cluster and bring the checkpoint to `out`.

    `root` is the project's folder here, `folder` the one in the pods that own recipes are imported from.

    The TrainJob's name follows from all that its result depends on: called again, it is followed where it is still
    running, and goes on from its last state where it is not. Raises the error that ended the training,
    ClusterError for what the cluster refused, Interrupted after a signal (the TrainJob is removed, its states stay).
    """
    pod, namespace = pod or StepConfig(), namespace or cluster.namespace
    trainjobs.check(cluster, namespace, config)
    settings, data = _settings(cluster), datasets.read(dataset)
    code = _code(config, root or settings.project)
    if folder:
        settings = settings.model_copy(update={"project": Path(folder)})
    place = trainjobs.name_of(name, config, preprocess, gate, data.digest, settings.image, code)
    shared, claim = f"{config.storage or f'pvc://{config.claim}'}/{place}", f"pvc://{config.claim}/{place}"
    job = trainjobs.TrainingJob(
        config.values(),
        preprocess.values(),
        gate.values(),
        f"{shared}/dataset",
        f"{shared}/checkpoint",
        f"{claim}/work",
    )
    trainjobs.put(dataset, job.dataset, datasets.DATASET_KIND)
    run = (reasons.run_of(str(out)) or "").rpartition("/")[2]
    trainjob = trainjobs.manifest(place, job, config, pod, namespace=namespace, settings=settings, run=run)
    trainjobs.follow(cluster, trainjob, say=say, own=recipes.is_own(config.recipe))
    trainjobs.bring(job.out, out, checkpoints.CHECKPOINT_KIND)
    return checkpoints.Training.read(out)


def _code(config: TrainConfig, root: Path) -> str:
    """Return the digest of an own recipe's code as it is here, empty for another's; nothing is imported for it."""
    if not recipes.is_own(config.recipe):
        return ""
    return provenance.code_of_module(config.recipe.partition(":")[0], root.absolute(), recipes.texts(config)).digest


def _settings(cluster: Cluster) -> Settings:
    """Return this process's settings, with the image of the pod that it runs in, digest and all: the nodes run it.

    Outside a cluster, or where a pod may not look at itself, it is BOATYARD_IMAGE.
    """
    settings = Settings()
    if NAMESPACE_FILE.is_file():
        with suppress(ClusterError):
            own = cluster.get("Pod", socket.gethostname(), NAMESPACE_FILE.read_text(encoding="utf-8").strip()) or {}
            images = {each["name"]: each["image"] for each in own.get("spec", {}).get("containers", [])}
            image = images.get(KUBEFLOW_CONTAINER) or next(iter(images.values()), settings.image)
            return settings.model_copy(update={"image": image})
    return settings


LAUNCHER = OnCluster()
