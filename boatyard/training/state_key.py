"""What a run depends on, and its digest: a state of another key is not gone on from, and what differs is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from boatyard import __version__
from boatyard.data import artifacts
from boatyard.data.datasets import Dataset
from boatyard.project import PreprocessConfig, TrainConfig
from boatyard.provenance import Code
from boatyard.spelling import listed

WHERE = {"device", "nodes", "gpus", "claim", "storage"}  # settings that say where a run is computed, not what
MAX_NAMED = 6
FORMAT = 3  # of what a state holds; raised when an older one lacks something that a run goes on from


def depends_on(config: TrainConfig, how: PreprocessConfig, dataset: Dataset, seal: str, code: Code) -> dict[str, Any]:
    """Return everything that decides what a run comes to, as JSON values; `code` is what its recipe is made of."""
    return {
        "train": config.model_dump(mode="json", exclude=WHERE),
        "preprocess": how.model_dump(mode="json"),
        "dataset": dataset.digest,
        "gate": seal,
        "code": {**code.files, **code.distributions},
        "boatyard": __version__,
        "torch": torch.__version__.partition("+")[0],
        "numpy": np.__version__,
        "state": FORMAT,
    }


def digest(values: Mapping[str, Any]) -> str:
    """Return the key."""
    return artifacts.digest_json(dict(values))


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say what differs between what two runs depend on."""
    lines = list(_differences(saved, now, ""))
    return listed(lines, MAX_NAMED)


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any], at: str) -> Iterator[str]:
    for name in sorted({*saved, *now}):
        one, other, path = saved.get(name), now.get(name), f"{at}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{path}: " if name == "code" else f"{path}.")
        elif one != other:
            long = len(f"{one}{other}") > 60  # a digest
            yield f"{path} changed" if long else f"{path} {_word(one)} → {_word(other)}"


def _word(value: Any) -> str:
    return "not set" if value is None else str(value)
