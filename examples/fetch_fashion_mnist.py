"""Put Fashion-MNIST where the examples look for it: from a folder, from Debian's package, or from its public address.

    python examples/fetch_fashion_mnist.py data/fashion-mnist [--source FOLDER]

Every file is checked against its sha256 before it is put in place; what is there and right is left alone.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

PACKAGE = Path("/usr/share/datasets/fashion-mnist")  # Debian: apt-get install dataset-fashion-mnist
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
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
    print(f"Fashion-MNIST is in {options.folder}, four files, digests as published")
    return 0


def put(name: str, digest: str, target: Path, source: Path | None) -> str:
    """Bring one file to its place; return what went wrong, or nothing."""
    folder = source or (PACKAGE if PACKAGE.is_dir() else None)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
        try:
            if folder:
                with open(folder / name, "rb") as file:
                    shutil.copyfileobj(file, part)
            else:
                with urllib.request.urlopen(f"{ADDRESS}/{name}", timeout=60) as answer:
                    shutil.copyfileobj(answer, part)
            part.close()
            found = sha256(Path(part.name))
            if found != digest:
                return f"wanted sha256 {digest}, found {found} at {folder or ADDRESS}"
            os.chmod(part.name, 0o644)
            os.replace(part.name, target)
        except (OSError, urllib.error.URLError) as error:
            return f"could not be had from {folder or ADDRESS} ({error})"
        finally:
            Path(part.name).unlink(missing_ok=True)
    return ""


def sha256(path: Path) -> str:
    """Return a file's digest."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
