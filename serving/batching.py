"""The queue before the model: requests that wait are one batch, an idle model answers at once.

A thread runs the model. It takes what is waiting, up to the rows of a batch, a slice of a large request at a time, so
that a small one does not wait for all of it. Nothing waits for more to come.

The event loop answers itself what a model takes little time for: a thread would work on what little has been read when
it wakes, and wait for the interpreter as long as it works. Where the model is what takes the time, and there are
processors for it, further threads run it beside the first and share what waits: the interpreter is free while a graph
runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import cast

import numpy as np

from boatyard.data.schema import Array
from boatyard.errors import RequestError
from boatyard.prediction import Answers

from .direct import Direct, Unread
from .limits import Limits
from .resting import DEEP, Rest

logger = logging.getLogger(__name__)

QUICK = 0.0005  # seconds of inference a request that the event loop does itself
TURN = 0.005  # seconds that it does so before it reads on
MOST, LONGEST = 4, 0.02  # or times as long as it read, for so many seconds at most: a full server has much to refuse
FASTER, SLOWER = 0.2, 0.01  # weights of a batch that took less a row than those before, or more: others get in its way
SHARE = 0.002  # seconds of inference that are worth another thread
PATIENCE = 0.5  # of a request's time: when what is ahead of it takes longer, it is not taken
SAME = 0.05  # seconds that a refusal says the same

Inputs = Mapping[str, Array]
Done = Callable[[Answers | None, Exception | None], None]


class Busy(Exception):
    """The queue is full; `seconds` is when to come again, `answer` the response when somebody has made it."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds, self.answer = seconds, b""


class Closed(Exception):
    """The model was unloaded."""


class Late(Exception):
    """A request's deadline passed before its answer."""


class Left(Exception):
    """Nobody waits for the answer any more."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One request in the queue: [N, *shape] by input, or a body to read, and what is answered of it."""

    inputs: Inputs | Unread
    rows: int
    size: int
    deadline: float
    done: Done
    came: float
    taken: int = 0  # rows, of which `answered` are
    answered: int = 0
    suspect: bool = False
    left: bool = False
    over: bool = False  # answered, or failed: what is still worked on for it is for nobody
    parts: list[tuple[int, Answers]] = field(default_factory=list)  # by their first row
    started: float = 0.0
    result: Answers | None = None
    error: Exception | None = None

    def leave(self) -> None:
        """Say that nobody waits for it: what is not worked on yet is not worked on any more."""
        self.left = True


Slice = tuple[Waiting, int, int]  # a request, its first row, how many


@dataclass(slots=True)
class Load:
    """What is in the queue now: requests, rows, bytes. The event loop alone counts."""

    requests: int = 0
    rows: int = 0
    size: int = 0


