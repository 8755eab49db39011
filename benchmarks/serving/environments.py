"""An environment of its own for every peer, with every package pinned: `peers/<name>.txt`, as pip froze it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
OURS = Path(sys.executable)


class Unequal(Exception):
    """An environment is not as the comparison needs it."""


def python(name: str, folder: Path) -> Path:
    """Return the interpreter of a peer's environment, made unless it is there with these very pins."""
    pins = (HERE / "peers" / f"{name}.txt").read_bytes()
    path, done = folder / name, folder / name / "pins.sha256"
    digest = hashlib.sha256(pins).hexdigest()
    if not done.exists() or done.read_text() != digest:
        print(f"making the environment of {name}: {path}", flush=True)
        venv.create(path, with_pip=True, clear=True)
        install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"]
        subprocess.run([path / "bin" / "python", *install, HERE / "peers" / f"{name}.txt"], check=True)
        done.write_text(digest)
    _same_runtime(name, pins.decode())
    return path / "bin" / "python"


def version(name: str, package: str) -> str:
    """Return the version of a package that a peer's pins have."""
    for line in (HERE / "peers" / f"{name}.txt").read_text().splitlines():
        found, _, number = line.partition("==")
        if found.lower() == package.lower():
            return number
    raise Unequal(f"peers/{name}.txt has no {package}")


def _same_runtime(name: str, pins: str) -> None:
    """Refuse a comparison of two versions of ONNX Runtime."""
    ours = metadata.version("onnxruntime")
    if f"onnxruntime=={ours}\n" not in pins:
        raise Unequal(f"wanted onnxruntime {ours} as here, found another in peers/{name}.txt; pin that one")
