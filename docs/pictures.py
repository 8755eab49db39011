"""Draw the tutorial's pictures from a finished run of the sample project, into docs/pictures/.

    boatyard init digits && boatyard run digits && python docs/pictures.py digits

`pipeline.svg` is drawn from the compiled spec, `run.svg` from the run's record; `report.png` is its page,
where a headless Chromium is installed.
"""

from __future__ import annotations

import html
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from boatyard.running import runs

FOLDER = Path(__file__).with_name("pictures")
WIDE, HIGH, GAP = 128, 44, 34
STYLE = "font: 14px system-ui, sans-serif; text-anchor: middle; dominant-baseline: central"


def pipeline(spec: dict[str, Any]) -> str:
    """Return the pipeline as an SVG: a box a task, an arrow where one waits for another."""
    tasks = dict(spec["root"]["dag"]["tasks"])
    for name, task in list(tasks.items()):
        inner = spec["components"][task["componentRef"]["name"]].get("dag", {}).get("tasks", {})
        if inner:
            del tasks[name]
            tasks |= {
                key: {**value, "dependentTasks": task["dependentTasks"], "if": True} for key, value in inner.items()
            }
    depth: dict[str, int] = {}
    for _ in tasks:
        depth |= {
            n: 1 + max((depth.get(d, 0) for d in t.get("dependentTasks", [])), default=-1) for n, t in tasks.items()
        }
    places = {}
    for column in range(max(depth.values()) + 1):
        for row, name in enumerate(sorted(n for n in tasks if depth[n] == column)):
            places[name] = (20 + column * (WIDE + GAP), 20 + row * (HIGH + 24))
    width = 20 + (max(depth.values()) + 1) * (WIDE + GAP)
    parts = [_arrow(places[near(name, task, depth)], places[name]) for name, task in tasks.items() if depth[name]]
    parts += [_box(tasks[name], *place) for name, place in places.items()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 160" width="{width}" role="img" '
        f'aria-label="the pipeline"><rect width="100%" height="100%" fill="#fff" rx="8"/>{"".join(parts)}</svg>\n'
    )


def near(name: str, task: dict[str, Any], depth: dict[str, int]) -> str:
    """Return the last task that another waits for."""
    waits: list[str] = task["dependentTasks"]
    return max((other for other in waits if other in depth), key=lambda other: depth[other])


def _box(task: dict[str, Any], x: int, y: int) -> str:
    title = html.escape(task["taskInfo"]["name"])
    cached = "" if task.get("cachingOptions", {}).get("enableCache") else " stroke-dasharray='4 3'"
    note = f"<text x='{x + WIDE // 2}' y='{y - 9}' style='{STYLE}; font-size: 11px' fill='#57606a'>if passed</text>"
    return (
        f"<rect x='{x}' y='{y}' width='{WIDE}' height='{HIGH}' rx='8' fill='#eaf2ff' stroke='#1f6feb'{cached}/>"
        f"<text x='{x + WIDE // 2}' y='{y + HIGH // 2}' style='{STYLE}' fill='#0b2a5b'>{title}</text>"
    ) + (note if task.get("if") else "")


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + WIDE, start[1] + HIGH // 2, end[0] - 2, end[1] + HIGH // 2
    head = f"<path d='M{x2 - 7} {y2 - 4} L{x2} {y2} L{x2 - 7} {y2 + 4}' fill='none' stroke='#57606a'/>"
    middle = (x1 + x2) // 2
    return f"<path d='M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}' fill='none' stroke='#57606a'/>{head}"


def terminal(run: runs.Run) -> str:
    """Return a run's steps as a terminal shows them, as SVG; times are left out, they differ everywhere."""
    console = Console(record=True, width=76, file=io.StringIO(), force_terminal=True)
    console.print("$ boatyard run digits")
    marks = {"succeeded": "[green]✓[/]", "cached": "[cyan]↺[/]", "refused": "[yellow]✗[/]", "failed": "[red]✗[/]"}
    for step in run.steps:
        console.print(f"{marks.get(step.state, ' ')} {step.name:<11} [blue]{'━' * 28}[/] 100 %  {step.state}")
    from boatyard.evaluation.report import Report

    report = run.output("evaluate", "report")
    if report:
        console.print(f"\n{Report.read(report).headline()}", highlight=False)
    drawn = console.export_svg(title="boatyard run")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.S)  # no font from the network


def page(report: Path, out: Path) -> bool:
    """Take a picture of the report's page, where there is a browser; say whether there was one."""
    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        return False
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1500"]
    subprocess.run(
        [browser, *options, f"--screenshot={out}", report.absolute().as_uri()], check=True, capture_output=True
    )
    from PIL import Image

    Image.open(out).convert("RGB").resize((825, 1125)).quantize(64).save(out, optimize=True)
    return True


def main(project: Path) -> None:
    """Draw all pictures of the latest run that succeeded."""
    run = next(run for run in runs.all_of(project) if run.state == "succeeded")
    FOLDER.mkdir(exist_ok=True)
    spec = next(yaml.safe_load_all(run.spec.read_text()))
    (FOLDER / "pipeline.svg").write_text(pipeline(spec), encoding="utf-8")
    (FOLDER / "run.svg").write_text(terminal(run), encoding="utf-8")
    report = run.output("evaluate", "report")
    if report and page(report / "report.html", FOLDER / "report.png"):
        print("drew pipeline.svg, run.svg and report.png")
    else:
        print("drew pipeline.svg and run.svg; no browser for report.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
