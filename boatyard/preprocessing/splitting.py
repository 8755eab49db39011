"""Which rows are kept and where they go: duplicates, strata, groups; by hashes on disk, in bounded memory.

A row's place depends on its content and the seed alone, so equal rows can never fall into two splits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from boatyard.datasets import SPLITS
from boatyard.errors import DataError
from boatyard.schema import Array

CODES = {"train": 0, "validation": 1, "test": 2}
OPEN = 255  # a row whose split is still to be decided
DROPPED = 254
DUPLICATE, ALSO_TEST = 253, 252
PART = 2_000_000  # rows of a partition that is sorted in memory
MIX = np.uint64(0x9E3779B97F4A7C15)


def mix(values: Array) -> Array:
    """Scatter uint64 [N] evenly (the finaliser of SplitMix64: Steele, Lea, Flood, 2014)."""
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) + MIX
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


@dataclass
class Ledger:
    """What is remembered of every row: on disk, 8 bytes of content, 4 of label, 8 of group; in memory, 1 of decision."""

    folder: Path
    grouped: bool

    def __post_init__(self) -> None:
        names = ("content", "label", "given", *(("group",) if self.grouped else ()))
        self._files = {name: open(self.folder / name, "wb") for name in names}
        self.count = 0

    def add(self, content: Array, label: Array, given: Array, group: Array | None) -> None:
        """Write down a block's rows."""
        self._files["content"].write(content.astype("<u8").tobytes())
        self._files["label"].write(label.astype("<i4").tobytes())
        self._files["given"].write(given.astype("u1").tobytes())
        if group is not None:
            self._files["group"].write(group.astype("<u8").tobytes())
        self.count += len(content)

    def close(self) -> None:
        """Nothing more is written."""
        for file in self._files.values():
            file.close()

    def read(self, name: str, start: int = 0, count: int = -1) -> Array:
        """Read a column of the ledger, or some rows of it."""
        dtype = {"content": "<u8", "label": "<i4", "given": "u1", "group": "<u8"}[name]
        size = np.dtype(dtype).itemsize
        return np.fromfile(self.folder / name, dtype, count, offset=start * size)

    def parts(self, *names: str) -> Iterator[tuple[int, tuple[Array, ...]]]:
        """Read columns side by side, some millions of rows at a time."""
        for start in range(0, self.count, PART):
            yield start, tuple(self.read(name, start, PART) for name in names)


@dataclass(frozen=True)
class Decision:
    """Every row's split code, or why it was dropped, uint8 [N]; and how many had labels that contradict each other."""

    codes: Array
    duplicates: int
    also_test: int
    conflicts: int


def decide(
    ledger: Ledger,
    shares: Mapping[str, float],
    seed: int,
    duplicates: Literal["drop", "keep", "refuse"],
    has_test: bool,
) -> Decision:
    """Decide for every row: dropped as a duplicate, or train, validation or test, by strata of labels."""
    codes = ledger.read("given")
    leaders, found = _duplicates(ledger, codes, duplicates)
    if ledger.grouped:
        _by_group(ledger, codes, shares, seed, has_test)
    else:
        _by_content(ledger, codes, shares, seed, has_test, leaders)
    return Decision(codes, *found)


