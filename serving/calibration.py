"""Threads of an inference and rows of a batch: measured on this machine, on this graph, while loading."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from boatyard.data.schema import Array
from boatyard.prediction import Engine, Predictor

from .limits import Plan

logger = logging.getLogger(__name__)

SIZES = (1, 4, 16, 64, 256)  # rows of a batch that are tried
PATIENCE = 0.05  # seconds: a batch that takes longer makes those wait who came after it
WORTH = 1.5  # times as fast: what more threads must bring, for they are taken from the rest of the server
ENOUGH = 0.9  # of the best rows a second
BUDGET = 0.5  # seconds of measuring


def calibrate(package: Predictor, threads: int | None, batch: int | None, processes: int = 1) -> tuple[Predictor, Plan]:
    """Return the package with the engine that was chosen; what is given is not measured.

    `package` comes with an engine of one thread, or of the `threads` given; `processes` share the processors.
    """
    from boatyard.settings import Settings

    rows = package.package.golden.inputs
    if threads is None and (most := Settings().threads) > 1 and len(package.package.golden):
        other = replace(package, engine=type(package.engine)(package.package.model, package.schema, most))
        if _seconds(package.engine, rows, 1) > WORTH * _seconds(other.engine, rows, 1):
            package, threads = other, most
    chosen = batch or _batch(lambda size: _seconds(package.engine, rows, size))
    threads = threads or 1
    plan = Plan(threads, chosen, max(1, Settings().threads // (threads * processes)), package.engine.name)
    logger.info(
        "calibrated %s: %d threads, batches of %d rows, %d at once at most",
        plan.engine, plan.threads, plan.batch, plan.at_once,
    )  # fmt: skip
    return package, plan


def _batch(seconds: Callable[[int], float]) -> int:
    """Return the most rows that bring nearly all the speed there is, among batches that nobody waits long for."""
    started = time.perf_counter()
    rates: dict[int, float] = {}
    for size in SIZES:
        taken = seconds(size)
        if rates and taken > PATIENCE:
            break
        slower = size / taken * ENOUGH < max(rates.values(), default=0)  # larger ones take memory, and bring nothing
        rates[size] = size / taken
        if slower or time.perf_counter() - started > BUDGET:
            break
    return max(size for size, rate in rates.items() if rate >= ENOUGH * max(rates.values()))


def _seconds(engine: Engine, golden: Mapping[str, Array], rows: int) -> float:
    """Return the least seconds of three runs of so many golden rows, the first not counted."""
    inputs = {name: np.resize(array, (rows, *array.shape[1:])) for name, array in golden.items()}
    engine.run(inputs)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        engine.run(inputs)
        best = min(best, time.perf_counter() - started)
    return best
