"""Where things are on this machine: the environment, read here and nowhere else. What to do is the project's."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

PROMETHEUS = "http://prometheus.monitoring.svc.cluster.local:9090"
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of CPU a period, as a container's limit sets it


def _cpus() -> int:
    """Count the processors that this process may use: no more than its container's limit, rounded up."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (QUOTA.read_text() if QUOTA.is_file() else "max 1").strip().partition(" ")
    return processors if quota == "max" else max(1, min(processors, math.ceil(int(quota) / int(period))))


def _work() -> Path | None:
    value = os.environ.get("BOATYARD_WORK")
    return Path(value) if value else None


@dataclass(frozen=True)
class Settings:
    """Read from BOATYARD_* variables.

    `image` runs the components on a cluster, `serve_image` an endpoint; `prometheus` is where an autoscaler that counts
    requests asks; `project` is the folder that own recipes are imported from;
    `work` is a folder that outlives a killed step (training goes on from it; none: it starts anew); `retries` is how
    often a step asks a store once more;
    `threads` bounds the threads of a stage (the processors this process may use).
    """

    image: str = field(default_factory=lambda: os.environ.get("BOATYARD_IMAGE", "boatyard/train:0.1.0"))
    serve_image: str = field(default_factory=lambda: os.environ.get("BOATYARD_SERVE_IMAGE", "boatyard/serve:0.1.0"))
    prometheus: str = field(default_factory=lambda: os.environ.get("BOATYARD_PROMETHEUS", PROMETHEUS))
    project: Path = field(default_factory=lambda: Path(os.environ.get("BOATYARD_PROJECT", ".")))
    work: Path | None = field(default_factory=_work)
    retries: int = field(default_factory=lambda: int(os.environ.get("BOATYARD_RETRIES", "0")))
    threads: int = field(default_factory=lambda: int(os.environ.get("BOATYARD_THREADS", "0")) or _cpus())
