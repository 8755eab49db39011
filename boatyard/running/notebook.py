"""The display in a notebook: one output below the cell, a bar a step, drawn again as the work goes on."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boatyard.running.progress import numbers

REDRAW_S = 0.2  # between two drawings: a browser needs no more
MARKS = {"running": "▸", "succeeded": "✓", "cached": "↺", "failed": "✗", "refused": "✗"}


def here() -> bool:
    """Whether this code runs in a kernel, whose output is a page."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython and hasattr(ipython, "get_ipython") else None
    return hasattr(shell, "kernel")


@dataclass
class Row:
    """One step as it stands."""

    state: str = "running"
    share: float = 0.0
    note: str = ""
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0


class Cell:
    """Bars below the cell that is being run."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.sentences: list[str] = []
        self._handle: Any = None
        self._drawn = 0.0

    def start(self, step: str) -> None:
        if step not in self.rows:
            self.rows[step] = Row()
            self._draw()

    def event(self, step: str, event: Mapping[str, Any]) -> None:
        row = self.rows[step]
        if "total" in event:
            row.share, row.note = event["done"] / max(event["total"], 1), numbers(event)
        if time.monotonic() - self._drawn > REDRAW_S:
            self._draw()

    def end(self, step: str, state: str, seconds: float) -> None:
        row = self.rows.setdefault(step, Row())
        row.state, row.seconds = state, seconds
        row.share = 1.0 if state in ("succeeded", "cached") else row.share
        self._draw()

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)
        self._draw()

    def close(self) -> None:
        if self.rows:
            self._draw()

    def page(self) -> str:
        """Return what is shown, as HTML."""
        lines = "".join(_line(step, row) for step, row in self.rows.items())
        said = "".join(f"<div>{html.escape(sentence)}</div>" for sentence in self.sentences)
        return f"<table>{lines}</table>{said}"

    def _draw(self) -> None:
        page: Any = sys.modules["IPython.display"]  # the kernel's; it has no types
        self._drawn = time.monotonic()
        if self._handle is None:
            self._handle = page.display(page.HTML(self.page()), display_id=True)
        else:
            self._handle.update(page.HTML(self.page()))


def _line(step: str, row: Row) -> str:
    seconds = row.seconds if row.state != "running" else time.monotonic() - row.started
    cells = (
        MARKS.get(row.state, "✗"),
        html.escape(step),
        f'<progress max="1" value="{row.share:.3f}"></progress>',
        "kept from an earlier run" if row.state == "cached" else f"{seconds:.1f} s",
        html.escape(row.note),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
