"""Source files in, dataset out: read, cleaned, split without leakage, written as Parquet shards with their digests.

    profile → plan → clean → split → write (→ merge, where machines share the rows: see `distributed`)

The rows are read three times, some blocks of them at once: for what the columns are (`profile`), what is wrong with
each row and what its content's hash is (`cleaning`), and after the split (`splitting`) for writing (`shards`,
`statistics`). What is held of a row in between is 1 byte in memory and 13 to 21 on disk. Blocks are merged in the
order of the rows, never in that of the threads: float sums depend on it, and equal inputs and settings shall give equal
bytes.
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

from boatyard import plugins, storage, tasks
from boatyard.data import artifacts, datasets, kinds, lineage, statistics
from boatyard.data.datasets import DATASET_KIND, SPLITS, Dataset, Split
from boatyard.data.row_hashes import mix, text_hashes
from boatyard.data.schema import Array, Schema, Task
from boatyard.data.statistics import Statistic
from boatyard.errors import DataError
from boatyard.locks import locked
from boatyard.preprocessing import known, shards, splitting
from boatyard.preprocessing.block import Block, ordered
from boatyard.preprocessing.cleaning import MAX_EXAMPLES, CleanedRows, Cleaner, Cleaning, summary
from boatyard.preprocessing.profile import plan, profile
from boatyard.preprocessing.sources.base import OpenSource, Source
from boatyard.preprocessing.splitting import CODES, DROPPED, DUPLICATE, HELD, OPEN, Decision, RowIndex
from boatyard.project import DataConfig, PreprocessConfig
from boatyard.provenance import plug_ins
from boatyard.running.progress import Progress
from boatyard.settings import Settings
from boatyard.tasks.targets import Target

__all__ = ["Work", "check", "names", "open_source", "preprocess", "source_digests", "summary"]
TARGET = "__target__"  # where a dataset's statistics have the target's
logger = logging.getLogger(__name__)


def preprocess(
    data: DataConfig, preprocess: PreprocessConfig, out: Path, *, root: Path, task: Task, rows: Path | None = None
) -> Dataset:
    """Read the source that `data` names, clean and split it, write a dataset at `out` and return it.

    Relative paths start at `root`. `rows` is read in place of `data.path` where an earlier step made them: the dataset
    says what they were by their digests, and nothing of where they lay. Raises DataError naming file and row,
    StorageError on a full disk; a run that ends early leaves nothing at `out`, and what it leaves beside it the next
    run removes.
    """
    threads, target = Settings().threads, target_of(task)
    read = data.model_copy(update={"path": str(rows.absolute())}) if rows else data
    source = open_source(read, preprocess, root)
    digests = source_digests(read, root)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with _alone(out), artifacts.new_folder(out) as folder, _scratch(out) as scratch:
        planned = plan(profile(source, data, target, threads), source, data, task, target)
        cleaner = Cleaner(planned, target, data, preprocess)
        work = Work(source, cleaner, Cleaning(), threads, Progress("preprocess", 2 * planned.total, "row"))
        index = work.clean(scratch)
        work.cleaning.settle()
        manifest = work.write(folder, index)
        manifest["cleaning"] = movable(manifest["cleaning"], base_of(read, root))
        made = lineage.made(plug_ins(root), task=task, data=data, preprocess=preprocess)
        about = {**manifest, "source": digests, "preprocess": preprocess.values(), "made": made}
        artifacts.seal(folder, DATASET_KIND, about)
    logger.info("%s", summary(manifest))
    return datasets.read(out)


def target_of(task: Task) -> Target:
    """Return what a task's target column is."""
    return tasks.named(task).target


def open_source(data: DataConfig, preprocess: PreprocessConfig, root: Path) -> OpenSource:
    """Open what `data` names, looking at headers only; raises DataError, StorageError for a URI that names nothing."""
    source: Source = plugins.load("sources", data.source, at="data.source")
    return source.open(base_of(data, root), data, preprocess, Settings().threads)


def check(data: DataConfig, root: Path) -> None:
    """Look at the source without reading it whole; raises DataError for what is wrong already."""
    _expected(data, open_source(data, PreprocessConfig(), root), root)


def source_digests(data: DataConfig, root: Path, only: Collection[Path] | None = None) -> dict[str, str]:
    """Return the sha256 of every source file by name, or only of some; raises DataError for a wrong one."""
    source = open_source(data, PreprocessConfig(unreadable="drop"), root)
    expected, digests = _expected(data, source, root), {}
    for name, path in names(source, base_of(data, root)).items():
        if only is not None and path not in only:
            continue
        digests[name] = artifacts.digest_file(path)
        if name in expected and expected[name] != digests[name]:
            raise DataError(
                f"{path}",
                expected=f"sha256 {expected[name]}",
                found=f"{digests[name]}",
                fix=("the file was changed or cut: bring the right one, or say the new digest in data.sha256"),
            )
    return digests


