"""Bars and curves as inline SVG, in the colours of the report's style sheet."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from boatyard.evaluation.report.plots import n, svg, text

from .ratios import show

Points = Sequence[tuple[float, float]]
WIDTH, LINE, NAME = 340.0, 26.0, 96.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 12.0, 44.0


def bars(values: Mapping[str, Sequence[float]]) -> str:
    """Draw a bar for each name: the median, with a line from the least to the greatest."""
    most = max(max(each) for each in values.values()) or 1.0
    reach = WIDTH - NAME - 62

    def x(value: float) -> str:
        return n(NAME + value / most * reach)

    parts = []
    for index, (name, each) in enumerate(values.items()):
        y, middle = index * LINE + 4, statistics.median(each)
        parts.append(
            f'<text class="tick" x="{n(NAME - 6)}" y="{n(y + 9)}" dy=".32em" text-anchor="end">{text(name[:15])}</text>'
            f'<rect class="bar" x="{n(NAME)}" y="{n(y)}" width="{n(middle / most * reach)}" height="18" rx="2" '
            f'style="fill-opacity:{1 if index == 0 else 0.4}"/>'
            f'<path class="reference" d="M{x(min(each))} {n(y + 9)}H{x(max(each))}"/>'
            f'<text class="tick" x="{n(WIDTH)}" y="{n(y + 9)}" dy=".32em" text-anchor="end">{number(middle)}</text>'
        )
    told = "; ".join(f"{name} {number(statistics.median(each))}" for name, each in values.items())
    return svg(WIDTH, len(values) * LINE + 4, told, *parts)


def number(value: float) -> str:
    """Write a number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else show(value)


def curves(series: Mapping[str, Points], names: Sequence[str], x_name: str, y_name: str) -> str:
    """Draw lines on two logarithmic axes; a name has the same colour in every plot."""
    if not series:
        return ""
    width, height = 520.0, 340.0
    xs, ys = ([point[i] for line in series.values() for point in line] for i in (0, 1))
    x = Scale(xs, LEFT, width - RIGHT)
    y = Scale(ys, height - BOTTOM, TOP)
    parts = [_axes(xs, ys, width, height, x_name, y_name)]
    for name, line in series.items():
        colour = f"s{names.index(name) % 8}"
        path = "L".join(f"{n(x(a))} {n(y(b))}" for a, b in line)
        dots = "".join(f"M{n(x(a))} {n(y(b))}h0" for a, b in line)
        parts.append(f'<path class="curve {colour}" d="M{path}"/><path class="mark {colour}" d="{dots}"/>')
    told = "; ".join(f"{name} from {number(line[0][1])} to {number(line[-1][1])}" for name, line in series.items())
    return svg(width, height, f"{y_name} by {x_name}: {told}", *parts) + _legend(series, names)


def _legend(series: Mapping[str, Points], names: Sequence[str]) -> str:
    items = "".join(
        f'<li><span class="key s{names.index(name) % 8}"></span>{text(name)}'
        f"<small>{number(line[-1][1])} at the end</small></li>"
        for name, line in series.items()
    )
    return f'<ul class="legend">{items}</ul>'


class Scale:
    """A logarithmic axis: a value's place between two ends, with a little room."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        room = max(0.06 * (high - low), 0.05)
        self.low, self.high, self.start, self.end = low - room, high + room, start, end

    def __call__(self, value: float) -> float:
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)


def _axes(xs: Sequence[float], ys: Sequence[float], width: float, height: float, x_name: str, y_name: str) -> str:
    x, y = Scale(xs, LEFT, width - RIGHT), Scale(ys, height - BOTTOM, TOP)
    parts = []
    for value in _round_numbers(x):
        at = n(x(value))
        parts.append(f'<path class="grid" d="M{at} {n(TOP)}V{n(height - BOTTOM)}"/>')
        parts.append(
            f'<text class="tick" x="{at}" y="{n(height - BOTTOM + 16)}" text-anchor="middle">{_short(value)}</text>'
        )
    for value in _round_numbers(y):
        at = n(y(value))
        parts.append(f'<path class="grid" d="M{n(LEFT)} {at}H{n(width - RIGHT)}"/>')
        parts.append(
            f'<text class="tick" x="{n(LEFT - 7)}" y="{at}" dy=".32em" text-anchor="end">{_short(value)}</text>'
        )
    middle, half = n((LEFT + width - RIGHT) / 2), n((TOP + height - BOTTOM) / 2)
    parts.append(f'<text class="axis" x="{middle}" y="{n(height - 6)}" text-anchor="middle">{text(x_name)}</text>')
    turned = f"translate(12 {half})rotate(-90)"
    parts.append(f'<text class="axis" transform="{turned}" text-anchor="middle">{text(y_name)}</text>')
    return "".join(parts)


def _round_numbers(scale: Scale) -> list[float]:
    """Return 1, 2 and 5 times powers of ten within an axis; powers alone when those are many."""
    powers = range(math.floor(scale.low), math.ceil(scale.high) + 1)
    steps = (1, 2, 5) if scale.high - scale.low < 2.5 else (1,)
    found = [step * 10.0**power for power in powers for step in steps]
    return [value for value in found if scale.low <= math.log10(value) <= scale.high]


def _short(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"
