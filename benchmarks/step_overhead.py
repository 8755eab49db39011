"""What an empty step of the local pipeline costs: Boatyard's runner against kfp.local's own.

    python benchmarks/step_overhead.py [--steps 20] [--rounds 5]

Both run the same compiled spec of empty steps in turn, in processes of their own; with the ratio of each pair.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from kfp import compiler, dsl

THEIRS = """
import sys, time, warnings
warnings.simplefilter("ignore")
from kfp import components, local
spec, root = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
pipeline = components.load_component_from_file(spec)
started = time.perf_counter()
pipeline()
print("seconds", time.perf_counter() - started, file=sys.stderr)
"""
OURS = """
import shutil, sys, time
from pathlib import Path
from boatyard.running import runs
from boatyard.running.display import Silence
from boatyard.pipelines import local
spec, root = map(Path, sys.argv[1:])
run = runs.new("empty", root)
shutil.copyfile(spec, run.spec)
started = time.perf_counter()
local.execute(run, root, Silence())
print("seconds", time.perf_counter() - started, file=sys.stderr)
"""


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def empty(number: int) -> int:
    """Do nothing."""
    return number


def write(path: Path, steps: int) -> None:
    """Compile a chain of empty steps."""

    @dsl.pipeline(name="chain")
    def pipeline() -> None:
        number = 0
        for _ in range(steps):
            number = empty(number=number).output

    compiler.Compiler().compile(pipeline, str(path))


def seconds(script: str, spec: Path) -> float:
    """Run a spec in a process of its own, in a new folder; return how long the pipeline took."""
    with tempfile.TemporaryDirectory() as root:
        done = subprocess.run(
            [sys.executable, "-c", script, str(spec), root], capture_output=True, text=True, check=True
        )
    return float(next(line for line in done.stderr.splitlines() if line.startswith("seconds")).split()[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "pipeline.yaml"
        write(spec, options.steps)
        ratios = []
        print(f"{options.steps} empty steps    kfp.local ms/step    boatyard ms/step    ratio")
        for number in range(options.rounds):
            theirs, ours = seconds(THEIRS, spec), seconds(OURS, spec)
            ratios.append(ours / theirs)
            each = 1000 / options.steps
            print(f"round {number + 1:<11} {theirs * each:17.1f}   {ours * each:17.1f}   {ratios[-1]:6.2f}")
        print(f"median ratio {statistics.median(ratios):.2f} (expected: at most 1.3)")


if __name__ == "__main__":
    main()
