"""What a person sees while a run goes on: a bar a step at a terminal or in a notebook, a line a step in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from boatyard.running import notebook, progress
from boatyard.running.progress import Event, numbers

EVERY = 10.0  # seconds between lines of a step where there is no terminal
MARKS = {"succeeded": "[green]✓", "cached": "[cyan]↺", "failed": "[red]✗", "refused": "[yellow]✗"}


class Display(Protocol):
    """Told of steps as they start, go on and end."""

    def start(self, step: str) -> None:
        """A step starts."""

    def event(self, step: str, event: Mapping[str, Any]) -> None:
        """A step says how far it is."""

    def end(self, step: str, state: str, seconds: float) -> None:
        """A step ended."""

    def say(self, sentence: str) -> None:
        """Something that a person should know now."""

    def close(self) -> None:
        """Nothing more comes."""


class Screen(Console):
    """Standard error; when its reader leaves (`2>&1 | head`), rich would end the process, and with it the run."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        mute(sys.stderr)


def mute(stream: TextIO) -> None:
    """Let nothing more of a stream come out: its reader has left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def open_display(console: Console | None = None, *, quiet: bool = False) -> Display:
    """Return bars at a terminal and in a notebook, lines elsewhere, nothing when quiet."""
    if quiet:
        return Silence()
    if console is None and notebook.here():
        return notebook.Cell()
    console = console or Screen()
    return Bars(console) if console.is_terminal else ProgressLines(console)


@contextlib.contextmanager
def drawn(display: Display) -> Iterator[None]:
    """Draw the progress of what the block does in this process."""
    steps: dict[str, float] = {}

    def draw(event: Event) -> None:
        if step := event.get("stage"):
            if step not in steps:
                steps[step] = time.monotonic()
                display.start(step)
            display.event(step, event)

    def end(state: str) -> None:
        for step, started in steps.items():
            display.end(step, state, time.monotonic() - started)

    try:
        with progress.sent_to(draw):
            yield
    except BaseException:
        end("failed")
        raise
    else:
        end("succeeded")
    finally:
        display.close()


class Silence:
    """Shows nothing."""

    def start(self, step: str) -> None: ...
    def event(self, step: str, event: Mapping[str, Any]) -> None: ...
    def end(self, step: str, state: str, seconds: float) -> None: ...
    def say(self, sentence: str) -> None: ...
    def close(self) -> None: ...


class ProgressLines:
    """A line when a step starts, every ten seconds, and when it ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = 0.0

    def start(self, step: str) -> None:
        self.last = time.monotonic()

    def event(self, step: str, event: Mapping[str, Any]) -> None:
        if time.monotonic() - self.last >= EVERY and "total" in event:
            self.last = time.monotonic()
            share = 100 * event["done"] / max(event["total"], 1)
            self.console.print(f"  {step:<11}{share:3.0f} %  {numbers(event)}", highlight=False)

    def end(self, step: str, state: str, seconds: float) -> None:
        self.console.print(f"{step:<13}{state} in {seconds:.1f} s", highlight=False)

    def say(self, sentence: str) -> None:
        self.console.print(f"  {sentence}", highlight=False, markup=False)

    def close(self) -> None: ...


class Bars:
    """A bar a step, with its numbers, rate and time left."""

    def __init__(self, console: Console) -> None:
        self.bars = Progress(
            TextColumn("{task.fields[mark]}"),
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[numbers]}"),
            console=console,
        )
        self.tasks: dict[str, Any] = {}
        self.bars.start()

    def start(self, step: str) -> None:
        if step not in self.tasks:
            self.tasks[step] = self.bars.add_task(step, total=None, mark="[blue]▸", numbers="", unit="")

    def event(self, step: str, event: Mapping[str, Any]) -> None:
        if "total" in event:
            self.bars.update(
                self.tasks[step],
                total=event["total"],
                completed=event["done"],
                numbers=numbers(event),
                unit=event.get("unit", ""),
            )

    def end(self, step: str, state: str, seconds: float) -> None:
        self.start(step)
        task = self.tasks[step]
        self.bars.update(task, mark=MARKS.get(state, "[red]✗"))
        if state in ("succeeded", "cached"):
            total = self.bars.tasks[task].total or 1
            self.bars.update(task, total=total, completed=total)
        if state == "cached":
            self.bars.update(task, numbers="nothing changed: kept from an earlier run")
        self.bars.stop_task(self.tasks[step])

    def say(self, sentence: str) -> None:
        self.bars.console.print(f"  {sentence}", highlight=False, markup=False)

    def close(self) -> None:
        self.bars.stop()


class Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "")
        return Text(f"{speed:,.0f} {unit}/s" if speed and unit else "", style="magenta")
