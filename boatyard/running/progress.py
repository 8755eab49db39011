"""Progress of long work: a stage counts, a sink takes its events, whoever watches draws the bar.

A stage never draws: it runs as often in a pod or behind a pipe as at a terminal. Where its events go is set around it,
by `sent_to`; without that they go nowhere. Between two processes they are JSON lines: `ProgressWriter` appends them to
a file or a pipe, `ProgressFollower` reads what is new.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

VARIABLE = "BOATYARD_PROGRESS"  # the file that the runner of a step follows
INTERVAL = 0.1  # seconds between events of one stage: a bar needs no more

Event = Mapping[str, Any]
Sink = Callable[[Event], None]
_sink: ContextVar[Sink | None] = ContextVar("boatyard_progress", default=None)


@contextlib.contextmanager
def sent_to(sink: Sink | None) -> Iterator[None]:
    """Send what the block emits to a sink; None silences it."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def sink() -> Sink | None:
    """Return where events go here and now. A thread of one's own starts with none: hand it on."""
    return _sink.get()


def emit(event: Event) -> None:
    """Send one event to the sink that is set, if there is one."""
    if to := _sink.get():
        to(event)


class Progress:
    """One stage's counter: `Progress("train", 12000, "img").update(512, loss=0.31)`; it may be used by any thread."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.done = 0
        self.numbers: dict[str, float | str] = {}
        self._sink = sink()
        self._last = 0.0

    def update(self, more: int = 0, **numbers: float | str) -> None:
        """Count `more` units done and remember the numbers to show; at most ten events a second are sent."""
        self.done += more
        self.numbers.update(numbers)
        now = time.monotonic()
        if self._sink and (now - self._last >= INTERVAL or self.done >= self.total):
            self._last = now
            self._sink({"stage": self.stage, "done": self.done, "total": self.total, "unit": self.unit, **self.numbers})


class ProgressWriter:
    """A sink that appends JSON lines to a file or, by its descriptor, to a pipe.

    A full disk or a reader that left is no reason to stop the work.
    """

    def __init__(self, to: Path | int) -> None:
        self.to = to

    def __call__(self, event: Event) -> None:
        line = (json.dumps(event) + "\n").encode()
        with contextlib.suppress(OSError):
            if isinstance(self.to, int):
                os.write(self.to, line)
                return
            with open(self.to, "ab") as file:
                file.write(line)


class ProgressFollower:
    """Reads the events that were appended to a file since the last look; a line half written waits for the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Give the events that are new; none while there is no file."""
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            file.seek(self._offset)
            while (line := file.readline()).endswith(b"\n"):
                self._offset += len(line)
                yield json.loads(line)


def numbers(event: Event) -> str:
    """Say the numbers of an event, such as `loss 0.31  epoch 2`."""
    hidden = ("stage", "done", "total", "unit", "rate")
    shown = {key: value for key, value in event.items() if key not in hidden}
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()
    )
