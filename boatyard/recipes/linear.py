"""One layer: logistic regression for labels, least squares for numbers."""

from __future__ import annotations

import math

from torch import nn

from boatyard.recipes import Recipe


class Linear(Recipe):
    """Every feature has one weight for every output; images are flattened."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(self.shape), self.outputs))
