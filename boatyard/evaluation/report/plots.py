"""Plots as inline SVG, drawn by hand: a few kilobytes each, crisp on any screen, coloured by the page's own style.

Every function takes numbers and returns markup; every text that comes from data is escaped here. A plot says in its
`aria-label` what a reader who cannot see it has to know.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from boatyard.evaluation.metrics import Bin, Roc

Cells = Sequence[tuple[int, int, int]]
COLOURS = 8  # of curves, in the style sheet
LABELLED = 24  # labels that an axis of the confusion matrix has room to name
COUNTED = 16  # labels up to which a cell has room for its number
LEVELS = 12  # shades of a large confusion matrix


def text(value: object) -> str:
    """Escape a value for markup and attributes."""
    return html.escape(str(value), quote=True)


def n(value: float) -> str:
    """Write a coordinate: two decimals are below a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def svg(width: float, height: float, label: str, *parts: str, kind: str = "plot") -> str:
    """Wrap parts in an image that scales with the page."""
    body = "".join(parts)
    return (
        f'<svg class="{kind}" viewBox="0 0 {n(width)} {n(height)}" role="img" aria-label="{text(label)}">{body}</svg>'
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers that cover a range: 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Frame:
    """A plot's area: sizes in the image's units, and the ranges of numbers that are laid on them."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 52
    right: float = 14
    top: float = 12
    bottom: float = 44

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / ((high - low) or 1) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / ((high - low) or 1) * (self.height - self.top - self.bottom)

    def axes(self, x_name: str, y_name: str, show: Callable[[float], str] = lambda v: f"{v:g}") -> str:
        """Draw the grid, the numbers and the names of both axes."""
        parts = []
        for value in ticks(*self.x_range):
            x = n(self.x(value))
            parts.append(f'<path class="grid" d="M{x} {n(self.top)}V{n(self.height - self.bottom)}"/>')
            parts.append(
                f'<text class="tick" x="{x}" y="{n(self.height - self.bottom + 16)}" '
                f'text-anchor="middle">{show(value)}</text>'
            )
        for value in ticks(*self.y_range):
            y = n(self.y(value))
            parts.append(f'<path class="grid" d="M{n(self.left)} {y}H{n(self.width - self.right)}"/>')
            parts.append(
                f'<text class="tick" x="{n(self.left - 7)}" y="{y}" dy=".32em" text-anchor="end">{show(value)}</text>'
            )
        middle = (self.left + self.width - self.right) / 2
        parts.append(
            f'<text class="axis" x="{n(middle)}" y="{n(self.height - 6)}" text-anchor="middle">{text(x_name)}</text>'
        )
        half = n((self.top + self.height - self.bottom) / 2)
        parts.append(
            f'<text class="axis" transform="translate(12 {half})rotate(-90)" text-anchor="middle">{text(y_name)}</text>'
        )
        return "".join(parts)

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        """Draw a line through points."""
        path = "L".join(f"{n(self.x(x))} {n(self.y(y))}" for x, y in points)
        return f'<path class="{kind}" d="M{path}"/>'

    def dots(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        """Draw many dots as one path: lines of no length with round ends."""
        path = "".join(f"M{n(self.x(x))} {n(self.y(y))}h0" for x, y in points)
        return f'<path class="{kind}" d="{path}"/>'


def whisker(
    value: float | None,
    low: float | None,
    high: float | None,
    span: tuple[float, float],
    *,
    reference: float | None = None,
    kind: str = "",
) -> str:
    """Draw a number and its interval on a line as wide as a table's cell; `reference` is a tick to compare with."""
    frame = Frame(160, 18, span, (0, 1), left=5, right=5, top=0, bottom=0)

    def at(number: float) -> float:
        return min(max(frame.x(number), 5), 155)

    parts = ['<path class="track" d="M5 9H155"/>']
    if reference is not None:
        parts.append(f'<path class="reference" d="M{n(at(reference))} 2V16"/>')
    if value is None:
        return svg(160, 18, "no value", *parts, kind="whisker")
    if low is not None and high is not None:
        parts.append(f'<path class="interval {kind}" d="M{n(at(low))} 9H{n(at(high))}"/>')
    parts.append(f'<circle class="point {kind}" cx="{n(at(value))}" cy="9" r="4"/>')
    label = f"{value:.4g}" + ("" if low is None or high is None else f", from {low:.4g} to {high:.4g}")
    return svg(160, 18, label, *parts, kind="whisker")


def confusion(labels: Sequence[str], cells: Cells) -> str:
    """Draw a confusion matrix: a row a true label, shaded by the share of the row, right blue and wrong red."""
    count = len(labels)
    totals = [0] * count
    for true, _, rows in cells:
        totals[true] += rows
    named = count <= LABELLED
    longest = max((len(label) for label in labels), default=0)
    left = 30 + (min(longest, 16) * 6.6 if named else 16)
    side = max(34.0, min(64.0, 620 / count)) if count <= COUNTED else 620 / count
    width, foot = left + side * count + 8, (24 + min(longest, 16) * 5.2 if named else 30)
    height = side * count + foot + 22
    draw = _cells if count <= COUNTED else _shades
    parts = [f'<rect class="matrix" x="{n(left)}" y="6" width="{n(side * count)}" height="{n(side * count)}"/>']
    parts.append(draw(labels, cells, totals, left, side))
    if named:
        parts.append(_names(labels, left, side, 6 + side * count))
    parts.append(
        f'<text class="axis" x="{n(left + side * count / 2)}" y="{n(height - 4)}" text-anchor="middle">predicted</text>'
    )
    parts.append(
        f'<text class="axis" transform="translate(12 {n(6 + side * count / 2)})rotate(-90)" '
        'text-anchor="middle">true</text>'
    )
    right = sum(rows for true, given, rows in cells if true == given)
    total = sum(totals)
    about = (
        f"Confusion matrix of {count} labels: {right} of {total} rows on the diagonal; the numbers "
        "are in the report's JSON"
    )
    drawn = svg(width, height, about, *parts, kind="plot matrix")
    return f'<div class="wide" style="max-width:{n(width * 1.15)}px">{drawn}</div>'


def _short(label: str, most: int = 16) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _names(labels: Sequence[str], left: float, side: float, bottom: float) -> str:
    parts = []
    for i, label in enumerate(labels):
        middle = n(left + (i + 0.5) * side + 3)
        parts.append(
            f'<text class="tick" x="{n(left - 6)}" y="{n(6 + (i + 0.5) * side)}" dy=".32em" '
            f'text-anchor="end">{text(_short(label))}</text>'
        )
        parts.append(
            f'<text class="tick" transform="translate({middle} {n(bottom + 12)})rotate(-40)" '
            f'text-anchor="end">{text(_short(label))}</text>'
        )
    return "".join(parts)


def _opacity(share: float) -> float:
    """Shade by the root of the share, so that rare confusions are seen too."""
    return round(0.06 + 0.94 * math.sqrt(share), 3)


def _cells(labels: Sequence[str], cells: Cells, totals: Sequence[int], left: float, side: float) -> str:
    parts = []
    for true, given, rows in cells:
        share = rows / totals[true]
        x, y = left + given * side, 6 + true * side
        kind = "hit" if true == given else "miss"
        title = f"{labels[true]} predicted as {labels[given]}: {rows} of {totals[true]} ({share:.1%})"
        dark = " on" if _opacity(share) > 0.62 else ""
        parts.append(
            f'<g><title>{text(title)}</title><rect class="{kind}" x="{n(x + 1)}" y="{n(y + 1)}" width="{n(side - 2)}" '
            f'height="{n(side - 2)}" rx="3" fill-opacity="{_opacity(share)}"/><text class="count{dark}" '
            f'x="{n(x + side / 2)}" '
            f'y="{n(y + side / 2)}" dy=".34em" text-anchor="middle">{rows}</text></g>'
        )
    return "".join(parts)


def _shades(labels: Sequence[str], cells: Cells, totals: Sequence[int], left: float, side: float) -> str:
    """Draw a large matrix as one path a shade: ten thousand cells stay under two hundred kilobytes."""
    paths: dict[tuple[str, int], list[str]] = {}
    for true, given, rows in cells:
        level = math.ceil(_opacity(rows / totals[true]) * LEVELS)
        kind = "hit" if true == given else "miss"
        paths.setdefault((kind, level), []).append(f"M{given} {true}h1v1h-1z")
    drawn = (
        f'<path class="{kind}" fill-opacity="{n(level / LEVELS)}" d="{"".join(path)}"/>'
        for (kind, level), path in sorted(paths.items())
    )
    return f'<g transform="translate({n(left)} 6)scale({side:.4f})">{"".join(drawn)}</g>'


def calibration(bins: Sequence[Bin], confidence: float) -> str:
    """Draw what the model said against what came true, with the interval of each bin, and how often it said it."""
    frame = Frame(520, 400, (0, 1), (0, 1))
    band = [(b.confidence, b.accuracy_low) for b in bins] + [(b.confidence, b.accuracy_high) for b in reversed(bins)]
    parts = [
        frame.axes("probability that the model gave", "share that was right"),
        frame.line([(0, 0), (1, 1)], "ideal"),
    ]
    if len(bins) > 1:
        parts.append(frame.line(band, "band") + frame.line([(b.confidence, b.accuracy) for b in bins], "curve s0"))
    for b in bins:
        title = (
            f"said {b.confidence:.3f}, right {b.accuracy:.3f} of {b.n} rows ({b.accuracy_low:.3f} "
            f"to {b.accuracy_high:.3f})"
        )
        bar = frame.line([(b.confidence, b.accuracy_low), (b.confidence, b.accuracy_high)], "error")
        dot = f'<circle class="point" cx="{n(frame.x(b.confidence))}" cy="{n(frame.y(b.accuracy))}" r="4"/>'
        parts.append(f"<g><title>{text(title)}</title>{bar}{dot}</g>")
    about = (
        f"Calibration curve in {len(bins)} bins with {confidence * 100:g} % intervals; on the "
        "diagonal, what is said comes true"
    )
    return svg(520, 400, about, *parts) + _confidences(bins)


def _confidences(bins: Sequence[Bin]) -> str:
    most = max((b.n for b in bins), default=1)
    frame = Frame(520, 130, (0, 1), (0, most), bottom=40)
    bars = []
    for b in bins:
        x, y = frame.x(b.low), frame.y(b.n)
        wide, high = frame.x(b.high) - x, frame.y(0) - y
        title = f"{b.n} rows with {b.low:.2f} to {b.high:.2f}"
        bars.append(
            f'<rect class="bar" x="{n(x + 0.5)}" y="{n(y)}" width="{n(wide - 1)}" height="{n(high)}">'
            f"<title>{title}</title></rect>"
        )
    return svg(
        520,
        130,
        "How many rows got which probability",
        frame.axes("probability that the model gave", "rows", _short_number),
        *bars,
    )


def _short_number(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def roc(curves: Sequence[Roc], areas: Sequence[str]) -> str:
    """Draw ROC curves with their areas named; the first eight have colours, more are grey."""
    frame = Frame(520, 400, (0, 1), (0, 1))
    parts = [frame.axes("false positive rate", "true positive rate"), frame.line([(0, 0), (1, 1)], "ideal")]
    for i, (curve, area) in reversed(list(enumerate(zip(curves, areas, strict=True)))):
        kind = f"curve s{i}" if i < COLOURS else "curve grey"
        line = frame.line(list(zip(curve.fpr, curve.tpr, strict=True)), kind)
        parts.append(f"<g><title>{text(curve.label)}: {text(area)}</title>{line}</g>")
    about = f"ROC curves of {len(curves)} labels against the rest; the areas are listed beside"
    return svg(520, 400, about, *parts) + legend([(c.label, a) for c, a in zip(curves, areas, strict=True)])


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """List what the colours stand for."""
    items = "".join(
        f'<li><span class="key s{i if i < COLOURS else "x"}"></span>{text(_short(name, 40))}<small>{text(more)}'
        "</small></li>"
        for i, (name, more) in enumerate(entries)
    )
    return f'<ul class="legend">{items}</ul>'


def curves(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], x_name: str, y_name: str) -> str:
    """Draw numbers over time, such as losses by epoch."""
    points = [point for _, line in series for point in line]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    room = (max(ys) - min(ys)) * 0.05 or abs(max(ys)) * 0.05 or 1.0
    low = 0.0 if min(ys) >= 0 and min(ys) < max(ys) * 0.5 else min(ys) - room
    frame = Frame(520, 300, (min(xs), max(max(xs), min(xs) + 1)), (low, max(ys) + room))
    parts = [frame.axes(x_name, y_name)]
    for i, (_, line) in enumerate(series):
        parts.append(frame.line(line, f"curve s{i % COLOURS}") + frame.dots(line, f"mark s{i % COLOURS}"))
    told = "; ".join(f"{name} from {line[0][1]:.4g} to {line[-1][1]:.4g}" for name, line in series)
    names = [(name, f"{line[-1][1]:.4g} at the end") for name, line in series]
    return svg(520, 300, f"{y_name} by {x_name}: {told}", *parts) + legend(names)


def scatter(points: Sequence[tuple[float, float]], x_name: str, y_name: str, *, diagonal: bool) -> str:
    """Draw points, and the line where prediction and truth agree or the error is 0."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if diagonal:
        xs = ys = xs + ys
    frame = Frame(520, 400, _range(xs), _range(ys), left=64)
    low, high = frame.x_range
    ideal = [(low, low), (high, high)] if diagonal else [(low, 0.0), (high, 0.0)]
    about = f"{y_name} against {x_name} of {len(points)} rows; the line is where the model is right"
    return svg(
        520,
        400,
        about,
        frame.axes(x_name, y_name, _short_number),
        frame.dots(points, "cloud"),
        frame.line(ideal, "ideal"),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.04 or abs(high) * 0.04 or 1.0
    return low - room, high + room


def histogram(edges: Sequence[float], counts: Sequence[int], x_name: str) -> str:
    """Draw how often a number falls into which bin."""
    frame = Frame(520, 400, (edges[0], edges[-1]), (0, max(counts) or 1))
    bars = []
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        x, y = frame.x(low), frame.y(count)
        title = f"{count} rows from {low:.4g} to {high:.4g}"
        bars.append(
            f'<rect class="bar" x="{n(x + 0.5)}" y="{n(y)}" width="{n(max(frame.x(high) - x - 1, 0.5))}" '
            f'height="{n(frame.y(0) - y)}"><title>{title}</title></rect>'
        )
    return svg(
        520, 400, f"How often which {x_name}, in {len(counts)} bins", frame.axes(x_name, "rows", _short_number), *bars
    )
