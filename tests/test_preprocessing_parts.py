"""Preprocessing shared out over machines: whatever the parts, the dataset is that of one machine, byte for byte."""

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from PIL import Image

from boatyard import preprocessing
from boatyard.data import artifacts, statistics
from boatyard.errors import ArtifactError, DataError
from boatyard.preprocessing import block, distributed, shards
from boatyard.preprocessing.distributed import PreprocessJob
from boatyard.project import DataConfig, PreprocessConfig


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, shards and samples so small that a test has many of each."""
    monkeypatch.setattr(block, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(shards, "SHARD_BYTES", 1 << 11)
    monkeypatch.setattr(statistics, "SAMPLE", 60)


def shared(job: PreprocessJob, of: int, folder: Path) -> Path:
    """Do all the steps as so many machines would, the last part first, and return where the dataset is."""
    order = list(reversed(range(of)))
    for part in order:
        distributed.profile(job, part, of, folder / f"profile-{part}")
    distributed.plan(job, [folder / f"profile-{part}" for part in order], folder / "plan")
    for part in order:
        distributed.clean(job, folder / "plan", part, of, folder / f"clean-{part}")
    distributed.split(job, folder / "plan", [folder / f"clean-{part}" for part in order], folder / "split")
    for part in order:
        distributed.write(job, folder / "plan", folder / "split", part, of, folder / f"write-{part}")
    written = [folder / f"write-{part}" for part in order]
    distributed.merge(job, folder / "plan", folder / "split", written, folder / "dataset")
    return folder / "dataset"


def alone(job: PreprocessJob, folder: Path) -> Path:
    preprocessing.preprocess(job.data, job.preprocess, folder / "alone", root=job.root, task=job.task)
    return folder / "alone"


def table(rng: random.Random, rows: int) -> pa.Table:
    """Rows with gaps, copies, odd values, groups and slices."""
    number = [rng.choice(["", "NA", f"{rng.gauss(5, 3):.3f}", str(rng.randrange(4))]) for _ in range(rows)]
    kind = [rng.choice(["red", "green", "blue", ""]) for _ in range(rows)]
    made = {"a": number, "b": [f"{rng.gauss(0, 1e6):.6g}" for _ in range(rows)], "c": kind}
    made |= {"site": [f"s{rng.randrange(12)}" for _ in range(rows)], "label": [rng.choice("xyz") for _ in range(rows)]}
    found = pa.table({name: pa.array(values, pa.string()) for name, values in made.items()})
    return pa.concat_tables([found, found.slice(0, rows // 8)])


def write(folder: Path, rng: random.Random, sizes: list[int], source: str) -> None:
    """Write files of these sizes, the last row of one again in the next."""
    (folder / "rows").mkdir()
    before = table(rng, 8)
    for number, size in enumerate(sizes):
        rows = pa.concat_tables([table(rng, size), before.slice(0, 2)])
        path = folder / "rows" / f"{number:03d}.{source}"
        pq.write_table(rows, path) if source == "parquet" else pacsv.write_csv(rows, path)
        before = rows


DIALS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, "classification"),
    ({"group": "site"}, {"duplicates": "keep"}, "classification"),
    ({"slices": ["site"], "features": ["a", "b", "c"]}, {"missing": "drop"}, "classification"),
    ({"target": "b", "ranges": {"a": [1, 9]}}, {"out_of_range": "clip", "duplicates": "drop"}, "regression"),
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some.integers(0, 2**32),
    some.lists(some.integers(20, 160), min_size=1, max_size=6),
    some.integers(1, 8),
    some.sampled_from(DIALS),
    some.sampled_from(["csv", "parquet"]),
)
@example(1, [40, 40, 40], 3, DIALS[0], "csv")
@example(2, [100], 4, DIALS[0], "parquet")
def test_however_files_are_shared_out_the_dataset_is_the_same_bytes(
    seed: int, sizes: list[int], of: int, dials: tuple[dict[str, Any], dict[str, Any], str], source: str
) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        write(folder, random.Random(seed), sizes, source)
        data, how, task = dials
        config = DataConfig.model_validate({"source": source, "path": "rows", **data})
        job = PreprocessJob(config, PreprocessConfig.model_validate(how), task, folder)  # type: ignore[arg-type]
        one, many = alone(job, folder), shared(job, of, folder)
        assert sorted(p.name for p in (many / "shards").iterdir()) == sorted(p.name for p in (one / "shards").iterdir())
        assert (many / "manifest.json").read_text() == (one / "manifest.json").read_text()
        assert artifacts.digest_folder(many) == artifacts.digest_folder(one)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_pictures_are_shared_out_as_well(tmp_path: Path, of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "BLOCK_BYTES", 8 * 8 * 5)
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "rows" / ("train" if number % 5 else "test") / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(path)
    (tmp_path / "rows" / "train" / "a" / "broken.png").write_bytes(b"no picture")
    how = PreprocessConfig(unreadable="drop")
    job = PreprocessJob(DataConfig(source="images", path="rows"), how, "classification", tmp_path)
    assert artifacts.digest_folder(shared(job, of, tmp_path)) == artifacts.digest_folder(alone(job, tmp_path))


def job_of(folder: Path, **dials: Any) -> PreprocessJob:
    write(folder, random.Random(0), [50, 50, 50], "csv")
    how = PreprocessConfig.model_validate(dials)
    return PreprocessJob(DataConfig(source="csv", path="rows"), how, "classification", folder)


def test_every_file_is_in_one_part_and_parts_are_about_equal(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    source = job.source()
    for of in range(1, 6):
        found = [path for part in range(of) for path in source.share(part, of).files()]
        assert found == list(source.files())
    assert [len(source.share(part, 3).files()) for part in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("dials", [{"missing": "refuse"}, {"duplicates": "refuse"}])
def test_what_one_machine_refuses_many_refuse_in_the_same_words(tmp_path: Path, dials: dict[str, Any]) -> None:
    job = job_of(tmp_path, **dials)
    with pytest.raises(DataError) as one:
        alone(job, tmp_path)
    with pytest.raises(DataError) as many:
        shared(job, 3, tmp_path)
    assert str(many.value) == str(one.value)


def test_a_row_without_a_label_is_told_with_its_place(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    (tmp_path / "rows" / "002.csv").write_text("a,b,c,site,label\n1,2,red,s1,x\n1,3,red,s1,\n")
    with pytest.raises(DataError, match=r"002\.csv, line 3: the target 'label' is missing") as many:
        shared(job, 3, tmp_path)
    with pytest.raises(DataError) as one:
        alone(job, tmp_path)
    assert str(many.value) == str(one.value)


def test_a_part_that_is_missing_doubled_emptied_or_changed_is_noticed(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    shared(job, 3, tmp_path)
    profiles = [tmp_path / f"profile-{part}" for part in range(3)]
    with pytest.raises(
        ArtifactError, match="expected parts 0 to 2 of what profile leaves, found 0, 1; run those steps again"
    ):
        distributed.plan(job, profiles[:2], tmp_path / "again")
    with pytest.raises(ArtifactError, match="found 0, 1, 1"):
        distributed.plan(job, [*profiles[:2], profiles[1]], tmp_path / "again")
    with pytest.raises(ArtifactError, match="expected what profile leaves, found what plan left"):
        distributed.plan(job, [*profiles[:2], tmp_path / "plan"], tmp_path / "again")
    (tmp_path / "write-1" / "statistics.json").unlink()
    with pytest.raises(ArtifactError, match=r"statistics\.json is missing"):
        written = [tmp_path / f"write-{part}" for part in range(3)]
        distributed.merge(job, tmp_path / "plan", tmp_path / "split", written, tmp_path / "again")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"expected manifest\.json in it, found an empty folder"):
        distributed.clean(job, tmp_path / "empty", 0, 3, tmp_path / "again")


def test_arrays_are_not_shared_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros((4, 2)), label=np.zeros(4))
    job = PreprocessJob(DataConfig(source="npz", path="rows.npz"), PreprocessConfig(), "classification", tmp_path)
    with pytest.raises(DataError, match=r"only tables and folders of images are shared out; remove kubeflow\.workers"):
        distributed.profile(job, 0, 2, tmp_path / "profile")
