"""What this machine, or the container that it is seen from, has to work with: processors and memory."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of CPU a period, as a container's limit sets it
DEFAULT_MEMORY_BYTES = 4 << 30  # taken as free where the system does not say
MEMINFO = Path("/proc/meminfo")
CPUINFO = Path("/proc/cpuinfo")
VECTOR = ("sse4", "avx", "fma", "f16c", "amx", "asimd", "neon", "sve", "bf16", "i8mm")  # begin what kernels choose by


@dataclass(frozen=True)
class MemoryCgroup:
    """Where a control group of one version says what it may take, what it takes, and what of that is page cache."""

    limit: Path
    used: Path
    stat: Path
    reclaimable: str


MEMORY_CGROUPS = (
    MemoryCgroup(
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory.current"),
        Path("/sys/fs/cgroup/memory.stat"),
        "inactive_file",
    ),
    MemoryCgroup(
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
        "total_inactive_file",
    ),
)


def available_memory() -> int:
    """Return the bytes that this process may still take: of the machine, or of its container if that has less."""
    lines = MEMINFO.read_text().splitlines() if MEMINFO.exists() else []
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    free = DEFAULT_MEMORY_BYTES if free is None else free
    for group in MEMORY_CGROUPS:
        if group.limit.exists() and group.used.exists() and (limit := group.limit.read_text().strip()).isdigit():
            free = min(free, max(int(limit) - _working_set(group), 0))
    return free


def _working_set(group: MemoryCgroup) -> int:
    """Return the bytes in use as the kubelet counts them: file pages not used of late are given back when needed."""
    lines = group.stat.read_text().splitlines() if group.stat.exists() else []
    pages = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return max(int(group.used.read_text()) - int(pages.get(group.reclaimable, 0)), 0)


def processors() -> int:
    """Count the processors that this process may use: its share of its container's limit, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (CPU_QUOTA.read_text() if CPU_QUOTA.is_file() else "max 1").strip().partition(" ")
    return count if quota == "max" else max(1, min(count, math.ceil(int(quota) / int(period))))


def vector_instructions() -> tuple[str, ...]:
    """Return the vector instructions that this machine's processor has, as Linux calls them."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    flags = next((line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))), "")
    return tuple(sorted(flag for flag in flags.split() if flag.startswith(VECTOR)))
