"""Convolutions for images: blocks that each halve the picture, then dense layers."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import nn

from boatyard.errors import ConfigError
from boatyard.project import Count, Number, Section
from boatyard.recipes import Recipe


class Cnn(Recipe):
    """Blocks of convolution and 2×2 max pooling, dense layers, one output a label."""

    class Dials(Section):
        blocks: tuple[Count, ...] = Field((32, 64), min_length=1, description="channels of each block")
        convolutions: Count = Field(1, le=4, description="convolutions in a block, before its pooling")
        kernel: Count = Field(3, le=11, description="side of a convolution in pixels, odd")
        dense: tuple[Count, ...] = Field((128,), description="width of each dense layer after the blocks")
        dropout: Number = Field(0.0, ge=0, lt=1, description="before each dense layer and the output")
        batch_norm: bool = Field(False, description="normalise after each convolution")

    def model(self) -> nn.Module:
        channels, height, width = self._image()
        layers: list[nn.Module] = []
        for block in self.dials.blocks:
            layers += self._block(channels, block)
            channels, height, width = block, height // 2, width // 2
        layers.append(nn.Flatten())
        features = channels * height * width
        for dense in self.dials.dense:
            layers += [*self._dropout(), nn.Linear(features, dense), nn.ReLU(inplace=True)]
            features = dense
        model = nn.Sequential(*layers, *self._dropout(), nn.Linear(features, self.outputs))
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _block(self, channels: int, block: int) -> list[nn.Module]:
        """Pooling comes before the activation: max and ReLU commute, and the activation has a quarter of the work."""
        layers: list[nn.Module] = []
        for index in range(self.dials.convolutions):
            if index:
                layers.append(nn.ReLU(inplace=True))
            layers.append(nn.Conv2d(block if index else channels, block, self.dials.kernel, padding="same"))
            if self.dials.batch_norm:
                layers.append(nn.BatchNorm2d(block))
        return [*layers, nn.MaxPool2d(2), nn.ReLU(inplace=True)]

    def _dropout(self) -> list[nn.Module]:
        return [nn.Dropout(self.dials.dropout)] if self.dials.dropout else []

    def _image(self) -> tuple[int, int, int]:
        if len(self.shape) != 3:
            raise ConfigError(
                f"cnn needs images, found a table of {math.prod(self.shape)} features", fix="use mlp or linear"
            )
        if self.dials.kernel % 2 == 0:
            raise ConfigError(f"train.model.kernel is {self.dials.kernel}", fix="give an odd one such as 3 or 5")
        channels, height, width = self.shape
        blocks = len(self.dials.blocks)
        if min(height, width) < 2**blocks:
            raise ConfigError(
                f"train.model.blocks has {blocks} blocks, each halves the picture: it needs "
                f"{2**blocks} pixels a side or more, found {height}×{width}",
                fix=f"give at most {int(math.log2(min(height, width)))} blocks",
            )
        return channels, height, width
