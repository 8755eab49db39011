"""Small datasets in memory, for tests of what comes after preprocess."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boatyard.data.datasets import Dataset, Split
from boatyard.data.schema import Array, Batch, Field, Schema


@dataclass(frozen=True)
class Made(Dataset):
    """A dataset whose splits are held as batches."""

    splits: Mapping[str, Batch] = field(default_factory=dict)
    of_shard: int = 1 << 20

    def load(self, split: Split) -> Batch:
        return self.splits[split]

    def shard_rows(self, split: Split) -> tuple[int, ...]:
        return tuple(len(shard) for shard in self.splits[split].split(self.of_shard))

    def batches(self, split: Split, size: int, shard: int | None = None) -> Iterator[Batch]:
        of_shard = [*self.splits[split].split(self.of_shard)]
        yield from (self.splits[split] if shard is None else of_shard[shard]).split(size)


def made(
    schema: Schema, inputs: Mapping[str, Array], target: Array, digest: str = "0" * 64, of_shard: int = 1 << 20
) -> Made:
    """Split rows 80:10:10 in their order, with statistics of the first 80 %."""
    rows = len(target)
    whole = Batch(dict(inputs), target, np.arange(rows), {})
    cut, end = rows * 8 // 10, rows * 9 // 10
    splits = {"train": slice(0, cut), "validation": slice(cut, end), "test": slice(end, rows)}
    parts = {name: whole.take(part) for name, part in splits.items()}
    counts = {name: len(part) for name, part in parts.items()}
    manifest = {"rows": counts, "statistics": statistics(schema, parts["train"])}
    return Made(Path("made"), digest, schema, manifest, parts, of_shard)


def statistics(schema: Schema, batch: Batch) -> dict[str, Any]:
    """What preprocess would fit on these rows."""
    found: dict[str, Any] = {}
    for tensor in schema.tensors():
        for index, name in enumerate(tensor.fields):
            values = batch.inputs[tensor.name]
            found[name] = _numbers(values[:, index] if len(tensor.fields) > 1 else values)
    if schema.task == "regression":
        found["__target__"] = _numbers(batch.target)
        return found
    seen = np.bincount(batch.target, minlength=len(schema.labels)).tolist()
    found["__target__"] = {"counts": dict(zip(schema.labels, seen, strict=True))}
    return found


def _numbers(values: Array) -> dict[str, Any]:
    if values.dtype.kind == "U":
        kinds, counts = np.unique(values[values != ""], return_counts=True)
        return {"counts": dict(zip(kinds.tolist(), counts.tolist(), strict=True)), "missing": int((values == "").sum())}
    if values.ndim >= 3:
        channels = values.reshape(-1, values.shape[3] if values.ndim == 4 else 1).astype(np.float64)
        spread = {"mean": channels.mean(0).tolist(), "std": channels.std(0).tolist()}
        return {**spread, "min": float(values.min()), "max": float(values.max())}
    known = values[~np.isnan(values)].astype(np.float64)
    found = {"mean": known.mean(), "std": known.std(), "min": known.min(), "max": known.max()}
    found["median"] = np.median(known)
    missing = {"missing": int(np.isnan(values).sum()), "count": len(known)}
    return {**{key: float(value) for key, value in found.items()}, **missing}


def images(rows: int = 400, side: int = 12, channels: int = 0, kind: str = "uint8", seed: int = 0) -> Made:
    """Three labels: which third of the columns is bright."""
    random = np.random.default_rng(seed)
    target = random.integers(0, 3, rows)
    shape = (side, side, channels) if channels else (side, side)
    image = random.integers(0, 120, (rows, *shape))
    third = side // 3
    for row, label in enumerate(target):
        image[row, :, label * third : label * third + third] += 60
    schema = Schema("classification", (Field("image", "image", kind, shape),), "label", ("left", "middle", "right"))
    return made(schema, {"image": image.astype(kind)}, target.astype(np.int64))


def numbers(rows: int = 400, columns: int = 4, task: str = "classification", seed: int = 0) -> Made:
    """A table of numbers alone; the target is a linear function of them, with noise."""
    random = np.random.default_rng(seed)
    features = random.normal(3, 2, (rows, columns)).astype(np.float32)
    value = features @ np.arange(1, columns + 1) + random.normal(0, 2, rows)
    fields = tuple(Field(f"x{i}", "number", "float32") for i in range(columns))
    if task == "regression":
        return made(Schema("regression", fields, "y"), {"features": features}, value.astype(np.float32))
    target = np.digitize(value, np.quantile(value, [1 / 3, 2 / 3])).astype(np.int64)
    return made(Schema("classification", fields, "y", ("low", "middle", "high")), {"features": features}, target)


def mixed(rows: int = 400, task: str = "classification", seed: int = 0) -> Made:
    """A table with numbers, some missing, and categories, some missing."""
    random = np.random.default_rng(seed)
    size, age = random.normal(50, 9, rows).astype(np.float32), random.normal(30, 5, rows).astype(np.float32)
    age[random.random(rows) < 0.2] = np.nan
    colour, town = random.choice(["blue", "green", "red"], rows), random.choice(["Ås", "Œuf", "a b"], rows)
    colour[random.random(rows) < 0.2] = ""
    value = size / 9 + 3 * (colour == "red") - 2 * (town == "Ås") + random.normal(0, 0.3, rows)
    fields = (
        Field("size", "number", "float32"),
        Field("age", "number", "float32", nullable=True),
        Field("colour", "category", "str", nullable=True, categories=("blue", "green", "red")),
        Field("town", "category", "str", categories=("a b", "Ås", "Œuf")),
    )
    inputs = {"size": size, "age": age, "colour": colour, "town": town}
    if task == "regression":
        return made(Schema("regression", fields, "value"), inputs, value.astype(np.float32))
    target = (value > np.median(value)).astype(np.int64)
    return made(Schema("classification", fields, "value", ("no", "yes")), inputs, target)
