"""When a full server rests: many refusals at once take less of the processor than as many one by one.

A refusal takes little, but not what comes with it: the event loop wakes up for each, in caches that are full of the
model, which waits meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

REST = 0.01  # seconds
DEEP = 10 * REST  # of work that waits: the model does not run out of it, and who waits for that hardly notices a rest
ALONE = 1.0  # seconds in which no other model was asked


class Rest:
    """The rests of one process, which is one event loop: it reads nothing meanwhile, whoever sends."""

    def __init__(self) -> None:
        self._asked: object = None
        self._alone = 0.0  # since when that one is asked and no other
        self._soon = False

    def asked(self, model: object) -> None:
        """Note for whom a request is."""
        if model is not self._asked:
            self._asked, self._alone = model, time.monotonic()

    def soon(self, model: object, ahead: Callable[[], float]) -> None:
        """Rest when what was read until now is answered, if that is no harm to anybody.

        Not while other models are asked, nor when the seconds of work `ahead` are few by then. What is answered
        meanwhile is late by a rest.
        """
        if self._soon or model is not self._asked or time.monotonic() < self._alone + ALONE:
            return
        loop = asyncio.get_running_loop()
        self._soon = True
        loop.call_soon(loop.call_soon, self._rest, ahead)  # the second time, what was answered is sent

    def _rest(self, ahead: Callable[[], float]) -> None:
        self._soon = False
        if ahead() >= DEEP:
            time.sleep(REST)
