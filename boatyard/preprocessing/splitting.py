"""Which rows are kept and where they go: duplicates, strata, groups; by hashes on disk, in bounded memory.

A row's place depends on its content and the seed, so equal rows can never fall into two splits. Rows count as equal
when 64 bits of hash are: of 40 million different rows two are taken for equal with a chance of 1 in 20,000. In memory
are 1 byte a row and what a partition of half a million rows needs; with groups 8 bytes a group and label.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from boatyard.data.datasets import SPLITS, Split
from boatyard.data.row_hashes import mix
from boatyard.data.schema import Array
from boatyard.errors import DataError

CODES: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}
OPEN = 255  # a row whose split is still to be decided
DROPPED = 254  # by a policy of cleaning
DUPLICATE = 253
HELD = 252  # equal to a row of the test or validation set that the source brought
PART = 500_000  # rows that are sorted in memory at once
CELLS = 2_000_000  # numbers in a table of counts: 16 MB
MANY_GROUPS = 20_000  # of more, chance alone balances the labels
TYPES = {"content": "<u8", "label": "<i4", "given": "u1", "group": "<u8"}
NOTED = np.dtype([("content", "<u8"), ("label", "<i4"), ("row", "<i8")])
Strata = Callable[[], Iterator[tuple[int, Array, Array]]]


class RowIndex:
    """The index of all rows, on disk: 8 bytes of content, 4 of label, 1 of split given, 8 of group."""

    def __init__(self, folder: Path, grouped: bool) -> None:
        self.folder, self.grouped, self.count = folder, grouped, 0
        self._names = ("content", "label", "given", *(("group",) if grouped else ()))
        self._stack = ExitStack()
        self._files = {name: self._stack.enter_context((folder / name).open("wb")) for name in self._names}

    def __enter__(self) -> RowIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()  # nothing more is written

    def add(self, content: Array, label: Array, given: Array, group: Array | None) -> None:
        """Write down a block's rows."""
        for name, values in zip(self._names, (content, label, given, group), strict=False):
            self._files[name].write(np.ascontiguousarray(values, TYPES[name]).tobytes())
        self.count += len(content)

    def take(self, folder: Path) -> None:
        """Add what another index of the same columns wrote in its folder."""
        for name in self._names:
            with (folder / name).open("rb") as file:
                shutil.copyfileobj(file, self._files[name], 1 << 20)
        self.count += (folder / "given").stat().st_size

    def read(self, name: str, start: int = 0, count: int = -1) -> Array:
        """Read a column, or some rows of it."""
        dtype = np.dtype(TYPES[name])
        return np.fromfile(self.folder / name, dtype, count, offset=start * dtype.itemsize)

    def parts(self, *names: str) -> Iterator[tuple[int, tuple[Array, ...]]]:
        """Read columns side by side, half a million rows at a time."""
        for start in range(0, self.count, PART):
            yield start, tuple(self.read(name, start, PART) for name in names)


@dataclass(frozen=True)
class Decision:
    """Every row's split code, or why it was dropped, uint8 [N], and how many rows of which kind there are.

    `conflicts`: rows with the features of an earlier one and another label; `coincident`: rows that are equal to an
    earlier one and stay, since so many cannot be copies; `small`: labels of fewer rows than splits.
    """

    codes: Array
    duplicates: int
    held: int
    conflicts: int
    coincident: int = 0
    small: tuple[int, ...] = ()

    def rows(self, split: Split) -> int:
        """Return how many rows a split has."""
        return int(np.count_nonzero(self.codes == CODES[split]))


@dataclass
class _Equal:
    """What was found among rows of equal content."""

    duplicates: int = 0
    held: int = 0
    conflicts: int = 0
    tied: int = 0  # rows that stay and are equal to an earlier one
    first_again: int | None = None
    content: list[Array] = field(default_factory=list)  # of contradicting rows …
    label: list[Array] = field(default_factory=list)  # … and the label of the first of them, whose stratum all join
    edges: list[Array] = field(default_factory=list)  # pairs of groups that share a row


