"""The servers: how each is started, and what its processes use.

All servers of a comparison are started once and stay loaded; those that are not asked are stopped by SIGSTOP, so that
no poll, heartbeat or worker of theirs takes time from the one that is. SIGSTOP, SIGCONT, memory and CPU seconds are
those of all its processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import environments
from .environments import OURS
from .protocols import Question

HERE = Path(__file__).parent
PAGE, TICK = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
READY = 90  # seconds that a server may take to start
REFUSED = 2000  # answers of another status than 200 until then: some listen before they have loaded
SETTLED, QUIET_SECONDS = 10, 0.03  # seconds waited at most; CPU seconds in a tenth that are no work but polling
THREADS = 1  # of an inference, for every server


@dataclass(frozen=True)
class Server:
    """One way to start one server. `{port}`, `{grpc}`, `{package}` and the like in its command are filled in."""

    name: str
    variant: str
    environment: str | None
    command: tuple[str, ...]
    protocol: str = "v1"
    path: str = "/v1/models/fashion:predict"
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    grpc: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} ({self.variant})" if self.variant else self.name


def _peer(file: str) -> str:
    return str(HERE / "peers" / file)


OURS_COMMAND = ("-m", "boatyard.serving", "--package", "{package}", "--host", "127.0.0.1", "--http-port", "{port}")
BOATYARD = Server(
    "boatyard", "", None, (*OURS_COMMAND, "--grpc-port", "{grpc}", "--threads", str(THREADS)), grpc=True
)  # fmt: skip
BARE = Server(
    "bare ASGI", "", None,
    ("-m", "uvicorn", "bare_asgi:app", "--app-dir", str(HERE / "peers"), "--port", "{port}", "--loop", "uvloop",
     "--http", "httptools", "--no-access-log", "--log-level", "warning"),
)  # fmt: skip
KSERVE_COMMAND = (_peer("kserve_model.py"), "--http_port", "{port}", "--grpc_port", "{grpc}")
QUIET = ("--enable_latency_logging", "no", "--configure_logging", "no")
KSERVE = Server("KServe", "as it comes", "kserve", KSERVE_COMMAND, grpc=True)
KSERVE_HERE = dataclasses.replace(KSERVE, environment=None)  # with the packages that ours has
STOCK = dataclasses.replace(KSERVE, name="stock KServe")  # beside its fastest way: what its documentation starts
KSERVES = (
    KSERVE,
    dataclasses.replace(KSERVE, variant="no logs", command=(*KSERVE_COMMAND, *QUIET)),
    dataclasses.replace(KSERVE, variant="no logs, 2 workers", command=(*KSERVE_COMMAND, *QUIET, "--workers", "2")),
)


def _mlserver(variant: str, batch: int, workers: int) -> Server:
    settings = {"PEER_BATCH": str(batch), "PEER_WORKERS": str(workers)}
    command = ("{bin}/mlserver", "start", "{folder}")
    return Server("MLServer", variant, "mlserver", command, "v2", "/v2/models/fashion/infer", settings, True)


def _bentoml(variant: str, batch: int, workers: int) -> Server:
    settings = {"PEER_BATCH": str(batch), "PEER_WORKERS": str(workers), "BENTOML_DO_NOT_TRACK": "1"}
    where = ("--working-dir", str(HERE / "peers"), "--host", "127.0.0.1", "--port", "{port}")
    command = ("-m", "bentoml", "serve", "bentoml_service:Fashion", *where)
    return Server("BentoML", variant, "bentoml", command, "v1", "/predict", settings)


def _litserve(variant: str, batch: int, queue: str = "fast", workers: int = 1, servers: int = 1) -> Server:
    settings = {"PEER_BATCH": str(batch), "PEER_WORKERS": str(workers), "PEER_SERVERS": str(servers)}
    settings["PEER_QUEUE"] = queue
    return Server("LitServe", variant, "litserve", (_peer("litserve_api.py"),), "v1", "/predict", settings)


PEERS: dict[str, tuple[Server, ...]] = {
    "KServe": KSERVES,
    "MLServer": (
        _mlserver("in one process, batches", 64, 0),
        _mlserver("in one process", 0, 0),
        _mlserver("1 worker, batches", 64, 1),
    ),
    "BentoML": (_bentoml("batches", 64, 1), _bentoml("no batches", 0, 1), _bentoml("batches, 2 workers", 64, 2)),
    "LitServe": (
        _litserve("batches", 64),
        _litserve("no batches", 1),
        _litserve("no batches, slow queue", 1, "slow"),
        _litserve("2 workers, 2 servers", 1, "fast", 2, 2),
    ),
}


@contextlib.contextmanager
def on(cores: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and all that it starts, on some cores; none is all that there are."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Running:
    """A server's processes, listening at `port` and, where it has it, `grpc`."""

    def __init__(self, server: Server, package: Path, build: Path) -> None:
        """Start it; `ready` waits until it answers."""
        self.server, (self.port, self.grpc, metrics) = server, _ports(3)
        folder = build / "servers" / f"{server.name}-{server.variant}".replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        python = environments.python(server.environment, build.parent / "peers") if server.environment else OURS
        places = {
            "port": self.port,
            "grpc": self.grpc,
            "package": package,
            "folder": folder,
            "bin": Path(python).parent,
        }
        command = [part.format(**places) for part in server.command]
        graph = str((package / "model.onnx").resolve())
        settings = {"PEER_PORT": str(self.port), "PEER_GRAPH": graph, **server.settings}
        _write_mlserver(folder, self.port, self.grpc, metrics, settings)
        self.log = folder / "log"
        self.started = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, *command],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=_environment(settings),
                start_new_session=True,
            )  # fmt: skip

    def ask(self, question: Question, timeout: float = 30) -> tuple[int, bytes, Mapping[str, str]]:
        """Send one request and return status, body and headers; raises OSError when nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", question.path, question.body, question.headers)
            response = connection.getresponse()
            return response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}
        finally:
            connection.close()

    def ready(self, question: Question) -> float:
        """Ask until a 200 comes and return the seconds from exec until then; raises RuntimeError."""
        status, refused = 0, 0
        while time.perf_counter() < self.started + READY and self.process.poll() is None and refused < REFUSED:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = self.ask(question)[0]
                if status == 200:
                    return time.perf_counter() - self.started
                refused += 1
            time.sleep(0.005)
        self.stop()
        said = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(
            f"{self.server.title} does not answer {question.path} (status {status}); its log ends:\n{said}"
        )

    def pause(self) -> None:
        """Stop all its processes where they are."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def settle(self) -> None:
        """Wait until it has done what it was asked: the work that a load leaves behind is not the next one's."""
        until = time.perf_counter() + SETTLED
        while time.perf_counter() < until:
            before = self.seconds()
            time.sleep(0.1)
            if self.seconds() - before <= QUIET_SECONDS:
                break

    def memory(self) -> int:
        """Return the bytes resident, summed over its processes: what they share with each other counts once each."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in self.processes())

    def seconds(self) -> float:
        """Return the CPU seconds that its processes have used."""
        return sum((times[13] + times[14]) / TICK for times in map(_stat, self.processes()))

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL for all that is left."""
        self.resume()
        born = {pid: _stat(pid)[21] for pid in self.processes() if self.process.poll() is None}
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for pid, when in born.items():
            with contextlib.suppress(OSError):
                if _stat(pid)[21] == when:  # a number may be another's by now
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def processes(self) -> list[int]:
        """Return its processes: the one started, and all that descend from it."""
        parents = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit():
                    parents[int(entry.name)] = _stat(int(entry.name))[3]
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@contextlib.contextmanager
def started(servers: Mapping[Server, Question], package: Path, build: Path) -> Iterator[dict[str, Running]]:
    """Start servers one after the other and give them by name, all stopped but loaded and warm; end them after."""
    running: dict[str, Running] = {}
    try:
        for server, question in servers.items():
            running[server.name] = Running(server, package, build)
            running[server.name].ready(question)
            running[server.name].pause()
        yield running
    finally:
        for each in running.values():
            each.stop()


