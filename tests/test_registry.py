"""A registry under many writers, under kill -9 and under hands that change it."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import graphs
import pytest
import stores
from click.testing import CliRunner

from boatyard import packages, registry, storage
from boatyard.__main__ import cli
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, StorageError
from boatyard.registry.buckets import BucketRegistry
from boatyard.registry.folders import FolderRegistry
from boatyard.storage.buckets import Bucket

PUSH = "import sys; from pathlib import Path; from boatyard import registry\n"
PUSH += "print(registry.open(sys.argv[1], Path('/')).push(Path(sys.argv[2]), alias='production').version)"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four packages that differ."""
    folder = tmp_path_factory.mktemp("packages")
    return [graphs.package(folder / str(seed), graphs.image_schema(), seed).path for seed in range(4)]


def pushing(shelf: registry.Registry, package: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUSH, shelf.place, str(package)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_pushed_is_pulled_unchanged(shelf: registry.Registry, made: list[Path], tmp_path: Path) -> None:
    before = artifacts.digest_folder(made[0])
    version = shelf.push(made[0], alias="production")
    assert (version.name, version.version, version.digest) == ("insects", 1, packages.verify(made[0]).digest)
    assert artifacts.digest_folder(shelf.pull("insects", "production")) == before
    assert artifacts.digest_folder(shelf.pull("insects", 1, tmp_path / "copy")) == before
    assert packages.verify(packages.fetch(version.uri) if "s3:" in version.uri else shelf.pull("insects"))
    assert shelf.versions("insects") == registry.open(shelf.place, tmp_path).versions("insects") == (version,)


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
        with pytest.raises(StorageError, match="expected a"):
            act()
    assert shelf.names() == () == shelf.log()


@pytest.mark.parametrize("alias", ["3", "latest"])
def test_an_alias_cannot_be_taken_for_a_version(shelf: registry.Registry, made: list[Path], alias: str) -> None:
    with pytest.raises(StorageError, match="expected an alias"):
        shelf.push(made[0], alias=alias)


def test_a_changed_package_is_neither_pushed_nor_pulled(
    folder: FolderRegistry, made: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(made[0], tmp_path / "copy"))
    (copy / "labels.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"labels\.json"):
        folder.push(copy)
    assert folder.versions("insects") == ()
    folder.push(made[0])
    (folder.pull("insects") / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        folder.pull("insects")


def test_a_version_replaced_by_another_good_package_is_refused(folder: FolderRegistry, made: list[Path]) -> None:
    path = folder.pull("insects", folder.push(made[0]).version)
    shutil.rmtree(path)
    shutil.copytree(made[1], path)
    with pytest.raises(ArtifactError, match=r"package\.json was changed"):
        folder.pull("insects", 1)


def test_a_journal_line_changed_removed_or_moved_is_named(folder: FolderRegistry, made: list[Path]) -> None:
    for package in made:
        folder.push(package)
    journal = folder.root / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert folder.verify_log() == 4
    for changed, named in (
        ([lines[0], lines[1].replace(b'"version": 2', b'"version": 9'), *lines[2:]], 3),
        ([lines[0], *lines[2:]], 2),
        ([lines[1], lines[0], *lines[2:]], 1),
        ([lines[0], b"[]\n", *lines[2:]], 2),
        ([lines[0], b"[" * 100_000 + b"\n", *lines[2:]], 2),
    ):
        journal.write_bytes(b"".join(changed))
        with pytest.raises(ArtifactError, match=f"line {named} or the one before"):
            folder.verify_log()


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


def test_killed_pushes_leave_whole_versions_and_nothing_else(folder: FolderRegistry, made: list[Path]) -> None:
    random.seed(0)
    for attempt in range(8):
        process = pushing(folder, made[attempt % 4])
        until = time.monotonic() + 20
        while not list(folder.root.glob("*/versions/.*.part")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for version in folder.versions("insects"):
            folder.pull("insects", version.version)
    for package in made:
        folder.push(package)
    numbers = [version.version for version in folder.versions("insects")]
    assert numbers == list(range(1, 5))
    assert not list(folder.root.glob("*/versions/.*"))
    assert folder.verify_log() >= 4


def test_a_push_killed_before_the_journal_is_written_down_by_the_next(folder: FolderRegistry, made: list[Path]) -> None:
    folder.push(made[0])
    folder.push(made[1])
    journal = folder.root / "journal.jsonl"
    first, second = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(first + second[:20])
    assert folder.verify_log() == 1
    folder.pull("insects", 2)
    folder.push(made[2])
    assert [event["version"] for event in folder.log()] == [1, 2, 3]


def test_a_registry_that_cannot_be_written_says_so_and_still_reads(made: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        shelf = FolderRegistry(Path(folder) / "registry")
        shelf.push(made[0])
        package = Path(shutil.copytree(made[1], Path(folder) / "package"))
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        imports, act = PUSH.split("\n")
        script = f"{imports}\nimport os, boatyard.packages.verifying\nif os.getuid() == 0: os.setuid(65534)\n{act}"
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


def test_an_alias_file_that_was_damaged_is_named(folder: FolderRegistry, made: list[Path]) -> None:
    folder.push(made[0], alias="production")
    for text in ("{", "[]", json.dumps({"version": "1"}), json.dumps({"version": True})):
        (folder.root / "insects/aliases/production.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"production\.json"):
            folder.resolve("insects", "production")
    assert os.listdir(folder.root / "insects/versions") == ["1"]


# In a bucket: the journal is the registry, and the store says who was first


def objects(shelf: BucketRegistry) -> set[str]:
    return set(shelf.bucket.list()) - {".conditional-writes"}


def test_an_object_changed_cut_removed_or_added_is_refused_by_name(
    remote: BucketRegistry, made: list[Path], tmp_path: Path
) -> None:
    version = remote.push(made[0])
    there = storage.open(version.uri)
    graph = there.read("model.onnx")
    for number, (data, match) in enumerate(
        (
            (graph[:-1] + b"x", r"model\.onnx was changed: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"),
            (graph[:-1], rf"expected model\.onnx of {len(graph)} bytes, found {len(graph) - 1}"),
            (None, rf"expected model\.onnx \({len(graph)} bytes\), found no such object"),
        )
    ):
        delete(there, "model.onnx")
        assert data is None or there.write("model.onnx", data, None)
        with pytest.raises(ArtifactError, match=match):
            remote.pull("insects", 1, tmp_path / str(number))
        assert not (tmp_path / str(number)).exists()
    assert there.write("model.onnx", graph, None) and there.write("evil.pkl", b"", None)
    with pytest.raises(ArtifactError, match=r"found evil\.pkl too"):
        remote.pull("insects", 1)
    delete(there, "evil.pkl")
    assert packages.verify(remote.pull("insects", 1)).digest == version.digest


def test_a_package_replaced_by_another_good_one_is_refused(remote: BucketRegistry, made: list[Path]) -> None:
    there = storage.open(remote.push(made[0]).uri)
    for file in made[1].rglob("*"):
        if file.is_file():
            there.put(file.relative_to(made[1]).as_posix(), file)
    with pytest.raises(ArtifactError, match=r"package\.json was changed: expected sha256"):
        remote.pull("insects", 1)


def test_what_was_damaged_on_this_machine_is_fetched_again(remote: BucketRegistry, made: list[Path]) -> None:
    remote.push(made[0])
    (remote.pull("insects") / "model.onnx").write_bytes(b"")
    assert artifacts.digest_folder(remote.pull("insects")) == artifacts.digest_folder(made[0])


def test_a_journal_in_a_bucket_that_was_changed_is_refused_by_line(remote: BucketRegistry, made: list[Path]) -> None:
    for package in made[:3]:
        remote.push(package)
    lines = remote.bucket.read("journal.jsonl").splitlines(keepends=True)
    for changed, named in (
        ([lines[0], lines[1].replace(b'"version": 2', b'"version": 9'), lines[2]], "line 3 or the one before"),
        ([lines[0], lines[2]], "line 2 or the one before"),
        ([lines[0], lines[1], lines[2][:-9]], "its last line was cut"),
    ):
        found = remote.bucket.find("journal.jsonl")
        assert found and remote.bucket.write("journal.jsonl", b"".join(changed), found)
        for act in (remote.log, remote.names, lambda: remote.push(made[3])):
            with pytest.raises(ArtifactError, match=named):
                act()


def test_pushes_to_a_bucket_killed_at_any_moment_leave_whole_versions_or_none(
    remote: BucketRegistry, made: list[Path]
) -> None:
    random.seed(0)
    killed = 0
    for attempt in range(8):
        seen = objects(remote)
        process = pushing(remote, made[attempt % 4])
        until = time.monotonic() + 20
        while objects(remote) == seen and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        for version in remote.versions("insects"):
            assert packages.verify(remote.pull("insects", version.version)).digest == version.digest
        assert len(remote.aliases("insects")) <= len(remote.versions("insects"))
    assert killed >= 3
    for package in made:
        remote.push(package)
    assert [version.version for version in remote.versions("insects")] == list(range(1, 5))
    files = [f"insects/packages/sha256-{v.digest}" for v in remote.versions("insects")]
    beside = {name for name in objects(remote) if not name.startswith(tuple(files))}
    assert beside == {"journal.jsonl", "insects/packages/alias-production.stood"}
    assert remote.verify_log() >= 4


def test_aliases_moved_by_many_at_once_end_as_the_journal_says(remote: BucketRegistry, made: list[Path]) -> None:
    for package in made:
        remote.push(package)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: remote.promote("insects", n % 4 + 1, "production"), range(24)))
    moves = [event["version"] for event in remote.log() if event["event"] == "alias"]
    assert remote.aliases("insects") == {"production": moves[-1]}
    assert all(one != other for one, other in itertools.pairwise(moves))


def test_a_store_that_does_not_hold_to_conditions_is_refused(
    bucket: str, address: str, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(stores.Between):
        drop = ("if-none-match", "if-match")

    with stores.between(Careless, address) as careless:
        stores.use(monkeypatch, careless)
        shelf = registry.open(bucket, Path("/"))
        for act in (lambda: shelf.push(made[0]), lambda: registry.open(bucket, Path("/")).push(made[1], alias="a")):
            with pytest.raises(StorageError, match="expected a store that holds to If-None-Match and If-Match"):
                act()
    stores.use(monkeypatch, address)
    assert registry.open(bucket, Path("/")).names() == ()


def test_a_write_whose_answer_was_lost_is_not_written_twice(
    bucket: str, address: str, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = []

    class Forgetful(stores.Between):
        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            if self.command == "PUT" and self.path.endswith("journal.jsonl") and len(lost) < 2:
                lost.append(status)
                self.close_connection = True
                return
            super().answer(status, headers, body)

    with stores.between(Forgetful, address) as forgetful:
        stores.use(monkeypatch, forgetful)
        assert registry.open(bucket, Path("/")).push(made[0], alias="production").version == 1
    stores.use(monkeypatch, address)
    assert lost
    assert [event["event"] for event in registry.open(bucket, Path("/")).log()] == ["push", "alias"]


def delete(place: Bucket, key: str) -> None:
    """Remove an object, as someone with a key of his own may."""
    import obstore

    obstore.delete(place.store, place._key(key))


def test_the_command_shows_moves_and_checks_what_lies_in_a_bucket(
    remote: BucketRegistry, made: list[Path], tmp_path: Path
) -> None:
    version = remote.push(made[0], alias="production")
    remote.push(made[1])
    (tmp_path / "boatyard.yaml").write_text(
        "name: insects\ntask: classification\ndata: {source: npz, path: x.npz, target: y}\n"
        f"train: {{recipe: cnn}}\npush: {{registry: {remote.place}}}\n"
    )

    def boatyard(*arguments: str) -> str:
        result = CliRunner().invoke(cli, [*arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert boatyard("registry", "ls", str(tmp_path)) == "insects: versions 1, 2; production → 1\n"
    boatyard("registry", "promote", "insects", "2", "--project", str(tmp_path))
    assert remote.aliases("insects") == {"production": 2}
    assert len(boatyard("registry", "log", str(tmp_path)).splitlines()) == 4
    assert packages.verify(Path(boatyard("registry", "pull", "insects", "1", "--project", str(tmp_path)).strip()))
    assert f"digest {version.digest}" in boatyard("verify", version.uri)
    assert json.loads(boatyard("show", version.uri, "--json"))["digest"] == version.digest
    place = storage.open(version.uri)
    delete(place, "labels.json")
    assert place.write("labels.json", b"[]", None)
    with pytest.raises(ArtifactError, match=r"labels\.json"):
        boatyard("verify", version.uri)
