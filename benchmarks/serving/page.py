"""The results as one HTML page that needs nothing but itself, in the style of the evaluation report."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from boatyard.evaluation.report import plots
from boatyard.evaluation.report.plots import text

from . import drawing
from .load import Cell
from .measures import OURS, Results
from .ratios import Ratio, show
from .servers import BARE

Rows = Sequence[Mapping[str, Any]]


def render(results: Results, about: Mapping[str, Any]) -> str:
    """Return the page."""
    style = resources.files("boatyard.evaluation.report").joinpath("style.css").read_text(encoding="utf-8")
    names = _names(results)
    sections = [
        _section("Ours against others", RATIOS, _ratios(results.ratios)),
        *(_section(name, CLOSED, _bars(cells)) for name, cells in results.cells.items()),
        *(_section(f"By {varied}", hint, _curves(results.sweeps[varied], names, axis))
          for varied, (hint, axis) in SWEEPS.items() if varied in results.sweeps),
        *([_section("Latency against offered load", OPEN, _offered(results.sweeps["offered load"], names))]
          if "offered load" in results.sweeps else []),
        *(_section(name, "", _singles(by_server)) for name, by_server in results.singles.items()),
    ]  # fmt: skip
    facts = "".join(f"<dt>{text(name)}</dt><dd>{text(_fact(value))}</dd>" for name, value in about.items())
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Serving, side by side</title><style>{style}</style></head><body><header><div>"
        '<p class="eyebrow">Serving benchmark</p><h1>Serving, side by side</h1>'
        f'<p class="lead">{text(", ".join(names))}: the same graph, the same requests, the same generator, in turn. '
        "Only ratios within this run mean something elsewhere.</p><br></div></header>"
        f"<main>{''.join(sections)}<section><h2>What was measured on what</h2><dl>{facts}</dl></section></main>"
        "</body></html>\n"
    )


RATIOS = "One ratio for each repetition: the dot is the median, the bar reaches from the least to the greatest."
CLOSED = (
    "A closed loop: each connection sends when it was answered. Bars are medians, marks the least and the greatest "
    "repetition. The third column is CPU of all the server's processes for one request."
)
OPEN = (
    "An open loop: requests are due at random times whether or not answers come, and a latency counts from when its "
    "request was due. A line ends where the server's own greatest rate does."
)
SWEEPS = {
    "batch size": ("Images a request; requests/s, 16 connections.", "images a request"),
    "model size": ("The time of one image in the graph alone; requests/s, 16 connections.", "ms of one image"),
    "body size": ("Bytes of one FP32 tensor, sent as V2 binary to a model that costs little; requests/s.", "bytes"),
}


def _names(results: Results) -> list[str]:
    """Return the servers in the order of their colours."""
    found = dict.fromkeys(name for cells in results.cells.values() for name in cells)
    return [
        OURS,
        *(name for name in found if name not in (OURS, BARE.name)),
        *([BARE.name] if BARE.name in found else []),
    ]


def _section(title: str, hint: str, content: str) -> str:
    return f'<section><h2>{text(title)}</h2><p class="hint">{text(hint)}</p>{content}</section>'


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def _ratios(ratios: Sequence[Ratio]) -> str:
    rows = []
    for ratio in ratios:
        span = (0.0, max(*ratio.each, ratio.wanted) * 1.1)
        low, high = min(ratio.each), max(ratio.each)
        kind = "" if ratio.kept else "bad"
        drawn = plots.whisker(ratio.median, low, high, span, reference=ratio.wanted, kind=kind)
        kept = "kept" if ratio.kept else '<span class="badge">not kept</span>'
        rows.append([text(ratio.name), text(ratio.against), f"<b>{show(ratio.median)}</b>", drawn, ratio.spread,
                     text(ratio.target), kept])  # fmt: skip
    return _table(["measure", "against", "median", "", "least – greatest", "wanted", ""], rows)


def _bars(cells: Mapping[str, Sequence[Cell]]) -> str:
    rows = []
    for what, read in COLUMNS.items():
        values = {name: [read(cell) for cell in each] for name, each in cells.items()}
        rows.append(f"<div><h3>{what}</h3>{drawing.bars(values)}</div>")
    return f'<div class="triple">{"".join(rows)}</div>'


COLUMNS: dict[str, Callable[[Cell], float]] = {
    "requests/s": lambda cell: cell.rate,
    "p99, ms": lambda cell: cell.p99,
    "µs of CPU a request": lambda cell: cell.server / cell.rate * 1e6,
}


def _singles(by_server: Mapping[str, Sequence[float]]) -> str:
    return drawing.bars(by_server)


def _curves(rows: Rows, names: Sequence[str], axis: str) -> str:
    series = {
        name: [(row["value"], _median(row["cells"], "rate")) for row in rows if row["server"] == name] for name in names
    }
    return drawing.curves({name: points for name, points in series.items() if points}, names, axis, "requests/s")


def _offered(rows: Rows, names: Sequence[str]) -> str:
    parts = []
    for key in ("p50", "p99"):
        series: dict[str, list[tuple[float, float]]] = {}
        for name in names:
            rates = sorted({row["rate"] for row in rows if row["server"] == name})
            for rate in rates:
                found = [row[key] for row in rows if row["server"] == name and row["rate"] == rate]
                if None not in found:
                    series.setdefault(name, []).append((rate, statistics.median(found)))
        parts.append(f"<div>{drawing.curves(series, names, 'requests/s offered', f'{key}, ms')}</div>")
    return f'<div class="pair">{"".join(parts)}</div>'


def _median(cells: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.median(float(cell[name]) for cell in cells)
