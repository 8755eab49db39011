"""`python -m benchmarks.serving [--small]`: measure, print the tables, write build/bench-serving/."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from . import environments, load, page, tables
from .environments import Unequal
from .measures import OURS, Bench
from .plan import FULL, SMALL, Plan
from .servers import THREADS


def main() -> int:
    """Run; 1 when answers differ, a request fails, or CI's floors are not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--small", action="store_true", help="three minutes, KServe alone, with floors for CI")
    parser.add_argument("--build", type=Path, default=Path("build/bench-serving"), help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=MEASURES, help="some of the measures")
    parser.add_argument("--seconds", type=int, help="of a cell (a shorter run than the record's)")
    parser.add_argument("--repeats", type=int, help="of each cell")
    options = parser.parse_args()
    if options.only and "offered" in options.only and "rates" not in options.only:
        parser.error("offered needs rates: it offers parts of them")
    load.need("wrk")
    load.need("h2load")
    logging.disable(logging.INFO)
    plan = SMALL if options.small else FULL
    plan = replace(plan, seconds=options.seconds or plan.seconds, repeats=options.repeats or plan.repeats)
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
    return verdict(bench)


def verdict(bench: Bench) -> int:
    """Return 1 when a request of ours failed; in CI also when a floor was not kept."""
    if failed := [each for each in bench.results.invalid if each.startswith(OURS)]:
        print(f"{len(failed)} cells of ours had errors", file=sys.stderr)
    missed = [ratio for ratio in bench.results.ratios if not ratio.kept]
    for ratio in missed:
        print(f"not kept: {ratio.name} against {ratio.against}, {ratio.median:.3g}, {ratio.target}", file=sys.stderr)
    return 1 if failed or (bench.plan.name == SMALL.name and missed) else 0


MEASURES = ("rates", "infers", "rpcs", "tensors", "starts", "overload", "offered", "batches", "sizes")
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
