"""Preprocessing shared out: each machine has a part of the source's files, and the dataset is the same bytes.

    profile (each part) → plan → clean (each part) → split → write (each part) → merge

What a part hands on merges as blocks do on one machine, in the rows' order: what its columns are, 21 bytes noted of a
row, its blocks' statistics, and its shards; of a shard that two parts share each leaves a piece. A part is a sealed
folder that says which one of how many it is, so that one that is missing, doubled or emptied is seen.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boatyard.data import artifacts, datasets, kinds, lineage, statistics
from boatyard.data.columns import ColumnProfile
from boatyard.data.datasets import DATASET_KIND, SPLITS, Dataset, Split
from boatyard.data.rounding import Rounding
from boatyard.data.schema import Array, Task
from boatyard.data.statistics import Statistic
from boatyard.errors import ArtifactError, DataError
from boatyard.preprocessing import profile as profiles
from boatyard.preprocessing import shards
from boatyard.preprocessing.block import Place
from boatyard.preprocessing.cleaning import MAX_EXAMPLES, Cleaner, Cleaning
from boatyard.preprocessing.profile import DataPlan, Profile
from boatyard.preprocessing.sources.base import OpenSource
from boatyard.preprocessing.splitting import CODES, Decision, RowIndex
from boatyard.preprocessing.work import (
    TARGET,
    Work,
    base_of,
    movable,
    names,
    open_source,
    source_digests,
    target_of,
)
from boatyard.project import DataConfig, PreprocessConfig
from boatyard.provenance import plug_ins
from boatyard.running.progress import Progress
from boatyard.settings import Settings
from boatyard.tasks.targets import Target

PART = "part of a dataset"


@dataclass(frozen=True)
class PreprocessJob:
    """What is preprocessed, and how; relative paths start at `root`."""

    data: DataConfig
    preprocess: PreprocessConfig
    task: Task
    root: Path

    def source(self) -> OpenSource:
        """Open all of it."""
        return open_source(self.data, self.preprocess, self.root)

    @property
    def target(self) -> Target:
        """What the task's target column is."""
        return target_of(self.task)

    def work(self, plan: DataPlan, source: OpenSource) -> Work:
        """Return the work on a source, or a part of one, that was planned."""
        cleaner = Cleaner(plan, self.target, self.data, self.preprocess)
        progress = Progress("preprocess", plan.total, "row")
        return Work(source, cleaner, Cleaning(), Settings().threads, progress)


def profile(job: PreprocessJob, part: int, of: int, out: Path) -> None:
    """Profile a part: what its columns are, and its files' digests."""
    mine = job.source().share(part, of)
    found = profiles.profile(mine, job.data, job.target, Settings().threads)
    with artifacts.new_folder(out) as folder:
        digests = source_digests(job.data, job.root, frozenset(mine.files()))
        _seal(folder, "profile", {"part": part, "of": of, "profile": _profile_values(found), "digests": digests})


def plan(job: PreprocessJob, profiled: Sequence[Path], out: Path) -> None:
    """Merge the profiles: what the columns of all rows are; raises DataError for what cannot be learnt from."""
    total, digests, firsts = Profile(), {}, []
    for about in _all(profiled, "profile"):
        firsts.append(total.total)
        total.merge(_profile_of(about["profile"]))
        digests.update(about["digests"])
        job.target.check_labels(total.labels, job.data)
    source = job.source()
    made = profiles.plan(total, source, job.data, job.task, job.target)
    missing = len(source.files()) - len(digests)
    if missing:
        raise DataError(
            f"{source.files()[0].parent}: its files changed while they were read ({missing:+})", fix="run again"
        )
    with artifacts.new_folder(out) as folder:
        _seal(folder, "plan", {"plan": asdict(made), "firsts": firsts, "digests": digests})


def clean(job: PreprocessJob, planned: Path, part: int, of: int, out: Path) -> None:
    """Note what is wrong with a part's rows, and each row's hash, label and group."""
    plan, firsts, _ = _planned(planned)
    work = job.work(plan, job.source().share(part, of, firsts[part]))
    with artifacts.new_folder(out) as folder:
        index = work.clean(folder)
        _seal(folder, "clean", {"part": part, "of": of, "rows": index.count, **_cleaned(work.cleaning)})


