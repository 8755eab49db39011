"""Layers in which everything is connected to everything; for tables and small images."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from torch import nn

from boatyard.project import Count, Number, Section
from boatyard.recipes import Recipe

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


class Mlp(Recipe):
    """Hidden layers with an activation and dropout after each; images are flattened."""

    class Dials(Section):
        hidden: tuple[Count, ...] = Field((128,), description="width of each hidden layer")
        dropout: Number = Field(0.0, ge=0, lt=1, description="share of the activations set to 0 in training")
        activation: Literal["relu", "gelu", "tanh", "silu"] = Field("relu", description="after each hidden layer")

    def model(self) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(self.shape)
        for hidden in self.dials.hidden:
            layers += [nn.Linear(width, hidden), ACTIVATIONS[self.dials.activation]()]
            if self.dials.dropout:
                layers.append(nn.Dropout(self.dials.dropout))
            width = hidden
        return nn.Sequential(*layers, nn.Linear(width, self.outputs))
