"""Source files in, dataset out: read, cleaned, split without leakage, written as Parquet shards with their digests.

Three looks at the rows, some blocks of them at once: what the columns are (`survey`), what is wrong with each row and
what its content's hash is (`cleaning`), and after the split (`splitting`) the writing (`shards`, `statistics`). What is
held of a row in between is 1 byte in memory and 13 to 21 on disk. Blocks are merged in the order of the rows: equal
inputs and settings give equal bytes, however many threads work.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from boatyard import storage
from boatyard.data import artifacts, datasets
from boatyard.data.datasets import KIND, SPLITS, Dataset, Split
from boatyard.data.schema import Array, Field, Schema, Task
from boatyard.errors import DataError
from boatyard.locks import locked
from boatyard.preprocessing import shards, splitting, statistics
from boatyard.preprocessing.block import Block, Source, ordered
from boatyard.preprocessing.cleaning import EXAMPLES, Cleaner, Cleaning, Rows, summary, table_features, text_hashes
from boatyard.preprocessing.sources import arrays, known
from boatyard.preprocessing.sources.images import open_images
from boatyard.preprocessing.sources.tables import open_table
from boatyard.preprocessing.splitting import CODES, DROPPED, DUPLICATE, HELD, OPEN, Decision, Ledger
from boatyard.preprocessing.statistics import Counts, Moments, Pixels, Statistic
from boatyard.preprocessing.survey import Plan, survey
from boatyard.project import DataConfig, PreprocessConfig
from boatyard.running.progress import Progress
from boatyard.settings import Settings

__all__ = ["Work", "check", "names", "open_source", "preprocess", "source_digests", "summary"]
logger = logging.getLogger(__name__)


def preprocess(config: DataConfig, how: PreprocessConfig, out: Path, *, root: Path, task: Task) -> Dataset:
    """Read the source that `config` names, clean and split it, write a dataset at `out` and return it.

    Relative paths start at `root`. Raises DataError naming file and row, StorageError on a full disk; a run that ends
    early leaves nothing at `out`, and what it leaves beside it the next run removes.
    """
    threads = Settings().threads
    source = open_source(config, how, root)
    digests = source_digests(config, root)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with _alone(out), artifacts.new_folder(out) as folder, _scratch(out) as scratch:
        plan = survey(source, config, task, threads)
        cleaner = Cleaner(plan, config, how, table_features(source))
        work = Work(source, cleaner, Cleaning(), threads, Progress("preprocess", 2 * plan.total, "row"))
        about = work.write(folder, work.count(scratch))
        artifacts.seal(folder, KIND, {**about, "source": digests, "preprocess": how.values()})
    logger.info("%s", summary(about))
    return datasets.read(out)


def open_source(config: DataConfig, how: PreprocessConfig, root: Path) -> Source:
    """Open what `data` names, looking at headers only; raises DataError, StorageError for a URI that names nothing."""
    path = storage.local(config.path, root)
    if config.source == "idx":
        return arrays.open_idx(path)
    if config.source == "npz":
        return arrays.open_npz(path, config)
    if config.source == "npy":
        return arrays.open_npy(path, config)
    if config.source == "images":
        return open_images(path, how, Settings().threads)
    return open_table(path, config, how)


def check(config: DataConfig, root: Path) -> None:
    """Look at the source without reading it whole; raises DataError for what is wrong already."""
    _expected(config, open_source(config, PreprocessConfig(), root), root)


def source_digests(config: DataConfig, root: Path, only: Collection[Path] | None = None) -> dict[str, str]:
    """Return the sha256 of every source file by name, or only of some; raises DataError for a wrong one."""
    source = open_source(config, PreprocessConfig(unreadable="drop"), root)
    wanted, found = _expected(config, source, root), {}
    for name, path in names(source, storage.local(config.path, root)).items():
        if only is not None and path not in only:
            continue
        found[name] = artifacts.digest_file(path)
        if name in wanted and wanted[name] != found[name]:
            raise DataError(
                f"{path}: expected sha256 {wanted[name]}, found {found[name]}; the file was changed or cut: "
                "bring the right one, or say the new digest in data.sha256"
            )
    return found


def names(source: Source, base: Path) -> dict[str, Path]:
    """Return the source's files by their names below the folder that the project gives."""
    folder = base if base.is_dir() else base.parent
    return {os.path.relpath(path, folder).replace(os.sep, "/"): path for path in source.files()}


def _expected(config: DataConfig, source: Source, root: Path) -> dict[str, str]:
    """Return the digests that are wanted: those of a data set that is known, and the project's over them."""
    base = storage.local(config.path, root)
    there = names(source, base)
    for name in config.sha256:
        if name not in there:
            raise DataError(
                f"data.sha256 names {name}, which is not among the files read: {', '.join(list(there)[:8])}"
            )
    standard = {name: digest for name, digest in known.digests(base).items() if name in there}
    return {**standard, **config.sha256}


