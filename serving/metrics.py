"""What the server counts, in Prometheus form. Counting is adding to a list; a scrape reads what is there."""

from __future__ import annotations

import contextlib
import functools
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from kserve import metrics as kserve_metrics
from prometheus_client import PROCESS_COLLECTOR, REGISTRY, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from .batching import Load

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OF_THE_FIRST = ("process_start_time_seconds", "process_max_fds")  # what processes do not add up to
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


class Histogram:
    """Counts by bucket; `bounds` are upper ones, as Prometheus has them. One thread at a time observes."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(
        self, bounds: Sequence[float] = SECONDS, counts: Sequence[int] | None = None, total: float = 0.0
    ) -> None:
        self.bounds, self.counts, self.total = bounds, list(counts or [0] * (len(bounds) + 1)), total

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def plus(self, other: Histogram) -> Histogram:
        """Return both in one."""
        counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        return Histogram(self.bounds, counts, self.total + other.total)

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulative counts by upper bound, the last is +Inf."""
        names, below = [*(f"{bound:g}" for bound in self.bounds), "+Inf"], 0
        found = []
        for name, count in zip(names, tuple(self.counts), strict=True):
            below += count
            found.append((name, float(below)))
        return found


class Numbers:
    """One model's numbers. `load` is read at a scrape: requests, rows and bytes that wait."""

    def __init__(self, model: str, version: str, engine: str, load: Load) -> None:
        self.model, self.version, self.engine, self.load = model, version, engine, load
        self.requests: dict[tuple[str, int], int] = {}
        self.total: dict[str, Histogram] = {}
        self.queue, self.inference, self.batch = Histogram(), Histogram(), Histogram(ROWS)

    def answered(self, protocol: str, code: int, seconds: float) -> None:
        """Count a request: `protocol` is v1, v2 or grpc, `code` its HTTP status or gRPC code."""
        key = (protocol, code)
        self.requests[key] = self.requests.get(key, 0) + 1
        if protocol not in self.total:
            self.total[protocol] = Histogram()
        self.total[protocol].observe(seconds)

    def plus(self, other: Numbers) -> Numbers:
        """Return those of two processes, or of a process and what it was before, in one."""
        mine, theirs = self.load, other.load
        load = Load(mine.requests + theirs.requests, mine.rows + theirs.rows, mine.size + theirs.size)
        found = Numbers(self.model, self.version, self.engine, load)
        found.requests = dict(Counter(self.requests) + Counter(other.requests))
        for protocol in self.total | other.total:
            found.total[protocol] = self.total.get(protocol, Histogram()).plus(other.total.get(protocol, Histogram()))
        for name in ("queue", "inference", "batch"):
            setattr(found, name, getattr(self, name).plus(getattr(other, name)))
        return found

    def of_the_past(self) -> Numbers:
        """Return what stays of them when their process is gone: nothing waits in it."""
        found = Numbers(self.model, self.version, self.engine, Load()).plus(self)
        found.load = Load()
        return found

    def to_json(self) -> dict[str, Any]:
        """Return them as `from_json` reads them."""
        histograms = {"queue": self.queue, "inference": self.inference, "batch": self.batch}
        return {
            "model": self.model,
            "version": self.version,
            "engine": self.engine,
            "load": [self.load.requests, self.load.rows, self.load.size],
            "requests": [[protocol, code, count] for (protocol, code), count in list(self.requests.items())],
            "total": {protocol: [each.counts, each.total] for protocol, each in list(self.total.items())},
            **{name: [each.counts, each.total] for name, each in histograms.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Numbers:
        """Read what another process counted."""
        found = cls(value["model"], value["version"], value["engine"], Load(*value["load"]))
        found.requests = {(protocol, code): count for protocol, code, count in value["requests"]}
        found.total = {protocol: Histogram(SECONDS, *each) for protocol, each in value["total"].items()}
        found.queue, found.inference = Histogram(SECONDS, *value["queue"]), Histogram(SECONDS, *value["inference"])
        found.batch = Histogram(ROWS, *value["batch"])
        return found

    def requests_of_all(self) -> Histogram:
        """Return the requests of all protocols."""
        return functools.reduce(Histogram.plus, list(self.total.values()), Histogram())


class Exposition(Collector):
    """The numbers of all models at /metrics. `models` gives those that are loaded; `strangers` found none of them.

    `whole` adds what other processes of the server counted, `pids` are all of its processes.
    """

    def __init__(self, models: Callable[[], list[Numbers]]) -> None:
        self.models, self.strangers = models, Numbers("", "", "", Load())
        self.whole: Callable[[Numbers], Numbers] = lambda numbers: numbers
        self.pids: Callable[[], list[int]] = lambda: [os.getpid()]
        self._seconds: dict[int, float] = {}  # of CPU, by process, as last seen: also of those that have ended

    def register(self) -> None:
        """Show the numbers; KServe's own of the same name never count what is answered here."""
        for name in (kserve_metrics.PREDICT_HIST_TIME, PROCESS_COLLECTOR):
            with contextlib.suppress(KeyError):
                REGISTRY.unregister(name)
        REGISTRY.register(self)

    def describe(self) -> list[Any]:
        return []  # registering asks for no numbers

    def collect(self) -> Iterator[Any]:
        models = _by_name(self.whole(numbers) for numbers in by_version(self.models()))
        requests = CounterMetricFamily("boatyard_requests", "Requests by code", labels=["model", "protocol", "code"])
        for numbers in (*models, self.whole(self.strangers)):
            for (protocol, code), count in list(numbers.requests.items()):
                requests.add_metric([numbers.model, protocol, str(code)], count)
        yield requests
        total = HistogramMetricFamily(
            "boatyard_request_duration_seconds", "From a whole request to its answer", labels=["model", "protocol"]
        )
        for numbers in models:
            for protocol, histogram in list(numbers.total.items()):
                total.add_metric([numbers.model, protocol], histogram.buckets(), histogram.total)
        yield total
        yield from (_histogram(models, *each) for each in HISTOGRAMS)
        yield from (_gauge(models, *each) for each in GAUGES)
        rows = CounterMetricFamily("boatyard_rows", "Rows answered", labels=["model"])
        info = GaugeMetricFamily("boatyard_model_info", "Always 1", labels=["model", "version", "engine"])
        for numbers in models:
            rows.add_metric([numbers.model], numbers.batch.total)
            info.add_metric([numbers.model, numbers.version, numbers.engine], 1)
        yield from (rows, info)
        yield from _processes(self.pids(), self._seconds)


HISTOGRAMS: tuple[tuple[str, str, str, Callable[[Numbers], Histogram]], ...] = (
    ("boatyard_queue_duration_seconds", "From queued to taken by the model", "model", lambda n: n.queue),
    ("boatyard_inference_duration_seconds", "The graph's time, a batch", "model", lambda n: n.inference),
    ("boatyard_batch_rows", "Rows of a batch", "model", lambda n: n.batch),
    ("request_predict_seconds", "predict request latency", "model_name", Numbers.requests_of_all),  # KServe's
)
GAUGES: tuple[tuple[str, str, Callable[[Load], int]], ...] = (
    ("boatyard_queue_requests", "Requests that wait or are worked on", lambda load: load.requests),
    ("boatyard_queue_rows", "Their rows", lambda load: load.rows),
    ("boatyard_queue_bytes", "Their bytes", lambda load: load.size),
)


def by_version(counted: Iterable[Numbers]) -> list[Numbers]:
    """Add up what a version counted each time that it was loaded: `whole` adds other processes' to each once."""
    found: dict[tuple[str, str], Numbers] = {}
    for numbers in counted:
        former = found.pop((numbers.model, numbers.version), None)
        found[numbers.model, numbers.version] = numbers.plus(former) if former else numbers
    return list(found.values())


def _by_name(counted: Iterable[Numbers]) -> list[Numbers]:
    """Add up the versions of a name, under the version that comes last."""
    found: dict[str, Numbers] = {}
    for numbers in counted:
        found[numbers.model] = numbers.plus(found[numbers.model]) if numbers.model in found else numbers
    return list(found.values())


def _processes(pids: list[int], seconds: dict[int, float]) -> Iterator[Any]:
    """Yield the process's own numbers, as Prometheus's client names them, of all processes together.

    What is counted in `seconds` never falls, whichever process ends.
    """
    yield GaugeMetricFamily("boatyard_processes", "Processes that answer", value=len(pids))
    found: dict[str, Any] = {}
    for pid in pids:
        for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            if family.name == "process_cpu_seconds":
                seconds[pid] = family.samples[0].value
            known = found.setdefault(family.name, family)
            if known is not family and family.name not in OF_THE_FIRST:
                (mine,), (theirs,) = known.samples, family.samples
                known.samples = [mine._replace(value=mine.value + theirs.value)]
    if cpu := found.get("process_cpu_seconds"):
        cpu.samples = [cpu.samples[0]._replace(value=sum(list(seconds.values())))]
    yield from found.values()


def _histogram(
    models: list[Numbers], name: str, text: str, label: str, of: Callable[[Numbers], Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=[label])
    for numbers in models:
        family.add_metric([numbers.model], of(numbers).buckets(), of(numbers).total)
    return family


def _gauge(models: list[Numbers], name: str, text: str, of: Callable[[Load], int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["model"])
    for numbers in models:
        family.add_metric([numbers.model], of(numbers.load))
    return family
