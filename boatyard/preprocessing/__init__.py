"""Source files in, dataset out: read, cleaned, split without leakage, written as Parquet shards with their digests.

Three looks at the rows, each a block at a time: what the columns are (tables only), what each row is worth (its content's
hash, label, group: `splitting`), and the writing. What is held of a row in between is a byte in memory, 13 to 21 on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boatyard import artifacts, datasets
from boatyard.datasets import KIND, SPLITS, Dataset
from boatyard.errors import ConfigError, DataError
from boatyard.preprocessing import arrays, statistics
from boatyard.preprocessing.block import Bad, Block, Source
from boatyard.preprocessing.images import open_images
from boatyard.preprocessing.shards import Writer
from boatyard.preprocessing.splitting import (
    CODES,
    DROPPED,
    OPEN,
    Ledger,
    check_splits,
    decide,
    mix,
)
from boatyard.preprocessing.tables import (
    MOST_CATEGORIES,
    Seen,
    Table,
    categories_of,
    is_number,
    numbers_of,
    open_table,
    text_of,
)
from boatyard.progress import Progress
from boatyard.project import DataConfig, PreprocessConfig
from boatyard.schema import Array, Field, Schema, Task
from boatyard.settings import Settings

logger = logging.getLogger(__name__)
EXAMPLES = 5  # places that are named for each reason


def preprocess(config: DataConfig, how: PreprocessConfig, out: Path, *, root: Path, task: Task) -> Dataset:
    """Read the source that `config` names, clean and split it, write a dataset at `out` and return it.

    Relative paths start at `root`. Equal inputs give equal bytes. Raises DataError naming file and row, StorageError on
    a full disk; a run that ends early leaves nothing at `out`.
    """
    source = open_source(config, how, root)
    digests = source_digests(config, root)
    _clear_leftovers(out)
    with artifacts.new_folder(out) as folder, _scratch(out) as scratch:
        work = _Work(config, how, task, source)
        work.look()
        with work.count(scratch) as ledger:
            about = work.write(folder, ledger)
        artifacts.seal(folder, KIND, {**about, "source": digests, "preprocess": how.values()})
    logger.info("%s", summary(about))
    return datasets.read(out)


def open_source(config: DataConfig, how: PreprocessConfig, root: Path) -> Source:
    """Open what `data` names, looking at headers only; raises DataError."""
    path = locate(config.path, root)
    threads = Settings().threads
    if config.source == "idx":
        return arrays.open_idx(path)
    if config.source == "npz":
        return arrays.open_npz(path, config)
    if config.source == "npy":
        return arrays.open_npy(path, config)
    if config.source == "images":
        return open_images(path, how, threads)
    return open_table(path, config, how)


def locate(path: str, root: Path) -> Path:
    """Return the local path of `data.path`; raises ConfigError for a URI that is not file://."""
    if path.startswith("file://"):
        return Path(path.removeprefix("file://"))
    if "://" in path:
        raise ConfigError(f"data.path: wanted a file, a folder or a file:// URI, found {path}")
    return root / path


def check(config: DataConfig, root: Path) -> None:
    """Look at the source without reading it whole; raises DataError for what is wrong already."""
    source = open_source(config, PreprocessConfig(), root)
    _check_names(config, source)


def source_digests(config: DataConfig, root: Path) -> dict[str, str]:
    """Return the sha256 of every source file by name; raises DataError when one is not the digest that is wanted."""
    source = open_source(config, PreprocessConfig(unreadable="drop"), root)
    _check_names(config, source)
    base = locate(config.path, root)
    digests = {}
    for path in source.files():
        name = path.relative_to(base).as_posix() if base.is_dir() and path.is_relative_to(base) else path.name
        digests[name] = artifacts.digest_file(path)
        wanted = config.sha256.get(name, config.sha256.get(path.name))
        if wanted and wanted != digests[name]:
            raise DataError(f"{path}: wanted sha256 {wanted}, found {digests[name]}; the file was changed or cut")
    return digests