@dataclass(frozen=True)
class Work:
    """One preprocessing on its way, after the survey."""

    source: Source
    cleaner: Cleaner
    cleaning: Cleaning
    threads: int
    progress: Progress

    def count(self, scratch: Path) -> Ledger:
        """Go through the rows once and note what `note` does; raises DataError for what the policies refuse."""
        ledger = self.note(scratch)
        self.cleaning.settle()
        return ledger

    def note(self, scratch: Path) -> Ledger:
        """Go through the rows once: note what is wrong with them, each row's hash, label and group."""
        group = self.cleaner.config.group
        ledger = Ledger(scratch, grouped=group is not None)

        def look(block: Block) -> tuple[Rows, Array, Array | None]:
            rows = self.cleaner.rows(block)
            return rows, rows.contents(), text_hashes(rows.texts[group]) if group else None

        with ledger:
            for rows, content, groups in ordered(look, self.source.blocks(), self.threads):
                block = rows.block
                self.cleaning.add(
                    "unreadable", "", "dropped", len(block.bad), [f"{b.where} {b.what}" for b in block.bad]
                )
                self.cleaning.note(rows.notes)
                given = np.where(rows.keep, OPEN if block.split is None else CODES[block.split], DROPPED)
                label = rows.target if self.cleaner.plan.task == "classification" else np.zeros(len(block), np.int32)
                ledger.add(content, label, given, groups)
                self.progress.update(len(block))
        return ledger

    def write(self, folder: Path, ledger: Ledger) -> dict[str, Any]:
        """Divide the rows and write them; return what the manifest says."""
        decision = self.decide(ledger)
        found: dict[str, Statistic] = {}
        with self.writer(folder) as writer:
            again = self.sort(decision.codes, self.every(decision), writer, lambda more: statistics.merge(found, more))
            counts = writer.finish()
        return self.about(decision, counts, found, again)

    def decide(self, ledger: Ledger) -> Decision:
        """Divide the rows; raises DataError when a split is empty or lacks what it must have."""
        how = self.cleaner.how
        decision = splitting.decide(ledger, self.shares, how.seed, how.duplicates, self.source.given)
        self._check(ledger, decision)
        return decision

    @property
    def shares(self) -> dict[Split, float]:
        """The share of the rows that each split is to have."""
        return {split: getattr(self.cleaner.how.split, split) for split in SPLITS}

    def every(self, decision: Decision) -> int:
        """Say of how many training rows one is sampled for medians."""
        return statistics.every(decision.rows("train"), len(self.cleaner.plan.kinds))

    def writer(self, folder: Path, before: Mapping[Split, int] | None = None) -> shards.Writer:
        """Open the shards of all rows, or of a part with so many rows of each split before it."""
        plan = self.cleaner.plan
        columns = shards.layout(plan, self.cleaner.config.slices)
        return shards.Writer(folder, columns, plan.row_bytes, self.threads, before)

    def about(
        self, decision: Decision, counts: dict[Split, int], found: dict[str, Statistic], again: dict[int, list[str]]
    ) -> dict[str, Any]:
        """Return what the manifest says of rows that were written, their statistics merged."""
        plan = self.cleaner.plan
        self.cleaning.add("equal to an earlier row", "", "dropped", decision.duplicates, again[DUPLICATE])
        self.cleaning.add("equal to a row of a given test or validation set", "", "dropped", decision.held, again[HELD])
        self._note(decision)
        fitted = {name: statistic.values() for name, statistic in found.items()}
        return {
            "schema": self._schema(fitted).to_dict(),
            "statistics": {**fitted, "__target__": _of_target(fitted["__target__"], plan)},
            "rows": counts,
            "cleaning": self.cleaning.values(),
            "split": self.shares,
            "given": sorted(self.source.given),
            "seed": self.cleaner.how.seed,
        }

    def sort(
        self, codes: Array, every: int, writer: shards.Writer, take: Callable[[dict[str, Statistic]], None]
    ) -> dict[int, list[str]]:
        """Write every row to its split, `take` each block's statistics; return the first places of rows that go."""
        plan, slices = self.cleaner.plan, self.cleaner.config.slices
        again: dict[int, list[str]] = {DUPLICATE: [], HELD: []}

        def work(
            numbered: tuple[Block, Array],
        ) -> tuple[Block, Array, dict[Split, pa.RecordBatch], dict[str, Statistic]]:
            block, codes = numbered
            rows = self.cleaner.rows(block)
            index = {split: np.flatnonzero(codes == CODES[split]) for split in SPLITS}
            batches = {split: shards.batch(rows, at, writer.columns, slices) for split, at in index.items() if len(at)}
            return block, codes, batches, _fit(rows, index["train"], plan, every)

        for block, marked, batches, fitted in ordered(work, self._decided(codes), self.threads):
            writer.add(batches)
            take(fitted)
            for code, places in again.items():
                rows = np.flatnonzero(marked == code)[: EXAMPLES - len(places)]
                places += [block.where(int(row)) for row in rows]
            self.progress.update(len(block))
        return again

    def _decided(self, codes: Array) -> Iterator[tuple[Block, Array]]:
        """Give each block with its rows' codes."""
        start = 0
        for block in self.source.blocks():
            yield block, codes[start : start + len(block)]
            start += len(block)

    def _check(self, ledger: Ledger, decision: Decision) -> None:
        """Raise DataError when a split is empty, or a label of validation or test is in no training row."""
        plan = self.cleaner.plan
        for split in SPLITS:
            if not decision.rows(split):
                kept = sum(decision.rows(one) for one in SPLITS)
                raise DataError(
                    f"{self._where()}: the {split} split is empty; {kept} of {plan.total} rows are left after cleaning "
                    f"({self._done(decision)}), too few or too alike to divide"
                )
        lost = splitting.unseen(ledger, decision, len(plan.labels)) if plan.labels else None
        if lost:
            row, label, split = lost
            raise DataError(
                f"{self._place(row)}: the label {plan.labels[label]!r} is in the {split} split and in no training row; "
                "bring training rows of it, or remove it"
            )

    def _done(self, decision: Decision) -> str:
        done = [f"{e['count']} {e['reason']}" for e in self.cleaning.values()]
        done += [f"{decision.duplicates} equal to an earlier row"] if decision.duplicates else []
        done += [f"{decision.held} equal to a given row"] if decision.held else []
        return ", ".join(done) or "none were wrong"

    def _note(self, decision: Decision) -> None:
        """Count what was kept and should be known."""
        plan = self.cleaner.plan
        self.cleaning.add("conflicting labels: equal features", "", "kept in one split", decision.conflicts, [])
        self.cleaning.add("equal to an earlier row", "", "kept: too many to be copies", decision.coincident, [])
        few = [plan.labels[label] for label in decision.small] if plan.labels else []
        self.cleaning.add("labels with too few rows for every split", "", "kept in training", len(few), few)

    def _where(self) -> str:
        files = self.source.files()
        return str(files[0] if len(files) == 1 else files[0].parent)

    def _place(self, row: int) -> str:
        """Say where a row is, counted over all blocks; reads the source up to it."""
        for block in self.source.blocks():
            if row < len(block):
                return block.where(row)
            row -= len(block)
        return self._where()

    def _schema(self, fitted: dict[str, Any]) -> Schema:
        """Pin the schema: the categories seen in training, and whether a value may be missing."""
        plan, config = self.cleaner.plan, self.cleaner.config
        if plan.is_image:
            dtype = "uint8" if plan.dtype == "uint8" else "float32"
            return Schema(plan.task, (Field("image", "image", dtype, plan.shape),), config.target, plan.labels)  # type: ignore[arg-type]
        gaps = {
            column for reason, column, action in self.cleaning.entries if (reason, action) == ("missing", "imputed")
        }
        fields = []
        for name, kind in plan.kinds.items():
            low, high = config.ranges.get(name, (None, None))
            if kind == "number":
                fields.append(Field(name, "number", "float32", nullable=name in gaps, minimum=low, maximum=high))
            else:
                values = tuple(fitted[name]["counts"])
                fields.append(Field(name, "category", "str", nullable=name in gaps, categories=values))
        return Schema(plan.task, tuple(fields), config.target, plan.labels)


