"""The storage initializer: a package comes whole and right, or the pod does not start and says why in one line."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stores

from boatyard import initializer, packages, storage
from boatyard.data import artifacts
from boatyard.packages import manifest
from boatyard.packages.manifest import read_files
from boatyard.storage import transfer
from boatyard.storage.buckets import Bucket

BIG = 5 * transfer.PART_BYTES + 12345


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed folder with small files, an empty one, one in a folder, and one of several parts."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "report").mkdir()
    (folder / "labels.json").write_text('["ant", "bee"]')
    (folder / "empty.json").write_text("")
    (folder / "report" / "report.html").write_text("<p>fine</p>")
    (folder / "model.onnx").write_bytes(random.Random(0).randbytes(BIG))
    manifest.write(folder, "ants", "classification", {})
    return folder


@pytest.fixture(scope="module")
def digest(package: Path) -> str:
    return artifacts.digest_file(package / packages.MANIFEST)


@pytest.fixture
def uri(bucket: str, package: Path, digest: str) -> str:
    """Where the package lies in a bucket, its digest in the URI."""
    uri = f"{bucket}/ants/packages/sha256-{digest}"
    transfer.send(package, storage.open(uri), name=packages.MANIFEST, read=read_files)
    return uri


def run(*arguments: object, digest: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "boatyard.initializer", *map(str, arguments)]
    environment = {**os.environ, "BOATYARD_DIGEST": digest}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a refused start said: the one line after those of the log, and nothing like a traceback."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("boatyard: ")
    return last


def same(one: Path, other: Path) -> bool:
    return artifacts.digest_folder(one) == artifacts.digest_folder(other)


def test_a_package_in_a_bucket_fills_the_folder(uri: str, package: Path, digest: str, tmp_path: Path) -> None:
    done = run(uri, tmp_path / "models", digest=digest)
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "models", package)
    assert f"package {digest} is complete and verified" in done.stderr


def test_a_folder_that_is_mounted_is_copied_or_checked_in_place(
    package: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOATYARD_CLAIMS", str(tmp_path / "pvc"))
    claim = Path(shutil.copytree(package, tmp_path / "pvc" / "claim" / "ants"))
    for number, source in enumerate(("pvc://claim/ants", storage.uri(claim), str(claim))):
        assert initializer.initialise(source, tmp_path / str(number), digest) == digest
        assert same(tmp_path / str(number), package)
    assert initializer.initialise(str(claim), claim, digest) == digest
    (claim / "labels.json").write_text('["ant", "bug"]')
    for target in (claim, tmp_path / "other"):
        said = one_line(run(claim, target, digest=digest))
        assert "labels.json was changed" in said and "sha256" in said


def test_a_package_without_a_digest_to_hold_it_against_is_refused(bucket: str, package: Path, tmp_path: Path) -> None:
    transfer.send(package, storage.open(f"{bucket}/plain"), name=packages.MANIFEST, read=read_files)
    assert "expected a digest to hold the package against, found none" in one_line(
        run(f"{bucket}/plain", tmp_path / "m")
    )
    assert not (tmp_path / "m").exists()


def test_uri_and_annotation_must_not_differ(uri: str, tmp_path: Path) -> None:
    assert f"expected sha256 {'0' * 64} (boatyard/digest)" in one_line(run(uri, tmp_path / "m", digest="0" * 64))


def test_another_good_package_in_its_place_is_refused(uri: str, package: Path, digest: str, tmp_path: Path) -> None:
    other = Path(shutil.copytree(package, tmp_path / "other"))
    (other / "labels.json").write_text('["bee", "ant"]')
    manifest.write(other, "ants", "classification", {})
    for name in ("labels.json", packages.MANIFEST):
        storage.open(uri).put(name, other / name)
    said = one_line(run(uri, tmp_path / "m"))
    assert f"package.json was changed: expected sha256 {digest}, found" in said


def changed(place: Bucket, key: str) -> None:
    data = bytearray(place.read(key))
    data[len(data) // 2] ^= 1
    rewrite(place, key, bytes(data))


def rewrite(place: Bucket, key: str, data: bytes | None) -> None:
    import obstore

    obstore.delete(place.store, place._key(key))
    assert data is None or place.write(key, data, None)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("changed", "model.onnx was changed: expected sha256 {sha256}, found "),
        ("cut", f"expected model.onnx of {BIG} bytes, found 100"),
        ("missing", f"expected model.onnx ({BIG} bytes), found no such object"),
        ("surplus", "expected only what package.json lists, found code.py too"),
        ("no manifest", "expected package.json, found no such object"),
    ],
)
def test_what_is_wrong_in_the_bucket_is_one_line(uri: str, package: Path, tmp_path: Path, how: str, said: str) -> None:
    place = storage.open(uri)
    match how:
        case "changed":
            changed(place, "model.onnx")
        case "cut":
            rewrite(place, "model.onnx", b"x" * 100)
        case "missing":
            rewrite(place, "model.onnx", None)
        case "surplus":
            rewrite(place, "code.py", b"x")
        case "no manifest":
            rewrite(place, packages.MANIFEST, None)
    found = one_line(run(uri, tmp_path / "m"))
    assert said.format(sha256=artifacts.digest_file(package / "model.onnx")) in found
    assert uri in found
    assert not (tmp_path / "m" / packages.MANIFEST).exists()


def test_a_folder_that_a_console_made_is_no_surplus(uri: str, package: Path, tmp_path: Path) -> None:
    assert storage.open(uri).write("report", b"", None)
    assert run(uri, tmp_path / "m").returncode == 0
    assert same(tmp_path / "m", package)


def test_what_another_writer_has_not_finished_is_waited_for(
    uri: str, package: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = storage.open(uri)
    rewrite(place, ".model.onnx.tmp.17", b"x")  # a gateway to a file system shows such objects
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            rewrite(place, ".model.onnx.tmp.17", None)

    monkeypatch.setattr(transfer.time, "sleep", sleep)
    transfer.send(package, place, name=packages.MANIFEST, read=read_files)
    assert transfer.fetch(place, tmp_path / "m", name=packages.MANIFEST, read=read_files) == digest
    assert looks == list(transfer.LISTING_PAUSES_S[:2])


def test_what_is_in_the_way_is_named_and_left_alone(uri: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.txt").write_text("mine")
    assert "expected an empty folder, found mine.txt" in one_line(run(uri, tmp_path / "m"))
    assert (tmp_path / "m" / "mine.txt").read_text() == "mine"


class Counting(stores.Between):
    """Answers as the store does, slowly for big parts, and notes what was asked."""

    asked: list[tuple[str, str]]
    pause = 0.0

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        if self.command == "GET" and "list-type" not in self.path:
            time.sleep(self.pause if len(body) > 1000 else 0)
            self.asked.append((self.path.rpartition("/")[2], self.headers.get("Range") or ""))
        super().answer(status, headers, body)


@pytest.fixture
def counted(address: str, uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Counting]]:
    """What is asked of the store from now on."""
    handler = type("Counted", (Counting,), {"asked": []})
    with stores.between(handler, address) as between:
        stores.use(monkeypatch, between)
        yield handler


def test_files_that_are_there_and_right_are_not_fetched_again(
    counted: type[Counting], uri: str, package: Path, tmp_path: Path
) -> None:
    assert run(uri, tmp_path / "m").returncode == 0
    (tmp_path / "m" / "labels.json").write_text("[]")
    counted.asked.clear()
    assert run(uri, tmp_path / "m").returncode == 0
    assert {name for name, _ in counted.asked} == {packages.MANIFEST, "labels.json"}
    assert same(tmp_path / "m", package)


def test_a_killed_download_goes_on_where_it_was(
    counted: type[Counting], uri: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "m"
    gate = threading.Semaphore(2)  # two parts come, the others hang until the kill
    whole = counted.answer

    def answer(self: Counting, status: int, headers: dict[str, str], body: bytes) -> None:
        if len(body) > 10_000 and not gate.acquire(timeout=3):
            self.close_connection = True
            return
        whole(self, status, headers, body)

    monkeypatch.setattr(counted, "answer", answer)
    process = subprocess.Popen([sys.executable, "-m", "boatyard.initializer", uri, str(models)])
    until = time.monotonic() + 30
    while parts(models) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (models / "model.onnx").exists() and not (models / packages.MANIFEST).exists()
    monkeypatch.setattr(counted, "answer", whole)
    counted.asked.clear()
    assert run(uri, models).returncode == 0
    asked = {part for name, part in counted.asked if name == "model.onnx"}  # those of the killed one may come late
    assert len(asked) == 6 - 2, asked
    assert same(models, package)


def parts(models: Path) -> int:
    """Count the parts that have come of the file that has several."""
    notes = (models / transfer.SCRATCH).glob("*.parts")
    return max((note.read_text().count("\n") for note in notes), default=0)


def test_what_a_killed_download_left_damaged_is_fetched_again(uri: str, package: Path, tmp_path: Path) -> None:
    models = tmp_path / "m"
    file = next(f for f in artifacts.list_files(package) if f.path == "model.onnx")
    (models / transfer.SCRATCH).mkdir(parents=True)
    began = transfer._Download(storage.open(uri), models / "model.onnx", models / transfer.SCRATCH, file)
    began.part(0)
    began.part(transfer.PART_BYTES)
    data = bytearray(began.beside.read_bytes())
    data[7] ^= 1
    began.beside.write_bytes(data)
    assert run(uri, models).returncode == 0
    assert same(models, package)


def test_a_store_that_is_away_for_a_moment_is_asked_again(
    counted: type[Counting], uri: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([503, 500, 503])
    whole = counted.answer

    def answer(self: Counting, status: int, headers: dict[str, str], body: bytes) -> None:
        status = next(failures, status)
        whole(self, status, headers, body if status < 500 else b"<Error><Code>SlowDown</Code></Error>")

    monkeypatch.setattr(counted, "answer", answer)
    assert run(uri, tmp_path / "m").returncode == 0
    assert next(failures, None) is None
    assert same(tmp_path / "m", package)


def test_it_starts_light(tmp_path: Path) -> None:
    script = "import sys, boatyard.initializer, boatyard.storage.transfer\n"
    script += "heavy = {'numpy', 'onnxruntime', 'pydantic', 'kserve', 'torch', 'click'} & set(sys.modules)\n"
    script += "sys.exit(', '.join(heavy))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr.strip() == ""


@pytest.mark.parametrize("arguments", [[], ["s3://bucket/a"], ["a", "b", "c"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_a_folder_that_cannot_be_written_is_one_line(uri: str) -> None:
    assert "could not write" in one_line(run(uri, "/proc/models"))