def _check_names(config: DataConfig, source: Source) -> None:
    names = {path.name for path in source.files()} | {str(path) for path in source.files()}
    lost = [name for name in config.sha256 if not any(full.endswith(name) for full in names)]
    if lost:
        raise DataError(
            f"data.sha256 names {lost[0]}, which is not among the files read: {', '.join(sorted(names)[:4])}"
        )


def summary(about: Mapping[str, Any]) -> str:
    """Say in a few lines what a dataset holds and what was done to its rows."""
    rows = ", ".join(f"{split} {about['rows'][split]}" for split in SPLITS)
    done = [
        f"{e['count']} {e['action']}: {e['reason']}" + (f" in {e['column']}" if e["column"] else "")
        for e in about["cleaning"]
    ]
    return f"rows: {rows}; " + ("; ".join(done) if done else "nothing to clean")


@dataclass
class Cleaning:
    """What was dropped or repaired, counted by reason and column, with the first places."""

    entries: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)

    def add(self, reason: str, column: str, action: str, count: int, examples: list[str]) -> None:
        """Count rows."""
        if count:
            key = (reason, column, action)
            entry = self.entries.setdefault(key, {"count": 0, "examples": []})
            entry["count"] += count
            entry["examples"] += examples[: EXAMPLES - len(entry["examples"])]

    def values(self) -> list[dict[str, Any]]:
        """Return the counts as JSON values."""
        return [{"reason": r, "column": c, "action": a, **entry} for (r, c, a), entry in self.entries.items()]


@dataclass
class Rows:
    """A block's usable rows, typed: numbers float64, categories as text, images as they are; `keep` says which stay."""

    block: Block
    keep: Array
    columns: dict[str, Any]
    texts: dict[str, pa.Array]


