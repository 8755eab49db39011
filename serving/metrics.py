"""What the server counts, in Prometheus form. Counting is adding to a list; a scrape reads what is there."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from kserve import metrics as kserve_metrics
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


class Histogram:
    """Counts by bucket; `bounds` are upper ones, as Prometheus has them. One thread at a time observes."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulative counts by upper bound, the last is +Inf."""
        names, below = [*(f"{bound:g}" for bound in self.bounds), "+Inf"], 0
        found = []
        for name, count in zip(names, tuple(self.counts), strict=True):
            below += count
            found.append((name, float(below)))
        return found


class Metrics(Collector):
    """One model's numbers. `load` is read at a scrape: requests, rows and bytes that wait."""

    def __init__(self, model: str, version: str, engine: str, load: Any) -> None:
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

    def register(self) -> None:
        """Show the numbers at /metrics; KServe's own of this name never count what is answered here."""
        if kserve_metrics.PREDICT_HIST_TIME in REGISTRY._collector_to_names:
            REGISTRY.unregister(kserve_metrics.PREDICT_HIST_TIME)
        REGISTRY.register(self)

    def unregister(self) -> None:
        """Take the numbers away."""
        REGISTRY.unregister(self)

    def describe(self) -> list[Any]:
        return []  # registering asks for no numbers

    def collect(self) -> Iterator[Any]:
        yield self._requests()
        yield self._histograms(
            "boatyard_request_duration_seconds", "From the whole request to its answer", "protocol", self.total
        )
        for name, text, histogram in (
            ("boatyard_queue_duration_seconds", "From queued to taken by the model's thread", self.queue),
            ("boatyard_inference_duration_seconds", "The graph's time, a batch", self.inference),
            ("boatyard_batch_rows", "Rows of a batch", self.batch),
        ):
            yield self._histograms(name, text, None, {"": histogram})
        predict = HistogramMetricFamily("request_predict_seconds", "predict request latency", labels=["model_name"])
        predict.add_metric([self.model], self.inference.buckets(), self.inference.total)
        yield predict
        for name, text, value in (
            ("boatyard_queue_requests", "Requests that wait or are worked on", self.load.requests),
            ("boatyard_queue_rows", "Their rows", self.load.rows),
            ("boatyard_queue_bytes", "Their bytes, decoded", self.load.size),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            gauge.add_metric([self.model], value)
            yield gauge
        rows = CounterMetricFamily("boatyard_rows", "Rows answered", labels=["model"])
        rows.add_metric([self.model], self.batch.total)
        yield rows
        info = GaugeMetricFamily("boatyard_model_info", "Always 1", labels=["model", "version", "engine"])
        info.add_metric([self.model, self.version, self.engine], 1)
        yield info

    def _requests(self) -> CounterMetricFamily:
        family = CounterMetricFamily(
            "boatyard_requests", "Requests by protocol and code", labels=["model", "protocol", "code"]
        )
        for (protocol, code), count in list(self.requests.items()):
            family.add_metric([self.model, protocol, str(code)], count)
        return family

    def _histograms(
        self, name: str, text: str, label: str | None, histograms: dict[str, Histogram]
    ) -> HistogramMetricFamily:
        family = HistogramMetricFamily(name, text, labels=["model", *([label] if label else [])])
        for value, histogram in list(histograms.items()):
            family.add_metric([self.model, *([value] if label else [])], histogram.buckets(), histogram.total)
        return family
