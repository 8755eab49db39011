"""How many cores are used and lie idle, from one look to the next. For the thread of the event loop."""

from __future__ import annotations

import time
from typing import NamedTuple

import psutil

from boatyard.settings import Settings

CORE = 0.75  # a process that uses so much of one has no time left
LOOP = 0.4  # of a core: less, and it is the model that takes the time
IDLE = 1.0  # cores that must lie idle for another process that would only run the model


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


class Need:
    """Whether the processes of a server are too few."""

    def __init__(self) -> None:
        self._last = self._now()

    def look(self, processes: list[Used]) -> bool:
        """Say whether all were at their limit since the last look, and another one would have something to run on."""
        last, self._last = self._last, self._now()
        seconds, machine = (new - old for new, old in zip(self._last, last, strict=True))
        idle = min(machine / seconds, Settings().threads - sum(used.process for used in processes))
        return all(used.process > CORE and (used.loop > LOOP or idle >= IDLE) for used in processes)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.monotonic(), psutil.cpu_times().idle
