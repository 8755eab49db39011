"""Where things are on this machine: the environment, read here and nowhere else. What to do is the project's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work() -> Path | None:
    value = os.environ.get("BOATYARD_WORK")
    return Path(value) if value else None


@dataclass(frozen=True)
class Settings:
    """Read from BOATYARD_* variables.

    `image` runs the components on a cluster; `project` is the folder that own recipes are imported from;
    `work` is a folder that outlives a killed step (training goes on from it; none: it starts anew);
    `threads` bounds the threads of a stage (the processors this process may use).
    """

    image: str = field(default_factory=lambda: os.environ.get("BOATYARD_IMAGE", "boatyard/train:0.1.0"))
    project: Path = field(default_factory=lambda: Path(os.environ.get("BOATYARD_PROJECT", ".")))
    work: Path | None = field(default_factory=_work)
    threads: int = field(default_factory=lambda: int(os.environ.get("BOATYARD_THREADS", "0")) or _cpus())
