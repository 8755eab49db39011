"""Random changes of training images, on the whole batch at once, drawn from the generator that the loop seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boatyard.data.schema import Schema
from boatyard.errors import ConfigError
from boatyard.project import AugmentConfig
from boatyard.training.loader import WHOLE, Part


class Augmentation:
    """Flip, shift and erase raw images [N, H, W] or [N, H, W, C]; `noise` is added once they are normalised.

    What a shift uncovers repeats the border; what is erased becomes the mean of the training images. Each change is
    drawn for all rows of the batch and done to this process's part of them.
    """

    def __init__(
        self, config: AugmentConfig, schema: Schema, statistics: Mapping[str, Any], part: Part = WHOLE
    ) -> None:
        self.config, self.part = config, part
        self.moves = bool(config.flip or config.shift)
        image = next((f for f, kind in zip(schema.fields, schema.kinds, strict=True) if kind.augmented), None)
        if (self.moves or config.erase) and image is None:
            raise ConfigError("preprocess.augment flips, shifts and erases images", fix="this is a table, remove it")
        if image is not None:
            self.name, self.shape = image.name, image.shape
            mean = torch.from_numpy(np.atleast_1d(np.asarray(statistics[self.name]["mean"], dtype=np.float32)))
            self.mean = mean if len(self.shape) == 3 else mean.reshape(())
            if (most := max(config.erase, config.shift)) > min(self.shape[:2]):
                raise ConfigError(f"preprocess.augment: {most} pixels is more than the image has, {self.shape[:2]}")

    def __call__(self, inputs: Mapping[str, Tensor], rows: int) -> Mapping[str, Tensor]:
        """Change the inputs of a batch of so many rows."""
        if not (self.moves or self.config.erase):
            return inputs
        image = inputs[self.name]
        if self.moves:
            image = self._move(image, rows)
        if self.config.erase:
            image = self._erase(image, rows)
        return {**inputs, self.name: image}

    def noise(self, features: Tensor, rows: int) -> Tensor:
        """Add Gaussian noise to what the model sees of a batch of so many rows."""
        if not self.config.noise:
            return features
        drawn = torch.randn_like(features) if self.part.size == 1 else self._whole(features, rows)[self.part.of(rows)]
        return features + self.config.noise * drawn

    def _whole(self, features: Tensor, rows: int) -> Tensor:
        return torch.randn((rows, *features.shape[1:]), dtype=features.dtype, device=features.device)

    def _move(self, image: Tensor, count: int) -> Tensor:
        """Flip and shift are one indexing: which row and column each pixel comes from."""
        shift, own = self.config.shift, self.part.of(count)
        height, width = self.shape[:2]
        offsets = torch.randint(-shift, shift + 1, (2, count, 1), device=image.device)[:, own]
        down = (torch.arange(height, device=image.device) + offsets[0]).clamp_(0, height - 1)
        across = (torch.arange(width, device=image.device) + offsets[1]).clamp_(0, width - 1)
        if self.config.flip:
            flipped = torch.rand((count, 1), device=image.device)[own] < 0.5
            across = torch.where(flipped, width - 1 - across, across)
        index = torch.arange(len(image), device=image.device)[:, None, None]
        return image[index, down[:, :, None], across[:, None, :]]

    def _erase(self, image: Tensor, count: int) -> Tensor:
        side, own = self.config.erase, self.part.of(count)
        height, width = self.shape[:2]
        top = torch.randint(0, height - side + 1, (count, 1), device=image.device)[own]
        left = torch.randint(0, width - side + 1, (count, 1), device=image.device)[own]
        down, across = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
        inside_rows = (down >= top) & (down < top + side)
        inside = inside_rows[:, :, None] & ((across >= left) & (across < left + side))[:, None, :]
        if len(self.shape) == 3:
            inside = inside[..., None]
        return torch.where(inside, self.mean.to(image.device, image.dtype), image)
