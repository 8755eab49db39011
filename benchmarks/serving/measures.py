"""What is measured, one function each: servers in, cells of a table and ratios out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boatyard.packages import Package

from . import checks, load, models, protocols, servers
from .environments import Unequal
from .load import Bodies, Cell
from .models import HEADLINE, TENSOR, Model
from .plan import Plan
from .protocols import Question
from .ratios import Ratio, against_best, best_name, interleaved
from .servers import BARE, BOATYARD, PEERS, STOCK, Running, Server, alone, on

BODIES = 16  # different ones, sent in turn
OURS = BOATYARD.name
HEAVY = models.SIZES[-1]  # so slow that five times its rate is a light load for the generator
TIMEOUT = "x-request-timeout-ms"
DEADLINE, MARGIN = 1.0, 0.25  # seconds a client gives the server, and those it waits longer for the way
FEW = 4  # connections where an answer takes long: what is in flight at the end of a cell is not counted
SCREEN = 2  # seconds of a cell that only chooses how a peer is started
AGAIN = 2  # times that a cell with an error is measured again
SWEEP = (2, 2)  # seconds and repetitions of a point of a curve
ABLE = 0.95  # of its greatest rate: above it a server's latency is that of an endless queue
V2 = "/v2/models/fashion/infer"

Cells = dict[str, list[Cell]]


@dataclass
class Results:
    """All that was found; `cells` by the name of a measure and the server, `sweeps` by what was varied.

    `invalid` says which cells had errors and were measured again.
    """

    chosen: dict[str, str] = field(default_factory=dict)
    screened: dict[str, float] = field(default_factory=dict)
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    ratios: list[Ratio] = field(default_factory=list)
    cells: dict[str, Cells] = field(default_factory=dict)
    singles: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    sweeps: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)


class Bench:
    """A plan, a folder to work in, the servers that were chosen, and what was found so far."""

    def __init__(self, plan: Plan, build: Path) -> None:
        self.plan, self.build, self.results = plan, build, Results()
        self.peers: tuple[Server, ...] = (servers.KSERVE_HERE,)

    # What all use

    def package(self, model: Model) -> Package:
        return models.package(model, self.build / "models")

    def bodies(self, server: Server, model: Model, rows: int = 1, protocol: str = "", path: str = "") -> Bodies:
        """Return different requests of so many rows, in the server's own protocol unless another is named."""
        many = models.images(model, BODIES * rows)
        each = [many[index * rows : (index + 1) * rows] for index in range(BODIES)]
        return Bodies([protocols.ask(protocol or server.protocol, part, path or server.path) for part in each])

    @contextlib.contextmanager
    def started(self, chosen: Sequence[Server], model: Model) -> Iterator[dict[str, Running]]:
        """Start servers, and load each for a while: some start further processes when they have much to do."""
        first = models.images(model, 1)
        asked = {server: protocols.ask(server.protocol, first, server.path) for server in chosen}
        with servers.started(asked, self.package(model).path, self.build) as running:
            for each in running.values():
                with alone(each):
                    load.warm(each, self.bodies(each.server, model))
            yield running

    def note(self, text: str) -> None:
        print(text, flush=True)

    def ratio(self, key: str, name: str, against: str, each: Sequence[float], low: bool = False) -> None:
        """Record ours against others and say it."""
        ratio = Ratio(name, against, tuple(each), self.plan.wanted[key], low)
        self.results.ratios.append(ratio)
        self.note(f"  {name} against {against}: {ratio.median:.2f} ({ratio.spread}), wanted {ratio.target}")

    # Which way to start each peer

    def screen(self) -> None:
        """Start each peer in each way and keep the fastest: geometric mean of the rates at 16 and 64 connections."""
        chosen = []
        for variants in PEERS.values():
            rates = {variant: self._screened(variant) for variant in variants}
            best = max(rates, key=lambda variant: rates[variant])
            if not rates[best]:
                raise Unequal(f"{best.name} cannot be started in any way")
            chosen.append(best)
            self.results.chosen[best.name] = best.variant
            self.results.screened |= {variant.title: rate for variant, rate in rates.items()}
            self.note(f"  {best.name}: {best.variant}")
        self.peers = tuple(chosen)

    def _screened(self, server: Server) -> float:
        """Return requests/s; 0 of a way that does not start, or answers with errors."""
        try:
            with self.started([server], HEADLINE) as running, alone(running[server.name]) as one:
                bodies = self.bodies(server, HEADLINE)
                return math.sqrt(
                    math.prod(load.closed(one, bodies, connections, SCREEN).rate for connections in (16, 64))
                )
        except (Unequal, RuntimeError) as error:
            self.note(f"  {server.title} is out: {error}")
            return 0.0

    # V1 JSON, one image a request

    def rates(self) -> None:
        """Rates and latencies at 16 and 64 connections, of ours, every peer and the bare ASGI server."""
        chosen = [BOATYARD, *self.peers, *([STOCK] if self.plan.peers else []), BARE]
        with self.started(chosen, HEADLINE) as running:
            serving = {name: server for name, server in running.items() if name != BARE.name}
            self._check("V1", serving, HEADLINE)
            bodies = {name: self.bodies(server.server, HEADLINE) for name, server in running.items()}
            for connections in (16, 64):
                cells = self._closed(running, bodies, connections)
                self.results.cells[f"V1 JSON, {connections} connections"] = cells
                self._ratios_of_rates(cells, connections)
            self._check("V1, after the load", serving, HEADLINE)

    def _ratios_of_rates(self, cells: Cells, connections: int) -> None:
        rate = {name: [cell.rate for cell in each] for name, each in cells.items()}
        p99 = {name: [cell.p99 for cell in each] for name, each in cells.items()}
        at = f"{connections} connections"
        tuned, stock = [each.name for each in self.peers], [STOCK.name, *(each.name for each in self.peers[1:])]
        for title, names in {"best peer": tuned, "best peer, KServe as it comes": stock}.items():
            if not set(names) <= set(rate):
                continue
            peers = {name: rate[name] for name in names}
            against = f"{title}: {best_name(peers)}"
            self.ratio(f"rate at {connections}", f"requests/s, {at}", against, against_best(rate[OURS], peers))
            if connections == 16:
                peers = {name: p99[name] for name in names}
                against = f"{title}: {best_name(peers, min)}"
                self.ratio("p99 at 16", f"p99 latency, {at}", against, against_best(p99[OURS], peers, min), low=True)
        bare = {BARE.name: rate[BARE.name]}
        self.ratio(f"bare at {connections}", f"requests/s, {at}", "bare ASGI", against_best(rate[OURS], bare))

    # V2 against those who speak it

    def infers(self) -> None:
        """V2 JSON, one image a request, at 16 connections."""
        speakers = [_asked(server, "v2") for server in (BOATYARD, *self.peers) if server.grpc]
        with self.started(speakers, HEADLINE) as running:
            self._check("V2 JSON", running, HEADLINE)
            bodies = {name: self.bodies(server.server, HEADLINE) for name, server in running.items()}
            cells = self._closed(running, bodies, 16)
        self.results.cells["V2 JSON, 16 connections"] = cells
        rate = {name: [cell.rate for cell in each] for name, each in cells.items()}
        ours = rate.pop(OURS)
        against = f"best peer: {best_name(rate)}"
        self.ratio("infer", "requests/s, V2 JSON, 16 connections", against, against_best(ours, rate))

    def tensors(self) -> None:
        """A tensor of 0.6 MB as V2 binary; in full, smaller ones too."""
        for model in models.BODIES if self.plan.sweeps else (TENSOR,):
            cells = self._tensor(model)
            rate = {name: [cell.rate for cell in each] for name, each in cells.items()}
            name = f"V2 binary, {model.about}"
            self.results.cells[name] = cells
            self._sweep("body size", model.about, float(math.prod(model.shape) * 4), cells)
            if model is TENSOR:
                ours = rate.pop(OURS)
                self.ratio("tensor", f"requests/s, {name}", "KServe", against_best(ours, rate))

    def _tensor(self, model: Model) -> Cells:
        with self.started([_asked(server, "v2_binary") for server in (BOATYARD, self.kserve)], model) as running:
            self._check(f"V2 binary, {model.about}", running, model, ("v2_binary",), 2)
            bodies = {name: self.bodies(each.server, model, 1, "v2_binary", V2) for name, each in running.items()}
            return self._closed(running, bodies, FEW, max(4, self.plan.seconds), 0 if model is TENSOR else SWEEP[1])

    @property
    def kserve(self) -> Server:
        return self.peers[0]

    def rpcs(self) -> None:
        """ModelInfer with raw contents, 16 calls at a time."""
        with self.started([BOATYARD, self.kserve], HEADLINE) as running:
            self._check("gRPC", running, HEADLINE, ("grpc",))
            images = models.images(HEADLINE, BODIES)
            requests = [protocols.grpc_request(images[index : index + 1]) for index in range(BODIES)]
            bodies = Bodies([Question("", request) for request in requests])

            def measure(name: str) -> Cell:
                return self._valid(running[name], lambda server: load.rpc(server, bodies, 16, self.plan.seconds))

            cells = interleaved(list(running), self.plan.repeats, measure)
        self.results.cells["gRPC ModelInfer, 16 calls"] = cells
        rate = {name: [cell.rate for cell in each] for name, each in cells.items()}
        ours = rate.pop(OURS)
        self.ratio("grpc", "requests/s, gRPC ModelInfer", "KServe", against_best(ours, rate))

    # Starting

    def starts(self) -> None:
        """From exec to the first right answer and the memory then, against the import of what a KServe server needs."""
        chosen = {each.name: each for each in (BOATYARD, *self.peers)}
        package, image = self.package(HEADLINE), models.images(HEADLINE, 1)
        wanted = checks.reference(package, image)

        def measure(name: str) -> tuple[float, int]:
            if name not in chosen:
                return servers.bare_import()
            server = chosen[name]
            question = protocols.ask(server.protocol, image, server.path)
            running = Running(server, package.path, self.build)
            try:
                seconds = running.ready(question)
                difference = wanted.difference(protocols.read(running.ask(question)[1]))
                assert difference <= checks.TOLERANCE, f"{name}'s first answer is off by {difference}"
                return seconds, running.memory()
            finally:
                running.stop()

        bare = "import kserve, onnxruntime"
        found = interleaved([OURS, bare, *(peer.name for peer in self.peers)], self.plan.repeats, measure)
        seconds = {name: [each[0] for each in pairs] for name, pairs in found.items()}
        memory = {name: [each[1] / 2**20 for each in pairs] for name, pairs in found.items()}
        self.results.singles |= {"seconds to the first right answer": seconds, "MiB resident then": memory}
        self.ratio(
            "start", "exec to first right answer", f"`{bare}`", against_best(seconds[OURS], {bare: seconds[bare]}), True
        )
        self.ratio("memory", "memory then", f"`{bare}`", against_best(memory[OURS], {bare: memory[bare]}), True)

    # Overload

    def overload(self) -> None:
        """Right answers in time at five times the greatest rate, against that rate; and memory meanwhile.

        The generator has a core of its own: at that rate it would take from the server what the ratio is about.
        """
        chosen = [BOATYARD, *([self.kserve] if self.plan.peers else [])]
        every = sorted(os.sched_getaffinity(0))
        with on(every[:-1]), self.started(chosen, HEAVY) as running, on(every[-1:]):
            found = interleaved(list(running), self.plan.overload, lambda name: self._overload(running[name]))
        for index, key in enumerate(("goodput at 5× the peak, of the peak", "memory then, of before")):
            self.results.singles[key] = {name: [each[index] for each in rows] for name, rows in found.items()}
        self.ratio("goodput", "right answers in time at 5× the peak", "its peak", [each[0] for each in found[OURS]])
        self.ratio(
            "bounded", "greatest memory at 5× the peak", "before", [each[1] for each in found[OURS]], low=True
        )  # fmt: skip

    def _overload(self, running: Running) -> tuple[float, float]:
        """Return goodput by peak, and the greatest memory by that before.

        The peak is that before and that after, in the middle: a machine's speed changes within the seconds between.
        """
        bodies = self.bodies(running.server, HEAVY)
        with alone(running):
            peak = load.closed(running, bodies, 64, self.plan.seconds).rate
            before = running.memory()
            bodies.headers = {**bodies.headers, TIMEOUT: str(int(DEADLINE * 1000))}
            with Sampled(running.memory) as memory:
                found = load.opened(running, bodies, 5 * peak, 2 * self.plan.seconds, patience=DEADLINE + MARGIN)
            time.sleep(DEADLINE)  # what was given up is dropped
            bodies.headers = {name: value for name, value in bodies.headers.items() if name != TIMEOUT}
            after = load.closed(running, bodies, 64, self.plan.seconds).rate
        self._note_overload(running.server.name, (peak + after) / 2, found)
        return 2 * found["good"] / (peak + after), max(memory.values) / before

    def _note_overload(self, name: str, peak: float, found: Mapping[str, Any]) -> None:
        row = {"server": name, "peak": peak, **found}
        self.results.sweeps.setdefault("overload", []).append(row)
        if found["slow"]:
            self.note(f"  the generator was {found['behind']:.0f} ms behind its plan at most")

    # What depends on what

    def batches(self) -> None:
        """Rows a request, V1 JSON or the peer's own, 16 connections."""
        with self.started([BOATYARD, *self.peers], HEADLINE) as running:
            for rows in (1, 4, 16, 64):
                bodies = {name: self.bodies(each.server, HEADLINE, rows) for name, each in running.items()}
                cells = self._closed(running, bodies, 16, *SWEEP)
                self._sweep("batch size", f"{rows} rows", rows, cells)

    def sizes(self) -> None:
        """Models from none to large, 16 connections."""
        for model in models.SIZES:
            with self.started([BOATYARD, *self.peers], model) as running:
                self._check(f"model {model.name}", running, model)
                bodies = {name: self.bodies(each.server, model) for name, each in running.items()}
                cells = self._closed(running, bodies, 16, *SWEEP)
            self._sweep("model size", model.about, _milliseconds(self.package(model), model), cells)

    def offered(self) -> None:
        """Latency against offered load: an open loop, up to near each server's greatest rate."""
        peak = {
            name: statistics.median(cell.rate for cell in cells)
            for name, cells in self.results.cells["V1 JSON, 64 connections"].items()
        }
        best = max(rate for name, rate in peak.items() if name not in (OURS, BARE.name))
        steps = [
            *(best * share for share in (0.25, 0.5, 0.75, 0.9)),
            *(peak[OURS] * share for share in (0.25, 0.5, 0.7)),
        ]
        with self.started([BOATYARD, *self.peers], HEADLINE) as running:
            for rate in sorted(steps):
                able = [name for name in running if rate <= ABLE * peak[name]]
                found = interleaved(able, 2, functools.partial(self._offered, running, rate))
                rows = [{"server": name, "rate": rate, **row} for name, each in found.items() for row in each]
                self.results.sweeps.setdefault("offered load", []).extend(rows)

    def _offered(self, running: Mapping[str, Running], rate: float, name: str) -> dict[str, Any]:
        with alone(running[name]) as server:
            bodies = self.bodies(server.server, HEADLINE)
            load.opened(server, bodies, rate, 0.5)
            return load.opened(server, bodies, rate, self.plan.seconds)

    def _sweep(self, varied: str, about: str, value: float, cells: Cells) -> None:
        for name, each in cells.items():
            row = {"server": name, "about": about, "value": value, "cells": [dataclasses.asdict(cell) for cell in each]}
            self.results.sweeps.setdefault(varied, []).append(row)

    def _closed(
        self,
        running: Mapping[str, Running],
        bodies: Mapping[str, Bodies],
        connections: int,
        seconds: int = 0,
        repeats: int = 0,
    ) -> Cells:
        def measure(name: str) -> Cell:
            def one(server: Running) -> Cell:
                return load.closed(server, bodies[name], connections, seconds or self.plan.seconds)

            return self._valid(running[name], one)

        return interleaved(list(running), repeats or self.plan.repeats, measure)

    def _valid(self, running: Running, measure: Callable[[Running], Cell]) -> Cell:
        """Measure a server alone; a cell with an error is noted and measured again, twice at most."""
        for _ in range(AGAIN):
            try:
                with alone(running) as server:
                    return measure(server)
            except Unequal as error:
                self.results.invalid.append(f"{running.server.name}: {error}")
                self.note(f"  again, {self.results.invalid[-1]}")
        with alone(running) as server:
            return measure(server)

    def _check(
        self, what: str, running: Mapping[str, Running], model: Model, kinds: Sequence[str] = ("own",), count: int = 5
    ) -> None:
        found = checks.alike(running, self.package(model), models.images(model, count), kinds)
        self.results.differences[what] = found
        self.note(f"  {what}: {len(found)} servers answer alike, greatest difference {max(found.values()):.1g}")


class Sampled:
    """Calls a function five times a second in a thread, and keeps what it returned."""

    def __init__(self, function: Callable[[], float]) -> None:
        self.values: list[float] = [function()]
        self._function, self._done = function, threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Sampled:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._done.wait(0.2):
            self.values.append(self._function())


def _asked(server: Server, protocol: str) -> Server:
    return dataclasses.replace(server, protocol=protocol, path=V2)


def _milliseconds(package: Package, model: Model) -> float:
    """Return the least milliseconds of a row in the graph itself, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = servers.THREADS
    session = onnxruntime.InferenceSession(package.graph, options, providers=["CPUExecutionProvider"])
    image, best = models.images(model, 1), float("inf")
    for _ in range(50):
        started = time.perf_counter()
        session.run(None, {"image": image})
        best = min(best, time.perf_counter() - started)
    return best * 1000
