"""How often each end of each interval is beyond the truth, and how often a slice is marked that is not worse.

Nominal is 2.5 % an end at 95 % confidence, and 5 % of reports with a mark. Samples are drawn of 50, 100, 300 and 1,000
rows; shares of the rarer label of 2, 5, 20 and 50 %; scores and errors that are normal, lognormal (as they come, and
with mean 0) and t with 3 degrees of freedom. The intervals are
those of the report and the gate, by their own functions.

    python benchmarks/intervals.py [--samples 20]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from boatyard.evaluation import intervals, metrics, slices
from boatyard.evaluation.metrics import Metric

Array = np.ndarray[Any, Any]
ROWS, SHARES = (50, 100, 300, 1000), (0.02, 0.05, 0.2, 0.5)
TRUTH_ROWS = 500_000
CONFIDENCE, BINS = 0.95, 15
RARE = 0.05  # of samples: a cell with an interval in fewer says nothing about its ends, and is counted over all samples


def normal(random: np.random.Generator, rows: int) -> Array:
    return random.normal(size=rows)


def lognormal(random: np.random.Generator, rows: int) -> Array:
    return random.lognormal(size=rows)


def centred(random: np.random.Generator, rows: int) -> Array:
    return random.lognormal(size=rows) - math.exp(0.5)


def t3(random: np.random.Generator, rows: int) -> Array:
    return random.standard_t(3, size=rows)


Draw = Callable[[np.random.Generator, int], Array]
ERRORS: dict[str, Draw] = {"normal": normal, "lognormal": lognormal, "lognormal - mean": centred, "t3": t3}
SCORES: dict[str, Draw] = {"normal": normal, "lognormal": lognormal, "t3": t3}


@dataclass
class Ends:
    """Of one measure in one cell: samples, those with an interval, and those whose end is beyond the truth."""

    samples: int = 0
    shown: int = 0
    low: int = 0
    high: int = 0

    def add(self, low: float | None, high: float | None, truth: float) -> None:
        self.samples += 1
        self.shown += low is not None or high is not None
        self.low += low is not None and low > truth + 1e-12
        self.high += high is not None and high < truth - 1e-12

    def error(self, side: str) -> float:
        """Return the share of intervals shown whose end is beyond the truth; of all samples, where few are shown."""
        base = self.shown if self.shown >= RARE * self.samples else self.samples
        return float(getattr(self, side)) / max(base, 1)


Measured = dict[str, Callable[[], Metric]]


@dataclass(frozen=True)
class Cell:
    """Rows of a kind: how a sample of them is drawn and measured, and what is true of all."""

    name: str
    sample: Callable[[np.random.Generator], Measured]
    truth: dict[str, float]

    def run(self, samples: int, seed: int, only: str | None = None) -> dict[str, Ends]:
        """Count the ends that are beyond the truth."""
        random = np.random.default_rng(seed)
        found = {name: Ends() for name in self.truth if only in (None, name)}
        for _ in range(samples):
            measured = self.sample(random)
            for name, ends in found.items():
                one = measured[name]()
                ends.add(one.low, one.high, self.truth[name])
        return found


def two_labels(
    random: np.random.Generator, rows: int, share: float, draw: Draw, calibrated: bool
) -> tuple[Array, Array]:
    """Return targets and probabilities: of a calibrated model, or of one whose score has errors of a kind."""
    if calibrated:
        chance = 1 / (1 + np.exp(-(1.5 * draw(random, rows) + math.log(share / (1 - share)))))
        target = (random.random(rows) < chance).astype(np.int64)
    else:
        target = (random.random(rows) < share).astype(np.int64)
        chance = 1 / (1 + np.exp(-(draw(random, rows) + 2.0 * target - 1)))
    return target, np.column_stack([1 - chance, chance]).astype(np.float32)


def three_labels(random: np.random.Generator, rows: int, share: float, draw: Draw) -> tuple[Array, Array]:
    target = random.choice(3, size=rows, p=[share / 1.5, (1 - share / 1.5) / 2, (1 - share / 1.5) / 2])
    score = np.column_stack([draw(random, rows) for _ in range(3)]).clip(-30, 30) + 2.0 * np.eye(3)[target]
    score = np.exp(score - score.max(axis=1, keepdims=True))
    return target, (score / score.sum(axis=1, keepdims=True)).astype(np.float32)


def of_labels(target: Array, probabilities: Array) -> Measured:
    """Measure classified rows as the report does: its metrics, and those of the rarer label."""
    labels = probabilities.shape[1]
    given = probabilities.argmax(axis=1)
    right, rare = target == given, labels - 1 if labels == 2 else 0
    table, support = metrics.confusion(target, given, labels), np.bincount(target, minlength=labels)

    @cache
    def rows() -> dict[str, Metric]:
        return metrics.probabilistic(target, right, probabilities, confidence=CONFIDENCE, bins=BINS, seed=0)

    hits, has, gave = int(table[rare, rare]), int(support[rare]), int(table[:, rare].sum())
    return {
        "accuracy": lambda: metrics.proportion(int(right.sum()), len(target), CONFIDENCE),
        "precision of a label": lambda: metrics.proportion(hits, gave, CONFIDENCE),
        "recall of a label": lambda: metrics.proportion(hits, has, CONFIDENCE),
        "F1 of a label": lambda: metrics.f1(hits, has + gave - 2 * hits, CONFIDENCE),
        "AUC of a label": lambda: metrics.one_auc(target == rare, probabilities[:, rare], CONFIDENCE),
        "balanced_accuracy": lambda: metrics.balanced_accuracy(table, support, CONFIDENCE),
        "macro_f1": lambda: metrics.macro_f1(table, support, CONFIDENCE),
        "auc": lambda: metrics.auc(target, probabilities, CONFIDENCE),
        **{name: lambda name=name: rows()[name] for name in ("log_loss", "brier", "ece")},  # type: ignore[misc]
    }


Labels = Callable[[np.random.Generator, int], tuple[Array, Array]]


def labels(rows: tuple[int, ...] = ROWS, shares: tuple[float, ...] = SHARES) -> Iterator[Cell]:
    """Labels: calibrated probabilities of two, probabilities that are not, and three labels."""
    for share in shares:
        for name, draw in SCORES.items():
            ways: dict[str, Labels] = {
                "2 labels, calibrated": partial(two_labels, share=share, draw=draw, calibrated=True),
                "2 labels": partial(two_labels, share=share, draw=draw, calibrated=False),
                "3 labels": partial(three_labels, share=share, draw=draw),
            }
            for way, drawn in ways.items():
                truth = true_values(of_labels(*drawn(np.random.default_rng(99), TRUTH_ROWS)))
                if "calibrated" in way:
                    truth["ece"] = 0.0
                for n in rows:
                    yield Cell(
                        f"{n} rows, {share:.0%}, {name}, {way}",
                        lambda random, n=n, drawn=drawn: of_labels(*drawn(random, n)),  # type: ignore[misc]
                        truth,
                    )


def true_values(measured: Measured) -> dict[str, float]:
    values = {name: measure().value for name, measure in measured.items()}
    return {name: value for name, value in values.items() if value is not None}


def of_numbers(random: np.random.Generator, n: int, draw: Draw, spread: float) -> Measured:
    target = spread * random.normal(size=n)

    @cache
    def found() -> dict[str, Metric]:
        return metrics.regression(target, target + draw(random, n), confidence=CONFIDENCE)

    names = ("rmse", "mae", "median_absolute_error", "r2", "bias")
    return {name: lambda name=name: found()[name] for name in names}  # type: ignore[misc]


def numbers(rows: tuple[int, ...] = ROWS) -> Iterator[Cell]:
    """Numbers: a model whose errors are of a kind, on targets that spread little or much beside them."""
    for name, draw in ERRORS.items():
        for spread in (1.0, 4.0):
            truth = true_values(of_numbers(np.random.default_rng(99), TRUTH_ROWS, draw, spread))
            for n in rows:
                yield Cell(
                    f"{n} rows, {name}, target's deviation {spread:g}",
                    lambda random, n=n, draw=draw, spread=spread: of_numbers(random, n, draw, spread),  # type: ignore[misc]
                    truth,
                )


def of_pairs(random: np.random.Generator, n: int, share: float, win: float) -> Measured:
    wins, lost, _ = random.multinomial(n, [share * win, share * (1 - win), 1 - share])
    pair = intervals.tango(int(wins), int(lost), n, CONFIDENCE)
    return {"gate: rows right": lambda: metrics.metric(0.0, pair, "", n)}


def of_errors(random: np.random.Generator, n: int, draw: Draw, factor: float) -> Measured:
    shared = draw(random, n)
    new, old = abs(factor * (shared + draw(random, n))), abs(shared + draw(random, n))
    return {"gate: growth of errors": lambda: metrics.metric(0.0, intervals.ratio(new, old, CONFIDENCE), "", n)}


def gates(rows: tuple[int, ...] = ROWS, shares: tuple[float, ...] = SHARES) -> Iterator[Cell]:
    """The two differences that the gate bounds: of right rows, and of mean errors as a ratio."""
    for n in rows:
        for share in shares:
            for win in (0.1, 0.5, 0.9):
                drawn: Callable[..., Measured] = partial(of_pairs, n=n, share=share, win=win)
                truth = {"gate: rows right": share * (2 * win - 1)}
                yield Cell(f"{n} rows, {share:.0%} differ, {win:.0%} won", drawn, truth)
        for name, draw in ERRORS.items():
            for factor in (0.7, 1.5):
                drawn = partial(of_errors, n=n, draw=draw, factor=factor)
                yield Cell(f"{n} rows, {name}, times {factor:g}", drawn, {"gate: growth of errors": factor})


CELLS: list[Cell] = []


def _run(job: tuple[int, int, int, str | None]) -> dict[str, Ends]:
    cell, samples, seed, only = job
    return CELLS[cell].run(samples, seed, only)


def worst(
    pool: ProcessPoolExecutor, first: list[dict[str, Ends]], name: str, side: str, samples: int
) -> tuple[float, int]:
    """Return the greatest error of a measure's end and its cell: the worst go on to more samples, drawn anew."""
    left = [i for i, found in enumerate(first) if name in found]
    errors = {i: first[i][name].error(side) for i in left}
    for kept, more, seed in ((8, 3 * samples, 2), (2, 15 * samples, 3)):
        left = sorted(left, key=lambda i: -errors[i])[:kept]
        for i, found in zip(left, pool.map(_run, [(i, more, seed, name) for i in left]), strict=True):
            errors[i] = found[name].error(side)
    return max((errors[i], i) for i in left)


