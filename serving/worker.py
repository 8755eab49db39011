"""`python -m boatyard.serving.worker`: a further process of a server. The first one starts it; see `pool`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.errors import BoatyardError

from .channel import Channel, finished, taken
from .doors import PAUSE
from .errors import HttpError
from .limits import Limits, Options, Plan
from .memory import settle, tidy
from .usage import Usage, Used

if TYPE_CHECKING:
    from .models import Models
    from .server import Server

logger = logging.getLogger(__name__)

TICK = 0.5  # seconds between two reports
SHEDDING = 4  # reports for which clients are asked to come again
LOADING, COUNTING = 310.0, 5.0  # seconds that the first process may take


class Link:
    """This process's side of the pool: connections come from the first one, and what concerns all is asked of it."""

    def __init__(self, end: socket.socket, hatch: socket.socket) -> None:
        self.shed = 0
        self._hatch, self._taken, self._used, self._gone = hatch, 0, Used(), False
        self._server: Server | None = None
        self._serve: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._asking = set[asyncio.Task[Any]]()
        handlers: dict[str, Callable[..., Any]] = {"numbers": self._numbers, "load": self._load, "unload": self._unload}
        told: dict[str, Callable[..., Any]] = {
            "serve": self._told,
            "shed": self._set_shed,
            "drain": self._drain,
            "leave": self._leave,
            "stop": self._stop,
        }
        self._channel = Channel(end, {**handlers, **told})

    async def told(self) -> dict[str, Any]:
        """Return what the first process says that this one is to serve; raises ConnectionError when it is gone."""
        await self._channel.open()
        self._tasks.append(asyncio.ensure_future(self._listen()))
        return await self._serve

    async def start(self, server: Server) -> None:
        """Take connections from now on, until the first process says stop, or is gone."""
        self._server = server
        asyncio.get_running_loop().add_reader(self._hatch.fileno(), self._take)
        self._channel.say("ready")
        self._tasks.append(asyncio.ensure_future(self._report()))

    def pass_on(self, kind: str, client: socket.socket) -> bool:
        """Say no: what comes here stays here."""
        return False

    async def metrics(self) -> bytes:
        """Return what the whole server counted."""
        text: str = await self._ask("metrics", COUNTING)
        return text.encode()

    async def load(self, name: str) -> tuple[str, str]:
        """Have a package loaded everywhere; raises as the first process does."""
        name, version = await self._ask("load", LOADING, name=name)
        return name, version

    async def unload(self, name: str) -> None:
        """Have a model unloaded everywhere; raises as the first process does."""
        await self._ask("unload", LOADING, name=name)

    async def _ask(self, verb: str, seconds: float, **what: Any) -> Any:
        try:
            return await finished(self._asking, self._channel.ask(verb, seconds, **what))
        except TimeoutError:
            raise HttpError(504, f"expected to {verb} within {seconds:g} s, found the first process silent") from None
        except ConnectionError:
            raise HttpError(503, f"expected to {verb}, found the server stopping") from None

    def drain(self) -> None:
        """Do nothing: there are none after this one."""

    leave = stop = abort = drain

    async def ended(self, seconds: float) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()

    # What the first process says

    def _told(self, **what: Any) -> None:
        if not self._serve.done():
            self._serve.set_result(what)

    def _set_shed(self, count: int) -> None:
        self.shed = count

    async def _load(self, model: dict[str, Any]) -> None:
        assert self._server
        models = self._server.models
        models.add(await asyncio.to_thread(opened, models, model))
        await asyncio.to_thread(tidy)

    async def _unload(self, name: str) -> None:
        assert self._server
        self._server.models.remove(*name.split("/", 1))
        await asyncio.to_thread(tidy)

    def _drain(self) -> None:
        if self._server:
            self._server.unready()

    def _leave(self) -> None:
        if self._server:
            self._server.leave()

    async def _stop(self) -> None:
        if self._server:
            self._take()  # what was passed until now
            await self._server.close()

    def _numbers(self) -> dict[str, Any]:
        assert self._server
        return {
            "used": list(self._used),
            "open": self._server.clients(),
            "taken": self._taken,
            "numbers": [numbers.to_json() for numbers in self._server.numbers()],
        }

    # What this process does of itself

    def _take(self) -> None:
        """Take in the connections that wait; without a descriptor for them they wait on."""
        assert self._server
        try:
            for kind, client in taken(self._hatch):
                self._taken += 1
                if client:
                    self._server.connect(kind, client)
        except OSError as error:
            logger.warning("cannot take connections for now: %s", error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._hatch.fileno())
            loop.call_later(PAUSE, self._look_again)

    def _look_again(self) -> None:
        if not self._gone:
            asyncio.get_running_loop().add_reader(self._hatch.fileno(), self._take)

    async def _report(self) -> None:
        usage, shed_for = Usage(), 0
        while True:
            await asyncio.sleep(TICK)
            self._used = usage.look()
            shed_for = shed_for + 1 if self.shed else 0
            if shed_for > SHEDDING:
                self.shed = 0
            with contextlib.suppress(ConnectionError):
                self._channel.say("numbers", **self._numbers())

    async def _listen(self) -> None:
        """Hear the first process; without it, answer what is at work and end."""
        await self._channel.listen()
        if not self._serve.done():
            self._serve.set_exception(ConnectionError("the first process is gone"))
        self._gone = True
        if self._server:
            asyncio.get_running_loop().remove_reader(self._hatch.fileno())
            self._drain()
            await self._stop()


def opened(models: Models, description: dict[str, Any]) -> Any:
    """Return a model as the first process describes it; raises ArtifactError when the package is another by now."""
    plan, package = Plan(**description["plan"]), Path(description["package"])
    return models.open(package, name=description["name"], digest=description["digest"], plan=plan)


async def serve(end: socket.socket, hatch: socket.socket) -> None:
    """Serve what the first process says until it says stop."""
    from .models import Models
    from .server import Server

    settle()
    link = Link(end, hatch)
    told = await link.told()
    models = Models(Limits(**told["limits"]))
    for each in told["models"]:
        models.add(opened(models, each))
    server = Server(models, Options.from_json(told["options"]), link)
    await server.serve()


def main(arguments: list[str]) -> int:
    """Be a further process; 0 after a clean stop, 1 with one sentence when a package is refused."""
    for number in (signal.SIGTERM, signal.SIGINT):  # the first process has them, and says what to do
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    end, hatch = (socket.socket(fileno=int(each)) for each in arguments)
    sys.argv = sys.argv[:1]  # kserve reads the command line of whoever imports it
    from .server import run

    try:
        run(serve(end, hatch))
    except (BoatyardError, ConnectionError) as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
