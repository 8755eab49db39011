"""The report as one HTML page that needs nothing but itself: no network, no scripts, light and dark, on a phone too.

Text that comes from data is escaped where it enters the markup (`plots.text`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources

from boatyard.evaluation.metrics import LOWER_IS_BETTER, Metric
from boatyard.evaluation.report import Example, Report, plots
from boatyard.evaluation.report.plots import text

SHARES = {"accuracy", "balanced_accuracy", "macro_f1", "top_3_accuracy"}
CLASSES, SLICES, PAIRS = 100, 120, 10  # rows of these tables, at most
SHOWN = 24  # rows of a long table that are not folded away
FEW = 100  # test rows below which the page warns
MATRIX = 150  # labels up to which a confusion matrix is drawn
PICTURES = 600_000  # characters of pictures in a page, at most
EXPLAINED = {
    "accuracy": ("Accuracy", "share of the rows that are right"),
    "balanced_accuracy": ("Balanced accuracy", "mean share of each label's rows that are right"),
    "macro_f1": ("Macro F1", "mean over the labels of the harmonic mean of precision and recall"),
    "top_3_accuracy": ("Top-3 accuracy", "share of the rows whose label is among the three likeliest"),
    "log_loss": ("Log loss", "surprise at the truth, in nats; 0 is best"),
    "brier": ("Brier score", "mean squared distance of the probabilities from the truth; 0 is best"),
    "ece": ("Calibration error (ECE)", "how far the stated probability is from the share that is right; 0 is best"),
    "calibration_rmse": ("Calibration error, debiased", "root mean square, less what chance alone gives; 0 is best"),
    "auc": ("ROC AUC", "chance that a row of a label scores above a row of another; 0.5 is guessing"),
    "rmse": ("RMSE", "root mean squared error, in the target's unit; 0 is best"),
    "mae": ("Mean absolute error", "in the target's unit; 0 is best"),
    "median_absolute_error": ("Median absolute error", "half of the rows are nearer than this; 0 is best"),
    "r2": ("R²", "share of the target's variance that is explained; 1 is best, 0 is guessing the mean"),
    "bias": ("Bias", "mean of predicted minus true; 0 is best"),
}


def render(report: Report) -> str:
    """Return the page."""
    style = resources.files("boatyard.evaluation.report").joinpath("style.css").read_text(encoding="utf-8")
    parts = [part for part in _sections(report) if part[2]]
    links = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name, _ in parts)
    body = "".join(content for _, _, content in parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{text(_title(report))}</title><style>{style}</style></head><body>"
        f'<header><div>{_head(report)}<nav aria-label="Sections">{links}</nav></div></header><main>{body}</main>'
        f"<footer>Made by Boatyard {text(report.lineage.get('boatyard', ''))}. Every interval is at "
        f"{report.confidence * 100:g} % confidence. The numbers are in report.json, every answer in "
        "predictions.parquet.</footer>"
        "</body></html>\n"
    )


def _sections(report: Report) -> list[tuple[str, str, str]]:
    """Anchor, name and content of every section; without content it is left out."""
    return [
        ("metrics", "Metrics", _metrics(report)),
        ("labels", "Labels", _classes(report)),
        ("confusion", "Confusion", _confusion(report)),
        ("calibration", "Calibration and ROC", _curves(report)),
        ("residuals", "Residuals", _residuals(report)),
        ("slices", "Slices", _slices(report)),
        ("examples", "Worst examples", _examples(report)),
        ("training", "Training", _training(report)),
        ("data", "Data and lineage", _lineage(report)),
    ]


def _section(anchor: str, title: str, hint: str, *content: str) -> str:
    return f'<section id="{anchor}"><h2>{title}</h2><p class="hint">{hint}</p>{"".join(content)}</section>'


def _title(report: Report) -> str:
    return f"{report.lineage.get('recipe') or 'Model'}: {report.headline()}"


def number(value: float | None, name: str) -> str:
    """Show a metric's number: shares in percent, others with four digits that count."""
    if value is None:
        return "–"
    return f"{value * 100:.2f} %" if name in SHARES else f"{value:.4f}" if abs(value) < 1000 else f"{value:.5g}"


