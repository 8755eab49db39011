"""`python -m benchmarks.serving [--small]`: measure, print the tables, write build/bench-serving/."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from . import environments, load, page, tables
from .environments import Unequal
from .measures import Bench
from .plan import FULL, SMALL, Plan
from .servers import THREADS


def main() -> int:
    """Run; 1 when answers differ, a request fails, or CI's floors are not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--small", action="store_true", help="three minutes, KServe alone, with floors for CI")
    parser.add_argument("--build", type=Path, default=Path("build/bench-serving"), help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=MEASURES, help="some of the measures")
    options = parser.parse_args()
    load.need_wrk()
    logging.disable(logging.INFO)
    plan = SMALL if options.small else FULL
    bench = Bench(plan, options.build)
    started = time.monotonic()
    try:
        run(bench, options.only or MEASURES)
    except (Unequal, RuntimeError) as error:
        print(f"not a fair comparison, so none: {error}", file=sys.stderr)
        return 1
    about = surroundings(plan, time.monotonic() - started)
    tables.write(bench.results, about, options.build / f"{plan.name}.json")
    text = tables.render(bench.results, about)
    (options.build / f"{plan.name}.md").write_text(text, encoding="utf-8")
    (options.build / f"{plan.name}.html").write_text(page.render(bench.results, about), encoding="utf-8")
    print(f"\n{text}\n{options.build / plan.name}.html, .md and .json")
    return 1 if plan is SMALL and not all(ratio.kept for ratio in bench.results.ratios) else 0


MEASURES = ("rates", "rpcs", "tensors", "starts", "overload", "offered", "batches", "sizes")
SWEEPS = ("offered", "batches", "sizes")


def run(bench: Bench, wanted: Any) -> None:
    """Do the measures, each with a line before it."""
    if bench.plan.peers:
        bench.note("screening: each peer's best way to be started")
        bench.screen()
    for name in MEASURES:
        if name in wanted and (bench.plan.sweeps or name not in SWEEPS):
            measure = getattr(bench, name)
            bench.note((measure.__doc__ or name).partition("\n")[0])
            measure()


def surroundings(plan: Plan, seconds: float) -> dict[str, Any]:
    """Say what was measured on what."""
    packages = ("kserve", "onnxruntime", "uvicorn", "uvloop", "httptools", "grpcio", "numpy")
    return {
        "plan": plan.name,
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "peers": {
            "KServe": environments.version("kserve", "kserve"),
            "MLServer": environments.version("mlserver", "mlserver"),
            "BentoML": environments.version("bentoml", "bentoml"),
            "LitServe": environments.version("litserve", "litserve"),
        },
        "threads": THREADS,
        "seconds of a cell": plan.seconds,
        "repetitions": plan.repeats,
        "minutes": seconds / 60,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
