"""Killed, out of room or in each other's way: nothing half-written is taken for whole, and the next run goes on."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sources

from boatyard.data import datasets
from boatyard.errors import ArtifactError

RUN = """
import sys
from pathlib import Path
from boatyard import preprocessing
from boatyard.errors import BoatyardError
from boatyard.project import DataConfig, PreprocessConfig
root = Path(sys.argv[1])
print("ready", flush=True)
try:
    config = DataConfig(source="csv", path="rows.csv")
    preprocessing.preprocess(config, PreprocessConfig(), Path(sys.argv[2]), root=root, task="classification")
except BoatyardError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def start(root: Path, out: Path, limit: int | None = None) -> subprocess.Popen[str]:
    """Preprocess in a process of its own, which may write files of at most `limit` bytes; return once it is ready."""

    def bounded() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(root), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=bounded,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_kill_at_any_moment_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    sources.write_csv(tmp_path, sources.table(20_000, 3))
    out = tmp_path / "out"
    started = time.monotonic()
    with start(tmp_path, out) as process:
        assert process.wait() == 0
    took = time.monotonic() - started
    whole = sources.hashes(out)
    shutil.rmtree(out)
    chance = random.Random(0)
    for _ in range(3):
        with start(tmp_path, out) as process:
            time.sleep(chance.uniform(0, took))
            process.kill()
        if out.exists():
            assert sources.hashes(out) == whole
            shutil.rmtree(out)
        else:
            with pytest.raises(ArtifactError, match="no dataset at"):
                datasets.read(out)
    with start(tmp_path, out) as process:
        assert process.wait() == 0
    assert sources.hashes(out) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "rows.csv"]


def test_a_kill_leaves_the_dataset_of_an_earlier_run_as_it_was(tmp_path: Path) -> None:
    before = sources.hashes(sources.csv(tmp_path, sources.table(100)).path)
    sources.write_csv(tmp_path, sources.table(60_000))
    with start(tmp_path, tmp_path / "out") as process:
        time.sleep(0.15)
        process.kill()
    assert sources.hashes(tmp_path / "out") == before


def test_the_work_of_a_run_that_is_alive_is_not_swept_away(tmp_path: Path) -> None:
    sources.write_csv(tmp_path, sources.table(60_000))
    with start(tmp_path, tmp_path / "out") as one, start(tmp_path, tmp_path / "out") as two:
        assert (one.wait(), two.wait()) == (0, 0), (one.stderr, two.stderr)
    assert sum(datasets.read(tmp_path / "out").manifest["rows"].values()) == 60_000


WAIT = """
import sys
from pathlib import Path
from boatyard.preprocessing import work
print("ready", flush=True)
with work._alone(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_third_run_into_one_folder_leaves_the_first_ones_work_alone(tmp_path: Path) -> None:
    out, part = tmp_path / "out", tmp_path / ".out.first.part"

    def begin() -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", WAIT, str(out)], text=True, **pipes)  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        return process  # type: ignore[no-any-return]

    first = begin()
    assert first.stdout is not None and first.stdout.readline() == "in\n"
    part.mkdir()
    second = begin()
    assert second.stdin is not None
    second.stdin.close()  # it ends as soon as it is in
    time.sleep(1)
    with begin() as third:
        time.sleep(1)
        assert part.is_dir(), "the third run removed what the first one is at work on"
        first.communicate()
        assert third.stdin is not None
        third.stdin.close()  # whichever of the two is in next: the lock keeps no order
        assert third.wait() == second.wait() == first.wait() == 0
    assert second.stdout is not None
    second.stdout.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [], "and what was left is removed by the next"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("rows", [10_000, 60_000])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, small_disk: Path, rows: int) -> None:
    sources.write_csv(tmp_path, sources.table(rows) if rows > 50_000 else noise(rows))
    with start(tmp_path, small_disk / "out") as process:
        _, said = process.communicate()
    assert process.returncode == 1
    assert said.startswith("StorageError: the disk is full: could not write"), said
    assert "make room and run again" in said
    assert [p.name for p in small_disk.iterdir()] == []


def noise(rows: int) -> str:
    """Rows that do not pack well: the notes about them fit on the small disk, their shards do not."""
    digits = random.Random(0)
    names = [f"c{i}" for i in range(40)]
    made = [",".join(str(digits.random()) for _ in names) + f",{'ab'[i % 2]}" for i in range(rows)]
    return "\n".join([",".join([*names, "label"]), *made]) + "\n"


def test_a_file_that_may_not_grow_is_said(tmp_path: Path) -> None:
    sources.write_csv(tmp_path, sources.table(60_000))
    with start(tmp_path, tmp_path / "out", limit=100_000) as process:
        _, said = process.communicate()
    assert process.returncode == 1
    assert said.startswith("StorageError: could not write") and os.strerror(errno.EFBIG) in said
    assert not (tmp_path / "out").exists()
