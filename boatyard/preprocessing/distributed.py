"""Preprocessing shared out: each machine has a part of the source's files, and the dataset is the same bytes.

    look (each part) → plan → clean (each part) → divide → write (each part) → join

What a part hands on merges as blocks do on one machine, in the rows' order: what its columns are, 21 bytes noted of a
row, its blocks' statistics, and its shards; of a shard that two parts share each leaves a piece. A part is a sealed
folder that says which one of how many it is, so that one that is missing, doubled or emptied is seen.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boatyard.data import artifacts, datasets
from boatyard.data.datasets import KIND, SPLITS, Dataset, Split
from boatyard.data.schema import Array, Task
from boatyard.errors import ArtifactError, DataError
from boatyard.preprocessing import Work, open_source, shards, source_digests, statistics
from boatyard.preprocessing.block import Place, Source
from boatyard.preprocessing.cleaning import Cleaner, Cleaning, table_features
from boatyard.preprocessing.columns import Seen
from boatyard.preprocessing.sources.images import Pictures
from boatyard.preprocessing.sources.tables import Table
from boatyard.preprocessing.splitting import CODES, Decision, Ledger
from boatyard.preprocessing.statistics import Counts, Moments, Pixels, Statistic
from boatyard.preprocessing.survey import Glance, Plan, check_labels, look_through, planned
from boatyard.project import DataConfig, PreprocessConfig
from boatyard.running.progress import Progress
from boatyard.settings import Settings

PART = "part of a dataset"
NUMBERS = ("count", "missing", "mean", "squares", "low", "high")  # of Moments, float64 each


@dataclass(frozen=True)
class Job:
    """What is preprocessed, and how; relative paths start at `root`."""

    config: DataConfig
    how: PreprocessConfig
    task: Task
    root: Path

    def source(self) -> Source:
        """Open all of it."""
        return open_source(self.config, self.how, self.root)

    def work(self, plan: Plan, source: Source) -> Work:
        """Return the work on a source, or a part of one, that was planned."""
        cleaner = Cleaner(plan, self.config, self.how, table_features(source))
        progress = Progress("preprocess", plan.total, "row")
        return Work(source, cleaner, Cleaning(), Settings().threads, progress)


def share(source: Source, part: int, of: int, first: int = 0) -> Source:
    """Return a part of a source: neighbouring files of about equal bytes, whose first row has the number `first`.

    A part may be empty. Raises DataError for a source that is not made of files.
    """
    if isinstance(source, Table):
        sizes = [path.stat().st_size for path in source.paths]
        return replace(source, paths=tuple(source.paths[i] for i in _range(sizes, part, of)), first=first)
    if isinstance(source, Pictures):
        return replace(source, share=_range([len(one) for one in source.cut()], part, of))
    raise DataError("only tables and folders of images are shared out; remove kubeflow.workers")


def _range(sizes: Sequence[int], part: int, of: int) -> range:
    """Return which of neighbours with these sizes are a part's: those whose middle lies in its share of the sum."""
    ends = np.cumsum([max(size, 1) for size in sizes])
    middles = ends - np.array([max(size, 1) for size in sizes]) / 2
    low, high = (int(np.searchsorted(middles, ends[-1] * k / of)) for k in (part, part + 1))
    return range(low, high)


def look(job: Job, part: int, of: int, out: Path) -> None:
    """Look through a part: what its columns are, and its files' digests."""
    mine = share(job.source(), part, of)
    found = look_through(mine, job.config, job.task, Settings().threads)
    with artifacts.new_folder(out) as folder:
        digests = source_digests(job.config, job.root, frozenset(mine.files()))
        _seal(folder, "look", {"part": part, "of": of, "glance": _glance(found), "digests": digests})


def plan(job: Job, looks: Sequence[Path], out: Path) -> None:
    """Bring together what was seen: what the columns of all rows are; raises DataError for what cannot be learnt."""
    found, digests, firsts = Glance(), {}, []
    for about in _all(looks, "look"):
        firsts.append(found.total)
        found.merge(_seen(about["glance"]))
        digests.update(about["digests"])
        check_labels(found, job.config, job.task)
    source = job.source()
    made = planned(found, source, job.config, job.task)
    missing = len(source.files()) - len(digests)
    if missing:
        raise DataError(f"{source.files()[0].parent}: its files changed while they were read ({missing:+}); run again")
    with artifacts.new_folder(out) as folder:
        _seal(folder, "plan", {"plan": asdict(made), "firsts": firsts, "digests": digests})


def clean(job: Job, planned: Path, part: int, of: int, out: Path) -> None:
    """Note what is wrong with a part's rows, and each row's hash, label and group."""
    made, firsts, _ = _planned(planned)
    work = job.work(made, share(job.source(), part, of, firsts[part]))
    with artifacts.new_folder(out) as folder:
        ledger = work.note(folder)
        _seal(folder, "clean", {"part": part, "of": of, "rows": ledger.count, **_cleaned(work.cleaning)})


