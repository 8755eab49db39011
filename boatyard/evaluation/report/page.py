"""The report as one HTML page that needs nothing but itself: no network, no scripts, light and dark, on a phone too.

The page is Jinja templates, which escape every text that they are given; plots are markup, and escape their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from boatyard import tasks
from boatyard.evaluation.report import formatting, plots, sections
from boatyard.evaluation.report.values import Report

TILES = ("macro_f1", "log_loss", "ece", "auc", "mae", "r2", "bias")  # beside the headline: the first four there are
MAX_TILES = 4
PLOTS = (plots.calibration, plots.confusion, plots.curves, plots.histogram, plots.roc, plots.scatter, plots.whisker)


@dataclass(frozen=True)
class PageSection:
    """A section of the page: its anchor, which is its template's name too, its title, and what it shows."""

    anchor: str
    title: str
    content: Callable[[Report], dict[str, Any] | None]


SECTIONS = (
    PageSection("metrics", "Metrics", sections.metrics),
    PageSection("labels", "Labels", sections.labels),
    PageSection("confusion", "Confusion", sections.confusion),
    PageSection("calibration", "Calibration and ROC", sections.curves),
    PageSection("residuals", "Residuals", sections.residuals),
    PageSection("slices", "Slices", sections.slices),
    PageSection("examples", "Worst examples", sections.examples),
    PageSection("training", "Training", sections.training),
    PageSection("data", "Data and lineage", sections.lineage),
)


def render(report: Report) -> str:
    """Return the page, with the sections that the report has something for."""
    filled = [(section, content) for section in SECTIONS if (content := section.content(report)) is not None]
    page = _templates().get_template("page.html")
    return page.render(
        report=report,
        sections=filled,
        predicted=tasks.named(report.task).describe(report.target, len(report.classes)),
        tiles=_tiles(report),
        warnings=sections.warnings(report),
    )


def _tiles(report: Report) -> list[str]:
    """Choose the measures beside the headline."""
    known = [name for name in TILES if name in report.metrics]
    others = [name for name in report.metrics if name not in (*TILES, report.main)]
    return (known or others)[:MAX_TILES]


@cache
def _templates() -> Environment:
    """Open the templates; a name that one of them misspells is an error, and no text gets past the escaping."""
    environment = Environment(
        loader=PackageLoader("boatyard.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    for function in (formatting.title, formatting.explanation, formatting.number, formatting.interval, formatting.span):
        environment.globals[function.__name__] = function
    for plot in PLOTS:
        environment.globals[plot.__name__] = _markup(plot)
    return environment


def _markup(plot: Callable[..., str]) -> Callable[..., Markup]:
    def drawn(*arguments: Any, **more: Any) -> Markup:
        return Markup(plot(*arguments, **more))  # plots escape every text of theirs

    return drawn
