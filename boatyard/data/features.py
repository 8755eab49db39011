"""Preprocessing as a part of the graph: raw values in, what the model sees out.

Training, evaluation and serving share this one module: it is exported with the model. Its constants are the dataset's
statistics, fitted on the training rows only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boatyard.data import kinds
from boatyard.data.schema import Array, Field, Schema
from boatyard.project import PreprocessConfig

Statistics = Mapping[str, Any]


class Features(nn.Module):
    """Inputs by tensor name (categories as codes) to float32: [N, C, H, W] of an image, [N, F] of a table.

    Each kind of field brings its own module. Images and numbers: normalised as `preprocess.normalise` says; missing
    numbers become the median, and where training rows had any, a column of 0 and 1 says which. Categories: one column
    each (`onehot`), or one column with their rank (`ordinal`). `columns` names the columns of a table.
    """

    def __init__(self, schema: Schema, statistics: Statistics, preprocess: PreprocessConfig) -> None:
        super().__init__()
        self.columns: tuple[str, ...] = ()
        self.parts = nn.ModuleList()
        for tensor in schema.tensors():
            fields = [schema.field(name) for name in tensor.fields]
            part = kinds.of(fields[0]).features(tensor, fields, statistics, preprocess)
            self.parts.append(part)
            self.columns += getattr(part, "columns", ())

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        made = [part(inputs) for part in self.parts]
        return made[0] if len(made) == 1 else torch.cat(made, dim=1)


class ImageFeatures(nn.Module):
    """uint8 or float32 [N, H, W] or [N, H, W, C] to float32 [N, C, H, W]."""

    def __init__(self, field: Field, statistics: Mapping[str, Any], preprocess: PreprocessConfig) -> None:
        super().__init__()
        self.name = field.name
        self.colour = len(field.shape) == 3
        channels = field.shape[2] if self.colour else 1
        shift, scale = _normal(statistics, preprocess, channels)
        self.offset: Tensor
        self.scale: Tensor
        self.register_buffer("offset", -(shift * scale).reshape(1, channels, 1, 1))
        self.register_buffer("scale", scale.reshape(1, channels, 1, 1))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        image = inputs[self.name].to(torch.float32)
        image = image.permute(0, 3, 1, 2) if self.colour else image.unsqueeze(1)
        return torch.addcmul(self.offset, image, self.scale)  # one pass over memory


class NumberFeatures(nn.Module):
    """float32 [N] or [N, F], NaN where missing, to float32 [N, F + indicators]."""

    def __init__(
        self, name: str, fields: Sequence[Field], statistics: Statistics, preprocess: PreprocessConfig
    ) -> None:
        super().__init__()
        self.name = name
        made = [_normal(statistics[field.name], preprocess, 1) for field in fields]
        medians = [statistics[field.name].get("median") if field.nullable else None for field in fields]
        seen = [i for i, f in enumerate(fields) if f.nullable and statistics[f.name].get("missing")]
        self.nullable = any(field.nullable for field in fields)
        self.columns = tuple(f.name for f in fields) + tuple(f"{fields[i].name} is missing" for i in seen)
        self.shift: Tensor
        self.scale: Tensor
        self.median: Tensor
        self.missing: Tensor
        self.register_buffer("shift", torch.cat([shift for shift, _ in made]))
        self.register_buffer("scale", torch.cat([scale for _, scale in made]))
        self.register_buffer("median", torch.tensor([float("nan") if m is None else m for m in medians]).float())
        self.register_buffer("missing", torch.tensor(seen, dtype=torch.int64))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        raw = inputs[self.name].reshape(-1, len(self.shift))
        if not self.nullable:
            return (raw - self.shift) * self.scale
        gone = torch.isnan(raw)
        values = (torch.where(gone, self.median, raw) - self.shift) * self.scale
        if not len(self.missing):
            return values
        return torch.cat([values, gone.index_select(1, self.missing).to(torch.float32)], dim=1)


class CategoryFeatures(nn.Module):
    """int64 codes [N] to float32 [N, categories (+ missing)] or [N, 1]; an unknown category is all zeros."""

    def __init__(self, field: Field, statistics: Mapping[str, Any], preprocess: PreprocessConfig) -> None:
        super().__init__()
        self.name = field.name
        self.onehot = preprocess.encode == "onehot"
        known = [*field.categories, ""] if _missing_is_known(field, statistics) else [*field.categories]
        self.values: Tensor
        if self.onehot:
            self.columns = tuple(f"{field.name} is {value or 'missing'}" for value in known)
            self.register_buffer("values", torch.arange(len(known)))
            return
        self.columns = (field.name,)
        self.register_buffer("values", _ranks(field, statistics, preprocess))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        codes = inputs[self.name].reshape(-1, 1)
        if self.onehot:
            return (codes == self.values).to(torch.float32)
        return self.values[codes]


def tensors(schema: Schema, inputs: Mapping[str, Array]) -> dict[str, Tensor]:
    """Turn a batch's arrays into torch tensors, as the ONNX model does what torch has no type for."""
    made = {}
    for tensor in schema.tensors():
        field = schema.field(tensor.fields[0])
        values = kinds.of(field).to_torch(field, inputs[tensor.name])
        made[tensor.name] = torch.from_numpy(np.require(values, requirements=["C", "W"]))  # Arrow's are read-only
    return made


