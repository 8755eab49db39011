"""Rows for training: in memory where they fit, else streamed; in one order, that seed, epoch and step alone decide.

A split of up to BUFFER bytes is shuffled whole. Of a larger one the shards come in random order and their rows pass
through a buffer of that size, in memory as from the disk: which weights come out does not depend on free memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from boatyard.data.artifacts import digest_json
from boatyard.data.datasets import Dataset, Split
from boatyard.data.features import empty, tensors
from boatyard.data.schema import Schema
from boatyard.errors import DataError
from boatyard.machine import available_memory
from boatyard.tasks import Head

SHARE = 0.25  # of the available memory that a split may take
CHUNK = 8192  # rows read at once
BUFFER = 1 << 28  # bytes of rows that are shuffled together: more gives another order, so other weights


@dataclass(frozen=True)
class Part:
    """Which rows of every batch are this process's: one of `size` nearly equal pieces."""

    rank: int = 0
    size: int = 1

    def of(self, rows: int) -> slice:
        """Return this part of a batch; where it has no row of its own, the first stands in for it."""
        begin, end = rows * self.rank // self.size, rows * (self.rank + 1) // self.size
        return slice(begin, end) if begin < end else slice(0, 1)

    def count(self, rows: int) -> int:
        """Return how many rows of a batch are this part's own."""
        return rows * (self.rank + 1) // self.size - rows * self.rank // self.size


WHOLE = Part()


@dataclass(frozen=True)
class Rows:
    """Some rows as tensors: raw inputs by name (categories as codes), the encoded target [N].

    Where several processes train, `inputs` hold this one's part of the batch and `target` all of it.
    """

    inputs: Mapping[str, Tensor]
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: Tensor) -> Rows:
        """Return the rows at an index, in its order."""
        return Rows({name: value.index_select(0, index) for name, value in self.inputs.items()}, self.target[index])

    def slice(self, start: int, stop: int) -> Rows:
        """Return rows that follow each other, without a copy."""
        return Rows({name: value[start:stop] for name, value in self.inputs.items()}, self.target[start:stop])

    def narrow(self, part: Part) -> Rows:
        """Return the rows with a part of the inputs."""
        if part.size == 1:
            return self
        return Rows({name: value[part.of(len(self))] for name, value in self.inputs.items()}, self.target)

    def copy(self) -> Rows:
        """Return the rows in memory of their own."""
        return Rows({name: value.clone() for name, value in self.inputs.items()}, self.target.clone())

    def to(self, device: torch.device) -> Rows:
        """Return the rows on a device."""
        if device.type == "cpu":
            return self
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        return Rows(inputs, self.target.to(device, non_blocking=True))


class BatchSource(Protocol):
    """A split as training reads it."""

    def shuffled(self, epoch: int, start: int) -> Iterator[Rows]:
        """Yield the batches of an epoch from batch number `start` on."""

    def ordered(self, size: int) -> Iterator[Rows]:
        """Yield all rows once, in their order."""


def cuts(rows: int, size: int, accumulate: int = 1) -> list[tuple[int, int]]:
    """Return where the batches of an epoch begin and end, of which each `accumulate` ones are a step's."""
    return [batch for step in steps(rows, size, accumulate) for batch in step]


def steps(rows: int, size: int, accumulate: int = 1) -> list[list[tuple[int, int]]]:
    """Return the batches of each step of an epoch; steps are cut as one batch of all their rows would be."""
    return [
        [(begin + start, begin + stop) for start, stop in _cut(end - begin, size)]
        for begin, end in _cut(rows, size * accumulate)
    ]


def _cut(rows: int, size: int) -> list[tuple[int, int]]:
    """Cut rows into pieces; a last piece of one row joins the one before (batch norm)."""
    edges = list(range(0, rows, size))
    if len(edges) > 1 and rows - edges[-1] == 1:
        edges.pop()
    return list(zip(edges, [*edges[1:], rows], strict=True))