def base_of(data: DataConfig, root: Path) -> Path:
    """Return the file or folder that `data.path` names, as it is on this machine."""
    return storage.local(data.path, root)


def names(source: OpenSource, base: Path) -> dict[str, Path]:
    """Return the source's files by their names below the folder that the project gives."""
    folder = _folder(base)
    return {os.path.relpath(path, folder).replace(os.sep, "/"): path for path in source.files()}


def movable(cleaning: list[dict[str, Any]], base: Path) -> list[dict[str, Any]]:
    """Return what was cleaned, its examples placed below the source's folder: equal rows are one dataset anywhere."""
    above = f"{_folder(base)}{os.sep}"
    return [{**entry, "examples": [place.removeprefix(above) for place in entry["examples"]]} for entry in cleaning]


def _folder(base: Path) -> Path:
    return base if base.is_dir() else base.parent


def _expected(data: DataConfig, source: OpenSource, root: Path) -> dict[str, str]:
    """Return the expected digests: those of a data set that is known, and the project's over them."""
    base = base_of(data, root)
    there = names(source, base)
    for name in data.sha256:
        if name not in there:
            raise DataError(
                f"data.sha256 names {name}, which is not among the files read: {', '.join(list(there)[:8])}"
            )
    standard = {name: digest for name, digest in known.digests(base).items() if name in there}
    return {**standard, **data.sha256}


