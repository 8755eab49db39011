"""The queue before the model: requests that wait are one batch, an idle model answers at once.

One thread runs the model. It takes what is waiting, up to the rows of a batch, a slice of a large request at a time, so
that a small one does not wait for all of it. Nothing waits for more to come.

What takes less time than handing it to the thread and back would cost everybody, the event loop answers itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from boatyard.errors import RequestError
from boatyard.prediction import Answers
from boatyard.schema import Array

from .limits import Limits

logger = logging.getLogger(__name__)

QUICK = 0.0005  # seconds of inference that the event loop does itself
PATIENCE = 0.5  # of a request's time: when what is ahead of it takes longer, it is not taken

Inputs = Mapping[str, Array]
Done = Callable[[Answers | None, Exception | None], None]


class Busy(Exception):
    """The queue is full; `seconds` is when to come again."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


class Closed(Exception):
    """The model was unloaded."""


class Late(Exception):
    """A request's deadline passed before its answer."""


class Left(Exception):
    """Nobody waits for the answer any more."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One request in the queue: [N, *shape] by input, and what is answered of it."""

    inputs: Inputs
    rows: int
    size: int
    deadline: float
    done: Done
    came: float
    at: int = 0
    suspect: bool = False
    left: bool = False
    parts: list[Answers] = field(default_factory=list)
    started: float = 0.0
    result: Answers | None = None
    error: Exception | None = None

    def leave(self) -> None:
        """Say that nobody waits for it: what is not worked on yet is not worked on any more."""
        self.left = True


@dataclass(slots=True)
class Load:
    """What is in the queue now: requests, rows, bytes. The event loop alone counts."""

    requests: int = 0
    rows: int = 0
    size: int = 0