class Batcher:
    """Answers graph inputs in threads. `queue` belongs to the event loop that first calls it."""

    def __init__(
        self,
        run: Callable[[Inputs], Answers],
        limits: Limits,
        observe: Callable[[str, float], None] = lambda name, value: None,
        at_once: int = 1,
        direct: Direct | None = None,
        rest: Rest | None = None,
    ) -> None:
        """`run` answers a batch or raises, so many `at_once`; `direct` reads what comes unread, `rest` is shared.

        `observe` is told seconds of `queue` and `inference`, and `batch` rows.
        """
        self.limits, self.load = limits, Load()
        self._run, self._observe, self._at_once, self._direct = run, observe, at_once, direct
        self._rest = rest or Rest()
        self._queue: deque[Waiting] = deque()
        self._lock = threading.Lock()  # held by who takes rows from the queue, or notes what became of them
        self._seats = threading.Semaphore(at_once)  # one is held by who runs the model
        self._running = 0  # who has taken rows
        self._threads = 0  # that were started
        self._asleep: list[threading.Lock] = []  # one a thread with nothing to do: it is held, and released to wake it
        self._closed = self._rousing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._said: tuple[tuple[int, float], float, Busy] | None = None  # to whom asked what, until when
        self._came = self._taken = 0  # rows, ever: into the queue, out of it
        self._pace = self._alone = 0.001  # seconds a row took of late, and takes when nothing is in its way
        self._turned, self._behind = 0.0, False  # when the event loop last ran the model, and left some for later

    async def submit(self, inputs: Inputs | Unread, seconds: float | None = None) -> Answers:
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

    def queue(self, inputs: Inputs | Unread, done: Done, seconds: float | None = None) -> Waiting:
        """Queue valid inputs, or a body that is read later: `done` gets the answers or the error, on the event loop.

        Raises Busy, Closed at once.
        """
        if self._closed:
            raise Closed
        if self._loop is None:
            self._start()
            self._loop = asyncio.get_running_loop()
        rows = size = 0
        if isinstance(inputs, Unread):
            rows, size = 1, len(inputs.body) + len(inputs.row)
        else:
            for array in inputs.values():
                rows, size = len(array), size + array.nbytes
        within = self._within(seconds)
        self._admit(rows, size, within)
        now = time.monotonic()
        waiting = Waiting(inputs, rows, size, now + within, done, now)
        self._came += rows
        self._queue.append(waiting)
        self._rest.asked(self)
        self._soon()
        return waiting

    def is_light(self, more: int = 0) -> bool:
        """Say whether the event loop answers what waits itself, with so many more requests of a row."""
        return (self.load.rows + more) * self._alone < QUICK * max(self.load.requests + more, 1)

    def expect(self, seconds: float | None = None) -> None:
        """Raise Busy when not even one row would be taken: what is refused need not be decoded."""
        if busy := self.busy(seconds):
            raise Busy(str(busy), busy.seconds)

    def busy(self, seconds: float | None = None) -> Busy | None:
        """Return why not even one row would be taken, the same to many: not to be raised."""
        return self._busy(1, 0, self._within(seconds))

    def close(self) -> None:
        """Let the threads end when what waits is answered."""
        self._closed = True
        while self._asleep:
            self._asleep.pop().release()

    def _rouse(self) -> None:
        """Answer what is light, or wake as many threads as it is worth."""
        self._rousing = False
        if self.is_light() and self._seats.acquire(blocking=False):
            try:
                self._turns()
            finally:
                self._seats.release()
            if self._queue:
                self._soon()
        else:
            self._behind = False
            if self._queue:
                self._wake()

    def _wake(self) -> None:
        for _ in range(self._worth() - self._threads + len(self._asleep)):
            if self._asleep:
                self._asleep.pop().release()
            else:
                with contextlib.suppress(RuntimeError):  # no more threads may be had: those there are do it all
                    self._start()

    def _soon(self) -> None:
        """Rouse once the loop has read what else came, which is of the same batch."""
        if not self._rousing and self._loop:
            self._rousing = True
            self._loop.call_soon(self._rouse)

    def _turns(self) -> None:
        """Run the model on the event loop until nothing waits, or it is time to read on."""
        now = time.monotonic()
        read = now - self._turned
        until = now + min(max(TURN, MOST * read), LONGEST)
        while self._queue and self.is_light():
            self._deliver(self._turn(TURN, read if self._behind else 0.0))
            self._turned, read = time.monotonic(), 0.0
            if self._turned > until:
                break
        self._behind = bool(self._queue)

    def _start(self) -> None:
        threading.Thread(target=self._work, name="inference", daemon=True).start()
        self._threads += 1

    def _worth(self) -> int:
        """Return how many threads what waits and is worked on is worth."""
        if self._at_once == 1 or self.is_light():
            return 1
        return min(1 + int(self.load.rows * self._pace / SHARE), self._at_once)

    def _within(self, seconds: float | None) -> float:
        return self.limits.seconds if seconds is None else min(seconds, self.limits.seconds)

    def _admit(self, rows: int, size: int, within: float) -> None:
        if busy := self._busy(rows, size, within):
            raise Busy(str(busy), busy.seconds)
        self.load.requests += 1
        self.load.rows += rows
        self.load.size += size

    def _busy(self, rows: int, size: int, within: float) -> Busy | None:
        """Say why a request is not to be taken, None when it is: one alone always is, however large.

        One that would come to its turn when its time is nearly up is refused at once. Under overload that keeps the
        model at work on what is still waited for; a queue that takes all answers each too late.
        """
        load, limits = self.load, self.limits
        if not load.requests:
            return None
        full = load.rows + rows > limits.rows or load.size + size > limits.bytes
        if not full and not 0 < PATIENCE * within < load.rows * self._pace:
            return None
        ahead = self._ahead()
        if not full and PATIENCE * within >= ahead:
            return None
        if ahead >= DEEP:
            self._rest.soon(self, self._at_work)
        return self._words(rows, round(within, 2), ahead)

    def _ahead(self) -> float:
        """Return the seconds of work that there are."""
        return self.load.rows * self._pace / self._worth()

    def _at_work(self) -> float:
        """Return the same, as long as the model is at work on them."""
        return self._ahead() if self._running else 0.0

    def _words(self, rows: int, within: float, ahead: float) -> Busy:
        """Return a refusal: the same for a while, for a full server has other things to do."""
        asked, now = (rows, within), time.monotonic()
        if self._said is None or self._said[0] != asked or now > self._said[1]:
            seconds = min(max(round(ahead), 1), 60)
            wanted = f"expected room for {rows} rows within {within:g} s"
            found = f"found {self.load.rows} rows of {self.load.requests} requests waiting, at the queue"
            self._said = asked, now + SAME, Busy(f"{wanted}, {found}; come again in {seconds} s", seconds)
        return self._said[2]

    # The inference threads

    def _work(self) -> None:
        wake = threading.Lock()
        wake.acquire()
        while not self._closed or self._queue:
            if not self._has_work():
                self._sleep(wake)
                continue
            with self._seats:
                done = self._turn()
            if self._loop and (done or self._queue):
                self._loop.call_soon_threadsafe(self._handed, done)

    def _sleep(self, wake: threading.Lock) -> None:
        self._asleep.append(wake)
        if self._has_work():  # it came while nobody could see this thread asleep
            try:
                self._asleep.remove(wake)
                return
            except ValueError:
                pass  # somebody is waking it right now
        wake.acquire()

    def _has_work(self) -> bool:
        """Say whether there is something for a thread: what is light is for the loop, while there is one."""
        return self._closed or bool(self._queue and not self.is_light())

    def _turn(self, seconds: float | None = None, lost: float = 0.0) -> list[Waiting]:
        """Take a batch, of so many seconds at most, answer it, return the requests that are done.

        The requests waited for so many seconds that were `lost` to other things than the model.
        """
        batch, done = self._take(self.limits.batch if seconds is None else int(seconds / self._alone))
        if batch:
            self._answer(batch, lost)
            with self._lock:
                self._running -= 1
                for waiting, _, rows in batch:
                    waiting.answered += rows
                    if not waiting.over and (waiting.error or waiting.answered == waiting.rows):
                        waiting.over = True
                        done.append(waiting)
        _finish(done)
        return done

    def _take(self, most: int) -> tuple[list[Slice], list[Waiting]]:
        """Return slices (request, first row, rows) that make a batch, and the requests whose time is up or who left."""
        batch, late = [], []
        now = time.monotonic()
        with self._lock:
            room = self._room(most)
            while room > 0 and self._queue:
                waiting = self._queue.popleft()
                remain = waiting.rows - waiting.taken
                if waiting.over or waiting.left or now > waiting.deadline:
                    self._taken += remain
                    if not waiting.over:
                        waiting.error, waiting.over = Left() if waiting.left else Late(), True
                        late.append(waiting)
                    continue
                waiting.started = waiting.started or now
                rows = min(room, remain)
                if waiting.taken and self._queue:  # what was begun leaves some to those behind it
                    rows = min(rows, (room + 1) // 2)
                batch.append((waiting, waiting.taken, rows))
                waiting.taken += rows
                self._taken += rows
                room -= rows
                if rows < remain:
                    self._queue.append(waiting)
            self._running += bool(batch)
        return batch, late

    def _room(self, most: int) -> int:
        """Return how many rows one is to take, so many at most: of what is worth several threads, only its share."""
        waiting, free = self._came - self._taken, min(self._worth(), self._at_once - self._running)
        return max(1, min(most, self.limits.batch, -(-waiting // max(free, 1))))

    def _answer(self, batch: list[Slice], lost: float = 0.0) -> None:
        try:
            batch, inputs = self._read(batch)
            if not batch:
                return
            started = time.monotonic()
            answers = self._run(inputs)
        except Exception as error:  # what a graph raises is not ours to name
            if len(batch) == 1:
                batch[0][0].error = _bare(error)
                return
            for alone in batch:  # a row that the graph cannot answer fails its own request only
                self._answer([alone])
            return
        rows = len(answers)
        seconds = time.monotonic() - started
        with self._lock:
            self._note(seconds / rows, lost / rows)
            self._observe("inference", seconds)
            self._observe("batch", rows)
        at, suspect = 0, answers.unanswered() is not None
        for waiting, first, count in batch:
            if suspect:
                waiting.suspect = True
            waiting.parts.append((first, answers.rows(at, at + count)))
            at += count

    def _note(self, pace: float, lost: float) -> None:
        """Note the seconds that a row took, and those until it was its turn that had nothing to do with the model."""
        self._pace += 0.1 * (pace + lost - self._pace)
        self._alone += (FASTER if pace < self._alone else SLOWER) * (pace - self._alone)

    def _read(self, batch: list[Slice]) -> tuple[list[Slice], Inputs]:
        """Return a batch's inputs, and the batch without those whose bodies are wrong: they have their errors."""
        unread = [(waiting, waiting.inputs) for waiting, _, _ in batch if isinstance(waiting.inputs, Unread)]
        if not unread:
            return batch, _joined(batch)
        assert self._direct
        found = self._direct.together([each for _, each in unread])
        if found and len(unread) == len(batch):
            return batch, found
        for row, (waiting, each) in enumerate(unread):
            try:
                waiting.inputs = _slice(found, row, row + 1) if found else self._direct.alone(each)
            except Exception as error:  # whatever it is, its client hears of it, and no other
                waiting.error = _bare(error)
        right = [each for each in batch if not each[0].error]
        return right, _joined(right) if right else {}

    # The event loop

    def _handed(self, done: list[Waiting]) -> None:
        """Deliver what a thread did; what still waits may be light by now."""
        self._deliver(done)
        if self._queue:
            self._soon()

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


def _bare(error: Exception) -> Exception:
    """Return a client's error without its traceback: the frames there hold the bodies of a whole batch."""
    if isinstance(error, RequestError):
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    return error


def _joined(batch: list[Slice]) -> dict[str, Array]:
    """Return the batch's inputs, which are read; those of a single request are not copied."""
    slices = [(cast(Inputs, waiting.inputs), at, at + rows) for waiting, at, rows in batch]
    if len(slices) == 1:
        return _slice(*slices[0])
    return {name: np.concatenate([each[name][start:stop] for each, start, stop in slices]) for name in slices[0][0]}


def _slice(inputs: Inputs, start: int, stop: int) -> dict[str, Array]:
    return {name: array[start:stop] for name, array in inputs.items()}


def _finish(done: list[Waiting]) -> None:
    """Put the slices of each request together and refuse an answer that is no number."""
    for waiting in done:
        if waiting.error:
            continue
        parts = waiting.parts
        try:
            if len(parts) == 1:
                waiting.result = parts[0][1]
            else:
                waiting.result = Answers.joined([part for _, part in sorted(parts, key=itemgetter(0))])
        except MemoryError as error:
            waiting.error = error
            continue
        row = waiting.result.unanswered() if waiting.suspect else None
        if row is not None:
            waiting.error = RequestError(
                f"expected rows that the model has finite answers for, found none for row {row}, at row {row}"
            )