def table(pool: ProcessPoolExecutor, samples: int) -> Iterator[str]:
    """Say of each measure the error of each end: over all cells, and in the worst."""
    first = list(pool.map(_run, [(i, samples, 1, None) for i in range(len(CELLS))], chunksize=4))
    yield "| measure | low end: all | worst cell | high end: all | worst cell | shown |"
    yield "|---|---|---|---|---|---|"
    for name in dict.fromkeys(name for found in first for name in found):
        ends = [found[name] for found in first if name in found]
        shown = sum(one.shown for one in ends)
        parts = [f"| {name} |"]
        for side in ("low", "high"):
            error, cell = worst(pool, first, name, side, samples)
            parts.append(f" {sum(getattr(one, side) for one in ends) / max(shown, 1):.1%} |")
            parts.append(f" {error:.1%} ({CELLS[cell].name}) |" if error else " 0.0% |")
        yield "".join(parts) + f" {shown / sum(one.samples for one in ends):.0%} |"


def marked(samples: int, n: int, columns: int, kind: str, seed: int = 3) -> float:
    """Return the share of reports that mark a slice, of models for which no column has to do with being right."""
    random = np.random.default_rng(seed)

    def groups() -> Iterator[slices.SliceGroup]:
        for column in range(columns):
            if column % 2:
                numbers = slices.Numbers("n")
                numbers.add(random.normal(size=n))
                yield numbers.group()
            else:
                categories = slices.Categories("c")
                categories.add(np.minimum(random.zipf(1.8, n), 200).astype(str))
                yield categories.group()

    ways: dict[str, Callable[[], tuple[slices.Slice, ...]]] = {
        "97 % right": lambda: slices.accuracy_slices(groups(), random.random(n) < 0.97, CONFIDENCE),
        "70 % right": lambda: slices.accuracy_slices(groups(), random.random(n) < 0.7, CONFIDENCE),
        "few different errors": lambda: slices.error_slices(groups(), abs(random.integers(0, 5, n) - 2.1), CONFIDENCE),
        **{
            f"{name} errors": lambda d=draw: slices.error_slices(groups(), abs(d(random, n)), CONFIDENCE)  # type: ignore[misc]
            for name, draw in SCORES.items()
        },
    }
    return sum(any(part.worse for part in ways[kind]()) for _ in range(samples)) / samples


KINDS = ("97 % right", "70 % right", "few different errors", *(f"{name} errors" for name in SCORES))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=20, help="of each cell; the worst get 15 times as many")
    samples, start = parser.parse_args().samples, time.perf_counter()
    CELLS[:] = [*labels(), *numbers(), *gates()]
    print(f"Intervals whose end is beyond the truth, 2.5 % nominal; {len(CELLS)} cells, {samples} samples of each,")
    print(f"{15 * samples} of the worst:\n")
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:  # the cells are not pickled
        for line in table(pool, samples):
            print(line, flush=True)
        print(f"\nReports that mark a slice of a model that is worse on none, 5 % nominal; {5 * samples} of each:\n")
        print("| rows | columns | " + " | ".join(KINDS) + " |")
        print("|---|---|" + "---|" * len(KINDS))
        for n, columns in ((50, 4), (200, 2), (300, 12)):
            jobs = [pool.submit(marked, 5 * samples, n, columns, kind) for kind in KINDS]
            print(f"| {n} | {columns} | " + " | ".join(f"{job.result():.1%}" for job in jobs) + " |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
