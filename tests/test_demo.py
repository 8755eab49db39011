"""The demo's data: Fashion-MNIST from the first place that has it, whole and checked, else the digits, in one line."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def fetch() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "fetch_fashion_mnist.py"))


def test_without_fashion_mnist_the_demo_says_in_one_line_that_it_runs_on_the_digits(tmp_path: Path) -> None:
    environment = {**os.environ, "MAKE": "false", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [ROOT / "examples" / "demo.sh", "examples/fashion-cnn", "0"]
    demo = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert demo.stdout is not None
    with demo.stdout:
        first, wrote = demo.stdout.readline(), demo.stdout.readline()
        os.killpg(demo.pid, signal.SIGTERM)  # the rest is `boatyard run`, which other tests run to its end
    demo.wait(timeout=60)
    assert first.startswith("Fashion-MNIST is not to be had here") and first.endswith(
        "digits that come with Boatyard, in build/digits\n"
    )
    assert wrote == "wrote build/digits/boatyard.yaml\n" and (tmp_path / "build" / "digits" / "digits.npz").is_file()


def test_what_is_not_to_be_had_or_not_right_is_said_and_nothing_is_put_in_place(
    fetch: dict[str, Any], tmp_path: Path
) -> None:
    name = next(iter(fetch["FILES"]))
    target = tmp_path / "data"
    target.mkdir()
    for place in (tmp_path / "nowhere", "http://127.0.0.1:9"):
        assert "could not be had from" in fetch["fill"](target, place)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_bytes(b"something else")
    assert "expected sha256" in fetch["fill"](target, tmp_path / "other")
    assert list(target.iterdir()) == []


def test_without_apt_no_package_is_asked_for(
    fetch: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("apt-get") is None and fetch["downloaded"](tmp_path) is None