def seed_of(*parts: int | str) -> int:
    """Mix numbers into one seed: near ones give unrelated streams."""
    return int(digest_json(list(parts))[:15], 16)


def open_split(
    dataset: Dataset,
    split: Split,
    head: Head,
    device: torch.device,
    *,
    size: int,
    seed: int,
    accumulate: int = 1,
    part: Part = WHOLE,
    share: float = SHARE,
) -> BatchSource:
    """Read a split into memory, or onto the device, if it takes no more than a share of what is free, else stream."""
    rows = dataset.rows(split)
    if not rows:
        raise DataError(f"the {split} split has no rows", fix="give more data or another preprocess.split")
    needed = rows * row_bytes(dataset.schema)
    if needed > share * available_memory():
        return Streamed(dataset, split, head, device, size=size, seed=seed, accumulate=accumulate, part=part)
    held = read(dataset, split, head)
    if device.type == "cuda" and needed <= share * torch.cuda.mem_get_info(device)[0]:
        held = held.to(device)
    mixing = Mixing(dataset.shard_rows(split), buffer_rows(dataset.schema), seed)
    return InMemory(held, mixing, device, size=size, accumulate=accumulate, part=part)


@dataclass(frozen=True)
class Mixing:
    """The order of a split's rows: those of its shards, shuffled in a buffer of `buffer` rows."""

    shards: Sequence[int]
    buffer: int
    seed: int

    def random(self, epoch: int) -> np.random.Generator:
        """Return what an epoch draws from."""
        return np.random.default_rng(seed_of("order", self.seed, epoch))

    def shard_order(self, random: np.random.Generator) -> Sequence[int]:
        """Return the shards in the order of an epoch; rows that all fit into the buffer are shuffled anyhow.

        Without it a split sorted by its target would be learnt from in that order, a buffer's length apart.
        """
        count = len(self.shards)
        return range(count) if sum(self.shards) <= self.buffer else random.permutation(count).tolist()

    def mixed(self, chunks: Iterator[Rows], random: np.random.Generator) -> Iterator[Rows]:
        """Swap each chunk read with rows drawn from the buffer, which is emptied at the end in random order."""
        filling: list[Rows] = []
        held: Rows | None = None
        for chunk in chunks:
            if held is None:
                filling.append(chunk)
                held = join(filling) if sum(map(len, filling)) >= self.buffer else None
                continue
            index = torch.from_numpy(random.choice(len(held), len(chunk), replace=False))
            yield held.take(index)
            for name, value in held.inputs.items():
                value[index] = chunk.inputs[name]
            held.target[index] = chunk.target
        held = held or join(filling)
        yield held.take(torch.from_numpy(random.permutation(len(held))))

    def rows(self, epoch: int) -> Tensor:
        """Return the numbers of all rows, int64 [N], in the order of an epoch."""
        random = self.random(epoch)
        starts = np.cumsum([0, *self.shards])
        numbers = torch.arange(int(starts[-1]))
        order = self.shard_order(random)
        shards = (numbers[starts[shard] : starts[shard + 1]].clone() for shard in order)
        chunks = (Rows({}, chunk) for shard in shards for chunk in shard.split(CHUNK))
        return torch.cat([piece.target for piece in self.mixed(chunks, random)])


@dataclass(frozen=True)
class InMemory:
    """All rows as tensors, on the device if they fit there; a batch is one indexing."""

    rows: Rows
    mixing: Mixing
    device: torch.device
    size: int
    accumulate: int = 1
    part: Part = WHOLE

    def shuffled(self, epoch: int, start: int) -> Iterator[Rows]:
        order = self.mixing.rows(epoch).to(self.rows.target.device)
        for begin, end in cuts(len(self.rows), self.size, self.accumulate)[start:]:
            yield self._take(order[begin:end]).to(self.device)

    def ordered(self, size: int) -> Iterator[Rows]:
        for begin in range(0, len(self.rows), size):
            rows = self.rows.slice(begin, begin + size).narrow(self.part)
            yield rows.copy().to(self.device)  # a model that works in place would change the rows of later epochs

    def _take(self, index: Tensor) -> Rows:
        if self.part.size == 1:
            return self.rows.take(index)
        own = index[self.part.of(len(index))]
        inputs = {name: value.index_select(0, own) for name, value in self.rows.inputs.items()}
        return Rows(inputs, self.rows.target[index])


