"""A sealed folder is whole or refused; what is written appears at once or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boatyard.data import artifacts
from boatyard.errors import ArtifactError, StorageError

NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(NAMES.map(lambda name: f"{name}.bin"), st.binary(max_size=40), min_size=1, max_size=5)


def written(folder: Path, tree: dict[str, bytes]) -> Path:
    for name, data in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = written(tmp_path / "thing", {"a.bin": b"alpha", "deep/b.bin": b"beta"})
    artifacts.seal(folder, "thing", {"about": 1})
    return folder


@given(TREES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
def test_a_sealed_folder_verifies_and_its_digest_depends_on_its_bytes_alone(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes]
) -> None:
    one, two = (written(tmp_path_factory.mktemp("folder") / "x", tree) for _ in range(2))
    assert artifacts.digest_folder(one) == artifacts.digest_folder(two)
    assert artifacts.seal(one, "thing", {}) == artifacts.seal(two, "thing", {})
    listed = {entry["path"]: entry["sha256"] for entry in artifacts.verify(one, "thing")["files"]}
    assert listed == {name: hashlib.sha256(data).hexdigest() for name, data in tree.items()}


def test_what_was_said_about_a_folder_comes_back(sealed: Path) -> None:
    manifest = artifacts.verify(sealed, "thing")
    assert (manifest["about"], manifest["kind"], manifest["format"]) == (1, "thing", 1)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "a.bin").write_bytes(b"alphA"), "a.bin was changed"),
        (lambda folder: (folder / "a.bin").write_bytes(b"al"), "a.bin has 2 bytes, its manifest says 5"),
        (lambda folder: (folder / "deep/b.bin").unlink(), "deep/b.bin is missing"),
        (lambda folder: (folder / "extra").write_bytes(b""), "extra is not in its manifest"),
        (lambda folder: (folder / "link").symlink_to("a.bin"), "link is not a plain file"),
        (lambda folder: _replaced_by_link(folder), "a.bin is not a plain file"),
    ],
)
def test_any_damage_is_told_with_the_file(sealed: Path, damage: Any, said: str) -> None:
    damage(sealed)
    with pytest.raises(ArtifactError, match=said) as caught:
        artifacts.verify(sealed, "thing")
    assert "make the thing again" in str(caught.value)


def _replaced_by_link(folder: Path) -> None:
    (folder / "a.bin").rename(folder.parent / "kept")
    (folder / "a.bin").symlink_to(folder.parent / "kept")


def test_all_differences_are_listed_not_only_the_first(sealed: Path) -> None:
    (sealed / "a.bin").unlink()
    (sealed / "extra").write_bytes(b"")
    assert len(list(artifacts.differences(sealed, artifacts.read_manifest(sealed, "thing")))) == 2


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../outside", "points outside"),
        ("/etc/passwd", "points outside"),
        ("a/../../b", "points outside"),
        ("a\\b", "points outside"),
        ("", "points outside"),
        ("a.bin", "listed twice"),
    ],
)
def test_a_manifest_cannot_point_outside_its_folder_or_list_twice(sealed: Path, path: str, said: str) -> None:
    manifest = json.loads((sealed / "manifest.json").read_bytes())
    manifest["files"].append({"path": path, "bytes": 1, "sha256": "0" * 64})
    (sealed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=said):
        artifacts.verify(sealed, "thing")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": "thing"}', '{"kind": "other", "format": 1}'])
def test_what_is_no_manifest_is_refused(sealed: Path, text: str) -> None:
    (sealed / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError):
        artifacts.verify(sealed, "thing")


@pytest.mark.parametrize("files", [None, {}, [1], [{"path": "a.bin"}], [{"path": "a.bin", "bytes": "x", "sha256": ""}]])
def test_a_manifest_without_a_proper_list_is_refused(sealed: Path, files: Any) -> None:
    (sealed / "manifest.json").write_text(json.dumps({"kind": "thing", "format": 1, "files": files}))
    with pytest.raises(ArtifactError):
        artifacts.verify(sealed, "thing")


def test_a_folder_that_is_empty_or_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="found an empty folder"):
        artifacts.verify(tmp_path / "empty", "dataset")
    with pytest.raises(ArtifactError, match="no dataset at"):
        artifacts.verify(tmp_path / "nowhere", "dataset")


def test_only_plain_files_can_be_sealed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="pipe is not a plain file"):
        artifacts.seal(tmp_path, "thing", {})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_that_others_cannot_read_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(tmp_path / "x.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"ümlaut": [1, 2.5, None, "☃"]}
    artifacts.write_json(tmp_path / "deep" / "x.json", value)
    assert artifacts.read_json(tmp_path / "deep" / "x.json") == value
    with pytest.raises(ArtifactError, match="is missing"):
        artifacts.read_json(tmp_path / "y.json")


def test_a_new_folder_takes_the_place_of_the_old_only_when_done(tmp_path: Path) -> None:
    out = written(tmp_path / "out", {"old": b"1"})
    with artifacts.new_folder(out) as folder:
        (folder / "new").write_bytes(b"2")
        assert [p.name for p in out.iterdir()] == ["old"]
    assert [p.name for p in out.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    out = written(tmp_path / "out", {"old": b"1"})
    with pytest.raises(KeyError), artifacts.new_folder(out) as folder:
        (folder / "new").write_bytes(b"2")
        raise KeyError
    assert [p.name for p in out.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_said_in_our_words(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"the disk is full: .*make room and run again"),
        artifacts.new_folder(tmp_path / "out"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from boatyard.data import artifacts
out = Path(sys.argv[1])
with artifacts.new_folder(out) as folder:
    (folder / "half").write_bytes(b"x" * 1000)
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_kill_in_the_middle_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    left = [p.name for p in tmp_path.iterdir()]
    assert all(name.startswith(".out.") and name.endswith(".part") for name in left)
