"""What a spec asks of a cluster: this machine supplies, refuses (volumes) or says what it does without (GPUs)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kfp import components

from boatyard.errors import ConfigError
from boatyard.training import devices

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one where PyYAML was built with it


@dataclass(frozen=True)
class Demands:
    """A spec's pipeline, and what it asks of a cluster, by step: variables of secrets, volumes, GPUs, seconds."""

    pipeline: Any
    secrets: Mapping[str, tuple[tuple[str, str], ...]]
    volumes: Mapping[str, tuple[str, ...]]
    gpus: Mapping[str, tuple[int, str]]  # how many, and the resource's name
    timeouts: Mapping[str, int]
    device: str  # train.device


def read_demands(spec: Path) -> Demands:
    """Read both documents of a spec, of which the local runner reads the first; raises ConfigError."""
    try:
        text = spec.read_text()
        documents = [document for document in yaml.load_all(text, Loader=_LOADER) if document]
        pipeline = components.load_component_from_text(text)
    except Exception as error:  # KFP's own are of many kinds
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{spec} is not a compiled pipeline: {reason}", fix="start a new run: boatyard run"
        ) from error
    executors = documents[0].get("deploymentSpec", {}).get("executors", {})
    platform: dict[str, Any] = {}
    for document in documents[1:]:
        platform |= document.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    return Demands(
        pipeline,
        secrets={bare_name(n): tuple(_variables(s)) for n, s in platform.items()},
        volumes={bare_name(n): tuple(_volumes(s)) for n, s in platform.items()},
        gpus={bare_name(n): found for n, e in executors.items() if (found := _gpus(e))[0]},
        timeouts={
            bare_name(n): int(s["activeDeadlineSeconds"]) for n, s in platform.items() if "activeDeadlineSeconds" in s
        },
        device=_device(documents[0]),
    )


def bare_name(name: str) -> str:
    """Return the step that a component or executor of a spec is of."""
    return name.removeprefix("exec-").removeprefix("comp-")


def _variables(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for secret in settings.get("secretAsEnv", []):
        for key in secret["keyToEnv"]:
            yield key["envVar"], f"{secret.get('secretName', '?')}/{key['secretKey']}"


def _volumes(settings: Mapping[str, Any]) -> Iterator[str]:
    kinds = ("pvcMount", "secretAsVolume", "configMapAsVolume", "genericEphemeralVolume")
    for kind in kinds:
        for volume in settings.get(kind, []):
            yield f"{kind} at {volume.get('mountPath', '?')}"


def _gpus(spec: Mapping[str, Any]) -> tuple[int, str]:
    accelerator = spec.get("container", {}).get("resources", {}).get("accelerator", {})
    count = int(accelerator.get("resourceCount") or accelerator.get("count") or 0)
    return count, str(accelerator.get("resourceType") or accelerator.get("type") or "GPU")


def _device(document: Mapping[str, Any]) -> str:
    """Return the train.device that a run of a spec here has: its parameter's default."""
    train = document.get("root", {}).get("inputDefinitions", {}).get("parameters", {}).get("train", {})
    return str((train.get("defaultValue") or {}).get("device", "auto"))


def refuse_missing(demands: Demands) -> None:
    """Refuse a spec whose steps would run without something that they ask for."""
    for step, variables in demands.secrets.items():
        for variable, secret in variables:
            if variable not in os.environ:
                raise ConfigError(
                    f"resources.{step}.secrets: {variable} comes from the secret {secret} on a cluster",
                    fix="here, export it",
                )
    for step, volumes in demands.volumes.items():
        if volumes:
            raise ConfigError(
                f"{step} mounts {', '.join(volumes)}, which this machine cannot", fix="run it on a cluster"
            )


def shortfalls(demands: Demands) -> list[str]:
    """Return a sentence for each step that gets fewer GPUs than it asks for; raises ConfigError if it must have one."""
    return [
        sentence
        for step, (count, resource) in demands.gpus.items()
        if (
            sentence := devices.shortfall(
                count, resource, demands.device if step == "train" else "", f"resources.{step}.gpu"
            )
        )
    ]
