"""A registry under many writers, under kill -9 and under hands that change it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import graphs
import pytest

from boatyard import artifacts, packages, registry
from boatyard.errors import ArtifactError, StorageError

PUSH = "import sys; from pathlib import Path; from boatyard import registry\n"
PUSH += "print(registry.open(sys.argv[1], Path('/')).push(Path(sys.argv[2]), alias='production').version)"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four packages that differ."""
    folder = tmp_path_factory.mktemp("packages")
    return [graphs.package(folder / str(seed), graphs.image_schema(), seed).path for seed in range(4)]


@pytest.fixture
def shelf(tmp_path: Path) -> registry.Registry:
    return registry.open("registry", tmp_path)


def pushing(shelf: registry.Registry, package: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUSH, str(shelf.root), str(package)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_pushed_is_pulled_unchanged(shelf: registry.Registry, made: list[Path], tmp_path: Path) -> None:
    before = artifacts.digest_folder(made[0])
    version = shelf.push(made[0], alias="production")
    assert (version.name, version.version, version.digest) == ("insects", 1, packages.verify(made[0]).digest)
    assert artifacts.digest_folder(shelf.pull("insects", "production")) == before
    assert artifacts.digest_folder(shelf.pull("insects", 1, tmp_path / "copy")) == before
    assert registry.open(version.uri, tmp_path).root == shelf.pull("insects")


def test_versions_count_up_and_a_package_pushed_twice_keeps_its_version(
    shelf: registry.Registry, made: list[Path]
) -> None:
    assert [shelf.push(made[i]).version for i in (0, 1, 0, 2, 1)] == [1, 2, 1, 3, 2]
    assert [version.version for version in shelf.versions("insects")] == [1, 2, 3]
    assert shelf.resolve("insects").version == shelf.resolve("insects", "3").version == 3
    assert shelf.names() == ("insects",)


def test_an_alias_moves_and_the_journal_remembers(shelf: registry.Registry, made: list[Path]) -> None:
    shelf.push(made[0], alias="production")
    shelf.push(made[1])
    assert shelf.resolve("insects", "production").version == 1
    shelf.promote("insects", 2, "production")
    shelf.promote("insects", 2, "production")
    assert shelf.aliases("insects") == {"production": 2}
    assert [(e["event"], e["version"]) for e in shelf.log()] == [("push", 1), ("alias", 1), ("push", 2), ("alias", 2)]


def test_what_is_not_there_is_refused_with_what_is(shelf: registry.Registry, made: list[Path]) -> None:
    with pytest.raises(StorageError, match=r"no 'insects' in the registry at .*; it has nothing"):
        shelf.resolve("insects")
    assert shelf.find("insects", "production") is None
    shelf.push(made[0], alias="production")
    with pytest.raises(StorageError, match=r"no version or alias '7' of insects; versions: 1; aliases: production → 1"):
        shelf.pull("insects", 7)
    with pytest.raises(StorageError, match="it has insects"):
        shelf.pull("birds")
    assert shelf.find("insects", "staging") is None
    assert shelf.find("insects", "production") == shelf.pull("insects", 1)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "A", "-a", "a" * 60, "x\0"])
def test_a_name_that_is_none_reaches_no_file(shelf: registry.Registry, made: list[Path], name: str) -> None:
    for act in (lambda: shelf.versions(name), lambda: shelf.pull(name, 1), lambda: shelf.push(made[0], alias=name)):
        with pytest.raises(StorageError, match="wanted a"):
            act()
    assert not shelf.root.exists()


@pytest.mark.parametrize("alias", ["3", "latest"])
def test_an_alias_cannot_be_taken_for_a_version(shelf: registry.Registry, made: list[Path], alias: str) -> None:
    with pytest.raises(StorageError, match="wanted an alias"):
        shelf.push(made[0], alias=alias)