def interval(metric: Metric, name: str) -> str:
    """Show a metric's interval."""
    if metric.low is None or metric.high is None:
        return "–"
    if name in SHARES:
        return f"{metric.low * 100:.2f} – {metric.high * 100:.2f} %"
    return f"{number(metric.low, name)} – {number(metric.high, name)}"


def _name(name: str) -> str:
    return EXPLAINED.get(name, (name.replace("_", " "), ""))[0]


def _head(report: Report) -> str:
    main = report.metrics[report.main]
    recipe = str(report.lineage.get("recipe") or "model")
    shown = number(main.value, report.main)
    whole, _, unit = shown.partition(" ")
    task = "labels" if report.task == "classification" else "numbers"
    lead = (
        f"predicts <b>{text(report.target)}</b> ({task}), measured on {report.rows:,} test rows that training never saw"
    )
    others = [n for n in ("macro_f1", "log_loss", "ece", "auc", "mae", "r2", "bias") if n in report.metrics]
    tiles = "".join(_tile(report.metrics[n], n) for n in others[:4])
    span = _span(main, report.main)
    return (
        f'<p class="eyebrow">Evaluation report</p><h1>{text(recipe)}</h1><p class="lead">{lead}</p>'
        f'<div class="hero"><div><div class="big">{whole} <small>{unit}</small></div>'
        f"<p>{_name(report.main)}, {report.confidence * 100:g} % interval {interval(main, report.main)} "
        f"({text(main.method)})</p>"
        f'{plots.whisker(main.value, main.low, main.high, span)}</div><div class="tiles">{tiles}</div></div>'
        f"{_alerts(report)}"
    )


def _tile(metric: Metric, name: str) -> str:
    return (
        f'<div class="tile"><span>{_name(name)}</span><b>{number(metric.value, name)}</b>'
        f"<span>{interval(metric, name)}</span></div>"
    )


def _alerts(report: Report) -> str:
    """Say first what a reader must not miss."""
    return "".join(f'<p class="alert {kind}">{sentence}</p>' for kind, sentence in _warnings(report))


def _warnings(report: Report) -> Iterator[tuple[str, str]]:
    if report.invalid:
        count = f"{report.invalid:,} of {report.rows:,} predictions are not numbers"
        yield "bad", f"{count}: they count as wrong, and the gate refuses them."
    if worse := [one for one in report.slices if one.worse]:
        named = ", ".join(f"{text(one.field)} = {text(one.value)}" for one in worse[:3])
        more = f" and {len(worse) - 3} more" if len(worse) > 3 else ""
        where = f'<a href="#slices">On {len(worse)} of {len(report.slices)} slices</a>'
        yield "", f"{where} the model is surely worse than the whole: {named}{more}."
    if absent := [one.label for one in report.classes if not one.support]:
        yield "", f"Of {len(report.classes)} labels {len(absent)} have no test row: {text(', '.join(absent[:5]))}."
    if report.rows < FEW:
        yield "", f"Test rows: only {report.rows}. Read the intervals, not the numbers."


def _span(metric: Metric, name: str) -> tuple[float, float]:
    """Choose the ends of the line that a number is drawn on: 0 to 1 for shares, else from 0 to beyond the interval."""
    if name in SHARES or name == "auc":
        return 0.0, 1.0
    ends = [abs(v) for v in (metric.value, metric.low, metric.high) if v is not None]
    reach = max(ends, default=1.0) * 1.25 or 1.0
    return (-reach, reach) if min(v for v in (metric.value or 0, metric.low or 0)) < 0 else (0.0, reach)


