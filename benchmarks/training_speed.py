"""Rows a second in training: ours against the usual Dataset + DataLoader loop of the same model, side by side.

    python benchmarks/training_speed.py                        # 2 threads, Fashion-MNIST's shape, about 4 minutes
    python benchmarks/training_speed.py --device cuda --rows 60000 --repeats 5

The usual loop: a torch Dataset whose __getitem__ makes a normalised float tensor of one image as torchvision's MNIST
classes with ToTensor and Normalize do, DataLoader(shuffle=True) with 0 and with 2 workers (the better of the two
counts), an eager nn.Sequential in the textbook order (convolution, ReLU, pooling), AdamW. Lean is the same loop with as
little work an image as will do. Ours: what `boatyard train` runs. Same layers, same number of weights, same batch size,
same threads. Each has a process of its own; they take turns, in an order that rotates, so that a busy machine is busy
for all; the ratio is taken within each turn.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from boatyard.data import datasets
from boatyard.data.schema import Array, Batch, Field, Schema
from boatyard.project import PreprocessConfig, TrainConfig
from boatyard.running.progress import Progress
from boatyard.training import loop
from boatyard.training.memory import keep_freed_blocks

FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
LABELS = tuple("0123456789")
DIALS = {"mlp": {"hidden": [128]}, "cnn": {"blocks": [32, 64], "dense": [128]}}


@dataclass(frozen=True)
class Rows(datasets.Dataset):
    """Images in memory; reading shards is not what is measured."""

    splits: Mapping[str, Batch] = field(default_factory=dict)

    def shard_rows(self, split: datasets.Split) -> tuple[int, ...]:
        return (len(self.splits[split]),)

    def batches(self, split: datasets.Split, size: int, shard: int | None = None) -> Iterator[Batch]:
        yield from self.splits[split].split(size)


def images(rows: int) -> Array:
    """Return uint8 [rows, 28, 28]: Fashion-MNIST where it is installed, else noise, which is as much work."""
    if FASHION.exists() and rows <= 60000:
        return (
            np.frombuffer(gzip.decompress(FASHION.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)[:rows].copy()
        )
    return np.random.default_rng(0).integers(0, 256, (rows, 28, 28)).astype(np.uint8)


def dataset(image: Array) -> Rows:
    """Wrap images with random labels as a dataset of ours."""
    target = np.random.default_rng(1).integers(0, 10, len(image))
    schema = Schema("classification", (Field("image", "image", "uint8", (28, 28)),), "label", LABELS)
    known = {"mean": [float(image.mean())], "std": [float(image.std())], "min": 0, "max": 255}
    batch = Batch({"image": image}, target, np.arange(len(image)), {})
    splits = {"train": batch, "validation": batch.take(slice(0, 256)), "test": batch.take(slice(0, 256))}
    manifest = {
        "rows": {name: len(split) for name, split in splits.items()},
        "statistics": {"image": known, "__target__": {"counts": dict.fromkeys(LABELS, 1)}},
    }
    return Rows(Path("memory"), "benchmark", schema, manifest, splits)


def ours(recipe: str, data: Rows, arguments: argparse.Namespace) -> Callable[[], float]:
    """Return a function that trains for an epoch and gives its seconds."""
    config = TrainConfig(
        recipe=recipe,
        model=DIALS[recipe],
        batch_size=arguments.batch,
        epochs=1000,
        device=arguments.device,
        precision=arguments.precision,
        schedule="constant",
    )
    config = config.completed()
    keep_freed_blocks()
    trainer = loop.Trainer(config, PreprocessConfig(), data, seal="", root=Path(), work=None)

    def epoch() -> float:
        with loop.reproducible():
            started = time.perf_counter()
            trainer.train_epoch(Progress("train", 10**9, "row"))
            wait(trainer.device)
            taken = time.perf_counter() - started
        trainer.run.epoch, trainer.run.batch, trainer.run.seen = trainer.run.epoch + 1, 0, 0
        return taken

    return epoch


class OneByOne(TorchDataset[tuple[torch.Tensor, int]]):
    """The usual dataset: one image at a time, from bytes to a normalised tensor."""

    def __init__(self, batch: Batch) -> None:
        self.image, self.target = batch.inputs["image"], batch.target
        self.mean, self.deviation = float(self.image.mean()) / 255, float(self.image.std()) / 255

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.from_numpy(self.image[index]).unsqueeze(0).float().div(255)
        return (image - self.mean) / self.deviation, int(self.target[index])


class AsTorchvision(OneByOne):
    """What torchvision's MNIST classes with ToTensor and Normalize do to each image, step by step."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = Image.fromarray(self.image[index])
        image = torch.from_numpy(np.array(picture, copy=True)).view(picture.height, picture.width, 1)
        image = image.permute((2, 0, 1)).contiguous().to(torch.float32).div(255)
        mean = torch.as_tensor([self.mean]).view(-1, 1, 1)
        deviation = torch.as_tensor([self.deviation]).view(-1, 1, 1)
        return image.clone().sub_(mean).div_(deviation), int(self.target[index])


