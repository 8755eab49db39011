"""What a pod of a training is asked to do, what it asks for itself, and what the training is called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from boatyard.data import artifacts
from boatyard.errors import ConfigError
from boatyard.project import GateConfig, PreprocessConfig, Project, StepConfig, TrainConfig

MAX_NAME_CHARS = 30  # Kubernetes takes 63, of which digest, JobSet and Job's pods need the rest


@dataclass(frozen=True)
class TrainingJob:
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
    def from_json(cls, text: str) -> TrainingJob:
        """Read a pod's argument; raises ConfigError."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            found = f"{text[:80]!r}: {error}"
            raise ConfigError(expected="a job as boatyard writes it", found=found) from error


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


def name_of(
    name: str, config: TrainConfig, preprocess: PreprocessConfig, gate: GateConfig, dataset: str, image: str, code: str
) -> str:
    """Return a TrainJob's name: a project's, cut to what Kubernetes leaves of 63 letters, and a digest.

    `code` is the digest of an own recipe's; without it one with changed code would be given the former's result.
    """
    parts = [config.values(), preprocess.values(), gate.seal, dataset, image, *([code] if code else [])]
    return f"{name[:MAX_NAME_CHARS].rstrip('-')}-{artifacts.digest_json(parts)[:8]}"