def _fit(rows: Rows, index: Array, plan: Plan, every: int) -> dict[str, Statistic]:
    """Return the statistics of a block's training rows, by field, and the target's."""
    if not len(index):
        return {}
    sampled = splitting.mix(rows.block.rows[index].astype(np.uint64)) % np.uint64(every) == 0
    found: dict[str, Statistic] = {}
    for name, column in rows.columns.items():
        if isinstance(column, pa.Array):
            found[name] = Counts.of(column.take(pa.array(index)))
        elif column.ndim > 1:
            found[name] = Pixels.of(column[index])
        else:
            found[name] = Moments.of(column[index].astype(np.float32).astype(np.float64), sampled)
    target = rows.target[index]
    if plan.task == "classification":
        found["__target__"] = Counts.of(pa.array(plan.labels).take(pa.array(target)))
    else:
        found["__target__"] = Moments.of(target.astype(np.float64))
    return found


def _of_target(value: dict[str, Any], plan: Plan) -> dict[str, Any]:
    if plan.task == "classification":
        return {"counts": {label: value["counts"].get(label, 0) for label in plan.labels}}
    return {key: value[key] for key in ("mean", "std", "min", "max")}


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Give a folder for what is noted of the rows, on the disk that the dataset goes to."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".notes", dir=out.absolute().parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Wait until no other run is at work on `out`, then remove what killed runs left beside it.

    One at a time: what lies beside `out` is then nobody's but this run's, and of two that make the same dataset the
    later one replaces the earlier one's whole.
    """
    lock = out.absolute().with_name(f".{out.name}.lock")
    with locked(lock, remove=True):
        for left in (p for end in ("part", "notes", "old") for p in lock.parent.glob(f".{out.name}.*.{end}")):
            shutil.rmtree(left, ignore_errors=True)
        yield
