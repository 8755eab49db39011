"""How long `boatyard --help` takes, beside an interpreter that does nothing.

python benchmarks/help_time.py [--rounds 10]
"""

import argparse
import statistics
import subprocess
import sys
import time

WANTED = 0.25  # seconds


def seconds(*arguments: str) -> float:
    """Run Python with these arguments to its end; return how long it took."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    times = [(seconds("-c", "pass"), seconds("-m", "boatyard", "--help")) for _ in range(rounds)]
    python, helped = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"boatyard --help   median {helped:.3f} s (at most {WANTED} s), {helped / python:.1f} × an empty python")


if __name__ == "__main__":
    main()
