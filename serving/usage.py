"""How many cores are used, from one look to the next. For the thread of the event loop."""

from __future__ import annotations

import time
from typing import NamedTuple

CORE = 0.75  # a process that uses so much of one has no time left
LOOP = 0.4  # of a core: less, and it is the model that takes the time, for which there are threads


class Used(NamedTuple):
    """Cores that a process used, and of those its event loop."""

    process: float = 0.0
    loop: float = 0.0


class Usage:
    """What this process uses."""

    def __init__(self) -> None:
        self._last = self._now()

    def look(self) -> Used:
        """Return what was used since the last look."""
        last, self._last = self._last, self._now()
        seconds, process, loop = (new - old for new, old in zip(self._last, last, strict=True))
        return Used(process / seconds, loop / seconds)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), time.thread_time()


def full(processes: list[Used]) -> bool:
    """Say whether all processes are at their limit and another one would help: Python is what takes the time."""
    return all(used.process > CORE and used.loop > LOOP for used in processes)
