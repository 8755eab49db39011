"""CPU time of starting: `import boatyard` against Python alone, `boatyard --help` against `import click`.

python benchmarks/help_time.py
"""

from __future__ import annotations

import resource
import subprocess
import sys

TIMES = 15  # of which the fastest counts: the rest met other work
LIMITS = {"import boatyard": 1.3, "boatyard --help": 1.5}


def cpu_seconds(*arguments: str, times: int = TIMES) -> float:
    """Return the least CPU time, user and system, that Python took with these arguments."""
    return min(_once(arguments) for _ in range(times))


def ratios(times: int = TIMES) -> dict[str, float]:
    """Return both ratios, by what was started."""
    start, library = cpu_seconds("-c", "pass", times=times), cpu_seconds("-c", "import boatyard", times=times)
    click, help_ = cpu_seconds("-c", "import click", times=times), cpu_seconds("-m", "boatyard", "--help", times=times)
    return {"import boatyard": library / start, "boatyard --help": help_ / click}


def _once(arguments: tuple[str, ...]) -> float:
    before = _children()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return _children() - before


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    for name, ratio in ratios().items():
        print(f"{name:<16} {ratio:.2f} × (at most {LIMITS[name]:g})")