def divide(job: Job, planned: Path, cleaned: Sequence[Path], out: Path) -> None:
    """Decide for every row of all parts where it goes; raises DataError as on one machine."""
    made, _, _ = _planned(planned)
    abouts = list(_all(cleaned, "clean"))
    work = job.work(made, job.source())
    for about in abouts:
        _take(work.cleaning, about)
    work.cleaning.settle()
    with artifacts.new_folder(out) as folder, tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        ledger = _joined(_in_order(cleaned, "clean"), Path(scratch), grouped=job.config.group is not None)
        decision = work.decide(ledger)
        decision.codes.tofile(folder / "codes")
        rows = [about["rows"] for about in abouts]
        said = {key: value for key, value in vars(decision).items() if key != "codes"}
        about = {"decision": said, "rows": rows, "before": _before(decision.codes, rows), "every": work.every(decision)}
        _seal(folder, "divide", {**about, **_cleaned(work.cleaning)})


def write(job: Job, planned: Path, divided: Path, part: int, of: int, out: Path) -> None:
    """Write a part's rows to their splits, and its training rows' statistics."""
    made, firsts, _ = _planned(planned)
    about = _read(divided, "divide")
    work = job.work(made, share(job.source(), part, of, firsts[part]))
    start = sum(about["rows"][:part])
    codes = np.fromfile(divided / "codes", np.uint8, about["rows"][part], offset=start)
    found: list[dict[str, Statistic]] = []
    with artifacts.new_folder(out) as folder:
        with work.writer(folder, about["before"][part]) as writer:
            again = work.sort(codes, about["every"], writer, found.append)
            writer.finish()
        _save(folder, found)
        _seal(folder, "write", {"part": part, "of": of, "again": {str(code): where for code, where in again.items()}})


def join(job: Job, planned: Path, divided: Path, written: Sequence[Path], out: Path) -> Dataset:
    """Bring the parts together: the dataset that one machine makes, byte for byte."""
    made, _, digests = _planned(planned)
    about = _read(divided, "divide")
    decision = Decision(np.fromfile(divided / "codes", np.uint8), **_tuples(about["decision"]))
    work = job.work(made, job.source())
    _take(work.cleaning, about)
    again: dict[int, list[str]] = {}
    found: dict[str, Statistic] = {}
    folders = _in_order(written, "write")
    for folder, said in zip(folders, _all(written, "write"), strict=True):
        for code, where in said["again"].items():
            places = again.setdefault(int(code), [])
            places += where[: 5 - len(places)]
        for more in _load(folder):
            statistics.merge(found, more)
    counts: dict[Split, int] = {split: decision.rows(split) for split in SPLITS}
    with artifacts.new_folder(out) as folder:
        shards.join(folders, folder)
        source = {name: digests[name] for name in _order(job)}
        values = work.about(decision, counts, found, again)
        artifacts.seal(folder, KIND, {**values, "source": source, "preprocess": job.how.values()})
    return datasets.read(out)


def _order(job: Job) -> Iterator[str]:
    """Give the source's files by name, in the order that one machine lists their digests."""
    from boatyard import preprocessing, storage

    yield from preprocessing.names(job.source(), storage.local(job.config.path, job.root))


def _seal(folder: Path, phase: str, about: dict[str, Any]) -> None:
    artifacts.seal(folder, PART, {"phase": phase, **about})


def _read(path: Path, phase: str) -> dict[str, Any]:
    """Return what a part says of itself, its files as they were sealed; raises ArtifactError."""
    about = artifacts.verify(path, PART)
    if about.get("phase") != phase:
        raise ArtifactError(f"{path}: expected what {phase} leaves, found what {about.get('phase')} left")
    return about


def _all(paths: Iterable[Path], phase: str) -> Iterator[dict[str, Any]]:
    """Give what all parts say of themselves, in their order; raises ArtifactError when one is missing or doubled."""
    found = sorted((_read(path, phase) for path in paths), key=lambda about: int(about["part"]))
    of = int(found[0]["of"]) if found else 0
    if not found or [int(about["part"]) for about in found] != list(range(of)):
        numbers = ", ".join(str(about["part"]) for about in found) or "none"
        raise ArtifactError(
            f"expected parts 0 to {of - 1} of what {phase} leaves, found {numbers}; run those steps again"
        )
    yield from found


def _in_order(paths: Sequence[Path], phase: str) -> list[Path]:
    return sorted(paths, key=lambda path: int(_read(path, phase)["part"]))


def _planned(path: Path) -> tuple[Plan, list[int], dict[str, str]]:
    about = _read(path, "plan")
    return Plan(**_tuples(about["plan"])), about["firsts"], about["digests"]


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@dataclass(frozen=True)
class _Told(Place):
    """A place that another machine said in words."""

    def __call__(self, index: int) -> str:
        return self.file


def _glance(found: Glance) -> dict[str, Any]:
    place, row, value = found.first or (None, 0, "")
    return {
        "total": found.total,
        "columns": [{**vars(seen), "texts": sorted(seen.texts)} for seen in found.columns.values()],
        "labels": sorted(found.labels),
        "unlabelled": found.unlabelled,
        "first": [place(row), value] if place else None,
        "shape": list(found.shape),
        "dtype": found.dtype,
    }


