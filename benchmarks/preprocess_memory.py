"""How much memory preprocess takes, all its processes together, while the input grows.

    python benchmarks/preprocess_memory.py                            # 200 MB of each kind, as CI does
    python benchmarks/preprocess_memory.py --gigabytes 4 --kinds npy csv

Inputs are made in a scratch folder and removed. Memory is the greatest proportional set size (PSS) of the process and
its children, sampled from /proc; the limit is 512 MB whatever the size of the input. Exits 1 when it is passed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

LIMIT = 512  # MB, over all processes
EVERY = 0.05  # seconds between two looks
PIECE = 8 << 20  # bytes made at once
COLUMNS = 12
RUN = """
import json, sys
from pathlib import Path
from boatyard import preprocessing
from boatyard.project import DataConfig, PreprocessConfig, section
preprocessing.preprocess(
    section(DataConfig, json.loads(sys.argv[1])), section(PreprocessConfig, {}),
    Path(sys.argv[2]), root=Path("."), task="classification",
)
"""


@dataclass(frozen=True)
class Measured:
    """One run: input in MB, seconds, greatest PSS and RSS of all processes in MB, rows kept."""

    kind: str
    megabytes: float
    seconds: float
    pss: float
    rss: float
    rows: int

    def __str__(self) -> str:
        rate = self.megabytes / self.seconds
        return (
            f"{self.kind:<8}{self.megabytes:>10,.0f}{self.rows:>13,}{self.seconds:>9.1f}{rate:>9.0f}"
            f"{self.pss:>10.0f}{self.rss:>10.0f}"
        )


HEAD = f"{'kind':<8}{'input MB':>10}{'rows':>13}{'seconds':>9}{'MB/s':>9}{'PSS MB':>10}{'RSS MB':>10}"


def main() -> int:
    """Measure every kind and say whether the limit held."""
    parser = argparse.ArgumentParser(description="How much memory preprocess takes.")
    parser.add_argument("--gigabytes", type=float, default=0.2, help="size of each input (0.2)")
    parser.add_argument("--kinds", nargs="+", choices=tuple(MAKERS), default=list(MAKERS))
    parser.add_argument("--folder", type=Path, help="where the inputs are made; the system's temporary folder")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    given = parser.parse_args()
    print(HEAD)
    found = []
    for kind in given.kinds:
        with tempfile.TemporaryDirectory(dir=given.folder, prefix="memory-") as folder:
            found.append(measure(kind, int(given.gigabytes * 1e9), Path(folder)))
        print(found[-1], flush=True)
    if given.json:
        given.json.write_text(json.dumps([vars(one) for one in found], indent=2) + "\n")
    worst = max(found, key=lambda one: one.pss)
    print(f"most memory: {worst.pss:.0f} MB with {worst.kind} (limit {LIMIT} MB)")
    return int(worst.pss > LIMIT)


def measure(kind: str, size: int, folder: Path) -> Measured:
    """Make an input of about `size` bytes, preprocess it in a process of its own and watch its memory."""
    config = MAKERS[kind](folder / "input", size)
    made = sum(path.stat().st_size for path in (folder / "input").rglob("*") if path.is_file())
    if shutil.disk_usage(folder).free < 2 * made:
        raise SystemExit(f"not enough room in {folder} for {2 * made / 1e9:.1f} GB")
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", RUN, json.dumps(config), str(folder / "out")])
    pss = rss = 0
    while process.poll() is None:
        now = [memory(one) for one in tree(process.pid)]
        pss, rss = max(pss, sum(p for p, _ in now)), max(rss, sum(r for _, r in now))
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"preprocess of {kind} ended with {process.returncode}")
    rows = json.loads((folder / "out" / "manifest.json").read_bytes())["rows"]
    return Measured(kind, made / 1e6, time.monotonic() - started, pss / 1e3, rss / 1e3, sum(rows.values()))


def tree(root: int) -> Iterator[int]:
    """Return a process and all below it."""
    yield root
    for task in Path(f"/proc/{root}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from tree(int(child))


def memory(process: int) -> tuple[int, int]:
    """Return PSS and RSS of one process in kB; zeros when it is gone."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return values.get("Pss", 0), values.get("Rss", 0)


def _pixels(size: int, side: int = 28) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Make random images and labels, some at a time."""
    random, piece = np.random.default_rng(0), PIECE // side**2
    for start in range(0, size // side**2, piece):
        count = min(piece, size // side**2 - start)
        yield random.integers(0, 256, (count, side, side), np.uint8), random.integers(0, 10, count).astype(np.uint8)


def make_npy(folder: Path, size: int) -> dict[str, Any]:
    """Write images.npy [N, 28, 28] and label.npy."""
    folder.mkdir()
    count = size // 28**2
    with open(folder / "images.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 28, 28)}
        np.lib.format.write_array_header_1_0(file, header)
        labels = []
        for images, some in _pixels(size):
            file.write(images.tobytes())
            labels.append(some)
    np.save(folder / "label.npy", np.concatenate(labels))
    return {"source": "npy", "path": str(folder)}


def make_idx(folder: Path, size: int) -> dict[str, Any]:
    """Write IDX files of training and test images, 6 to 1."""
    folder.mkdir()
    for name, share in (("train", 6 / 7), ("t10k", 1 / 7)):
        count = int(size * share) // 28**2
        with (
            open(folder / f"{name}-images-idx3-ubyte", "wb") as images,
            open(folder / f"{name}-labels-idx1-ubyte", "wb") as labels,
        ):
            images.write(struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28))
            labels.write(struct.pack(">BBBBI", 0, 0, 8, 1, count))
            for some, of in _pixels(int(size * share)):
                images.write(some.tobytes())
                labels.write(of.tobytes())
    return {"source": "idx", "path": str(folder)}


def _tables(size: int, width: int) -> Iterator[pa.Table]:
    """Make random rows of numbers and categories, some at a time, of about `width` bytes a row."""
    random, rows = np.random.default_rng(0), 50_000
    sites = np.array(["north", "south", "east", "west"])
    for start in range(0, size // width, rows):
        count = min(rows, size // width - start)
        table = {f"c{i}": np.round(random.normal(size=count), 6) for i in range(COLUMNS)}
        table["site"] = sites[random.integers(0, 4, count)]
        table["label"] = np.array(["no", "yes"])[random.integers(0, 2, count)]
        yield pa.table(table)


def make_csv(folder: Path, size: int) -> dict[str, Any]:
    """Write rows.csv: 12 numbers, a category and a label; about 123 bytes a row."""
    folder.mkdir()
    with open(folder / "rows.csv", "wb") as file:
        for number, table in enumerate(_tables(size, 123)):
            pacsv.write_csv(table, file, pacsv.WriteOptions(include_header=number == 0))
    return {"source": "csv", "path": str(folder / "rows.csv")}


def make_parquet(folder: Path, size: int) -> dict[str, Any]:
    """Write rows.parquet of the same columns; about 98 bytes a row."""
    folder.mkdir()
    tables = _tables(size, 98)
    first = next(tables)
    with pq.ParquetWriter(folder / "rows.parquet", first.schema, use_dictionary=["site", "label"]) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
    return {"source": "parquet", "path": str(folder / "rows.parquet")}


MAKERS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "idx": make_idx,
    "npy": make_npy,
    "csv": make_csv,
    "parquet": make_parquet,
}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sys.exit(main())