def split(
    index: RowIndex,
    shares: Mapping[Split, float],
    seed: int,
    duplicates: Literal["auto", "drop", "keep", "refuse"],
    given: frozenset[Split],
) -> Decision:
    """Decide for every row: dropped as a duplicate, or train, validation or test, by strata of labels.

    Splits that the source brought (`given`) stay as they are; copies of their rows elsewhere are dropped whatever the
    policy. Under `auto` equal rows are copies and dropped, unless more than a fifth of the rows would go: few columns
    of few values make rows equal by coincidence, and they stay. Raises DataError when duplicates are refused.
    """
    codes = index.read("given")
    divided = int(np.count_nonzero(codes == OPEN))
    equal = _equal_rows(index, codes, keep=duplicates == "keep")
    coincident = equal.duplicates if duplicates == "auto" and 5 * equal.duplicates > divided else 0
    if coincident:
        codes = index.read("given")
        equal = _equal_rows(index, codes, keep=True)
    if duplicates == "refuse" and equal.first_again is not None:
        raise DataError(
            f"row {equal.first_again} (from 0) is equal to an earlier one, as are {equal.duplicates - 1} more",
            fix="remove them, or say preprocess.duplicates: drop",
        )
    cuts = _cuts({split: share for split, share in shares.items() if split not in given})
    if index.grouped:
        small = _by_group(index, codes, cuts, seed, "group", equal.edges)
    elif 5 * equal.tied > np.count_nonzero(codes == OPEN):
        small = _by_group(index, codes, cuts, seed, "content", [])
    else:
        small = _by_content(index, codes, cuts, seed, equal)
    return Decision(codes, equal.duplicates, equal.held, equal.conflicts, coincident, small)


def _equal_rows(index: RowIndex, codes: Array, keep: bool) -> _Equal:
    """Mark rows equal to an earlier one, or to one of a given split, in `codes`."""
    equal = _Equal()
    groups = np.memmap(index.folder / "group", "<u8", "r") if index.grouped and index.count else None
    for content, label, rows in _partitions(index, codes):
        order = np.lexsort((rows, content))
        content, label, rows = content[order], label[order], rows[order]
        again = np.r_[False, content[1:] == content[:-1]]
        if not again.any():
            continue
        several = again | np.r_[again[1:], False]
        content, label, rows = content[several], label[several], rows[several]
        _mark(equal, codes, content, label, rows, keep)
        if groups is not None:
            _join(equal, groups, codes, content, rows)
    return equal


