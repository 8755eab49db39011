"""What each section of the report's page shows, taken from the report; None where it has nothing for a section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from boatyard import tasks
from boatyard.evaluation import measures
from boatyard.evaluation.report import formatting
from boatyard.evaluation.report.values import Example, Report, Slice
from boatyard.spelling import listed

Content = dict[str, Any] | None
MAX_CLASSES, MAX_SLICES, MAX_CONFUSIONS, MAX_FIELDS = 100, 120, 10, 12  # rows and columns of these tables
FEW_ROWS = 100  # test rows below which the page warns
MAX_MATRIX_LABELS = 150  # up to which a confusion matrix is drawn
MAX_PICTURE_CHARS = 600_000  # of all pictures in a page
NAMED = 3  # slices that the warning names


@dataclass(frozen=True)
class Warned:
    """What a reader must not miss, at the top of the page: a sentence, whose start may lead to a section."""

    sentence: str
    bad: bool = False
    link: str = ""
    anchor: str = ""


def warnings(report: Report) -> list[Warned]:
    """Say first what a reader must not miss."""
    return list(_warnings(report))


def _warnings(report: Report) -> Iterator[Warned]:
    if report.invalid:
        count = f"{report.invalid:,} of {report.rows:,} predictions are not numbers"
        yield Warned(f"{count}: they count as wrong, and the gate refuses them.", bad=True)
    if worse := [part for part in report.slices if part.worse]:
        yield Warned(_worse(report, worse), link=f"On {len(worse)} of {len(report.slices)} slices", anchor="slices")
    if absent := [score.label for score in report.classes if not score.support]:
        yield Warned(f"Of {len(report.classes)} labels {len(absent)} have no test row: {', '.join(absent[:5])}.")
    if report.rows < FEW_ROWS:
        yield Warned(f"Test rows: only {report.rows}. Read the intervals, not the numbers.")


def _worse(report: Report, worse: list[Slice]) -> str:
    named = listed([f"{part.field} = {part.value}" for part in worse], NAMED)
    level = f"{report.confidence * 100:g} %, corrected for {len(report.slices)} slices"
    return f"the model is significantly worse than overall ({level}): {named}."


def metrics(report: Report) -> Content:
    """Every measure with its interval."""
    return {"metrics": report.metrics}


def labels(report: Report) -> Content:
    """Scores by class, the worst first; one without a score last."""
    if not report.classes:
        return None
    ranked = sorted(report.classes, key=lambda score: 2.0 if score.f1.value is None else score.f1.value)
    return {"scores": ranked[:MAX_CLASSES], "total": len(report.classes)}


def confusion(report: Report) -> Content:
    """The confusion matrix, and its greatest cells off the diagonal: true, predicted, rows, share of the true label."""
    table = report.confusion_cells
    if table is None:
        return None
    totals: Counter[int] = Counter()
    for true, _, rows in table.cells:
        totals[true] += rows
    wrong = sorted((cell for cell in table.cells if cell[0] != cell[1]), key=lambda cell: -cell[2])[:MAX_CONFUSIONS]
    pairs = [(table.labels[true], table.labels[other], rows, rows / totals[true]) for true, other, rows in wrong]
    return {"table": table, "pairs": pairs, "drawn": len(table.labels) <= MAX_MATRIX_LABELS}


def curves(report: Report) -> Content:
    """Calibration and ROC curves; the areas are those of the scores by class."""
    if not (report.calibration or report.rocs):
        return None
    by_label = {score.label: score.auc for score in report.classes}
    areas = [by_label[curve.label] for curve in report.rocs]
    shown = [f"{formatting.number(area.value, 'auc')} ({formatting.interval(area, 'auc')})" for area in areas]
    return {"areas": shown}


def residuals(report: Report) -> Content:
    """A regression's points: predicted against true, and the error against what was predicted."""
    if report.residuals is None:
        return None
    errors = [(predicted, predicted - true) for true, predicted in report.residuals.points]
    return {"residuals": report.residuals, "errors": errors}


def slices(report: Report) -> Content:
    """The main measure on parts of the rows, the worse ones first, on a line that all of them fit on."""
    if not report.slices:
        return None
    ends = [end for part in report.slices for end in (part.metric.high, part.metric.value) if end is not None]
    measure = measures.titled(report.slice_metric)
    share = measure is not None and measure.is_share
    return {
        "shown": sorted(report.slices, key=lambda part: not part.worse)[:MAX_SLICES],
        "ends": (0.0, 1.0) if share else (0.0, max(ends, default=1.0) or 1.0),
        "side": "above" if measure is not None and measure.direction == "less" else "below",
    }


def examples(report: Report) -> Content:
    """The rows with the greatest loss: as pictures, so many as the page has room for, or as a table."""
    if not report.worst:
        return None
    pictured = report.worst[0].picture is not None
    shown = list(_that_fit(report.worst)) if pictured else list(report.worst)
    fields = list(report.worst[0].values)[:MAX_FIELDS]
    by = tasks.named(report.task).examples_by
    return {"pictured": pictured, "shown": shown, "fields": fields, "confident": by == "confidence"}


def _that_fit(worst: tuple[Example, ...]) -> Iterator[Example]:
    size = 0
    for example in worst:
        size += len(example.picture or "")
        if size > MAX_PICTURE_CHARS:
            return
        yield example


def training(report: Report) -> Content:
    """Losses and validation measures by epoch, as series to draw."""
    lines = [line for line in report.training if "epoch" in line]
    names = sorted({name for line in lines for name in line} - {"epoch", "step"})
    losses = [name for name in names if "loss" in name]
    shares = [name for name in names if name.startswith("validation_") and name not in losses]
    drawn = [
        (
            axis,
            [(name.replace("_", " "), [(line["epoch"], line[name]) for line in lines if name in line]) for name in of],
        )
        for axis, of in (("loss", losses), ("validation", shares))
        if of
    ]
    return {"drawn": drawn, "best": report.lineage.get("best_epoch")} if drawn else None


def lineage(report: Report) -> Content:
    """Rows by split, what cleaning did, and the digests of what was measured."""
    pins = {name: value for name, value in report.lineage.items() if value not in (None, "")}
    return {"splits": report.data.get("rows", {}), "cleaning": report.data.get("cleaning", []), "pins": pins}