@dataclass(frozen=True)
class Work:
    """One preprocessing on its way, after the plan."""

    source: OpenSource
    cleaner: Cleaner
    cleaning: Cleaning
    threads: int
    progress: Progress

    def clean(self, scratch: Path) -> RowIndex:
        """Go through the rows once: note what is wrong with them, each row's hash, stratum and group."""
        group, target = self.cleaner.data.group, self.cleaner.target
        index = RowIndex(scratch, grouped=group is not None)

        def look(block: Block) -> tuple[CleanedRows, Array, Array | None]:
            rows = self.cleaner.rows(block)
            return rows, rows.contents(), text_hashes(rows.texts[group]) if group else None

        with index:
            for rows, content, groups in ordered(look, self.source.blocks(), self.threads):
                block = rows.block
                unreadable = [f"{bad.where} {bad.what}" for bad in block.bad]
                self.cleaning.add("unreadable", "", "dropped", len(block.bad), unreadable)
                self.cleaning.note(rows.notes)
                given = np.where(rows.keep, OPEN if block.split is None else CODES[block.split], DROPPED)
                index.add(content, target.strata(rows.target), given, groups)
                self.progress.update(len(block))
        return index

    def write(self, folder: Path, index: RowIndex) -> dict[str, Any]:
        """Split the rows and write them; return what the manifest says."""
        decision = self.split(index)
        fitted: dict[str, Statistic] = {}
        with self.writer(folder) as writer:
            step = self.sample_every(decision)
            dropped_at = self.write_rows(decision.codes, step, writer, lambda more: statistics.merge(fitted, more))
            counts = writer.finish()
        return self.manifest(decision, counts, fitted, dropped_at)

    def split(self, index: RowIndex) -> Decision:
        """Decide where each row goes; raises DataError when a split is empty or lacks what it must have."""
        preprocess = self.cleaner.preprocess
        decision = splitting.split(index, self.shares, preprocess.seed, preprocess.duplicates, self.source.given)
        self._check(index, decision)
        return decision

    @property
    def shares(self) -> dict[Split, float]:
        """The share of the rows that each split is to have."""
        return {split: getattr(self.cleaner.preprocess.split, split) for split in SPLITS}

    def sample_every(self, decision: Decision) -> int:
        """Say of how many training rows one is sampled for medians."""
        return statistics.sample_every(decision.rows("train"), len(self.cleaner.plan.fields))

    def writer(self, folder: Path, before: Mapping[Split, int] | None = None) -> shards.ShardWriter:
        """Open the shards of all rows, or of a part with so many rows of each split before it."""
        plan = self.cleaner.plan
        columns = shards.layout(plan, self.cleaner.target, self.cleaner.data.slices)
        return shards.ShardWriter(folder, columns, plan.row_bytes, self.threads, before)

    def manifest(
        self,
        decision: Decision,
        counts: dict[Split, int],
        fitted: dict[str, Statistic],
        dropped_at: dict[int, list[str]],
    ) -> dict[str, Any]:
        """Return what the manifest says of rows that were written, their statistics merged."""
        cleaner = self.cleaner
        copies, held = dropped_at[DUPLICATE], dropped_at[HELD]
        self.cleaning.add("equal to an earlier row", "", "dropped", decision.duplicates, copies)
        self.cleaning.add("equal to a row of a given test or validation set", "", "dropped", decision.held, held)
        self._note(decision)
        values = {name: statistic.values() for name, statistic in fitted.items()}
        target = cleaner.target.summary(values[TARGET], cleaner.plan.labels)
        return {
            "schema": self.schema(values).to_dict(),
            "statistics": {**values, TARGET: target},
            "rows": counts,
            "cleaning": self.cleaning.values(),
            "split": self.shares,
            "given": sorted(self.source.given),
            "seed": cleaner.preprocess.seed,
        }

    def write_rows(
        self, codes: Array, step: int, writer: shards.ShardWriter, take: Callable[[dict[str, Statistic]], None]
    ) -> dict[int, list[str]]:
        """Write every row to its split, `take` each block's statistics; return the first places of rows dropped.

        Of training rows one in `step` is sampled for medians.
        """
        slices = self.cleaner.data.slices
        dropped_at: dict[int, list[str]] = {DUPLICATE: [], HELD: []}

        def work(
            numbered: tuple[Block, Array],
        ) -> tuple[Block, Array, dict[Split, pa.RecordBatch], dict[str, Statistic]]:
            block, codes = numbered
            rows = self.cleaner.rows(block)
            index = {split: np.flatnonzero(codes == CODES[split]) for split in SPLITS}
            batches = {split: shards.batch(rows, at, writer.columns, slices) for split, at in index.items() if len(at)}
            return block, codes, batches, fit(rows, index["train"], self.cleaner, step)

        for block, marked, batches, fitted in ordered(work, self._decided(codes), self.threads):
            writer.add(batches)
            take(fitted)
            for code, places in dropped_at.items():
                rows = np.flatnonzero(marked == code)[: MAX_EXAMPLES - len(places)]
                places += [block.where(int(row)) for row in rows]
            self.progress.update(len(block))
        return dropped_at

    def _decided(self, codes: Array) -> Iterator[tuple[Block, Array]]:
        """Give each block with its rows' codes."""
        start = 0
        for block in self.source.blocks():
            yield block, codes[start : start + len(block)]
            start += len(block)

    def _check(self, index: RowIndex, decision: Decision) -> None:
        """Raise DataError when a split is empty, or a label of validation or test is in no training row."""
        plan = self.cleaner.plan
        for split in SPLITS:
            if not decision.rows(split):
                kept = sum(decision.rows(other) for other in SPLITS)
                raise DataError(
                    f"{self._where()}: the {split} split is empty",
                    fix=(
                        f"{kept} of {plan.total} rows are left after cleaning ({self._done(decision)}), too "
                        "few or too alike to divide"
                    ),
                )
        lost = splitting.unseen(index, decision, len(plan.labels)) if plan.labels else None
        if lost:
            row, label, split = lost
            raise DataError(
                f"{self._place(row)}: the label {plan.labels[label]!r} is in the {split} split and in no training row",
                fix="bring training rows of it, or remove it",
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

    def schema(self, statistics: dict[str, Any]) -> Schema:
        """Pin the schema: each kind what it learnt of the training rows, and whether a value may be missing."""
        plan, data = self.cleaner.plan, self.cleaner.data
        gaps = {
            column for reason, column, action in self.cleaning.entries if (reason, action) == ("missing", "imputed")
        }
        fields = tuple(
            kinds.of(draft).pin(
                draft, draft.name in gaps, data.ranges.get(draft.name, (None, None)), statistics[draft.name]
            )
            for draft in plan.fields
        )
        return Schema(plan.task, fields, data.target, plan.labels)


def fit(rows: CleanedRows, index: Array, cleaner: Cleaner, step: int) -> dict[str, Statistic]:
    """Return the statistics of a block's training rows, by field, and the target's."""
    if not len(index):
        return {}
    sampled = mix(rows.block.rows[index].astype(np.uint64)) % np.uint64(step) == 0
    fields = zip(rows.fields, rows.columns, strict=True)
    fitted = {field.name: kinds.of(field).fit(column, index, sampled) for field, column in fields}
    return {**fitted, TARGET: cleaner.target.fit(rows.target[index], cleaner.plan.labels)}


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
