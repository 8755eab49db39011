"""Statistics of the training rows, merged in the rows' order: they parametrise the features in the graph.

Mean and deviation are merged by the formula of Chan, Golub and LeVeque (1979); for uint8 images they are exact sums.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boatyard.data.schema import Array

SAMPLE = 200_000  # values of a column that its median is taken of, at most
SAMPLES = 8_000_000  # values of all columns together: 32 MB
PIECE = 1 << 20  # pixels that are squared at once
MOMENTS = ("count", "missing", "mean", "squares", "low", "high")  # float64 each, where they are packed


class Statistic(ABC):
    """What is fitted of a column, block by block. Parts pack theirs block by block: float sums depend on the order."""

    @abstractmethod
    def merge(self, more: Self) -> None:
        """Take in the statistics of further rows."""

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """Return them as JSON values: what features are made of."""

    @classmethod
    @abstractmethod
    def pack(cls, blocks: Sequence[Self], arrays: dict[str, Array], key: str) -> dict[str, Any]:
        """Return what JSON holds of blocks' statistics; floats go to `arrays`, below `key`; what is exact is merged."""

    @classmethod
    @abstractmethod
    def unpack(cls, entry: Mapping[str, Any], arrays: Mapping[str, Array], key: str) -> list[Self]:
        """Return what `pack` was given, in the order to merge it in."""


@dataclass
class Moments(Statistic):
    """Count, mean, squared deviations and extremes of a column, and the values that its median is taken of."""

    count: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    kept: list[Array] = field(default_factory=list)

    @classmethod
    def of(cls, values: Array, sampled: Array | None = None) -> Moments:
        """Take float values [N], NaN for missing; `sampled`, bool [N], says which the median is taken of."""
        there = ~np.isnan(values)
        here = values[there].astype(np.float64)
        kept = [] if sampled is None else [values[there & sampled].astype(np.float32)]
        if not len(here):
            return cls(missing=len(values), kept=kept)
        mean = float(here.mean())
        squares = float(np.square(here - mean).sum())
        return cls(len(here), len(values) - len(here), mean, squares, float(here.min()), float(here.max()), kept)

    def merge(self, more: Moments) -> None:
        """Take in the moments of further rows."""
        self.missing += more.missing
        self.kept += more.kept
        if not more.count:
            return
        delta, total = more.mean - self.mean, self.count + more.count
        self.squares += more.squares + delta * delta * self.count * more.count / total
        self.mean += delta * more.count / total
        self.count = total
        self.low, self.high = min(self.low, more.low), max(self.high, more.high)

    def values(self) -> dict[str, Any]:
        """Return them as JSON values: deviation over N, not N - 1; zeros when there is no value."""
        if not self.count:
            return {**dict.fromkeys(("mean", "std", "min", "max", "median"), 0.0), "missing": self.missing, "count": 0}
        kept = np.concatenate(self.kept) if self.kept else np.zeros(0)
        return {
            "mean": self.mean,
            "std": math.sqrt(self.squares / self.count),
            "min": self.low,
            "max": self.high,
            "median": float(np.median(kept)) if len(kept) else self.mean,
            "missing": self.missing,
            "count": self.count,
        }

    @classmethod
    def pack(cls, blocks: Sequence[Moments], arrays: dict[str, Array], key: str) -> dict[str, Any]:
        """Pack block by block; the values for the median are joined."""
        rows = [[getattr(block, name) for name in MOMENTS] for block in blocks]
        arrays[f"{key}.moments"] = np.array(rows, np.float64)
        kept = [part for block in blocks for part in block.kept]
        if kept:
            arrays[f"{key}.kept"] = np.concatenate(kept)
        return {}

    @classmethod
    def unpack(cls, entry: Mapping[str, Any], arrays: Mapping[str, Array], key: str) -> list[Moments]:
        """Unpack block by block; the first has all the values for the median."""
        blocks = [cls(int(n), int(missing), *rest) for n, missing, *rest in arrays[f"{key}.moments"].tolist()]
        blocks[0].kept = [arrays[f"{key}.kept"]] if f"{key}.kept" in arrays else []
        return blocks