def usual_model(recipe: str) -> nn.Module:
    """Return the same layers as ours in the textbook order."""
    if recipe == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def usual(recipe: str, data: Rows, way: Way, arguments: argparse.Namespace) -> Callable[[], float]:
    """Return a function that trains for an epoch as tutorials do and gives its seconds."""
    device = loop.device_of(TrainConfig(device=arguments.device))
    model = usual_model(recipe).to(device)
    optimizer, loss = torch.optim.AdamW(model.parameters()), nn.CrossEntropyLoss()
    loader = DataLoader(
        way.images(data.splits["train"]),
        batch_size=arguments.batch,
        shuffle=True,
        num_workers=way.workers,
        persistent_workers=way.workers > 0,  # so that starting processes is not counted
    )

    def epoch() -> float:
        started, total = time.perf_counter(), 0.0
        for image, target in loader:
            image, target = image.to(device), target.to(device)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
                output = model(image)
            error = loss(output.float(), target)
            error.backward()
            optimizer.step()
            total += error.item()
        wait(device)
        return time.perf_counter() - started

    return epoch


def wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Way:
    """A usual loop: its dataset, and the DataLoader's workers."""

    images: type[OneByOne]
    workers: int


WAYS = {
    "ours": Way(OneByOne, 0),
    "usual, 0 workers": Way(AsTorchvision, 0),
    "usual, 2 workers": Way(AsTorchvision, 2),
    "lean, 0 workers": Way(OneByOne, 0),
}


def prepare(name: str, recipe: str, arguments: argparse.Namespace) -> Callable[[], float]:
    """Return the function that trains for an epoch, by its name in the table."""
    os.environ["BOATYARD_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    data = dataset(images(arguments.rows))
    return ours(recipe, data, arguments) if name == "ours" else usual(recipe, data, WAYS[name], arguments)


def work(pipe: Connection, name: str, recipe: str, arguments: argparse.Namespace) -> None:
    """Train for an epoch each time that the parent asks, and send its seconds, until the parent hangs up."""
    epoch = prepare(name, recipe, arguments)
    with contextlib.suppress(EOFError):
        while True:
            pipe.recv()
            pipe.send(epoch())


def measure(recipe: str, arguments: argparse.Namespace) -> None:
    """Measure one recipe: every way in a process of its own, by turns."""
    spawn = multiprocessing.get_context("spawn")
    runs: dict[str, Connection] = {}
    for name in WAYS:
        runs[name], theirs = spawn.Pipe()
        spawn.Process(target=work, args=(theirs, name, recipe, arguments)).start()
        theirs.close()
    try:
        rates = take_turns(runs, arguments)
    finally:  # a process that waits to be asked would keep this one from ending
        for pipe in runs.values():
            pipe.close()
    table(recipe, rates)


def take_turns(runs: dict[str, Connection], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return the rates of each way in images per second, one for each turn; a first epoch only warms up."""

    def run(name: str) -> float:
        runs[name].send(True)
        return float(runs[name].recv())

    for name in runs:
        run(name)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(arguments.repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            rates[name].append(arguments.rows / run(name))
    return rates


def table(recipe: str, rates: dict[str, list[float]]) -> None:
    """Print each way's rate and ours against it."""
    names = list(rates)
    best = max(names[1:3], key=lambda name: statistics.median(rates[name]))
    print(f"\n{recipe} {DIALS[recipe]}")
    for name in names:
        ratios = sorted(mine / theirs for mine, theirs in zip(rates["ours"], rates[name], strict=True))
        middle = statistics.median(ratios)
        mark = "  ← the better usual loop" if name == best else ""
        print(
            f"  {name:<18}{statistics.median(rates[name]):>10,.0f} img/s"
            + (f"   ours is {middle:.2f}× ({ratios[0]:.2f} – {ratios[-1]:.2f})" if name != "ours" else "")
            + mark
        )


def main() -> None:
    """Measure both recipes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=12800)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--recipes", nargs="+", choices=tuple(DIALS), default=list(DIALS))
    arguments = parser.parse_args()
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.machine()} CPU"
    print(
        f"torch {torch.__version__}, {where}, {arguments.threads} threads of {os.cpu_count()} processors, "
        f"{arguments.rows} images an epoch, batch {arguments.batch}, {arguments.precision}, {arguments.repeats} turns"
    )
    for recipe in arguments.recipes:
        measure(recipe, arguments)


if __name__ == "__main__":
    main()
