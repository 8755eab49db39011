"""Parquet shards: cut at fixed row counts, so their bytes are the same however many write them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from boatyard.datasets import SPLITS

SHARD_BYTES = 32 << 20  # of raw values
AT_ONCE = 2  # shards that are written while the next is filled


@dataclass
class Writer:
    """Takes rows by split, in order, and writes them as `shards/SPLIT-00000.parquet` …"""

    folder: Path
    schema: pa.Schema
    row_bytes: int
    threads: int
    waiting: dict[str, list[pa.RecordBatch]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    held: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    written: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    shards: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))

    def __post_init__(self) -> None:
        self.rows = max(SHARD_BYTES // max(self.row_bytes, 1), 1)
        self.pool = ThreadPoolExecutor(max(min(self.threads, AT_ONCE), 1))
        self.pending: deque[Future[None]] = deque()
        (self.folder / "shards").mkdir()

    def add(self, split: str, batch: pa.RecordBatch) -> None:
        """Take rows of a split; write what fills a shard."""
        while batch.num_rows:
            room = self.rows - self.held[split]
            self.waiting[split].append(batch.slice(0, room))
            self.held[split] += min(room, batch.num_rows)
            batch = batch.slice(room) if batch.num_rows > room else batch.slice(0, 0)
            if self.held[split] == self.rows:
                self._flush(split)

    def close(self) -> dict[str, int]:
        """Write what is left; return the rows of each split."""
        for split in SPLITS:
            if self.held[split]:
                self._flush(split)
        while self.pending:
            self.pending.popleft().result()
        self.pool.shutdown()
        return dict(self.written)

    def abandon(self) -> None:
        """Write nothing more."""
        self.pool.shutdown(cancel_futures=True)

    def _flush(self, split: str) -> None:
        table = pa.Table.from_batches(self.waiting[split], self.schema)
        path = self.folder / "shards" / f"{split}-{self.shards[split]:05d}.parquet"
        self.written[split] += table.num_rows
        self.shards[split] += 1
        self.waiting[split], self.held[split] = [], 0
        while len(self.pending) >= AT_ONCE:
            self.pending.popleft().result()
        self.pending.append(self.pool.submit(_write, table, path))


def _write(table: pa.Table, path: Path) -> None:
    options: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "write_statistics": False}
    strings = [f.name for f in table.schema if pa.types.is_string(f.type)]
    pq.write_table(table, path, use_dictionary=strings, row_group_size=1 << 16, **options)