def _partitions(index: RowIndex, codes: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Give content, label and number of the rows still in, equal contents together, some 500,000 rows at a time."""
    count = min(-(-index.count // PART), 256)
    with ExitStack() as stack:
        files = [stack.enter_context(open(index.folder / f"part-{k}", "wb")) for k in range(count)]
        for start, (content, label) in index.parts("content", "label"):
            rows = np.flatnonzero(codes[start : start + len(content)] != DROPPED)
            noted = np.empty(len(rows), NOTED)
            noted["content"], noted["label"], noted["row"] = content[rows], label[rows], rows + start
            which = (mix(noted["content"]) % np.uint64(count)).astype(np.uint8)
            order = np.argsort(which, kind="stable")
            ends = np.cumsum(np.bincount(which, minlength=count))
            for file, some in zip(files, np.split(noted[order], ends[:-1]), strict=True):
                file.write(some.tobytes())
    for k in range(count):
        noted = np.fromfile(index.folder / f"part-{k}", NOTED)
        (index.folder / f"part-{k}").unlink()
        yield noted["content"].copy(), noted["label"].copy(), noted["row"].copy()


def _mark(equal: _Equal, codes: Array, content: Array, label: Array, rows: Array, keep: bool) -> None:
    """Mark among rows sorted by content and number, each content twice or more, what is dropped; note conflicts."""
    start = _starts(content)
    rank = np.select([codes[rows] == CODES["test"], codes[rows] == CODES["validation"]], [2, 1], 0)
    best = np.zeros(len(rows), np.int64)
    np.maximum.at(best, start, rank)
    held = rank < best[start]
    codes[rows[held]] = HELD
    equal.held += int(held.sum())
    content, label, rows = (values[~held] for values in (content, label, rows))
    start = _starts(content)
    contradicting = label != label[start]
    equal.conflicts += int(contradicting.sum())
    leading = np.unique(start[contradicting])
    equal.content.append(content[leading])
    equal.label.append(label[leading])
    order = np.lexsort((rows, label, content))
    content, label, rows = content[order], label[order], rows[order]
    again = np.r_[False, (content[1:] == content[:-1]) & (label[1:] == label[:-1])] & (codes[rows] == OPEN)
    equal.tied += int((content[1:] == content[:-1]).sum())
    if keep or not again.any():
        return
    equal.tied -= int(again.sum())
    first = int(rows[again].min())
    equal.first_again = first if equal.first_again is None else min(first, equal.first_again)
    codes[rows[again]] = DUPLICATE
    equal.duplicates += int(again.sum())


def _join(equal: _Equal, groups: Array, codes: Array, content: Array, rows: Array) -> None:
    """Note the groups that share a content: they must fall into the same split."""
    there = codes[rows] == OPEN
    content, group = content[there], groups[rows[there]]
    if len(group):
        edges = np.stack([group[_starts(content)], group], 1)
        equal.edges.append(np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0))


def _starts(content: Array) -> Array:
    """Return for each of sorted values the index of the first that is equal."""
    first = np.r_[True, content[1:] != content[:-1]][: len(content)]
    started: Array = np.maximum.accumulate(np.where(first, np.arange(len(content)), 0))
    return started


def _cuts(shares: Mapping[Split, float]) -> tuple[tuple[Split, float], ...]:
    """Return the splits that rows are divided among, each with the share that lies before its end."""
    total, ends, before = sum(shares.values()), [], 0.0
    for split in SPLITS:
        if split in shares:
            before += shares[split] / total
            ends.append((split, before))
    return tuple(ends)


def _by_content(
    index: RowIndex, codes: Array, cuts: tuple[tuple[Split, float], ...], seed: int, equal: _Equal
) -> tuple[int, ...]:
    """Divide each label's rows by the rank of their scattered content: exact shares, equal rows together.

    Return the labels that have fewer rows than there are splits: those are all in training.
    """
    led, leading = _leaders(equal)
    salt = mix(np.array([seed], np.uint64))

    def strata() -> Iterator[tuple[int, Array, Array]]:
        for start, (content, label) in index.parts("content", "label"):
            if len(led):
                at = np.minimum(np.searchsorted(led, content), len(led) - 1)
                label = np.where(led[at] == content, leading[at], label)
            yield start, mix(content ^ salt), np.where(codes[start : start + len(content)] == OPEN, label, -1)

    labels = 1 + max((int(label.max()) for _, _, label in strata() if len(label)), default=0)
    if labels <= 0:
        return ()
    totals, bounds = _bounds(strata, labels, cuts)
    for start, place, label in strata():
        free = np.flatnonzero(label >= 0)
        place, label = place[free], label[free]
        chosen = np.full(len(free), CODES[cuts[-1][0]], np.uint8)
        for (split, _), bound in reversed(list(zip(cuts[:-1], bounds, strict=True))):
            chosen[place < bound[label]] = CODES[split]
        codes[start + free] = chosen
    return tuple(int(k) for k in np.flatnonzero((totals > 0) & (totals < len(cuts))))


def _leaders(equal: _Equal) -> tuple[Array, Array]:
    """Return the contents whose rows contradict each other, sorted, and the label whose stratum they join."""
    if not equal.content:
        return np.zeros(0, np.uint64), np.zeros(0, np.int32)
    content, label = np.concatenate(equal.content), np.concatenate(equal.label)
    order = np.argsort(content)
    return content[order], label[order]


def _bounds(strata: Strata, labels: int, cuts: tuple[tuple[Split, float], ...]) -> tuple[Array, list[Array]]:
    """Return each label's number of rows, and for each cut the place below which they stand, uint64 [labels].

    Two looks at the rows: how many fall into each of so many drawers, then the exact rank in the drawers that are cut.
    """
    bits = max(int(np.log2(CELLS / labels)), 1)
    shift = np.uint64(64 - bits)
    drawers = np.zeros((labels, 1 << bits), np.int64)
    for _, place, label in strata():
        free = label >= 0
        flat = (label[free].astype(np.int64) << bits) + (place[free] >> shift).astype(np.int64)
        drawers += np.bincount(flat, minlength=labels << bits).reshape(labels, 1 << bits)
    totals = drawers.sum(1)
    ranks = _ranks(totals, [end for _, end in cuts])
    below = np.cumsum(drawers, 1)
    bounds = []
    for rank in ranks:
        drawer = np.array([np.searchsorted(below[k], rank[k], "right") for k in range(labels)])
        inside = _inside(strata, labels, drawer, shift)
        bound = np.full(labels, np.iinfo(np.uint64).max, np.uint64)
        for k in range(labels):
            if drawer[k] < 1 << bits:
                before = int(below[k, drawer[k] - 1]) if drawer[k] else 0
                bound[k] = np.partition(inside[k], rank[k] - before)[rank[k] - before]
        bounds.append(bound)
    return totals, bounds


def _inside(strata: Strata, labels: int, drawer: Array, shift: np.uint64) -> list[Array]:
    """Return the places of each label's rows that lie in the drawer that is cut."""
    inside: list[list[Array]] = [[] for _ in range(labels)]
    for _, place, label in strata():
        mine = np.flatnonzero((label >= 0) & ((place >> shift).astype(np.int64) == drawer[label]))
        for k in np.unique(label[mine]):
            inside[k].append(place[mine][label[mine] == k])
    return [np.concatenate(parts) if parts else np.zeros(0, np.uint64) for parts in inside]


def _ranks(totals: Array, ends: list[float]) -> list[Array]:
    """Return how many of each label's rows stand before each cut but the last; no split is empty if rows suffice."""
    ranks: list[Array] = []
    for position, end in enumerate(ends[:-1]):
        least = ranks[-1] + 1 if ranks else np.ones_like(totals)
        most = np.maximum(totals - (len(ends) - 1 - position), least)
        rank = np.clip(np.rint(totals * end).astype(np.int64), least, most)
        ranks.append(np.where(totals < len(ends), totals, rank))
    return ranks


def _by_group(
    index: RowIndex,
    codes: Array,
    cuts: tuple[tuple[Split, float], ...],
    seed: int,
    column: Literal["group", "content"],
    edges: list[Array],
) -> tuple[int, ...]:
    """Give whole groups to splits, the largest first, each to where its labels are most wanted.

    Groups that share a row count as one. Of very many groups each goes by chance alone. Where many rows are equal and
    stay, those of one content are a group.
    """
    names = np.zeros(0, np.uint64)
    for start, (group,) in index.parts(column):
        names = np.union1d(names, group[codes[start : start + len(group)] == OPEN])
    labels = 1 + max((int(label.max()) for _, (label,) in index.parts("label") if len(label)), default=0)
    columns = labels if len(names) <= MANY_GROUPS else 1
    joined, sets = _joined(names, edges)
    counts = np.zeros((sets, columns), np.int64)
    for start, (group, label) in index.parts(column, "label"):
        free = codes[start : start + len(group)] == OPEN
        member = joined[np.searchsorted(names, group[free])]
        np.add.at(counts, (member, label[free] if columns > 1 else 0), 1)
    if sets < len(cuts):
        what = "groups" if column == "group" else "different rows"
        raise DataError(f"{sets} {what} cannot fill {len(cuts)} splits", fix="expected at least one for each of them")
    leader = np.full(sets, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(leader, joined, names)
    order = np.lexsort((mix(leader ^ mix(np.array([seed], np.uint64))), -counts.sum(1)))
    chosen = _dealt(counts, order, cuts) if sets <= MANY_GROUPS else _cut(counts, leader, seed, cuts)
    for start, (group,) in index.parts(column):
        free = np.flatnonzero(codes[start : start + len(group)] == OPEN)
        codes[start + free] = chosen[joined[np.searchsorted(names, group[free])]]
    return ()


def _dealt(counts: Array, order: Array, cuts: tuple[tuple[Split, float], ...]) -> Array:
    """Deal groups with counts [groups, labels] out in an order, each to where most of its labels' share is left."""
    shares = np.diff([0.0, *(end for _, end in cuts)])
    totals = np.maximum(counts.sum(0), 1)
    left = np.outer(shares, totals).astype(float)
    chosen = np.zeros(len(counts), np.uint8)
    empty = list(range(len(cuts)))
    for position, one in enumerate(order):
        choices = empty if len(order) - position <= len(empty) else range(len(cuts))
        after = [(np.square((left[k] - counts[one]) / totals) - np.square(left[k] / totals)).sum() for k in choices]
        best = choices[int(np.argmin(np.array(after) / shares[list(choices)]))]
        chosen[one] = CODES[cuts[best][0]]
        left[best] -= counts[one]
        if best in empty:
            empty.remove(best)
    return chosen


def _cut(counts: Array, leader: Array, seed: int, cuts: tuple[tuple[Split, float], ...]) -> Array:
    """Cut groups in an order of chance where the rows so far reach the shares."""
    order = np.argsort(mix(leader ^ mix(np.array([seed], np.uint64))))
    reached = np.cumsum(counts.sum(1)[order]) / max(int(counts.sum()), 1)
    chosen = np.zeros(len(counts), np.uint8)
    which = np.minimum(np.searchsorted([end for _, end in cuts], reached, "left"), len(cuts) - 1)
    chosen[order] = np.array([CODES[split] for split, _ in cuts], np.uint8)[which]
    return chosen


def _joined(names: Array, edges: list[Array]) -> tuple[Array, int]:
    """Return for each group the number of the set of groups that it belongs to, and how many sets there are."""
    parent = np.arange(len(names))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = int(parent[one])
        return one

    for some in edges:
        for a, b in zip(*np.searchsorted(names, some).T.tolist(), strict=True) if len(some) else ():
            low, high = sorted((root(a), root(b)))
            parent[high] = low
    roots = np.array([root(one) for one in range(len(names))], np.int64) if any(map(len, edges)) else parent
    sets, joined = np.unique(roots, return_inverse=True)
    return joined, len(sets)


def unseen(index: RowIndex, decision: Decision, labels: int) -> tuple[int, int, Split] | None:
    """Return the first row whose label no training row has, that label and the row's split; None when there is none."""
    trained = np.zeros(labels, bool)
    for start, (label,) in index.parts("label"):
        trained[label[decision.codes[start : start + len(label)] == CODES["train"]]] = True
    for start, (label,) in index.parts("label"):
        codes = decision.codes[start : start + len(label)]
        for split in SPLITS[1:]:
            rows = np.flatnonzero((codes == CODES[split]) & ~trained[label])
            if len(rows):
                return start + int(rows[0]), int(label[rows[0]]), split
    return None
