"""How much of a core this process uses, and what of it its event loop does. For the thread of that loop."""

from __future__ import annotations

import time

CORE = 0.75  # a process that uses so much of one has no time left
LOOP = 0.4  # of a core: less, and it is the model that takes the time


class Usage:
    """What was used between two looks."""

    def __init__(self) -> None:
        self._last = self._now()

    def full(self) -> bool:
        """Say whether the process was at its limit since the last look, and that by what Python does."""
        last, self._last = self._last, self._now()
        seconds, process, loop = (new - old for new, old in zip(self._last, last, strict=True))
        return process > CORE * seconds and loop > LOOP * seconds

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), time.thread_time()