@dataclass(frozen=True)
class Streamed:
    """Rows read from the shards anew each epoch and shuffled on the way; a resumed epoch reads past what was done."""

    dataset: Dataset
    split: Split
    head: Head
    device: torch.device
    size: int
    seed: int
    accumulate: int = 1
    part: Part = WHOLE

    def shuffled(self, epoch: int, start: int) -> Iterator[Rows]:
        rows = self.dataset.rows(self.split)
        wanted = iter(cuts(rows, self.size, self.accumulate))
        waiting: list[Rows] = []
        held, number = 0, 0
        begin, end = next(wanted)
        for piece in self._mixed(epoch):
            waiting.append(piece)
            held += len(piece)
            while held >= end - begin:
                joined = join(waiting)
                count = end - begin
                if number >= start:
                    yield joined.slice(0, count).narrow(self.part).to(self.device)
                waiting, held, number = [joined.slice(count, held)], held - count, number + 1
                begin, end = next(wanted, (0, rows + 1))  # more than there is: nothing follows

    def ordered(self, size: int) -> Iterator[Rows]:
        for rows in self._read(size):
            yield rows.narrow(self.part).to(self.device)

    def _mixed(self, epoch: int) -> Iterator[Rows]:
        mixing = Mixing(self.dataset.shard_rows(self.split), buffer_rows(self.dataset.schema), self.seed)
        random = mixing.random(epoch)
        order = mixing.shard_order(random)
        return mixing.mixed((chunk for shard in order for chunk in self._read(CHUNK, shard)), random)

    def _read(self, size: int, shard: int | None = None) -> Iterator[Rows]:
        """Read one shard, or all in their order, `size` rows at a time."""
        for batch in self.dataset.batches(self.split, size, shard):
            target = self.head.encode(torch.from_numpy(np.require(batch.target, requirements="W")))
            yield Rows(tensors(self.dataset.schema, batch.inputs), target)


def read(dataset: Dataset, split: Split, head: Head) -> Rows:
    """Read a split into tensors, a chunk at a time: text is never held whole."""
    rows = dataset.rows(split)
    inputs = empty(dataset.schema, rows)
    targets = torch.zeros(rows, dtype=torch.int64 if dataset.schema.labels else torch.float32)
    at = 0
    for batch in dataset.batches(split, CHUNK):
        for name, value in tensors(dataset.schema, batch.inputs).items():
            inputs[name][at : at + len(batch)] = value
        targets[at : at + len(batch)] = head.encode(torch.from_numpy(np.require(batch.target, requirements="W")))
        at += len(batch)
    if at != rows:
        raise DataError(
            f"{dataset.path}: the {split} split has {at} rows, its manifest says {rows}", fix="preprocess again"
        )
    return Rows(inputs, targets)


def join(parts: list[Rows]) -> Rows:
    """Return the rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    inputs = {name: torch.cat([part.inputs[name] for part in parts]) for name in parts[0].inputs}
    return Rows(inputs, torch.cat([part.target for part in parts]))


def buffer_rows(schema: Schema) -> int:
    """Return how many rows are shuffled together."""
    return max(BUFFER // row_bytes(schema), CHUNK)


def row_bytes(schema: Schema) -> int:
    """Return how many bytes a row takes as tensors."""
    sizes = {"uint8": 1, "float32": 4, "str": 8}
    return 8 + sum(sizes[tensor.dtype] * math.prod(tensor.shape) for tensor in schema.tensors())
