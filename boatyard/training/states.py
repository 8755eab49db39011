"""What a killed run goes on from: whole, sealed states, the newest two of them, and no pickle."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from boatyard.data import artifacts
from boatyard.errors import ArtifactError

logger = logging.getLogger(__name__)

STATE_KIND = "training state"
KEPT = 2
FOLDER = "states"


@dataclass(frozen=True)
class State:
    """Tensors by name, and JSON values."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors that `prefixed` put under a name, by their own names."""
        at = f"{name}."
        return {key.removeprefix(at): value for key, value in self.tensors.items() if key.startswith(at)}


def prefixed(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the name of a part of a state."""
    return {f"{part}.{name}": value for name, value in tensors.items()}


def save(work: Path, state: State, *, key: str, step: int) -> None:
    """Write a state whole or not at all, and keep it and the one before; raises StorageError on a full disk."""
    with artifacts.new_folder(_free(work / FOLDER / f"step-{step:012d}")) as beside:
        data = safetensors.torch.save({name: value.contiguous() for name, value in state.tensors.items()})
        artifacts.write_bytes(beside / "tensors.safetensors", data)
        artifacts.write_bytes(beside / "values.json", json.dumps(dict(state.values)).encode())
        artifacts.seal(beside, STATE_KIND, {"key": key, "step": step})
    for old in _saved(work)[KEPT:]:
        _remove(old)


def pack(state: State) -> bytes:
    """Return a state as bytes, to be sent; `unpack` takes them back."""
    tensors = {name: value.contiguous() for name, value in state.tensors.items()}
    return safetensors.torch.save(tensors, {"values": json.dumps(dict(state.values))})


def unpack(data: bytes) -> State:
    """Return the state that `pack` made bytes of."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return State(safetensors.torch.load(data), json.loads(header["__metadata__"]["values"]))


def load(work: Path, *, key: str, differs: Callable[[Mapping[str, Any]], str] = lambda values: "") -> State | None:
    """Return the newest state that is whole and belongs to the key, or None; say why one is passed over.

    `differs` says from a state's values what of it is another than of this run.
    """
    sweep(work)
    for path in _saved(work):
        try:
            manifest = artifacts.verify(path, STATE_KIND)
            values = artifacts.read_json(path / "values.json")
            if manifest["key"] != key:
                named = f" ({named})" if (named := differs(values)) else ""
                logger.warning("%s belongs to another configuration, dataset or recipe; starting anew%s", path, named)
                clear(work)
                return None
            return State(safetensors.torch.load((path / "tensors.safetensors").read_bytes()), values)
        except (ArtifactError, safetensors.SafetensorError, KeyError) as error:
            logger.warning("%s cannot be used (%s); going back to the state before", path, error)
    return None


def clear(work: Path) -> None:
    """Remove every state."""
    shutil.rmtree(work / FOLDER, ignore_errors=True)


def sweep(work: Path) -> None:
    """Remove what a killed run left half-written or half-removed."""
    for beside in (work / FOLDER).glob(".step-*"):
        shutil.rmtree(beside, ignore_errors=True)


def _free(path: Path) -> Path:
    """Return where a step's state goes: beside one of the same step, since replacing that leaves a moment with none."""
    later = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
    return path if not path.exists() else next(place for place in later if not place.exists())


def _remove(path: Path) -> None:
    """Rename first: a state that is half removed is not mistaken for a whole one."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    os.rename(path, beside)
    shutil.rmtree(beside, ignore_errors=True)


def _saved(work: Path) -> list[Path]:
    """Return the states, the newest first."""
    return sorted((work / FOLDER).glob("step-*"), reverse=True)
