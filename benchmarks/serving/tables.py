"""What was found, as one Markdown text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .load import Cell
from .measures import OURS, Results
from .ratios import show


def render(results: Results, about: Mapping[str, Any]) -> str:
    """Return the tables: the ratios first, then what they are made of."""
    parts = [_head(about), "## Ours against others\n", _ratios(results)]
    for name, cells in results.cells.items():
        parts += [f"## {name}\n", _cells(cells)]
    if results.singles:
        parts += ["## Starting and overload\n", _singles(results)]
    if rows := results.sweeps.get("overload"):
        parts += ["## Overload: one image a request, offered five times the greatest rate\n", _overload(rows)]
    for varied in ("batch size", "model size"):
        if varied in results.sweeps:
            parts += [f"## Requests/s by {varied}, ours as a multiple\n", _sweep(results.sweeps[varied])]
    if rows := results.sweeps.get("offered load"):
        parts += ["## Latency against offered load (open loop), ms\n", _offered(rows)]
    if results.screened:
        parts += ["## How each peer was started\n", _screened(results)]
    if results.invalid:
        parts += ["## Cells with errors, measured again\n", *(f"- {each}" for each in results.invalid)]
    return "\n".join(parts)


def write(results: Results, about: Mapping[str, Any], path: Path) -> None:
    """Write everything, every repetition of it."""
    value = {"about": dict(about), **dataclasses.asdict(results)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _head(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["peers"].items())
    return (
        f"{about['processor']}, {about['processors']} processors, Python {about['python']}; {versions}; onnxruntime "
        f"{about['packages']['onnxruntime']}, {about['threads']} thread of an inference; {about['repetitions']} "
        f"repetitions of {about['seconds of a cell']} s, {about['minutes']:.0f} minutes in all\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _ratios(results: Results) -> str:
    rows = [
        [ratio.name, ratio.against, show(ratio.median), ratio.spread, ratio.target, "yes" if ratio.kept else "**no**"]
        for ratio in results.ratios
    ]
    return table(["measure", "against", "median ratio", "least – greatest", "wanted", "kept"], rows)


def middle(cells: Sequence[Cell], name: str) -> float:
    """Return the median of a cell's number over the repetitions."""
    return statistics.median(float(getattr(cell, name)) for cell in cells)


def _cells(cells: Mapping[str, Sequence[Cell]]) -> str:
    rows = []
    for name, each in cells.items():
        times = [cells[OURS][i].rate / cell.rate for i, cell in enumerate(each)]
        ratio = "" if name == OURS else f"{show(statistics.median(times))} ({show(min(times))} – {show(max(times))})"
        numbers = [f"{middle(each, key):.{digits}f}" for key, digits in COLUMNS]
        micro = statistics.median(cell.server / cell.rate * 1e6 for cell in each)
        rows.append([name, *numbers, f"{micro:.0f}", ratio])
    head = ["server", "requests/s", "p50 ms", "p90 ms", "p99 ms", "CPU of server", "of generator", "µs CPU/request"]
    return table([*head, "ours is … times"], rows)


COLUMNS = (("rate", 0), ("p50", 2), ("p90", 2), ("p99", 2), ("server", 2), ("generator", 2))


def _singles(results: Results) -> str:
    rows = [
        [what, name, show(statistics.median(values)), f"{show(min(values))} – {show(max(values))}"]
        for what, by_server in results.singles.items()
        for name, values in by_server.items()
    ]
    return table(["what", "server", "median", "least – greatest"], rows)


def _overload(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            row["server"],
            *(f"{row[key]:.0f}" for key in ("peak", "offered", "good")),
            ", ".join(f"{count} {end}" for end, count in sorted(row["ends"].items())),
            f"{row['behind']:.0f}",
        ]
        for row in rows
    ]
    head = ["server", "peak/s", "offered/s", "right in time/s", "how requests ended", "generator behind, ms"]
    return table(head, lines)


def _sweep(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(row["server"] for row in rows))
    steps = list(dict.fromkeys(row["about"] for row in rows))
    rate = {
        (row["server"], row["about"]): statistics.median(cell["rate"] for cell in row["cells"]) for row in rows
    }  # fmt: skip
    lines = [
        [name, *(f"{rate[name, step]:.0f} ({show(rate[OURS, step] / rate[name, step])}×)" for step in steps)]
        for name in names
    ]
    return table(["server", *steps], lines)


def _offered(rows: Sequence[Mapping[str, Any]]) -> str:
    grouped: dict[tuple[float, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["rate"], row["server"]), []).append(row)
    lines = [
        [f"{rate:.0f}", name, *(_median([row[key] for row in each]) for key in ("p50", "p90", "p99"))]
        for (rate, name), each in sorted(grouped.items())
    ]
    return table(["offered/s", "server", "p50", "p90", "p99"], lines)


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.2f}" if len(known) == len(values) else "not all answered"


def _screened(results: Results) -> str:
    rows = []
    for title, rate in results.screened.items():
        name = title.partition(" (")[0]
        kept = title == f"{name} ({results.chosen[name]})"
        rows.append([title, f"{rate:.0f}", "kept" if kept else ""])
    return table(["server", "requests/s, mean of 16 and 64 connections", ""], rows)