@contextlib.contextmanager
def alone(server: Running) -> Iterator[Running]:
    """Let one server run."""
    server.resume()
    try:
        yield server
    finally:
        server.pause()


def _stat(pid: int) -> list[int]:
    """Return the numbers of /proc/PID/stat; those that are none, as 0."""
    text = Path(f"/proc/{pid}/stat").read_text()
    rest = text.rpartition(")")[2].split()
    return [pid, 0, *(int(part) if part.lstrip("-").isdigit() else 0 for part in rest)]


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    threads = str(THREADS)
    return {**os.environ, "PEER_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONPATH": _peer(""), **settings}


def _ports(count: int) -> tuple[int, ...]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    return ports


def _write_mlserver(folder: Path, http_port: int, grpc_port: int, metrics: int, settings: Mapping[str, str]) -> None:
    """Write the two files that MLServer starts from."""
    batch = int(settings.get("PEER_BATCH", 0))
    model = {"name": "fashion", "implementation": "mlserver_runtime.Fashion"}
    batching = {"max_batch_size": batch, "max_batch_time": 0.001} if batch else {}
    server = {
        "debug": False,  # else it logs every request
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics,
        "parallel_workers": int(settings.get("PEER_WORKERS", 0)),
        "gzip_enabled": False,
        "use_structured_logging": False,
    }
    (folder / "model-settings.json").write_text(json.dumps(model | batching))
    (folder / "settings.json").write_text(json.dumps(server))


def bare_import() -> tuple[float, int]:
    """Return the seconds from exec until `import kserve, onnxruntime` is done, and the bytes resident then."""
    code = "import kserve, onnxruntime, sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"
    begun = time.perf_counter()
    with subprocess.Popen(
        [OURS, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout and process.stdin
        process.stdout.read(1)
        seconds = time.perf_counter() - begun
        memory = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * PAGE
        process.stdin.close()
    return seconds, memory


if sys.platform != "linux":
    raise SystemExit("the benchmark reads /proc: it runs on Linux")
