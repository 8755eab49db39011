"""Progress of long work: stages write events, whoever watches draws the bar.

A stage never draws: it runs as often in a pod or behind a pipe as at a terminal. Events are JSON lines appended to the
file that `BOATYARD_PROGRESS` names; nothing is written when it is not set. `boatyard run` follows that file, the
single verbs set it and follow it themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLE = "BOATYARD_PROGRESS"
INTERVAL = 0.1  # seconds between events of one stage: a bar needs no more


class Progress:
    """One stage's counter: `Progress("train", 12000, "img").update(512, loss=0.31)`."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.done = 0
        self.numbers: dict[str, float | str] = {}
        self._last = 0.0

    def update(self, more: int = 0, **numbers: float | str) -> None:
        """Count `more` units done and remember the numbers to show; at most ten events a second are written."""
        self.done += more
        self.numbers.update(numbers)
        now = time.monotonic()
        if now - self._last >= INTERVAL or self.done >= self.total:
            self._last = now
            emit({"stage": self.stage, "done": self.done, "total": self.total, "unit": self.unit, **self.numbers})


def emit(event: Mapping[str, Any]) -> None:
    """Append one event to the file that is followed, if there is one; a full disk is no reason to stop."""
    path = os.environ.get(VARIABLE)
    if path:
        with contextlib.suppress(OSError), Path(path).open("a") as file:
            file.write(json.dumps(event) + "\n")
