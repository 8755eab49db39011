"""Where things are on this machine: the environment, read here and nowhere else. What to do is the project's."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

PROMETHEUS = "http://prometheus.monitoring.svc.cluster.local:9090"
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of CPU a period, as a container's limit sets it
MEMORY = (  # the limit of a container and what is used of it, of both versions of control groups
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available_memory() -> int:
    """Return the bytes that this process may still take: of the machine, or of its container if that has less."""
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 4 << 30)
    for limit, used in MEMORY:
        if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
            free = min(free, max(int(text) - int(used.read_text()), 0))
    return free


def _cpus() -> int:
    """Count the processors that this process may use: its share of its container's limit, rounded up."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (QUOTA.read_text() if QUOTA.is_file() else "max 1").strip().partition(" ")
    if quota != "max":
        processors = max(1, min(processors, math.ceil(int(quota) / int(period))))
    return max(1, processors // _number("LOCAL_WORLD_SIZE", 1))


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


def _path(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None


def _kubeflow() -> str:
    return os.environ.get("BOATYARD_KUBEFLOW") or os.environ.get("KF_PIPELINES_ENDPOINT", "")


def _work() -> Path | None:
    return _path("BOATYARD_WORK")


def _cache() -> Path:
    home = _path("XDG_CACHE_HOME") or Path.home() / ".cache"
    return _path("BOATYARD_CACHE") or home / "boatyard"


def _endpoint() -> str:
    return (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or os.environ.get("AWS_ENDPOINT", "")
    )


def _yes(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def _credentials() -> bool:
    """Whether the environment says who asks a bucket: a key, or one of the roles that a cloud gives a pod."""
    key = os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY")
    role = (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    )
    return bool(key) or any(os.environ.get(name) for name in role)


@dataclass(frozen=True)
class Settings:
    """Read from BOATYARD_* variables.

    `image` runs the components on a cluster, `serve_image` an endpoint; `prometheus` is where an autoscaler that counts
    requests asks; `project` is the folder that own recipes are imported from;
    `kubeflow` is the URL of the Kubeflow Pipelines API, `kubeflow_token` what it lets us in with;
    `work` is a folder that outlives a killed step (training goes on from it; none: it starts anew); `retries` is how
    often a step asks a store once more;
    `threads` bounds the threads of a stage (the processors this process may use).
    `rank`, `processes` and `local_rank` are torchrun's: which process of a training run this is, of how many, and
    which on its node; `patience` is how many seconds one waits for the others within a step.
    `cache` keeps what was pulled from buckets, `claims` is the folder below which volume claims are mounted by name.
    `endpoint`, `credentials`, `anonymous`, `virtual_hosts` and `certificates` say where an S3 store is and who asks:
    the variables are those of AWS's own tools, and those that KServe makes of a Secret.
    """

    image: str = field(default_factory=lambda: os.environ.get("BOATYARD_IMAGE", "boatyard/train:0.1.0"))
    serve_image: str = field(default_factory=lambda: os.environ.get("BOATYARD_SERVE_IMAGE", "boatyard/serve:0.1.0"))
    prometheus: str = field(default_factory=lambda: os.environ.get("BOATYARD_PROMETHEUS", PROMETHEUS))
    project: Path = field(default_factory=lambda: Path(os.environ.get("BOATYARD_PROJECT", ".")))
    kubeflow: str = field(default_factory=_kubeflow)
    kubeflow_token: str = field(default_factory=lambda: os.environ.get("BOATYARD_KUBEFLOW_TOKEN", ""), repr=False)
    work: Path | None = field(default_factory=_work)
    retries: int = field(default_factory=lambda: int(os.environ.get("BOATYARD_RETRIES", "0")))
    threads: int = field(default_factory=lambda: _number("BOATYARD_THREADS", 0) or _cpus())
    rank: int = field(default_factory=lambda: _number("RANK", 0))
    processes: int = field(default_factory=lambda: _number("WORLD_SIZE", 1))
    local_rank: int = field(default_factory=lambda: _number("LOCAL_RANK", 0))
    patience: int = field(default_factory=lambda: _number("BOATYARD_PATIENCE", 120))
    cache: Path = field(default_factory=_cache)
    claims: Path = field(default_factory=lambda: Path(os.environ.get("BOATYARD_CLAIMS", "/mnt/pvc")))
    endpoint: str = field(default_factory=_endpoint)
    credentials: bool = field(default_factory=_credentials)
    anonymous: bool = field(default_factory=lambda: _yes("AWS_SKIP_SIGNATURE") or _yes("awsAnonymousCredential"))
    virtual_hosts: bool = field(default_factory=lambda: _yes("S3_USER_VIRTUAL_BUCKET"))
    certificates: Path | None = field(default_factory=lambda: _path("AWS_CA_BUNDLE"))
