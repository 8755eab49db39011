"""Parquet shards: cut at fixed row counts, so their bytes are the same however many threads write them."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from boatyard.data import kinds
from boatyard.data.datasets import SPLITS, Split
from boatyard.data.schema import Array
from boatyard.preprocessing.block import WORKERS
from boatyard.preprocessing.cleaning import CleanedRows
from boatyard.preprocessing.profile import DataPlan
from boatyard.tasks.targets import Target

SHARD_BYTES = 8 << 20  # of raw values
AT_ONCE = 2  # shards that are written while the next is filled


def layout(plan: DataPlan, target: Target, slices: tuple[str, ...]) -> pa.Schema:
    """Return a shard's columns: row, target, `field:NAME` for each field, `slice:NAME` for each slice."""
    fields = [(f"field:{field.name}", kinds.of(field).arrow_type(field)) for field in plan.fields]
    texts = [(f"slice:{name}", pa.string()) for name in slices]
    return pa.schema([("row", pa.int64()), ("target", target.arrow_type()), *fields, *texts])


def batch(rows: CleanedRows, index: Array, columns: pa.Schema, slices: tuple[str, ...]) -> pa.RecordBatch:
    """Return the rows at an index as a shard holds them."""
    at = pa.array(index)
    target = pa.array(rows.target[index]).cast(columns.field("target").type)
    values = [
        kinds.of(field).store(field, column, index) for field, column in zip(rows.fields, rows.columns, strict=True)
    ]
    texts = [rows.texts[name].take(at) for name in slices]
    return pa.record_batch([pa.array(rows.block.rows[index]), target, *values, *texts], columns)


class ShardWriter:
    """Takes rows by split, in order, and writes them as `shards/SPLIT-00000.parquet` …

    `before` says how many rows of each split another writer has before these: then the shards at both ends, which are
    shared with others, are left as pieces `shards/SPLIT-00000.piece` for `merge`.
    """

    def __init__(
        self,
        folder: Path,
        columns: pa.Schema,
        row_bytes: int,
        threads: int,
        before: Mapping[Split, int] | None = None,
    ) -> None:
        self.folder, self.columns, self.whole = folder / "shards", columns, before is None
        self.rows = max(SHARD_BYTES // max(row_bytes, 1), 1)
        self.waiting: dict[Split, list[pa.RecordBatch]] = {split: [] for split in SPLITS}
        done = before or dict.fromkeys(SPLITS, 0)
        self.held: dict[Split, int] = {split: done[split] % self.rows for split in SPLITS}
        self.shards: dict[Split, int] = {split: done[split] // self.rows for split in SPLITS}
        self.begun = {split for split in SPLITS if self.held[split]}
        self.written: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self.pool = ThreadPoolExecutor(max(min(threads, AT_ONCE, WORKERS), 1))
        self.pending: deque[Future[None]] = deque()
        self.folder.mkdir()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def add(self, batches: Mapping[Split, pa.RecordBatch]) -> None:
        """Take rows of some splits; write what fills a shard."""
        for split, rows in batches.items():
            while rows.num_rows:
                part = rows.slice(0, self.rows - self.held[split])
                self.waiting[split].append(part)
                self.held[split] += part.num_rows
                rows = rows.slice(part.num_rows)
                if self.held[split] == self.rows:
                    self._flush(split)

    def finish(self) -> dict[Split, int]:
        """Write what is left; return the rows of each split."""
        for split in SPLITS:
            if self.waiting[split]:
                self._flush(split, whole=self.whole)
        while self.pending:
            self.pending.popleft().result()
        return dict(self.written)

    def _flush(self, split: Split, whole: bool = True) -> None:
        table = pa.Table.from_batches(self.waiting[split], self.columns)
        whole = whole and split not in self.begun
        self.begun.discard(split)
        path = self.folder / f"{split}-{self.shards[split]:05d}.{'parquet' if whole else 'piece'}"
        self.written[split] += table.num_rows
        self.shards[split] += 1
        self.waiting[split], self.held[split] = [], 0
        while len(self.pending) >= AT_ONCE:
            self.pending.popleft().result()
        self.pending.append(self.pool.submit(_write if whole else _keep, table, path))


def _write(table: pa.Table, path: Path) -> None:
    """Write one shard; the texts in it as dictionaries, the rest as it is, lightly packed."""
    texts = [column.name for column in table.schema if pa.types.is_string(column.type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=1,
        write_statistics=False,
        use_dictionary=texts,
        row_group_size=1 << 16,
    )


def _keep(table: pa.Table, path: Path) -> None:
    """Write rows as they came, batch by batch: a shard's bytes depend on where its batches end."""
    with pa.ipc.new_file(path, table.schema) as file:
        for batch in table.to_batches():
            file.write_batch(batch)


def merge(folders: Sequence[Path], out: Path) -> None:
    """Merge what several writers wrote, in order: shards as they are, pieces of one shard as that shard."""
    (out / "shards").mkdir()
    pieces: dict[str, list[Path]] = {}
    for path in (path for folder in folders for path in sorted((folder / "shards").iterdir())):
        if path.suffix == ".piece":
            pieces.setdefault(path.stem, []).append(path)
        else:
            shutil.copyfile(path, out / "shards" / path.name)
    for name, paths in pieces.items():
        batches = [batch for path in paths for batch in _kept(path)]
        _write(pa.Table.from_batches(batches), out / "shards" / f"{name}.parquet")


def _kept(path: Path) -> list[pa.RecordBatch]:
    with pa.ipc.open_file(path) as file:
        return [file.get_batch(number) for number in range(file.num_record_batches)]