def split(job: PreprocessJob, planned: Path, cleaned: Sequence[Path], out: Path) -> None:
    """Decide for every row of all parts where it goes; raises DataError as on one machine."""
    plan, _, _ = _planned(planned)
    abouts = list(_all(cleaned, "clean"))
    work = job.work(plan, job.source())
    for about in abouts:
        _take(work.cleaning, about)
    work.cleaning.settle()
    with artifacts.new_folder(out) as folder, tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        index = _joined(_in_order(cleaned, "clean"), Path(scratch), grouped=job.data.group is not None)
        decision = work.split(index)
        decision.codes.tofile(folder / "codes")
        rows = [about["rows"] for about in abouts]
        counts = {key: value for key, value in vars(decision).items() if key != "codes"}
        step = work.sample_every(decision)
        about = {"decision": counts, "rows": rows, "before": _before(decision.codes, rows), "sample_every": step}
        _seal(folder, "split", {**about, **_cleaned(work.cleaning)})


def write(job: PreprocessJob, planned: Path, divided: Path, part: int, of: int, out: Path) -> None:
    """Write a part's rows to their splits, and its training rows' statistics."""
    plan, firsts, _ = _planned(planned)
    about = _read(divided, "split")
    work = job.work(plan, job.source().share(part, of, firsts[part]))
    start = sum(about["rows"][:part])
    codes = np.fromfile(divided / "codes", np.uint8, about["rows"][part], offset=start)
    blocks: list[dict[str, Statistic]] = []
    with artifacts.new_folder(out) as folder:
        with work.writer(folder, about["before"][part]) as writer:
            dropped_at = work.write_rows(codes, about["sample_every"], writer, blocks.append)
            writer.finish()
        _save(folder, blocks)
        places = {str(code): where for code, where in dropped_at.items()}
        _seal(folder, "write", {"part": part, "of": of, "dropped_at": places})


def merge(job: PreprocessJob, planned: Path, divided: Path, written: Sequence[Path], out: Path) -> Dataset:
    """Merge the parts: the dataset that one machine makes, byte for byte."""
    plan, _, digests = _planned(planned)
    about = _read(divided, "split")
    decision = Decision(np.fromfile(divided / "codes", np.uint8), **_tuples(about["decision"]))
    work = job.work(plan, job.source())
    _take(work.cleaning, about)
    dropped_at: dict[int, list[str]] = {}
    fitted: dict[str, Statistic] = {}
    folders = _in_order(written, "write")
    for folder, part in zip(folders, _all(written, "write"), strict=True):
        for code, where in part["dropped_at"].items():
            places = dropped_at.setdefault(int(code), [])
            places += where[: MAX_EXAMPLES - len(places)]
        for more in _load(folder, _statistics(plan, job.target)):
            statistics.merge(fitted, more)
    counts: dict[Split, int] = {split: decision.rows(split) for split in SPLITS}
    with artifacts.new_folder(out) as folder:
        shards.merge(folders, folder)
        source = {name: digests[name] for name in _order(job)}
        values = work.manifest(decision, counts, fitted, dropped_at)
        values["cleaning"] = movable(values["cleaning"], base_of(job.data, job.root))
        made = lineage.made(plug_ins(job.root), task=job.task, data=job.data, preprocess=job.preprocess)
        about = {**values, "source": source, "preprocess": job.preprocess.values(), "made": made}
        artifacts.seal(folder, DATASET_KIND, about)
    return datasets.read(out)


def _order(job: PreprocessJob) -> Iterator[str]:
    """Give the source's files by name, in the order that one machine lists their digests."""
    yield from names(job.source(), base_of(job.data, job.root))


def _seal(folder: Path, phase: str, about: dict[str, Any]) -> None:
    artifacts.seal(folder, PART, {"phase": phase, **about})