def test_a_changed_package_is_neither_pushed_nor_pulled(
    shelf: registry.Registry, made: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(made[0], tmp_path / "copy"))
    (copy / "labels.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"labels\.json"):
        shelf.push(copy)
    assert shelf.versions("insects") == ()
    shelf.push(made[0])
    (shelf.pull("insects") / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        shelf.pull("insects")


def test_a_version_replaced_by_another_good_package_is_refused(shelf: registry.Registry, made: list[Path]) -> None:
    path = shelf.pull("insects", shelf.push(made[0]).version)
    shutil.rmtree(path)
    shutil.copytree(made[1], path)
    with pytest.raises(ArtifactError, match=r"package\.json was changed"):
        shelf.pull("insects", 1)


def test_a_journal_line_changed_removed_or_moved_is_named(shelf: registry.Registry, made: list[Path]) -> None:
    for package in made:
        shelf.push(package)
    journal = shelf.root / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert shelf.verify_log() == 4
    for changed, named in (
        ([lines[0], lines[1].replace(b'"version": 2', b'"version": 9'), *lines[2:]], 3),
        ([lines[0], *lines[2:]], 2),
        ([lines[1], lines[0], *lines[2:]], 1),
        ([lines[0], b"[]\n", *lines[2:]], 2),
        ([lines[0], b"[" * 100_000 + b"\n", *lines[2:]], 2),
    ):
        journal.write_bytes(b"".join(changed))
        with pytest.raises(ArtifactError, match=f"line {named} or the one before"):
            shelf.verify_log()


def test_many_pushing_at_once_each_get_a_version_of_their_own(
    shelf: registry.Registry, made: list[Path], tmp_path: Path
) -> None:
    several = [graphs.package(tmp_path / f"p{seed}", graphs.numbers_schema(), seed).path for seed in range(8)]
    running = [pushing(shelf, package) for package in several]
    results = [process.communicate(timeout=60) for process in running]
    assert sorted(int(out) for out, _ in results) == list(range(1, 9)), results
    assert [version.version for version in shelf.versions("insects")] == list(range(1, 9))
    assert {v.digest for v in shelf.versions("insects")} == {packages.verify(p).digest for p in several}
    assert shelf.verify_log() >= 8


def test_the_same_package_pushed_by_many_at_once_is_one_version(shelf: registry.Registry, made: list[Path]) -> None:
    running = [pushing(shelf, made[0]) for _ in range(4)]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["1"] * 4
    assert len(shelf.versions("insects")) == 1


def test_killed_pushes_leave_whole_versions_and_nothing_else(shelf: registry.Registry, made: list[Path]) -> None:
    random.seed(0)
    for attempt in range(8):
        process = pushing(shelf, made[attempt % 4])
        until = time.monotonic() + 20
        while not list(shelf.root.glob("*/versions/.*.part")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for version in shelf.versions("insects"):
            shelf.pull("insects", version.version)
    for package in made:
        shelf.push(package)
    numbers = [version.version for version in shelf.versions("insects")]
    assert numbers == list(range(1, 5))
    assert not list(shelf.root.glob("*/versions/.*"))
    assert shelf.verify_log() >= 4


def test_a_push_killed_before_the_journal_is_written_down_by_the_next(
    shelf: registry.Registry, made: list[Path]
) -> None:
    shelf.push(made[0])
    shelf.push(made[1])
    journal = shelf.root / "journal.jsonl"
    first, second = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(first + second[:20])
    assert shelf.verify_log() == 1
    shelf.pull("insects", 2)
    shelf.push(made[2])
    assert [event["version"] for event in shelf.log()] == [1, 2, 3]


def test_a_registry_that_cannot_be_written_says_so_and_still_reads(made: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        shelf = registry.open("registry", Path(folder))
        shelf.push(made[0])
        package = Path(shutil.copytree(made[1], Path(folder) / "package"))
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        imports, act = PUSH.split("\n")
        script = f"{imports}\nimport os\nif os.getuid() == 0: os.setuid(65534)\n{act}"
        command = [sys.executable, "-c", script, str(shelf.root), str(package)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert "StorageError: could not write" in result.stderr
        assert shelf.pull("insects", 1)


def test_a_registry_that_is_a_file_says_so(tmp_path: Path, made: list[Path]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        registry.open("file", tmp_path).push(made[0])
    with pytest.raises(StorageError):
        registry.open("file", tmp_path).versions("insects")


def test_an_alias_file_that_was_damaged_is_named(shelf: registry.Registry, made: list[Path]) -> None:
    shelf.push(made[0], alias="production")
    for text in ("{", "[]", json.dumps({"version": "1"}), json.dumps({"version": True})):
        (shelf.root / "insects/aliases/production.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"production\.json"):
            shelf.resolve("insects", "production")
    assert os.listdir(shelf.root / "insects/versions") == ["1"]
