"""Ratios of what was measured side by side: one for each repetition, their median, least and greatest."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Ratio:
    """Ours against others, and what it should be: at least `wanted`, or at most when `low` is what is wanted."""

    name: str
    against: str
    each: tuple[float, ...]
    wanted: float
    low: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.each)

    @property
    def kept(self) -> bool:
        return self.median <= self.wanted if self.low else self.median >= self.wanted

    @property
    def spread(self) -> str:
        return f"{show(min(self.each))} – {show(max(self.each))}"

    @property
    def target(self) -> str:
        return f"{'≤' if self.low else '≥'} {self.wanted:g}"


def show(value: float) -> str:
    """Write a ratio with as many digits as it carries."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def interleaved(names: Sequence[str], repeats: int, measure: Callable[[str], T]) -> dict[str, list[T]]:
    """Measure each in turn, `repeats` times over, in an order that goes round: neighbours in time are compared."""
    found: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(repeats):
        start = turn % len(names)
        for name in [*names[start:], *names[:start]]:
            found[name].append(measure(name))
    return found


def against_best(
    ours: Sequence[float], others: Mapping[str, Sequence[float]], best: Callable[[Sequence[float]], float] = max
) -> tuple[float, ...]:
    """Divide ours by the best of the others in the same repetition, whichever that is: chance favours the others."""
    turns = zip(*others.values(), strict=True)
    return tuple(mine / best(theirs) for mine, theirs in zip(ours, turns, strict=True))


def best_name(others: Mapping[str, Sequence[float]], best: Callable[..., str] = max) -> str:
    """Return whose median is the best."""
    return best(others, key=lambda name: statistics.median(others[name]))