def _read(path: Path, phase: str) -> dict[str, Any]:
    """Return what a part says of itself, its files as they were sealed; raises ArtifactError."""
    about = artifacts.verify(path, PART)
    if about.get("phase") != phase:
        raise ArtifactError(f"{path}", expected=f"what {phase} leaves", found=f"what {about.get('phase')} left")
    return about


def _all(paths: Iterable[Path], phase: str) -> Iterator[dict[str, Any]]:
    """Give what all parts say of themselves, in their order; raises ArtifactError when one is missing or doubled."""
    found = sorted((_read(path, phase) for path in paths), key=lambda about: int(about["part"]))
    of = int(found[0]["of"]) if found else 0
    if not found or [int(about["part"]) for about in found] != list(range(of)):
        numbers = ", ".join(str(about["part"]) for about in found) or "none"
        raise ArtifactError(
            expected=f"parts 0 to {of - 1} of what {phase} leaves", found=f"{numbers}", fix="run those steps again"
        )
    yield from found


def _in_order(paths: Sequence[Path], phase: str) -> list[Path]:
    return sorted(paths, key=lambda path: int(_read(path, phase)["part"]))


def _planned(path: Path) -> tuple[DataPlan, list[int], dict[str, str]]:
    about = _read(path, "plan")
    return DataPlan(**_tuples(about["plan"])), about["firsts"], about["digests"]


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@dataclass(frozen=True)
class RemotePlace(Place):
    """A place that another machine said in words."""

    def __call__(self, index: int) -> str:
        return self.file


def _profile_values(profile: Profile) -> dict[str, Any]:
    """Return a part's profile as JSON values; a place is said in words, its file is on this machine."""
    place, row, value = profile.first or (None, 0, "")
    return {
        "total": profile.total,
        "columns": [
            {**vars(column), "texts": sorted(column.texts), "rounding": astuple(column.rounding)}
            for column in profile.columns.values()
        ],
        "labels": sorted(profile.labels),
        "unlabelled": profile.unlabelled,
        "target": astuple(profile.target),
        "first": [place(row), value] if place else None,
        "shape": list(profile.shape),
        "dtype": profile.dtype,
    }


def _profile_of(value: dict[str, Any]) -> Profile:
    columns = {
        entry["name"]: ColumnProfile(
            **{**entry, "texts": set(entry["texts"]), "rounding": Rounding(*entry.get("rounding", ()))}
        )
        for entry in value["columns"]
    }
    first = (RemotePlace(value["first"][0], np.zeros(0)), 0, value["first"][1]) if value["first"] else None
    shape, labels = tuple(value["shape"]), set(value["labels"])
    target = Rounding(*value.get("target", ()))
    return Profile(value["total"], columns, labels, value["unlabelled"], first, shape, value["dtype"], target)


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


def _joined(folders: Sequence[Path], scratch: Path, grouped: bool) -> RowIndex:
    """Put the notes of all parts one after the other."""
    index = RowIndex(scratch, grouped)
    with index:
        for folder in folders:
            index.take(folder)
    return index


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
        index.append({"name": name, **type(found[0]).pack(found, arrays, str(number))})
    artifacts.write_json(folder / "statistics.json", index)
    np.savez(folder / "statistics.npz", **arrays)  # type: ignore[arg-type]


def _load(folder: Path, classes: dict[str, type[Statistic]]) -> Iterator[dict[str, Statistic]]:
    """Give back the statistics that `_save` wrote, in the order to merge them in."""
    index = json.loads((folder / "statistics.json").read_bytes())
    with np.load(folder / "statistics.npz", allow_pickle=False) as arrays:
        for number, entry in enumerate(index):
            for statistic in classes[entry["name"]].unpack(entry, arrays, str(number)):
                yield {entry["name"]: statistic}


def _statistics(plan: DataPlan, target: Target) -> dict[str, type[Statistic]]:
    """Return the class of each field's statistics, and of the target's."""
    return {**{field.name: kinds.of(field).statistic() for field in plan.fields}, TARGET: target.statistic()}
