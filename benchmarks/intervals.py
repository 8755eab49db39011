"""How often each end of each interval is beyond the truth, and how often a slice is marked that is not worse.

Nominal is 2.5 % an end at 95 % confidence, and 5 % of reports with a mark. Samples are drawn of 50, 100, 300 and 1,000
rows; shares of the rarer label of 2, 5, 20 and 50 %; scores and errors that are normal, lognormal (as they come, and
with mean 0) and t with 3 degrees of freedom. The intervals are
those of the report and the gate, by their own functions.

    python benchmarks/intervals.py [--samples 1000]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boatyard.evaluation import intervals, metrics, slices
from boatyard.evaluation.metrics import Metric

Array = np.ndarray[Any, Any]
ROWS, SHARES = (50, 100, 300, 1000), (0.02, 0.05, 0.2, 0.5)
TRUTH_ROWS = 1_000_000
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
        return getattr(self, side) / max(base, 1)


@dataclass
class Table:
    """Every measure's cells."""

    cells: dict[str, dict[str, Ends]] = field(default_factory=dict)

    def add(self, cell: str, found: dict[str, Metric], truth: dict[str, Metric]) -> None:
        for name, one in found.items():
            if truth[name].value is not None:
                self.end(name, cell).add(one.low, one.high, truth[name].value)  # type: ignore[arg-type]

    def end(self, name: str, cell: str) -> Ends:
        return self.cells.setdefault(name, {}).setdefault(cell, Ends())

    def lines(self) -> Iterator[str]:
        yield "| measure | low end | high end | shown | worst cell |"
        yield "|---|---|---|---|---|"
        for name, cells in self.cells.items():
            low, high = (max(cells, key=lambda c, side=side: cells[c].error(side)) for side in ("low", "high"))  # type: ignore[misc]
            worst = max((cells[low].error("low"), low), (cells[high].error("high"), high))[1]
            shown = [one.shown / one.samples for one in cells.values()]
            yield (
                f"| {name} | {cells[low].error('low'):.1%} | {cells[high].error('high'):.1%} | "
                f"{min(shown):.0%} to {max(shown):.0%} | {worst} |"
            )


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


def of_labels(target: Array, probabilities: Array, seed: int) -> dict[str, Metric]:
    """Measure classified rows as the report does: its metrics, those of the rarer label, and a calibration bin."""
    labels = probabilities.shape[1]
    given = probabilities.argmax(axis=1)
    right = target == given
    table, support = metrics.confusion(target, given, labels), np.bincount(target, minlength=labels)
    rare = metrics.class_scores([str(k) for k in range(labels)], target, given, probabilities, CONFIDENCE)[
        -1 if labels == 2 else 0
    ]
    found = {
        "accuracy": metrics.proportion(int(right.sum()), len(target), CONFIDENCE),
        "balanced_accuracy": metrics.balanced_accuracy(table, support, CONFIDENCE),
        "macro_f1": metrics.macro_f1(table, support, CONFIDENCE),
        "auc": metrics.auc(target, probabilities, CONFIDENCE),
        **metrics.probabilistic(target, right, probabilities, confidence=CONFIDENCE, bins=BINS, seed=seed),
        **{f"label's {name}": getattr(rare, name) for name in ("precision", "recall", "f1", "auc")},
    }
    del found["calibration_rmse"]  # which never has an interval
    return found


def labels(table: Table, samples: int, rows: tuple[int, ...], shares: tuple[float, ...]) -> None:
    for share in shares:
        for name, draw in SCORES.items():
            ways: dict[str, Callable[[np.random.Generator, int], tuple[Array, Array]]] = {
                "calibrated": lambda r, n, s=share, d=draw: two_labels(r, n, s, d, True),  # type: ignore[misc]
                "2 labels": lambda r, n, s=share, d=draw: two_labels(r, n, s, d, False),  # type: ignore[misc]
                "3 labels": lambda r, n, s=share, d=draw: three_labels(r, n, s, d),  # type: ignore[misc]
            }
            for way, drawn in ways.items():
                truth = of_labels(*drawn(np.random.default_rng(99), TRUTH_ROWS), 0)
                if way == "calibrated":
                    truth["ece"] = metrics.metric(0.0, (0, 0), "", 1)
                for n in rows:
                    random = np.random.default_rng(1)
                    for sample in range(samples):
                        found = of_labels(*drawn(random, n), sample)
                        table.add(f"{n} rows, {share:.0%}, {name}, {way}", found, truth)


def numbers(table: Table, samples: int, rows: tuple[int, ...]) -> None:
    def drawn(random: np.random.Generator, n: int, draw: Draw, spread: float) -> tuple[Array, Array]:
        target = spread * random.normal(size=n)
        return target, target + draw(random, n)

    for name, draw in ERRORS.items():
        for spread in (1.0, 4.0):
            truth = metrics.regression(*drawn(np.random.default_rng(99), TRUTH_ROWS, draw, spread))
            for n in rows:
                random = np.random.default_rng(1)
                for _ in range(samples):
                    found = metrics.regression(*drawn(random, n, draw, spread), confidence=CONFIDENCE)
                    table.add(f"{n} rows, {name}, target's deviation {spread:g}", found, truth)


def gates(table: Table, samples: int, rows: tuple[int, ...], shares: tuple[float, ...]) -> None:
    """The two differences that the gate bounds: of right rows, and of mean errors as a ratio."""
    for n in rows:
        random = np.random.default_rng(1)
        for share in shares:
            for win in (0.1, 0.5, 0.9):
                for wins, lost, _ in random.multinomial(n, [share * win, share * (1 - win), 1 - share], size=samples):
                    low, high = intervals.tango(int(wins), int(lost), n, CONFIDENCE)
                    table.end("gate: rows right", f"{n} rows, {share:.0%} differ, {win:.0%} won").add(
                        low, high, share * (2 * win - 1)
                    )
        for name, draw in ERRORS.items():
            for factor in (0.7, 1.0, 1.5):
                for _ in range(samples):
                    shared = draw(random, n)
                    new, old = abs(factor * (shared + draw(random, n))), abs(shared + draw(random, n))
                    low, high = intervals.ratio(new, old, CONFIDENCE)
                    ends = (end if math.isfinite(end) else None for end in (low, high))
                    table.end("gate: growth of errors", f"{n} rows, {name}, times {factor:g}").add(*ends, factor)


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
    parser.add_argument("--samples", type=int, default=1000)
    samples = parser.parse_args().samples
    start, table = time.perf_counter(), Table()
    labels(table, samples, ROWS, SHARES)
    numbers(table, 2 * samples, ROWS)
    gates(table, samples, ROWS, SHARES)
    print(f"Intervals whose end is beyond the truth, the worst of all cells of {samples} samples; 2.5 % nominal:\n")
    print("\n".join(table.lines()))
    print("\nShare of reports that mark a slice of a model that is worse on none, 5 % nominal:\n")
    print("| rows | columns | " + " | ".join(KINDS) + " |")
    print("|---|---|" + "---|" * len(KINDS))
    for n, columns in ((50, 4), (200, 2), (300, 20), (1000, 6)):
        shares = (marked(samples // 2, n, columns, kind) for kind in KINDS)
        print(f"| {n} | {columns} | " + " | ".join(f"{share:.1%}" for share in shares) + " |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