def _table(caption: str, heads: Sequence[str], rows: Sequence[str], *, quiet: bool = False) -> str:
    """Write a table; a head that starts with # is of numbers, a quiet caption is for screen readers alone."""
    head = "".join(
        f'<th scope="col" class="{"number" if name.startswith("#") else "words"}">{name.lstrip("#")}</th>'
        for name in heads
    )
    kind = ' class="quiet"' if quiet else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption{kind}>{caption}'
        "</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _folded(caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """Write a long table with all but its first rows folded away."""
    first = _table(caption, heads, rows[:SHOWN], quiet=True)
    if len(rows) <= SHOWN:
        return first
    rest = _table(f"{caption}, the rest", heads, rows[SHOWN:], quiet=True)
    return f"{first}<details><summary>{len(rows) - SHOWN} more</summary>{rest}</details>"


def _metrics(report: Report) -> str:
    rows = []
    for name, metric in report.metrics.items():
        title, about = EXPLAINED.get(name, (name, ""))
        note = "; ".join(part for part in (about, metric.note) if part)
        drawn = plots.whisker(metric.value, metric.low, metric.high, _span(metric, name))
        rows.append(
            f'<tr><th scope="row">{text(title)}<small>{text(note)}</small></th><td '
            f'class="number">{number(metric.value, name)}</td>'
            f'<td class="interval-text">{interval(metric, name)}</td><td>{drawn}</td><td>{text(metric.method)}</td>'
            f'<td class="number">{metric.n:,}</td></tr>'
        )
    hint = (
        "The interval says where the true value may lie: another sample of as many rows would have "
        "given another number."
    )
    heads = ("metric", "#value", f"{report.confidence * 100:g} % interval", "", "method", "#rows")
    return _section("metrics", "Metrics", hint, _table("Metrics on the test rows", heads, rows, quiet=True))


def _classes(report: Report) -> str:
    if not report.classes:
        return ""
    shown = sorted(report.classes, key=lambda one: one.f1.value if one.f1.value is not None else 2.0)[:CLASSES]
    rows = []
    for one in shown:
        cells = "".join(
            f'<td class="number">{number(m.value, "accuracy")}</td>'
            f"<td>{plots.whisker(m.value, m.low, m.high, (0, 1))}</td>"
            for m in (one.precision, one.recall, one.f1)
        )
        area = "" if one.auc.value is None else f"{one.auc.value:.4f}"
        rows.append(
            f'<tr><th scope="row">{text(one.label)}</th><td class="number">{one.support:,}</td>{cells}'
            f'<td class="number">{area or "–"}</td></tr>'
        )
    hint = (
        "The hardest label first. Precision: of the rows given this label, the share that has it. "
        "Recall: of the rows that have it, the share given it. Bars are intervals (Wilson)."
    )
    if len(report.classes) > CLASSES:
        hint += f" The worst {CLASSES} of {len(report.classes)} are shown."
    heads = ("label", "#rows", "#precision", "", "#recall", "", "#F1", "", "#AUC")
    return _section("labels", "Labels", hint, _folded("Metrics by label", heads, rows))


def _confusion(report: Report) -> str:
    table = report.confusion_cells
    if table is None:
        return ""
    totals: dict[int, int] = {}
    for true, _, rows in table.cells:
        totals[true] = totals.get(true, 0) + rows
    wrong = sorted((cell for cell in table.cells if cell[0] != cell[1]), key=lambda cell: -cell[2])
    lines = [
        f'<tr><th scope="row">{text(table.labels[true])}</th><td>{text(table.labels[given])}</td>'
        f'<td class="number">{rows:,}</td><td class="number">{rows / totals[true]:.1%}</td></tr>'
        for true, given, rows in wrong[:PAIRS]
    ]
    drawn = plots.confusion(table.labels, table.cells) if len(table.labels) <= MATRIX else ""
    pairs = (
        _table("The commonest confusions", ("true", "taken for", "#rows", "#of the label"), lines)
        if lines
        else "<p>No row is wrong.</p>"
    )
    hint = (
        "A row is a true label; the shade is the share of its rows (by the root, so that rare "
        "confusions show). Blue is right, red is wrong."
    )
    return _section("confusion", "Confusion matrix", hint, drawn, pairs)


def _curves(report: Report) -> str:
    parts = []
    if report.calibration:
        hint = (
            "On the dashed line, a probability of 80 % is right 8 times in 10. Below it the model "
            "is too sure of itself."
        )
        parts.append(
            _section("reliability", "Calibration", hint, plots.calibration(report.calibration, report.confidence))
        )
    if report.rocs:
        known = {one.label: one.auc for one in report.classes}
        areas = [f"{number(known[c.label].value, 'auc')} ({interval(known[c.label], 'auc')})" for c in report.rocs]
        hint = (
            "Each label against the rest, over all thresholds; the further to the upper left, the "
            "better. Beside the name: the area and its interval."
        )
        parts.append(_section("roc", "ROC curves", hint, plots.roc(report.rocs, areas)))
    return f'<div class="pair pairs" id="calibration">{"".join(parts)}</div>' if parts else ""


def _residuals(report: Report) -> str:
    found = report.residuals
    if found is None:
        return ""
    errors = [(given, given - true) for true, given in found.points]
    parts = (
        _section(
            "scatter",
            "Predicted against true",
            "On the dashed line the model is right.",
            plots.scatter(found.points, "true", "predicted", diagonal=True),
        ),
        _section(
            "errors",
            "Errors",
            "Predicted minus true: a shape here is something not learnt.",
            plots.scatter(errors, "predicted", "error", diagonal=False),
        ),
        _section("spread", "Spread", "How often which error.", plots.histogram(found.edges, found.counts, "error")),
    )
    return f'<div class="triple pairs" id="residuals">{"".join(parts)}</div>'


def _slices(report: Report) -> str:
    if not report.slices:
        return ""
    whole = report.metrics[report.slice_metric].value
    numbers = [v for one in report.slices for v in (one.metric.high, one.metric.value) if v is not None]
    span = (0.0, 1.0) if report.slice_metric in SHARES else (0.0, max(numbers, default=1.0) or 1.0)
    rows = []
    for one in sorted(report.slices, key=lambda one: not one.worse)[:SLICES]:
        m, name = one.metric, report.slice_metric
        drawn = plots.whisker(m.value, m.low, m.high, span, reference=whole, kind="bad" if one.worse else "")
        badge = '<span class="badge">worse</span>' if one.worse else ""
        rows.append(
            f'<tr class="{"worse" if one.worse else ""}"><th scope="row">{text(one.field)}</th>'
            f"<td>{text(one.value)} {badge}</td>"
            f'<td class="number">{one.n:,}</td><td class="number">{number(m.value, name)}</td><td>{drawn}</td>'
            f'<td class="interval-text">{interval(m, name)}</td></tr>'
        )
    side = "above" if report.slice_metric in LOWER_IS_BETTER else "below"
    hint = (
        f"{_name(report.slice_metric)} on parts of the test rows; the upright mark is the whole. Worse: "
        f"the interval lies wholly {side} it. "
        f"The intervals are corrected for {len(report.slices)} looks (Bonferroni), so that "
        f"with {report.confidence * 100:g} % confidence none is "
        "marked by chance."
    )
    heads = ("field", "value", "#rows", f"#{_name(report.slice_metric)}", "", "corrected interval")
    return _section("slices", "Slices", hint, _folded("Metrics by slice", heads, rows))


def _examples(report: Report) -> str:
    if not report.worst:
        return ""
    hint = (
        "The test rows with the greatest loss, the worst first. Look for wrong labels before you "
        "look for a better model."
    )
    if report.worst[0].picture is None:
        return _section("examples", "Worst examples", hint, _rows(report))
    items, size = [], 0
    for one in report.worst:
        size += len(one.picture or "")
        if size > PICTURES:
            break
        items.append(f"<li>{_figure(one, report.task)}</li>")
    return _section("examples", "Worst examples", hint, f'<ul class="examples">{"".join(items)}</ul>')


def _figure(one: Example, task: str) -> str:
    sure = "" if one.confidence is None else f" at {one.confidence:.1%}"
    kind = ' class="right"' if one.right else ""
    alt = text(f"test row {one.row}: {one.target}, predicted {one.predicted}")
    error = f"<span>off by {one.loss:.4g}</span>" if task == "regression" and one.loss is not None else ""
    return (
        f'<figure><img src="{text(one.picture)}" alt="{alt}" loading="lazy"><figcaption>'
        f"<b{kind}>{text(one.predicted)}</b>{sure}"
        f"<span>true: {text(one.target)}</span>{error}<span>row {one.row}</span></figcaption></figure>"
    )


def _rows(report: Report) -> str:
    fields = list(report.worst[0].values)[:12]
    rows = []
    for one in report.worst:
        cells = "".join(f"<td>{text(one.values[name])}</td>" for name in fields)
        sure = "–" if one.confidence is None else f"{one.confidence:.1%}"
        loss = "–" if one.loss is None else f"{one.loss:.4g}"
        last = sure if report.task == "classification" else loss
        rows.append(
            f'<tr><th scope="row">{one.row}</th><td>{text(one.target)}</td><td>{text(one.predicted)}'
            f'</td><td class="number">{last}</td>{cells}</tr>'
        )
    heads = (
        "row",
        "true",
        "predicted",
        "#confidence" if report.task == "classification" else "#error",
        *map(text, fields),
    )
    return _table("The worst rows", heads, rows, quiet=True)


def _training(report: Report) -> str:
    lines = [line for line in report.training if "epoch" in line]
    names = sorted({name for line in lines for name in line} - {"epoch", "step"})
    losses = [name for name in names if "loss" in name]
    shares = [name for name in names if name.startswith("validation_") and name not in losses]
    parts = []
    for chosen, y_name in ((losses, "loss"), (shares, "validation")):
        series = [
            (name.replace("_", " "), [(line["epoch"], line[name]) for line in lines if name in line]) for name in chosen
        ]
        if series:
            parts.append(f"<div>{plots.curves(series, 'epoch', y_name)}</div>")
    if not parts:
        return ""
    best = report.lineage.get("best_epoch")
    hint = "By epoch, on the training and the validation rows." + (f" Kept: epoch {int(best)}." if best else "")
    return _section("training", "Training", hint, f'<div class="pair">{"".join(parts)}</div>')


def _lineage(report: Report) -> str:
    rows = report.data.get("rows", {})
    splits = [
        f'<tr><th scope="row">{text(name)}</th><td class="number">{count:,}</td></tr>' for name, count in rows.items()
    ]
    cleaning = [
        f'<tr><th scope="row">{text(one.get("reason", ""))}</th><td>{text(one.get("column") or "–")}</td>'
        f'<td class="number">{one.get("count", 0):,}</td><td>{text(one.get("action", ""))}</td></tr>'
        for one in report.data.get("cleaning", [])
    ]
    cleaned = _table("What cleaning found", ("reason", "column", "#rows", "action"), cleaning) if cleaning else ""
    pins = "".join(
        f"<dt>{text(name.replace('_', ' '))}</dt><dd>{_pin(value)}</dd>"
        for name, value in report.lineage.items()
        if value not in (None, "")
    )
    hint = "What was measured, pinned by sha256: the gate and the package hold on to the same digests."
    return _section(
        "data",
        "Data and lineage",
        hint,
        _table("Rows by split", ("split", "#rows"), splits),
        cleaned,
        f"<h3>Lineage</h3><dl>{pins}</dl>",
    )


def _pin(value: object) -> str:
    shown = f"{value:,}" if isinstance(value, int) else value
    return f"<code>{text(shown)}</code>" if isinstance(value, str) and len(value) == 64 else text(shown)
