"""Which engine answers a package sooner on this machine? ONNX Runtime beside OpenVINO, paired.

    python benchmarks/engines.py PACKAGE [ROUNDS]

Prints, by rows of a batch, how many times as fast OpenVINO answers as ONNX Runtime, a thread each: the median and the
range of the rounds, each of which runs both. Needs the extra `openvino`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from boatyard import prediction
from boatyard.data.schema import Array
from boatyard.prediction import Engine

SIZES = (1, 8, 64)
SECONDS = 0.2  # of one engine in a round


def main(path: Path, rounds: int = 7) -> int:
    usual, other = (prediction.load(path, threads=1, by=name) for name in ("onnxruntime", "openvino"))
    golden = usual.package.golden.inputs
    if not len(usual.package.golden):
        print("expected a package with golden examples, found none", file=sys.stderr)
        return 1
    for size in SIZES:
        inputs = {name: np.resize(array, (size, *array.shape[1:])) for name, array in golden.items()}
        ratios = sorted(seconds(usual.engine, inputs) / seconds(other.engine, inputs) for _ in range(rounds))
        print(f"{size:>3} rows: {statistics.median(ratios):.2f} ({ratios[0]:.2f} - {ratios[-1]:.2f}) times as fast")
    return 0


def seconds(engine: Engine, inputs: Mapping[str, Array]) -> float:
    """Return the seconds of one run."""
    runs, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < SECONDS:
        engine.run(inputs)
        runs += 1
    return spent / runs


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