class Batcher:
    """Answers graph inputs in one thread. `queue` belongs to the event loop that first calls it."""

    def __init__(
        self,
        run: Callable[[Inputs], Answers],
        limits: Limits,
        observe: Callable[[str, float], None] = lambda name, value: None,
    ) -> None:
        """`run` answers a batch or raises; `observe` is told seconds of `queue` and `inference`, and `batch` rows."""
        self.limits, self.load = limits, Load()
        self._run, self._observe = run, observe
        self._queue: deque[Waiting] = deque()
        self._wake = threading.Lock()  # held while there is nothing to wake for
        self._wake.acquire()
        self._turning = threading.Lock()  # held by who runs the model
        self._closed = self._rousing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._pace = 0.001  # seconds a row took of late

    async def submit(self, inputs: Inputs, seconds: float | None = None) -> Answers:
        """Return the answers of valid inputs; raises RequestError, Late, or Busy when the queue is full."""
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()

        def done(answers: Answers | None, error: Exception | None) -> None:
            if future.done():  # its client hung up
                return
            if answers is None:
                future.set_exception(error or RuntimeError())
            else:
                future.set_result(answers)

        waiting = self.queue(inputs, done, seconds)
        try:
            return await future
        except asyncio.CancelledError:
            waiting.leave()
            raise

    def queue(self, inputs: Inputs, done: Done, seconds: float | None = None) -> Waiting:
        """Queue valid inputs; `done` gets the answers or the error, on the event loop. Raises Busy, Closed at once."""
        if self._closed:
            raise Closed
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        rows = size = 0
        for array in inputs.values():
            rows, size = len(array), size + array.nbytes
        within = self._within(seconds)
        self._admit(rows, size, within)
        now = time.monotonic()
        waiting = Waiting(inputs, rows, size, now + within, done, now)
        self._queue.append(waiting)
        if not self._rousing:  # once the loop has read what else came, which is of the same batch
            self._rousing = True
            self._loop.call_soon(self._rouse)
        return waiting

    def expect(self, seconds: float | None = None) -> None:
        """Raise Busy when not even one row would be taken: what is refused need not be decoded."""
        self._refuse(1, 0, self._within(seconds))

    def close(self) -> None:
        """Let the thread end when what waits is answered."""
        self._closed = True
        if self._wake.locked():
            self._wake.release()

    def _rouse(self) -> None:
        """Answer what is quick, or wake the thread; the event loop alone releases the lock, so never twice."""
        self._rousing = False
        if self.load.rows * self._pace < QUICK and self._turning.acquire(blocking=False):
            try:
                done = self._turn()
            finally:
                self._turning.release()
            self._deliver(done)
        if self._queue and self._wake.locked():
            self._wake.release()

    def _within(self, seconds: float | None) -> float:
        return self.limits.seconds if seconds is None else min(seconds, self.limits.seconds)

    def _admit(self, rows: int, size: int, within: float) -> None:
        self._refuse(rows, size, within)
        self.load.requests += 1
        self.load.rows += rows
        self.load.size += size

    def _refuse(self, rows: int, size: int, within: float) -> None:
        """Raise Busy when a request is not to be taken: one alone always is, however large.

        One that would come to its turn when its time is nearly up is refused at once. Under overload that keeps the
        model at work on what is still waited for; a queue that takes all answers each too late.
        """
        load, limits = self.load, self.limits
        if not load.requests:
            return
        ahead = load.rows * self._pace  # seconds
        full = load.rows + rows > limits.rows or load.size + size > limits.bytes
        if full or 0 < PATIENCE * within < ahead:
            seconds = min(max(round(ahead), 1), 60)
            raise Busy(
                f"wanted room for {rows} rows within {within:g} s, found {load.rows} rows of {load.requests} requests "
                f"waiting, at the queue; come again in {seconds} s",
                seconds,
            )

    # The inference thread

    def _work(self) -> None:
        while not self._closed or self._queue:
            if self._queue:
                with self._turning:
                    done = self._turn()
                if done and self._loop:
                    self._loop.call_soon_threadsafe(self._deliver, done)
            else:
                self._wake.acquire()

    def _turn(self) -> list[Waiting]:
        """Take a batch, answer it, return the requests that are done."""
        batch, done = self._take()
        if batch:
            self._answer(batch)
        for waiting, start, rows in batch:
            if waiting.error or start + rows == waiting.rows:
                done.append(waiting)
            else:
                self._queue.append(waiting)
        _finish(done)
        return done

    def _take(self) -> tuple[list[tuple[Waiting, int, int]], list[Waiting]]:
        """Return slices (request, first row, rows) that make a batch, and the requests whose time is up or who left."""
        batch, late, room = [], [], self.limits.batch
        now = time.monotonic()
        while room > 0 and self._queue:
            waiting = self._queue.popleft()
            if waiting.left or now > waiting.deadline:
                waiting.error = Left() if waiting.left else Late()
                late.append(waiting)
                continue
            waiting.started = waiting.started or now
            rows = min(room, waiting.rows - waiting.at)
            batch.append((waiting, waiting.at, rows))
            waiting.at += rows
            room -= rows
        return batch, late

    def _answer(self, batch: list[tuple[Waiting, int, int]]) -> None:
        started = time.monotonic()
        try:
            answers = self._run(_joined(batch))
        except Exception as error:  # what a graph raises is not ours to name
            if len(batch) == 1:
                batch[0][0].error = error
                return
            for alone in batch:  # a row that the graph cannot answer fails its own request only
                self._answer([alone])
            return
        rows = len(answers)
        seconds = time.monotonic() - started
        self._pace = 0.9 * self._pace + 0.1 * seconds / rows
        self._observe("inference", seconds)
        self._observe("batch", rows)
        at, suspect = 0, answers.unanswered() is not None
        for waiting, _, count in batch:
            waiting.suspect |= suspect
            waiting.parts.append(answers.rows(at, at + count))
            at += count

    # The event loop

    def _deliver(self, done: list[Waiting]) -> None:
        load = self.load
        for waiting in done:
            load.requests -= 1
            load.rows -= waiting.rows
            load.size -= waiting.size
            if waiting.started:
                self._observe("queue", waiting.started - waiting.came)
            try:
                waiting.done(None if waiting.error else waiting.result, waiting.error)
            except Exception:  # the others are to hear of theirs
                logger.exception("an answer could not be handed over")


def _joined(batch: list[tuple[Waiting, int, int]]) -> dict[str, Array]:
    """Return the batch's inputs; those of a single request are not copied."""
    if len(batch) == 1:
        waiting, at, rows = batch[0]
        return {name: array[at : at + rows] for name, array in waiting.inputs.items()}
    names = batch[0][0].inputs
    return {name: np.concatenate([each.inputs[name][at : at + rows] for each, at, rows in batch]) for name in names}


def _finish(done: list[Waiting]) -> None:
    """Put the slices of each request together and refuse an answer that is no number."""
    for waiting in done:
        if waiting.error:
            continue
        try:
            waiting.result = Answers.joined(waiting.parts)
        except MemoryError as error:
            waiting.error = error
            continue
        row = waiting.result.unanswered() if waiting.suspect else None
        if row is not None:
            waiting.error = RequestError(
                f"wanted rows that the model has finite answers for, found none for row {row}, at row {row}"
            )
