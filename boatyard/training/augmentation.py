"""Random changes of training images, on the whole batch at once, drawn from the generator that the loop seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boatyard.errors import ConfigError
from boatyard.project import AugmentConfig
from boatyard.schema import Schema


class Augmentation:
    """Flip, shift and erase raw images [N, H, W] or [N, H, W, C]; `noise` is added once they are normalised.

    What a shift uncovers repeats the border; what is erased becomes the mean of the training images.
    """

    def __init__(self, config: AugmentConfig, schema: Schema, statistics: Mapping[str, Any]) -> None:
        self.config = config
        self.moves = bool(config.flip or config.shift)
        if (self.moves or config.erase) and not schema.is_image:
            raise ConfigError("preprocess.augment flips, shifts and erases images; this is a table, remove it")
        if schema.is_image:
            self.name, self.shape = schema.fields[0].name, schema.fields[0].shape
            mean = torch.from_numpy(np.atleast_1d(np.asarray(statistics[self.name]["mean"], dtype=np.float32)))
            self.mean = mean if len(self.shape) == 3 else mean.reshape(())
            if (most := max(config.erase, config.shift)) > min(self.shape[:2]):
                raise ConfigError(f"preprocess.augment: {most} pixels is more than the image has, {self.shape[:2]}")

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if not (self.moves or self.config.erase):
            return inputs
        image = inputs[self.name]
        if self.moves:
            image = self._move(image)
        if self.config.erase:
            image = self._erase(image)
        return {**inputs, self.name: image}

    def noise(self, features: Tensor) -> Tensor:
        """Add Gaussian noise to what the model sees."""
        if not self.config.noise:
            return features
        return features + self.config.noise * torch.randn_like(features)

    def _move(self, image: Tensor) -> Tensor:
        """Flip and shift are one indexing: which row and column each pixel comes from."""
        rows, shift = len(image), self.config.shift
        height, width = self.shape[:2]
        offsets = torch.randint(-shift, shift + 1, (2, rows, 1), device=image.device)
        down = (torch.arange(height, device=image.device) + offsets[0]).clamp_(0, height - 1)
        across = (torch.arange(width, device=image.device) + offsets[1]).clamp_(0, width - 1)
        if self.config.flip:
            flipped = torch.rand((rows, 1), device=image.device) < 0.5
            across = torch.where(flipped, width - 1 - across, across)
        index = torch.arange(rows, device=image.device)[:, None, None]
        return image[index, down[:, :, None], across[:, None, :]]

    def _erase(self, image: Tensor) -> Tensor:
        rows, side = len(image), self.config.erase
        height, width = self.shape[:2]
        top = torch.randint(0, height - side + 1, (rows, 1), device=image.device)
        left = torch.randint(0, width - side + 1, (rows, 1), device=image.device)
        down, across = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
        inside_rows = (down >= top) & (down < top + side)
        inside = inside_rows[:, :, None] & ((across >= left) & (across < left + side))[:, None, :]
        if len(self.shape) == 3:
            inside = inside[..., None]
        return torch.where(inside, self.mean.to(image.device, image.dtype), image)
