"""Does the server's memory stay flat? Mixed load for a while: all protocols, one row and many, mistakes, hang-ups.

    python benchmarks/soak.py PACKAGE [SECONDS]        # 600 by default; CI runs 60

Serves the package on loopback in a process of its own and prints, each tenth of the time, its resident memory and what
was answered. Exits 1 when a right request got another answer than the engine's, when a wrong one got none or a status
of 500 or more, or when the last tenths have more than 5 % more memory than those after the first two (medians).
"""

from __future__ import annotations

import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from answers import protocols, server

from boatyard import packages
from boatyard.prediction import Answers

GROWTH = 1.05
BAD = (b"", b"null", b"{", b'{"instances": []}', b'{"instances": [[1, 2], [3]]}', b'{"inputs": 3}', b"\xff" * 100)
SIZES = (1, 1, 1, 1, 3, 40, 400)


class Load:
    """What the clients do until they are told to stop, and what came of it."""

    def __init__(self, package: packages.Package, url: str, address: str) -> None:
        self.package, self.url, self.address = package, url, address
        self.golden, self.stop = package.golden, threading.Event()
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def work(self, seed: int) -> None:
        """Ask, as one client, one thing after another."""
        chance = random.Random(seed)
        ask = protocols(self.package, self.url, self.address)
        with httpx.Client(timeout=60) as client:
            ways: dict[str, Callable[[], None]] = {
                **{name: lambda name=name: self._right(name, ask[name], chance.choice(SIZES)) for name in ask},
                "mistake": lambda: self._mistake(client, chance),
                "hang-up": lambda: self._hang_up(chance),
                "look": lambda: self._look(client, chance),
            }
            while not self.stop.is_set():
                name = chance.choice(list(ways))
                try:
                    ways[name]()
                    self.seen[name] += 1
                except Exception as error:  # whatever it is, it is what this looks for
                    self.wrong.append(f"{name}: {type(error).__name__} {error}")
                    return

    def _right(self, name: str, ask: Callable[[Any], Answers], rows: int) -> None:
        inputs = {key: np.resize(array, (rows, *array.shape[1:])) for key, array in self.golden.inputs.items()}
        found = ask(inputs)
        for mine, wanted in zip(found.outputs(), self.golden.answers.outputs(), strict=True):
            expected = np.resize(wanted, (rows, *wanted.shape[1:]))
            same = (mine == expected).all() if mine.dtype.kind in "OU" else np.allclose(mine, expected, atol=1e-5)
            assert same, f"{rows} rows were answered otherwise than by the engine"

    def _mistake(self, client: httpx.Client, chance: random.Random) -> None:
        path = chance.choice((f"v1/models/{self.package.name}:predict", f"v2/models/{self.package.name}/infer", "v9"))
        status = client.post(f"{self.url}/{path}", content=chance.choice(BAD)).status_code
        assert 400 <= status < 500, f"a mistake got {status}"

    def _hang_up(self, chance: random.Random) -> None:
        host, port = self.url.removeprefix("http://").split(":")
        head = f"POST /v1/models/{self.package.name}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head.encode()[: chance.randrange(len(head) + 1)])

    def _look(self, client: httpx.Client, chance: random.Random) -> None:
        path = chance.choice(("metrics", f"v2/models/{self.package.name}", "v2/health/ready"))
        client.get(f"{self.url}/{path}").raise_for_status()


def main(folder: Path, seconds: float = 600) -> int:
    package = packages.verify(folder)
    with server(package, "--workers", "2") as (url, address):
        load = Load(package, url, address)
        (process,) = [each for each in psutil.Process().children() if "serving" in " ".join(each.cmdline())]
        clients = [threading.Thread(target=load.work, args=(seed,)) for seed in range(4)]
        for client in clients:
            client.start()
        sizes = []
        for tenth in range(10):
            time.sleep(seconds / 10)
            everyone = [process, *process.children()]
            sizes.append(sum(each.memory_info().rss for each in everyone) / 2**20)
            print(
                f"{(tenth + 1) * seconds / 10:5.0f} s {sizes[-1]:7.1f} MB  {sum(load.seen.values())} requests",
                flush=True,
            )
        load.stop.set()
        for client in clients:
            client.join()
    print(", ".join(f"{count} {name}" for name, count in sorted(load.seen.items())))
    growth = float(np.median(sizes[7:]) / np.median(sizes[2:5]))
    print(f"memory at the end over that at the start: {growth:.3f} (at most {GROWTH}); wrong: {load.wrong or 'none'}")
    return 0 if growth <= GROWTH and not load.wrong else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(float, sys.argv[2:])))