def _duplicates(
    ledger: Ledger, codes: Array, policy: Literal["drop", "keep", "refuse"]
) -> tuple[dict[int, int], tuple[int, int, int]]:
    """Mark rows equal to an earlier one; return the label that leads contradicting rows, by content, and the counts.

    Rows are spread over as many partitions as keep each below some millions, then sorted one partition at a time.
    """
    partitions = max(1, -(-ledger.count // PART))
    leaders: dict[int, int] = {}
    dropped = also = conflicts = 0
    for number in range(partitions):
        content, label, rows = _partition(ledger, number, partitions)
        order = np.lexsort((rows, content))
        content, label, rows = content[order], label[order], rows[order]
        first = np.r_[True, content[1:] != content[:-1]]
        if first.all():
            continue
        start = np.maximum.accumulate(np.where(first, np.arange(len(content)), 0))
        contradicting = label != label[start]
        conflicts += int(contradicting.sum())
        leaders.update(zip(content[start[contradicting]].tolist(), label[start[contradicting]].tolist(), strict=True))
        tested = _in_test(codes, content, rows, start)
        copies = tested & (codes[rows] == OPEN)
        codes[rows[copies]] = ALSO_TEST
        also += int(copies.sum())
        if policy == "keep":
            continue
        order = np.lexsort((rows, label, content))  # equal rows side by side, the first of each pair stays
        content, label, rows = content[order], label[order], rows[order]
        again = np.r_[False, (content[1:] == content[:-1]) & (label[1:] == label[:-1])] & (codes[rows] == OPEN)
        if policy == "refuse" and again.any():
            raise DataError(
                f"row {int(rows[again][0])} is equal to an earlier one, as are {int(again.sum()) - 1} more; "
                "remove them, or preprocess.duplicates: drop"
            )
        codes[rows[again]] = DUPLICATE
        dropped += int(again.sum())
    return leaders, (dropped, also, conflicts)


def _partition(ledger: Ledger, number: int, partitions: int) -> tuple[Array, Array, Array]:
    """Return content, label and row of the rows whose content falls into a partition."""
    found = []
    for start, (content, label) in ledger.parts("content", "label"):
        mine = np.flatnonzero(content % np.uint64(partitions) == number)
        found.append((content[mine], label[mine], mine + start))
    content, label, rows = (np.concatenate(part) for part in zip(*found, strict=True))
    return content, label, rows


def _in_test(codes: Array, content: Array, rows: Array, start: Array) -> Array:
    """Say of sorted rows whether one of equal content stands in a test set that the source brought."""
    test = np.flatnonzero(codes[rows] == CODES["test"])
    held = np.zeros(len(rows), bool)
    held[start[test]] = True
    return held[start]


def _cuts(shares: Mapping[str, float], has_test: bool) -> tuple[float, float]:
    """Return the shares of train, and of train and validation, of what is to be divided."""
    if has_test:
        train = shares["train"] / (shares["train"] + shares["validation"])
        return train, 1.0
    return shares["train"], shares["train"] + shares["validation"]


def _by_content(
    ledger: Ledger, codes: Array, shares: Mapping[str, float], seed: int, has_test: bool, leaders: Mapping[int, int]
) -> None:
    """Divide each label's rows by the rank of their scattered content: exact shares, equal rows together."""
    led = np.array(sorted(leaders), np.uint64)
    leading = np.array([leaders[int(content)] for content in led], np.int32)

    def strata() -> Iterator[tuple[int, Array, Array]]:
        for start, (content, label) in ledger.parts("content", "label"):
            if len(led):
                at = np.minimum(np.searchsorted(led, content), len(led) - 1)
                label = np.where(led[at] == content, leading[at], label)
            yield start, mix(content ^ mix(np.array([seed], np.uint64))), label

    bounds = _bounds(strata, codes, _cuts(shares, has_test))
    for start, place, label in strata():
        part = codes[start : start + len(place)]
        free = part == OPEN
        low, high = (bound[label] for bound in bounds)
        part[free & (place < low)] = CODES["train"]
        part[free & (place >= low) & (place < high)] = CODES["validation"]
        part[free & (place >= high)] = CODES["test"]
        if has_test:
            part[free & (place >= high)] = CODES["validation"]


def _bounds(strata: object, codes: Array, cuts: tuple[float, float]) -> tuple[Array, Array]:
    """Return for each label the places that cut its free rows into the shares, uint64 [labels] each.

    Two looks at the rows: how many fall into each of 65536 drawers, then the exact rank within the drawers that are cut.
    """
    assert callable(strata)
    labels = 1 + max((int(label.max()) for _, _, label in strata() if len(label)), default=0)
    drawers = np.zeros((labels, 1 << 16), np.int64)
    for start, place, label in strata():
        free = codes[start : start + len(place)] == OPEN
        flat = label[free].astype(np.int64) * (1 << 16) + (place[free] >> np.uint64(48)).astype(np.int64)
        drawers += np.bincount(flat, minlength=labels << 16).reshape(labels, 1 << 16)
    totals = drawers.sum(1)
    ranks = _ranks(totals, cuts)
    below = np.cumsum(drawers, 1)
    cut_drawers = [np.array([np.searchsorted(below[k], r[k], "right") for k in range(labels)]) for r in ranks]
    bounds = []
    for rank, drawer in zip(ranks, cut_drawers, strict=True):
        inside: list[list[Array]] = [[] for _ in range(labels)]
        for start, place, label in strata():
            free = codes[start : start + len(place)] == OPEN
            mine = free & ((place >> np.uint64(48)).astype(np.int64) == drawer[label])
            for k in np.unique(label[mine]):
                inside[k].append(place[mine & (label == k)])
        bound = np.full(labels, np.iinfo(np.uint64).max, np.uint64)
        for k in range(labels):
            if drawer[k] < 1 << 16 and inside[k]:
                before = int(below[k, drawer[k] - 1]) if drawer[k] else 0
                bound[k] = np.sort(np.concatenate(inside[k]))[rank[k] - before]
        bounds.append(bound)
    return bounds[0], bounds[1]


def _ranks(totals: Array, cuts: tuple[float, float]) -> tuple[Array, Array]:
    """Return how many of each label's rows stand before each cut; from three rows on, no split is left empty."""
    first, second = (np.rint(totals * cut).astype(np.int64) for cut in cuts)
    if cuts[1] >= 1:
        return np.where(totals >= 2, np.clip(first, 1, np.maximum(totals - 1, 1)), first), totals
    enough = totals >= 3
    first = np.where(enough, np.clip(first, 1, np.maximum(totals - 2, 1)), first)
    return first, np.where(enough, np.clip(second, first + 1, np.maximum(totals - 1, first + 1)), second)


def _by_group(ledger: Ledger, codes: Array, shares: Mapping[str, float], seed: int, has_test: bool) -> None:
    """Give whole groups to splits, the largest first, each to where its labels are most wanted."""
    group, label = ledger.read("group"), ledger.read("label").astype(np.int64)
    free = np.flatnonzero(codes == OPEN)
    names, member = np.unique(group[free], return_inverse=True)
    labels = int(label.max()) + 1 if len(label) else 1
    if len(names) * labels > 50_000_000:
        raise DataError(f"{len(names)} groups of {labels} labels are too many to balance; use fewer groups")
    counts = np.bincount(member * labels + label[free], minlength=len(names) * labels).reshape(len(names), labels)
    first, second = _cuts(shares, has_test)
    wanted = np.outer([first, second - first, 1 - second], counts.sum(0)).astype(float)
    usable = [k for k in range(3) if wanted[k].sum() > 0]
    if len(names) < len(usable):
        raise DataError(f"{len(names)} groups cannot fill {len(usable)} splits; wanted at least one group for each")
    order = np.lexsort((mix(names ^ mix(np.array([seed], np.uint64))), -counts.sum(1)))
    chosen = np.zeros(len(names), np.uint8)
    left, scale = wanted.copy(), np.maximum(counts.sum(0), 1)
    filled = np.zeros(3, bool)
    for position, one in enumerate(order):
        empty = [k for k in usable if not filled[k]]
        choices = empty if len(order) - position <= len(empty) else usable
        gain = [((left[k] / scale) * counts[one]).sum() / max(wanted[k].sum(), 1e-9) for k in choices]
        best = choices[int(np.argmax(gain))]
        chosen[one], filled[best] = best, True
        left[best] -= counts[one]
    codes[free] = chosen[member]


def check_splits(codes: Array, labels: Array, names: tuple[str, ...]) -> None:
    """Raise DataError when a split is empty, or a label of validation or test was never seen in training."""
    for split in SPLITS:
        if not (codes == CODES[split]).any():
            raise DataError(f"the {split} split is empty: {int((codes <= 2).sum())} rows are too few for it")
    trained = np.unique(labels[codes == CODES["train"]])
    for split in ("validation", "test"):
        rows = np.flatnonzero((codes == CODES[split]) & ~np.isin(labels, trained))
        if len(rows):
            label = names[int(labels[rows[0]])]
            raise DataError(
                f"the label {label!r} of row {int(rows[0])} is in the {split} split and in no training row; "
                "bring more rows of it, or remove it"
            )
