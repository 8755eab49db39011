"""Put Fashion-MNIST where the examples look for it: from a folder, from Debian's package, or from its public address.

    python examples/fetch_fashion_mnist.py data/fashion-mnist [--source FOLDER]

The files are unpacked, and each is checked against its sha256 before it is put in place; what is there and right is
left alone.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import sys
import tempfile
import urllib.request
import zlib
from pathlib import Path
from typing import IO

PACKAGE = Path("/usr/share/datasets/fashion-mnist")  # Debian: apt-get install dataset-fashion-mnist
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
    for name, digest in FILES.items():
        target = options.folder / name
        if target.is_file() and sha256(target) == digest:
            continue
        problem = put(name, digest, target, options.source)
        if problem:
            print(
                f"{name}: {problem}; install Debian's package dataset-fashion-mnist, "
                "or give a folder that holds it: --source FOLDER",
                file=sys.stderr,
            )
            return 1
    print(f"Fashion-MNIST is in {options.folder}, four files, digests as they should be")
    return 0


def put(name: str, digest: str, target: Path, source: Path | None) -> str:
    """Bring one file to its place, unpacked; return what went wrong, or nothing."""
    folder = source or (PACKAGE if PACKAGE.is_dir() else None)
    where = folder or ADDRESS
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
        try:
            with opened(name, folder) as file:
                shutil.copyfileobj(file, part)
            part.close()
            found = sha256(Path(part.name))
            if found != digest:
                return f"expected sha256 {digest}, found {found} from {where}"
            os.chmod(part.name, 0o644)
            os.replace(part.name, target)
        except (OSError, EOFError, zlib.error) as error:
            return f"could not be had from {where} ({error})"
        finally:
            Path(part.name).unlink(missing_ok=True)
    return ""


def opened(name: str, folder: Path | None) -> IO[bytes]:
    """Open one file for reading, unpacked: as it is or as .gz in a folder, as .gz at the public address."""
    if folder and (folder / name).is_file():
        return open(folder / name, "rb")
    if folder:
        return gzip.open(folder / f"{name}.gz", "rb")
    return gzip.open(urllib.request.urlopen(f"{ADDRESS}/{name}.gz", timeout=60), "rb")


def sha256(path: Path) -> str:
    """Return a file's digest."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