def empty(schema: Schema, rows: int) -> dict[str, Tensor]:
    """Return inputs of zeros: what a shape can be asked with, and what rows are read into."""
    made = {}
    for tensor in schema.tensors():
        field = schema.field(tensor.fields[0])
        dtype = getattr(torch, kinds.of(field).torch_dtype(field))
        made[tensor.name] = torch.zeros((rows, *tensor.shape), dtype=dtype)
    return made


def output_shape(features: nn.Module, schema: Schema) -> tuple[int, ...]:
    """Return the shape of one row after a features module."""
    with torch.no_grad():
        return tuple(features.eval()(empty(schema, 2)).shape[1:])


def _missing_is_known(field: Field, statistics: Mapping[str, Any]) -> bool:
    """Only what training rows showed has weights; a missing value that they did not is as good as unknown."""
    return field.nullable and bool(statistics.get("missing"))


def _normal(statistics: Mapping[str, Any], preprocess: PreprocessConfig, channels: int) -> tuple[Tensor, Tensor]:
    """Return (shift, scale), each float32 [channels]: a normalised value is (raw - shift) · scale."""
    shift, spread = np.zeros(channels), np.ones(channels)
    if preprocess.normalise == "standard":
        shift, spread = _each(statistics["mean"], channels), _each(statistics["std"], channels)
    if preprocess.normalise == "minmax":
        shift = _each(statistics["min"], channels)
        spread = _each(statistics["max"], channels) - shift
    # a constant column has no spread: it becomes 0 and says nothing
    scale = 1 / np.where(np.isfinite(spread) & (spread > 1e-12), spread, 1)
    return torch.from_numpy(shift).float(), torch.from_numpy(scale).float()


def _each(value: Any, channels: int) -> Array:
    made = np.atleast_1d(np.asarray(0 if value is None else value, dtype=np.float64))
    return np.broadcast_to(np.nan_to_num(made), (channels,)).copy()


def _ranks(field: Field, statistics: Mapping[str, Any], preprocess: PreprocessConfig) -> Tensor:
    """Return each code's number: the rank, normalised over the training rows; missing and unknown are the middle."""
    ranks = np.arange(len(field.categories), dtype=np.float64)
    counts = np.array([statistics.get("counts", {}).get(value, 0) for value in field.categories], dtype=np.float64)
    mean = float(np.average(ranks, weights=counts)) if counts.sum() else 0.0
    if preprocess.normalise == "standard":
        deviation = float(np.sqrt(np.average((ranks - mean) ** 2, weights=counts))) if counts.sum() else 0.0
        ranks, mean = (ranks - mean) / (deviation or 1.0), 0.0
    if preprocess.normalise == "minmax":
        ranks, mean = ranks / max(len(ranks) - 1, 1), mean / max(len(ranks) - 1, 1)
    return torch.from_numpy(np.append(ranks, [mean, mean])).float()