def _seen(value: dict[str, Any]) -> Glance:
    columns = {one["name"]: Seen(**{**one, "texts": set(one["texts"])}) for one in value["columns"]}
    first = (_Told(value["first"][0], np.zeros(0)), 0, value["first"][1]) if value["first"] else None
    shape, labels = tuple(value["shape"]), set(value["labels"])
    return Glance(value["total"], columns, labels, value["unlabelled"], first, shape, value["dtype"])


def _cleaned(cleaning: Cleaning) -> dict[str, Any]:
    return {
        "cleaning": [[*key, entry["count"], entry["examples"]] for key, entry in cleaning.entries.items()],
        "refused": [[*key, *said] for key, said in cleaning.refused.items()],
    }


def _take(cleaning: Cleaning, about: dict[str, Any]) -> None:
    """Take in what was done to the rows of the next part."""
    for reason, column, action, count, examples in about["cleaning"]:
        cleaning.add(reason, column, action, count, examples)
    for reason, column, said, policy in about["refused"]:
        cleaning.refused.setdefault((reason, column), (said, policy))


def _joined(folders: Sequence[Path], scratch: Path, grouped: bool) -> Ledger:
    """Put the notes of all parts one after the other."""
    ledger = Ledger(scratch, grouped)
    with ledger:
        for folder in folders:
            ledger.take(folder)
    return ledger


def _before(codes: Array, rows: Sequence[int]) -> list[dict[str, int]]:
    """Return for each part how many rows of each split the parts before it have."""
    ends = np.cumsum([0, *rows])
    found, so_far = [], dict.fromkeys(map(str, SPLITS), 0)
    for start, end in itertools.pairwise(ends):
        found.append(dict(so_far))
        for split in SPLITS:
            so_far[split] += int(np.count_nonzero(codes[start:end] == CODES[split]))
    return found


def _save(folder: Path, blocks: Sequence[dict[str, Statistic]]) -> None:
    """Write statistics block by block, since sums of floats depend on their order; what is exact is merged."""
    index: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for number, name in enumerate(dict.fromkeys(name for block in blocks for name in block)):
        found = [block[name] for block in blocks if name in block]
        index.append({"name": name, **_packed(found, arrays, str(number))})
    artifacts.write_json(folder / "statistics.json", index)
    np.savez(folder / "statistics.npz", **arrays)  # type: ignore[arg-type]


def _packed(found: Sequence[Any], arrays: dict[str, Array], key: str) -> dict[str, Any]:
    """Return what JSON holds of a field's statistics; their floats go to arrays."""
    first = found[0]
    if isinstance(first, Moments):
        arrays[f"{key}.moments"] = np.array([[getattr(one, name) for name in NUMBERS] for one in found], np.float64)
        kept = [part for one in found for part in one.kept]
        if kept:
            arrays[f"{key}.kept"] = np.concatenate(kept)
        return {"kind": "moments"}
    if isinstance(first, Pixels) and first.moments:
        arrays[f"{key}.pixels"] = np.array([[one.count, one.low, one.high] for one in found], np.float64)
        for channel in range(len(first.moments)):
            _packed([one.moments[channel] for one in found], arrays, f"{key}.{channel}")
        return {"kind": "floats", "channels": len(first.moments)}
    whole: dict[str, Statistic] = {}
    for one in found:
        statistics.merge(whole, {key: one})
    if isinstance(first, Counts):
        return {"kind": "counts", "seen": dict(whole[key].seen)}  # type: ignore[union-attr]
    return {"kind": "pixels", **{name: value for name, value in vars(whole[key]).items() if name != "moments"}}


def _load(folder: Path) -> Iterator[dict[str, Statistic]]:
    """Give back the statistics that `_save` wrote, in the order to merge them in."""
    index = json.loads((folder / "statistics.json").read_bytes())
    with np.load(folder / "statistics.npz", allow_pickle=False) as arrays:
        for number, entry in enumerate(index):
            for one in _unpacked(entry, arrays, str(number)):
                yield {entry["name"]: one}


def _unpacked(entry: dict[str, Any], arrays: Any, key: str) -> list[Any]:
    if entry["kind"] == "moments":
        found = []
        for numbers in arrays[f"{key}.moments"].tolist():
            count, missing, *rest = numbers
            found.append(Moments(int(count), int(missing), *rest))
        found[0].kept = [arrays[f"{key}.kept"]] if f"{key}.kept" in arrays else []
        return found
    if entry["kind"] == "floats":
        channels = [_unpacked({"kind": "moments"}, arrays, f"{key}.{channel}") for channel in range(entry["channels"])]
        numbers = arrays[f"{key}.pixels"].tolist()
        return [
            Pixels(int(n), [], [], low, high, list(c)) for (n, low, high), *c in zip(numbers, *channels, strict=True)
        ]
    if entry["kind"] == "counts":
        return [Counts(Counter(entry["seen"]))]
    return [Pixels(**{name: entry[name] for name in ("count", "sums", "squares", "low", "high")}, moments=[])]