@dataclass
class _Work:
    """One preprocessing: its settings and what was learnt of the source so far."""

    config: DataConfig
    how: PreprocessConfig
    task: Task
    source: Source
    kinds: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = ""
    total: int = 0
    cleaning: Cleaning = field(default_factory=Cleaning)

    # First look: what the columns and the labels are

    def look(self) -> None:
        """Learn the kinds of the columns, the labels, the shape of an image; raises DataError."""
        seen: dict[str, Seen] = {}
        labels: set[str] = set()
        for block in self.source.blocks():
            self.total += len(block)
            if not len(block):
                continue
            self._look_at_target(block, labels)
            if isinstance(self.source, Table) and block.table is not None:
                for name in self.source.features:
                    column = text_of(block.table.column(name).combine_chunks())
                    seen.setdefault(name, Seen(name)).add(column, block.where)
            elif block.images is not None:
                self._look_at_images(block)
        if not self.total:
            raise DataError(f"{self.config.path} has no rows")
        self.kinds = {name: column.kind(self.config.columns) for name, column in seen.items()}
        for name, column in seen.items():
            if column.missing == self.total:
                raise DataError(f"column {name!r} has no value in any row; leave it out by data.features")
        if self.task == "classification":
            self.labels = self._order(labels)

    def _look_at_target(self, block: Block, labels: set[str]) -> None:
        texts = self._target(block)
        if self.task == "regression":
            return
        unique = pc.unique(texts).to_pylist()
        labels.update(unique)
        if len(labels) > MOST_CATEGORIES:
            raise DataError(
                f"the target {self.config.target!r} has more than {MOST_CATEGORIES} different values such as "
                f"{', '.join(repr(u) for u in unique[:3])}; for a number give task: regression"
            )

    def _look_at_images(self, block: Block) -> None:
        assert block.images is not None
        if block.images.ndim == 2:
            self.shape = (block.images.shape[1],)
        else:
            shape = block.images.shape[1:]
            self.shape = shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
        self.dtype = "uint8" if block.images.dtype == np.uint8 else "float32"
        if len(self.shape) == 1:
            self.kinds = dict.fromkeys(self._flat_names(), "number")

    def _flat_names(self) -> list[str]:
        width = len(str(self.shape[0] - 1))
        return [f"x{i:0{width}d}" for i in range(self.shape[0])]

    def _order(self, found: set[str]) -> tuple[str, ...]:
        """Return the labels in the order of the model's outputs: as the project names them, else sorted."""
        given = self.config.labels
        if given and not found <= set(given):
            numbers = {str(i) for i in range(len(given))}
            if not found <= numbers:
                odd = sorted(found - numbers - set(given))
                raise DataError(
                    f"data.labels names {len(given)} classes; {odd[0]!r} in the data is none of them nor of 0 to {len(given) - 1}"
                )
            return given
        if given:
            return given
        ordered = sorted(found, key=float) if all(is_number(label) for label in found) else sorted(found)
        if self.config.source == "idx":
            ordered = [str(i) for i in range(int(ordered[-1]) + 1)]
        if len(found) < 2:
            raise DataError(f"every row has the label {ordered[0]!r}; wanted two classes or more to tell apart")
        return tuple(ordered)

    def _target(self, block: Block) -> Any:
        """Return the target of a block: text for classification, float64 for regression; raises DataError."""
        column = text_of(block.target)
        if self.task == "classification":
            texts = categories_of(column)
            if (gone := pc.sum(pc.equal(texts, "")).as_py() or 0) > 0:
                at = pc.index(texts, value="").as_py()
                raise DataError(
                    f"{block.where(at)}: no label in {self.config.target!r} ({gone} so in this block); label it or remove it"
                )
            return texts
        values, odd = numbers_of(column)
        wrong = np.flatnonzero(odd | ~np.isfinite(values))
        if len(wrong):
            found = column[int(wrong[0])].as_py()
            raise DataError(
                f"{block.where(int(wrong[0]))}: the target {self.config.target!r} is {found!r}; wanted a finite number"
            )
        return values

    def _codes(self, block: Block) -> Array:
        """Return label indices int32 [N]; zeros for a regression."""
        if self.task == "regression":
            return np.zeros(len(block), np.int32)
        texts = self._target(block)
        known = pa.array(self.labels)
        found = pc.index_in(texts, value_set=known)
        if found.null_count:  # numbers in the data, names in the project
            found = pc.index_in(texts, value_set=pa.array([str(i) for i in range(len(self.labels))]))
        return found.to_numpy(zero_copy_only=False).astype(np.int32)

    # Second look: which rows are kept, what each is worth

    def _rows(self, block: Block, note: bool) -> Rows:
        """Type a block's columns and find the rows that the policies drop or repair; count them when `note`."""
        keep = np.ones(len(block), bool)
        columns: dict[str, Any] = {}
        texts = self._texts(block)
        if note:
            self._note_bad(block.bad)
        if isinstance(self.source, Table) and block.table is not None:
            for name in self.source.features:
                column = text_of(block.table.column(name).combine_chunks())
                columns[name] = (
                    self._number(name, column, keep, block, note)
                    if self.kinds[name] == "number"
                    else self._category(name, column, keep, block, note)
                )
        elif block.images is not None and len(self.shape) == 1:
            flat = block.images.astype(np.float64)
            for i, name in enumerate(self._flat_names()):
                columns[name] = self._checked(name, flat[:, i], np.zeros(len(block), bool), keep, block, note, None)
        elif block.images is not None:
            columns["image"] = self._pixels(block, keep, note)
        return Rows(block, keep, columns, texts)

    def _texts(self, block: Block) -> dict[str, pa.Array]:
        """Return the columns that are kept for slicing and grouping, as text."""
        names = [*self.config.slices, *([self.config.group] if self.config.group else [])]
        if block.table is None:
            return {}
        if not isinstance(self.source, Table):
            return {name: block.table.column("group").combine_chunks() for name in names}
        return {name: categories_of(text_of(block.table.column(name).combine_chunks())) for name in names}

    def _note_bad(self, bad: tuple[Bad, ...]) -> None:
        self.cleaning.add("unreadable", "", "dropped", len(bad), [f"{b.where} {b.what}" for b in bad[:EXAMPLES]])

    def _number(self, name: str, column: pa.Array, keep: Array, block: Block, note: bool) -> Array:
        values, odd = numbers_of(column)
        return self._checked(name, values, odd, keep, block, note, column)

    def _checked(
        self, name: str, values: Array, odd: Array, keep: Array, block: Block, note: bool, column: pa.Array | None
    ) -> Array:
        """Apply the policies to a column of numbers; return it repaired."""
        self._apply("unreadable", self.how.unreadable, name, odd, keep, block, note, column)
        low, high = self.config.ranges.get(name, (None, None))
        far = np.isinf(values) | (np.abs(values) > np.finfo(np.float32).max)
        if low is not None:
            far |= values < low
        if high is not None:
            far |= values > high
        if far.any():
            self._apply("out of range", self.how.out_of_range, name, far, keep, block, note, column)
            if self.how.out_of_range == "clip":
                edge = np.finfo(np.float32).max
                values = np.clip(values, -edge if low is None else low, edge if high is None else high)
        self._apply("missing", self.how.missing, name, np.isnan(values) & ~odd, keep, block, note, column)
        return values

    def _category(self, name: str, column: pa.Array, keep: Array, block: Block, note: bool) -> pa.Array:
        values = categories_of(column)
        gone = pc.equal(values, "").to_numpy(zero_copy_only=False)
        self._apply("missing", self.how.missing, name, gone, keep, block, note, column)
        return values

    def _pixels(self, block: Block, keep: Array, note: bool) -> Array:
        assert block.images is not None
        images = block.images.reshape(len(block), *self.shape)
        if self.dtype == "uint8":
            return images
        images = images.astype(np.float32)
        flat = images.reshape(len(images), -1)
        self._apply(
            "missing",
            "drop" if self.how.missing == "impute" else self.how.missing,
            "image",
            np.isnan(flat).any(1),
            keep,
            block,
            note,
            None,
        )
        self._apply(
            "out of range",
            "drop" if self.how.out_of_range == "clip" else self.how.out_of_range,
            "image",
            np.isinf(flat).any(1),
            keep,
            block,
            note,
            None,
        )
        return images

    def _apply(
        self,
        reason: str,
        policy: str,
        name: str,
        found: Array,
        keep: Array,
        block: Block,
        note: bool,
        column: pa.Array | None,
    ) -> None:
        """Do with the rows found what the policy says: refuse, drop or leave to be repaired; count them."""
        places = np.flatnonzero(found)
        if not len(places):
            return
        first = int(places[0])
        if policy == "refuse":
            value = f" {column[first].as_py()!r}" if column is not None else ""
            dial = {"unreadable": "unreadable", "missing": "missing", "out of range": "out_of_range"}[reason]
            raise DataError(
                f"{block.where(first)}: {name!r} is {reason}{value} ({len(places)} so in this block); "
                f"mend the data, or say preprocess.{dial}: drop"
            )
        if policy == "drop":
            keep[places] = False
        if note:
            action = {"drop": "dropped", "impute": "imputed", "clip": "clipped"}[policy]
            self.cleaning.add(reason, name, action, len(places), [block.where(int(i)) for i in places[:EXAMPLES]])

    def _contents(self, rows: Rows) -> Array:
        """Return a hash of each row's features, uint64 [N]: equal rows, equal hashes."""
        if "image" in rows.columns:
            images = np.ascontiguousarray(rows.columns["image"])
            data, size = images.tobytes(), images[:1].nbytes
            ends = range(0, len(data), size)
            hashed = b"".join(hashlib.blake2b(data[at : at + size], digest_size=8).digest() for at in ends)
            return np.frombuffer(hashed, "<u8")
        total = np.zeros(len(rows.block), np.uint64)
        for number, column in enumerate(rows.columns.values()):
            bits = _text_hashes(column) if isinstance(column, pa.Array) else _number_bits(column)
            with np.errstate(over="ignore"):
                total = mix(total * np.uint64(31) + mix(bits + np.uint64(number)))
        return total

    @contextmanager
    def count(self, scratch: Path) -> Iterator[Ledger]:
        """Go through the rows once: drop by policy, note each row's hash, label and group."""
        ledger = Ledger(scratch, grouped=self.config.group is not None)
        progress = Progress("preprocess", 2 * self.total, "row")
        with contextlib.closing(ledger):
            for block in self.source.blocks():
                self._count(block, ledger)
                progress.update(len(block))
        yield ledger

    def _count(self, block: Block, ledger: Ledger) -> None:
        if not len(block):
            self._note_bad(block.bad)
            return
        rows = self._rows(block, note=True)
        given = np.full(len(block), OPEN if block.split is None else CODES[block.split], np.uint8)
        given[~rows.keep] = DROPPED
        group = _text_hashes(rows.texts[self.config.group]) if self.config.group else None
        ledger.add(self._contents(rows), self._codes(block), given, group)

    # Third look: writing

    def write(self, folder: Path, ledger: Ledger) -> dict[str, Any]:
        """Divide the rows and write them; return what the manifest says."""
        shares: dict[str, float] = {split: getattr(self.how.split, split) for split in SPLITS}
        decision = decide(ledger, shares, self.how.seed, self.how.duplicates, self.source.has_test)
        self.cleaning.add("equal to an earlier row", "", "dropped", decision.duplicates, [])
        self.cleaning.add("equal to a row of the test set", "", "dropped", decision.also_test, [])
        self.cleaning.add("equal rows with contradicting labels", "", "kept in one split", decision.conflicts, [])
        check_splits(decision.codes, ledger.read("label"), self.labels or ("",))
        gathered = self._gather(decision.codes)
        writer = Writer(folder, self._layout(), self._row_bytes(), Settings().threads)
        progress = Progress("preprocess", 2 * self.total, "row")
        progress.update(self.total)
        start = 0
        try:
            for block in self.source.blocks():
                if len(block):
                    self._write(block, decision.codes[start : start + len(block)], writer, gathered)
                start += len(block)
                progress.update(len(block))
            counts = writer.close()
        finally:
            writer.abandon()
        return {
            "schema": self._schema(gathered).to_dict(),
            "statistics": {name: gathered[name].values() for name in gathered} | self._target_statistics(gathered),
            "rows": counts,
            "cleaning": self.cleaning.values(),
            "split": shares,
            "seed": self.how.seed,
            "given_test": self.source.has_test,
        }

    def _gather(self, codes: Array) -> dict[str, Any]:
        """Make the statistics to be filled, by field, and the target's."""
        made: dict[str, Any] = {}
        if len(self.shape) >= 2:
            made["image"] = statistics.Pixels(self.shape[2] if len(self.shape) == 3 else 1, self.dtype == "uint8")
        else:
            made = {n: statistics.Moments() if k == "number" else statistics.Counts() for n, k in self.kinds.items()}
        made["__target__"] = statistics.Counts() if self.task == "classification" else statistics.Moments()
        self.every = max(1, -(-int((codes == CODES["train"]).sum()) // statistics.SAMPLE))
        return made

    def _write(self, block: Block, codes: Array, writer: Writer, gathered: dict[str, Any]) -> None:
        rows = self._rows(block, note=False)
        labels = self._codes(block)
        target = labels if self.task == "classification" else self._target(block).astype(np.float32)
        for split in SPLITS:
            index = np.flatnonzero(codes == CODES[split])
            if not len(index):
                continue
            writer.add(split, self._batch(rows, index, target))
            if split == "train":
                self._measure(rows, index, target, gathered)

    def _batch(self, rows: Rows, index: Array, target: Array) -> pa.RecordBatch:
        found: list[pa.Array] = [pa.array(rows.block.rows[index])]
        found.append(pa.array(target[index].astype(np.int64 if self.task == "classification" else np.float32)))
        for column in rows.columns.values():
            if isinstance(column, pa.Array):
                found.append(column.take(pa.array(index)))
            elif column.ndim > 1:
                found.append(_binary(column[index]))
            else:
                found.append(pa.array(column[index].astype(np.float32)))
        found += [rows.texts[name].take(pa.array(index)) for name in self._kept_texts()]
        return pa.record_batch(found, self._layout())

    def _measure(self, rows: Rows, index: Array, target: Array, gathered: dict[str, Any]) -> None:
        sampled = rows.block.rows[index] % self.every == 0
        for name, column in rows.columns.items():
            if isinstance(column, pa.Array):
                gathered[name].add(column.take(pa.array(index)))
            elif column.ndim > 1:
                gathered[name].add(column[index])
            else:
                gathered[name].add(column[index].astype(np.float32).astype(np.float64), sampled)
        if self.task == "classification":
            gathered["__target__"].add(pa.array([self.labels[code] for code in target[index]]))
        else:
            gathered["__target__"].add(target[index].astype(np.float64), sampled)

    def _target_statistics(self, gathered: dict[str, Any]) -> dict[str, Any]:
        value = gathered["__target__"].values()
        if self.task == "classification":
            return {"__target__": {"counts": {label: value["counts"].get(label, 0) for label in self.labels}}}
        return {"__target__": {key: value[key] for key in ("mean", "std", "min", "max")}}

    def _kept_texts(self) -> list[str]:
        return list(self.config.slices)

    def _layout(self) -> pa.Schema:
        kind = pa.int64() if self.task == "classification" else pa.float32()
        fields = [("row", pa.int64()), ("target", kind)]
        if len(self.shape) >= 2:
            fields.append(("field:image", pa.binary(self._row_bytes())))
        else:
            types = {"number": pa.float32(), "category": pa.string()}
            fields += [(f"field:{name}", types[kind_]) for name, kind_ in self.kinds.items()]
        return pa.schema([*fields, *((f"slice:{name}", pa.string()) for name in self._kept_texts())])

    def _row_bytes(self) -> int:
        if len(self.shape) >= 2:
            return int(np.prod(self.shape)) * (1 if self.dtype == "uint8" else 4)
        return 16 + sum(4 if kind == "number" else 16 for kind in self.kinds.values())

    def _schema(self, gathered: dict[str, Any]) -> Schema:
        """Pin the schema: what was seen in training is what is known."""
        if len(self.shape) >= 2:
            dtype = "uint8" if self.dtype == "uint8" else "float32"
            fields: tuple[Field, ...] = (Field("image", "image", dtype, self.shape),)  # type: ignore[arg-type]
        else:
            fields = tuple(self._field(name, gathered[name]) for name in self.kinds)
        return Schema(self.task, fields, self.config.target, self.labels)

    def _field(self, name: str, gathered: Any) -> Field:
        low, high = self.config.ranges.get(name, (None, None))
        touched = {(e["reason"], e["column"], e["action"]) for e in self.cleaning.values()}
        nullable = ("missing", name, "imputed") in touched
        if isinstance(gathered, statistics.Counts):
            values = gathered.values()["counts"]
            return Field(name, "category", "str", nullable=nullable, categories=tuple(values))
        return Field(name, "number", "float32", nullable=nullable, minimum=low, maximum=high)


def _number_bits(values: Array) -> Array:
    """Return the bits of float64 values as the model sees them, float32; both zeros and all NaNs are one."""
    with np.errstate(over="ignore"):
        seen = values.astype(np.float32) + np.float32(0)
    seen[np.isnan(seen)] = np.nan
    return seen.view(np.uint32).astype(np.uint64)


def _text_hashes(values: pa.Array) -> Array:
    """Return a hash of each text, uint64 [N]; each different text is hashed once."""
    coded = pc.dictionary_encode(values)
    hashes = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in coded.dictionary.to_pylist()]
    return np.frombuffer(b"".join(hashes), "<u8")[coded.indices.to_numpy()] if hashes else np.zeros(0, np.uint64)


def _binary(images: Array) -> pa.Array:
    """Return images as one binary value a row."""
    flat = np.ascontiguousarray(images).reshape(len(images), -1).view(np.uint8)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(flat.shape[1]), len(flat), [None, pa.py_buffer(flat)])


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Give a folder for what is noted of the rows, on the disk that the dataset goes to."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".notes", dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_leftovers(out: Path) -> None:
    """Remove what a killed run left beside `out`."""
    for left in (*out.parent.glob(f".{out.name}.*.part"), *out.parent.glob(f".{out.name}.*.notes")):
        shutil.rmtree(left, ignore_errors=True)