@dataclass
class Pixels(Statistic):
    """Moments of images by channel: exact sums for uint8, merged moments for float32."""

    count: int
    sums: list[int]
    squares: list[int]
    low: float
    high: float
    moments: list[Moments]

    @classmethod
    def of(cls, images: Array) -> Pixels:
        """Take images [N, H, W] or [N, H, W, C] of one row or more."""
        flat = images.reshape(-1, images.shape[3] if images.ndim == 4 else 1)
        channels = [flat[:, k] for k in range(flat.shape[1])]
        low, high = float(flat.min()), float(flat.max())
        if images.dtype != np.uint8:
            return cls(len(flat), [], [], low, high, [Moments.of(channel) for channel in channels])
        sums = [int(channel.sum(dtype=np.uint64)) for channel in channels]
        return cls(len(flat), sums, [_squares(channel) for channel in channels], low, high, [])

    def merge(self, more: Pixels) -> None:
        """Take in further images."""
        self.count += more.count
        self.sums = [a + b for a, b in zip(self.sums, more.sums, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, more.squares, strict=True)]
        self.low, self.high = min(self.low, more.low), max(self.high, more.high)
        for mine, theirs in zip(self.moments, more.moments, strict=True):
            mine.merge(theirs)

    def values(self) -> dict[str, Any]:
        """Return mean and deviation by channel, and the extremes of all, in raw units."""
        if self.moments:
            found = [moments.values() for moments in self.moments]
            mean, std = [v["mean"] for v in found], [v["std"] for v in found]
        else:
            mean = [total / self.count for total in self.sums]
            inside = [self.count * q - s * s for s, q in zip(self.sums, self.squares, strict=True)]  # whole numbers
            std = [math.sqrt(value) / self.count for value in inside]
        return {"mean": mean, "std": std, "min": self.low, "max": self.high}

    @classmethod
    def pack(cls, blocks: Sequence[Pixels], arrays: dict[str, Array], key: str) -> dict[str, Any]:
        """Pack floats block by block; whole numbers are merged."""
        channels = len(blocks[0].moments)
        if not channels:
            return {name: value for name, value in vars(merged(blocks)).items() if name != "moments"}
        arrays[f"{key}.pixels"] = np.array([[one.count, one.low, one.high] for one in blocks], np.float64)
        for channel in range(channels):
            Moments.pack([one.moments[channel] for one in blocks], arrays, f"{key}.{channel}")
        return {"channels": channels}

    @classmethod
    def unpack(cls, entry: Mapping[str, Any], arrays: Mapping[str, Array], key: str) -> list[Pixels]:
        """Unpack what `pack` made."""
        if "channels" not in entry:
            return [cls(**{name: entry[name] for name in ("count", "sums", "squares", "low", "high")}, moments=[])]
        channels = [Moments.unpack({}, arrays, f"{key}.{channel}") for channel in range(entry["channels"])]
        rows = arrays[f"{key}.pixels"].tolist()
        return [
            cls(int(n), [], [], low, high, list(moments))
            for (n, low, high), *moments in zip(rows, *channels, strict=True)
        ]


@dataclass
class Counts(Statistic):
    """How often each value of a category was seen."""

    seen: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, values: pa.Array) -> Counts:
        """Take a column of text, "" for missing."""
        return cls(Counter({e["values"].as_py(): e["counts"].as_py() for e in pc.value_counts(values)}))

    def merge(self, more: Counts) -> None:
        """Take in the counts of further rows."""
        self.seen.update(more.seen)

    def values(self) -> dict[str, Any]:
        """Return the counts, sorted by value."""
        return {
            "counts": {text: self.seen[text] for text in sorted(self.seen) if text},
            "missing": self.seen.get("", 0),
        }

    @classmethod
    def pack(cls, blocks: Sequence[Counts], arrays: dict[str, Array], key: str) -> dict[str, Any]:
        """Pack the sums."""
        return {"seen": dict(merged(blocks).seen)}

    @classmethod
    def unpack(cls, entry: Mapping[str, Any], arrays: Mapping[str, Array], key: str) -> list[Counts]:
        """Unpack the sums."""
        return [cls(Counter(entry["seen"]))]


@dataclass
class Presence(Statistic):
    """How many values are there, and how many are missing: enough for features that need no fitting."""

    count: int = 0
    missing: int = 0

    @classmethod
    def of(cls, missing: Array) -> Presence:
        """Take which values are missing, bool [N]."""
        gone = int(np.count_nonzero(missing))
        return cls(len(missing) - gone, gone)

    def merge(self, more: Presence) -> None:
        """Take in further rows."""
        self.count += more.count
        self.missing += more.missing

    def values(self) -> dict[str, Any]:
        """Return both counts."""
        return {"missing": self.missing, "count": self.count}

    @classmethod
    def pack(cls, blocks: Sequence[Presence], arrays: dict[str, Array], key: str) -> dict[str, Any]:
        """Pack the sums."""
        return vars(merged(blocks))

    @classmethod
    def unpack(cls, entry: Mapping[str, Any], arrays: Mapping[str, Array], key: str) -> list[Presence]:
        """Unpack the sums."""
        return [cls(entry["count"], entry["missing"])]


S = TypeVar("S", bound=Statistic)


def merged(blocks: Sequence[S]) -> S:
    """Return the statistics of all blocks; those of the blocks stay as they are."""
    first, *rest = blocks
    total = deepcopy(first)
    for block in rest:
        total.merge(block)
    return total


def merge(fitted: dict[str, Statistic], more: Mapping[str, Statistic]) -> None:
    """Take in the statistics of a block, field by field."""
    for name, statistic in more.items():
        if name in fitted:
            fitted[name].merge(statistic)
        else:
            fitted[name] = statistic


def sample_every(training_rows: int, columns: int) -> int:
    """Say of how many training rows one is sampled for medians: 1 where 200,000 rows or 8 million values suffice.

    The median of a sample of n rows has, by the binomial, a rank within 1/√n of the half in 95 of 100 cases.
    """
    return max(1, -(-training_rows // min(SAMPLE, max(SAMPLES // max(columns, 1), 1000))))


def _squares(values: Array) -> int:
    """Return the sum of squares of uint8 values, exact."""
    pieces = (values[start : start + PIECE] for start in range(0, len(values), PIECE))
    return sum(int(np.square(piece, dtype=np.uint16).sum(dtype=np.uint64)) for piece in pieces)
