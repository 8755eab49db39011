"""Put Fashion-MNIST where the examples look for it.

    python examples/fetch_fashion_mnist.py data/fashion-mnist [--source FOLDER]

It is taken from FOLDER where that is given, else from the first that has it: Debian's package dataset-fashion-mnist as
installed, the same package downloaded and unpacked without installing it (where apt is), its public address. The files
are unpacked, and each is checked against its sha256 before it is put in place; what is there and right is left alone.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PACKAGE = "dataset-fashion-mnist"  # Debian's
INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # where it lies when installed
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {  # sha256 of the unpacked files: packing differs from one mirror to the next
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
}


def main() -> int:
    """Fetch what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", type=Path, help="a folder that holds the four files")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for place in places(options.source, Path(scratch)):
            problem = fill(options.folder, place)
            if not problem:
                print(f"Fashion-MNIST is in {options.folder}, four files, digests as they should be")
                return 0
            problems.append(problem)
    print("\n".join(problems), file=sys.stderr)
    print(
        "Fashion-MNIST was not found: install Debian's package dataset-fashion-mnist, "
        "or give a folder that holds its four files: make data FASHION_MNIST=FOLDER",
        file=sys.stderr,
    )
    return 1


def places(source: Path | None, scratch: Path) -> Iterator[Path | str]:
    """Give the folders and addresses to look in, each only when those before it had not all files."""
    if source:
        yield source
        return
    if INSTALLED.is_dir():
        yield INSTALLED
    if unpacked := downloaded(scratch):
        yield unpacked
    yield ADDRESS


def downloaded(scratch: Path) -> Path | None:
    """Download Debian's package and unpack it without installing; None where apt is not or does not give it."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    for prepare in ([], ["apt-get", "-qq", "update"]):  # a fresh image has no package lists
        if prepare:
            subprocess.run(prepare, capture_output=True, timeout=300)
        subprocess.run(["apt-get", "-qq", "download", PACKAGE], cwd=scratch, capture_output=True, timeout=300)
        for file in scratch.glob(f"{PACKAGE}_*.deb"):
            subprocess.run(["dpkg-deb", "-x", file, scratch / "unpacked"], check=True, capture_output=True)
            return scratch / "unpacked" / INSTALLED.relative_to("/")
    return None


def fill(folder: Path, place: Path | str) -> str:
    """Bring every file that is not there yet from a place; return what went wrong, or nothing."""
    for name, digest in FILES.items():
        target = folder / name
        if target.is_file() and sha256(target) == digest:
            continue
        if problem := put(name, digest, target, place):
            return f"{name}: {problem}"
    return ""


def put(name: str, digest: str, target: Path, place: Path | str) -> str:
    """Bring one file to its place, unpacked; return what went wrong, or nothing."""
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
        try:
            with opened(name, place) as file:
                shutil.copyfileobj(file, part)
            part.close()
            found = sha256(Path(part.name))
            if found != digest:
                return f"expected sha256 {digest}, found {found} from {place}"
            os.chmod(part.name, 0o644)
            os.replace(part.name, target)
        except (OSError, EOFError, zlib.error) as error:
            return f"could not be had from {place} ({error})"
        finally:
            Path(part.name).unlink(missing_ok=True)
    return ""


def opened(name: str, place: Path | str) -> IO[bytes]:
    """Open one file for reading, unpacked: as it is or as .gz in a folder, as .gz at an address."""
    if isinstance(place, str):
        return gzip.open(urllib.request.urlopen(f"{place}/{name}.gz", timeout=20), "rb")
    if (place / name).is_file():
        return open(place / name, "rb")
    return gzip.open(place / f"{name}.gz", "rb")


def sha256(path: Path) -> str:
    """Return a file's digest."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
