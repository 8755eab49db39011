"""The processes of one server: the first takes connections in; others share them, started when it has too much to do.

One process is one core's worth of Python, so what counts is what its event loop uses; for a model that takes long
there are threads (`batching`). Each of the others is this server again without a port: it loads
the same packages, pinned by digest, and is passed connections. It tells what it counts twice a second. What concerns
the whole server (the numbers, loading and unloading) is done here, whichever process is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY
from prometheus_client.exposition import generate_latest

from boatyard.machine import available_memory

from .channel import Channel, finished, hand
from .limits import Options
from .memory import tidy
from .metrics import Numbers, by_version
from .models import Models
from .predictor import Predictor
from .usage import Usage, Used, full

if TYPE_CHECKING:
    from .server import Server

logger = logging.getLogger(__name__)

MOST = 8  # processes that are started unasked
TICK = 0.5  # seconds between two looks
LOOKS = 2  # in a row that find all processes at their limit
SILENT, HUNG, LOST = 4, 20, 120  # looks without a word: it gets no connections; nobody waits for it; it is ended
ROOM = 1.5  # times this process's memory that must be free for another
AGAIN, MORE = 10.0, 5  # seconds before another one is tried after one ended; how often they double when none starts
STARTING, LOADING, COUNTING = 120.0, 300.0, 0.5  # seconds that a process, a package, its numbers may take
SHEDDING = 4  # looks for which clients are asked to come again, after another process came
COMMAND = (sys.executable, "-P", "-m", f"{__package__}.worker")


@dataclass(eq=False)
class Worker:
    """Another process: what it told last, and what it was passed since."""

    process: subprocess.Popen[bytes]
    hatch: socket.socket
    channel: Channel = field(init=False)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    numbers: dict[tuple[str, str], Numbers] = field(default_factory=dict)
    used: Used = field(default_factory=Used)
    open: int = 0
    passed: int = 0
    taken: int = 0
    silent: int = 0
    ended: bool = False

    @property
    def clients(self) -> int:
        """How many connections it has, with those that are on the way."""
        return self.open + self.passed - self.taken

    def end(self) -> None:
        """Kill it; nobody is passed to it from now on."""
        self.ended = True
        self.process.kill()


class Pool:
    """The first process's side."""

    def __init__(self, models: Models, options: Options) -> None:
        self.models, self.options = models, options
        self.shed = 0  # clients that are to come again, to another process
        self._workers: list[Worker] = []
        self._retired: dict[tuple[str, str], Numbers] = {}
        self._counted: list[dict[tuple[str, str], Numbers]] = []
        self._busy = asyncio.Lock()  # who loads, unloads or starts a process
        self._clients: Callable[[], int] = lambda: 0
        self._own, self._since = 0, 0  # connections at the last look, and taken in after it
        self._full, self._failed, self._not_before, self._stopping = 0, 0, 0.0, False
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, server: Server) -> None:
        """Begin; with a number of processes in the options, return when so many are ready."""
        self._clients = server.clients
        server.exposition.whole, server.exposition.pids = self.whole, self.pids
        if self.options.workers:
            await asyncio.gather(*(self._add() for _ in range(self.options.workers - 1)))
        self._later(self._look())

    def pids(self) -> list[int]:
        """Return the processes that answer."""
        return [os.getpid(), *(worker.process.pid for worker in self._ready())]

    # Connections

    def pass_on(self, kind: str, client: socket.socket) -> bool:
        """Hand a connection to the process with the fewest, and say so; not when that is this one."""
        able = [worker for worker in self._ready() if worker.silent < SILENT]
        least = min(able, key=lambda worker: worker.clients, default=None)
        if least is None or self._own + self._since <= least.clients or not hand(least.hatch, kind, client):
            self._since += 1
            return False
        least.passed += 1
        return True

    def _share_out(self) -> None:
        """Ask so many clients of each process to come again that a new one gets its share."""
        ready = self._ready()
        fair = math.ceil((self._clients() + sum(worker.clients for worker in ready)) / (len(ready) + 1))
        self.shed = max(0, self._clients() - fair)
        for worker in ready:
            with contextlib.suppress(ConnectionError):
                worker.channel.say("shed", count=max(0, worker.clients - fair))

    # What concerns all

    async def metrics(self) -> bytes:
        """Return what the whole server counted, in Prometheus form."""
        await asyncio.gather(*(self._count(worker) for worker in self._ready()))
        self._counted = [dict(self._retired), *(dict(worker.numbers) for worker in self._workers)]  # for that thread
        return await asyncio.to_thread(generate_latest, REGISTRY)

    def whole(self, numbers: Numbers) -> Numbers:
        """Add to this process's numbers of a model those of the others, and of those that were."""
        key = (numbers.model, numbers.version)
        for part in self._counted:
            numbers = numbers.plus(part[key]) if key in part else numbers
        return numbers

    async def load(self, name: str) -> tuple[str, str]:
        """Load a package of the folder everywhere; return the model's name and version. Raises as Models does.

        Once begun it is done to its end, and so is `unload`: else some would have the model and others not.
        """
        return await finished(self._tasks, self._load(name))

    async def _load(self, name: str) -> tuple[str, str]:
        async with self._busy:
            model = await self.models.open_by_name(name)
            await self._tell("load", model=_description(model))
            self.models.add(model)
            found = model.name, model.version
            del model
            await asyncio.to_thread(tidy)
        logger.info("loaded %s, sha256 %s", *found)
        return found

    async def unload(self, name: str) -> None:
        """Unload a model, or one version of it, everywhere; raises HttpError when there is none."""
        await finished(self._tasks, self._unload(name))

    async def _unload(self, name: str) -> None:
        async with self._busy:
            self.models.remove(*name.split("/", 1))
            await self._tell("unload", name=name)
            await asyncio.to_thread(tidy)

    async def _tell(self, verb: str, **what: Any) -> None:
        """Have it done by all; one that does not is ended, for it would answer otherwise than the rest."""

        async def told(worker: Worker) -> None:
            asked = asyncio.ensure_future(worker.channel.ask(verb, LOADING, **what))
            while not (await asyncio.wait({asked}, timeout=TICK))[0]:
                if worker.silent > HUNG:
                    worker.end()
            if error := asked.exception():
                logger.warning("process %d did not %s and is ended: %s", worker.process.pid, verb, error)
                worker.end()

        await asyncio.gather(*(told(worker) for worker in self._ready()))

    # Stopping

    def drain(self) -> None:
        """Let all say that they are not ready; those that have only begun to start end at once."""
        self._stopping = True
        self._say("drain")
        for worker in self._workers:
            if not worker.ready.is_set():
                worker.end()

    def leave(self) -> None:
        """Let all ask their clients to come again."""
        self._say("leave")

    def stop(self) -> None:
        """Let the others answer what they have and end."""
        self.drain()
        self._say("stop")

    def abort(self) -> None:
        """Wait for nobody."""
        for worker in self._workers:
            worker.end()

    async def ended(self, seconds: float) -> None:
        """Return when the others have ended; after so many seconds, or when they say nothing, they are killed."""
        until = time.monotonic() + seconds
        while any(worker.silent <= HUNG for worker in self._workers) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self.abort()
        for task in self._tasks:
            task.cancel()

    def _say(self, verb: str) -> None:
        for worker in self._ready():
            with contextlib.suppress(ConnectionError):
                worker.channel.say(verb)

    # The others' lives

    def _ready(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.ready.is_set() and not worker.ended]

    async def _look(self) -> None:
        """Look every half second who has too much to do, who says nothing, and whether another process is wanted."""
        usage, shed_for = Usage(), 0
        while True:
            await asyncio.sleep(TICK)
            self._own, self._since = self._clients(), 0
            shed_for = shed_for + 1 if self.shed else 0
            if shed_for > SHEDDING:
                self.shed = 0
            for worker in self._ready():
                worker.silent += 1
                if worker.silent > LOST:
                    logger.warning("process %d says nothing any more and is ended", worker.process.pid)
                    worker.end()
            with contextlib.suppress(OSError):  # no descriptor is free to look with
                used = [usage.look(), *(worker.used for worker in self._ready())]
                self._full = self._full + 1 if full(used) else 0
                if self._wanted():
                    self._later(self._add())

    def _wanted(self) -> bool:
        """Say whether another process is to be started now."""
        if self._stopping or self._busy.locked() or time.monotonic() < self._not_before:
            return False
        processes = len(self._workers) + 1
        if self.options.workers:
            return processes < self.options.workers
        clients = self._clients() + sum(worker.clients for worker in self._workers)
        return self._full >= LOOKS and clients > processes and processes < self._most() and _fits()

    def _most(self) -> int:
        """Return how many processes the processors are for: each runs its model on so many of them as was chosen."""
        from boatyard.settings import Settings

        threads = max((model.plan.threads for model in self.models.all()), default=1)
        return min(MOST, Settings().threads // threads) if hasattr(socket, "send_fds") else 1

    async def _add(self) -> None:
        """Start a process and let it have its share; one that fails is said, and tried again later."""
        async with self._busy:
            if self._stopping:
                return
            try:
                worker = self._launch()
            except OSError as error:
                self._put_off()
                logger.warning("cannot start another process for now: %s", error.strerror)
                return
            self._later(self._attend(worker))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.ready.wait(), STARTING)
            self._full = 0
            if worker not in self._workers:
                return
            if not worker.ready.is_set():
                return worker.end()
            logger.info("process %d answers as well", worker.process.pid)
            self._share_out()

    def _launch(self) -> Worker:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as passed:
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            ours.enter_context(mine)
            passed.enter_context(theirs)
            hatch, window = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            ours.enter_context(hatch)
            passed.enter_context(window)
            numbers = (theirs.fileno(), window.fileno())
            held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # from its first moment
            passed.callback(signal.pthread_sigmask, signal.SIG_SETMASK, held)
            process = subprocess.Popen(
                [*COMMAND, *map(str, numbers)],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            ours.pop_all()
        worker = Worker(process, hatch)
        worker.channel = Channel(mine, self._handlers(worker))
        self._workers.append(worker)
        return worker

    def _handlers(self, worker: Worker) -> dict[str, Callable[..., Any]]:
        """Return what another process may tell and ask."""

        def ready() -> None:
            if not worker.ended:
                worker.ready.set()

        async def metrics() -> str:
            return (await self.metrics()).decode()

        def numbers(**told: Any) -> None:
            _note(worker, **told)

        asked: dict[str, Callable[..., Any]] = {"metrics": metrics, "load": self.load, "unload": self.unload}
        return {"ready": ready, "numbers": numbers, **asked}

    async def _attend(self, worker: Worker) -> None:
        """Tell a process what it is to serve, hear it to its end, and keep what it counted."""
        await worker.channel.open()
        worker.channel.say(
            "serve",
            models=[_description(model) for model in self.models.all()],
            limits=asdict(self.models.limits),
            options=self.options.to_json(),
        )
        await worker.channel.listen()
        started = worker.ready.is_set()
        if started:
            self._failed = 0
        self._put_off(not started)
        self._workers.remove(worker)
        worker.ready.set()  # whoever waits for it need not
        worker.hatch.close()
        for key, numbers in worker.numbers.items():
            past = self._retired.get(key)
            self._retired[key] = past.plus(numbers.of_the_past()) if past else numbers.of_the_past()
        status = await asyncio.to_thread(_reap, worker.process)
        if not self._stopping:
            what = "ended; its connections are lost" if started else "did not start"
            logger.warning("process %d %s (status %d)", worker.process.pid, what, status)

    def _put_off(self, failed: bool = True) -> None:
        """Start no other process for a while: ever longer when none does."""
        self._failed += failed
        self._not_before = time.monotonic() + AGAIN * 2 ** min(self._failed, MORE)

    async def _count(self, worker: Worker) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, RuntimeError):
            _note(worker, **await worker.channel.ask("numbers", COUNTING))

    def _later(self, what: Awaitable[None]) -> None:
        task = asyncio.ensure_future(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _note(worker: Worker, used: list[float], open: int, taken: int, numbers: list[Any]) -> None:
    worker.used, worker.open, worker.taken, worker.silent = Used(*used), open, taken, 0
    read = by_version(Numbers.from_json(each) for each in numbers)
    worker.numbers.update({(each.model, each.version): each for each in read})


def _description(model: Predictor) -> dict[str, Any]:
    """Return what another process needs to serve the same model in the same way."""
    return {
        "package": str(model.package.package.path.absolute()),
        "name": model.name,
        "digest": model.version,
        "plan": asdict(model.plan),
    }


def _fits() -> bool:
    """Say whether there is memory for another process like this one."""
    statm = Path("/proc/self/statm")
    mine = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
    return available_memory() > ROOM * mine


def _reap(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
