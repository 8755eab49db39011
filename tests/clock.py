"""A toy kind, as a plug-in's author writes one: a time of day, "HH:MM", that the model sees as a point on a circle."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boatyard.data.kinds import Kind
from boatyard.data.schema import Array, Field, Tensor
from boatyard.data.values import show, wrong

TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class ClockKind(Kind):
    """Hour and minute, float32 [2]; V2 and gRPC carry the text as well."""

    name = "clock"
    shape = (2,)

    def wire(self, field: Field) -> Tensor:
        return Tensor(field.name, "str", (), (field.name,))

    def read(self, field: Field, value: Any, at: str) -> Any:
        time = TIME.fullmatch(value) if isinstance(value, str) else None
        if time is None:
            raise wrong("a time of day, HH:MM", show(value), at)
        return np.array([int(time[1]), int(time[2])], np.float32)

    def write(self, field: Field, values: Array) -> list[Any]:
        return [None if math.isnan(hour) else f"{hour:02.0f}:{minute:02.0f}" for hour, minute in values.tolist()]

    def features(self, tensor: Tensor, fields: Sequence[Field], statistics: Mapping[str, Any], preprocess: Any) -> Any:
        import torch

        class Circle(torch.nn.Module):
            columns = tuple(f"{tensor.name} {side}" for side in ("sin", "cos", "is missing"))

            def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
                hour, minute = inputs[tensor.name][:, 0], inputs[tensor.name][:, 1]
                missing = torch.isnan(hour)
                angle = torch.where(missing, 0.0, (hour + minute / 60) * (2 * math.pi / 24))
                there = (~missing).to(torch.float32)
                return torch.stack([torch.sin(angle) * there, torch.cos(angle) * there, 1 - there], dim=1)

        return Circle()


KIND = ClockKind()
